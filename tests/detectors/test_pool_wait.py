from __future__ import annotations

import pytest

from perf_middleware.detectors import analyze
from perf_middleware.record import Profile

LOOKUP = "SELECT name FROM authors WHERE id = ?"


def found(scenario, **thresholds):
    return scenario.findings("pool_wait", **thresholds)


def test_nothing_ran(scenario):
    assert found(scenario) == []


def test_no_pool_told(scenario):
    scenario.run(LOOKUP, 1, duration_ms=5000)
    assert found(scenario) == []


def test_just_below_the_threshold(scenario):
    scenario.run(LOOKUP, 1, wait_ms=60.0)
    scenario.run(LOOKUP, 2, wait_ms=39.9)
    assert found(scenario) == []


def test_waits_add_up(scenario):
    scenario.run(LOOKUP, 1, wait_ms=60.0)
    scenario.run(LOOKUP, 2)
    scenario.run(LOOKUP, 3, wait_ms=40.0)
    [finding] = found(scenario)
    assert finding.title == "waited 2 times for a connection out of the pool, 100 ms at shop/views.py:42 in order_list"
    assert finding.threshold == "pool_wait: 100 >= 100 ms"
    assert (finding.count, finding.evidence, finding.fingerprint) == (2, [0, 2], "")
    assert finding.total_ms == finding.wasted_ms == pytest.approx(100.0)


def test_a_wait_that_no_statement_followed():
    [finding] = analyze(Profile(name="GET /orders", wait_ms=30_000.0, duration_ms=30_001.0), ["pool_wait"])
    assert finding.title == "waited for a connection out of the pool, 30000 ms"
    assert (finding.severity, finding.evidence) == ("critical", [])


def test_a_threshold_of_its_own(scenario):
    scenario.run(LOOKUP, 1, wait_ms=10.0)
    assert len(found(scenario, pool_wait=10)) == 1
