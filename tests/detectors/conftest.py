"""A profile written down statement by statement, in the two forms that must give the same findings."""

from __future__ import annotations

import pytest

from perf_middleware.detectors import analyze
from perf_middleware.record import Folded, Profile, Query
from perf_middleware.sql import parse

CALLER = "shop/views.py:42 in order_list"
UNKNOWN = object()


class Scenario:
    """`run` appends a query; `kinds` analyzes what was run."""

    UNKNOWN = UNKNOWN
    CALLER = CALLER

    def __init__(self, form):
        self.form = form
        self.queries = []
        self.folded = []
        self.at_ms = 0.0

    def run(self, sql, *values, caller=CALLER, duration_ms=1.0, pause_ms=0.1, system=None, **facts):
        """One statement; `values` are what was bound, UNKNOWN when the driver could not tell."""
        statement = parse(sql, system)
        unknown = UNKNOWN in values or (statement.placeholders and not values)
        query = Query(start_ms=self.at_ms, duration_ms=duration_ms, caller=caller, system=system, **facts)
        if self.form == "saved":
            query.sql = sql
            query.params_hash = None if unknown or not values else repr(values)
        else:
            query.fingerprint = statement.fingerprint
            query.list_size = statement.list_size
            query.params_hash = None if unknown else repr((statement.literals, values))
        self.queries.append(query)
        self.at_ms += duration_ms + pause_ms

    def fold(self, sql, count, *, db=None, duration_ms=1.0, errors=0):
        """Rows beyond the kept ones: only their counters remain."""
        self.folded.append(
            Folded(
                parse(sql).fingerprint, db=db, count=count, errors=errors, duration_ms=count * duration_ms, max_ms=2.0
            )
        )

    @property
    def profile(self):
        return Profile(
            name="GET /orders",
            duration_ms=self.at_ms,
            query_count=len(self.queries) + sum(folded.count for folded in self.folded),
            queries=self.queries,
            folded=self.folded,
        )

    def findings(self, kind, **thresholds):
        return analyze(self.profile, [kind], thresholds)

    def kinds(self):
        return [finding.kind for finding in analyze(self.profile)]


@pytest.fixture(params=["saved", "live"])
def scenario(request):
    return Scenario(request.param)


@pytest.fixture
def saved():
    return Scenario("saved")


@pytest.fixture
def live():
    return Scenario("live")
