from __future__ import annotations

import pytest

LISTING = "SELECT id, name FROM products"


def found(scenario, **thresholds):
    return scenario.findings("large_result", **thresholds)


def test_nothing_ran(scenario):
    assert found(scenario) == []


def test_one_row_below_the_threshold(scenario):
    scenario.run(LISTING, rows=9_999)
    assert found(scenario) == []


def test_an_unknown_number_of_rows(scenario):
    scenario.run(LISTING, rows=None, duration_ms=900)
    assert found(scenario) == []


def test_many_results_are_not_one_large_one(scenario):
    for page in range(100):
        scenario.run("SELECT id, name FROM products ORDER BY id LIMIT ? OFFSET ?", 500, page, rows=500)
    assert found(scenario) == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE products SET price = 1",
        "INSERT INTO archive SELECT * FROM orders",
        "DELETE FROM carts",
        "SHOW TABLES",
        "FETCH 20000 FROM c",
        "SELECT table_name FROM information_schema.tables",
    ],
)
def test_rows_that_nobody_asked_for(scenario, sql):
    scenario.run(sql, rows=50_000)
    assert found(scenario) == []


def test_ten_thousand_rows(scenario):
    scenario.run("SELECT 1 FROM flags", rows=1)
    scenario.run(LISTING, rows=10_000, duration_ms=30, fetch_ms=20.0)
    [finding] = found(scenario)
    assert finding.title == "products gave 10000 rows at shop/views.py:42 in order_list"
    assert finding.threshold == "large_result: 10000 >= 10000 rows"
    assert (finding.evidence, finding.count) == ([1], 1)
    assert finding.total_ms == finding.wasted_ms == pytest.approx(50.0)
    assert "Limit it" in finding.recommendation


def test_a_limit_that_is_too_large(scenario):
    scenario.run(LISTING + " LIMIT 20000", rows=20_000)
    [finding] = found(scenario)
    assert "smaller pages" in finding.recommendation


def test_several_large_results_of_one_statement_are_one_finding(scenario):
    for rows in [20_000, 3, 30_000]:
        scenario.run(LISTING, rows=rows)
    [finding] = found(scenario)
    assert finding.title == "products gave 2 times, up to 30000 rows at shop/views.py:42 in order_list"
    assert finding.evidence == [0, 2]


def test_a_threshold_of_its_own(scenario):
    scenario.run(LISTING, rows=500)
    assert len(found(scenario, large_result=500)) == 1
