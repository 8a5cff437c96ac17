from __future__ import annotations

import pytest

from perf_middleware.detectors import analyze
from perf_middleware.record import Profile, Query, Transaction

READ = "SELECT total FROM orders WHERE id = ?"
WRITE = "UPDATE orders SET total = ? WHERE id = ?"


def found(scenario, **thresholds):
    return scenario.findings("long_transaction", **thresholds)


def work(scenario, pause_ms, *, end="COMMIT", duration_ms=1.0, begin="BEGIN", **facts):
    scenario.run("SELECT id FROM users", pause_ms=0)
    scenario.run(begin, duration_ms=0, pause_ms=0, **facts)
    scenario.run(READ, 1, duration_ms=duration_ms, pause_ms=pause_ms, caller="shop/pay.py:7 in pay", **facts)
    scenario.run(WRITE, 1, 1, duration_ms=duration_ms, pause_ms=0, **facts)
    if end:
        scenario.run(end, duration_ms=0, pause_ms=0, **facts)


def test_nothing_ran(scenario):
    assert found(scenario) == []


def test_just_below_the_threshold(scenario):
    work(scenario, 997.9)
    assert found(scenario) == []


def test_one_that_is_busy(scenario):
    work(scenario, 10, duration_ms=2000)
    assert found(scenario) == []


def test_one_that_is_busy_fetching(scenario):
    work(scenario, 1500, fetch_ms=600.0)
    assert found(scenario) == []


def test_slow_work_outside(scenario):
    work(scenario, 1)
    scenario.at_ms += 5000
    work(scenario, 1)
    assert found(scenario) == []


def test_no_end_was_seen(scenario):
    work(scenario, 5000, end=None)
    assert found(scenario) == []


def test_a_begin_that_failed(scenario):
    work(scenario, 5000, error="OperationalError 2006")
    assert found(scenario) == []


def test_a_transaction_of_no_work(scenario):
    scenario.run("BEGIN", pause_ms=5000)
    scenario.run("COMMIT")
    assert found(scenario) == []


def test_statements_of_another_database_are_not_inside(scenario):
    scenario.run("BEGIN", db="a", pause_ms=0)
    scenario.run(READ, 1, db="b", pause_ms=5000)
    scenario.run("COMMIT", db="a")
    assert found(scenario) == []


@pytest.mark.parametrize("begin", ["BEGIN", "START TRANSACTION", "BEGIN IMMEDIATE"])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_open_for_a_second_and_mostly_idle(scenario, begin, end):
    work(scenario, 998, begin=begin, end=end)
    [finding] = found(scenario)
    assert finding.title == "a transaction was open for 1000 ms, 998 of them idle at shop/pay.py:7 in pay"
    assert finding.threshold == "long_transaction: 1000 >= 1000 ms"
    assert (finding.count, finding.evidence, finding.tables) == (2, [2, 3], ["orders"])
    assert finding.total_ms == pytest.approx(1000.0)
    assert finding.wasted_ms == pytest.approx(998.0)
    assert "the longest pause, 998 ms, follows the statement at shop/pay.py:7 in pay" in finding.recommendation


def test_transactions_of_the_record():
    queries = [
        Query(fingerprint="SELECT a FROM b", start_ms=5.0, duration_ms=1.0, transaction=0),
        Query(fingerprint="SELECT a FROM c", start_ms=6.0, duration_ms=1.0),
    ]
    open_one = Transaction(start_ms=5.0, duration_ms=1500.0, busy_ms=1.0)
    [finding] = analyze(Profile(duration_ms=1510.0, queries=queries, transactions=[open_one]), ["long_transaction"])
    assert (finding.evidence, finding.wasted_ms) == ([0], pytest.approx(1499.0))


def test_a_threshold_of_its_own(scenario):
    work(scenario, 300)
    assert len(found(scenario, long_transaction=300)) == 1
