"""From measurements at 0, 10 and 60 queries a request to a cost per query and per request.

per query    the slope between 10 and 60 queries: (at 60 - at 10) / 50
per request  what a request without any query costs more than the bare one
with finding what a request costs besides its queries: (at 10) - 10 * slope. It is more than the line before by
             what is done once a request that has queries: reading rows, a finding, its text
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import msgspec

from benchmarks.overhead.workload import QUERIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NONE, FEW, MANY = QUERIES


class Cost(msgspec.Struct, frozen=True):
    """What a tool adds; in the unit of the measurement."""

    per_query: float
    per_request: float
    with_finding: float


def cost(watched: Mapping[int, float], bare: Mapping[int, float]) -> Cost:
    """What the watched application costs above the bare one."""
    added = {queries: watched[queries] - bare[queries] for queries in QUERIES}
    per_query = (added[MANY] - added[FEW]) / (MANY - FEW)
    return Cost(per_query, added[NONE], added[FEW] - FEW * per_query)


def median_cost(rounds: Sequence[tuple[Mapping[int, float], Mapping[int, float]]]) -> Cost:
    """The median over rounds of what was added to the bare application of the same round."""
    costs = [cost(watched, bare) for watched, bare in rounds]
    return Cost(
        median(one.per_query for one in costs),
        median(one.per_request for one in costs),
        median(one.with_finding for one in costs),
    )
