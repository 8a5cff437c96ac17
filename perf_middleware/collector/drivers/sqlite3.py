"""sqlite3: connections and cursors are C types, so they are seen through subclasses made at `connect`.

Our layer stands directly on the driver's class, below a caller's own `factory` (of connections or cursors): so
that one still wins, and what it passes on to `super()` is seen. A factory that is no such class is left alone and
counted as a fault; one with `perf_middleware_ignore` is never touched.
"""

from __future__ import annotations

import os
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from perf_middleware.collector.context import current
from perf_middleware.collector.noting import counted, note_query
from perf_middleware.collector.parameters import params_token
from perf_middleware.collector.patching import NOBODY, Patches
from perf_middleware.collector.rows import Extra, Target
from perf_middleware.collector.subclassing import named_like, open_capture, tell_of_open, traced
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType, ModuleType

    from perf_middleware.collector.context import Capture

MODULE = "sqlite3"

_memory = count(1)
_FACTORY_POSITION = 5  # connect(database, timeout, detect_types, isolation_level, check_same_thread, factory, ...)
_TARGET = "_perf_middleware_target"
_EXTRA = "_perf_middleware_extra"


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch `connect` where applications look it up; connections opened before, or without it, are not seen."""
    layer = _connections(module.Connection, _cursors(module.Cursor, patches), patches)
    tell_of_open(module.Connection, MODULE)
    for owner in (module, module.dbapi2):
        patches.replace(owner, "connect", _connect(layer))


def _connect(layer: type) -> Callable[[Any, Callable[[], Capture | None]], FunctionType]:
    def make(original: Any, get: Callable[[], Capture | None]) -> FunctionType:
        def connect(*args: Any, **kwargs: Any) -> Any:
            if get() is NOBODY:
                return original(*args, **kwargs)
            position, keywords = _with_factory(layer, args, kwargs)
            connection = original(*position, **keywords)
            if isinstance(connection, layer):
                database = args[0] if args else kwargs.get("database")
                connection.__dict__[_TARGET] = Target("sqlite", _database(database))
            return connection

        return connect  # type: ignore[return-value]

    return make


def _with_factory(layer: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(args) > _FACTORY_POSITION:
        factory = _traced(args[_FACTORY_POSITION], layer)
        return (*args[:_FACTORY_POSITION], factory, *args[_FACTORY_POSITION + 1 :]), kwargs
    return args, {**kwargs, "factory": _traced(kwargs.get("factory", layer), layer)}


def _traced(factory: Any, layer: type) -> Any:
    return traced(factory, layer.__base__ or object, layer, MODULE)


def _connections(base: type, cursors: type, patches: Patches) -> type:
    """The layer that hands out traced cursors and notes the ends of transactions.

    The C shortcuts (`Connection.execute` and its like) make a plain cursor of their own; so do ours, a traced one.
    """

    class Connection(base):  # type: ignore[misc]
        def cursor(self, factory: Any = cursors) -> Any:
            return super().cursor(_traced(factory, cursors))

        def execute(self, *args: Any) -> Any:
            return super().cursor(cursors).execute(*args)

        def executemany(self, *args: Any) -> Any:
            return super().cursor(cursors).executemany(*args)

        def executescript(self, *args: Any) -> Any:
            return super().cursor(cursors).executescript(*args)

        def commit(self) -> Any:
            return _ending(self, patches, "COMMIT", super().commit)

        def rollback(self) -> Any:
            return _ending(self, patches, "ROLLBACK", super().rollback)

        def close(self) -> Any:
            return _ending(self, patches, "ROLLBACK", super().close)  # what SQLite does with what is left open

        def __exit__(self, *exc_info: object) -> Any:
            verb = "COMMIT" if exc_info[:1] == (None,) else "ROLLBACK"
            return _ending(self, patches, verb, super().__exit__, *exc_info)

    return named_like(base, Connection)


def _cursors(base: type, patches: Patches) -> type:  # noqa: C901 - a class with its few methods
    """The layer that notes what is executed and fetched in bulk."""

    class Cursor(base):  # type: ignore[misc]
        def execute(self, sql: Any, parameters: Any = (), /) -> Any:
            capture = open_capture(patches)
            if capture is None:
                return super().execute(sql, parameters)
            extra = self.__dict__[_EXTRA] = Extra()
            start_ns = perf_counter_ns()
            try:
                return super().execute(sql, parameters)
            except BaseException as error:
                _failed(extra, error)
                raise
            finally:
                _note(capture, self, sql, parameters, start_ns, extra)

        def executemany(self, sql: Any, sets: Any, /) -> Any:
            capture = open_capture(patches)
            if capture is None:
                return super().executemany(sql, sets)
            extra = self.__dict__[_EXTRA] = Extra()
            taken, many = counted(sets)
            start_ns = perf_counter_ns()
            try:
                return super().executemany(sql, taken)
            except BaseException as error:
                _failed(extra, error)
                raise
            finally:
                extra.many = many()
                extra.wire = max(0, extra.many - 1 + extra.wire)  # the last one may have failed before it ran
                if extra.many or extra.error:
                    _note(capture, self, sql, None, start_ns, extra)

        def executescript(self, script: Any, /) -> Any:
            capture = open_capture(patches)
            if capture is None:
                return super().executescript(script)
            extra = self.__dict__[_EXTRA] = Extra()
            start_ns = perf_counter_ns()
            try:
                return super().executescript(script)
            except BaseException as error:
                _failed(extra, error)
                raise
            finally:
                _note(capture, self, script, None, start_ns, extra)

        def fetchall(self) -> Any:
            return _fetched(self, super().fetchall)

        def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
            return _fetched(self, super().fetchmany, *args, **kwargs)

    return named_like(base, Cursor)


def _fetched(cursor: Any, fetch: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    extra = cursor.__dict__.get(_EXTRA)
    if extra is None:
        return fetch(*args, **kwargs)
    start_ns = perf_counter_ns()
    rows = fetch(*args, **kwargs)
    extra.fetched(perf_counter_ns() - start_ns, len(rows))
    return rows


def _ending(connection: Any, patches: Patches, verb: str, end: Callable[..., Any], *args: Any) -> Any:
    capture = current.get() if patches.active else None
    target = connection.__dict__.get(_TARGET)
    if capture is None or target is None or not _in_transaction(connection):
        return end(*args)
    extra, inside = None, False
    start_ns = perf_counter_ns()
    try:
        return end(*args)
    except BaseException as error:
        extra = Extra(error=_error(error))
        inside = _in_transaction(connection)
        raise
    finally:
        end_ns = perf_counter_ns()
        try:
            note_query(capture, target, verb, None, start_ns, end_ns, None, inside, extra)
        except Exception as ours:  # noqa: BLE001 - a fault of ours is not the application's
            fault("sqlite3", ours)


def _note(  # noqa: PLR0917 - a row's facts, in its order
    capture: Capture, cursor: Any, sql: Any, parameters: Any, start_ns: int, extra: Extra
) -> None:
    end_ns = perf_counter_ns()
    try:
        connection = cursor.connection
        target = connection.__dict__.get(_TARGET) or Target("sqlite", None)
        rows = cursor.rowcount if extra.error is None else None
        inside = _in_transaction(connection)
        token = params_token(parameters) if parameters is not None and capture.keep else None
        note_query(capture, target, sql, token, start_ns, end_ns, rows, inside, extra)
    except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
        fault("sqlite3", error)


def _in_transaction(connection: Any) -> bool:
    try:
        return bool(connection.in_transaction)
    except Exception:  # noqa: BLE001 - a closed connection has none
        return False


def _database(database: Any) -> str | None:
    """The file's path without a URI's query (which may hold a key); memory databases are each their own."""
    try:
        path, _, query = os.fsdecode(database).partition("?")
    except TypeError:
        return None
    own = path in ("", ":memory:", "file::memory:") and "cache=shared" not in query
    return f":memory:{next(_memory)}" if own else path


def _failed(extra: Extra, error: BaseException) -> None:
    """Note a failure; one that is neither SQLite's own nor from Python code it called came before anything ran."""
    extra.error = _error(error)
    called = error.__traceback__ is not None and error.__traceback__.tb_next is not None
    extra.wire = int(called or hasattr(error, "sqlite_errorname"))


def _error(error: BaseException) -> str:
    """Class and SQLite's own error name; the message may quote values."""
    name = getattr(error, "sqlite_errorname", None)
    return f"{type(error).__name__} {name}" if isinstance(name, str) else type(error).__name__
