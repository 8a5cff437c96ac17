"""The judgement that every suite is given."""

from __future__ import annotations

import foreign_suites
import pytest


@pytest.fixture
def nothing_newly_fails(record_property):
    """`nothing_newly_fails(suite, tests, sees="request")`: none breaks, no fault of ours, and we were on."""

    def judge(suite, tests, *, sees):
        verdict = foreign_suites.compare(suite, tests)
        record_property("foreign", vars(verdict))
        assert verdict.newly_failing == []
        assert set(verdict.faults) <= set(suite.faults)
        assert verdict.seen.get(sees, 0) > 0, f"{suite.name} ran without us: {verdict.seen}"

    return judge
