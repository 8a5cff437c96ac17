"""PyMySQL: cursors and direct `Connection.query`, with statements counted where they go to the wire.

`Cursor.execute` is where the template and its parameters are known; `Connection.query` is where each statement
is sent. The first records, the second counts: a connection that is `busy` inside a recorded call only counts, so
`executemany` and `callproc` are one query each with their true number of statements. Whether a transaction is
open is read from the server's own status flags.
"""

from __future__ import annotations

from threading import get_ident
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from perf_middleware.collector.caller import find_caller
from perf_middleware.collector.context import unattributed
from perf_middleware.collector.parameters import params_token
from perf_middleware.collector.rows import KEEP_TEXT_CHARS, Extra, Target
from perf_middleware.errors import fault
from perf_middleware.sql import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FunctionType, ModuleType

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.patching import Patches

    Get = Callable[[], Capture | None]

MODULE = "pymysql"

_IN_TRANSACTION = 1  # SERVER_STATUS_IN_TRANS
_GONE_AWAY = 2006  # CR_SERVER_GONE_ERROR: the connection broke while sending
_TARGET = "_perf_middleware_target"


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch the methods of PyMySQL's classes; connections opened before are seen too."""
    cursors, connection = module.cursors, module.connections.Connection
    patches.replace(cursors.Cursor, "execute", _execute)
    patches.replace(cursors.Cursor, "executemany", _executemany)
    patches.replace(cursors.Cursor, "callproc", _callproc)
    for name in ("fetchall", "fetchmany"):
        patches.replace(cursors.SSCursor, name, _bulk_fetch)
    patches.replace(connection, "query", _query)
    patches.replace(connection, "select_db", _select_db)
    for name in ("begin", "commit", "rollback"):
        patches.replace(connection, name, _transaction(name.upper()))


def _execute(original: Any, get: Get) -> FunctionType:
    def execute(self: Any, query: Any, args: Any = None) -> Any:
        capture = get()
        if capture is None:
            unattributed.add()
            return original(self, query, args)
        target = _target(self.connection)
        if target.busy:
            return original(self, query, args)
        target.busy = True
        target.wire = 0
        start_ns = perf_counter_ns()
        try:
            result = original(self, query, args)
        except BaseException as error:
            _note(capture, self, target, query, args, start_ns, Extra(wire=target.wire, error=_error(error)))
            raise
        finally:
            target.busy = False
        _note(capture, self, target, query, args, start_ns, None)
        return result

    return execute  # type: ignore[return-value]


def _executemany(original: Any, get: Get) -> FunctionType:
    def executemany(self: Any, query: Any, args: Any) -> Any:
        capture = get()
        if capture is None:
            unattributed.add()
            return original(self, query, args)
        target = _target(self.connection)
        if target.busy:
            return original(self, query, args)
        counted = _Counted(args)
        extra = Extra()
        target.busy = True
        target.wire = 0
        start_ns = perf_counter_ns()
        try:
            return original(self, query, counted.args)
        except BaseException as error:
            extra.error = _error(error)
            raise
        finally:
            target.busy = False
            extra.many, extra.wire = counted.count(), target.wire
            if extra.wire or extra.error:
                _note(capture, self, target, query, None, start_ns, extra)

    return executemany  # type: ignore[return-value]


def _callproc(original: Any, get: Get) -> FunctionType:
    def callproc(self: Any, procname: Any, args: Any = ()) -> Any:
        capture = get()
        if capture is None:
            unattributed.add()
            return original(self, procname, args)
        target = _target(self.connection)
        extra = Extra()
        target.busy = True
        target.wire = 0
        start_ns = perf_counter_ns()
        try:
            return original(self, procname, args)
        except BaseException as error:
            extra.error = _error(error)
            raise
        finally:
            target.busy = False
            extra.wire = max(0, target.wire - (1 if args else 0))  # the first statement only SETs the arguments
            text = f"CALL `{procname}`({', '.join('?' * len(args))})"
            _note(capture, self, target, text, args, start_ns, extra)

    return callproc  # type: ignore[return-value]


def _query(original: Any, get: Get) -> FunctionType:
    def query(self: Any, sql: Any, unbuffered: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyMySQL's own signature
        target = self.__dict__.get(_TARGET)
        if target is not None and target.busy:
            target.wire += 1
            try:
                return original(self, sql, unbuffered)
            except Exception as error:
                target.wire -= not _was_sent(error)
                raise
        capture = get()
        if capture is None:
            return original(self, sql, unbuffered)
        target = _target(self)
        extra = None
        start_ns = perf_counter_ns()
        try:
            return original(self, sql, unbuffered)
        except BaseException as error:
            extra = Extra(wire=int(_was_sent(error)), error=_error(error))
            raise
        finally:
            _note_on(capture, self, target, sql, None, start_ns, None, extra)

    return query  # type: ignore[return-value]


def _bulk_fetch(original: Any, get: Get) -> FunctionType:
    def fetch(self: Any, *args: Any, **kwargs: Any) -> Any:
        extra = self.__dict__.get("_perf_middleware_extra")
        if extra is None or get() is None:
            return original(self, *args, **kwargs)
        start_ns = perf_counter_ns()
        rows = original(self, *args, **kwargs)
        extra.fetched(perf_counter_ns() - start_ns, len(rows or ()))
        return rows

    return fetch  # type: ignore[return-value]


def _select_db(original: Any, get: Get) -> FunctionType:
    def select_db(self: Any, db: Any) -> Any:
        result = original(self, db)
        if get() is not None:
            _target(self).db = _database(self)
        return result

    return select_db  # type: ignore[return-value]


def _transaction(verb: str) -> Callable[[Any, Get], FunctionType]:
    def make(original: Any, get: Get) -> FunctionType:
        def transaction(self: Any) -> Any:
            capture = get()
            start_ns = perf_counter_ns()
            result = original(self)
            if capture is not None:
                _note_on(capture, self, _target(self), verb, None, start_ns, None, None)
            return result

        return transaction  # type: ignore[return-value]

    return make


class _Counted:
    """Parameter sets, counted without consuming a generator before the driver does."""

    def __init__(self, args: Any) -> None:
        self.args = args
        self._seen = 0
        if not hasattr(args, "__len__"):
            self.args = self._counting(args)

    def _counting(self, args: Any) -> Iterator[Any]:
        for item in args:
            self._seen += 1
            yield item

    def count(self) -> int:
        return len(self.args) if hasattr(self.args, "__len__") else self._seen


def _note(  # noqa: PLR0917 - a row's facts, in its order
    capture: Capture, cursor: Any, target: Target, query: Any, args: Any, start_ns: int, extra: Extra | None
) -> None:
    """Note what a cursor did; its connection's status says whether a transaction is open."""
    try:
        rows = cursor.rowcount
        result = cursor._result  # noqa: SLF001 - whether rows are still on their way; absent in versions we do not know
        if result is not None and result.unbuffered_active:
            extra = extra or Extra()
            cursor.__dict__["_perf_middleware_extra"] = extra
            rows = None
    except AttributeError:
        rows = None
    _note_on(capture, cursor.connection, target, query, args, start_ns, rows, extra)


def _note_on(  # noqa: PLR0917 - a row's facts, in its order
    capture: Capture,
    connection: Any,
    target: Target,
    query: Any,
    args: Any,
    start_ns: int,
    rows: int | None,
    extra: Extra | None,
) -> None:
    end_ns = perf_counter_ns()
    try:
        code, lasti = find_caller(3) if capture.callers else (None, 0)
        token = params_token(args) if capture.detailed and args is not None else None
        text = query if len(query) <= KEEP_TEXT_CHARS else parse(query, target.system)
        inside = bool(connection.server_status & _IN_TRANSACTION) if connection is not None else None
        capture.note((text, start_ns, end_ns, target, token, code, lasti, rows, inside, get_ident(), extra))
    except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
        fault("pymysql", error)


def _target(connection: Any) -> Target:
    try:
        target: Target | None = connection.__dict__.get(_TARGET)
        if target is None:
            system = "mariadb" if "mariadb" in str(connection.server_version).lower() else "mysql"
            target = connection.__dict__[_TARGET] = Target(system, _database(connection))
    except Exception:  # noqa: BLE001 - a closed cursor has no connection; the driver is about to say so
        return Target("mysql", None)
    return target


def _database(connection: Any) -> str:
    database = connection.db
    if isinstance(database, bytes):
        database = database.decode("utf-8", "replace")
    where = connection.unix_socket or f"{connection.host}:{connection.port}"
    return f"{where}/{database or ''}"


def _was_sent(error: BaseException) -> bool:
    """False for failures before anything reached the server: closed connections, texts that cannot be encoded."""
    number = error.args[0] if error.args else None
    return not isinstance(error, Exception) or (type(number) is int and number not in (0, _GONE_AWAY))


def _error(error: BaseException) -> str:
    """Class and errno; the message quotes values."""
    number = error.args[0] if error.args else None
    return f"{type(error).__name__} {number}" if type(number) is int else type(error).__name__
