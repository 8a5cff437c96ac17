"""The statements of a profile that ran again and again, with what is known of their values.

The ground on which `n_plus_one`, `duplicate_query` and `write_loop` stand, so that all count the same runs:
successful ones, per fingerprint and database, over the whole profile and in any order. A run that only repeats a piece
of work after a failure is not counted, and statements that neither ask about data nor change it never are.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeVar

from perf_middleware.detectors import transactions
from perf_middleware.detectors.shape import Shape, bare, shape, words
from perf_middleware.record import QueryRuns, union_ms
from perf_middleware.sql import Statement, fingerprint_id, parse

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from perf_middleware.record import Folded, Profile, Runs, Totals

T = TypeVar("T")
H = TypeVar("H", bound="Hashable")

#: Schemas and tables in which a database describes itself.
_CATALOGUE: Final = re.compile(
    r"(information_schema|performance_schema|pg_catalog|mysql|sys)\b.+|pg_\w+|sqlite_\w+|sys(objects|columns|indexes)"
    r"|(all|user|dba)_(tables|tab_columns|constraints|cons_columns|indexes|ind_columns|objects|views|sequences)|dual",
    re.IGNORECASE,
)

#: A SELECT that begins so works on sequences, locks or the last write, whatever table stands behind it.
_HOUSEKEEPING: Final = re.compile(
    r"""SELECT\s+(?:(?:CAST|COALESCE|IFNULL)\s*\(\s*)?(?:\w+\s*\.\s*)?(?:next_val\b|(?:
        nextval|currval|setval|lastval
        |last_insert_id|last_insert_rowid|scope_identity|changes|total_changes|row_count|found_rows
        |get_lock|release_lock|release_all_locks|is_free_lock|is_used_lock|pg_(?:try_)?advisory_\w+
        )\s*\()""",
    re.IGNORECASE | re.VERBOSE,
)

#: Without a table: the session, the clock, chance.
_SESSION: Final = re.compile(
    r"""SELECT\s+(?:\w+\s*\.\s*)?(?:
        version|sqlite_version|database|schema|current_\w+|session_user|user|system_user|connection_id|set_config
        |now|sysdate|getdate|\w+_timestamp|localtime\w*|uuid\w*|newid|gen_random_uuid|random|rand|sleep|pg_\w+|txid_\w+
        )\s*\(""",
    re.IGNORECASE | re.VERBOSE,
)

_NO_FUNCTION: Final = "SELECT|FROM|JOIN|ON|USING|WHERE|AND|OR|NOT|EXISTS|IN|ANY|ALL|AS|OVER|UNION|CAST|COALESCE|VALUES"
_CALL: Final = re.compile(rf"\b(?!(?:{_NO_FUNCTION})\b)(\w+)\s*\(", re.IGNORECASE)
_WRITE: Final = re.compile(r"\b(?:INSERT\s+INTO|DELETE\s+FROM|UPDATE\s+[^\s(]+\s+SET|MERGE\s+INTO)\b", re.IGNORECASE)
#: Verbs that never make a finding: cursors, schema changes, locks, and what describes or maintains the database.
_SERVICE_VERBS: Final = words("""
    ALTER ANALYZE ATTACH CHECKPOINT CLOSE COMMENT CREATE DEALLOCATE DECLARE DESC DESCRIBE DETACH DISCARD DROP EXPLAIN
    FETCH FLUSH GRANT KILL LISTEN LOCK MOVE NOTIFY OPEN OPTIMIZE PREPARE REINDEX RENAME REVOKE SHOW TRUNCATE UNLISTEN
    UNLOCK USE VACUUM
""")
_READS: Final = words("SELECT WITH VALUES TABLE")
WRITES: Final = words("INSERT REPLACE UPDATE DELETE MERGE")

#: How a database without sequences is made to have one.
_SEQUENCE: Final = re.compile(
    r"UPDATE\b.*\bSET\s[^,]*(=\s*LAST_INSERT_ID\s*\(|\bnext_val\b)", re.IGNORECASE | re.DOTALL
)

#: With so many different values it is a loop over them, however many more there are.
VARIED: Final = 3

#: Code that does the same on so many lines, once each, does it in no loop.
STRAIGHT_LINES: Final = 5


class Repeat:
    """One statement on one database that ran several times: its successful runs, in order, and what is common to them.

    Attributes:
        statement: As parsed from the fingerprint.
        shape: What it asks for.
        runs: Those that are kept; the columns of all of them follow one order.
        count: Runs, with those folded into counters.
        beyond: Of the runs that were folded, their counters.
        different: How many different values were asked for, among those known; `VARIED` stands for as many or more.
        unknown: Runs whose values are not known, folded ones among them.

    """

    __slots__ = ("_values", "beyond", "count", "different", "runs", "shape", "statement", "unknown")

    def __init__(self, statement: Statement, shape: Shape, runs: Runs | Picked, beyond: Folded | None) -> None:
        self.statement = statement
        self.shape = shape
        self.runs = runs
        self.unknown = 0
        self._values: list[Hashable] | None = None
        if runs.varied(VARIED):
            self.count, self.different = runs.totals()[0], VARIED
        else:
            different = set(self.values)
            if None in different:
                different.discard(None)
                self.unknown = self.values.count(None)
            self.count, self.different = len(self.values), len(different)
        self.beyond = beyond
        if beyond is not None:
            self.count += beyond.count - beyond.errors
            self.unknown += beyond.count - beyond.errors

    @property
    def values(self) -> list[Hashable]:
        """For each run what stands for its values; None where they are unknown."""
        if self._values is None:
            self._values = self.runs.values()
            if (
                None in self._values and "?" not in self.statement.fingerprint
            ):  # a text without any value has one: itself
                self._values = ["" if value is None else value for value in self._values]
        return self._values

    @property
    def most_alike(self) -> int:
        """Runs of the value that was asked for most often, among those known."""
        return max(counted([value for value in self.values if value is not None]).values(), default=0)

    def callers(self) -> dict[str | None, int]:
        """How many runs came from where."""
        return counted(self.runs.callers())

    def only(self, places: list[int]) -> Repeat:
        """What it would be with some of its kept runs alone."""
        return Repeat(self.statement, self.shape, Picked(self.runs, places), self.beyond)

    def times_ms(self) -> tuple[float, float, float]:
        """Summed duration of all runs, time with at least one of them running, and the longest."""
        _, _, _, total_ms, max_ms = self.runs.totals()
        beyond = self.beyond
        if beyond is None:
            return total_ms, self.runs.wall_ms(), max_ms
        beyond_ms = beyond.duration_ms
        return total_ms + beyond_ms, self.runs.wall_ms() + beyond_ms, max(max_ms, beyond.max_ms)


class Picked:
    """Some of the runs of a statement, as those of `Runs`: the successful ones among them."""

    __slots__ = ("_places", "_runs", "db")

    def __init__(self, runs: Runs | Picked, places: list[int]) -> None:
        self.db: str | None = runs.db
        self._runs = runs
        self._places = places

    @property
    def relation(self) -> str | None:
        """As in `Runs`."""
        return self._runs.relation

    def totals(self) -> Totals:
        """Their number (each sent once, none failed), summed and longest duration."""
        durations_ms, count = self.durations_ms(), len(self._places)
        return count, count, 0, sum(durations_ms), max(durations_ms, default=0.0)

    def wall_ms(self) -> float:
        """As in `Runs`, and so are the columns."""
        return union_ms(self.starts_ms(), self.durations_ms())

    def indices(self) -> list[int]:
        """Their places among the profile's queries."""
        return self._pick(self._runs.indices())

    def starts_ms(self) -> list[float]:
        """When they began."""
        return self._pick(self._runs.starts_ms())

    def durations_ms(self) -> list[float]:
        """Time inside execute."""
        return self._pick(self._runs.durations_ms())

    def varied(self, least: int) -> bool:  # noqa: ARG002 - as in `Runs`
        """Not seen without looking at all of them."""
        return False

    def values(self) -> list[Hashable]:
        """What stands for their values."""
        return self._pick(self._runs.values())

    def callers(self) -> list[str | None]:
        """Where they came from."""
        return self._pick(self._runs.callers())

    def rows(self) -> list[int | None]:
        """Rows read."""
        return self._pick(self._runs.rows())

    def list_sizes(self) -> list[int | None]:
        """Values in the longest list."""
        return self._pick(self._runs.list_sizes())

    def many(self) -> list[int | None]:
        """Parameter sets."""
        return self._pick(self._runs.many())

    def texts(self) -> list[str | None]:
        """What was given to the driver."""
        return self._pick(self._runs.texts())

    def _pick(self, column: list[T]) -> list[T]:
        return [column[place] for place in self._places] if column else column


def complete(profile: Profile) -> None:
    """Give a saved trace what a live profile has: sums, transactions, and for each query what a live row tells.

    The sums are `fetch_ms` and `wait_ms`, where only the queries tell them. Transactions are those between a BEGIN and
    its COMMIT among the queries, where the record has none. A row tells fingerprint, list size, and a token of values.

    A query with a fingerprint is complete already. For the others the values are the literals in the text and the
    given `params_hash` together, numbered in order of appearance within this record: equal tokens mean equal
    values, and nothing can be read from them. Where the text has placeholders and no `params_hash` came with it,
    the values stay unknown.
    """
    if profile.fetch_ms is None:
        profile.fetch_ms = _sum([query.fetch_ms for query in profile.queries])
    if profile.wait_ms is None:
        profile.wait_ms = _sum([query.wait_ms for query in profile.queries])
    numbers: dict[object, int] = {}
    completed = False
    for query in profile.queries:
        if query.fingerprint is not None or query.sql is None:
            continue
        completed = True
        statement = parse(query.sql, query.system)
        query.fingerprint = statement.fingerprint
        if query.list_size is None:
            query.list_size = statement.list_size
        if query.params_hash is not None or not statement.placeholders:
            values = (statement.literals, query.params_hash)
            query.params_hash = f"values-{numbers.setdefault(values, len(numbers))}"
    if completed:
        profile.__dict__.pop("by_fingerprint", None)
    if not profile.transactions:
        profile.transactions = transactions.derive(profile)


def _sum(told: list[float | None]) -> float | None:
    known = [number for number in told if number is not None]
    return sum(known) if known else None


def reads(profile: Profile, threshold: float) -> Sequence[Repeat]:
    """Every read that ran successfully at least `threshold` times; `profile` must be `complete`.

    Found once for detectors that follow one another with the same threshold: `analyze` forgets them first.
    """
    if 0 < profile.query_count < threshold:
        return ()
    known = profile.__dict__.get(_KNOWN)
    if known is None or known[0] != threshold:
        known = _find(profile, threshold)
    repeats: list[Repeat] = known[1]
    return repeats


def writes(profile: Profile, threshold: float) -> Sequence[Repeat]:
    """Every INSERT, UPDATE, DELETE and the like, as `reads` gives those that read."""
    if 0 < profile.query_count < threshold:
        return ()
    known = profile.__dict__.get(_KNOWN)
    if known is None or known[0] != threshold:
        known = _find(profile, threshold)
    repeats: list[Repeat] = known[2]
    return repeats


def forget(profile: Profile) -> None:
    """Have `reads` and `writes` look again."""
    profile.__dict__.pop(_KNOWN, None)


_KNOWN: Final = "repeats"


def _find(profile: Profile, threshold: float) -> tuple[float, list[Repeat], list[Repeat]]:
    """The threshold, and what `reads` and `writes` give; remembered for whoever asks next."""
    groups, folded = profile.by_fingerprint, folded_counters(profile) if profile.folded else {}
    often, failed = [], False
    reading: list[Repeat] = []
    writing: list[Repeat] = []
    for key, runs in groups.items():
        count, _, errors, _, _ = runs.totals()
        if count >= threshold:
            often.append(key)
        if errors:
            failed = True
    if folded:
        beyond_rows = [key for key, counter in folded.items() if counter.count + _count(groups.get(key)) >= threshold]
        often = list(dict.fromkeys((*often, *beyond_rows)))
    failures = _failures(groups) if failed and often else None
    for key in often:
        runs, beyond = groups.get(key, _NO_RUNS), folded.get(key)
        system = runs.system if beyond is None else runs.system or beyond.system
        asked, found = question(key[0], system), reading
        if asked is None:
            asked, found = change(key[0], system), writing
        if asked is None:
            continue
        kept = runs if failures is None else Picked(runs, _without_retries(runs, failures))
        repeat = Repeat(*asked, kept, beyond)
        if repeat.count >= threshold:
            found.append(repeat)
    known = profile.__dict__[_KNOWN] = (threshold, reading, writing)
    return known


#: Of what was only folded into counters.
_NO_RUNS: Final = QueryRuns([], [])


def _count(runs: Runs | None) -> int:
    return 0 if runs is None else runs.totals()[0]


def _failures(groups: Mapping[tuple[str | None, str | None], Runs]) -> list[int]:
    """Indices of all failed queries of the profile, in order."""
    failed = [runs for runs in groups.values() if runs.totals()[2]]
    return sorted(
        index
        for runs in failed
        for index, error in zip(runs.indices(), runs.errors(), strict=True)
        if error is not None
    )


def folded_counters(profile: Profile) -> dict[tuple[str | None, str | None], Folded]:
    """The counters of rows that were not kept, under the same key as `by_fingerprint`."""
    return {(folded.fingerprint, folded.db): folded for folded in profile.folded if folded.fingerprint is not None}


@lru_cache(maxsize=4096)
def question(fingerprint: str | None, system: str | None) -> tuple[Statement, Shape] | None:
    """The statement and its shape if it reads data: no write, and none of those that are never a finding."""
    if fingerprint is None:
        return None
    statement = parse(fingerprint, system)
    if statement.verb not in _READS or not is_work(statement) or _WRITE.search(fingerprint):
        return None
    if not statement.tables and _CALL.search(fingerprint) is None:
        return None
    return statement, shape(fingerprint)


@lru_cache(maxsize=4096)
def change(fingerprint: str | None, system: str | None) -> tuple[Statement, Shape] | None:
    """The statement and its shape if it changes data, also from within a WITH; a sequence's next value is none."""
    if fingerprint is None:
        return None
    statement = parse(fingerprint, system)
    writes_inside = statement.verb in _READS and _WRITE.search(fingerprint) is not None
    if not (statement.verb in WRITES or writes_inside) or not statement.tables:
        return None
    if not is_work(statement) or _SEQUENCE.match(fingerprint):
        return None
    return statement, shape(fingerprint)


def is_work(statement: Statement) -> bool:
    """Whether a finding may concern it: no session, cursor, lock, sequence, clock, schema change or catalogue."""
    if statement.control or statement.verb in _SERVICE_VERBS or _HOUSEKEEPING.match(statement.fingerprint):
        return False
    if not statement.tables:
        return not _SESSION.match(statement.fingerprint)
    return not all(_CATALOGUE.fullmatch(table.replace('"', "")) for table in statement.tables)


def counted(values: list[H]) -> dict[H, int]:
    """How often each is there; most often there is but one."""
    if values:
        first, count = values[0], len(values)
        if values.count(first) == count:
            return {first: count}
    return dict(Counter(values))


@lru_cache(maxsize=4096)
def finding_id(kind: str, fingerprint: str, caller: str | None) -> str:
    """The same over runs, however the line or the count changes."""
    place, _, function = (caller or "").partition(" in ")
    return fingerprint_id("\n".join((kind, fingerprint, place.rpartition(":")[0] or place, function)))


def most_common(callers: Mapping[str | None, int]) -> str | None:
    """Where most of some runs came from; None when nobody knows."""
    if len(callers) == 1:
        return next(iter(callers))
    known = [caller for caller in callers if caller is not None]
    return max(known, key=callers.__getitem__, default=None)


def is_straight_line(callers: Mapping[str | None, int]) -> bool:
    """Most runs come from lines that ran once each, and no loop is among the rest; it takes callers to tell."""
    if len(callers) < STRAIGHT_LINES or None in callers:
        return False
    once = sum(count == 1 for count in callers.values())
    return once >= STRAIGHT_LINES and sum(callers.values()) - once < STRAIGHT_LINES


def at(caller: str | None) -> str:
    """The end of a sentence that says where."""
    return f" at {caller}" if caller else ""


def table(statement: Statement) -> str:
    """What it is about, for a title: its first table, or the function it calls."""
    if statement.tables:
        return _bare(statement.tables[0])
    called = _CALL.search(statement.fingerprint)
    return called[1] if called else statement.verb


@lru_cache(maxsize=4096)
def _bare(name: str) -> str:
    return bare(name)


def _without_retries(runs: Runs, failures: list[int]) -> list[int]:
    """Places of the runs that neither failed nor were made necessary by a failure, of this or any statement.

    A block of work that is tried again asks the same questions again, with the same values; other values show
    that it went on instead.
    """
    indices, errors, values = runs.indices(), runs.errors(), runs.values()
    kept: list[int] = []
    for place, index in enumerate(indices):
        if errors[place] is not None:
            continue
        if kept and bisect(failures, index) != bisect(failures, indices[kept[-1]]):
            before = values[kept[-1]]
            if before is None or values[place] is None or before == values[place]:
                kept[-1] = place
                continue
        kept.append(place)
    return kept
