"""psycopg2: connections and cursors are C types, so they are seen through subclasses made at `connect`.

A caller's own factories (of connections or cursors) still win; what they pass on to `super()` is seen.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from perf_middleware.collector.context import current
from perf_middleware.collector.noting import counted
from perf_middleware.collector.parameters import params_token
from perf_middleware.collector.patching import NOBODY
from perf_middleware.collector.postgresql import (
    INSIDE,
    NO_PARAMETERS,
    Session,
    database,
    error_name,
    note,
    text_of,
)
from perf_middleware.collector.rows import Extra
from perf_middleware.collector.subclassing import named_like, open_capture, tell_of_open, traced
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType, ModuleType
    from typing import Self

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.patching import Patches
    from perf_middleware.collector.rows import Token

MODULE = "psycopg2"

_TARGET = "_perf_middleware_target"
_EXTRA = "_perf_middleware_extra"
_IDLE, _IN_TRANSACTION = 0, 2  # of libpq's transaction status
_FACTORY_POSITION = 1  # of both connect(dsn, connection_factory, ...) and cursor(name, cursor_factory, ...)


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch `connect` where applications look it up; connections opened before, or without it, are not seen."""
    types = module.extensions
    plain = _cursors(types.cursor, patches)
    cursors = (types.cursor, plain, _named_cursors(plain))
    layer = _connections(types.connection, cursors, patches)
    tell_of_open(types.connection, "psycopg2")
    patches.replace(module, "connect", _connect(types.connection, layer))


def _connect(base: type, layer: type) -> Callable[[Any, Callable[[], Capture | None]], FunctionType]:
    def make(original: Any, get: Callable[[], Capture | None]) -> FunctionType:
        def connect(*args: Any, **kwargs: Any) -> Any:
            if get() is NOBODY:
                return original(*args, **kwargs)
            position, keywords = _with_factory("connection_factory", base, base, layer, args, kwargs)
            return original(*position, **keywords)

        return connect  # type: ignore[return-value]

    return make


def _with_factory(  # noqa: PLR0917 - only called here
    keyword: str, default: Any, base: type, layer: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with a factory that has our layer."""
    if len(args) > _FACTORY_POSITION:
        ours = traced(default if args[_FACTORY_POSITION] is None else args[_FACTORY_POSITION], base, layer, "psycopg2")
        return (*args[:_FACTORY_POSITION], ours, *args[_FACTORY_POSITION + 1 :]), kwargs
    factory = kwargs.get(keyword)
    return args, {**kwargs, keyword: traced(default if factory is None else factory, base, layer, "psycopg2")}


def _connections(base: type, cursors: tuple[type, type, type], patches: Patches) -> type:
    """The layer that hands out traced cursors and notes the ends of transactions, also those of a `with` block."""
    bare, plain, named = cursors

    class connection(base):  # type: ignore[misc] # noqa: N801 - its own name
        def cursor(self, *args: Any, **kwargs: Any) -> Any:
            if not patches.active:
                return super().cursor(*args, **kwargs)
            name = args[0] if args else kwargs.get("name")
            layer, default = plain if name is None else named, self.cursor_factory or bare
            args, kwargs = _with_factory("cursor_factory", default, bare, layer, args, kwargs)
            return super().cursor(*args, **kwargs)

        def commit(self) -> Any:
            return _ending(self, patches, "COMMIT", super().commit)

        def rollback(self) -> Any:
            return _ending(self, patches, "ROLLBACK", super().rollback)

        def reset(self) -> Any:
            return _ending(self, patches, "ROLLBACK", super().reset)

        def close(self) -> Any:
            return _ending(self, patches, "ROLLBACK", super().close)  # what the server does with what is left open

        def tpc_commit(self, *args: Any) -> Any:
            return _ending(self, patches, "COMMIT", super().tpc_commit, *args)

        def tpc_rollback(self, *args: Any) -> Any:
            return _ending(self, patches, "ROLLBACK", super().tpc_rollback, *args)

    return named_like(base, connection)


def _cursors(base: type, patches: Patches) -> type:  # noqa: C901 - a class with its few methods
    """The layer that notes what is executed; rows are there when a statement is, so that fetching is not seen."""

    class cursor(base):  # type: ignore[misc] # noqa: N801 - its own name
        def execute(self, query: Any, vars: Any = None) -> Any:  # noqa: A002 - psycopg2's own signature
            capture = open_capture(patches)
            if capture is None:
                return super().execute(query, vars)
            with _Statement(capture, self, query, vars):
                return super().execute(query, vars)

        def executemany(self, query: Any, vars_list: Any) -> Any:
            capture = open_capture(patches)
            if capture is None:
                return super().executemany(query, vars_list)
            with _Many(capture, self, query, vars_list) as many:
                return super().executemany(query, many.sets)

        def callproc(self, procname: Any, parameters: Any = None) -> Any:
            capture = open_capture(patches)
            if capture is None:
                return super().callproc(procname, parameters)
            with _Built(capture, self, procname, parameters):
                return super().callproc(procname, parameters)

        def copy_expert(self, sql: Any, file: Any, *args: Any, **kwargs: Any) -> Any:
            capture = open_capture(patches)
            if capture is None:
                return super().copy_expert(sql, file, *args, **kwargs)
            with _Statement(capture, self, sql, None):
                return super().copy_expert(sql, file, *args, **kwargs)

        def copy_from(self, file: Any, table: Any, *args: Any, **kwargs: Any) -> Any:
            capture = open_capture(patches)
            if capture is None:
                return super().copy_from(file, table, *args, **kwargs)
            with _Built(capture, self, f"COPY {table} FROM STDIN", None):
                return super().copy_from(file, table, *args, **kwargs)

        def copy_to(self, file: Any, table: Any, *args: Any, **kwargs: Any) -> Any:
            capture = open_capture(patches)
            if capture is None:
                return super().copy_to(file, table, *args, **kwargs)
            with _Built(capture, self, f"COPY {table} TO STDOUT", None):
                return super().copy_to(file, table, *args, **kwargs)

    return named_like(base, cursor)


def _named_cursors(plain: type) -> type:
    """The layer of server-side cursors, which ask for rows by FETCH."""

    class cursor(plain):  # type: ignore[misc] # noqa: N801 - its own name
        def fetchone(self) -> Any:
            return _fetched(self, super().fetchone)

        def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
            return _fetched(self, super().fetchmany, *args, **kwargs)

        def fetchall(self) -> Any:
            return _fetched(self, super().fetchall)

        def scroll(self, *args: Any, **kwargs: Any) -> Any:
            extra = self.__dict__.get(_EXTRA)
            if extra is not None:
                extra.wire += 1
            return super().scroll(*args, **kwargs)

        def close(self) -> Any:
            extra = self.__dict__.pop(_EXTRA, None)
            if extra is not None and not self.closed:
                extra.wire += _may_close(self)
            return super().close()

    return named_like(plain, cursor)


class _Statement:
    """One that is being run: made before, noted after."""

    def __init__(self, capture: Capture, cursor: Any, query: Any, parameters: Any) -> None:
        self.capture, self.cursor, self.query, self.parameters = capture, cursor, query, parameters
        self.extra: Extra | None = None
        if cursor.name is not None:
            self.extra = cursor.__dict__[_EXTRA] = Extra()
        self.was_open = not getattr(cursor.connection, "closed", True)
        self.start_ns = perf_counter_ns()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        end_ns = perf_counter_ns()
        try:
            if error is not None:
                self.failed(error)
            if self.is_worth_noting():
                self.note(end_ns)
        except Exception as ours:  # noqa: BLE001 - a fault of ours is not the application's
            fault("psycopg2", ours)

    def failed(self, error: BaseException) -> None:
        """Take in what went wrong, and whether the statement had left before."""
        self.extra = self.extra or Extra()
        self.extra.error = _error(error)
        self.extra.wire = int(self.was_sent(error))

    def was_sent(self, error: BaseException) -> bool:
        """Whether the server answered, or was lost."""
        return _sqlstate(error) is not None or (self.was_open and bool(self.cursor.connection.closed))

    def is_worth_noting(self) -> bool:
        """Always."""
        return True

    def text(self) -> Any:
        """As it was given."""
        return self.query if isinstance(self.query, (str, bytes)) else text_of(self.query, self.cursor)

    def token(self, text: Any) -> Token:
        """Of the text that was sent; of the parameters alone where its name or a comment may differ each time."""
        if self.cursor.name is None and type(text) is str and "/*" not in text:
            return hash(self.cursor.query)
        return NO_PARAMETERS if self.parameters is None else params_token(self.parameters)

    def note(self, end_ns: int) -> None:
        """Append the row."""
        cursor, extra, text = self.cursor, self.extra, self.text()
        failed = extra is not None and extra.error is not None
        token = self.token(text) if self.capture.keep and not failed else None
        session = _session(cursor.connection)
        rows = None if failed else cursor.rowcount
        note(self.capture, session, text, token, self.start_ns, end_ns, rows, extra)


class _Many(_Statement):
    """An `executemany`, which sends each set by itself."""

    def __init__(self, capture: Capture, cursor: Any, query: Any, sets: Any) -> None:
        super().__init__(capture, cursor, query, None)
        self.sets: Any = sets
        self.many: Callable[[], int] = int
        if hasattr(sets, "__iter__"):
            self.sets, self.many = counted(sets)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        many = self.many()
        self.extra = Extra(many=many, wire=many)
        super().__exit__(kind, error, trace)

    def failed(self, error: BaseException) -> None:
        """The last set may have failed before it was sent, unless it was asking for another that failed."""
        assert self.extra is not None
        self.extra.error = _error(error)
        asking = error.__traceback__ is not None and error.__traceback__.tb_next is not None
        if self.extra.wire and not asking and not self.was_sent(error):
            self.extra.wire -= 1

    def is_worth_noting(self) -> bool:
        """Not without any set."""
        return self.extra is not None and bool(self.extra.many or self.extra.error)

    def token(self, text: Any) -> Token:  # noqa: ARG002 - the sets are others each time
        """None."""
        return None


class _Built(_Statement):
    """A statement that psycopg2 writes itself."""

    def text(self) -> Any:
        """As it was sent; what it was made of if it never was."""
        sent = self.cursor.query if self.extra is None or self.extra.wire else None
        return self.query if sent is None else sent


def _fetched(cursor: Any, fetch: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    extra = cursor.__dict__.get(_EXTRA)
    if extra is None or current.get() is None:
        return fetch(*args, **kwargs)
    extra.wire += 1
    start_ns = perf_counter_ns()
    try:
        rows = fetch(*args, **kwargs)
    except BaseException as error:
        extra.error = extra.error or _error(error)
        extra.wire -= _sqlstate(error) is None
        raise
    count = len(rows) if type(rows) is list else int(rows is not None)
    extra.fetched(perf_counter_ns() - start_ns, count)
    return rows


def _may_close(cursor: Any) -> bool:
    """Whether psycopg2 sends a CLOSE: not in a transaction that failed, nor when it is over."""
    try:
        status = cursor.connection.get_transaction_status()
    except Exception:  # noqa: BLE001 - a closed connection may have none
        return False
    return bool(status == _IN_TRANSACTION or (cursor.withhold and status == _IDLE))


def _ending(connection: Any, patches: Patches, verb: str, end: Callable[..., Any], *args: Any) -> Any:
    capture = current.get() if patches.active else None
    if capture is None or not INSIDE[connection.get_transaction_status()]:
        return end(*args)
    extra = None
    start_ns = perf_counter_ns()
    try:
        return end(*args)
    except BaseException as error:
        extra = Extra(error=_error(error), wire=int(_sqlstate(error) is not None))
        raise
    finally:
        end_ns = perf_counter_ns()
        try:
            note(capture, _session(connection), verb, NO_PARAMETERS, start_ns, end_ns, None, extra)
        except Exception as ours:  # noqa: BLE001 - a fault of ours is not the application's
            fault("psycopg2", ours)


def _session(connection: Any) -> Session:
    """The connection seen from outside, with whether a transaction is open now."""
    session: Session | None = connection.__dict__.get(_TARGET)
    if session is None:
        session = Session(None)
        if not connection.closed:
            info = connection.info
            session.db = database(info.host, info.port, info.dbname)
            connection.__dict__[_TARGET] = session
    inside = INSIDE[connection.get_transaction_status()]
    session.inside = session.inside if inside is None else inside
    return session


def _sqlstate(error: BaseException) -> object:
    return getattr(error, "pgcode", None)


def _error(error: BaseException) -> str:
    return error_name(error, _sqlstate(error))
