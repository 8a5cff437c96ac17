"""The order of things, and that none of it reaches the application: sampling, header levels, sinks that fail."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import time
from random import Random

import pytest

from perf_middleware import errors, profile
from perf_middleware import pipeline as pipelines
from perf_middleware.collector import status, unattributed
from perf_middleware.errors import OptionError, faults
from perf_middleware.wsgi import PerfMiddleware


def serve(app, **environ):
    """Serve one request; gives its header pairs."""
    told = []
    body = app({"REQUEST_METHOD": "GET", **environ}, lambda status, headers, *_: told.extend(headers))
    list(body)
    getattr(body, "close", list)()
    return dict(told)


def asking(query, count, *, status="200 OK", error=None):
    def app(environ, start_response):
        query(count)
        if error:
            raise error
        start_response(status, [])
        return []

    return app


# Switches


def test_switched_off_nothing_is_patched_and_blocks_are_empty():
    program = """
import sqlite3, sys, threading
before = sqlite3.connect
from perf_middleware import profile
from perf_middleware.wsgi import PerfMiddleware
app = PerfMiddleware(lambda environ, start_response: [], enabled=False)
with profile("p") as p:
    sqlite3.connect(":memory:").execute("SELECT 1")
assert app({}, None) == []
app.close()
assert sqlite3.connect is before is sqlite3.dbapi2.connect
assert (p.name, p.query_count, p.id) == ("p", 0, ""), p
assert threading.active_count() == 1
assert "structlog" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr == ""


def test_closing_unhooks_the_drivers(profiled):
    middleware = profiled(PerfMiddleware, None)
    assert status()["sqlite3"] == "hooked"
    middleware.close()
    middleware.close()
    assert status()["sqlite3"] == "uninstalled"


def test_no_driver_named_hooks_none(profiled):
    profiled(PerfMiddleware, None, drivers=[])
    assert status().get("sqlite3", "uninstalled") == "uninstalled"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"detectors": ["n_plus_on"]}, ("detectors", "n_plus_on", "did you mean 'n_plus_one'", "slow_query")),
        ({"drivers": ["pymysq"]}, ("drivers", "pymysq", "did you mean 'pymysql'", "sqlite3")),
        ({"thresholds": {"slow": 5}}, ("thresholds", "slow", "slow_query")),
        ({"store": "redsi://h"}, ("store", "redis")),
        ({"jsonl": "/nowhere/at/all.jsonl"}, ("jsonl", "/nowhere/at/all.jsonl", "folder")),
    ],
)
def test_a_name_nobody_has_is_refused_at_construction_and_nothing_is_hooked(options, words):
    with pytest.raises(OptionError) as raised:
        PerfMiddleware(None, **options)
    assert [word for word in words if word not in str(raised.value)] == []
    assert status().get("sqlite3", "uninstalled") == "uninstalled"


# Metamorphic: the input moves, the output moves with it, and nothing else does


@pytest.mark.parametrize("count", [0, 1, 7, 14])
def test_twice_the_queries_are_twice_the_count(profiled, query, count):
    wrapped = profiled(PerfMiddleware, asking(query, count))
    serve(wrapped)
    serve(profiled(PerfMiddleware, asking(query, 2 * count)))
    assert [p.query_count for p in profiled.profiles] == [count, 2 * count]
    assert [len(p.queries) for p in profiled.profiles] == [count, 2 * count]


def test_a_slow_query_moves_the_times_and_no_count(profiled, query, monkeypatch):
    def ask(work):
        def app(environ, start_response):
            connection = sqlite3.connect(":memory:")
            connection.create_function("work", 0, lambda: sum(range(work)))
            connection.cursor().execute("SELECT work()").fetchone()
            connection.close()
            start_response("200 OK", [])
            return []

        return app

    wrapped = [profiled(PerfMiddleware, ask(work)) for work in (1, 1_000_000)]
    for app in wrapped:
        serve(app)
    quick, slow = profiled.profiles
    assert quick.query_count == slow.query_count == 1
    assert slow.db_ms > 5 * quick.db_ms
    assert slow.duration_ms >= slow.db_ms > 0


@pytest.mark.parametrize("step_s", [-86_400.0, 86_400.0])
def test_stepping_the_wall_clock_changes_no_duration(profiled, query, monkeypatch, step_s):
    really = time.time

    def app(environ, start_response):
        query()
        monkeypatch.setattr(time, "time", lambda: really() + step_s)
        query()
        start_response("200 OK", [])
        return []

    serve(profiled(PerfMiddleware, app))
    (p,) = profiled.profiles
    assert 0 < p.db_ms < p.duration_ms < 60_000
    assert 0 <= p.own_ms < 60_000
    assert all(0 <= row.start_ms < 60_000 and row.duration_ms < 60_000 for row in p.queries)


# Sampling


def test_at_rate_0_counts_are_exact_without_rows_and_findings_and_only_unusual_ones_reach_the_sinks(profiled, query):
    options = {"sample_rate": 0}
    serve(profiled(PerfMiddleware, asking(query, 30), **options))
    assert profiled.profiles == []
    serve(profiled(PerfMiddleware, asking(query, 30, status="503 Busy"), **options))
    serve(profiled(PerfMiddleware, asking(query, 30), slow_request_ms=0, **options))
    with pytest.raises(KeyError):
        serve(profiled(PerfMiddleware, asking(query, 30, error=KeyError("x")), **options))
    assert [p.query_count for p in profiled.profiles] == [30] * 3
    assert [p.weight for p in profiled.profiles] == [1.0] * 3
    assert all(p.queries == [] and p.findings == [] and p.db_ms > 0 and not p.truncated for p in profiled.profiles)


def test_at_rate_0_headers_still_tell_the_exact_count(profiled, query):
    assert serve(profiled(PerfMiddleware, asking(query, 30), sample_rate=0, headers="full"))["X-Perf-Queries"] == "30"


def test_at_rate_a_half_half_of_the_healthy_are_kept_with_weight_2(profiled, query, monkeypatch):
    monkeypatch.setattr(pipelines, "_chance", Random(7))
    wrapped = profiled(PerfMiddleware, asking(query, 1), sample_rate=0.5)
    for _ in range(200):
        serve(wrapped)
    kept = len(profiled.profiles)
    assert 80 <= kept <= 120
    assert {p.weight for p in profiled.profiles} == {2.0}
    assert {len(p.queries) for p in profiled.profiles} == {1}


def test_stats_see_every_request_whatever_is_sampled(profiled, query):
    wrapped = profiled(PerfMiddleware, asking(query, 2), sample_rate=0)
    for _ in range(5):
        serve(wrapped)
    assert profiled.profiles == []
    assert wrapped.pipeline.rolling.status()["recorded"] == 5


def test_a_child_is_sampled_as_its_parent_is(profiled, query):
    def app(environ, start_response):
        with profile("child"):
            query(2)
        start_response("500 Oh", [])
        return []

    serve(profiled(PerfMiddleware, app, sample_rate=0, slow_request_ms=0))
    assert [(p.kind, p.query_count, p.queries) for p in profiled.profiles] == [("block", 2, []), ("request", 2, [])]


# Header levels


@pytest.mark.parametrize("level", ["off", False])
def test_a_function_may_say_nothing_is_told(profiled, query, level):
    assert serve(profiled(PerfMiddleware, asking(query, 1), headers=lambda request: level)) == {}


@pytest.mark.parametrize("rubbish", [None, 7, "everything", "TIMING", [], object()])
def test_a_function_that_answers_rubbish_tells_nothing(profiled, query, rubbish):
    before = faults["answer: OptionError"]
    assert serve(profiled(PerfMiddleware, asking(query, 1), headers=lambda request: rubbish)) == {}
    assert faults["answer: OptionError"] == before + 1
    assert profiled.profiles[0].first_byte_ms is not None


def test_a_function_that_raises_tells_nothing(profiled, query):
    assert serve(profiled(PerfMiddleware, asking(query, 1), headers=lambda request: request["nobody has this"])) == {}
    assert len(profiled.profiles) == 1


def test_a_function_sees_the_request(profiled, query):
    wrapped = profiled(
        PerfMiddleware, asking(query, 12), headers=lambda request: "full" if request["REMOTE_ADDR"] == "::1" else True
    )
    assert "X-Perf-Findings" in serve(wrapped, REMOTE_ADDR="::1")
    stranger = serve(wrapped, REMOTE_ADDR="::2")
    assert "X-Perf-Findings" not in stranger
    assert stranger["X-Perf-Queries"] == "12"


def test_findings_are_made_again_only_when_queries_were_added(profiled, query, monkeypatch):
    made = []
    find = pipelines.detectors.find
    monkeypatch.setattr(pipelines.detectors, "find", lambda *args: made.append(1) or find(*args))

    def streaming(environ, start_response):
        query(12)
        start_response("200 OK", [])
        yield b"x"
        query(environ["more"])

    wrapped = profiled(PerfMiddleware, streaming, headers="full")
    serve(wrapped, more=0)
    assert len(made) == 1
    serve(wrapped, more=3)
    assert len(made) == 3
    assert [p.findings[0].count for p in profiled.profiles] == [12, 15]


# Faults of ours and of the sinks


def test_a_sink_that_profiles_a_block_of_its_own_is_not_asked_about_that_block(profiled, query):
    asked = []

    def sink(finished):
        asked.append(finished.kind)
        with profile("write"):
            query(1)

    serve(profiled(PerfMiddleware, asking(query, 1), sinks=[sink, sink]))
    assert asked == ["request", "request"]


def test_a_logging_handler_that_raises_on_our_fault_harms_nobody(profiled, monkeypatch):
    class Full(logging.Handler):
        def emit(self, record):
            raise OSError("disk full")

    handler = Full()
    logging.getLogger().addHandler(handler)
    monkeypatch.setattr(errors, "_last_logged", None)
    wrapped = profiled(PerfMiddleware, lambda environ, start_response: start_response("200 OK", [("A", "b")]) and [])
    monkeypatch.setattr(wrapped.pipeline, "_begin", lambda *args: 1 / 0)
    try:
        assert list(wrapped({"REQUEST_METHOD": "GET"}, lambda *args: None) or []) == []
    finally:
        logging.getLogger().removeHandler(handler)


def test_a_sink_that_raises_harms_neither_the_response_nor_the_other_sinks(profiled, query):
    def broken(p):
        raise RuntimeError

    before = faults["sink broken: RuntimeError"]
    headers = serve(profiled(PerfMiddleware, asking(query, 1), sinks=[broken, profiled.profiles.append]))
    assert headers["X-Perf-Queries"] == "1"
    assert len(profiled.profiles) == 1
    assert faults["sink broken: RuntimeError"] == before + 1


def test_a_detector_that_raises_loses_no_record(profiled, query, monkeypatch):
    def broken(*args):
        raise RuntimeError

    monkeypatch.setattr(pipelines.detectors, "analyze", broken)
    serve(profiled(PerfMiddleware, asking(query, 3), headers="full"))
    (p,) = profiled.profiles
    assert (p.query_count, p.findings) == (3, [])


def test_the_queries_of_a_sink_are_nobodys(profiled, query):
    before = unattributed.count
    serve(profiled(PerfMiddleware, asking(query, 1), sinks=[lambda p: query(5), profiled.profiles.append]))
    assert profiled.profiles[0].query_count == 1
    assert unattributed.count == before + 5


def test_the_queries_of_a_childs_sink_are_not_its_parents(profiled, query):
    def app(environ, start_response):
        with profile("child"):
            query(1)
        start_response("200 OK", [])
        return []

    serve(profiled(PerfMiddleware, app, sinks=[lambda p: query(5), profiled.profiles.append]))
    assert [p.query_count for p in profiled.profiles] == [1, 1]


# Names


def test_beyond_max_routes_names_are_other(profiled, query):
    wrapped = profiled(PerfMiddleware, asking(query, 0), max_routes=2)
    for method in ("GET", "POST", "PUT", "GET", "DELETE"):
        serve(wrapped, REQUEST_METHOD=method)
    names = [p.name for p in profiled.profiles]
    assert names == ["GET (unmatched)", "POST (unmatched)", "(other)", "GET (unmatched)", "(other)"]


# Blocks without a middleware


def run(program, **environ):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={"PATH": "", **environ}
    )


BLOCKS = """
import sqlite3
from perf_middleware import profile
for name in "ab":
    with profile(name) as p:
        sqlite3.connect(":memory:").cursor().execute("SELECT 1")
    print(p.name, p.query_count, p.service)
"""


def test_blocks_alone_take_the_environments_options():
    done = run(BLOCKS, PERF_MIDDLEWARE_SERVICE="batch", PERF_MIDDLEWARE_LOG="no")
    assert (done.stdout, done.stderr) == ("a 1 batch\nb 1 batch\n", "")


def test_blocks_alone_obey_enabled():
    done = run(BLOCKS, PERF_MIDDLEWARE_ENABLED="0")
    assert (done.stdout, done.stderr) == ("a 0 None\nb 0 None\n", "")


def test_blocks_alone_refuse_a_bad_environment():
    done = run(BLOCKS, PERF_MIDDLEWARE_SAMPLE_RAET="1")
    assert "did you mean 'sample_rate'" in done.stderr
    assert done.returncode == 1


def test_a_request_inside_a_sampled_one_has_its_weight_whatever_its_own_rate(profiled):
    def inner_app(environ, start_response):
        start_response("200 OK", [])
        return []

    inner_profiles = []
    inner = profiled(PerfMiddleware, inner_app, sample_rate=0.0, sinks=[inner_profiles.append])

    def outer_app(environ, start_response):
        inner({"REQUEST_METHOD": "GET"}, lambda *_: None)
        start_response("200 OK", [])
        return []

    outer = profiled(PerfMiddleware, outer_app)
    outer({"REQUEST_METHOD": "GET"}, lambda *_: None)

    assert [p.weight for p in inner_profiles] == [1.0]
