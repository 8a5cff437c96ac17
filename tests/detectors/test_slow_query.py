from __future__ import annotations

import pytest

from perf_middleware.detectors import analyze
from perf_middleware.record import Folded, Profile, Query

REPORT = "SELECT kind, COUNT(*) FROM events WHERE payload LIKE ? AND at > ? GROUP BY kind"


def found(scenario, **thresholds):
    return scenario.findings("slow_query", **thresholds)


def test_a_run_just_below_the_threshold(scenario):
    scenario.run(REPORT, 1, duration_ms=499.999)
    assert found(scenario) == []


def test_many_fast_runs_are_not_one_slow_one(scenario):
    for _ in range(100):
        scenario.run(REPORT, 1, duration_ms=50)
    assert found(scenario) == []


def test_fetching_long_is_another_matter(scenario):
    scenario.run(REPORT, 1, duration_ms=1, fetch_ms=900.0)
    assert found(scenario) == []


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "SELECT GET_LOCK('import', 10)",
        "SELECT pg_sleep(1)",
        "CREATE INDEX i ON events (at)",
        "ALTER TABLE events ADD COLUMN x int",
        "FETCH 1000 FROM c",
        "LOCK TABLES events WRITE",
        "SHOW TABLES",
        "SELECT table_name FROM information_schema.tables",
    ],
)
def test_locks_schema_changes_and_the_catalogue(scenario, sql):
    scenario.run(sql, duration_ms=5000)
    assert found(scenario) == []


def test_a_slow_run(scenario):
    scenario.run("SELECT 1")
    scenario.run(REPORT, 1, duration_ms=500)
    [finding] = found(scenario)
    assert finding.title == "events took 500 ms at shop/views.py:42 in order_list"
    assert finding.threshold == "slow_query: 500 >= 500 ms"
    assert finding.evidence == [1]
    assert finding.total_ms == finding.wasted_ms == pytest.approx(500)
    assert "EXPLAIN" in finding.recommendation
    assert "payload, at" in finding.recommendation


def test_several_slow_runs_of_one_statement_are_one_finding(scenario):
    for duration_ms in [700, 20, 900]:
        scenario.run(REPORT, 1, duration_ms=duration_ms)
    [finding] = found(scenario)
    assert finding.title == "events took 2 times, up to 900 ms at shop/views.py:42 in order_list"
    assert (finding.count, finding.evidence, finding.total_ms) == (2, [0, 2], pytest.approx(1600))


def test_a_slow_write_and_a_slow_failure(scenario):
    scenario.run("UPDATE events SET seen = 1 WHERE at < ?", 1, duration_ms=800)
    scenario.run(REPORT, 1, duration_ms=30_000, error="OperationalError 3024")
    assert [finding.total_ms for finding in found(scenario)] == [30_000, 800]


def test_of_the_rows_beyond_the_kept_ones_the_longest_counts(scenario):
    scenario.run(REPORT, 1, duration_ms=600)
    scenario.folded.append(Folded(scenario_fingerprint(scenario), count=10, duration_ms=1500, max_ms=800))
    [finding] = found(scenario)
    assert (finding.count, finding.total_ms) == (2, pytest.approx(1400))


def test_a_threshold_of_its_own(scenario):
    scenario.run(REPORT, 1, duration_ms=150)
    assert len(found(scenario, slow_query=100)) == 1


def scenario_fingerprint(scenario):
    [finding] = found(scenario)
    return finding.fingerprint


def test_a_sum_that_nobody_recorded_hides_no_slow_query():
    query = Query(fingerprint="SELECT a FROM b WHERE c = ?", duration_ms=700, system="mysql")
    assert [finding.kind for finding in analyze(Profile(queries=[query]))] == ["slow_query"]
    assert [finding.kind for finding in analyze(Profile(queries=[query], db_sum_ms=700.0))] == ["slow_query"]
