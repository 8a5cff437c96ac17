"""Sixty-four threads through the WSGI door, on real databases: each request is compared with what they were sent."""

from __future__ import annotations

import contextvars
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from wsgiref.util import setup_testing_defaults

import pymysql
import pytest

from perf_middleware import profile
from perf_middleware.collector import unattributed
from perf_middleware.wsgi import PerfMiddleware

THREADS, ROUNDS = 64, 3


class SQLite:
    """A connection of a thread's own; SQLite's trace says what it was sent."""

    def __init__(self):
        self.traced = []
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)
        self.connection.set_trace_callback(self.traced.append)

    def ask(self, text):
        self.connection.execute(text).fetchall()

    def sent(self):
        return len(self.traced)


class MariaDB:
    """A connection of a thread's own; the server's counter of its session says what it was sent."""

    def __init__(self, server):
        options = {name: getattr(server, name) for name in ("host", "port", "user", "password", "database")}
        self.connection = pymysql.connect(**options, autocommit=True, ssl_disabled=True)

    def ask(self, text):
        with self.connection.cursor() as cursor:
            cursor.execute(text)
            cursor.fetchall()

    def sent(self):
        with self.connection.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Com_select'")
            return int(cursor.fetchone()[1])


@pytest.fixture(params=["sqlite", "mariadb"])
def connect(request, profiled):
    """Open a database for a thread; all are closed at the end."""

    def connecting():
        database = SQLite() if server is None else MariaDB(server)
        opened.append(database)
        return database

    opened = []
    server = request.getfixturevalue("mariadb") if request.param == "mariadb" else None
    yield connecting
    for database in opened:
        database.connection.close()


def serve(app, owner, body=None):
    """One request; its number of queries by the header, when its body was read."""
    environ = {"PATH_INFO": f"/{owner}", "HTTP_X_PERF_ID": f"r{owner}"}
    setup_testing_defaults(environ)
    told = {}
    response = app(environ, lambda status, headers, exc_info=None: told.update(headers))
    try:
        for _ in response:
            pass
    finally:
        if hasattr(response, "close"):
            response.close()
    return int(told["X-Perf-Queries"])


def test_no_query_of_64_threads_goes_to_another_request(profiled, connect):
    """Two barriers in each request: all 64 are open at once, and between two queries of each the others run theirs."""

    def app(environ, start_response):
        owner = int(environ["PATH_INFO"][1:])
        database = databases[threading.get_ident()]
        everybody.wait()
        for number in range(owner % 11):
            database.ask(f"SELECT {number} AS of_{owner}")
        everybody.wait()
        database.ask(f"SELECT 1 AS of_{owner}")
        start_response("200 OK", [])
        if owner % 2:
            return [b"x"]
        return streamed(database, owner)

    def streamed(database, owner):
        yield b"x"
        everybody_streams.wait()
        database.ask(f"SELECT 2 AS of_{owner}")

    def work(first):
        database = databases[threading.get_ident()] = connect()
        for turn in range(ROUNDS):
            owner = first + turn * THREADS
            before = database.sent()
            told[owner] = serve(wrapped, owner)
            sent[f"r{owner}"] = database.sent() - before

    wrapped = profiled(PerfMiddleware, app)
    databases, told, sent = {}, {}, {}
    everybody = threading.Barrier(THREADS, timeout=60)
    everybody_streams = threading.Barrier(THREADS // 2, timeout=60)
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))
    assert len(databases) == THREADS
    assert {p.id: p.query_count for p in profiled.profiles} == sent
    assert told == {owner: owner % 11 + 1 for owner in range(THREADS * ROUNDS)}
    strangers = [(p.id, q.fingerprint) for p in profiled.profiles for q in p.queries if mark(p) not in q.fingerprint]
    assert strangers == []


def mark(profile):
    return f"of_{profile.id[1:]}"


def test_a_thread_that_outlives_its_request_is_nobodys_while_another_request_is_open(profiled, connect):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/0":
            late.append(threading.Thread(target=contextvars.copy_context().run, args=(outlive, connect())))
            late.append(threading.Thread(target=outlive, args=(connect(),)))
            for thread in late:
                thread.start()
        else:
            own.ask("SELECT 1 AS of_1")
            gate.set()
            for thread in late:
                thread.join()
        start_response("200 OK", [])
        return [b"x"]

    def outlive(database):
        gate.wait(60)
        database.ask("SELECT 1 AS of_nobody")

    gate, late = threading.Event(), []
    wrapped = profiled(PerfMiddleware, app)
    own = connect()
    before = unattributed.count
    assert [serve(wrapped, 0), serve(wrapped, 1)] == [0, 1]
    assert [(p.id, p.query_count) for p in profiled.profiles] == [("r0", 0), ("r1", 1)]
    assert unattributed.count - before == 2


def test_blocks_in_64_threads_do_not_mix(profiled, connect):
    def work(owner):
        database = connect()
        everybody.wait()
        with profile(f"outer-{owner}") as outer:
            database.ask(f"SELECT 1 AS of_{owner}")
            everybody.wait()
            with profile(f"inner-{owner}") as inner:
                for number in range(owner % 5):
                    database.ask(f"SELECT {number} AS of_{owner}")
                everybody.wait()
        return outer.query_count, inner.query_count

    profiled(PerfMiddleware, None)
    everybody = threading.Barrier(THREADS, timeout=60)
    with ThreadPoolExecutor(THREADS) as threads:
        counts = list(threads.map(work, range(THREADS)))
    assert counts == [(owner % 5 + 1, owner % 5) for owner in range(THREADS)]
    assert all(f"of_{p.name.partition('-')[2]}" in q.fingerprint for p in profiled.profiles for q in p.queries)
