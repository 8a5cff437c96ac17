"""slow_query: a statement that took long by itself.

Half a second inside one statement is felt by whoever waits for the request (0.1 s feels instant, 1 s interrupts
the thought), and a connection is taken for as long. Only the time inside execute counts, not fetching.

https://www.nngroup.com/articles/response-times-3-important-limits/
https://use-the-index-luke.com/
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import (
    at,
    finding_id,
    folded_counters,
    is_work,
    most_common,
    table,
)
from perf_middleware.detectors.severity import severity_in
from perf_middleware.detectors.shape import shape
from perf_middleware.record import Finding, union_ms
from perf_middleware.sql import Statement, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perf_middleware.record import Folded, Profile, Runs

#: Milliseconds in one run.
DEFAULT: Final = 500.0


def detect(profile: Profile, threshold: float) -> Iterable[Finding]:
    """One finding per fingerprint and database, of the runs that were slow; failed ones (a timeout) count too."""
    if 0 < profile.db_sum_ms < threshold:  # all together
        return ()
    return _detect(profile, threshold)


def _detect(profile: Profile, threshold: float) -> Iterator[Finding]:
    slow = {key: runs for key, runs in profile.by_fingerprint.items() if runs.totals()[4] >= threshold}
    slow_folded = {key: counter for key, counter in folded_counters(profile).items() if counter.max_ms >= threshold}
    for key in dict.fromkeys((*slow, *slow_folded)):
        runs, beyond = slow.get(key), slow_folded.get(key)
        if key[0] is None:
            continue
        system = runs.system if runs is not None else beyond.system if beyond is not None else None
        statement = parse(key[0], system)
        if is_work(statement):
            yield _finding(profile, statement, runs, beyond, threshold)


def _finding(
    profile: Profile, statement: Statement, runs: Runs | None, beyond: Folded | None, threshold: float
) -> Finding:
    slow: list[tuple[int, float, float, str | None]] = []
    if runs is not None:
        columns = zip(runs.indices(), runs.starts_ms(), runs.durations_ms(), runs.callers(), strict=True)
        slow = [run for run in columns if run[2] >= threshold]
    starts_ms, durations_ms = [run[1] for run in slow], [run[2] for run in slow]
    beyond_ms = beyond.max_ms if beyond else 0.0  # of the runs that were not kept, only the longest is known
    longest_ms = max([*durations_ms, beyond_ms])
    count = len(slow) + (beyond is not None)
    wasted_ms = union_ms(starts_ms, durations_ms) + beyond_ms
    caller, name = most_common(Counter([run[3] for run in slow])), table(statement)
    times = f"{count} times, up to " if count > 1 else ""
    return Finding(
        finding_id=finding_id("slow_query", statement.fingerprint, caller),
        kind="slow_query",
        severity=severity_in(profile, wasted_ms, count),
        confidence="high",
        threshold=f"slow_query: {longest_ms:.0f} >= {threshold:g} ms",
        title=f"{name} took {times}{longest_ms:.0f} ms{at(caller)}",
        fingerprint=statement.fingerprint,
        tables=list(statement.tables),
        caller=caller,
        count=count,
        total_ms=sum(durations_ms) + beyond_ms,
        wasted_ms=wasted_ms,
        evidence=[run[0] for run in slow],
        recommendation=f"Look at its plan with EXPLAIN{at(caller)}. {_question(statement, name)}",
    )


def _question(statement: Statement, name: str) -> str:
    asked = shape(statement.fingerprint)
    columns = list(dict.fromkeys((*asked.pinned, *sorted(asked.bounded))))
    if columns:
        return f"Does an index of {name} serve {', '.join(columns)}?"
    if statement.verb == "INSERT":
        return f"Did it wait for a lock, or do indexes, triggers or foreign keys of {name} cost it?"
    return f"It compares no column of {name} with a value: does it need all of it?"
