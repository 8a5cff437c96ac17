"""large_result: a query that gave the application ten thousand rows.

Nobody reads them on a page. Each costs memory and time in the database, on the wire and in the driver, and their
number grows with the data: a listing without LIMIT. An export needs them, but not all at once.

https://use-the-index-luke.com/no-offset
https://docs.djangoproject.com/en/stable/ref/models/querysets/#iterator
https://docs.sqlalchemy.org/en/20/orm/queryguide/api.html#fetching-large-result-sets-with-yield-per
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import at, counted, finding_id, most_common, question, table
from perf_middleware.detectors.severity import severity_in
from perf_middleware.record import Finding, union_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perf_middleware.detectors.shape import Shape
    from perf_middleware.record import Profile, Query
    from perf_middleware.sql import Statement

#: Rows of one run.
DEFAULT: Final = 10_000

#: More than any driver in Python hands over, by a judgement that errs on the high side: with less time than this
#: takes, no result of a live profile was large.
MAX_ROWS_PER_MS: Final = 20_000


def detect(profile: Profile, threshold: float) -> Iterable[Finding]:
    """One finding per fingerprint and database, of the runs that read so many rows."""
    # Who recorded a trace may not have timed the fetching, so only of a live profile do the times tell.
    least_ms = 0.0 if profile.rows is profile else threshold / MAX_ROWS_PER_MS - (profile.fetch_ms or 0.0)
    return () if profile.db_sum_ms < least_ms else _detect(profile, threshold, least_ms)


def _detect(profile: Profile, threshold: float, least_ms: float) -> Iterator[Finding]:
    for (fingerprint, _), runs in profile.by_fingerprint.items():
        if runs.totals()[4] < least_ms:
            continue
        rows = runs.rows()
        if max(filter(None, rows), default=0) < max(threshold, 1):
            continue
        asked = question(fingerprint, runs.system)
        if asked is not None:
            queries = profile.rows.queries
            evidence = [
                index for index, count in zip(runs.indices(), rows, strict=True) if count and count >= threshold
            ]
            yield _finding(profile, asked, [queries[index] for index in evidence], evidence, threshold)


def _finding(
    profile: Profile, asked: tuple[Statement, Shape], queries: list[Query], evidence: list[int], threshold: float
) -> Finding:
    statement, shape = asked
    rows = max(query.rows or 0 for query in queries)
    times_ms = [query.duration_ms + (query.fetch_ms or 0.0) for query in queries]
    wasted_ms = max(union_ms([query.start_ms for query in queries], times_ms), 0.0)
    caller, name, count = most_common(counted([query.caller for query in queries])), table(statement), len(queries)
    times = f"{count} times, up to " if count > 1 else ""
    return Finding(
        finding_id=finding_id("large_result", statement.fingerprint, caller),
        kind="large_result",
        severity=severity_in(profile, wasted_ms, count),
        confidence="high",
        threshold=f"large_result: {rows} >= {threshold:g} rows",
        title=f"{name} gave {times}{rows} rows{at(caller)}",
        fingerprint=statement.fingerprint,
        tables=list(statement.tables),
        caller=caller,
        count=count,
        total_ms=sum(times_ms),
        wasted_ms=wasted_ms,
        evidence=evidence,
        recommendation=_recommendation(shape.limit, name, caller),
    )


def _recommendation(limited: bool, name: str, caller: str | None) -> str:  # noqa: FBT001 - what is known of the text
    limit = f"Ask for smaller pages of {name}" if limited else f"Limit it: read a page of {name}, ordered by its key"
    return (
        f"{limit}{at(caller)}, or have the database count and sum. An export streams: "
        "Django: iterator(); SQLAlchemy: yield_per; a server-side cursor with fetchmany."
    )
