"""n_plus_one: the same read once per row of a loop, each time with another value.

Every turn pays a round trip, and the count grows with the data: what takes 20 statements on a laptop takes
2,000 in production. One statement for all values, or a join, does the same work once.

The whole profile counts, per fingerprint and database: other statements may stand between, turns may overlap,
and the branches of one loop may sit on several lines. Silent on what looks alike and is not one: paging, bulk
loads by long IN lists, straight-line code, retries, polling, writes (see docs/findings.md#n_plus_one).

https://docs.djangoproject.com/en/stable/ref/models/querysets/#prefetch-related
https://docs.sqlalchemy.org/en/20/orm/queryguide/relationships.html
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import (
    VARIED,
    Repeat,
    at,
    finding_id,
    is_straight_line,
    most_common,
    reads,
    table,
)
from perf_middleware.detectors.severity import severity_in
from perf_middleware.detectors.shape import Shape, conditions, shape
from perf_middleware.record import Confidence, Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.record import Profile
    from perf_middleware.sql import Statement

#: Runs of one statement in one profile.
DEFAULT: Final = 5

#: From this many values per list (or rows per page) on, a statement is a batch.
BULK_SIZE: Final = 20

#: A page or range without any equality holds more than one row on average, a range without LIMIT several.
MIN_PAGE_ROWS: Final = 1.5
MIN_RANGE_ROWS: Final = 5

#: Runs of unknown values with regular pauses of at least this between them are polling.
POLL_PAUSE_MS: Final = 5
POLL_SPREAD: Final = 1.5

#: Texts looked at to tell a constant in the code from a value that varies.
_SAMPLE: Final = 20
_NO_CONSTANTS: Final[frozenset[str]] = frozenset()


def detect(profile: Profile, threshold: float) -> Sequence[Finding]:
    """One finding per loop, however many lines it spreads over."""
    found = []
    for repeat in reads(profile, threshold):
        asked = repeat.shape
        if asked.queue or not (asked.selective or asked.offset):
            continue
        confidence = _confidence(repeat, threshold)
        if confidence is None:
            continue
        callers = repeat.callers()
        if is_straight_line(callers):
            continue
        if not asked.single and (_is_bulk(repeat) or _is_paging(repeat) or _follows_pages(profile, repeat)):
            continue
        found.append(_finding(profile, repeat, threshold, confidence, most_common(callers)))
    return found


def _confidence(repeat: Repeat, threshold: float) -> Confidence | None:
    """How sure it is that the values vary; None when they do not, or when it is polling."""
    if repeat.different >= VARIED:
        return "high"
    if not repeat.unknown:
        return None
    if len(set(repeat.runs.list_sizes())) >= VARIED:
        return "high"  # lists of different length are different values
    if repeat.most_alike >= threshold and repeat.most_alike > repeat.unknown:
        return None
    if _is_polling(repeat):
        return None
    return "medium" if repeat.values else "low"


def _is_polling(repeat: Repeat) -> bool:
    """Nothing between the runs but regular pauses."""
    evidence = repeat.runs.indices()
    if len(evidence) < VARIED or evidence[-1] - evidence[0] != len(evidence) - 1:
        return False
    starts_ms, durations_ms = repeat.runs.starts_ms(), repeat.runs.durations_ms()
    pauses = [
        after_ms - before_ms - duration_ms
        for before_ms, after_ms, duration_ms in zip(starts_ms, starts_ms[1:], durations_ms, strict=False)
    ]
    if min(pauses) < POLL_PAUSE_MS:
        return False
    from statistics import quantiles  # noqa: PLC0415 - only where a request paused for long, again and again

    return quantiles(pauses, n=4, method="inclusive")[2] <= POLL_SPREAD * min(pauses)


def _is_bulk(repeat: Repeat) -> bool:
    """Chunks of a long list: all but the last of one size, or of a good size on average."""
    if repeat.shape.array:
        rows = _rows(repeat)
        return rows is None or sum(rows) >= BULK_SIZE * len(rows)
    sizes = [max(size, repeat.shape.alternatives) for size in _sizes(repeat)]
    return sum(sizes) >= BULK_SIZE * len(sizes) or (sizes[0] >= BULK_SIZE and len(set(sizes[:-1])) == 1)


def _sizes(repeat: Repeat) -> list[int]:
    """How many values each run asked for; a single size where it is that of all."""
    sizes = repeat.runs.list_sizes() or [None]
    if sizes.count(sizes[0]) == len(sizes):
        return [sizes[0] or 1]
    return [size or 1 for size in sizes]


def _is_paging(repeat: Repeat) -> bool:
    """A table read piece by piece: LIMIT with OFFSET or a keyset, or ranges of keys."""
    asked = repeat.shape
    pages = asked.limit and (asked.offset or bool(asked.bounded))
    if not pages and not asked.bounded:
        return False
    rows, constants = _rows(repeat), _constants(repeat.runs.texts())
    parents = [column for column in asked.pinned if column not in constants]
    if parents:
        return pages and rows is not None and _are_full_pages(rows)
    if asked.aggregate:
        return False
    if rows is None:
        return True
    return sum(rows) > (MIN_PAGE_ROWS if pages else MIN_RANGE_ROWS) * len(rows)


def _are_full_pages(rows: list[int]) -> bool:
    """With an equality it is once per parent, unless all pages but the last are full and the last ends them."""
    size, last = rows[0], rows[-1]
    return size > 1 and len(set(rows[:-1])) == 1 and (last < size or (last == size and size >= BULK_SIZE))


def _rows(repeat: Repeat) -> list[int] | None:
    """How many rows each run read, if every one tells."""
    runs = repeat.runs.rows()
    rows = [count for count in runs if count is not None]
    return rows if rows and len(rows) == len(runs) else None


def _constants(texts: list[str | None]) -> frozenset[str]:
    """Columns that the code compares with one literal: seen only where the text is kept."""
    values: dict[str, set[str | None]] = {}
    for text in texts[:_SAMPLE]:
        if text is None:
            return frozenset()
        for condition in conditions(text):
            values.setdefault(condition.column, set()).add(condition.value)
    return frozenset(column for column, seen in values.items() if None not in seen and len(seen) == 1)


def _follows_pages(profile: Profile, repeat: Repeat) -> bool:
    """Short lists, one after each page of another statement: a prefetch per page."""
    if max(_sizes(repeat)) <= 1:
        return False
    evidence = repeat.runs.indices()
    for (fingerprint, db), runs in profile.by_fingerprint.items():
        if fingerprint is None or db != repeat.runs.db or abs(runs.totals()[0] - len(evidence)) > 1:
            continue
        indices = runs.indices()
        turns = zip(indices, evidence, [*indices[1:], math.inf], strict=False)
        if all(page < follower < following for page, follower, following in turns) and _is_page_text(fingerprint):
            return True
    return False


def _is_page_text(fingerprint: str) -> bool:
    asked = shape(fingerprint)
    return asked.limit and not asked.pinned and (asked.offset or bool(asked.bounded))


def _finding(profile: Profile, repeat: Repeat, threshold: float, confidence: Confidence, caller: str | None) -> Finding:
    # One statement for all values cannot be faster than the slowest of those it replaces: that one stays.
    total_ms, wall_ms, max_ms = repeat.times_ms()
    wasted_ms = wall_ms - max_ms if wall_ms > max_ms else 0.0
    statement, count = repeat.statement, repeat.count
    texts = repeat.runs.texts()
    told = _told(statement, _constants(texts) if texts else _NO_CONSTANTS, caller, threshold, repeat.runs.relation)
    id_, at_least, what, recommendation = told
    return Finding(  # by position, in the order of its fields: keywords cost a third more
        id_,
        "n_plus_one",
        severity_in(profile, wasted_ms, count),
        confidence,
        f"n_plus_one: {count}{at_least}",
        f"{count} times {what}",
        statement.fingerprint,
        [*statement.tables],
        caller,
        count,
        total_ms,
        wasted_ms,
        repeat.runs.indices(),
        recommendation,
    )


def _likely(asked: Shape, constants: frozenset[str]) -> str | None:
    """The column whose value most likely varies: a key before others, the last of several."""
    columns = [column for column in asked.pinned if column not in constants]
    keys = [column for column in columns if column.lower().endswith("id")]
    return next(iter(keys[::-1] or columns or sorted(asked.bounded)), None)


@lru_cache(maxsize=1024)
def _told(
    statement: Statement, constants: frozenset[str], caller: str | None, threshold: float, relation: str | None
) -> tuple[str, str, str, str]:
    """What findings of one loop have in common: id, threshold, what is asked for again and again, what to do."""
    asked, name = shape(statement.fingerprint), table(statement)
    column = _likely(asked, constants)
    by = f" by {column}" if column else ""
    return (
        finding_id("n_plus_one", statement.fingerprint, caller),
        f" >= {threshold:g}",
        f"{name}{by}{at(caller)}",
        _recommendation(asked, name, len(statement.tables), column, caller, relation),
    )


def _recommendation(  # noqa: PLR0917 - what is known of the loop
    asked: Shape, name: str, tables: int, column: str | None, caller: str | None, relation: str | None
) -> str:
    where = f"before the loop{at(caller)}"
    if column is None or column not in asked.pinned:
        return f"Read all of {name} that the loop needs in one statement {where}, then look up in memory."
    joined = " ..." if tables > 1 else ""
    listed = f"FROM {name}{joined} WHERE {column} IN (...)"
    if next(condition.test for condition in asked.conditions if condition.column == column) == "like":
        return f"Ask {name} once for all patterns {where}: WHERE {column} LIKE ... OR {column} LIKE ..."
    if asked.aggregate:
        return (
            f"Aggregate once {where}: SELECT {column}, ... {listed} GROUP BY {column}. "
            "Django: annotate(); SQLAlchemy: group_by()."
        )
    if asked.sorted and asked.limit:
        return (
            f"Rank once {where}: SELECT ..., ROW_NUMBER() OVER (PARTITION BY {column} ORDER BY ...) {listed}, "
            "and keep the first rows of each."
        )
    return (
        f"Load all at once {where}: SELECT ... {listed}. "
        f"{f'{relation} is loaded lazily, row by row. ' if relation else ''}"
        "Django: select_related or prefetch_related; SQLAlchemy: selectinload."
    )
