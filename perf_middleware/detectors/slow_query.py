"""slow_query: a statement that took long by itself.

Half a second inside one statement is felt by whoever waits for the request (0.1 s feels instant, 1 s interrupts
the thought), and a connection is taken for as long. Only the time inside execute counts, not fetching.

https://www.nngroup.com/articles/response-times-3-important-limits/
https://use-the-index-luke.com/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import at, finding_id, folded_counters, is_work, most_common_caller, share, table
from perf_middleware.detectors.severity import severity
from perf_middleware.detectors.shape import shape
from perf_middleware.record import Finding
from perf_middleware.sql import Statement, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.record import Profile

#: Milliseconds in one run.
DEFAULT: Final = 500.0


def detect(profile: Profile, threshold: float) -> Iterator[Finding]:
    """One finding per fingerprint and database, of the runs that were slow; failed ones (a timeout) count too."""
    folded = folded_counters(profile)
    groups = profile.by_fingerprint
    for key in dict.fromkeys((*groups, *folded)):
        evidence = [index for index in groups.get(key, ()) if profile.queries[index].duration_ms >= threshold]
        durations = [profile.queries[index].duration_ms for index in evidence]
        beyond = folded.get(key)
        if beyond and beyond.max_ms >= threshold:
            durations.append(beyond.max_ms)  # of the folded runs only the longest is known
        if not durations or key[0] is None:
            continue
        statement = parse(
            key[0], profile.queries[evidence[0]].system if evidence else beyond.system if beyond else None
        )
        if is_work(statement):
            yield _finding(profile, statement, evidence, durations, threshold)


def _finding(
    profile: Profile, statement: Statement, evidence: list[int], durations: list[float], threshold: float
) -> Finding:
    total_ms, longest_ms = sum(durations), max(durations)
    caller = most_common_caller([profile.queries[index] for index in evidence])
    times = f"{len(durations)} times, up to " if len(durations) > 1 else ""
    return Finding(
        finding_id=finding_id("slow_query", statement.fingerprint, caller),
        kind="slow_query",
        severity=severity(total_ms, len(durations), share(profile, total_ms)),
        confidence="high",
        threshold=f"slow_query: {longest_ms:.0f} >= {threshold:g} ms",
        title=f"{table(statement)} took {times}{longest_ms:.0f} ms{at(caller)}",
        fingerprint=statement.fingerprint,
        tables=list(statement.tables),
        caller=caller,
        count=len(durations),
        total_ms=total_ms,
        wasted_ms=total_ms,
        evidence=evidence,
        recommendation=_recommendation(statement, caller),
    )


def _recommendation(statement: Statement, caller: str | None) -> str:
    asked = shape(statement.fingerprint)
    columns = list(dict.fromkeys((*asked.pinned, *sorted(asked.bounded))))
    where = f" filters by {', '.join(columns)}" if columns else " has no condition on a column that an index could use"
    return f"Look at its plan with EXPLAIN: the statement{at(caller)} reads {table(statement)} and{where}."
