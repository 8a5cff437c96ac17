"""From the facts a driver noted to what a record tells; done once, when the application has its answer.

Facts are appended to one flat list, `WIDTH` of them for each row, because that costs less than a tuple a row and lets
a whole column be taken at C speed. Rows are grouped by statement, and everything else is taken from a group when it
is asked for: a request that nobody looks at closely is counted, and never becomes a list of `Query`.
"""

from __future__ import annotations

import os
from bisect import bisect
from collections import Counter
from itertools import repeat
from operator import is_, le
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from perf_middleware.collector.caller import describe
from perf_middleware.record import Folded, Query, Transaction, union_ms
from perf_middleware.sql import Statement, like, like_each, parse

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from types import CodeType

    from perf_middleware.record import Totals

#: Longer texts are fingerprinted when noted instead of being kept until the profile ends: a bound on memory.
KEEP_TEXT_CHARS: Final = 65_536

#: Fingerprints with counters of their own; further ones share one, so that text without an end costs no memory.
MAX_FOLDED: Final = 1000

#: A hook that adds rows by itself has `Capture.check` look at their number once in so many of a connection.
CHECK_EVERY: Final = 64

#: Drivers say "unknown" with -1 or the largest unsigned number.
MAX_ROWS: Final = 2**63 - 1

#: Makes tokens of parameters meaningless outside this process.
_SECRET: Final = os.urandom(16)

#: Tokens looked at to see whether values vary.
_FEW: Final = 16

#: The text of a row that is a wait for a connection out of a pool.
WAIT: Final = Statement("", "", (), control=True, transaction="", list_size=None, placeholders=False, literals=None)

#: A recorded call is running that may send several statements, which are counted.
COUNTING: Final = 2

#: The facts of a row, in their order. Times are seconds of `perf_counter`, the clock of `perf_counter_ns`: as floats
#: they cost half, and tell a nanosecond apart for the first hundred days of a machine. The duration is there beside
#: both ends, since a column of differences costs more than one more fact. The text is the statement itself where it
#: was not worth keeping; the code and its last instruction are the caller's; `INSIDE` is whether a transaction is open
#: afterwards (None: if the statement used a table); `EXTRA` is None for most.
TEXT, START_S, END_S, DURATION_S, TARGET, TOKEN, CODE, LASTI, ROWS, INSIDE, EXTRA = range(11)
WIDTH: Final = 11

#: What a row is known by among those of its fingerprint: the hash of the text as it was sent, with its values in it; a
#: tuple holds that of the parameters alone, where the text was sent without them; None where it is not known.
Token: TypeAlias = "int | tuple[int] | None"  # noqa: S105 - no password

Facts: TypeAlias = "list[Any]"
Row: TypeAlias = "tuple[Any, ...]"

H = TypeVar("H", bound="Hashable")


class Target:
    """One connection, seen from outside.

    Attributes:
        system: `db.system.name`.
        db: Which database, without credentials.
        session: Stands for the connection, also when it turns to another database.
        busy: A recorded call is running, so that the calls it makes itself are not recorded again: True, or COUNTING.
        wire: Statements sent since a call began that is counting them.
        awaited: Its statements are awaited, so that they block no event loop.
        serial: It is never recorded twice at a time, so that its rows follow one another.
        code: The caller's, where the last one came from: a frame of it is the application's.
        text: The last one, once it was found to be worth keeping as it is.
        left: Rows until somebody looks whether there are too many (see `Capture.check`).

    """

    __slots__ = ("awaited", "busy", "code", "db", "left", "serial", "session", "system", "text", "wire")

    def __init__(
        self, system: str, db: str | None, session: object = None, *, serial: bool = False, awaited: bool = False
    ) -> None:
        self.system = system
        self.db = db
        self.session = session or object()
        self.serial = serial
        self.awaited = awaited
        self.busy: bool | int = False
        self.wire = 0
        self.code: CodeType | None = None
        self.text: str | None = None
        self.left = CHECK_EVERY


class Answer(Protocol):
    """When the response began and when its last byte was handed over, as a capture knows it."""

    first_byte_ns: int | None
    last_byte_ns: int | None


class Extra(msgspec.Struct, gc=False):
    """Facts that few queries have, or that are known only after execute; a struct because making one costs little."""

    many: int | None = None
    wire: int = 1
    error: str | None = None
    rows: int | None = None
    fetch_ns: int | None = None
    blocking: bool = False

    def fetched(self, duration_ns: int, rows: int) -> None:
        """Add a bulk fetch."""
        self.fetch_ns = (self.fetch_ns or 0) + duration_ns
        self.rows = (self.rows or 0) + rows


class Noted(msgspec.Struct, eq=False):
    """`perf_middleware.record.Runs` as the drivers noted them.

    Attributes:
        statement: What is known of the text; of the first text, where several have one fingerprint.
        reading: Of the profile they are in.
        facts: Theirs are among these.
        text: What they have in common; None where they have several.
        count: How many.
        begin: Where the facts of the first begin, and
        end: where those of the last end.
        offsets: Where the facts of each begin, in order; None where there are no others between them.
        varies: Not all have the same list size.
        total_s: Summed duration, once `totals` was asked.

    """

    fingerprint: str
    db: str | None
    system: str
    statement: Statement
    reading: Reading
    facts: Facts
    text: str | Statement | None
    count: int = 0
    begin: int = 0
    end: int = 0
    offsets: list[int] | None = None
    varies: bool = False
    total_s: float = 0.0
    known: Totals = (0, 0, 0, 0.0, 0.0)

    def add(self, text: str | Statement | None, statement: Statement, offsets: range | list[int]) -> None:
        """Have further runs too: the places where their facts begin, in order; no text where they have several."""
        if self.count:
            offsets = self._with(offsets)
            if text != self.text:
                self.text = None
            if statement.list_size != self.statement.list_size:
                self.varies = True
        count, begin, last = len(offsets), offsets[0], offsets[-1]
        self.count, self.begin, self.end = count, begin, last + WIDTH
        together = last - begin == (count - 1) * WIDTH
        self.offsets = None if together else list(offsets)

    def _with(self, offsets: range | list[int]) -> list[int]:
        mine = list(range(self.begin, self.end, WIDTH)) if self.offsets is None else self.offsets
        behind = offsets[0] >= self.end
        mine += offsets
        if not behind:
            mine.sort()
        return mine

    def totals(self) -> Totals:
        """As in `Runs`; added up once."""
        count = self.count
        if self.known[0] != count:
            durations_s = self._column(DURATION_S)
            self.total_s = total_s = sum(durations_s)
            wire, errors = count, 0
            if not self.reading.plain:
                extras = [extra for extra in self._column(EXTRA) if extra is not None]
                wire += sum([extra.wire for extra in extras]) - len(extras)
                errors = sum([extra.error is not None for extra in extras])
            self.known = (count, wire, errors, total_s * 1e3, max(durations_s) * 1e3)
        return self.known

    @property
    def caller(self) -> str | None:
        """Where the first of them came from."""
        facts, begin = self.facts, self.begin
        return describe(facts[begin + CODE], facts[begin + LASTI])

    @property
    def relation(self) -> str | None:
        """As in `Runs`."""
        relations = self.reading.relations
        return None if relations is None else relations.get(self.begin)

    def indices(self) -> list[int]:
        """As in `Runs`: their places among the queries of the profile."""
        if self.offsets is None:
            return self.reading.places(range(self.begin, self.end, WIDTH))
        return self.reading.places(self.offsets)

    def wall_ms(self) -> float:
        """As in `Runs`."""
        if self.reading.in_order:
            return self.totals()[3]
        return union_ms(self.starts_ms(), self.durations_ms())

    def intervals_s(self) -> Iterable[tuple[int, int]]:
        """Beginning and end of each."""
        return zip(self._column(START_S), self._column(END_S), strict=True)

    def starts_ms(self) -> list[float]:
        """As in `Runs`."""
        origin_s = self.reading.origin_s
        return [(start_s - origin_s) * 1e3 for start_s in self._column(START_S)]

    def durations_ms(self) -> list[float]:
        """As in `Runs`."""
        return [duration_s * 1e3 for duration_s in self._column(DURATION_S)]

    def errors(self) -> list[str | None]:
        """As in `Runs`."""
        return [None if extra is None else extra.error for extra in self._column(EXTRA)]

    def varied(self, least: int) -> bool:
        """As in `Runs`: tokens that differ are of values that differ; the first few tell of a loop."""
        if not self.reading.plain:
            return False
        facts, offsets = self.facts, self.offsets
        if offsets is None:
            return len(set(facts[self.begin + TOKEN : min(self.end, self.begin + _FEW * WIDTH) : WIDTH])) >= least
        return len({facts[offset + TOKEN] for offset in offsets[:_FEW]}) >= least

    def values(self) -> list[Hashable]:
        """As in `Runs`."""
        tokens: list[Any] = self._column(TOKEN)
        if (self.text is not None and self.statement.placeholders) or set(map(type, tokens)) == {int}:
            return tokens
        return list(map(_value, self._column(TEXT), repeat(self.system), tokens))

    def callers(self) -> list[str | None]:
        """As in `Runs`; those of a loop are often all one."""
        codes, lastis = self._column(CODE), self._column(LASTI)
        # By identity: code objects of two files may be equal.
        if lastis.count(lastis[0]) == len(lastis) and all(map(is_, codes, repeat(codes[0]))):
            return [describe(codes[0], lastis[0])] * len(codes)
        return list(map(describe, codes, lastis))

    def rows(self) -> list[int | None]:
        """As in `Runs`."""
        rows = self._column(ROWS)
        if self.reading.plain and set(map(type, rows)) == {int} and min(rows) >= 0 and max(rows) < MAX_ROWS:
            return rows
        return list(map(_rows, rows, self._column(EXTRA)))

    def list_sizes(self) -> list[int | None]:
        """As in `Runs`."""
        if not self.varies:
            return [self.statement.list_size] * self.count
        return [_statement(text, self.system).list_size for text in self._column(TEXT)]

    def many(self) -> list[int | None]:
        """As in `Runs`."""
        if self.reading.plain:
            return []
        return [None if extra is None else extra.many for extra in self._column(EXTRA)]

    def blocking_ms(self) -> float:
        """As in `Runs`."""
        if self.reading.plain:
            return 0.0
        columns = zip(self._column(DURATION_S), self._column(EXTRA), strict=True)
        blocking_s: float = sum([duration_s for duration_s, extra in columns if extra is not None and extra.blocking])
        return blocking_s * 1e3

    def texts(self) -> list[str | None]:
        """As in `Runs`: none at all unless `capture_sql` lets them be told."""
        chars = self.reading.capture_sql
        if not chars:
            return []
        return [text[:chars] if isinstance(text, str) else None for text in self._column(TEXT)]

    def _column(self, fact: int) -> list[Any]:
        facts = self.facts
        if self.offsets is None:
            return facts[self.begin + fact : self.end : WIDTH]
        return [facts[offset + fact] for offset in self.offsets]


#: The noted runs by fingerprint and database.
NotedRuns: TypeAlias = "dict[tuple[str | None, str | None], Noted]"


class Reading(msgspec.Struct, eq=False):
    """Counts, times, rows and transactions of one profile, extended as facts come in.

    Attributes:
        facts: Of all rows noted that are kept.
        origin_s: When the profile began.
        keep: Queries, and transactions, kept as rows.
        capture_sql: Characters of the text kept with a query.
        plain: As on the capture.
        in_order: Each query began after the one before had ended.
        runs: The kept queries, grouped.
        folded: Counters of the others; under None those beyond `MAX_FOLDED` fingerprints.
        read_until: As far as the facts were read.
        covered_until_s: When the last of them ended.
        serial: The connection they all came from, if it is serial.
        steering: Places of the rows that are no queries.
        ordinals: For each row that was followed, which transaction it is in.
        begun: The transactions.
        open: Those that are open, by session.
        relations: As on the capture.

    """

    facts: Facts
    origin_s: float
    keep: int
    capture_sql: int
    plain: bool = True
    in_order: bool = True
    query_count: int = 0
    db_s: float = 0.0
    db_sum_s: float = 0.0
    read_until: int = 0
    covered_until_s: float = 0.0
    serial: Target | None = None
    runs: NotedRuns = {}
    folded: dict[tuple[str, str | None, str] | None, Folded] = {}
    steering: list[int] = []
    ordinals: list[int | None] = []
    begun: list[Transaction] = []
    open: dict[object, int] = {}
    relations: dict[int, str] | None = None

    def add(self, end: int) -> None:
        """Take in the facts up to the place `end`, of rows to keep."""
        facts, begin = self.facts, self.read_until
        if end <= begin:
            return
        self.read_until = end
        steering = self._group(facts, begin, end, self.runs)
        if steering:
            self.steering = sorted(self.steering + steering)
        self.query_count = end // WIDTH - len(self.steering)
        sum_s = 0.0
        for runs in self.runs.values():
            runs.totals()
            sum_s += runs.total_s
        self.db_sum_s = sum_s
        self.db_s = self.db_sum_s if self.in_order else self._cover(self.runs, 0)

    def fold(self, facts: Facts) -> None:
        """Count rows without keeping them (exact but for overlaps that reach over two folds)."""
        if self.keep:
            self._follow(facts)
        runs: NotedRuns = {}
        covered_until_s, in_order, self.in_order = self.covered_until_s, self.in_order, True
        self._group(facts, 0, len(facts), runs)
        total_s = 0.0
        for noted in runs.values():
            count, wire, errors, duration_ms, max_ms = noted.totals()
            entry = self._folded(noted)
            entry.count += count
            entry.wire += wire
            entry.errors += errors
            entry.duration_ms += duration_ms
            entry.max_ms = max(entry.max_ms, max_ms)
            self.query_count += count
            total_s += noted.total_s
        self.db_sum_s += total_s
        self.db_s += total_s if self.in_order else self._cover(runs, covered_until_s)
        self.in_order &= in_order

    def places(self, offsets: range | list[int]) -> list[int]:
        """Among the queries: those of the rows, less what steers transactions and sessions before them."""
        steering = self.steering
        if steering:
            return [offset // WIDTH - bisect(steering, offset) for offset in offsets]
        if isinstance(offsets, range):
            return list(range(offsets.start // WIDTH, offsets.stop // WIDTH))
        return [offset // WIDTH for offset in offsets]

    def queries(self, answer: Answer) -> list[Query]:
        """The rows kept, as a record has them."""
        self._follow([])
        queries = []
        waited_s: dict[object, float] = {}
        for row, ordinal in zip(_rows_of(self.facts[: self.read_until]), self.ordinals, strict=True):
            statement, session = _statement(row[TEXT], row[TARGET].system), row[TARGET].session
            if statement is WAIT:
                waited_s[session] = waited_s.get(session, 0) + row[DURATION_S]
            elif not statement.control:
                query = self._query(row, statement, ordinal, answer)
                if session in waited_s:
                    query.wait_ms = _ms(waited_s.pop(session))
                queries.append(query)
        for place, relation in (self.relations or {}).items():
            if place < self.read_until:
                queries[self.places([place])[0]].relation = relation
        return queries

    def transactions(self, end_s: float) -> list[Transaction]:
        """Those that were seen; the ones still open last until `end_s`."""
        self._follow([])
        for ordinal in self.open.values():
            transaction = self.begun[ordinal]
            transaction.duration_ms = self._since_ms(end_s) - transaction.start_ms
        return self.begun

    @property
    def fetch_ms(self) -> float | None:
        """Time in bulk fetches of the queries kept; None where no driver told."""
        if self.plain:
            return None
        extras = [extra for extra in self.facts[EXTRA : self.read_until : WIDTH] if extra is not None]
        fetched_ns = [extra.fetch_ns for extra in extras if extra.fetch_ns is not None]
        return sum(fetched_ns) / 1e6 if fetched_ns else None

    def by_verb_and_table(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many queries had each verb, and how many touched each table."""
        verbs: Counter[str] = Counter()
        tables: Counter[str] = Counter()
        counted = [(noted.statement, noted.totals()[0]) for noted in self.runs.values()]
        counted += [(parse(entry.fingerprint or "", entry.system), entry.count) for entry in self.folded.values()]
        for statement, count in counted:
            verbs[statement.verb] += count
            for table in statement.tables:
                tables[table] += count
        return dict(verbs), dict(tables)

    def _group(self, facts: Facts, begin: int, end: int, runs: NotedRuns) -> list[int]:
        """Put each row to the others of its statement; gives the places of those that are no queries."""
        offsets = range(begin, end, WIDTH)
        texts, targets = facts[begin + TEXT : end : WIDTH], facts[begin + TARGET : end : WIDTH]
        target = targets[0]
        one_target = targets.count(target) == len(targets)
        self._follow_one_another(facts, begin, end, target if one_target and target.serial else None)
        if one_target:
            text = texts[0]
            if not runs and texts.count(text) == len(texts):  # as most profiles with a loop have it, so in place
                statement = _statement(text, target.system)
                if statement.control:
                    return list(offsets)
                key = (statement.fingerprint, target.db)
                runs[key] = Noted(*key, target.system, statement, self, facts, text, len(texts), begin, end)
                return []
            return self._group_texts(facts, target, texts, offsets, runs)
        steering: list[int] = []
        for of in dict.fromkeys(targets):
            places = [offset for offset, other in zip(offsets, targets, strict=True) if other is of]
            steering += self._group_texts(facts, of, [facts[place + TEXT] for place in places], places, runs)
        return steering

    def _group_texts(
        self,
        facts: Facts,
        target: Target,
        texts: list[str | Statement],
        offsets: range | list[int],
        runs: NotedRuns,
    ) -> list[int]:
        """Put the rows of one connection to the others of their statement."""
        text = texts[0]
        if texts.count(text) == len(texts):
            return list(self._add(facts, text, _statement(text, target.system), target, offsets, runs))
        steering: list[int] = []
        if len(set(texts)) * 2 <= len(texts):
            for text, places in _places(texts, offsets).items():
                steering += self._add(facts, text, _statement(text, target.system), target, places, runs)
            return steering
        statements = _statements(texts, target.system)
        if statements.count(statements[0]) == len(statements):
            return list(self._add(facts, None, statements[0], target, offsets, runs))
        read = {id(statement): statement for statement in statements}
        for key, places in _places(list(map(id, statements)), offsets).items():
            steering += self._add(facts, None, read[key], target, places, runs)
        return steering

    def _add(  # noqa: PLR0917 - what a row is, in its order
        self,
        facts: Facts,
        text: str | Statement | None,
        statement: Statement,
        target: Target,
        offsets: range | list[int],
        runs: NotedRuns,
    ) -> range | list[int]:
        if statement.control:
            return offsets
        key = (statement.fingerprint, target.db)
        noted = runs.get(key)
        if noted is None:
            noted = runs[key] = Noted(*key, target.system, statement, self, facts, text)
        noted.add(text, statement, offsets)
        return []

    def _follow_one_another(self, facts: Facts, begin: int, end: int, serial: Target | None) -> None:
        """Note whether each row began after the one before had ended, which those of one connection may promise."""
        if self.in_order and (serial is None or serial is not self.serial):
            starts_s, ends_s = facts[begin + START_S : end : WIDTH], facts[begin + END_S : end : WIDTH]
            self.in_order = starts_s[0] >= self.covered_until_s and (
                serial is not None or all(map(le, ends_s, starts_s[1:]))
            )
        self.serial = serial
        self.covered_until_s = facts[end - WIDTH + END_S]

    def _cover(self, runs: NotedRuns, covered_until_s: float) -> float:
        """Seconds in which at least one of the queries ran, after a time that was counted already."""
        covered_s = 0.0
        for start_s, end_s in sorted([interval for noted in runs.values() for interval in noted.intervals_s()]):
            if end_s > covered_until_s:
                covered_s += end_s - max(start_s, covered_until_s)
                covered_until_s = end_s
        self.covered_until_s = covered_until_s
        return covered_s

    def _folded(self, noted: Noted) -> Folded:
        key = (noted.fingerprint, noted.db, noted.system)
        entry = self.folded.get(key)
        if entry is None:
            if len(self.folded) < MAX_FOLDED:
                entry = self.folded[key] = Folded(*key)
            else:
                entry = self.folded.setdefault(None, Folded())
        return entry

    def _since_ms(self, at_s: float) -> float:
        return _ms(at_s - self.origin_s)

    def _query(self, row: Row, statement: Statement, ordinal: int | None, answer: Answer) -> Query:
        text, start_s, _, duration_s, target, token, code, lasti, rows, _, extra = row
        query = Query(
            fingerprint=statement.fingerprint,
            start_ms=self._since_ms(start_s),
            duration_ms=_ms(duration_s),
            rows=_rows(rows, extra),
            params_hash=_params_hash(_value(text, target.system, token)),
            list_size=statement.list_size,
            db=target.db,
            system=target.system,
            caller=describe(code, lasti),
            transaction=ordinal,
            phase=_phase(start_s, answer),
        )
        if self.capture_sql and isinstance(text, str):
            query.sql = text[: self.capture_sql]
        if extra is not None:
            query.blocking = extra.blocking
            query.many = extra.many
            query.wire = extra.wire
            query.error = extra.error
            if extra.fetch_ns is not None:
                query.fetch_ms = extra.fetch_ns // 1000 / 1000
        return query

    def _follow(self, folded: Facts) -> None:
        """Follow the kept rows, and then those to be folded, in and out of transactions."""
        for row in _rows_of(self.facts[len(self.ordinals) * WIDTH : self.read_until]):
            self.ordinals.append(self._transaction(row, _statement(row[TEXT], row[TARGET].system)))
        for row in _rows_of(folded):
            self._transaction(row, _statement(row[TEXT], row[TARGET].system))

    def _transaction(self, row: Row, statement: Statement) -> int | None:
        """Follow the row's connection in and out of transactions; its ordinal if it is inside one."""
        _, start_s, end_s, duration_s, target, _, _, _, _, inside, extra = row
        if statement is WAIT:
            return None
        verb, failed = statement.transaction, extra is not None and extra.error is not None
        ordinal = self.open.get(target.session)
        if ordinal is not None and verb == "begin" and not failed:
            self._end(target, "commit", start_s)  # which BEGIN implies
            ordinal = None
        if ordinal is None:
            begins = bool(statement.tables) if inside is None else inside
            if not begins or verb in ("commit", "rollback") or len(self.begun) >= self.keep:
                return None
            ordinal = self.open[target.session] = len(self.begun)
            self.begun.append(Transaction(start_ms=self._since_ms(start_s), db=target.db))
        self.begun[ordinal].busy_ms += _ms(duration_s)
        # None of them is "unknown": neither 0 nor False goes on.
        if (inside is not None and not inside) or (verb in ("commit", "rollback") and not failed):
            self._end(target, "rollback" if verb == "rollback" or failed else "commit", end_s)
        return ordinal

    def _end(self, target: Target, outcome: Literal["commit", "rollback"], at_s: float) -> None:
        transaction = self.begun[self.open.pop(target.session)]
        transaction.outcome = outcome
        transaction.duration_ms = self._since_ms(at_s) - transaction.start_ms


class Live(msgspec.Struct):
    """`perf_middleware.record.Rows` of a profile that lasted so long until now."""

    reading: Reading
    answer: Answer
    duration_ms: float

    @property
    def queries(self) -> list[Query]:
        """Those kept."""
        return self.reading.queries(self.answer)

    @property
    def transactions(self) -> list[Transaction]:
        """Those seen; the ones still open last until now."""
        return self.reading.transactions(self.reading.origin_s + self.duration_ms / 1e3)


def _ms(duration_s: float) -> float:
    """Whole microseconds of it, which are never more than it took."""
    return round(duration_s * 1e9) // 1000 / 1000


def _rows_of(facts: Facts) -> Iterable[Row]:
    return zip(*[iter(facts)] * WIDTH, strict=True)


def _places(keys: list[H], offsets: range | list[int]) -> dict[H, list[int]]:
    """Where each of them is."""
    places: dict[H, list[int]] = {}
    for key, offset in zip(keys, offsets, strict=True):
        known = places.get(key)
        if known is None:
            places[key] = [offset]
        else:
            known.append(offset)
    return places


def _statement(text: str | Statement, system: str) -> Statement:
    """All of it but the literals, which may be another's."""
    return like(text, system) if type(text) is str else text  # type: ignore[return-value] # which is all it may be


def _statements(texts: list[str | Statement], system: str) -> list[Statement]:
    try:
        return like_each(texts, system)  # type: ignore[arg-type] # where it is more than texts, they do not join
    except TypeError:
        return [_statement(text, system) for text in texts]


def _rows(rows: int | None, extra: Extra | None) -> int | None:
    if extra is not None and extra.rows is not None:
        rows = extra.rows
    return rows if type(rows) is int and 0 <= rows < MAX_ROWS else None


def _value(text: str | Statement, system: str, token: Token) -> Hashable:
    """Stands for the values of a run: those in the text and the parameters together; None where unknown."""
    if isinstance(token, int):
        return token
    statement = text if isinstance(text, Statement) else parse(text, system)
    return None if statement.placeholders and token is None else (statement.literals, token)


def _params_hash(value: Hashable) -> str | None:
    return None if value is None else f"{hash((_SECRET, value)) & 0xFFFF_FFFF_FFFF_FFFF:016x}"


def _phase(start_s: float, answer: Answer) -> str:
    if answer.first_byte_ns is None or start_s * 1e9 < answer.first_byte_ns:
        return "before"
    if answer.last_byte_ns is None or start_s * 1e9 < answer.last_byte_ns:
        return "stream"
    return "background"
