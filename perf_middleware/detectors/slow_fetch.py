"""slow_fetch: the rows of a statement took long to be fetched, after it had been executed.

The database finds rows while they are fetched, so that this may be a slow query too; or there are many rows, or wide
ones, or the network is slow. The threshold is that of `slow_query`, for the same reason: somebody waits.

https://www.nngroup.com/articles/response-times-3-important-limits/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import at, counted, finding_id, is_work, most_common, table
from perf_middleware.detectors.severity import severity_in
from perf_middleware.record import Finding
from perf_middleware.sql import Statement, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perf_middleware.record import Profile, Query

#: Milliseconds of fetching the rows of one run.
DEFAULT: Final = 500.0


def detect(profile: Profile, threshold: float) -> Iterable[Finding]:
    """One finding per fingerprint and database, of the runs that were slow to fetch."""
    fetch_ms = profile.fetch_ms
    if fetch_ms is None or fetch_ms < threshold:  # all together
        return ()
    return _detect(profile, threshold)


def _detect(profile: Profile, threshold: float) -> Iterator[Finding]:
    queries = profile.rows.queries
    for (fingerprint, _), runs in profile.by_fingerprint.items():
        slow = [index for index in runs.indices() if (queries[index].fetch_ms or 0.0) >= threshold]
        if slow and fingerprint is not None:
            statement = parse(fingerprint, runs.system)
            if is_work(statement):
                yield _finding(profile, statement, [queries[index] for index in slow], slow, threshold)


def _finding(
    profile: Profile, statement: Statement, queries: list[Query], evidence: list[int], threshold: float
) -> Finding:
    times_ms = [query.fetch_ms or 0.0 for query in queries]
    total_ms, longest_ms, count = sum(times_ms), max(times_ms), len(queries)
    rows = [query.rows for query in queries if query.rows is not None]
    caller, name = most_common(counted([query.caller for query in queries])), table(statement)
    times = f"{count} times, up to " if count > 1 else ""
    of_rows = f"{max(rows)} rows" if rows else "rows"
    return Finding(
        finding_id=finding_id("slow_fetch", statement.fingerprint, caller),
        kind="slow_fetch",
        severity=severity_in(profile, total_ms, count),
        confidence="high",
        threshold=f"slow_fetch: {longest_ms:.0f} >= {threshold:g} ms",
        title=f"fetching {of_rows} of {name} took {times}{longest_ms:.0f} ms{at(caller)}",
        fingerprint=statement.fingerprint,
        tables=list(statement.tables),
        caller=caller,
        count=count,
        total_ms=total_ms,
        wasted_ms=total_ms,
        evidence=evidence,
        recommendation=(
            f"Fetch less of {name}{at(caller)}: only the columns that are used (Django: only(), values_list(); "
            "SQLAlchemy: load_only()), no large texts in a listing, fewer rows. If they are few and small, look at "
            "its plan: what is sorted or filtered without an index is found while it is fetched."
        ),
    )
