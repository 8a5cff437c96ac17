"""What a request gives with nobody but the detectors to look at it: no sink, so that no row was made beforehand."""

from __future__ import annotations

import asyncio
import sqlite3
from time import perf_counter_ns

import pytest

from perf_middleware import asgi, wsgi
from perf_middleware.collector.context import current
from perf_middleware.collector.noting import note_wait
from perf_middleware.collector.rows import Target


@pytest.fixture(params=["no sink", "sink"])
def found(request, profiled):
    """`found(work)` serves a request that does it on a database; gives the kinds that its headers tell."""

    def serve(work, **thresholds):
        def app(environ, start_response):
            work(connect())
            start_response("200 OK", [])
            return []

        given = [] if request.param == "no sink" else [profiled.profiles.append]
        served = profiled(wsgi.PerfMiddleware, app, headers="full", sinks=given, thresholds=thresholds)
        told = []
        list(served({"REQUEST_METHOD": "GET"}, lambda status, headers, *_: told.extend(headers)))
        kinds = _kinds(dict(told))
        if profiled.profiles:
            assert kinds == {finding.kind for finding in profiled.profiles[-1].findings}
        return kinds

    return serve


def connect():
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, title TEXT)")
    connection.commit()
    return connection


def _kinds(headers):
    told = headers.get("X-Perf-Findings", "")
    return {finding.partition(";")[0].strip() for finding in told.split(",") if finding}


def fill(connection, rows=12_000):
    connection.executemany("INSERT INTO item (title) VALUES (?)", [("a rather long title " * 4,)] * rows)


def test_few_queries_and_a_batch_are_nothing(found):
    def work(connection):
        for _ in range(6):
            fill(connection, 20)
        connection.execute("SELECT title FROM item").fetchall()

    assert found(work) == set()


def test_a_write_loop(found):
    def work(connection):
        for row in range(6):
            connection.execute("INSERT INTO item (title) VALUES (?)", (f"title {row}",))
        for row in range(6):
            connection.execute(f"UPDATE item SET title = 'new' WHERE id = {row}")

    assert found(work) == {"write_loop"}


def test_a_hundred_different_queries(found):
    def work(connection):
        for column in range(100):
            connection.execute(f"SELECT id AS column_{column} FROM item")

    assert found(work) == {"query_count"}


def test_a_large_result(found):
    def work(connection):
        fill(connection)
        connection.execute("SELECT id, title FROM item").fetchall()

    assert found(work) == {"large_result"}


def test_a_slow_fetch(found):
    def work(connection):
        fill(connection, 900)
        connection.execute("SELECT id, title FROM item").fetchall()

    assert found(work, slow_fetch=0.000_001) == {"slow_fetch"}


def test_a_long_transaction(found):
    def work(connection):
        connection.execute("INSERT INTO item (title) VALUES ('a')")
        sum(range(300_000))  # milliseconds, against microseconds in the statements
        connection.execute("INSERT INTO item (title, id) VALUES ('b', 7)")
        connection.commit()

    assert found(work, long_transaction=0.001) == {"long_transaction"}


def test_a_wait_for_the_pool(found):
    def work(connection):
        end_ns = perf_counter_ns()
        note_wait(current.get(), Target("sqlite", "main"), end_ns - 200_000_000, end_ns)
        connection.execute("SELECT id FROM item")

    assert found(work) == {"pool_wait"}


@pytest.mark.parametrize("on_a_thread", [True, False])
def test_a_call_on_the_event_loop(profiled, on_a_thread):
    def work():
        connect().execute("SELECT id FROM item").fetchall()

    async def app(scope, receive, send):
        if on_a_thread:
            await asyncio.to_thread(work)
        else:
            work()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def request():
        served = profiled(asgi.PerfMiddleware, app, headers="full", sinks=[], thresholds={"blocking_call": 0.000_001})
        sent = []

        async def send(message):
            sent.append(message)

        await served({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send)
        return {name.decode(): value.decode() for name, value in sent[0]["headers"]}

    told = {name.title(): value for name, value in asyncio.run(request()).items()}
    assert _kinds(told) == (set() if on_a_thread else {"blocking_call"})
