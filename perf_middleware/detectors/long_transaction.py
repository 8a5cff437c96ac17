"""long_transaction: a transaction was open for a second and did mostly nothing.

Its locks make others wait, the database keeps old versions of rows for it, and its connection is missing from the
pool: all while the application calculates, or calls somebody else. One that is busy all the time is a matter of
its statements (`slow_query`).

https://dev.mysql.com/doc/refman/8.4/en/innodb-purge-configuration.html
https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-IN-TRANSACTION-SESSION-TIMEOUT
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import at, finding_id, is_work
from perf_middleware.detectors.severity import severity_in
from perf_middleware.record import Finding
from perf_middleware.sql import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perf_middleware.record import Profile, Query, Transaction

#: Milliseconds from the first statement to the end.
DEFAULT: Final = 1000.0

#: Share of its time in which no statement ran and no row was fetched.
IDLE: Final = 0.5


def detect(profile: Profile, threshold: float) -> Iterable[Finding]:
    """One finding per transaction."""
    if 0 < profile.duration_ms < threshold:
        return ()
    return _detect(profile, threshold)


def _detect(profile: Profile, threshold: float) -> Iterator[Finding]:
    rows = profile.rows
    long = [item for item in enumerate(rows.transactions) if item[1].duration_ms >= threshold]
    queries = rows.queries if long else []
    for ordinal, transaction in long:
        inside = [
            (index, query)
            for index, query in enumerate(queries)
            if query.transaction == ordinal and query.fingerprint and is_work(parse(query.fingerprint, query.system))
        ]
        fetched_ms = sum([query.fetch_ms or 0.0 for _, query in inside])
        idle_ms = transaction.duration_ms - transaction.busy_ms - fetched_ms
        if inside and idle_ms >= IDLE * transaction.duration_ms:
            yield _finding(profile, transaction, inside, idle_ms, threshold)


def _finding(
    profile: Profile, transaction: Transaction, inside: list[tuple[int, Query]], idle_ms: float, threshold: float
) -> Finding:
    first = inside[0][1]
    pause_ms, before = _longest_pause(transaction, [query for _, query in inside])
    return Finding(
        finding_id=finding_id("long_transaction", first.fingerprint or "", first.caller),
        kind="long_transaction",
        severity=severity_in(profile, idle_ms, len(inside)),
        confidence="high",
        threshold=f"long_transaction: {transaction.duration_ms:.0f} >= {threshold:g} ms",
        title=f"a transaction was open for {transaction.duration_ms:.0f} ms, {idle_ms:.0f} of them idle"
        f"{at(first.caller)}",
        fingerprint=first.fingerprint or "",
        tables=list(dict.fromkeys(table for _, query in inside for table in _tables(query))),
        caller=first.caller,
        count=len(inside),
        total_ms=transaction.duration_ms,
        wasted_ms=idle_ms,
        evidence=[index for index, _ in inside],
        recommendation=(
            f"Do what needs no database before the transaction or after it: the longest pause, {pause_ms:.0f} ms, "
            f"follows the statement{at(before.caller)}. Locks are held and a connection is taken meanwhile."
        ),
    )


def _longest_pause(transaction: Transaction, queries: list[Query]) -> tuple[float, Query]:
    """How long nothing ran, and the query before it."""
    ends_ms = [query.start_ms + query.duration_ms + (query.fetch_ms or 0.0) for query in queries]
    next_ms = [*[query.start_ms for query in queries[1:]], transaction.start_ms + transaction.duration_ms]
    pauses = [after_ms - end_ms for after_ms, end_ms in zip(next_ms, ends_ms, strict=True)]
    longest = max(range(len(pauses)), key=pauses.__getitem__)
    return pauses[longest], queries[longest]


def _tables(query: Query) -> tuple[str, ...]:
    return parse(query.fingerprint or "", query.system).tables
