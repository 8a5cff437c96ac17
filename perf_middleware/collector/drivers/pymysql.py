"""PyMySQL: cursors and direct `Connection.query`, with statements counted where they go to the wire.

`Cursor.execute` is where the template and its parameters are known; `Connection.query` is where each statement
is sent. The first records, the second counts: a connection that is `busy` inside a recorded call only counts, so
`executemany` and `callproc` are one query each with their true number of statements. Whether a transaction is
open is read from the server's own status flags.
"""

from __future__ import annotations

from sys import _getframe
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

from perf_middleware.collector.caller import find_caller
from perf_middleware.collector.context import unattributed
from perf_middleware.collector.noting import counted, extra_of_last, note_query
from perf_middleware.collector.parameters import params_token
from perf_middleware.collector.rows import COUNTING, KEEP_TEXT_CHARS, Extra, Target
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FunctionType, ModuleType

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.patching import Patches
    from perf_middleware.collector.rows import Token

    Get = Callable[[], Capture | None]

MODULE = "pymysql"

_IN_TRANSACTION, _AUTOCOMMIT = 1, 2  # SERVER_STATUS_IN_TRANS, SERVER_STATUS_AUTOCOMMIT
_SURE = _IN_TRANSACTION | _AUTOCOMMIT
_DEADLOCK = " 1213"  # ER_LOCK_DEADLOCK: the server has rolled the whole transaction back
_READING = ("_read_query_result", "_read_ok_packet", "read")
_TARGET = "_perf_middleware_target"
_EXTRA = "_perf_middleware_extra"


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
    for name, text in _COMMANDS.items():
        patches.replace(connection, name, _command(text))


#: Methods that send a fixed statement by a way of their own. The server rolls back what `close` leaves open.
_COMMANDS = {
    "begin": "BEGIN",
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
    "autocommit": "SET autocommit",
    "show_warnings": "SHOW WARNINGS",
    "close": "ROLLBACK",
}


def _execute(original: Any, get: Get) -> FunctionType:  # noqa: C901, PLR0915 - on the hot path a call costs as much again
    def execute(self: Any, query: Any, args: Any = None) -> Any:  # noqa: C901, PLR0912, PLR0915
        capture = get()
        if capture is None:
            return original(self, query, args)
        connection = self.connection
        try:
            target = connection._perf_middleware_target  # noqa: SLF001
        except AttributeError:
            target = _target(connection)
        if target.busy:
            return original(self, query, args)
        target.busy = True
        start_s = perf_counter()
        try:
            rows = original(self, query, args)
        except BaseException as error:
            target.busy = False
            extra = Extra(wire=int(_was_sent(error)), error=_error(error))
            _note(capture, connection, target, query, None, int(start_s * 1e9), extra)
            raise
        end_s = perf_counter()
        target.busy = False
        try:
            if query is not target.text:
                if type(query) is not str or len(query) > KEEP_TEXT_CHARS or "/*" in query:
                    # It cannot be kept as it is, or its hash does not tell its values.
                    _note_execute(capture, self, query, args, start_s, end_s, rows)
                    return rows
                target.text = query
            # The rest is the commonest case of `note_query` in place.
            facts = capture.direct
            if facts is not None:
                frame = _getframe(1)
                code: CodeType | None = frame.f_code
                if code is target.code:
                    lasti = frame.f_lasti
                else:
                    code, lasti = find_caller(2)
                    target.code = code
            else:
                facts = capture.sparse
                if facts is not None:
                    facts += (query, start_s, end_s, end_s - start_s, target, None, None, 0, None, None, None)
                    left = target.left = target.left - 1
                    if not left:
                        capture.check(facts, target)
                    return rows
                facts = capture.lean
                if facts is None:
                    _note_execute(capture, self, query, args, start_s, end_s, rows)
                    return rows
                code, lasti = None, 0
            status = connection.server_status
            # With autocommit, and nothing open; the names of the bits would be looked up each time.
            inside = 0 if status == 2 else status & 1 if status & 3 else _unsure(connection)  # noqa: PLR2004
            sent = hash(self._executed)
            facts += (query, start_s, end_s, end_s - start_s, target, sent, code, lasti, rows, inside, None)
            left = target.left = target.left - 1
            if not left:
                capture.check(facts, target)
        except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
            fault("pymysql", error)
        return rows

    return execute  # type: ignore[return-value]


def _note_execute(  # noqa: PLR0917 - what is known of a successful execute
    capture: Capture, cursor: Any, query: Any, args: Any, start_s: float, end_s: float, rows: Any
) -> None:
    connection = cursor.connection
    token = _token(query, cursor._executed, args) if capture.keep else None  # noqa: SLF001
    start_ns, end_ns = int(start_s * 1e9), int(end_s * 1e9)
    note_query(capture, _target(connection), query, token, start_ns, end_ns, rows, _inside(connection), None)


def _token(query: Any, sent: Any, args: Any) -> Token:
    """Of the text that was sent; of the parameters alone where it has a comment, which may be another each time."""
    if type(query) is str and "/*" not in query:
        return hash(sent)
    return None if args is None else params_token(args)


def _executemany(original: Any, get: Get) -> FunctionType:
    def executemany(self: Any, query: Any, args: Any) -> Any:
        capture = get()
        if capture is None:
            return original(self, query, args)
        target = _target(self.connection)
        if target.busy:
            return original(self, query, args)
        many = None
        if not hasattr(args, "__len__"):
            args, many = counted(args)
        extra = Extra()
        target.busy = COUNTING
        target.wire = 0
        start_ns = perf_counter_ns()
        try:
            return original(self, query, args)
        except BaseException as error:
            extra.error = _error(error)
            raise
        finally:
            target.busy = False
            extra.wire = target.wire
            if extra.wire or extra.error:
                extra.many = _size(args) if many is None else many()
                _note(capture, self.connection, target, query, None, start_ns, extra, self.rowcount)

    return executemany  # type: ignore[return-value]


def _callproc(original: Any, get: Get) -> FunctionType:
    def callproc(self: Any, procname: Any, args: Any = ()) -> Any:
        capture = get()
        if capture is None:
            return original(self, procname, args)
        target = _target(self.connection)
        if target.busy:
            return original(self, procname, args)
        extra = Extra()
        target.busy = COUNTING
        target.wire = 0
        start_ns = perf_counter_ns()
        try:
            return original(self, procname, args)
        except BaseException as error:
            extra.error = _error(error)
            raise
        finally:
            target.busy = False
            extra.wire = max(0, target.wire - bool(_size(args)))  # the first statement only SETs the arguments
            text = f"CALL `{procname}`({', '.join('?' * (_size(args) or 0))})" if type(procname) is str else procname
            _note(capture, self.connection, target, text, params_token(args), start_ns, extra, self.rowcount)

    return callproc  # type: ignore[return-value]


def _query(original: Any, get: Get) -> FunctionType:
    def query(self: Any, sql: Any, unbuffered: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyMySQL's own signature
        try:
            busy = self._perf_middleware_target.busy
        except AttributeError:
            busy = _target(self).busy
        if busy is True:
            return original(self, sql, unbuffered)
        if busy:
            return _send(original, self, sql, unbuffered)
        capture = get()
        if capture is None:
            unattributed.add()
            return original(self, sql, unbuffered)
        target = _target(self)
        start_ns = perf_counter_ns()
        try:
            rows = original(self, sql, unbuffered)
        except BaseException as error:
            extra = Extra(wire=int(_was_sent(error)), error=_error(error))
            _note(capture, self, target, sql, None, start_ns, extra)
            raise
        _note(capture, self, target, sql, _token(sql, sql, None), start_ns, None, rows)
        return rows

    return query  # type: ignore[return-value]


def _send(original: Any, connection: Any, sql: Any, unbuffered: bool) -> Any:  # noqa: FBT001
    """Count one of several statements of a recorded call."""
    target = connection.__dict__[_TARGET]
    target.wire += 1
    try:
        return original(connection, sql, unbuffered)
    except BaseException as error:
        target.wire -= not _was_sent(error)
        raise


def _bulk_fetch(original: Any, get: Get) -> FunctionType:
    def fetch(self: Any, *args: Any, **kwargs: Any) -> Any:
        capture = get()
        extra = None if capture is None else _streamed(self, capture)
        if extra is None:
            return original(self, *args, **kwargs)
        start_ns = perf_counter_ns()
        rows = original(self, *args, **kwargs)
        extra.fetched(perf_counter_ns() - start_ns, len(rows))
        return rows

    return fetch  # type: ignore[return-value]


def _streamed(cursor: Any, capture: Capture) -> Extra | None:
    """What is to be known further of the query whose rows this cursor still fetches: the last one of its connection."""
    result = cursor._result  # noqa: SLF001
    known, extra = cursor.__dict__.get(_EXTRA, (None, None))
    if known is not result and result is not None and cursor.connection is not None:
        extra = extra_of_last(capture, _target(cursor.connection))
        cursor.__dict__[_EXTRA] = (result, extra)
    return extra if result is not None else None


def _select_db(original: Any, get: Get) -> FunctionType:
    def select_db(self: Any, db: Any) -> Any:
        result = original(self, db)
        if get() is not None:
            target = _target(self)  # stays as it is in the rows already noted
            self.__dict__[_TARGET] = Target(target.system, _database(self, db), target.session, serial=True)
        return result

    return select_db  # type: ignore[return-value]


def _command(text: str) -> Callable[[Any, Get], FunctionType]:
    def make(original: Any, get: Get) -> FunctionType:
        def command(self: Any, *args: Any, **kwargs: Any) -> Any:
            capture = get()
            if capture is None:
                return original(self, *args, **kwargs)
            extra = None
            start_ns = perf_counter_ns()
            try:
                return original(self, *args, **kwargs)
            except BaseException as error:
                extra = Extra(wire=int(_was_sent(error)), error=_error(error))
                raise
            finally:
                _note(capture, self, _target(self), text, None, start_ns, extra)

        return command  # type: ignore[return-value]

    return make


def _note(  # noqa: PLR0917 - a row's facts, in its order
    capture: Capture,
    connection: Any,
    target: Target,
    query: Any,
    token: Token,
    start_ns: int,
    extra: Extra | None,
    rows: int | None = None,
) -> None:
    """Note a statement that was more, or less, than one successful execute."""
    end_ns = perf_counter_ns()
    try:
        status = getattr(connection, "server_status", None)
        if status is None:  # the cursor is closed, or its connection never was opened: what it is will be known then
            status = _AUTOCOMMIT
            getattr(connection, "__dict__", {}).pop(_TARGET, None)
        inside = _inside(connection, status)
        if extra is not None and extra.error is not None:  # an error tells no status, and no rows
            inside = inside and connection.open and not extra.error.endswith(_DEADLOCK)
            rows = None
        note_query(capture, target, query, token, start_ns, end_ns, rows, inside, extra)
    except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
        fault("pymysql", error)


def _inside(connection: Any, status: int | None = None) -> bool | None:
    """Whether a transaction is open, as the server said last."""
    status = connection.server_status if status is None else status
    return bool(status & _IN_TRANSACTION) if status & _SURE else _unsure(connection)


def _unsure(connection: Any) -> bool | None:
    """None with autocommit off: PyMySQL takes no status from a result's end, so its tables have to tell."""
    result = connection._result  # noqa: SLF001
    return None if result is not None and result.field_count else False


def _target(connection: Any) -> Target:
    try:
        target: Target | None = connection.__dict__.get(_TARGET)
        if target is None:
            version = getattr(connection, "server_version", "")
            system = "mariadb" if "mariadb" in str(version).lower() else "mysql"
            target = connection.__dict__[_TARGET] = Target(system, _database(connection, connection.db), serial=True)
    except Exception:  # noqa: BLE001 - a closed cursor has no connection; the driver is about to say so
        return Target("mysql", None)
    return target


def _database(connection: Any, name: Any) -> str:
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    where = connection.unix_socket or f"{connection.host}:{connection.port}"
    return f"{where}/{name or ''}"


def _size(args: Any) -> int | None:
    try:
        return len(args)
    except Exception:  # noqa: BLE001 - it has no length, or one that cannot be told
        return None


def _was_sent(error: BaseException) -> bool:
    """Whether a statement left before it failed: the traceback tells reading from encoding and sending."""
    step = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_name
        if name == "_execute_command":
            return False
        if name in _READING:
            return True
        step = step.tb_next
    return False


def _error(error: BaseException) -> str:
    """Class and the server's errno; the message quotes values, and so may another class's first argument."""
    name = type(error).__name__
    if any(base.__module__ == "pymysql.err" for base in type(error).__mro__):
        number = error.args[0] if error.args else None
        return f"{name} {number}" if type(number) is int and number else name
    return name
