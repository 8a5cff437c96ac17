"""SQLAlchemy 2: which relationship a statement loads, and who waited for its connection.

Statements come by the events of the Engine class, which reach engines and connections made before, sync and async. The
ends of transactions and the pool's queue have no event that tells how long they took, so these are methods replaced.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.collector.context import current
from perf_middleware.collector.layers.below import Layered, begin, noted_below, relate, stray
from perf_middleware.collector.layers.errors import error_text
from perf_middleware.collector.noting import note_query, note_wait
from perf_middleware.collector.parameters import params_token
from perf_middleware.collector.rows import Extra, Target
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType, ModuleType

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.layers.below import Begun
    from perf_middleware.collector.patching import Patches

    Get = Callable[[], Capture | None]

MODULE = "sqlalchemy"

#: OpenTelemetry's `db.system.name` of the dialects that have another name there.
_SYSTEMS: Final = {
    "clickhousedb": "clickhouse",
    "db2": "ibm.db2",
    "firebird": "firebirdsql",
    "hana": "sap.hana",
    "ibm_db_sa": "ibm.db2",
    "informix": "ibm.informix",
    "mssql": "microsoft.sql_server",
    "netezza": "ibm.netezza",
    "oracle": "oracle.db",
    "redshift": "aws.redshift",
    "spanner+spanner": "gcp.spanner",
    "teradatasql": "teradata",
}

#: Methods of a Connection that end a transaction.
_ENDS: Final = {
    "_commit_impl": "COMMIT",
    "_rollback_impl": "ROLLBACK",
    "_commit_twophase_impl": "COMMIT",
    "_rollback_twophase_impl": "ROLLBACK",
}

_TARGET = "perf_middleware"
_BEGUN = "_perf_middleware_begun"
_LOAD_OPTIONS = "_sa_orm_load_options"


def hook(module: ModuleType, patches: Patches) -> None:
    """Listen to the Engine class, and replace what has no event."""
    engine, queue = module.engine, module.util.queue
    for name, verb in _ENDS.items():
        patches.replace(engine.Connection, name, _end(verb))
    for owner in (queue.Queue, queue.AsyncAdaptedQueue):
        patches.replace(owner, "get", _get)
    _listen(module.event, engine.Engine, patches)


def _listen(event: Any, engine: Any, patches: Patches) -> None:
    listeners = {
        "before_cursor_execute": _before_cursor_execute,
        "after_cursor_execute": _after_cursor_execute,
        "handle_error": _handle_error,
    }
    for name, listener in listeners.items():
        # With `retval` SQLAlchemy puts no function of its own around.
        event.listen(engine, name, listener, retval=name == "before_cursor_execute")
        patches.on_undo(partial(_forget, event, engine, name, listener))


def _forget(event: Any, engine: Any, name: str, listener: Any) -> None:
    if event.contains(engine, name, listener):
        event.remove(engine, name, listener)


def _before_cursor_execute(  # noqa: PLR0917 - SQLAlchemy's own signature, by place
    connection: Any,  # noqa: ARG001
    cursor: Any,  # noqa: ARG001
    statement: Any,
    parameters: Any,
    context: Any,
    executemany: Any,  # noqa: ARG001
) -> Any:
    capture = current.get()
    if capture is not None and context is not None:
        context.__dict__[_BEGUN] = begin(capture), statement
    return statement, parameters


def _after_cursor_execute(  # noqa: PLR0917 - SQLAlchemy's own signature, by place
    connection: Any, cursor: Any, statement: Any, parameters: Any, context: Any, executemany: Any
) -> None:
    _executed(connection, cursor, statement, parameters, context, executemany, None)


def _handle_error(failed: Any) -> None:
    context = failed.execution_context
    if context is not None:
        many = context.executemany
        _executed(failed.connection, None, failed.statement, failed.parameters, context, many, failed)


def _executed(  # noqa: PLR0917 - as the events have it
    connection: Any, cursor: Any, statement: Any, parameters: Any, context: Any, executemany: Any, failed: Any
) -> None:
    """Note, or annotate, a statement that was handed to the driver."""
    end_ns = perf_counter_ns()
    try:
        capture = current.get()
        begun: Begun | None
        begun, handed = (None, None) if context is None else context.__dict__.pop(_BEGUN, (None, None))
        if capture is None or begun is None:
            if failed is None:
                stray(connection.info.get(_TARGET))
            return
        target = _target(connection)
        style = context.execute_style.name
        if style == "INSERTMANYVALUES":  # several rows are one statement, which SQLAlchemy 2.0 does not tell afterwards
            statement = handed
        if not noted_below(capture, target, begun, statement):
            many = executemany and style == "EXECUTEMANY"
            extra = _extra(connection, parameters, many, failed)
            lost = failed is not None and failed.is_disconnect
            target.inside = inside = not lost and _inside(connection)
            rows = None if cursor is None else cursor.rowcount
            token = None if many or not capture.keep else params_token(parameters)
            note_query(capture, target.known, statement, token, begun[0], end_ns, rows, inside, extra)
        if capture.keep:
            relation = _relation(context)
            if relation is not None:
                relate(capture, begun, relation)
    except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
        fault("sqlalchemy", error)


def _extra(connection: Any, parameters: Any, many: bool, failed: Any) -> Extra | None:  # noqa: FBT001
    if not many and failed is None and not connection.dialect.is_async:
        return None
    extra = Extra()
    if many:
        extra.many = extra.wire = len(parameters)
    if failed is not None:
        extra.error = error_text(failed.original_exception, connection.dialect.loaded_dbapi.Error)
    return extra


def _inside(connection: Any) -> bool:
    """As the driver's connection says (sqlite3 begins none for a SELECT); else SQLAlchemy's own, but for AUTOCOMMIT."""
    inside = getattr(connection.connection.driver_connection, "in_transaction", None)
    if type(inside) is bool:
        return inside
    level = connection.get_execution_options().get("isolation_level")
    if level is None:
        level = getattr(connection.dialect, "_on_connect_isolation_level", None)
    return level != "AUTOCOMMIT" and bool(connection.in_transaction())


def _target(connection: Any) -> Layered:
    """Kept with the driver's connection, for as long as that is open."""
    info = connection.info
    target: Layered | None = info.get(_TARGET)
    if target is None:
        dialect = connection.dialect
        target = info[_TARGET] = Layered(
            _system(dialect), _database(connection.engine.url), awaited=bool(dialect.is_async)
        )
    return target


def _system(dialect: Any) -> str:
    name: str = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    return _SYSTEMS.get(name, name)


def _database(url: Any) -> str:
    """As the drivers have it: where the server is and which database, or a file's path; no credentials."""
    name = url.database or ""
    if not url.host:
        return name.partition("?")[0] or ":memory:" if url.get_backend_name() == "sqlite" else f"/{name}"
    return f"{url.host}:{url.port}/{name}" if url.port else f"{url.host}/{name}"


# ------------------------------------------------------------------------------------------------------- transactions


def _end(verb: str) -> Callable[[Any, Get], FunctionType]:
    def make(original: Any, get: Get) -> FunctionType:
        def end(self: Any, *args: Any, **kwargs: Any) -> Any:
            target = _alone_inside(self)
            if target is None:
                return original(self, *args, **kwargs)
            extra = None
            start_ns = perf_counter_ns()
            try:
                return original(self, *args, **kwargs)
            except BaseException as error:
                extra = Extra(error=type(error).__name__)
                raise
            finally:
                end_ns = perf_counter_ns()
                target.inside = False
                _note_end(get(), target, verb, start_ns, end_ns, extra)

        return end  # type: ignore[return-value]

    return make


def _alone_inside(connection: Any) -> Layered | None:
    """The connection, if it is for the layer to note how its transaction ends."""
    try:
        target: Layered | None = None if connection.closed else connection.info.get(_TARGET)
    except Exception:  # noqa: BLE001 - it was invalidated, and has no information any more
        return None
    return target if target is not None and target.inside else None


def _note_end(  # noqa: PLR0917 - a row's facts, in its order
    capture: Capture | None, target: Layered, verb: str, start_ns: int, end_ns: int, extra: Extra | None
) -> None:
    try:
        if capture is not None:
            note_query(capture, target.known, verb, None, start_ns, end_ns, None, False, extra)  # noqa: FBT003 - not inside
    except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
        fault("sqlalchemy", error)


# --------------------------------------------------------------------------------------------------------------- pool


def _get(original: Any, get: Get) -> FunctionType:
    """The queue of a pool that may open no further connection is where somebody waits; opening one is not in it."""

    def get_from_queue(self: Any, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - SQLAlchemy's own signature
        capture = get()
        if capture is None:
            return original(self, block, timeout)
        if not block:
            _told(capture)
            return original(self, block, timeout)
        start_ns = perf_counter_ns()
        record = original(self, block, timeout)
        try:
            note_wait(capture, _waited_for(record), start_ns, perf_counter_ns())
        except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
            fault("sqlalchemy", error)
        return record

    return get_from_queue  # type: ignore[return-value]


def _told(capture: Capture | None) -> None:
    """Nobody waits here, which is known and not unknown."""
    while capture is not None:
        if capture.waited_ns is None:
            capture.waited_ns = 0
        capture = capture.parent


def _waited_for(record: Any) -> Any:
    """The connection as the rows that follow will have it; one that never ran a statement is nobody's yet."""
    target = record.info.get(_TARGET)
    if target is None:
        return Target("", None)
    return target.known


# ---------------------------------------------------------------------------------------------------------- relations


def _relation(context: Any) -> str | None:
    """A lazy load's is "Order.customer", one deferred column's "Order.notes", that of several at once "Order".

    What `ORMExecuteState` tells listeners of `do_orm_execute`, without making every statement pay for one.
    """
    options = getattr(context.invoked_statement, "_compile_options", None)
    path = getattr(options, "_current_path", None)
    if path is None:  # it is not the mapper's
        return None
    load = context.execution_options.get(_LOAD_OPTIONS)
    if getattr(load, "_lazy_loaded_from", None) is not None:
        loaded = getattr(path, "prop", None)
        return None if loaded is None else f"{loaded.parent.class_.__name__}.{loaded.key}"
    state = getattr(load, "_refresh_state", None)
    if state is None:
        return None
    name: str = state.mapper.class_.__name__
    keys = getattr(options, "_only_load_props", None)
    return f"{name}.{next(iter(keys))}" if keys and len(keys) == 1 else name
