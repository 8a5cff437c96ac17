from __future__ import annotations

import pytest

LOOKUP = "SELECT name FROM authors WHERE id = ?"


def found(scenario, **thresholds):
    return scenario.findings("blocking_call", **thresholds)


def test_nothing_ran(scenario):
    assert found(scenario) == []


def test_just_below_the_threshold(scenario):
    scenario.run(LOOKUP, 1, duration_ms=99.9, blocking=True)
    assert found(scenario) == []


def test_calls_that_block_no_event_loop(scenario):
    scenario.run(LOOKUP, 1, duration_ms=5000)
    scenario.run(LOOKUP, 1, duration_ms=1, blocking=True)
    assert found(scenario) == []


def test_an_event_loop_that_stood_still(scenario):
    scenario.run(LOOKUP, 1, duration_ms=60, blocking=True)
    scenario.run(LOOKUP, 2, duration_ms=500)
    scenario.run("SELECT name FROM teams", duration_ms=40, blocking=True)
    [finding] = found(scenario)
    assert finding.title == (
        "the event loop stood still for 100 ms in 2 calls of the database at shop/views.py:42 in order_list"
    )
    assert finding.threshold == "blocking_call: 100 >= 100 ms"
    assert (finding.count, finding.evidence, finding.tables) == (2, [0, 2], ["authors", "teams"])
    assert finding.fingerprint == LOOKUP
    assert finding.total_ms == finding.wasted_ms == pytest.approx(100.0)


def test_a_threshold_of_its_own(scenario):
    scenario.run(LOOKUP, 1, duration_ms=10, blocking=True)
    assert len(found(scenario, blocking_call=10)) == 1
