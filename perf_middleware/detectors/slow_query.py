"""slow_query: a statement that took long by itself.

Half a second inside one statement is felt by whoever waits for the request (0.1 s feels instant, 1 s interrupts
the thought), and a connection is taken for as long. Only the time inside execute counts, not fetching.

https://www.nngroup.com/articles/response-times-3-important-limits/
https://use-the-index-luke.com/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import (
    at,
    finding_id,
    folded_counters,
    is_work,
    most_common_caller,
    share,
    table,
    wall_ms,
)
from perf_middleware.detectors.severity import severity
from perf_middleware.detectors.shape import shape
from perf_middleware.record import Finding
from perf_middleware.sql import Statement, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.record import Folded, Profile

#: Milliseconds in one run.
DEFAULT: Final = 500.0


def detect(profile: Profile, threshold: float) -> Iterator[Finding]:
    """One finding per fingerprint and database, of the runs that were slow; failed ones (a timeout) count too."""
    folded = folded_counters(profile)
    groups = profile.by_fingerprint
    for key in dict.fromkeys((*groups, *folded)):
        evidence = [index for index in groups.get(key, ()) if profile.queries[index].duration_ms >= threshold]
        beyond = folded.get(key)
        if beyond and beyond.max_ms < threshold:
            beyond = None
        if key[0] is None or not (evidence or beyond):
            continue
        system = profile.queries[evidence[0]].system if evidence else beyond.system if beyond else None
        statement = parse(key[0], system)
        if is_work(statement):
            yield _finding(profile, statement, evidence, beyond, threshold)


def _finding(
    profile: Profile, statement: Statement, evidence: list[int], beyond: Folded | None, threshold: float
) -> Finding:
    runs = [profile.queries[index] for index in evidence]
    beyond_ms = beyond.max_ms if beyond else 0.0  # of the runs that were not kept, only the longest is known
    longest_ms = max(beyond_ms, *(query.duration_ms for query in runs)) if runs else beyond_ms
    count = len(runs) + (beyond is not None)
    wasted_ms = wall_ms(runs) + beyond_ms
    caller, name = most_common_caller(runs), table(statement)
    times = f"{count} times, up to " if count > 1 else ""
    return Finding(
        finding_id=finding_id("slow_query", statement.fingerprint, caller),
        kind="slow_query",
        severity=severity(wasted_ms, count, share(profile, wasted_ms)),
        confidence="high",
        threshold=f"slow_query: {longest_ms:.0f} >= {threshold:g} ms",
        title=f"{name} took {times}{longest_ms:.0f} ms{at(caller)}",
        fingerprint=statement.fingerprint,
        tables=list(statement.tables),
        caller=caller,
        count=count,
        total_ms=sum(query.duration_ms for query in runs) + beyond_ms,
        wasted_ms=wasted_ms,
        evidence=evidence,
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
