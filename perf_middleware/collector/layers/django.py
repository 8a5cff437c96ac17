"""Django's database layer, of any backend: which relation a statement loads, and who awaits it.

`CursorWrapper._execute` is where each statement leaves Django, whatever wraps it there (`execute_wrapper`, the debug
cursor) and whenever its connection was opened. Relations are told by the descriptors of models: those that load one
object say so before they do, managers of many mark the query they make.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from importlib import import_module
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.collector.caller import asked_by, find_caller
from perf_middleware.collector.layers.below import Layered, begin, noted_below, relate, stray
from perf_middleware.collector.layers.errors import error_text
from perf_middleware.collector.noting import counted, note_query
from perf_middleware.collector.parameters import params_token
from perf_middleware.collector.rows import Extra
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType, ModuleType

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.layers.below import Begun
    from perf_middleware.collector.patching import Patches

    Get = Callable[[], Capture | None]
    Make = Callable[[Any, Get], FunctionType]

#: Every backend imports it; what is needed of `django.db.backends` may be imported with it.
MODULE = "django.db.models"

#: OpenTelemetry's `db.system.name` of the vendors that have another name there.
_SYSTEMS: Final = {"microsoft": "microsoft.sql_server", "oracle": "oracle.db"}

#: Methods of a connection that end a transaction; the server rolls back what `close` leaves open.
_ENDS: Final = {"commit": "COMMIT", "rollback": "ROLLBACK", "close": "ROLLBACK"}

_TARGET = "_perf_middleware_target"
_RELATION = "_perf_middleware_relation"

#: What the next statement loads.
_loading: ContextVar[str | None] = ContextVar("perf_middleware_loading", default=None)


def hook(module: ModuleType, patches: Patches) -> None:
    """Replace methods of cursors, connections, descriptors, the compiler and asgiref's bridge to threads."""
    cursor = import_module("django.db.backends.utils").CursorWrapper
    connection = import_module("django.db.backends.base.base").BaseDatabaseWrapper
    related = import_module("django.db.models.fields.related_descriptors")
    compiler = import_module("django.db.models.sql.compiler").SQLCompiler
    patches.replace(cursor, "_execute", _execute)
    patches.replace(cursor, "_executemany", _executemany)
    patches.replace(cursor, "callproc", _callproc)
    for name, verb in _ENDS.items():
        patches.replace(connection, name, _end(verb))
    patches.replace(related.ForwardManyToOneDescriptor, "get_object", _get_object)
    patches.replace(related.ReverseOneToOneDescriptor, "__get__", _reverse_one_to_one)
    patches.replace(related.ReverseManyToOneDescriptor, "__get__", _manager(patches))
    patches.replace(module.query_utils.DeferredAttribute, "__get__", _deferred)
    patches.replace(compiler, "execute_sql", _execute_sql)
    patches.replace(sys.modules["asgiref.sync"].SyncToAsync, "__call__", _sync_to_async)


# --------------------------------------------------------------------------------------------------------- statements


def _execute(original: Any, get: Get) -> FunctionType:
    def _execute(self: Any, sql: Any, params: Any, *ignored_wrapper_args: Any) -> Any:
        capture = get()
        begun = begin(capture)
        if capture is None or begun is None:
            stray(self.db.__dict__.get(_TARGET))
            return original(self, sql, params, *ignored_wrapper_args)
        try:
            result = original(self, sql, params, *ignored_wrapper_args)
        except BaseException as error:
            _executed(capture, begun, self, sql, params, Extra(), error)
            raise
        _executed(capture, begun, self, sql, params, None, None)
        return result

    return _execute  # type: ignore[return-value]


def _executemany(original: Any, get: Get) -> FunctionType:
    def _executemany(self: Any, sql: Any, param_list: Any, *ignored_wrapper_args: Any) -> Any:
        capture = get()
        begun = begin(capture)
        if capture is None or begun is None:
            stray(self.db.__dict__.get(_TARGET))
            return original(self, sql, param_list, *ignored_wrapper_args)
        many = None
        if not hasattr(param_list, "__len__"):
            param_list, many = counted(param_list)
        extra, failed = Extra(), None
        try:
            return original(self, sql, param_list, *ignored_wrapper_args)
        except BaseException as error:
            failed = error
            raise
        finally:
            extra.many = extra.wire = len(param_list) if many is None else many()
            if extra.many or failed is not None:
                _executed(capture, begun, self, sql, None, extra, failed)

    return _executemany  # type: ignore[return-value]


def _callproc(original: Any, get: Get) -> FunctionType:
    def callproc(self: Any, procname: Any, params: Any = None, kparams: Any = None) -> Any:
        capture = get()
        begun = begin(capture)
        if capture is None or begun is None:
            stray(self.db.__dict__.get(_TARGET))
            return original(self, procname, params, kparams)
        failed = None
        try:
            return original(self, procname, params, kparams)
        except BaseException as error:
            failed = error
            raise
        finally:
            text = f"CALL `{procname}`({', '.join('?' * len(params or ()))})"
            _executed(capture, begun, self, text, params, None if failed is None else Extra(), failed)

    return callproc  # type: ignore[return-value]


def _executed(  # noqa: PLR0917 - a row's facts, in their order
    capture: Capture,
    begun: Begun,
    cursor: Any,
    sql: Any,
    params: Any,
    extra: Extra | None,
    failed: BaseException | None,
) -> None:
    """Note, or annotate, a statement that was handed to the driver."""
    end_ns = perf_counter_ns()
    try:
        connection = cursor.db
        target = _target(connection)
        if not noted_below(capture, target, begun, sql):
            if failed is not None and extra is not None:
                if type(failed).__name__ == "TransactionManagementError":
                    return  # Django has not handed it down
                extra.error = _error(failed, connection)
            inside = target.inside = _inside(connection)
            rows = None if failed is not None else cursor.cursor.rowcount
            token = params_token(params) if params is not None and capture.keep else None
            note_query(capture, target.known, sql, token, begun[0], end_ns, rows, inside, extra)
        relation = _loading.get() if capture.keep else None
        if relation is not None:
            _loading.set(None)
            relate(capture, begun, relation)
    except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
        fault("django", error)


def _inside(connection: Any) -> bool:
    return bool(connection.in_atomic_block or not connection.autocommit)


def _error(error: BaseException, connection: Any) -> str:
    """As the driver raised it: Django has put an error of its own around."""
    cause = error.__cause__
    base = connection.Database.Error
    return error_text(cause if isinstance(cause, base) else error, base)


def _target(connection: Any) -> Layered:
    target: Layered | None = connection.__dict__.get(_TARGET)
    if target is None:
        target = connection.__dict__[_TARGET] = Layered(_system(connection), _database(connection))
    return target


def _system(connection: Any) -> str:
    vendor: str = connection.vendor
    if vendor == "mysql" and "mariadb" in str(connection.connection.get_server_info()).lower():
        return "mariadb"
    return _SYSTEMS.get(vendor, vendor)


def _database(connection: Any) -> str:
    """As the drivers have it: where the server is and which database, or a file's path; no credentials."""
    settings = connection.settings_dict
    name, host, port = (str(settings.get(key) or "") for key in ("NAME", "HOST", "PORT"))
    if connection.vendor == "sqlite":
        return name.partition("?")[0]
    return f"{host}:{port}/{name}" if port else f"{host}/{name}"


def _end(verb: str) -> Make:
    def make(original: Any, get: Get) -> FunctionType:
        def end(self: Any) -> Any:
            target: Layered | None = self.__dict__.get(_TARGET)
            if target is None or not target.inside:
                return original(self)
            extra = None
            start_ns = perf_counter_ns()
            try:
                return original(self)
            except BaseException as error:
                extra = Extra(error=_error(error, self))
                raise
            finally:
                end_ns = perf_counter_ns()
                target.inside = extra is not None and _inside(self)
                _note_end(get(), target, verb, start_ns, end_ns, extra)

        return end  # type: ignore[return-value]

    return make


def _note_end(  # noqa: PLR0917 - a row's facts, in its order
    capture: Capture | None, target: Layered, verb: str, start_ns: int, end_ns: int, extra: Extra | None
) -> None:
    try:
        if capture is not None:
            note_query(capture, target.known, verb, None, start_ns, end_ns, None, target.inside, extra)
    except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
        fault("django", error)


# ---------------------------------------------------------------------------------------------------------- relations


def _get_object(original: Any, get: Get) -> FunctionType:
    def get_object(self: Any, instance: Any) -> Any:
        if get() is None:
            return original(self, instance)
        token = _loading.set(f"{self.field.model.__name__}.{self.field.name}")
        try:
            return original(self, instance)
        finally:
            _loading.reset(token)

    return get_object  # type: ignore[return-value]


def _reverse_one_to_one(original: Any, get: Get) -> FunctionType:
    def __get__(self: Any, instance: Any, cls: Any = None) -> Any:  # noqa: N807 - the method replaced
        if instance is None or get() is None or self.related.is_cached(instance):
            return original(self, instance, cls)
        token = _loading.set(f"{self.related.model.__name__}.{self.related.get_accessor_name()}")
        try:
            return original(self, instance, cls)
        finally:
            _loading.reset(token)

    return __get__  # type: ignore[return-value]


def _deferred(original: Any, get: Get) -> FunctionType:
    def __get__(self: Any, instance: Any, cls: Any = None) -> Any:  # noqa: N807 - the method replaced
        if instance is None or get() is None:
            return original(self, instance, cls)
        token = _loading.set(f"{self.field.model.__name__}.{self.field.attname}")
        try:
            return original(self, instance, cls)
        finally:
            _loading.reset(token)

    return __get__  # type: ignore[return-value]


def _manager(patches: Patches) -> Make:
    """The class of a relation's managers is made when it is first asked for, so that is when it is hooked."""
    hooked: set[type] = set()

    def make(original: Any, get: Get) -> FunctionType:
        def __get__(self: Any, instance: Any, cls: Any = None) -> Any:  # noqa: N807 - the method replaced
            manager = original(self, instance, cls)
            if instance is not None and get() is not None and type(manager) not in hooked and patches.active:
                hooked.add(type(manager))
                try:
                    patches.replace(type(manager), "_apply_rel_filters", _marking(_name(self)))
                except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
                    fault("django", error)
            return manager

        return __get__  # type: ignore[return-value]

    return make


def _name(descriptor: Any) -> str:
    """Of a descriptor of many: the model that has it, and its name there."""
    rel, field = descriptor.rel, descriptor.field
    if getattr(descriptor, "reverse", True) and not getattr(rel, "hidden", False):
        return f"{rel.model.__name__}.{rel.get_accessor_name()}"
    return f"{field.model.__name__}.{field.name}"


def _marking(relation: str) -> Make:
    def make(original: Any, get: Get) -> FunctionType:  # noqa: ARG001 - a mark costs nothing where nobody looks
        def _apply_rel_filters(self: Any, queryset: Any) -> Any:
            filtered = original(self, queryset)
            filtered.query.__dict__[_RELATION] = relation
            return filtered

        return _apply_rel_filters  # type: ignore[return-value]

    return make


def _execute_sql(original: Any, get: Get) -> FunctionType:
    def execute_sql(self: Any, *args: Any, **kwargs: Any) -> Any:
        relation = self.query.__dict__.get(_RELATION)
        if relation is None or get() is None:
            return original(self, *args, **kwargs)
        token = _loading.set(relation)
        try:
            return original(self, *args, **kwargs)
        finally:
            _loading.reset(token)

    return execute_sql  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------------ async callers


def _sync_to_async(original: Any, get: Get) -> FunctionType:
    """Django's async methods run in a thread, which has the context of who awaits but not the stack."""

    async def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807 - the method replaced
        capture = get()
        if capture is None or not capture.callers:
            return await original(self, *args, **kwargs)
        place = None
        try:
            place = find_caller()
        except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
            fault("django", error)
        token = asked_by.set(place)
        try:
            return await original(self, *args, **kwargs)
        finally:
            asked_by.reset(token)

    return __call__  # type: ignore[return-value]
