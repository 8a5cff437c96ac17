from __future__ import annotations

import pytest

LISTING = "SELECT id, name FROM products"


def found(scenario, **thresholds):
    return scenario.findings("slow_fetch", **thresholds)


def test_nothing_ran(scenario):
    assert found(scenario) == []


def test_just_below_the_threshold(scenario):
    scenario.run(LISTING, fetch_ms=499.999)
    assert found(scenario) == []


def test_many_fast_fetches_are_not_one_slow_one(scenario):
    for _ in range(100):
        scenario.run(LISTING, fetch_ms=50.0)
    assert found(scenario) == []


def test_executing_long_is_another_matter(scenario):
    scenario.run(LISTING, duration_ms=900, fetch_ms=1.0)
    scenario.run(LISTING, duration_ms=900)
    assert found(scenario) == []


def test_the_catalogue(scenario):
    scenario.run("SELECT table_name FROM information_schema.tables", fetch_ms=900.0)
    assert found(scenario) == []


def test_a_slow_fetch(scenario):
    scenario.run("SELECT 1 FROM flags", fetch_ms=1.0)
    scenario.run(LISTING, fetch_ms=500.0, rows=300)
    [finding] = found(scenario)
    assert finding.title == "fetching 300 rows of products took 500 ms at shop/views.py:42 in order_list"
    assert finding.threshold == "slow_fetch: 500 >= 500 ms"
    assert finding.evidence == [1]
    assert finding.total_ms == finding.wasted_ms == pytest.approx(500.0)
    assert "only the columns" in finding.recommendation


def test_several_of_one_statement_are_one_finding(scenario):
    for fetch_ms in [700.0, 20.0, 900.0]:
        scenario.run(LISTING, fetch_ms=fetch_ms)
    [finding] = found(scenario)
    assert finding.title == "fetching rows of products took 2 times, up to 900 ms at shop/views.py:42 in order_list"
    assert (finding.count, finding.evidence, finding.total_ms) == (2, [0, 2], pytest.approx(1600.0))


def test_a_threshold_of_its_own(scenario):
    scenario.run(LISTING, fetch_ms=150.0)
    assert len(found(scenario, slow_fetch=150)) == 1
