"""The judgement that every suite is given."""

from __future__ import annotations

import foreign_suites
import pytest


@pytest.fixture
def nothing_newly_fails(record_property):
    """`nothing_newly_fails(suite, tests, sees="request")` runs both, notes a line of the table and judges it."""

    def run(suite, tests, *, sees):
        verdict = foreign_suites.compare(suite, tests)
        record_property("foreign", vars(verdict))
        foreign_suites.judge(suite, verdict, sees=sees)

    return run
