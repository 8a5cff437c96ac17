"""asyncmy: cursors are compiled, so while a profile is open those that are asked for are subclasses with our methods.

The connection's methods and those of prepared statements can be replaced as in other drivers. So what comes from a
cursor of another origin is seen too, with its values in the text. `SSCursor` itself is left as it is: it reads rows
several at a time only where it is no subclass.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from perf_middleware.collector.calls import Call, Step, plain, size
from perf_middleware.collector.context import current, unattributed
from perf_middleware.collector.drivers.aiomysql import COMMANDS, AiomysqlRecorder
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from types import FunctionType, ModuleType

    from perf_middleware.collector.calls import Get
    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.patching import Patches

MODULE = "asyncmy"

_TEXT = "_perf_middleware_text"


class _Recorder(AiomysqlRecorder):
    name = "asyncmy"

    def identify(self, connection: Any) -> tuple[str, str]:
        system = "mariadb" if "mariadb" in connection.get_server_info().lower() else "mysql"
        where = connection._unix_socket or f"{connection._host}:{connection._port}"  # noqa: SLF001
        return system, f"{where}/{plain(connection._db or '')}"  # noqa: SLF001

    def is_open(self, connection: Any) -> bool:
        return bool(connection.connected)

    def rows(self, result: Any) -> Any:
        return getattr(result, "affected_rows", result)

    def prepare(self, original: Any, get: Get) -> FunctionType:
        """Hook `Connection.prepare`: the statement it gives does not know its text."""
        return self._around(self._prepare, original, get)

    def run(self, original: Any, get: Get) -> FunctionType:
        """Hook `PreparedStatement.execute(args)`."""
        return self._around(self._run, original, get)

    def run_many(self, original: Any, get: Get) -> FunctionType:
        """Hook `PreparedStatement.execute_bulk(rows)`, which sends all of them at once."""
        return self._around(self._run_many, original, get)

    def _prepare(self, _: object, __: object, args: list[Any], kwargs: dict[str, Any]) -> Step:
        return _Preparing(self, args[0] if args else kwargs.get("query"))

    def _run(self, capture: Capture | None, prepared: Any, args: list[Any], kwargs: dict[str, Any]) -> Step | None:
        step = self._sending(capture, prepared._connection, None)  # noqa: SLF001
        if step is None:
            unattributed.add()
        elif isinstance(step, Call):
            step.text = vars(prepared).get(_TEXT, "")
            step.parameters, step.apart = args[0] if args else kwargs.get("args", ()), True
        return step

    def _run_many(self, capture: Capture | None, prepared: Any, args: list[Any], kwargs: dict[str, Any]) -> Step | None:
        step = self._run(capture, prepared, args, kwargs)
        if isinstance(step, Call):
            step.many = size(args[0] if args else kwargs.get("rows"))
        return step


class _Preparing(Step):
    """A statement being prepared."""

    __slots__ = ("text",)

    def __init__(self, recorder: _Recorder, text: Any) -> None:
        super().__init__(recorder)
        self.text = text

    def end(self, end_ns: int, error: BaseException | None) -> None:  # noqa: ARG002 - it is no query
        """Keep the text with what was prepared."""
        if error is None:
            vars(self.result)[_TEXT] = self.text


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch the methods of asyncmy's classes that are Python's, and have the connections give our cursors."""
    recorder = _Recorder(module.errors.MySQLError)
    connection = module.Connection
    patches.replace(connection, "cursor", _cursor(recorder, module.cursors, patches))
    patches.replace(connection, "query", recorder.query)
    patches.replace(connection, "select_db", recorder.select_db)
    prepared = getattr(module.connection, "PreparedStatement", None)
    if prepared is not None:  # since 0.2.13
        patches.replace(connection, "prepare", recorder.prepare)
        patches.replace(prepared, "execute", recorder.run)
        patches.replace(prepared, "execute_bulk", recorder.run_many)
    for name, text in COMMANDS.items():
        patches.replace(connection, name, recorder.command(text))
    patches.replace(connection, "close", recorder.command("ROLLBACK", awaits=False))
    patches.replace(module.Pool, "_acquire", recorder.checkout)
    patches.replace(module.Pool, "fill_free_pool", recorder.opening)


def _cursor(recorder: _Recorder, cursors: ModuleType, patches: Patches) -> Any:
    """What replaces `Connection.cursor`."""

    def still() -> Capture | None:
        return current.get() if patches.active else None

    @lru_cache(maxsize=256)
    def traced(base: type) -> type:
        names = {name: name for name in ("execute", "executemany", "callproc")}
        if issubclass(base, cursors.SSCursor):
            names |= {"fetchall": "fetch", "fetchmany": "fetch"}
        methods = {name: getattr(recorder, make)(getattr(base, name), still) for name, make in names.items()}
        return type(base.__name__, (base,), {"__doc__": base.__doc__, "__module__": base.__module__, **methods})

    def make(original: Any, get: Get) -> FunctionType:
        def cursor(self: Any, cursor: Any = None) -> Any:
            kind = cursor or self._cursor_cls
            if get() is None or kind is cursors.SSCursor:
                return original(self, cursor)
            try:
                ours = traced(kind)
            except Exception as error:  # noqa: BLE001 - a class may refuse to be subclassed
                fault("asyncmy: a cursor's class that cannot be subclassed", error)
                ours = cursor
            return original(self, ours)

        return cursor  # type: ignore[return-value]

    return make
