from __future__ import annotations

import pytest


def found(scenario, **thresholds):
    return scenario.findings("query_count", **thresholds)


def ask(scenario, shapes, times=1, **facts):
    for shape in range(shapes):
        for _ in range(times):
            scenario.run(f"SELECT a FROM part_{shape} WHERE b = ?", 1, **facts)


def test_nothing_ran(scenario):
    assert found(scenario) == []


def test_one_below_the_threshold(scenario):
    ask(scenario, 99)
    assert found(scenario) == []


def test_a_loop_is_for_others_to_tell(scenario):
    ask(scenario, 1, times=500)
    ask(scenario, 60)
    assert found(scenario) == []


@pytest.mark.parametrize(
    "sql", ["CREATE TABLE t{} (a int)", "PRAGMA table_info(t{})", "SAVEPOINT s{}", "SELECT 1 FROM pg_t{}"]
)
def test_what_is_no_question_about_data(scenario, sql):
    for number in range(150):
        scenario.run(sql.format(number))
    assert found(scenario) == []


def test_a_hundred_different_statements(scenario):
    ask(scenario, 99)
    scenario.run("UPDATE visits SET n = n + 1 WHERE page = 'x'", duration_ms=5.0)
    [finding] = found(scenario)
    assert finding.title == "100 queries, 100 different ones, most of them at shop/views.py:42 in order_list"
    assert finding.threshold == "query_count: 100 >= 100"
    assert (finding.count, finding.evidence, len(finding.tables)) == (100, list(range(100)), 100)
    assert (finding.severity, finding.fingerprint) == ("medium", "")
    assert finding.total_ms == pytest.approx(104.0)
    assert finding.wasted_ms == pytest.approx(99.0)


def test_few_runs_of_each_count_too(scenario):
    ask(scenario, 25, times=4)
    [finding] = found(scenario)
    assert finding.count == 100


def test_of_a_loop_only_four_runs_count(scenario):
    ask(scenario, 25, times=40)
    [finding] = found(scenario)
    assert (finding.count, finding.threshold) == (1000, "query_count: 100 >= 100")


def test_rows_beyond_the_kept_ones_count(scenario):
    ask(scenario, 97)
    scenario.fold("SELECT a FROM part_0 WHERE b = ?", 9)
    [finding] = found(scenario)
    assert finding.count == 106


def test_unknown_callers(scenario):
    ask(scenario, 100, caller=None)
    [finding] = found(scenario)
    assert finding.title == "100 queries, 100 different ones"


def test_a_threshold_of_its_own(scenario):
    ask(scenario, 40)
    assert len(found(scenario, query_count=40)) == 1
    assert found(scenario, query_count=41) == []
