"""The transactions of a record that has BEGIN and COMMIT among its queries instead.

Only those whose end is among them too: a driver may commit by a call that is no statement, and nobody can tell from
the record when that was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from perf_middleware.record import Transaction
from perf_middleware.sql import parse

if TYPE_CHECKING:
    from perf_middleware.record import Profile, Query

    Outcome = Literal["commit", "rollback"]


def derive(profile: Profile) -> list[Transaction]:
    """Those that were seen from beginning to end, per database; each of their queries is told its ordinal."""
    found: list[Transaction] = []
    open_since: dict[str | None, list[Query]] = {}
    for query in profile.queries:
        verb = "" if query.fingerprint is None or query.error else parse(query.fingerprint, query.system).transaction
        if verb == "begin":
            open_since[query.db] = [query]
        elif query.db in open_since:
            open_since[query.db].append(query)
            if verb in ("commit", "rollback"):
                found.append(_transaction(open_since.pop(query.db), len(found), verb))  # type: ignore[arg-type]
    return found


def _transaction(queries: list[Query], ordinal: int, outcome: Outcome) -> Transaction:
    for query in queries:
        query.transaction = ordinal
    first, last = queries[0], queries[-1]
    return Transaction(
        start_ms=first.start_ms,
        duration_ms=last.start_ms + last.duration_ms - first.start_ms,
        busy_ms=sum([query.duration_ms for query in queries]),
        db=first.db,
        outcome=outcome,
    )
