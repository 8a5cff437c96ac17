from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest

from perf_middleware import errors
from perf_middleware.errors import OptionError, StoreError
from perf_middleware.record import Finding, Profile, Query
from perf_middleware.sinks import rolling
from perf_middleware.sinks.rolling import MAX_WAITING, Rolling
from perf_middleware.stats.read import merged, routes
from perf_middleware.stats.window import KEPT_S, ROUTE, windows_at
from perf_middleware.stores import StoreUnavailable, open_store
from perf_middleware.stores.memory import MemoryStore

PROFILE = Profile(
    name="GET /x",
    duration_ms=10.0,
    query_count=3,
    db_ms=3.0,
    queries=[Query(fingerprint="select ?", duration_ms=1.0, caller="a.py:1 in f")] * 3,
)


@pytest.fixture
def memory_url(request):
    return f"memory://{os.getpid()}-{request.node.name}"


@pytest.fixture
def open_sink():
    sinks = []

    def open_sink(url, **options):
        sink = Rolling(url, **{"service": "shop", "flush_interval_s": 3600, **options})
        sinks.append(sink)
        return sink

    yield open_sink
    for sink in sinks:
        sink.close()


class Away(MemoryStore):
    def __init__(self):
        super().__init__()
        self.away = True
        self.threads = set()

    def apply(self, batch, after):
        self.threads.add(threading.current_thread().name)
        if self.away:
            raise StoreUnavailable("away")
        return super().apply(batch, after)


@pytest.fixture
def away(monkeypatch):
    store = Away()
    monkeypatch.setattr(rolling, "open_store", lambda url, prefix: store)
    return store


def n(url):
    return routes(open_store(url), "shop").n


def test_a_sink_that_is_not_used_has_no_thread_and_no_file(open_sink, tmp_path):
    threads = threading.active_count()
    sink = open_sink(f"sqlite:///{tmp_path}/stats.sqlite3")
    assert sink.flush(0)
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []
    assert sink.status()["recorded"] == 0


def test_importing_the_sink_does_not_import_redis_or_sqlite():
    code = (
        "import sys; from perf_middleware.sinks.rolling import Rolling;"
        "Rolling('redis://localhost', service='s'); Rolling('memory://', service='s');"
        "sys.exit(bool({'redis', 'sqlite3', 'hiredis'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_url_of_no_store_is_refused_when_the_sink_is_made():
    with pytest.raises(OptionError, match="accepted"):
        Rolling("mysql://host", service="shop")


@pytest.mark.parametrize("odd", [None, object(), Profile(duration_ms="x"), Profile(name=7)])
def test_nothing_odd_reaches_the_application(open_sink, memory_url, monkeypatch, odd):
    monkeypatch.setattr(errors, "_last_logged", time.monotonic())
    sink = open_sink(memory_url)
    faults = errors.faults.total()
    sink(odd)
    sink(PROFILE)
    sink.flush(10)
    assert errors.faults.total() == faults + 1
    assert n(memory_url) == 1
    status = sink.status()
    assert status["recorded"] == status["flushed"] + status["dropped"]


def test_a_flush_makes_totals_exact_and_status_adds_up(open_sink, memory_url):
    sink = open_sink(memory_url)
    for _ in range(5):
        sink(PROFILE)
    assert sink.status()["pending"] == 5
    assert sink.flush(10)
    assert n(memory_url) == 5
    status = sink.status()
    assert status.pop("flush_ms") > 0
    assert status == {
        "recorded": 5,
        "flushed": 5,
        "pending": 0,
        "dropped": 0,
        "duplicates": 0,
        "lost": 0,
        "failures": 0,
        "last_error": None,
    }


def test_four_threads_are_counted_exactly_in_every_tier(open_sink, memory_url):
    sink = open_sink(memory_url, flush_interval_s=0.01)
    second = time.time()
    threads = [threading.Thread(target=lambda: [sink(PROFILE) for _ in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sink.flush(10)
    assert sink.status()["flushed"] == 20_000
    store = open_store(memory_url)
    for tier in KEPT_S[ROUTE]:
        touched = {window for at in range(int(second), int(time.time()) + 1) for window in windows_at(ROUTE, at)}
        rows = store.read("shop", [window for window in touched if window.tier == tier])
        (row,) = merged(rows).values()
        assert (row.n, row.queries, row.durations.total(), row.counts.total()) == (20_000, 60_000, 20_000, 20_000)


def test_requests_fold_themselves_when_the_thread_cannot_keep_up(open_sink, memory_url):
    sink = open_sink(memory_url)
    for _ in range(3 * MAX_WAITING):
        sink(PROFILE)
        assert len(sink._flusher._queue) <= MAX_WAITING + 1
    assert sink.flush(30)
    assert n(memory_url) == 3 * MAX_WAITING


def test_a_store_that_is_away_harms_nothing_is_told_once_and_loses_nothing(open_sink, away, caplog):
    sink = open_sink("redis://away")
    faults = errors.faults["store: StoreUnavailable"]
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            sink(PROFILE)
            assert not sink.flush(10)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["perf.store"]
    status = sink.status()
    assert (status["pending"], status["dropped"], status["last_error"]) == (20, 0, "StoreUnavailable")
    assert errors.faults["store: StoreUnavailable"] == faults + status["failures"] > faults
    away.away = False
    assert sink.flush(10)
    assert sink.status()["flushed"] == routes(away, "shop").n == 20


def test_a_second_outage_is_told_again(open_sink, away, caplog):
    sink = open_sink("redis://away")
    for _ in range(2):
        away.away = True
        sink(PROFILE)
        assert not sink.flush(10)
        away.away = False
        assert sink.flush(10)
    assert len(caplog.records) == 2


def test_a_long_outage_drops_the_oldest_and_counts_exactly(open_sink, away):
    sink = open_sink("redis://away")
    for _ in range(100):
        sink(PROFILE)
        sink.flush(10)
    status = sink.status()
    assert status["dropped"] == 40
    assert status["recorded"] == status["pending"] + status["dropped"] == 100
    away.away = False
    sink(PROFILE)
    assert sink.flush(10)
    stats = routes(away, "shop")
    assert stats.n == sink.status()["flushed"] == 61
    assert stats.routes[0].top_queries[0].fingerprint == "select ?"


def test_only_the_sinks_own_thread_talks_to_the_store(open_sink, away):
    away.away = False
    sink = open_sink("redis://away")
    sink(PROFILE)
    sink.flush(10)
    sink.close()
    assert away.threads == {"perf-middleware-rolling"}


def test_an_unreachable_server_is_an_outage_like_any_other(open_sink):
    sink = open_sink("redis://127.0.0.1:1")
    sink(PROFILE)
    assert not sink.flush(10)
    assert sink.status()["last_error"] == "ConnectionError"
    assert sink.status()["pending"] == 1


def test_a_sink_can_be_closed_twice_and_used_again(open_sink, memory_url):
    sink = open_sink(memory_url)
    sink(PROFILE)
    assert sink.close()
    assert sink.close()
    sink(PROFILE)
    assert sink.close()
    assert n(memory_url) == 2


def test_a_sink_nobody_holds_goes_away(memory_url):
    sink = Rolling(memory_url, service="shop", flush_interval_s=0.01)
    sink(PROFILE)
    thread, gone = sink._flusher._thread, weakref.ref(sink)
    del sink
    gc.collect()
    assert gone() is None
    thread.join(10)
    assert not thread.is_alive()
    assert n(memory_url) == 1


def test_two_databases_and_findings_arrive(open_sink, memory_url):
    finding = Finding(
        finding_id="i",
        kind="k",
        severity="low",
        confidence="low",
        threshold="t",
        title="T",
        fingerprint="f",
        caller="c",
    )
    sink = open_sink(memory_url)
    sink(Profile(name="GET /y", duration_ms=1.0, findings=[finding]))
    sink.flush(10)
    (route,) = routes(open_store(memory_url), "shop").routes
    assert (route.findings[0].title, route.findings[0].caller) == ("T", "c")


def _child(sink, url, connection):
    before = sink.status()["recorded"], sink._flusher._thread
    sink(PROFILE)
    flushed = sink.flush(30)
    connection.send((before, flushed, sink._flusher._worker, sink.status()["flushed"]))


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_is_survived_without_a_hook_and_nothing_is_sent_twice(request, open_sink, tmp_path, kind):
    url = f"sqlite:///{tmp_path}/s.sqlite3" if kind == "sqlite" else request.getfixturevalue("valkey_url")
    service = f"fork-{os.getpid()}-{time.monotonic_ns()}"
    sink = open_sink(url, service=service)
    sink(PROFILE)
    assert sink.flush(10)
    sink(PROFILE)
    context = multiprocessing.get_context("fork")
    children = []
    for _ in range(3):
        here, there = context.Pipe()
        child = context.Process(target=_child, args=(sink, url, there))
        child.start()
        children.append((child, here))
    answers = [here.recv() for _, here in children]
    for child, _ in children:
        child.join()
    assert [(before, flushed, count) for before, flushed, _, count in answers] == [((0, None), True, 1)] * 3
    assert len({worker for _, _, worker, _ in answers} | {sink._flusher._worker}) == 4
    assert sink.flush(10)
    store = open_store(url)
    assert routes(store, service).n == 2 + 3
    store.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_of_multiprocessing_leaves_nothing_behind_when_it_ends(open_sink, tmp_path, method):
    url = f"sqlite:///{tmp_path}/s.sqlite3"
    sink = open_sink(url, service="shop")
    sink(PROFILE)
    sink.flush(10)
    code = f"""
import multiprocessing
from perf_middleware.record import Profile
from perf_middleware.sinks.rolling import Rolling

def work():
    sink = Rolling({url!r}, service="shop", flush_interval_s=60)
    sink(Profile(name="GET /x", duration_ms=1.0))

if __name__ == "__main__":
    sink = Rolling({url!r}, service="shop", flush_interval_s=60)
    sink(Profile(name="GET /x", duration_ms=1.0))
    child = multiprocessing.get_context({method!r}).Process(target=work)
    child.start()
    child.join(20)
"""
    script = tmp_path / "parent.py"
    script.write_text(code, encoding="utf-8")
    subprocess.run([sys.executable, script], check=True, timeout=40)
    assert n(url) == 3


def test_a_forked_child_reads_its_own_memory(open_sink, memory_url):
    sink = open_sink(memory_url)
    sink(PROFILE)
    assert sink.flush(10)
    child = os.fork()
    if child == 0:
        sink(PROFILE)
        sink(PROFILE)
        os._exit(n(memory_url) if sink.flush(10) else 99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert n(memory_url) == 1


def test_a_batch_that_can_never_be_stored_is_told_and_counted(open_sink, away, caplog, monkeypatch):
    away.away = False
    refuse = [True]
    applied = away.apply

    def apply(batch, after):
        if refuse.pop() if refuse else False:
            raise StoreError("never")
        return applied(batch, after)

    monkeypatch.setattr(away, "apply", apply)
    sink = open_sink("redis://away")
    sink(PROFILE)
    assert sink.flush(10)
    sink(PROFILE)
    assert sink.flush(10)
    assert len(caplog.records) == 1
    status = sink.status()
    assert (status["flushed"], status["dropped"], status["last_error"]) == (1, 1, "StoreError")
    assert routes(away, "shop").routes[0].top_queries[0].fingerprint == "select ?"


def _count(url, service, records):
    sink = Rolling(url, service=service, flush_interval_s=0.02)
    for _ in range(records):
        sink(PROFILE)
    sys.exit(0 if sink.close(30) else 1)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_four_processes_are_counted_exactly(request, tmp_path, kind):
    url = f"sqlite:///{tmp_path}/new/s.sqlite3" if kind == "sqlite" else request.getfixturevalue("valkey_url")
    service = f"four-{os.getpid()}-{time.monotonic_ns()}"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count, args=(url, service, 2000)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    store = open_store(url)
    (route,) = routes(store, service).routes
    store.close()
    assert (route.n, route.queries, route.top_queries[0].count) == (8000, 24_000, 24_000)


def test_the_end_of_the_process_flushes(tmp_path):
    url = f"sqlite:///{tmp_path}/s.sqlite3"
    code = (
        "from perf_middleware.sinks.rolling import Rolling; from perf_middleware.record import Profile;"
        f"sink = Rolling({url!r}, service='shop'); [sink(Profile(name='x')) for _ in range(7)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    store = open_store(url)
    assert routes(store, "shop").n == 7
    store.close()


def test_a_store_that_hangs_does_not_hold_up_the_end_of_the_process():
    code = (
        "import socket; from perf_middleware.sinks.rolling import Rolling; from perf_middleware.record import Profile;"
        "import perf_middleware.sinks.rolling as r, threading;"
        "hang = type('S', (), {'apply': lambda *a: threading.Event().wait()})();"
        "r.open_store = lambda url, prefix: hang;"
        "sink = Rolling(service='shop'); sink(Profile(name='x'))"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    assert time.monotonic() - began < 15


def test_a_store_that_never_answers_costs_a_request_nothing_and_memory_is_bounded(open_sink, monkeypatch):
    asked, answer = threading.Event(), threading.Event()

    class Hanging(MemoryStore):
        def apply(self, batch, after):
            asked.set()
            answer.wait(60)
            return super().apply(batch, after)

    store = Hanging()
    monkeypatch.setattr(rolling, "open_store", lambda url, prefix: store)
    sink = open_sink("redis://hanging")
    sink(PROFILE)
    assert not sink.flush(0)
    asked.wait(10)
    for _ in range(2 * MAX_WAITING):
        sink(PROFILE)
    assert len(sink._flusher._queue) <= MAX_WAITING + 1
    assert sink.status()["pending"] == 2 * MAX_WAITING + 1
    answer.set()
    assert sink.flush(30)
    assert routes(store, "shop").n == 2 * MAX_WAITING + 1
