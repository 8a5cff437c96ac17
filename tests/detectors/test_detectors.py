from __future__ import annotations

import copy
import sys
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf_middleware import detectors, errors
from perf_middleware.detectors import analyze, names
from perf_middleware.errors import OptionError
from perf_middleware.record import SEVERITIES, Finding, Folded, Profile, Query, Transaction
from perf_middleware.sql import parse
from tests.detectors.conftest import Scenario

OURS = detectors._OURS
LOOKUP = "SELECT name FROM authors WHERE id = ?"


@pytest.fixture
def third_party(monkeypatch):
    """Install detectors of someone else, as entry points would."""
    detectors._detector.cache_clear()
    loads = []

    def install(**found):
        points = {name: SimpleNamespace(load=lambda name=name: loads.append(name) or found[name]) for name in found}
        monkeypatch.setattr(detectors, "_entry_points", lambda: points)
        return loads

    yield install
    detectors._detector.cache_clear()


def test_no_detectors_find_nothing(scenario):
    for author in range(9):
        scenario.run(LOOKUP, author)
    assert analyze(scenario.profile, []) == []


def test_an_unknown_kind_names_the_nearest(scenario):
    with pytest.raises(OptionError, match=r"n_plus_on.*n_plus_one"):
        analyze(scenario.profile, ["n_plus_on"])
    with pytest.raises(OptionError, match="slow_querry"):
        analyze(scenario.profile, None, {"slow_querry": 3})


def test_the_worst_comes_first(scenario):
    for author in range(9):
        scenario.run(LOOKUP, author)
        scenario.run("SELECT name FROM teams WHERE id = ?", author, duration_ms=2)
        scenario.run("SELECT 1 FROM flags")
    scenario.run("SELECT id FROM events", duration_ms=1500)
    assert [(finding.severity, finding.kind, finding.tables) for finding in analyze(scenario.profile)] == [
        ("critical", "slow_query", ["events"]),
        ("low", "n_plus_one", ["teams"]),
        ("low", "n_plus_one", ["authors"]),
        ("low", "duplicate_query", ["flags"]),
    ]


def test_twice_the_turns_twice_the_count(scenario):
    for author in range(9):
        scenario.run(LOOKUP, author)
    [before] = analyze(scenario.profile)
    for author in range(9):
        scenario.run(LOOKUP, author + 9)
    [after] = analyze(scenario.profile)
    assert (before.count, after.count) == (9, 18)
    assert before.finding_id == after.finding_id


def test_a_second_look_at_the_same_profile_finds_the_same(scenario):
    for author in range(9):
        scenario.run(LOOKUP, author)
        scenario.run("SELECT 1 FROM flags WHERE name = 'x'")
    profile = scenario.profile
    before = copy.deepcopy(analyze(profile))
    assert analyze(profile) == before


def test_live_and_saved_findings_are_the_same(saved, live):
    for scenario in (saved, live):
        for author in range(9):
            scenario.run(LOOKUP, author)
            scenario.run("SELECT 1 FROM flags WHERE name = 'x'")
    assert analyze(saved.profile) == analyze(live.profile)


def test_no_value_of_a_text_is_in_a_finding(saved):
    for canary in range(9):
        saved.run(f"SELECT name FROM people WHERE ssn = 'canary-{canary}'", duration_ms=600)
    assert len(analyze(saved.profile)) == 2
    assert "canary" not in repr(analyze(saved.profile))
    assert "canary" not in repr([query.params_hash for query in saved.queries])


def test_a_detector_of_someone_else_is_asked_too(third_party, scenario):
    found = Finding("id", "odd", "high", "low", "odd: 1 >= 1", "odd", "SELECT ?")
    odd = SimpleNamespace(DEFAULT=1, detect=lambda profile, threshold: [found] if threshold == 7 else [])
    loads = third_party(odd=odd)
    assert names()[-1] == "odd"
    assert loads == []
    assert analyze(scenario.profile, ["odd"]) == []
    assert analyze(scenario.profile, None, {"odd": 7}) == [found]
    assert loads == ["odd"]


def _raises(profile, threshold):
    yield Finding("id", "odd", "high", "low", "", "", "")
    raise RuntimeError


@pytest.mark.parametrize(
    "detector",
    [
        SimpleNamespace(DEFAULT=1, detect=_raises),
        SimpleNamespace(DEFAULT=1),
        SimpleNamespace(detect=_raises),
        SimpleNamespace(DEFAULT=1, detect=lambda profile, threshold: ["no finding"]),
        SimpleNamespace(DEFAULT=1, detect=lambda profile, threshold: None),
    ],
)
def test_a_detector_that_fails_is_counted_and_the_others_go_on(third_party, scenario, monkeypatch, detector):
    monkeypatch.setattr(errors, "faults", type(errors.faults)())
    monkeypatch.setattr(errors, "_last_logged", time.monotonic())
    third_party(odd=detector)
    for author in range(9):
        scenario.run(LOOKUP, author)
    assert "n_plus_one" in scenario.kinds()
    assert errors.faults.total() == 1
    assert next(iter(errors.faults)).startswith("detectors.odd: ")


SQL = st.sampled_from(
    [
        LOOKUP,
        "SELECT a FROM t WHERE b > ? LIMIT ?",
        "SELECT nextval(?)",
        "INSERT INTO t (a) VALUES (?), (?)",
        "INSERT INTO t SELECT",
        "UPDATE t SET a = ? WHERE b = ? AND c < ?",
        "DELETE FROM t WHERE",
        "MERGE INTO t",
        "BEGIN",
        "COMMIT",
        "ROLLBACK; BEGIN",
        "x'",
        "",
        "(((",
        "WITH",
    ]
)
NUMBERS = st.floats(-1e9, 1e9)
TEXTS = st.none() | st.sampled_from(["a", "b:1 in c", "\x00", "é"])
QUERIES = st.builds(
    Query,
    sql=st.none() | SQL | st.text(max_size=60),
    fingerprint=st.none() | SQL.map(lambda sql: parse(sql).fingerprint) | st.text(max_size=60),
    start_ms=NUMBERS,
    duration_ms=NUMBERS,
    rows=st.none() | st.integers(-1, 20_000),
    params_hash=TEXTS,
    list_size=st.none() | st.integers(-1, 200),
    db=TEXTS,
    system=TEXTS | st.just("mysql"),
    caller=TEXTS,
    error=st.none() | st.just("E"),
    many=st.none() | st.integers(-1, 9),
    fetch_ms=st.none() | NUMBERS,
    wait_ms=st.none() | NUMBERS,
    transaction=st.none() | st.integers(-1, 3),
    blocking=st.booleans(),
)
TRANSACTIONS = st.builds(Transaction, start_ms=NUMBERS, duration_ms=NUMBERS, busy_ms=NUMBERS, db=TEXTS)
FOLDED = st.builds(
    Folded, fingerprint=st.none() | SQL, db=TEXTS, count=st.integers(-1, 99), duration_ms=NUMBERS, max_ms=NUMBERS
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(QUERIES, max_size=12).map(lambda queries: [copy.copy(q) for q in queries for _ in range(3)]),
    st.lists(FOLDED, max_size=3),
    st.lists(TRANSACTIONS, max_size=3),
    st.just(0.0) | NUMBERS,
    st.none() | st.sampled_from([0, 1, 5]).map(lambda threshold: dict.fromkeys(names(), threshold)),
)
def test_whatever_a_record_holds_no_detector_fails(queries, folded, transactions, duration_ms, thresholds):
    before = errors.faults.total()
    profile = Profile(queries=queries, folded=folded, transactions=transactions, duration_ms=duration_ms)
    for finding in analyze(profile, None, thresholds):
        assert finding.severity in SEVERITIES
        assert finding.wasted_ms >= 0
        assert all(0 <= index < len(queries) for index in finding.evidence)
    assert errors.faults.total() == before


def test_the_work_grows_with_the_queries_and_not_with_their_square():
    def seconds(count):
        fingerprint = parse(LOOKUP).fingerprint
        profile = Profile(
            queries=[Query(fingerprint=fingerprint, params_hash=str(n), caller="a:1 in b") for n in range(count)]
        )
        began = time.process_time()
        assert [finding.count for finding in analyze(profile)] == [count]
        return time.process_time() - began

    small = min(seconds(2_000) for _ in range(3))
    large = min(seconds(20_000) for _ in range(3))
    assert large < 40 * small  # ten times the queries; a square would be a hundred times


class _Lines:
    """Counts the lines that Python runs."""

    def __init__(self):
        self.count = 0

    def __call__(self, frame, event, argument):
        self.count += 1
        return self


def _everything(turns):
    """A record in which each kind finds something, as often as it has turns."""
    scenario = Scenario("saved")
    scenario.run("BEGIN")
    for turn in range(turns):
        facts = {"rows": 20_000, "fetch_ms": 600.0, "wait_ms": 200.0, "blocking": True, "pause_ms": 9000.0}
        scenario.run(LOOKUP, turn, duration_ms=900.0, **facts)
        scenario.run("UPDATE authors SET name = ? WHERE id = ?", turn)
        scenario.run("SELECT key FROM settings")
        scenario.run(f"SELECT a FROM part_{turn}")
    scenario.run("COMMIT")
    return scenario.profile


@pytest.mark.parametrize("kind", [None, *OURS])
def test_the_lines_run_grow_with_the_queries_and_not_with_their_square(kind):
    def lines(turns):
        profile, counter, before = _everything(turns), _Lines(), sys.gettrace()
        sys.settrace(counter)
        try:
            found = {finding.kind for finding in analyze(profile, kind and [kind])}
        finally:
            sys.settrace(before)
        assert found == (set(OURS) if kind is None else {kind})
        return counter.count

    lines(200)  # texts are read for the first time
    assert lines(800) < 6 * lines(200)  # four times the queries; a square would be sixteen times
