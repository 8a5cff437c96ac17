"""From the facts a driver noted to what a record tells; done once, when the application has its answer.

A `Row` is a plain tuple because building one costs a tenth of building an object; its places are named here. Rows
are grouped by statement, and everything else is taken from a group when it is asked for: a request that nobody
looks at closely is counted, and never becomes a list of `Query`.
"""

from __future__ import annotations

import os
from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from perf_middleware.collector.caller import describe
from perf_middleware.record import Folded, Query, Transaction
from perf_middleware.sql import Statement, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from types import CodeType

    from perf_middleware.collector.context import Capture
    from perf_middleware.record import Totals

#: Longer texts are fingerprinted when noted instead of being kept until the profile ends: a bound on memory.
KEEP_TEXT_CHARS: Final = 65_536

#: Fingerprints with counters of their own; further ones share one, so that text without an end costs no memory.
MAX_FOLDED: Final = 1000

#: Drivers say "unknown" with -1 or the largest unsigned number.
MAX_ROWS: Final = 2**63 - 1

#: Makes tokens of parameters meaningless outside this process.
_SECRET: Final = os.urandom(16)


#: A recorded call is running that may send several statements, which are counted.
COUNTING: Final = 2


class Target:
    """One connection, seen from outside.

    Attributes:
        system: `db.system.name`.
        db: Which database, without credentials.
        session: Stands for the connection, also when it turns to another database.
        busy: A recorded call is running, so that the calls it makes itself are not recorded again: True, or COUNTING.
        wire: Statements sent since a call began that is counting them.

    """

    __slots__ = ("busy", "db", "session", "system", "wire")

    def __init__(self, system: str, db: str | None, session: object = None) -> None:
        self.system = system
        self.db = db
        self.session = session or object()
        self.busy: bool | int = False
        self.wire = 0


class Extra(msgspec.Struct, gc=False):
    """Facts that few queries have, or that are known only after execute; a struct because making one costs little."""

    many: int | None = None
    wire: int = 1
    error: str | None = None
    rows: int | None = None
    fetch_ns: int | None = None

    def fetched(self, duration_ns: int, rows: int) -> None:
        """Add a bulk fetch."""
        self.fetch_ns = (self.fetch_ns or 0) + duration_ns
        self.rows = (self.rows or 0) + rows


#: text (or the statement, when the text was not worth keeping), start_ns, end_ns, target, parameters' token,
#: caller's code, its last instruction, rows, in a transaction afterwards (None: if it used a table), blocking, extra
Row: TypeAlias = (
    "tuple[str | Statement, int, int, Target, int | None, CodeType | None, int, "
    "int | None, bool | int | None, bool, Extra | None]"
)

_START = itemgetter(1)


class Noted:
    """`perf_middleware.record.Runs` as the drivers noted them.

    Attributes:
        noted: Their rows.
        statement: What is known of the text; of the first text, where several have one fingerprint.
        statements: By text, where there are several.

    """

    __slots__ = ("_reading", "_totals", "db", "fingerprint", "noted", "statement", "statements", "system", "total_ns")

    def __init__(self, reading: Reading, statement: Statement, target: Target) -> None:
        self.fingerprint = statement.fingerprint
        self.db = target.db
        self.system = target.system
        self.statement = statement
        self.statements: dict[str | Statement, Statement] | None = None
        self.noted: list[Row] = []
        self._reading = reading
        self.total_ns = 0
        self._totals: Totals = (0, 0, 0, 0.0, 0.0)

    def add_text(self, text: str | Statement, statement: Statement) -> None:
        """Have the runs of another text too."""
        if self.statements is None:
            self.statements = {self.noted[0][0]: self.statement}
        self.statements[text] = statement

    def totals(self) -> Totals:
        """As in `Runs`; added up once."""
        rows, totals = self.noted, self._totals
        count = len(rows)
        if totals[0] == count:
            return totals
        if count == 1:
            ((_, start_ns, end_ns, *_),) = rows
            total_ns = max_ns = end_ns - start_ns
        else:
            durations_ns = [row[2] - row[1] for row in rows]
            total_ns, max_ns = sum(durations_ns), max(durations_ns)
        wire, errors = count, 0
        if not self._reading.plain:
            extras = [row[10] for row in rows if row[10] is not None]
            wire += sum([extra.wire for extra in extras]) - len(extras)
            errors = sum([extra.error is not None for extra in extras])
        self.total_ns = total_ns
        totals = self._totals = (count, wire, errors, total_ns / 1e6, max_ns / 1e6)
        return totals

    @property
    def caller(self) -> str | None:
        """Where the first of them came from."""
        code = self.noted[0][5]
        return None if code is None else describe(code, self.noted[0][6])

    def indices(self) -> list[int]:
        """As in `Runs`: their places among the queries of the profile."""
        mine = {self.noted[0][0]} if self.statements is None else self.statements.keys()
        places = [(index, row) for index, row in enumerate(self._reading.counted()) if row[0] in mine]
        return [index for index, row in places if row[3].db == self.db]

    def starts_ms(self) -> list[float]:
        """As in `Runs`."""
        origin_ns = self._reading.origin_ns
        return [(row[1] - origin_ns) / 1e6 for row in self.noted]

    def durations_ms(self) -> list[float]:
        """As in `Runs`."""
        return [(row[2] - row[1]) / 1e6 for row in self.noted]

    def errors(self) -> list[str | None]:
        """As in `Runs`."""
        return [None if row[10] is None else row[10].error for row in self.noted]

    def values(self) -> list[Hashable]:
        """As in `Runs`."""
        if self.statements is not None:
            return [_value(self.statements[row[0]], row[4]) for row in self.noted]
        if self.statement.placeholders:
            return [row[4] for row in self.noted]
        return [_value(self.statement, row[4]) for row in self.noted]

    def callers(self) -> list[str | None]:
        """As in `Runs`; in a loop they follow each other."""
        found: list[str | None] = []
        last_code, last_lasti, caller = None, 0, None
        for row in self.noted:
            code, lasti = row[5], row[6]
            if lasti != last_lasti or code is not last_code:
                caller = None if code is None else describe(code, lasti)
                last_code, last_lasti = code, lasti
            found.append(caller)
        return found

    def rows(self) -> list[int | None]:
        """As in `Runs`."""
        return [_rows(row) for row in self.noted]

    def list_sizes(self) -> list[int | None]:
        """As in `Runs`."""
        if self.statements is None:
            return [self.statement.list_size] * len(self.noted)
        return [self.statements[row[0]].list_size for row in self.noted]

    def texts(self) -> list[str | None]:
        """As in `Runs`: None unless `capture_sql` lets them be told."""
        chars = self._reading.capture_sql
        return [row[0][:chars] if chars and isinstance(row[0], str) else None for row in self.noted]


#: The noted runs by fingerprint and database.
NotedRuns: TypeAlias = "dict[tuple[str | None, str | None], Noted]"

#: For each connection, what takes a further row of a text.
_Appends: TypeAlias = "dict[Target, dict[str | Statement, Callable[[Row], None]]]"


class Reading:
    """Counts, times, rows and transactions of one profile, extended as rows come in.

    Attributes:
        origin_ns: When the profile began.
        keep: Queries, and transactions, kept as rows.
        capture_sql: Characters of the text kept with a query.
        seen: Rows read, of those to be kept.
        plain: As on the capture.
        runs: The kept queries, grouped.
        folded: Counters of the others; under None those beyond `MAX_FOLDED` fingerprints.

    """

    __slots__ = (
        "_appends",
        "_covered_until_ns",
        "_in_order",
        "_kept",
        "_open",
        "_ordinals",
        "_steered",
        "_transactions",
        "capture_sql",
        "db_ns",
        "db_sum_ns",
        "folded",
        "keep",
        "origin_ns",
        "plain",
        "query_count",
        "runs",
        "seen",
    )

    def __init__(self, origin_ns: int, keep: int, capture_sql: int) -> None:
        self.origin_ns = origin_ns
        self.keep = keep
        self.capture_sql = capture_sql
        self.seen = 0
        self.plain = True
        self.runs: NotedRuns = {}
        self.folded: dict[tuple[str, str | None, str] | None, Folded] = {}
        self.query_count = self.db_ns = self.db_sum_ns = 0
        self._steered = False
        self._in_order = True
        self._covered_until_ns = 0
        self._kept: list[Row] = []
        self._appends: _Appends = {}
        self._ordinals: list[int | None] = []
        self._transactions: list[Transaction] = []
        self._open: dict[object, int] = {}

    def add(self, rows: list[Row]) -> None:
        """Take in further rows to keep."""
        if not rows:
            return
        self.seen += len(rows)
        self._kept += rows
        self._in_order &= self._group(rows, self._appends, self.runs)
        self._covered_until_ns = rows[-1][2]
        count = total_ns = 0
        for noted in self.runs.values():
            count += noted.totals()[0]
            total_ns += noted.total_ns
        self.query_count = count
        self.db_sum_ns = total_ns
        self.db_ns = total_ns if self._in_order else self._cover(self.counted(), 0)

    def fold(self, rows: list[Row]) -> None:
        """Count rows without keeping them (exact but for overlaps that reach over two folds)."""
        if self.keep:
            self._follow(rows)
        runs: NotedRuns = {}
        in_order = self._group(rows, {}, runs)
        total_ns = 0
        for noted in runs.values():
            count, wire, errors, duration_ms, max_ms = noted.totals()
            entry = self._folded(noted)
            entry.count += count
            entry.wire += wire
            entry.errors += errors
            entry.duration_ms += duration_ms
            entry.max_ms = max(entry.max_ms, max_ms)
            self.query_count += count
            total_ns += noted.total_ns
        self.db_sum_ns += total_ns
        if in_order:
            self.db_ns += total_ns
            self._covered_until_ns = rows[-1][2]
        else:
            counted = [row for noted in runs.values() for row in noted.noted]
            self.db_ns += self._cover(counted, self._covered_until_ns)

    def counted(self) -> list[Row]:
        """The rows kept, less what steers transactions and sessions."""
        if not self._steered:
            return self._kept
        return [row for row in self._kept if not _statement(row).control]

    def queries(self, capture: Capture) -> list[Query]:
        """The rows kept, as a record has them."""
        self._follow([])
        queries = []
        for row, ordinal in zip(self._kept, self._ordinals, strict=True):
            statement = _statement(row)
            if not statement.control:
                queries.append(self._query(row, statement, ordinal, capture))
        return queries

    def transactions(self, end_ns: int) -> list[Transaction]:
        """Those that were seen; the ones still open last until `end_ns`."""
        self._follow([])
        for ordinal in self._open.values():
            transaction = self._transactions[ordinal]
            transaction.duration_ms = self._ms(end_ns) - transaction.start_ms
        return self._transactions

    @property
    def fetch_ms(self) -> float | None:
        """Time in bulk fetches of the queries kept; None where no driver told."""
        if self.plain:
            return None
        fetched_ns = [row[10].fetch_ns for row in self._kept if row[10] is not None and row[10].fetch_ns is not None]
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

    def _group(self, rows: list[Row], appends: _Appends, runs: NotedRuns) -> bool:
        """Put each row to the others of its statement; whether they followed one another, none during another."""
        in_order = True
        covered_until_ns = self._covered_until_ns
        text: object = None
        target: Target | None = None
        texts: dict[str | Statement, Callable[[Row], None]] = {}
        append: Callable[[Row], None] | None = None
        for row in rows:
            if row[0] is not text or row[3] is not target:
                if row[3] is not target:
                    target = row[3]
                    texts = appends.setdefault(target, {})
                text = row[0]
                append = texts.get(row[0])
                if append is None:
                    append = texts[row[0]] = self._runs_of(row, runs).noted.append
            append(row)  # type: ignore[misc] # the first row's text is never None
            if row[1] < covered_until_ns:
                in_order = False
            covered_until_ns = row[2]
        return in_order

    def _runs_of(self, row: Row, runs: NotedRuns) -> Noted:
        """The runs that a text belongs to, when it is seen for the first time."""
        statement, target = _statement(row), row[3]
        if statement.control:
            self._steered = True
            return Noted(self, statement, target)
        key = (statement.fingerprint, target.db)
        noted = runs.get(key)
        if noted is None:
            noted = runs[key] = Noted(self, statement, target)
        else:
            noted.add_text(row[0], statement)
        return noted

    def _cover(self, rows: list[Row], covered_until_ns: int) -> int:
        """Nanoseconds in which at least one of the rows ran, after a time that was counted already."""
        covered_ns = 0
        for row in sorted(rows, key=_START):
            end_ns = row[2]
            if end_ns > covered_until_ns:
                covered_ns += end_ns - max(row[1], covered_until_ns)
                covered_until_ns = end_ns
        self._covered_until_ns = covered_until_ns
        return covered_ns

    def _folded(self, noted: Noted) -> Folded:
        key = (noted.fingerprint, noted.db, noted.system)
        entry = self.folded.get(key)
        if entry is None:
            if len(self.folded) < MAX_FOLDED:
                entry = self.folded[key] = Folded(*key)
            else:
                entry = self.folded.setdefault(None, Folded())
        return entry

    def _ms(self, at_ns: int) -> float:
        return (at_ns - self.origin_ns) // 1000 / 1000

    def _query(self, row: Row, statement: Statement, ordinal: int | None, capture: Capture) -> Query:
        text, start_ns, end_ns, target, token, code, lasti, _, _, blocking, extra = row
        query = Query(
            fingerprint=statement.fingerprint,
            start_ms=(start_ns - self.origin_ns) // 1000 / 1000,
            duration_ms=(end_ns - start_ns) // 1000 / 1000,
            rows=_rows(row),
            params_hash=_params_hash(statement, token),
            list_size=statement.list_size,
            db=target.db,
            system=target.system,
            caller=None if code is None else describe(code, lasti),
            transaction=ordinal,
            phase=_phase(start_ns, capture),
            blocking=blocking,
        )
        if self.capture_sql and isinstance(text, str):
            query.sql = text[: self.capture_sql]
        if extra is not None:
            query.many = extra.many
            query.wire = extra.wire
            query.error = extra.error
            if extra.fetch_ns is not None:
                query.fetch_ms = extra.fetch_ns // 1000 / 1000
        return query

    def _follow(self, folded: list[Row]) -> None:
        """Follow the kept rows, and then those to be folded, in and out of transactions."""
        for row in self._kept[len(self._ordinals) :]:
            self._ordinals.append(self._transaction(row, _statement(row)))
        for row in folded:
            self._transaction(row, _statement(row))

    def _transaction(self, row: Row, statement: Statement) -> int | None:
        """Follow the row's connection in and out of transactions; its ordinal if it is inside one."""
        start_ns, end_ns, target, inside, extra = row[1], row[2], row[3], row[8], row[10]
        verb, failed = statement.transaction, extra is not None and extra.error is not None
        ordinal = self._open.get(target.session)
        if ordinal is not None and verb == "begin" and not failed:
            self._end(target, "commit", start_ns)  # which BEGIN implies
            ordinal = None
        if ordinal is None:
            begins = bool(statement.tables) if inside is None else inside
            if not begins or verb in ("commit", "rollback") or len(self._transactions) >= self.keep:
                return None
            ordinal = self._open[target.session] = len(self._transactions)
            self._transactions.append(Transaction(start_ms=self._ms(start_ns), db=target.db))
        self._transactions[ordinal].busy_ms += (end_ns - start_ns) // 1000 / 1000
        # None of them is "unknown": neither 0 nor False goes on.
        if (inside is not None and not inside) or (verb in ("commit", "rollback") and not failed):
            self._end(target, "rollback" if verb == "rollback" or failed else "commit", end_ns)
        return ordinal

    def _end(self, target: Target, outcome: Literal["commit", "rollback"], at_ns: int) -> None:
        transaction = self._transactions[self._open.pop(target.session)]
        transaction.outcome = outcome
        transaction.duration_ms = self._ms(at_ns) - transaction.start_ms


def _statement(row: Row) -> Statement:
    text = row[0]
    return text if isinstance(text, Statement) else parse(text, row[3].system)


def _rows(row: Row) -> int | None:
    extra = row[10]
    rows = row[7] if extra is None or extra.rows is None else extra.rows
    return rows if type(rows) is int and 0 <= rows < MAX_ROWS else None


def _value(statement: Statement, token: int | None) -> Hashable:
    """Stands for the values of a run: those in the text and the parameters together; None where unknown."""
    return None if statement.placeholders and token is None else (statement.literals, token)


def _params_hash(statement: Statement, token: int | None) -> str | None:
    value = _value(statement, token)
    return None if value is None else f"{hash((_SECRET, value)) & 0xFFFF_FFFF_FFFF_FFFF:016x}"


def _phase(start_ns: int, capture: Capture) -> str:
    if capture.first_byte_ns is None or start_ns < capture.first_byte_ns:
        return "before"
    if capture.last_byte_ns is None or start_ns < capture.last_byte_ns:
        return "stream"
    return "background"
