from __future__ import annotations

import pytest

SETTINGS = "SELECT key, value FROM settings"
LOOKUP = "SELECT name FROM customers WHERE id = ?"


def found(scenario, **thresholds):
    return scenario.findings("duplicate_query", **thresholds)


# ---------------------------------------------------------------------------------------------- what must not fire


def test_nothing_ran(scenario):
    assert found(scenario) == []


@pytest.mark.parametrize("times", [1, 2, 4])
def test_fewer_times_than_the_threshold(scenario, times):
    for _ in range(times):
        scenario.run(SETTINGS)
    assert found(scenario) == []


def test_different_values(scenario):
    for customer in range(9):
        scenario.run(LOOKUP, customer)
    assert found(scenario) == []


def test_two_values_of_which_none_came_five_times(scenario):
    for customer in [1, 2, 1, 2, 1, 2, 1, 2]:
        scenario.run(LOOKUP, customer)
    assert found(scenario) == []


def test_three_values_are_a_loop(scenario):
    for customer in [1, 1, 1, 1, 1, 2, 3]:
        scenario.run(LOOKUP, customer)
    assert found(scenario) == []


def test_unknown_values(scenario):
    for _ in range(9):
        scenario.run(LOOKUP, scenario.UNKNOWN)
    assert found(scenario) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT GET_LOCK('import', 10)",
        "SELECT pg_try_advisory_lock(42)",
        "SELECT nextval('order_seq')",
        "SELECT LAST_INSERT_ID()",
        "SELECT 1",
        "SELECT VERSION()",
        "SELECT now()",
        "SELECT table_name FROM information_schema.tables",
        "SHOW WARNINGS",
        "PRAGMA foreign_keys",
        "FETCH 100 FROM orders_cursor",
        "SELECT id FROM jobs WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        "UPDATE counters SET n = n + 1 WHERE id = 1",
        "INSERT INTO visits (page) VALUES ('home')",
        "CREATE TABLE IF NOT EXISTS t (id int)",
        "COMMIT",
    ],
)
def test_what_is_no_question_about_data(scenario, sql):
    for _ in range(9):
        scenario.run(sql)
    assert found(scenario) == []


def test_the_same_question_to_several_databases(scenario):
    for shard in range(6):
        scenario.run(LOOKUP, 1, db=f"shard{shard}")
    assert found(scenario) == []


def test_retries_after_failures(scenario):
    for _ in range(8):
        scenario.run(SETTINGS, error="OperationalError 1205")
    scenario.run(SETTINGS)
    assert found(scenario) == []


def test_a_block_of_work_tried_again_after_failures(scenario):
    for _ in range(8):
        scenario.run(LOOKUP, 1)
        scenario.run("UPDATE customers SET orders = 1 WHERE id = ?", 1, error="OperationalError 1213")
    assert found(scenario) == []


def test_pages_of_the_same_size(scenario):
    for page in range(6):
        scenario.run("SELECT id FROM orders LIMIT ? OFFSET ?", 50, page, rows=50)
    assert found(scenario) == []


# ---------------------------------------------------------------------------------------------------- what must fire


def test_the_identical_statement_without_values(scenario):
    for turn in range(9):
        scenario.run(SETTINGS, duration_ms=3.0 if turn == 0 else 1.0)
    [finding] = found(scenario)
    assert finding.title == "9 times the same settings query at shop/views.py:42 in order_list"
    assert finding.threshold == "duplicate_query: 9 >= 5"
    assert finding.confidence == "high"
    assert finding.evidence == list(range(9))
    assert finding.total_ms == pytest.approx(11.0)
    assert finding.wasted_ms == pytest.approx(8.0)
    assert "Read settings once" in finding.recommendation
    assert scenario.kinds() == ["duplicate_query"]


def test_identical_values_bound_or_in_the_text(scenario):
    for _ in range(6):
        scenario.run(LOOKUP, 7)
        scenario.run("SELECT name FROM teams WHERE id = 7")
    assert {finding.tables[0] for finding in found(scenario)} == {"customers", "teams"}
    assert scenario.kinds() == ["duplicate_query"] * 2


def test_another_value_between_now_and_then(scenario):
    for customer in [3, 7, 7, 7, 7, 7]:
        scenario.run(LOOKUP, customer, duration_ms=2.0)
    [finding] = found(scenario)
    assert finding.wasted_ms == pytest.approx(8.0)  # one run for each of the two values stays


def test_identical_long_lists(scenario):
    for _ in range(6):
        scenario.run(f"SELECT name FROM tags WHERE id IN ({', '.join('?' * 30)})", "the same thirty")
    assert scenario.kinds() == ["duplicate_query"]


def test_unknown_values_that_can_only_be_a_limit(scenario):
    for _ in range(6):
        scenario.run("SELECT key, value FROM settings LIMIT ?", scenario.UNKNOWN)
    [finding] = found(scenario)
    assert finding.confidence == "medium"


def test_straight_line_code_asks_the_same_too(scenario):
    for line in range(6):
        scenario.run(LOOKUP, 1, caller=f"shop/views.py:{line} in dashboard")
    assert len(found(scenario)) == 1


def test_rows_beyond_the_kept_ones_count_with_less_confidence(scenario):
    for _ in range(60):
        scenario.run(LOOKUP, 1)
    scenario.fold(LOOKUP, 40)
    [finding] = found(scenario)
    assert (finding.count, finding.confidence) == (100, "medium")
