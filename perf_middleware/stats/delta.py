"""A delta: the little that rolling stats need of one profile, made on the request's own thread.

It holds numbers, names and fingerprints, so the profile itself can go as soon as the request is over.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from perf_middleware.record import Finding, Profile

SERVER_ERROR = 500


class QueryGroup:
    """The queries of one fingerprint in one profile."""

    __slots__ = ("caller", "count", "errors", "max_ms", "system", "total_ms", "wire")

    def __init__(self, system: str | None) -> None:
        self.system = system
        self.caller: str | None = None
        self.count = 0
        self.wire = 0
        self.errors = 0
        self.total_ms = 0.0
        self.max_ms = 0.0


class Delta(NamedTuple):
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
        _groups(profile),
        profile.findings,
    )


def _groups(profile: Profile) -> dict[str | None, QueryGroup]:
    groups: dict[str | None, QueryGroup] = {}
    queries = profile.queries
    for (fingerprint, _), indices in profile.by_fingerprint.items():
        group = groups.get(fingerprint)
        if group is None:
            group = groups[fingerprint] = QueryGroup(queries[indices[0]].system)
        group.count += len(indices)
        for index in indices:
            query = queries[index]
            duration_ms = query.duration_ms
            group.total_ms += duration_ms
            if duration_ms > group.max_ms:  # noqa: PLR1730 - max() would cost a call for each query
                group.max_ms = duration_ms
            group.wire += query.wire
            if query.error is not None:
                group.errors += 1
        group.caller = queries[indices[-1]].caller
    for folded in profile.folded:
        group = groups.get(folded.fingerprint)
        if group is None:
            group = groups[folded.fingerprint] = QueryGroup(folded.system)
        group.count += folded.count
        group.wire += folded.wire
        group.errors += folded.errors
        group.total_ms += folded.duration_ms
        group.max_ms = max(group.max_ms, folded.max_ms)
    return groups
