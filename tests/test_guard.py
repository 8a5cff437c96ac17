"""The overhead guard: what it must not do, when it sheds and takes up again, and that counters never go."""

from __future__ import annotations

import logging
import re
import sqlite3
from random import Random
from threading import Thread

import pytest

from perf_middleware import profile
from perf_middleware.collector.context import METERED_QUERIES, Capture
from perf_middleware.guard import BLOCK_REQUESTS, LONGEST_PAUSE_NS, ORDER, SAMPLES, Guard, Meter
from perf_middleware.headers import MAX_BYTES, render
from perf_middleware.record import Profile
from perf_middleware.wsgi import PerfMiddleware

MS = 1_000_000
S = 1000 * MS
ENOUGH = 2000  # requests, for any one change


@pytest.fixture
def guard():
    """Two percent allowed; hooks without frames, and the same chance each time."""
    return Guard(2.0, service="shop", frames_ns=0.0, chance=Random(1))


@pytest.fixture
def told(caplog):
    """What the log says was shed, in order."""
    caplog.set_level(logging.INFO, "perf_middleware")
    return lambda: re.findall(r"perf\.overhead service=shop shed=(\w+)", caplog.text)


class Traffic:
    """Requests of an invented cost, on an invented clock."""

    def __init__(self, guard):
        self.guard = guard
        self.now_ns = 0
        self.tries = self.requests = 0

    def serve(self, requests, *, app_ns=10 * MS, own_ns=0, queries=0):
        """So many requests; `own_ns` may be a number for each of what can be shed."""
        for _ in range(requests):
            self.requests += 1
            self.guard.until_watched -= 1
            watched = self.guard.until_watched <= 0
            shed = self.guard.begin(self.now_ns) if watched else self.guard.shed
            self.tries += ORDER.index(shed) < ORDER.index(self.guard.shed)
            own = own_ns[ORDER.index(shed)] if isinstance(own_ns, tuple) else own_ns
            start_ns = self.now_ns
            self.now_ns += app_ns + own
            if watched:
                capture = Capture(Profile(), keep=0 if shed == "rows" else 9, callers=shed is None)
                capture.start_ns = start_ns
                self.guard.watch(capture, shed)
                self.guard.observe(capture, Profile(query_count=queries, shed=shed), own, self.now_ns)


@pytest.fixture
def traffic(guard):
    return Traffic(guard)


# What sheds nothing


@pytest.mark.parametrize("own_ns", [0, 100_000, 199_000])
def test_a_cost_that_is_allowed_sheds_nothing(traffic, guard, told, own_ns):
    traffic.serve(20_000, own_ns=own_ns)
    assert guard.shed is None
    assert told() == []


def test_one_slow_moment_sheds_nothing(traffic, guard):
    traffic.serve(ENOUGH)
    traffic.serve(20, own_ns=100 * MS)
    traffic.serve(ENOUGH)
    assert guard.status()["changes"] == 0


def test_too_few_requests_shed_nothing(traffic, guard):
    traffic.serve(3 * BLOCK_REQUESTS - 1, own_ns=5 * MS)
    assert guard.shed is None


def test_a_night_of_health_checks_sheds_nothing(traffic, guard):
    traffic.serve(3000, app_ns=50_000, own_ns=20_000)
    assert guard.shed is None


@pytest.mark.parametrize("options", [{"max_percent": 0}, {"max_percent": 2.0, "can_shed": ()}])
def test_where_nothing_may_be_shed_the_cost_is_still_told(told, options):
    guard = Guard(**options, service="shop", frames_ns=0.0, chance=Random(1))
    Traffic(guard).serve(5 * ENOUGH, own_ns=5 * MS)
    assert guard.shed is None
    assert told() == []
    assert guard.status()["overhead_percent"] == pytest.approx(50)


def test_before_anything_ran_nothing_is_known(guard):
    status = guard.status()
    assert (status["shed"], status["overhead_percent"], status["query_ns"]) == (None, None, None)
    assert (status["requests"], status["query_samples"], status["changes"]) == (0, 0, 0)


# Shedding


def test_callers_are_shed_and_then_rows_and_each_is_told_once(traffic, guard, told):
    traffic.serve(ENOUGH, own_ns=MS)
    assert told()[:1] == ["callers"]
    traffic.serve(20 * ENOUGH, own_ns=MS)
    assert guard.shed == "rows"
    assert told() == ["callers", "rows"]
    assert guard.status()["overhead_percent"] == pytest.approx(10)


def test_what_is_told_has_the_numbers_it_came_from(traffic, caplog):
    traffic.serve(ENOUGH, own_ns=MS)
    (line,) = [record.getMessage() for record in caplog.records][:1]
    assert "shed=callers overhead_percent=10.00 max_overhead_percent=2 requests=96" in line


def test_where_callers_are_enough_rows_stay(traffic, guard):
    traffic.serve(50 * ENOUGH, own_ns=(MS, 190_000, 0))
    assert guard.shed == "callers"


def test_callers_that_nobody_notes_are_not_shed(told):
    guard = Guard(2.0, service="shop", can_shed=("rows",), frames_ns=0.0, chance=Random(1))
    Traffic(guard).serve(5 * ENOUGH, own_ns=MS)
    assert told() == ["rows"]


def test_a_long_poll_hides_nothing(traffic, guard):
    for _ in range(ENOUGH):
        traffic.serve(99, own_ns=3 * MS, app_ns=100 * MS)
        traffic.serve(1, own_ns=3 * MS, app_ns=300 * S)
    assert guard.shed is not None


def test_a_long_request_with_many_queries_is_judged_by_its_share(traffic, guard):
    traffic.serve(5 * ENOUGH, own_ns=S, app_ns=100 * S)
    assert guard.status()["overhead_percent"] == pytest.approx(1)


def test_noting_queries_counts(traffic, guard):
    guard._meters[None].samples_ns.extend([10_000] * SAMPLES)
    traffic.serve(20, queries=9, own_ns=0)
    assert guard._meters[None].query_ns == 10_000
    traffic.serve(ENOUGH, queries=9, own_ns=0)
    assert guard.status()["overhead_percent"] is None or guard.shed is None
    traffic.serve(ENOUGH, queries=90, own_ns=0)
    assert guard.shed is not None


@pytest.mark.parametrize("own_ns", [10_000, 20_000, 40_000])
def test_the_percentage_moves_with_the_cost(traffic, guard, own_ns):
    traffic.serve(ENOUGH, own_ns=own_ns)
    status = guard.status()
    assert status["overhead_percent"] == pytest.approx(own_ns / 100_000)
    assert status["requests"] == 3 * BLOCK_REQUESTS


def test_a_handler_that_raises_is_nobodys_problem(traffic, guard, monkeypatch):
    def handle(record):
        raise RuntimeError("no disk")

    monkeypatch.setattr(logging.getLogger("perf_middleware"), "handle", handle)
    traffic.serve(5 * ENOUGH, own_ns=MS)
    assert guard.shed == "rows"


# Taking up again


def test_all_is_back_step_by_step_once_it_costs_little(traffic, guard, told):
    traffic.serve(5 * ENOUGH, own_ns=MS)
    traffic.serve(500 * ENOUGH, own_ns=10_000)
    assert guard.shed is None
    assert told() == ["callers", "rows", "callers", "nothing"]
    assert guard.status()["changes"] == 4


def test_what_would_cost_too_much_stays_away(traffic, guard, told):
    traffic.serve(5 * ENOUGH, own_ns=MS)
    traffic.serve(100 * ENOUGH, own_ns=(MS, MS, 10_000))
    assert told() == ["callers", "rows"]


def test_what_costs_just_less_than_allowed_stays_away(traffic, guard, told):
    traffic.serve(5 * ENOUGH, own_ns=MS)
    traffic.serve(100 * ENOUGH, own_ns=150_000)
    assert told() == ["callers", "rows"]


def test_nothing_is_tried_soon_after_a_change(traffic, guard):
    while guard.shed is None:
        traffic.serve(1, own_ns=(MS, 10_000, 10_000))
    traffic.serve(900, own_ns=(MS, 10_000, 10_000))
    assert traffic.tries == 0
    traffic.serve(1000, own_ns=(MS, 10_000, 10_000))
    assert traffic.tries > 0


def test_vain_tries_become_rare(traffic, guard):
    cost = (100 * MS, 10_000, 10_000)
    traffic.serve(100 * ENOUGH, own_ns=cost)
    assert guard.shed == "callers"
    traffic.tries, hours = 0, 3 * 3600 * S
    until_ns = traffic.now_ns + hours
    while traffic.now_ns < until_ns:
        traffic.serve(100, app_ns=S // 10, own_ns=cost)
    assert 0 < traffic.tries <= 3 * BLOCK_REQUESTS * (hours / LONGEST_PAUSE_NS + 1)


def test_a_cost_at_the_limit_does_not_change_without_end(guard, told):
    """Traffic that looks cheap to each try, and is dear to all: the worst there can be."""
    traffic, chance = Traffic(guard), Random(2)
    for _ in range(5000):
        cheap = guard.shed is not None or chance.random() < 0.5
        traffic.serve(100, own_ns=10_000 if cheap else MS)
    assert 4 < len(told()) <= 2 * (7 + traffic.now_ns / LONGEST_PAUSE_NS)


# The price of noting a query


def test_an_interruption_is_not_the_price_of_a_query():
    meter = Meter(0.0)
    meter.samples_ns.extend([1000] * (SAMPLES - 4) + [5 * MS] * 4)
    meter.settle()
    assert meter.query_ns == 1000


def test_the_price_is_of_all_other_queries_and_of_the_frames_around_them():
    meter = Meter(100.0)
    assert meter.query_ns == 100
    meter.samples_ns.extend([1000, 3000] * 8 + [9000, 9000])
    meter.settle()
    assert meter.query_ns == 2100


def test_the_frames_of_a_hook_are_timed():
    assert 0 < Guard(2.0)._meters[None].query_ns < 1 * MS


# Threads


def test_threads_without_a_lock_lose_nothing_worse_than_an_observation(guard):
    def serve():
        traffic = Traffic(guard)
        try:
            traffic.serve(5 * ENOUGH, own_ns=MS)
        except BaseException as error:
            failed.append(error)
            raise

    failed = []
    threads = [Thread(target=serve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert guard.shed == "rows"


# Headers


@pytest.mark.parametrize(("shed", "entry"), [(None, "0.120"), ("callers", '0.120;desc="callers shed"')])
def test_server_timing_says_what_was_shed(shed, entry):
    pairs = dict(render(Profile(id="a", own_ms=0.12, shed=shed), "timing", 5.0))
    assert pairs["Server-Timing"].endswith(f"perf;dur={entry}")


def test_headers_stay_bounded_with_the_longest_of_it():
    pairs = render(Profile(id="a" * 64, shed="callers", query_count=10**9, db_ms=1e9, own_ms=1e9), "full", 1e9)
    assert sum(len(name) + len(value) + 4 for name, value in pairs) <= MAX_BYTES


# From door to sink, on a clock that moves by a tenth of a millisecond whenever it is read


@pytest.fixture
def clock(monkeypatch):
    def read():
        read.now_ns += 100_000
        return read.now_ns

    read.now_ns = 0
    for module in ("pipeline", "collector.context", "collector.drivers.sqlite3"):
        monkeypatch.setattr(f"perf_middleware.{module}.perf_counter_ns", read)
    monkeypatch.setattr("perf_middleware.collector.context.perf_counter", lambda: read() / 1e9)
    return read


@pytest.fixture
def shop(profiled, clock, monkeypatch):
    """`shop(**options)` serves one request after the other of an application that does nothing but queries.

    Most of them are watched, so that hundreds are enough.
    """
    monkeypatch.setattr("perf_middleware.guard.WATCH_BITS", 0)

    def make(**options):
        middleware = profiled(PerfMiddleware, app, **{"max_overhead_percent": 2, **options})
        middleware.pipeline.guard._chance = Random(1)
        connection = sqlite3.connect(":memory:")
        connection.create_function("slow", 1, slow)
        opened.append(connection.cursor())
        return lambda requests: [dict(serve(middleware)) for _ in range(requests)]

    def slow(number):
        clock.now_ns += make.query_ns
        return number

    def app(environ, start_response):
        with profile("inner"):
            for number in range(6):
                opened[-1].execute("SELECT slow(?)", (number,)).fetchall()
        start_response("200 OK", [])
        return []

    def serve(middleware):
        headers = []
        middleware({"REQUEST_METHOD": "GET"}, lambda status, given, *_: headers.extend(given))
        return headers

    make.query_ns = 0
    opened = []
    yield make
    for cursor in opened:
        cursor.connection.close()


def perf_entry(headers):
    return headers["Server-Timing"].rpartition(";dur=")[2].partition(";")[2]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_application_that_does_nothing_but_queries_loses_rows_and_no_count(shop, profiled, told):
    serve = shop(service="shop")
    headers = serve(600)
    assert [perf_entry(each) for each in (headers[0], headers[-1])] == ["", 'desc="rows shed"']
    assert {each["X-Perf-Queries"] for each in headers} == {"6"}
    assert told() == ["callers", "rows"]

    requests = {shed: [p for p in profiled.profiles if p.shed == shed and p.kind == "request"] for shed in ORDER}
    assert sum(map(len, requests.values())) == 600
    assert {p.query_count for p in profiled.profiles} == {6}
    assert {p.db_ms > 0 for p in profiled.profiles} == {True}
    for p in requests[None]:
        assert all("test_guard.py" in query.caller for query in p.queries)
    for p in requests["callers"]:
        assert {query.caller for query in p.queries} == {None}
    for p in requests["rows"]:
        assert (p.queries, p.findings, p.folded[0].count) == ([], [], 6)
    assert [bool(p.findings) for p in (requests[None][0], requests["callers"][0])] == [True, True]
    assert all(p.db_ms == pytest.approx(requests["rows"][0].db_ms) for shed in ORDER for p in requests[shed])


def test_a_block_is_shed_as_the_request_around_it(shop, profiled):
    shop()(600)
    sheds = {p.id: p.shed for p in profiled.profiles if p.kind == "request"}
    blocks = [p for p in profiled.profiles if p.kind == "block"]
    assert len(blocks) == len(sheds)
    assert [block for block in blocks if block.shed != sheds[block.parent_id]] == []
    assert [block for block in blocks if bool(block.queries) != (block.shed != "rows")] == []


def test_rows_are_back_when_the_queries_are_slow(shop, told):
    serve = shop(service="shop")
    serve(600)
    shop.query_ns = S
    headers = serve(1200)
    assert told() == ["callers", "rows", "callers", "nothing"]
    assert perf_entry(headers[-1]) == ""


def test_allowed_more_than_it_costs_nothing_is_shed(shop, profiled):
    shop(max_overhead_percent=10_000)(600)
    assert {p.shed for p in profiled.profiles} == {None}


def test_what_sampling_left_out_was_not_shed(shop, profiled):
    serve = shop(sample_rate=0.5, slow_request_ms=0)
    serve(1200)
    left_out = [p for p in profiled.profiles if p.kind == "request" and not p.queries]
    assert {p.shed for p in left_out} == {None, "rows"}
    assert {p.weight for p in profiled.profiles} == {1.0}


def test_sampled_to_nothing_there_is_nothing_to_shed(shop, profiled, told):
    serve = shop(sample_rate=0, service="shop")
    assert {perf_entry(headers) for headers in serve(600)} == {""}
    assert told() == []


def test_only_some_requests_are_metered_and_of_them_the_first_queries(profiled, query):
    noted = []

    def app(environ, start_response):
        query(METERED_QUERIES + 10)
        start_response("200 OK", [])
        return []

    middleware = profiled(PerfMiddleware, app)
    for meter in middleware.pipeline.guard._meters.values():
        meter.samples_ns = noted
    middleware({"REQUEST_METHOD": "GET"}, lambda *args: None)
    assert len(noted) == METERED_QUERIES
    assert all(ns > 0 for ns in noted)
    for _ in range(400):
        middleware({"REQUEST_METHOD": "GET"}, lambda *args: None)
    assert METERED_QUERIES < len(noted) < METERED_QUERIES * 100
