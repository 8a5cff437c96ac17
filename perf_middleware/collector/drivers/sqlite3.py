"""sqlite3: connections and cursors are C types, so they are seen through subclasses made at `connect`.

A caller's own `factory` (of connections or cursors) is subclassed in turn, so that it still wins; a factory that
is a function is left alone and counted as a fault. A factory with `perf_middleware_ignore` is never touched.
"""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import count
from threading import get_ident
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from perf_middleware.collector.caller import find_caller
from perf_middleware.collector.context import current, unattributed
from perf_middleware.collector.parameters import params_token
from perf_middleware.collector.patching import NOBODY, Patches
from perf_middleware.collector.rows import KEEP_TEXT_CHARS, Extra, Target
from perf_middleware.errors import fault
from perf_middleware.sql import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FunctionType, ModuleType

    from perf_middleware.collector.context import Capture
MODULE = "sqlite3"

_memory = count(1)
_FACTORY_POSITION = 5  # connect(database, timeout, detect_types, isolation_level, check_same_thread, factory, ...)


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch `connect` where applications look it up; connections opened before, or through it by name, are not seen."""
    for owner in (module, module.dbapi2):
        patches.replace(owner, "connect", _connect(module, patches))


def _connect(module: ModuleType, patches: Patches) -> Callable[[Any, Callable[[], Capture | None]], FunctionType]:
    def make(original: Any, get: Callable[[], Capture | None]) -> FunctionType:
        def connect(*args: Any, **kwargs: Any) -> Any:
            if get() is NOBODY:
                return original(*args, **kwargs)
            position, keywords = _with_factory(module, patches, args, kwargs)
            connection = original(*position, **keywords)
            if isinstance(connection, _Traced):
                database = args[0] if args else kwargs.get("database")
                connection.__dict__["_perf_middleware_target"] = Target("sqlite", _database(database))
            return connection

        return connect  # type: ignore[return-value]

    return make


def _with_factory(
    module: ModuleType, patches: Patches, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    positional = len(args) > _FACTORY_POSITION
    factory = args[_FACTORY_POSITION] if positional else kwargs.get("factory", module.Connection)
    if getattr(factory, "perf_middleware_ignore", False):
        return args, kwargs
    if not isinstance(factory, type):
        fault("sqlite3: a factory that is no class", TypeError())
        return args, kwargs
    traced = _traced_connection(factory, module.Cursor, patches)
    if positional:
        return (*args[:_FACTORY_POSITION], traced, *args[_FACTORY_POSITION + 1 :]), kwargs
    return args, {**kwargs, "factory": traced}


class _Traced:
    """Marks the connections we made."""

    __slots__ = ()


@lru_cache(maxsize=256)
def _traced_connection(base: type, default_cursor: type, patches: Patches) -> type:
    """A subclass of a connection class that hands out traced cursors and notes the ends of transactions."""
    if issubclass(base, _Traced):
        return base

    class Connection(base):  # type: ignore[misc]
        def cursor(self, factory: Any = None) -> Any:
            factory = default_cursor if factory is None else factory
            return super().cursor(_traced_cursor(factory, patches) if isinstance(factory, type) else factory)

        def commit(self) -> Any:
            return _ending(self, patches, "COMMIT", super().commit)

        def rollback(self) -> Any:
            return _ending(self, patches, "ROLLBACK", super().rollback)

        def __exit__(self, *exc_info: object) -> Any:
            verb = "COMMIT" if exc_info[0] is None else "ROLLBACK"
            return _ending(self, patches, verb, super().__exit__, *exc_info)

    return _named_like(base, type(base.__name__, (Connection, _Traced), {}))


@lru_cache(maxsize=256)
def _traced_cursor(base: type, patches: Patches) -> type:  # noqa: C901 - a class with its few methods
    """A subclass of a cursor class that notes what it executes and fetches in bulk."""

    class Cursor(base):  # type: ignore[misc]
        def execute(self, *args: Any, **kwargs: Any) -> Any:
            capture = _capture(patches)
            if capture is None:
                return super().execute(*args, **kwargs)
            target = _target(self)
            if target.busy:
                return super().execute(*args, **kwargs)
            parameters = args[1] if len(args) > 1 else None
            extra = Extra()
            target.busy = True
            start_ns = perf_counter_ns()
            try:
                result = super().execute(*args, **kwargs)
            except BaseException as error:
                extra.error = _error(error)
                raise
            finally:
                target.busy = False
                if args:
                    _note(capture, self, target, args[0], parameters, start_ns, extra)
            self.__dict__["_perf_middleware_extra"] = extra
            return result

        def executemany(self, *args: Any, **kwargs: Any) -> Any:
            capture = _capture(patches)
            if capture is None or len(args) != 2:  # noqa: PLR2004 - sql and parameters; else the driver complains
                return super().executemany(*args, **kwargs)
            target = _target(self)
            sets = _Counted(args[1])
            extra = Extra()
            target.busy = True
            start_ns = perf_counter_ns()
            try:
                return super().executemany(args[0], sets, **kwargs)
            except BaseException as error:
                extra.error = _error(error)
                raise
            finally:
                target.busy = False
                extra.many = extra.wire = sets.count
                if extra.wire or extra.error:
                    _note(capture, self, target, args[0], None, start_ns, extra)

        def executescript(self, *args: Any, **kwargs: Any) -> Any:
            capture = _capture(patches)
            if capture is None or not args:
                return super().executescript(*args, **kwargs)
            start_ns = perf_counter_ns()
            extra = Extra()
            try:
                return super().executescript(*args, **kwargs)
            except BaseException as error:
                extra.error = _error(error)
                raise
            finally:
                _note(capture, self, _target(self), args[0], None, start_ns, extra)

        def fetchall(self) -> Any:
            return _fetched(self, super().fetchall)

        def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
            return _fetched(self, super().fetchmany, *args, **kwargs)

    return _named_like(base, Cursor)


def _capture(patches: Patches) -> Capture | None:
    """The open profile's capture; without one the query is unattributed, unless the hooks are uninstalled."""
    capture = current.get()
    if not patches.active:
        return None
    if capture is None:
        unattributed.add()
    return capture


class _Counted:
    """An iterator over parameter sets that counts what the driver takes."""

    def __init__(self, sets: Any) -> None:
        self.count = 0
        self._iterator = iter(sets)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = next(self._iterator)
        self.count += 1
        return item


def _named_like(base: type, traced: type) -> type:
    traced.__name__, traced.__qualname__, traced.__module__ = base.__name__, base.__qualname__, base.__module__
    traced.__doc__ = base.__doc__
    return traced


def _fetched(cursor: Any, fetch: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    extra = cursor.__dict__.get("_perf_middleware_extra")
    if extra is None:
        return fetch(*args, **kwargs)
    start_ns = perf_counter_ns()
    rows = fetch(*args, **kwargs)
    extra.fetched(perf_counter_ns() - start_ns, len(rows))
    return rows


def _ending(connection: Any, patches: Patches, verb: str, end: Callable[..., Any], *args: Any) -> Any:
    capture = current.get() if patches.active else None
    if capture is None or not connection.in_transaction:
        return end(*args)
    start_ns = perf_counter_ns()
    result = end(*args)
    target = connection.__dict__.get("_perf_middleware_target")
    if target is not None:
        capture.note((verb, start_ns, perf_counter_ns(), target, None, None, 0, None, False, get_ident(), None))
    return result


def _note(  # noqa: PLR0917 - a row's facts, in its order
    capture: Capture, cursor: Any, target: Target, sql: Any, parameters: Any, start_ns: int, extra: Extra
) -> None:
    end_ns = perf_counter_ns()
    try:
        code, lasti = find_caller(3) if capture.callers else (None, 0)
        token = params_token(parameters) if capture.detailed and parameters is not None else None
        text = sql if len(sql) <= KEEP_TEXT_CHARS else parse(sql, "sqlite")
        inside = cursor.connection.in_transaction
        row = (text, start_ns, end_ns, target, token, code, lasti, cursor.rowcount, inside, get_ident(), extra)
        capture.note(row)
    except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
        fault("sqlite3", error)


def _target(cursor: Any) -> Target:
    try:
        target: Target | None = cursor.connection.__dict__.get("_perf_middleware_target")
    except Exception:  # noqa: BLE001 - a cursor whose __init__ was not called; the driver is about to say so
        target = None
    return target or Target("sqlite", None)


def _database(database: Any) -> str | None:
    """The file's path without a URI's query (which may hold a key); memory databases are each their own."""
    try:
        path = os.fsdecode(database).partition("?")[0]
    except TypeError:
        return None
    return f":memory:{next(_memory)}" if path in ("", ":memory:", "file::memory:") else path


def _error(error: BaseException) -> str:
    """Class and SQLite's own error name; the message may quote values."""
    name = getattr(error, "sqlite_errorname", None)
    return f"{type(error).__name__} {name}" if isinstance(name, str) else type(error).__name__
