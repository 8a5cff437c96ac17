"""From the facts a driver noted to the rows of a record; done once, when the application has its answer.

A `Row` is a plain tuple because building one costs a tenth of building an object; its places are named here.
"""

from __future__ import annotations

import os
from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from perf_middleware.collector.caller import describe
from perf_middleware.record import Folded, Query, Transaction
from perf_middleware.sql import Statement, parse

if TYPE_CHECKING:
    from types import CodeType

    from perf_middleware.collector.context import Capture

#: Longer texts are fingerprinted when noted instead of being kept until the profile ends: a bound on memory.
KEEP_TEXT_CHARS: Final = 65_536

#: Fingerprints with counters of their own; further ones share one, so that text without an end costs no memory.
MAX_FOLDED: Final = 1000

#: Drivers say "unknown" with -1 or the largest unsigned number.
MAX_ROWS: Final = 2**63 - 1

#: Makes tokens of parameters meaningless outside this process.
_SECRET: Final = os.urandom(16)


class Target:
    """One connection, seen from outside.

    Attributes:
        system: `db.system.name`.
        db: Which database, without credentials.
        session: Stands for the connection, also when it turns to another database.
        busy: A recorded call is running, so that the calls it makes itself are not recorded again.
        wire: Statements sent since the outermost recorded call began.

    """

    __slots__ = ("busy", "db", "session", "system", "wire")

    def __init__(self, system: str, db: str | None, session: object = None) -> None:
        self.system = system
        self.db = db
        self.session = session or object()
        self.busy = False
        self.wire = 0


class Extra:
    """Facts that few queries have, or that are known only after execute."""

    __slots__ = ("error", "fetch_ns", "many", "rows", "wire")

    def __init__(
        self, *, many: int | None = None, wire: int = 1, error: str | None = None, rows: int | None = None
    ) -> None:
        self.many = many
        self.wire = wire
        self.error = error
        self.fetch_ns: int | None = None
        self.rows = rows

    def fetched(self, duration_ns: int, rows: int) -> None:
        """Add a bulk fetch."""
        self.fetch_ns = (self.fetch_ns or 0) + duration_ns
        self.rows = (self.rows or 0) + rows


#: text (or the statement, when the text was not worth keeping), start_ns, end_ns, target, parameters' token,
#: caller's code, its last instruction, rows, in a transaction afterwards (None: if it used a table), thread, extra
Row: TypeAlias = (
    "tuple[str | Statement, int, int, Target, int | None, CodeType | None, int, "
    "int | None, bool | None, int, Extra | None]"
)

_START = itemgetter(1)


class Reading:
    """Counts, times, rows and transactions of one profile, extended as rows come in.

    Attributes:
        origin_ns: When the profile began.
        keep: Queries, and transactions, kept as rows.
        capture_sql: Characters of the text kept with a query.

    """

    def __init__(self, origin_ns: int, *, keep: int, capture_sql: int) -> None:
        self.origin_ns = origin_ns
        self.keep = keep
        self.capture_sql = capture_sql
        self.queries: list[Query] = []
        self.transactions: list[Transaction] = []
        self.folded: dict[tuple[str, str | None, str] | None, Folded] = {}
        self.query_count = 0
        self.db_ns = 0
        self.db_sum_ns = 0
        self.fetch_ns: int | None = None
        self._rows_read = 0
        self._covered_until_ns = 0
        self._kept: list[Row] = []
        self._open: dict[object, int] = {}
        self._late: list[tuple[Query, Extra]] = []

    def add(self, rows: list[Row], capture: Capture) -> None:
        """Turn the rows past those already read into queries."""
        fresh = rows[self._rows_read :]
        self._rows_read = len(rows)
        counted = []
        for row in fresh:
            statement = _statement(row)
            ordinal = self._transaction(row, statement)
            if statement.control:
                continue
            self.queries.append(self._query(row, statement, ordinal, capture))
            counted.append(row)
        self._kept += counted
        if counted and min(map(_START, counted)) < self._covered_until_ns:  # they overlap what was read before
            self.query_count = self.db_ns = self.db_sum_ns = self._covered_until_ns = 0
            counted = self._kept[:]
        self._count(counted)
        self._settle()

    def fold(self, rows: list[Row]) -> None:
        """Count rows without keeping them."""
        counted = []
        for row in rows:
            statement = _statement(row)
            self._transaction(row, statement)
            if statement.control:
                continue
            counted.append(row)
            target, extra = row[3], row[10]
            entry = self._folded(statement.fingerprint, target)
            duration_ms = (row[2] - row[1]) / 1e6
            entry.count += 1
            entry.wire += 1 if extra is None else extra.wire
            entry.errors += extra is not None and extra.error is not None
            entry.duration_ms += duration_ms
            entry.max_ms = max(entry.max_ms, duration_ms)
        self._count(counted)

    def _folded(self, fingerprint: str, target: Target) -> Folded:
        key = (fingerprint, target.db, target.system)
        entry = self.folded.get(key)
        if entry is None:
            if len(self.folded) < MAX_FOLDED:
                entry = self.folded[key] = Folded(*key)
            else:
                entry = self.folded.setdefault(None, Folded())
        return entry

    def by_verb_and_table(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many queries had each verb, and how many touched each table."""
        verbs: Counter[str] = Counter()
        tables: Counter[str] = Counter()
        counted = [(query.fingerprint, query.system, 1) for query in self.queries]
        counted += [(entry.fingerprint, entry.system, entry.count) for entry in self.folded.values()]
        for fingerprint, system, count in counted:
            statement = parse(fingerprint or "", system)
            verbs[statement.verb] += count
            for table in statement.tables:
                tables[table] += count
        return dict(verbs), dict(tables)

    def finish(self, end_ns: int) -> None:
        """End the transactions still open when the profile ends."""
        for ordinal in self._open.values():
            transaction = self.transactions[ordinal]
            transaction.duration_ms = self._ms(end_ns) - transaction.start_ms
        self._open = {}

    def _settle(self) -> None:
        """Take in what is known only after execute: rows and the time of fetching them."""
        fetched_ns = []
        for query, extra in self._late:
            if extra.rows is not None:
                query.rows = extra.rows
            if extra.fetch_ns is not None:
                query.fetch_ms = extra.fetch_ns // 1000 / 1000
                fetched_ns.append(extra.fetch_ns)
        self.fetch_ns = sum(fetched_ns) if fetched_ns else None

    def _ms(self, at_ns: int) -> float:
        return (at_ns - self.origin_ns) // 1000 / 1000

    def _count(self, rows: list[Row]) -> None:
        """Count queries and cover their intervals (exact but for overlaps reaching over two folds)."""
        covered_until_ns, db_ns, db_sum_ns = self._covered_until_ns, self.db_ns, self.db_sum_ns
        rows.sort(key=_START)
        for row in rows:
            start_ns, end_ns = row[1], row[2]
            db_sum_ns += end_ns - start_ns
            if end_ns > covered_until_ns:
                db_ns += end_ns - max(start_ns, covered_until_ns)
                covered_until_ns = end_ns
        self.query_count += len(rows)
        self._covered_until_ns, self.db_ns, self.db_sum_ns = covered_until_ns, db_ns, db_sum_ns

    def _query(self, row: Row, statement: Statement, ordinal: int | None, capture: Capture) -> Query:
        text, start_ns, end_ns, target, token, code, lasti, rows, _, thread, extra = row
        query = Query(
            fingerprint=statement.fingerprint,
            start_ms=(start_ns - self.origin_ns) // 1000 / 1000,
            duration_ms=(end_ns - start_ns) // 1000 / 1000,
            rows=rows if rows is not None and 0 <= rows < MAX_ROWS else None,
            params_hash=_params_hash(statement, token),
            list_size=statement.list_size,
            db=target.db,
            system=target.system,
            caller=None if code is None else describe(code, lasti),
            transaction=ordinal,
            phase=_phase(start_ns, capture),
            blocking=thread == capture.loop_thread,
        )
        if self.capture_sql and isinstance(text, str):
            query.sql = text[: self.capture_sql]
        if extra is not None:
            query.many = extra.many
            query.wire = extra.wire
            query.error = extra.error
            self._late.append((query, extra))
        return query

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
            if not begins or verb in ("commit", "rollback") or len(self.transactions) >= self.keep:
                return None
            ordinal = self._open[target.session] = len(self.transactions)
            self.transactions.append(Transaction(start_ms=self._ms(start_ns), db=target.db))
        self.transactions[ordinal].busy_ms += (end_ns - start_ns) // 1000 / 1000
        if inside is False or (verb in ("commit", "rollback") and not failed):
            self._end(target, "rollback" if verb == "rollback" or failed else "commit", end_ns)
        return ordinal

    def _end(self, target: Target, outcome: Literal["commit", "rollback"], at_ns: int) -> None:
        transaction = self.transactions[self._open.pop(target.session)]
        transaction.outcome = outcome
        transaction.duration_ms = self._ms(at_ns) - transaction.start_ms


def _statement(row: Row) -> Statement:
    text = row[0]
    return text if isinstance(text, Statement) else parse(text, row[3].system)


def _params_hash(statement: Statement, token: int | None) -> str | None:
    if statement.placeholders and token is None:
        return None
    return f"{hash((_SECRET, statement.literals, token)) & 0xFFFF_FFFF_FFFF_FFFF:016x}"


def _phase(start_ns: int, capture: Capture) -> str:
    if capture.first_byte_ns is None or start_ns < capture.first_byte_ns:
        return "before"
    if capture.last_byte_ns is None or start_ns < capture.last_byte_ns:
        return "stream"
    return "background"
