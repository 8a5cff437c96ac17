"""duplicate_query: the identical read with identical values, again and again.

The answer was known after the first run. Unlike an N+1 no batch is missing: the caller forgot what it had, often
because a helper or a property asks each time it is called.

https://docs.djangoproject.com/en/stable/topics/db/optimization/#retrieve-everything-at-once-if-you-know-you-will-need-it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import VARIED, Repeat, at, finding_id, most_common, reads, table
from perf_middleware.detectors.severity import severity_in
from perf_middleware.record import Finding

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from perf_middleware.record import Profile

#: Runs of one statement with one value in one profile.
DEFAULT: Final = 5

#: With more different values it is a loop over them: `n_plus_one`.
MAX_VALUES: Final = VARIED - 1


def detect(profile: Profile, threshold: float) -> Sequence[Finding]:
    """One finding per fingerprint and database."""
    found = []
    for repeat in reads(profile, threshold):
        if repeat.different > MAX_VALUES and not repeat.unknown:  # the most: a loop over different values
            continue
        if not repeat.shape.queue and _is_duplicate(repeat, threshold):
            found.append(_finding(profile, repeat, threshold))
    return found


def _is_duplicate(repeat: Repeat, threshold: float) -> bool:
    if repeat.unknown and not repeat.shape.selective and not repeat.shape.offset:
        return True  # only LIMIT takes a value
    if repeat.different > MAX_VALUES:
        return False
    return repeat.most_alike >= threshold and repeat.most_alike > repeat.unknown


def _finding(profile: Profile, repeat: Repeat, threshold: float) -> Finding:
    # For each value its slowest run stays. Runs of unknown value are taken to have one of those seen.
    slowest: dict[Hashable, float] = {}
    for value, duration_ms in zip(repeat.values, repeat.runs.durations_ms(), strict=True):
        slowest[value] = max(slowest.get(value, 0.0), duration_ms)
    total_ms, wall_ms, _ = repeat.times_ms()
    wasted_ms = max(wall_ms - sum(slowest.values()), 0.0)
    statement, caller, name = repeat.statement, most_common(repeat.callers()), table(repeat.statement)
    return Finding(
        finding_id=finding_id("duplicate_query", statement.fingerprint, caller),
        kind="duplicate_query",
        severity=severity_in(profile, wasted_ms, repeat.count),
        confidence="medium" if repeat.unknown else "high",
        threshold=f"duplicate_query: {repeat.count} >= {threshold:g}",
        title=f"{repeat.count} times the same {name} query{at(caller)}",
        fingerprint=statement.fingerprint,
        tables=list(statement.tables),
        caller=caller,
        count=repeat.count,
        total_ms=total_ms,
        wasted_ms=wasted_ms,
        evidence=repeat.runs.indices(),
        recommendation=f"Read {name} once and pass the result on: the values are the same each time{at(caller)}.",
    )
