"""A delta: the little that rolling stats need of one profile, made on the request's own thread.

It holds numbers, names and fingerprints, so the profile itself can go as soon as the request is over.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from perf_middleware.record import Finding, Profile

SERVER_ERROR = 500


#: The queries of one fingerprint in one profile: count, wire, errors, total_ms, max_ms, system, caller. A plain
#: tuple, because it is made while the request waits.
QueryGroup = tuple[int, int, int, float, float, str | None, str | None]


class Delta(msgspec.Struct, gc=False):
    """What one profile adds to the stats; `second` is the unix time at which it ended."""

    second: float
    kind: str
    name: str
    duration_ms: float
    db_ms: float
    failed: bool
    query_count: int
    groups: dict[str | None, QueryGroup]
    findings: list[Finding]


def delta(profile: Profile) -> Delta:
    """The profile's delta; a status of 500 or above, or an exception that left the application, is a failure."""
    return Delta(
        time.time(),
        profile.kind,
        profile.name,
        profile.duration_ms,
        profile.db_ms,
        profile.error is not None or (profile.status or 0) >= SERVER_ERROR,
        profile.query_count,
        _groups(profile) if profile.query_count or profile.queries else {},
        profile.findings,
    )


def _groups(profile: Profile) -> dict[str | None, QueryGroup]:
    groups: dict[str | None, QueryGroup] = {}
    for (fingerprint, _), runs in profile.by_fingerprint.items():
        group: QueryGroup = (*runs.totals(), runs.system, runs.caller)
        known = groups.get(fingerprint)
        groups[fingerprint] = group if known is None else _sum(known, group)
    for folded in profile.folded:
        group = (folded.count, folded.wire, folded.errors, folded.duration_ms, folded.max_ms, folded.system, None)
        known = groups.get(folded.fingerprint)
        groups[folded.fingerprint] = group if known is None else _sum(known, group)
    return groups


def _sum(one: QueryGroup, other: QueryGroup) -> QueryGroup:
    return (
        one[0] + other[0],
        one[1] + other[1],
        one[2] + other[2],
        one[3] + other[3],
        max(one[4], other[4]),
        one[5] or other[5],
        other[6] or one[6],
    )
