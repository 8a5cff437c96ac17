"""From the facts a driver noted to the rows of a record; done once, when the application has its answer.

A `Row` is a plain tuple because building one costs a tenth of building an object; its places are named here.
"""

from __future__ import annotations

import os
from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perf_middleware.collector.caller import describe
from perf_middleware.record import Folded, Query, Transaction
from perf_middleware.sql import Statement, parse

if TYPE_CHECKING:
    from types import CodeType

    from perf_middleware.collector.context import Capture

#: Longer texts are fingerprinted when noted instead of being kept until the profile ends: a bound on memory.
KEEP_TEXT_CHARS: Final = 65_536

#: Drivers say "unknown" with -1 or the largest unsigned number.
MAX_ROWS: Final = 2**63 - 1

#: Makes tokens of parameters meaningless outside this process.
_SECRET: Final = os.urandom(16)


class Target:
    """One connection, seen from outside.

    Attributes:
        system: `db.system.name`.
        db: Which database, without credentials.
        busy: A recorded call is running, so that the calls it makes itself are not recorded again.
        wire: Statements sent since the outermost recorded call began.

    """

    __slots__ = ("busy", "db", "system", "wire")

    def __init__(self, system: str, db: str | None) -> None:
        self.system = system
        self.db = db
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


#: text (or the statement, when the text was too long to keep), start_ns, end_ns, target, parameters' token,
#: caller's code, its last instruction, rows, in a transaction afterwards (None: unknown), thread, extra
Row: TypeAlias = (
    "tuple[str | bytes | bytearray | Statement, int, int, Target, int | None, CodeType | None, int, "
    "int | None, bool | None, int, Extra | None]"
)

_START = itemgetter(1)


class Reading:
    """Counts, times, rows and transactions of one profile, extended as rows come in."""

    def __init__(self, origin_ns: int, capture_sql: int) -> None:
        self.origin_ns = origin_ns
        self.capture_sql = capture_sql
        self.queries: list[Query] = []
        self.transactions: list[Transaction] = []
        self.folded: dict[tuple[str, str | None, str], Folded] = {}
        self.query_count = 0
        self.db_ns = 0
        self.db_sum_ns = 0
        self.fetch_ns: int | None = None
        self._rows_read = 0
        self._covered_until_ns = 0
        self._open: dict[Target, int] = {}
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
            key = (statement.fingerprint, target.db, target.system)
            entry = self.folded.get(key)
            if entry is None:
                entry = self.folded[key] = Folded(statement.fingerprint, target.db, target.system)
            duration_ms = (row[2] - row[1]) / 1e6
            entry.count += 1
            entry.wire += 1 if extra is None else extra.wire
            entry.errors += extra is not None and extra.error is not None
            entry.duration_ms += duration_ms
            entry.max_ms = max(entry.max_ms, duration_ms)
        self._count(counted)

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
        if self.capture_sql:
            query.sql = _shown(text, self.capture_sql)
        if extra is not None:
            query.many = extra.many
            query.wire = extra.wire
            query.error = extra.error
            self._late.append((query, extra))
        return query

    def _transaction(self, row: Row, statement: Statement) -> int | None:
        """Follow the row's connection in and out of transactions; its ordinal if it is inside one."""
        start_ns, end_ns, target, inside = row[1], row[2], row[3], row[8]
        ordinal = self._open.get(target)
        if ordinal is None:
            if not inside and statement.transaction != "begin":
                return None
            if statement.transaction in ("commit", "rollback"):
                return None
            ordinal = self._open[target] = len(self.transactions)
            self.transactions.append(Transaction(start_ms=self._ms(start_ns), db=target.db))
        transaction = self.transactions[ordinal]
        transaction.busy_ms += (end_ns - start_ns) // 1000 / 1000
        ended = statement.transaction in ("commit", "rollback")
        if ended or (inside is False and statement.transaction != "begin"):
            transaction.outcome = "rollback" if statement.transaction == "rollback" else "commit"
            transaction.duration_ms = self._ms(end_ns) - transaction.start_ms
            del self._open[target]
        return ordinal


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


def _shown(text: Any, max_chars: int) -> str | None:
    if isinstance(text, (bytes, bytearray)):
        return bytes(text[:max_chars]).decode("utf-8", "replace")
    return text[:max_chars] if isinstance(text, str) else None
