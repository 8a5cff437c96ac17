"""write_loop: the same write once per row of a loop, where one statement could have written all rows.

Every turn pays a round trip, and outside a transaction a flush to disk as well; the count grows with the data. One
INSERT with many rows, `executemany`, or one UPDATE or DELETE with a condition does the same work once.

The whole profile counts, per fingerprint and database: what else runs between the turns (a SELECT, a savepoint)
does not matter. Silent on batches: several rows in a statement, long lists, ranges, LIMIT, `executemany` (see
docs/findings.md#write_loop).

https://docs.djangoproject.com/en/stable/ref/models/querysets/#bulk-create
https://docs.sqlalchemy.org/en/20/orm/queryguide/dml.html
https://dev.mysql.com/doc/refman/8.4/en/insert-optimization.html
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import (
    WRITES,
    Repeat,
    at,
    finding_id,
    is_straight_line,
    most_common,
    table,
    writes,
)
from perf_middleware.detectors.severity import severity_in
from perf_middleware.detectors.shape import shape, words
from perf_middleware.record import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.record import Profile
    from perf_middleware.sql import Statement

#: Runs of one statement in one profile.
DEFAULT: Final = 5

#: Columns that are unique by themselves: a range beside them picks no more than the one row.
_KEYS: Final = words("id pk uuid rowid")

_CHANGES: Final = words("UPDATE DELETE")
_INNER_VERB: Final = re.compile(r"\b(INSERT|DELETE|MERGE|UPDATE)\b", re.IGNORECASE)
_SOURCE: Final = re.compile(r"\bINTO\b.*?\b(VALUES|SELECT|SET|DEFAULT)\b(.*)", re.IGNORECASE | re.DOTALL)
_CLAUSE: Final = re.compile(r"\b(FROM|WHERE)\b\s*(DUAL\b)?", re.IGNORECASE)
_WHERE: Final = re.compile(r"\bWHERE\b", re.IGNORECASE)


def detect(profile: Profile, threshold: float) -> Sequence[Finding]:
    """One finding per loop, however many lines it spreads over."""
    repeats = writes(profile, threshold)
    return _detect(repeats, profile, threshold) if repeats else ()


def _detect(repeats: Sequence[Repeat], profile: Profile, threshold: float) -> Sequence[Finding]:
    found = []
    for repeat in repeats:
        loop = _by_row(repeat, threshold)
        if loop is None:
            continue
        callers = loop.callers()
        if not is_straight_line(callers):
            found.append(_finding(profile, loop, threshold, most_common(callers)))
    return found


def _by_row(repeat: Repeat, threshold: float) -> Repeat | None:
    """The runs that wrote one row each, if they are most of them; None when it is no loop over rows."""
    if repeat.shape.array or repeat.shape.queue:
        return None
    columns = _changed(repeat) if _verb(repeat.statement) in _CHANGES else _added(repeat)
    if columns is None:
        return None
    told = [column for column in (*columns, repeat.runs.many()) if column]
    places = range(len(repeat.values))
    singles = [place for place in places if all((column[place] or 0) <= 1 for column in told)]
    if len(singles) == len(places):
        return repeat
    return repeat.only(singles) if len(singles) >= max(threshold, len(places) / 2) else None


def _changed(repeat: Repeat) -> list[list[int | None]] | None:
    """What tells how many rows each UPDATE or DELETE was meant for; None where it is no choice of one row.

    One row is chosen by an equality, with no LIMIT; with a range only by a key, or if the rows tell. The same change
    to the same row again and again is a heartbeat, or a lock asked for.
    """
    condition = _WHERE.split(repeat.statement.fingerprint, maxsplit=1)
    if len(condition) == 1 or repeat.shape.limit or (repeat.different == 1 and not repeat.unknown):
        return None
    where, rows = shape(condition[1]), repeat.runs.rows()
    if not where.pinned or (where.bounded and None in rows and _KEYS.isdisjoint(map(str.lower, where.pinned))):
        return None
    if where.alternatives and None not in rows:  # the list beside an equality may be of states
        return [rows]
    return [rows, repeat.runs.list_sizes()]


def _added(repeat: Repeat) -> list[list[int | None]] | None:
    """What tells how many rows each INSERT or MERGE was given; None where they come out of a table and nothing does.

    An upsert's rows do not tell: MySQL counts an updated one twice.
    """
    sizes = repeat.runs.list_sizes()
    if _is_given(repeat.statement):
        return [sizes]
    rows = repeat.runs.rows()
    return None if None in rows else [rows, sizes]


@lru_cache(maxsize=1024)
def _is_given(statement: Statement) -> bool:
    """The values stand in the statement: VALUES, SET, or a SELECT from nowhere (`SELECT ?, ? WHERE NOT EXISTS ...`)."""
    if _verb(statement) == "MERGE":
        return len(statement.tables) == 1
    source = _SOURCE.search(statement.fingerprint)
    if source is None or source[1].upper() != "SELECT":
        return True
    clause = _CLAUSE.search(source[2])
    return clause is None or clause[1].upper() == "WHERE" or clause[2] is not None


def _verb(statement: Statement) -> str:
    """INSERT, UPDATE, ...: also of what stands within a WITH."""
    if statement.verb in WRITES:
        return statement.verb
    inner = _INNER_VERB.search(statement.fingerprint)
    return inner[1].upper() if inner else statement.verb


def _finding(profile: Profile, repeat: Repeat, threshold: float, caller: str | None) -> Finding:
    # One statement for all rows cannot be faster than the slowest of those it replaces: that one stays.
    total_ms, wall_ms, max_ms = repeat.times_ms()
    wasted_ms = wall_ms - max_ms if wall_ms > max_ms else 0.0
    statement, count, name = repeat.statement, repeat.count, table(repeat.statement)
    verb = _verb(statement)
    return Finding(
        finding_id=finding_id("write_loop", statement.fingerprint, caller),
        kind="write_loop",
        severity=severity_in(profile, wasted_ms, count),
        confidence="low" if repeat.beyond is not None and not repeat.values else "high",
        threshold=f"write_loop: {count} >= {threshold:g}",
        title=f"{count} times {verb} of one {name} row{at(caller)}",
        fingerprint=statement.fingerprint,
        tables=[*statement.tables],
        caller=caller,
        count=count,
        total_ms=total_ms,
        wasted_ms=wasted_ms,
        evidence=repeat.runs.indices(),
        recommendation=_recommendation(statement, verb, name, caller),
    )


def _recommendation(statement: Statement, verb: str, name: str, caller: str | None) -> str:
    where = f"after the loop{at(caller)}"
    if verb == "DELETE":
        columns = shape(statement.fingerprint).pinned
        column = columns[-1] if columns else "id"
        return (
            f"Delete all of {name} at once {where}: WHERE {column} IN (...). "
            "Django: filter(...).delete(); SQLAlchemy: delete().where(...in_(...))."
        )
    if verb == "UPDATE":
        return (
            f"Update all of {name} at once {where}: one UPDATE whose WHERE covers the rows, or executemany. "
            "Django: bulk_update() or update() with F(); SQLAlchemy: update() with a list of parameters."
        )
    return (
        f"Write all of {name} at once {where}: many rows in an INSERT, or executemany. "
        "Django: bulk_create() (update_conflicts=True for an upsert); SQLAlchemy: insert() with a list of parameters."
    )
