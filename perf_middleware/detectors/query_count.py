"""query_count: a request that asks a hundred different things.

No loop explains it, so no single batch mends it: a page made of many parts that each ask for themselves, or
start-up work done per request. A hundred round trips of half a millisecond are 50 ms before any work is done.

Runs that repeat a statement are for `n_plus_one`, `duplicate_query` and `write_loop` to tell: of each statement
only as many runs count as are no loop yet.

https://docs.djangoproject.com/en/stable/topics/db/optimization/
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import at, finding_id, folded_counters, is_work, most_common
from perf_middleware.detectors.severity import severity_in
from perf_middleware.record import Finding, union_ms
from perf_middleware.sql import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.record import Folded, Profile, Runs
    from perf_middleware.sql import Statement

#: Statements in one profile, of each no more than `LOOP` - 1.
DEFAULT: Final = 100

#: From so many runs on a statement is in a loop.
LOOP: Final = 5


def detect(profile: Profile, threshold: float) -> Sequence[Finding]:
    """One finding at most."""
    if 0 < profile.query_count < threshold:
        return ()
    folded = folded_counters(profile)
    asked: list[tuple[Statement, Runs | None, Folded | None]] = []
    count = 0
    for key in dict.fromkeys((*profile.by_fingerprint, *folded)):
        runs, beyond = profile.by_fingerprint.get(key), folded.get(key)
        if key[0] is None:
            continue
        statement = parse(key[0], runs.system if runs is not None else None if beyond is None else beyond.system)
        if is_work(statement):
            asked.append((statement, runs, beyond))
            count += min(_count(runs, beyond), LOOP - 1)
    return [_finding(profile, asked, count, threshold)] if count >= max(threshold, 1) else ()


def _count(runs: Runs | None, beyond: Folded | None) -> int:
    return (0 if runs is None else runs.totals()[0]) + (0 if beyond is None else beyond.count)


def _finding(
    profile: Profile, asked: list[tuple[Statement, Runs | None, Folded | None]], count: int, threshold: float
) -> Finding:
    kept = [runs for _, runs, _ in asked if runs is not None]
    counters = [beyond for _, _, beyond in asked if beyond is not None]
    starts_ms = [start_ms for runs in kept for start_ms in runs.starts_ms()]
    durations_ms = [duration_ms for runs in kept for duration_ms in runs.durations_ms()]
    beyond_ms = sum([beyond.duration_ms for beyond in counters])
    longest_ms = max([*durations_ms, *[beyond.max_ms for beyond in counters]], default=0.0)
    wasted_ms = max(union_ms(starts_ms, durations_ms) + beyond_ms - longest_ms, 0.0)
    caller: str | None = most_common(Counter([caller for runs in kept for caller in runs.callers()]))
    everything = sum([_count(runs, beyond) for _, runs, beyond in asked])
    return Finding(
        finding_id=finding_id("query_count", profile.name, None),
        kind="query_count",
        severity=severity_in(profile, wasted_ms, everything),
        confidence="high",
        threshold=f"query_count: {count} >= {threshold:g}",
        title=f"{everything} queries, {len(asked)} different ones{f', most of them{at(caller)}' if caller else ''}",
        fingerprint="",
        tables=list(dict.fromkeys(table for statement, _, _ in asked for table in statement.tables)),
        caller=caller,
        count=everything,
        total_ms=sum(durations_ms) + beyond_ms,
        wasted_ms=wasted_ms,
        evidence=sorted(index for runs in kept for index in runs.indices()),
        recommendation=(
            f"Ask for less or for more at a time: join what belongs together{at(caller)}, "
            "load parts of the page when they are opened, and read what never changes at start."
        ),
    )
