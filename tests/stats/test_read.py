from __future__ import annotations

from calendar import timegm

import pytest

from perf_middleware.record import Finding, Folded, Profile, Query
from perf_middleware.stats import delta as delta_module
from perf_middleware.stats.delta import delta
from perf_middleware.stats.fold import Fold
from perf_middleware.stats.read import routes, severity_rank
from perf_middleware.stores.memory import MemoryStore

NOW = timegm((2026, 11, 24, 12, 34, 56))


@pytest.fixture
def store():
    return MemoryStore(clock=lambda: NOW)


@pytest.fixture
def put(store, monkeypatch):
    """Store profiles as if they had ended `age_s` ago."""
    seqs = {}

    def put(*profiles, age_s=0, service="shop", max_routes=1000):
        monkeypatch.setattr(delta_module.time, "time", lambda: NOW - age_s)
        fold = Fold(service, max_routes=max_routes)
        for profile in profiles:
            fold.add(delta(profile))
        for batch in fold.batches("w" * 16):
            batch.seq = seqs[service] = seqs.get(service, 0) + 1
            assert store.apply(batch, batch.seq - 1).outcome == "applied"

    return put


def request(name="GET /x", **fields):
    return Profile(name=name, **{"duration_ms": 10.0, **fields})


def finding(severity="high", **fields):
    given = {"confidence": "high", "threshold": "t", "title": "27 queries", "fingerprint": "f", "caller": "a.py:1 in f"}
    return Finding(**{"finding_id": "id", "kind": "n_plus_one", "severity": severity, **given, **fields})


def read(store, **options):
    return routes(store, now_s=NOW, **options)


def test_nothing_stored_is_nothing_told(store):
    stats = read(store)
    assert (stats.services, stats.n, stats.routes) == ([], 0, [])


@pytest.mark.parametrize(("n", "told"), [(19, 0), (20, 1), (99, 1), (100, 2), (499, 2), (500, 3)])
def test_a_percentile_of_too_few_is_not_told(store, put, n, told):
    put(*[request()] * n)
    (route,) = read(store).routes
    assert [value is not None for value in (route.p50_ms, route.p95_ms, route.p99_ms)] == [True] * told + [False] * (
        3 - told
    )
    assert (route.queries_p95 is not None) == (n >= 100)


def test_a_percentile_is_never_above_the_maximum(store, put):
    put(*[request(duration_ms=12.345)] * 500)
    (route,) = read(store).routes
    assert route.max_ms == 12.345
    assert 12.345 * 0.9945 <= route.p99_ms <= 12.345


def test_counters_are_exact(store, put):
    queries = [Query(fingerprint="select ?", duration_ms=2.0, wire=3), Query(fingerprint="select ?", duration_ms=1.0)]
    put(request(queries=queries, query_count=2, db_ms=3.0), request(duration_ms=20.0), age_s=100)
    put(request(status=500), request(error="ValueError"), request(status=404), age_s=3000)
    (route,) = read(store).routes
    assert (route.n, route.errors, route.queries, route.wire) == (5, 2, 2, 4)
    assert (route.mean_ms, route.max_ms, route.db_ms) == (12.0, 20.0, 3.0)
    assert route.db_share == pytest.approx(3 / 60)
    assert route.queries_mean == 0.4


def test_what_is_older_than_the_window_does_not_count_and_the_real_beginning_is_told(store, put):
    put(request(), age_s=60)
    put(request(), age_s=3700)
    stats = read(store, window_s=3600)
    assert stats.n == 1
    assert 3600 <= stats.to_s - stats.from_s <= 3660
    assert read(store, window_s=7200).n == 2


@pytest.mark.parametrize("window_s", [900, 3600, 4 * 3600, 86_400, 7 * 86_400, 60 * 86_400, 700 * 86_400])
def test_every_window_tells_the_same_of_a_request_of_now(store, put, window_s):
    put(request(query_count=1, queries=[Query(fingerprint="f", duration_ms=1)], findings=[finding()]))
    (route,) = read(store, window_s=window_s).routes
    assert (route.n, len(route.top_queries), len(route.findings)) == (1, 1, 1)


def test_queries_belong_to_their_route_and_carry_the_last_caller(store, put):
    put(request(queries=[Query(fingerprint="f", system="mysql", duration_ms=1.0, caller="a.py:1 in f")]), age_s=20)
    put(request(queries=[Query(fingerprint="f", system="mysql", duration_ms=2.0, caller="a.py:9 in f")] * 3))
    put(request("GET /y", queries=[Query(fingerprint="f", duration_ms=5.0, error="IntegrityError 1062")]))
    of = {route.name: route.top_queries for route in read(store).routes}
    (query,) = of["GET /x"]
    assert (query.fingerprint, query.system, query.caller) == ("f", "mysql", "a.py:9 in f")
    assert (query.n, query.count, query.total_ms, query.max_ms, query.errors) == (2, 4, 7.0, 2.0, 0)
    assert of["GET /y"][0].errors == 1


def test_folded_counters_count_and_those_without_a_text_are_told_as_missing(store, put):
    put(
        request(
            query_count=10,
            queries=[Query(fingerprint="f", duration_ms=1.0)],
            folded=[Folded(fingerprint="f", count=5, wire=5, duration_ms=4.0, max_ms=3.0), Folded(count=4, wire=4)],
        )
    )
    (route,) = read(store).routes
    assert (route.queries, route.wire, route.detailed_queries) == (10, 10, 6)
    assert (route.top_queries[0].count, route.top_queries[0].max_ms) == (6, 3.0)


def test_one_fingerprint_in_two_databases_is_one_sample(store, put):
    put(request(queries=[Query(fingerprint="f", db="a"), Query(fingerprint="f", db="b")]))
    (query,) = read(store).routes[0].top_queries
    assert (query.n, query.count) == (1, 2)


def test_a_finding_is_told_once_with_its_highest_severity(store, put):
    put(request(findings=[finding("low", count=5, total_ms=1.0)]), age_s=100)
    put(request(findings=[finding("high", count=27, total_ms=9.0, wasted_ms=8.0, recommendation="batch it")]), age_s=50)
    put(request(findings=[finding("medium", count=10, total_ms=2.0)]))
    (told,) = read(store).routes[0].findings
    assert (told.severity, told.n, told.count, told.total_ms, told.wasted_ms) == ("high", 3, 42, 12.0, 8.0)
    assert (told.title, told.caller, told.kind) == ("27 queries", "a.py:1 in f", "n_plus_one")


def test_findings_come_severest_first(store, put):
    put(request(findings=[finding(severity, finding_id=severity) for severity in ("low", "critical", "medium")]))
    assert [told.severity for told in read(store).routes[0].findings] == ["critical", "medium", "low"]
    assert severity_rank("unheard of") < severity_rank("low")


def test_kinds_and_services_are_told_apart(store, put):
    put(request("x", kind="job"), request("x"))
    put(request("x"), service="other")
    assert {(route.service, route.kind) for route in read(store).routes} == {
        ("shop", "job"),
        ("shop", "request"),
        ("other", "request"),
    }
    assert read(store, service="other").n == 1


def test_names_beyond_the_bound_are_one_route_and_the_total_is_exact(store, put):
    names = [f"GET /{number}" for number in range(12)]
    put(*[request(name, queries=[Query(fingerprint="f", duration_ms=1)]) for name in names] * 2, max_routes=10)
    stats = read(store)
    assert stats.n == 24
    assert len(stats.routes) == 11
    (other,) = (route for route in stats.routes if route.kind is None)
    assert (other.name, other.n) == ("(other)", 4)


@pytest.mark.parametrize("name", ["", "GET /\0x", "GET /\udcff", "x" * 10_000, "(other)"])
def test_any_name_can_be_stored(store, put, name):
    put(request(name, queries=[Query(fingerprint=name, caller=name)], findings=[finding(title=name)]))
    (route,) = read(store).routes
    assert (route.n, route.kind, len(route.top_queries), len(route.findings)) == (1, "request", 1, 1)
    assert len(route.name) <= 200


def test_nothing_of_a_record_but_names_fingerprints_callers_and_findings_is_stored(store, put):
    put(
        request(
            id="canary",
            tags={"canary": "canary"},
            trace_id="canary",
            queries=[Query(sql="select 'canary'", params_hash="canary", db="canary", error="canary")],
        )
    )
    assert "canary" not in repr(store._windows)
