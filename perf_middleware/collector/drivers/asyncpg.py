"""asyncpg: the methods of its connections, prepared statements and cursors, which are Python around a C protocol.

Its own `add_query_logger` would have to be asked of every connection, is given the parameters, and calls back later,
when nobody knows any more who asked.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from perf_middleware.collector.context import unattributed
from perf_middleware.collector.noting import counted
from perf_middleware.collector.parameters import params_token
from perf_middleware.collector.postgresql import NO_PARAMETERS, Session, database, error_name, note, note_checkout
from perf_middleware.collector.rows import Extra
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FunctionType, ModuleType
    from typing import Self

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.patching import Patches

    Get = Callable[[], Capture | None]

MODULE = "asyncpg"

_COPYING = ("copy_in", "copy_out")  # of the protocol


class Connection(Session):
    """A connection of asyncpg's.

    Attributes:
        portals: Facts of server-side cursors that are open, by name; they end with their transaction.
        rows: What the last statement with parameters gave or changed.

    """

    __slots__ = ("portals", "rows")

    def __init__(self, db: str | None) -> None:
        super().__init__(db, awaited=True)
        self.portals: dict[str, Extra] = {}
        self.rows: int | None = None


#: By connection, which has no place for attributes.
_sessions: WeakKeyDictionary[Any, Connection] = WeakKeyDictionary()


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch the classes; connections opened before, and those of a pool, are seen too."""
    connection, prepared = module.connection.Connection, module.prepared_stmt.PreparedStatement
    cursor, pool = module.cursor, module.pool.Pool
    for owner, name, make in (
        (connection, "execute", _ask),
        (connection, "fetch", _ask),
        (connection, "fetchrow", _ask),
        (connection, "fetchval", _ask),
        (connection, "_Connection__execute", _count),
        (connection, "executemany", _ask_many),
        (connection, "fetchmany", _ask_many),
        (connection, "_copy_out", _copy),
        (connection, "_copy_in", _copy),
        (connection, "copy_records_to_table", _copy_records),
        (connection, "close", _close),
        (connection, "terminate", _terminate),
        (prepared, "_PreparedStatement__bind_execute", _prepared_ask),
        (prepared, "executemany", _prepared_many),
        (prepared, "fetchmany", _prepared_many),
        (cursor.BaseCursor, "_bind_exec", _open_portal),
        (cursor.BaseCursor, "_bind", _bind_portal),
        (cursor.BaseCursor, "_exec", _fetch_portal),
        (cursor.Cursor, "forward", _move_portal),
        (pool, "_acquire", _acquire),
        (pool, "_get_new_connection", _open_connection),
    ):
        if hasattr(owner, name) or name != "fetchmany":  # which came with version 0.30
            patches.replace(owner, name, make)


# ---------------------------------------------------------------------------------------------------------- statements


class _Statement:
    """One that is being run: made before, noted after.

    Attributes:
        rows: What it gave or changed.
        parameters: Its own; None if there are many sets of them.
        wire: How many statements were sent beside those that were counted on the way.

    """

    def __init__(self, capture: Capture, connection: Any, query: Any, parameters: Any, *, wire: int = 0) -> None:
        self.capture, self.connection, self.query, self.parameters = capture, connection, query, parameters
        self.session = session_of(connection)
        self.extra: Extra | None = None
        self.rows: int | None = None
        self.wire = wire
        self.was_open = not connection.is_closed()
        self.session.wire, self.session.rows = 0, None
        self.start_ns = perf_counter_ns()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        end_ns = perf_counter_ns()
        try:
            self.finish(error)
            if self.is_worth_noting():
                self.note(end_ns)
        except Exception as ours:  # noqa: BLE001 - a fault of ours is not the application's
            fault("asyncpg", ours)

    def finish(self, error: BaseException | None) -> None:
        """Take in how it ended, and what was sent."""
        wire = self.session.wire + self.wire
        if error is not None and not self.was_sent(error):
            wire = max(0, wire - 1)
        if error is not None or wire != 1:
            self.extra = self.extra or Extra()
            self.extra.wire = wire
        if error is not None:
            assert self.extra is not None
            self.extra.error = _error(error)
            self.rows = self.extra.rows = None

    def was_sent(self, error: BaseException) -> bool:
        """Whether it had left: not if asyncpg itself, or Python, found it or its values to be wrong."""
        if _sqlstate(error) is not None or not isinstance(error, Exception) or isinstance(error, TimeoutError):
            return True
        if not self.was_open or isinstance(error, (TypeError, AttributeError)):
            return False
        return bool(self.connection.is_closed()) or not type(error).__module__.startswith("asyncpg.")

    def is_worth_noting(self) -> bool:
        """Always."""
        return True

    def note(self, end_ns: int) -> None:
        """Append the row."""
        session, token = self.session, None
        session.inside = _inside(self.connection)
        if not session.inside:
            session.portals.clear()
        if self.capture.keep and self.parameters is not None:
            token = params_token(self.parameters) if self.parameters else NO_PARAMETERS
        note(self.capture, session, self.query, token, self.start_ns, end_ns, self.rows, self.extra)


class _Many(_Statement):
    """One with many sets of parameters, which are sent together."""

    def __init__(self, capture: Capture, connection: Any, query: Any, sets: Any) -> None:
        super().__init__(capture, connection, query, None)
        self.sets: Any = sets
        self.size: Callable[[], int] = int
        if hasattr(sets, "__len__"):
            self.size = sets.__len__
        elif hasattr(sets, "__iter__"):
            self.sets, self.size = counted(sets)

    def finish(self, error: BaseException | None) -> None:
        """Take in how it ended: nothing was done if a set was unfit."""
        many = self.size()
        self.extra = Extra(many=many)
        super().finish(error)
        sent = error is None or self.was_sent(error)
        self.extra.wire = self.session.wire + (many if sent else 0)

    def is_worth_noting(self) -> bool:
        """Not without any set."""
        return self.extra is not None and bool(self.extra.many or self.extra.error)


def _ask(original: Any, get: Get) -> FunctionType:
    async def ask(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        if query is self._reset_query and query is not None:  # a pool's, whenever a connection comes back
            return await original(self, query, *args, **options)
        capture = get()
        if capture is None:
            unattributed.add()
            return await original(self, query, *args, **options)
        simple = original.__name__ == "execute" and not args  # it is sent as it is
        with _Statement(capture, self, query, args, wire=simple) as statement:
            result = await original(self, query, *args, **options)
            statement.rows = _rows_of(result) if simple else statement.session.rows
            return result

    return ask  # type: ignore[return-value]


def _count(original: Any, get: Get) -> FunctionType:
    """What each of those with parameters comes to, and also asyncpg's own questions for types it does not know."""

    async def execute(self: Any, *args: Any, **options: Any) -> Any:
        if get() is None:
            return await original(self, *args, **options)
        session = session_of(self)
        session.wire += 1
        result = await original(self, *args, **options)
        data = result[0]
        session.rows = len(data) if type(data) is list else _rows_of(data[1])
        return result

    return execute  # type: ignore[return-value]


def _ask_many(original: Any, get: Get) -> FunctionType:
    async def ask(self: Any, query: Any, args: Any, **options: Any) -> Any:
        capture = get()
        if capture is None:
            unattributed.add()
            return await original(self, query, args, **options)
        with _Many(capture, self, query, args) as many:
            result = await original(self, query, many.sets, **options)
            many.rows = None if result is None else len(result)
            return result

    return ask  # type: ignore[return-value]


def _prepared_ask(original: Any, get: Get) -> FunctionType:
    async def bind_execute(self: Any, args: Any, limit: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - its own signature
        capture = get()
        if capture is None:
            unattributed.add()
            return await original(self, args, limit, timeout)
        with _Statement(capture, self._connection, self._query, args, wire=1) as statement:
            result = await original(self, args, limit, timeout)
            statement.rows = len(result) or _rows_of(self._last_status)
            return result

    return bind_execute  # type: ignore[return-value]


def _prepared_many(original: Any, get: Get) -> FunctionType:
    def ask(self: Any, args: Any, **options: Any) -> Any:
        capture = get()
        if capture is None:
            unattributed.add()
            return original(self, args, **options)
        many = _Many(capture, self._connection, self._query, args)
        return _await_many(many, original(self, many.sets, **options))

    return ask  # type: ignore[return-value]


async def _await_many(many: _Many, answer: Coroutine[Any, Any, Any]) -> Any:
    with many:
        result = await answer
        many.rows = None if result is None else len(result)
        return result


# ---------------------------------------------------------------------------------------------------------------- COPY


class _Copying(_Statement):
    """A COPY: its statement leaves before the rows of the application are looked at."""

    def was_sent(self, error: BaseException) -> bool:
        """Whether the protocol was reached."""
        if super().was_sent(error):
            return True
        step = error.__traceback__ if isinstance(error, TypeError) else None
        while step is not None and step.tb_frame.f_code.co_name not in _COPYING:
            step = step.tb_next
        return step is not None


def _copy(original: Any, get: Get) -> FunctionType:
    async def copy(self: Any, copy_stmt: Any, *args: Any) -> Any:
        capture = get()
        if capture is None:
            unattributed.add()
            return await original(self, copy_stmt, *args)
        with _Copying(capture, self, copy_stmt, (), wire=1) as statement:
            result = await original(self, copy_stmt, *args)
            statement.rows = _rows_of(result)
            return result

    return copy  # type: ignore[return-value]


def _copy_records(original: Any, get: Get) -> FunctionType:
    async def copy_records_to_table(self: Any, table_name: Any, **options: Any) -> Any:
        capture = get()
        if capture is None:
            unattributed.add()
            return await original(self, table_name, **options)
        with _Copying(capture, self, _copy_text(table_name, options), (), wire=1) as statement:
            result = await original(self, table_name, **options)
            statement.rows = _rows_of(result)
            return result

    return copy_records_to_table  # type: ignore[return-value]


def _copy_text(table: Any, options: dict[str, Any]) -> str | None:
    """What asyncpg is going to make of it, but for the columns."""
    names = [name for name in (options.get("schema_name"), table) if name]
    if not all(type(name) is str for name in names):
        return None
    quoted = ".".join('"{}"'.format(name.replace('"', '""')) for name in names)
    where = options.get("where")
    return f"COPY {quoted} FROM STDIN (FORMAT binary)" + (f" WHERE {where}" if type(where) is str else "")


# -------------------------------------------------------------------------------------------------- server-side cursors


def _open_portal(original: Any, get: Get) -> FunctionType:
    async def _bind_exec(self: Any, n: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - its own signature
        capture = get()
        if capture is None:
            unattributed.add()
            return await original(self, n, timeout)
        with _Portal(capture, self, wire=1) as portal:
            rows = await original(self, n, timeout)
            portal.extra.rows = len(rows)
            return rows

    return _bind_exec  # type: ignore[return-value]


def _bind_portal(original: Any, get: Get) -> FunctionType:
    async def _bind(self: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - its own signature
        capture = get()
        if capture is None:
            unattributed.add()
            return await original(self, timeout)
        with _Portal(capture, self, wire=0):
            return await original(self, timeout)

    return _bind  # type: ignore[return-value]


class _Portal(_Statement):
    """One whose rows come later, as they are asked for."""

    extra: Extra

    def __init__(self, capture: Capture, cursor: Any, *, wire: int) -> None:
        super().__init__(capture, cursor._connection, cursor._query, cursor._args, wire=wire)  # noqa: SLF001
        self.cursor = cursor
        self.extra = Extra()

    def finish(self, error: BaseException | None) -> None:
        """Take in how it ended, and know it again by its name."""
        super().finish(error)
        self.extra.wire = self.wire if error is None or self.was_sent(error) else 0

    def note(self, end_ns: int) -> None:
        """Append the row."""
        super().note(end_ns)
        name = self.cursor._portal_name  # noqa: SLF001
        if self.session.inside and name is not None:
            self.session.portals[name] = self.extra


def _extra_of(cursor: Any) -> Extra | None:
    return session_of(cursor._connection).portals.get(cursor._portal_name)  # noqa: SLF001


def _fetch_portal(original: Any, get: Get) -> FunctionType:
    async def _exec(self: Any, n: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - its own signature
        extra = _extra_of(self)
        if extra is None or get() is None:
            return await original(self, n, timeout)
        extra.wire += 1
        start_ns = perf_counter_ns()
        try:
            rows = await original(self, n, timeout)
        except BaseException as error:
            extra.error = extra.error or _error(error)
            extra.rows = None
            raise
        extra.fetched(perf_counter_ns() - start_ns, len(rows))
        return rows

    return _exec  # type: ignore[return-value]


def _move_portal(original: Any, get: Get) -> FunctionType:
    def forward(self: Any, n: Any, **options: Any) -> Any:
        answer = original(self, n, **options)
        extra = _extra_of(self)
        if extra is not None and get() is not None:
            extra.wire += 1
        return answer

    return forward  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------- connections and pool


class _Closing:
    """The server rolls back what is left open."""

    def __init__(self, capture: Capture | None, connection: Any) -> None:
        self.capture, self.connection = capture, connection
        self.inside = capture is not None and _inside(connection)
        self.start_ns = perf_counter_ns()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        end_ns = perf_counter_ns()
        if self.capture is None or not self.inside:
            return
        try:
            session = session_of(self.connection)
            session.inside = False
            note(self.capture, session, "ROLLBACK", NO_PARAMETERS, self.start_ns, end_ns, None, None)
        except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
            fault("asyncpg", error)


def _close(original: Any, get: Get) -> FunctionType:
    async def close(self: Any, **options: Any) -> Any:
        with _Closing(get(), self):
            return await original(self, **options)

    return close  # type: ignore[return-value]


def _terminate(original: Any, get: Get) -> FunctionType:
    def terminate(self: Any) -> Any:
        with _Closing(get(), self):
            return original(self)

    return terminate  # type: ignore[return-value]


def _acquire(original: Any, get: Get) -> FunctionType:
    async def _acquire(self: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - its own signature
        capture = get()
        if capture is None:
            return await original(self, timeout)
        proxy, start_ns = None, perf_counter_ns()
        try:
            proxy = await original(self, timeout)
        finally:
            try:
                note_checkout(capture, None if proxy is None else session_of(proxy._con), start_ns)  # noqa: SLF001
            except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
                fault("asyncpg", error)
        return proxy

    return _acquire  # type: ignore[return-value]


def _open_connection(original: Any, get: Get) -> FunctionType:  # noqa: ARG001 - a pool opens some before any request
    async def _get_new_connection(self: Any) -> Any:
        opening_ns = perf_counter_ns()
        connection = await original(self)
        session_of(connection).opening_ns = opening_ns
        return connection

    return _get_new_connection  # type: ignore[return-value]


# --------------------------------------------------------------------------------------------------------------- facts


def session_of(connection: Any) -> Connection:
    """The connection seen from outside."""
    session = _sessions.get(connection)
    if session is None:
        try:
            address, name = connection._addr, connection._params.database  # noqa: SLF001 - nothing public tells
            db = f"{address}/{name}" if isinstance(address, str) else database(address[0], address[1], name)
            session = _sessions[connection] = Connection(db)
        except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
            fault("asyncpg", error)
            session = Connection(None)
    return session


def _inside(connection: Any) -> bool:
    return not connection.is_closed() and bool(connection.is_in_transaction())


def _rows_of(status: Any) -> int | None:
    """The number at the end of a command's status, such as "INSERT 0 3"."""
    text = status.decode() if isinstance(status, bytes) else status
    number = text.rpartition(" ")[2] if isinstance(text, str) else ""
    return int(number) if number.isdecimal() else None


def _sqlstate(error: BaseException) -> object:
    """The server's; asyncpg raises some of the same classes by itself."""
    return getattr(error, "__dict__", {}).get("sqlstate")


def _error(error: BaseException) -> str:
    return error_name(error, _sqlstate(error))
