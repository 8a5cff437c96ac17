"""Any module of PEP 249, for drivers that have no file of their own.

What its `connect` gives, and what the connections' `cursor` gives, is looked at once for each class: its methods are
replaced as PEP 249 names them. A class whose methods cannot be replaced (one written in C, mostly) is reported, and
what it runs is not seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from perf_middleware.collector.calls import SESSION, Call, Recorder, Session, begun, kept_with
from perf_middleware.errors import fault, warn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType, ModuleType

    from perf_middleware.collector.calls import Get, Make
    from perf_middleware.collector.patching import Patches

_CONNECTION = "_perf_middleware_connection"


class Module:
    """One such module, hooked as a driver's file is.

    Attributes:
        system: `db.system.name`.

    """

    def __init__(self, module: ModuleType, system: str) -> None:
        self.MODULE = module.__name__
        self.system = system

    def hook(self, module: ModuleType, patches: Patches) -> None:
        """Patch `connect`, and at once the classes `Connection` and `Cursor`, where the module shows them."""
        classes = _Classes(_Recorder(module, self.system), patches)
        for name in ("Connection", "Cursor"):
            kind = getattr(module, name, None)
            if isinstance(kind, type):
                classes.patch(kind)
        patches.replace(module, "connect", classes.connect)


class _Recorder(Recorder):
    """Tells what PEP 249 tells: little of transactions, and nothing of how many statements are sent."""

    through_query = False
    statement = "operation"
    parameters = "parameters"
    sets = "seq_of_parameters"

    def __init__(self, module: Any, system: str) -> None:
        super().__init__(module.Error)
        self.name, self.system = module.__name__, system

    def connection(self, cursor: Any) -> Any:
        """As an optional attribute has it, or as it was when it gave the cursor; some are their own cursor."""
        if hasattr(cursor, "cursor"):
            return cursor
        kept: Any = kept_with(cursor).get(_CONNECTION)
        kept = kept() if isinstance(kept, ref) else kept
        return getattr(cursor, "connection", None) if kept is None else kept

    def inside(self, call: Call) -> bool | None:
        """What the connection says of itself, by a common attribute; else what its statements say."""
        told = _told(call.connection, "in_transaction")
        if isinstance(told, bool):
            return told
        is_begun = begun(call)
        return None if is_begun is False and _told(call.connection, "autocommit") is False else bool(is_begun)

    def is_open(self, connection: Any) -> bool:
        return not getattr(connection, "closed", False)

    def errno(self, error: BaseException) -> int | None:
        """By its commonest name."""
        number = getattr(error, "errno", None) if isinstance(error, self.error) else None
        return number if type(number) is int else None

    def was_sent(self, error: BaseException) -> bool:  # noqa: ARG002 - it cannot be told
        """A call counts as one statement sent, whatever came of it."""
        return True

    def rows(self, result: Any) -> Any:
        """Of the cursor that a connection's own `execute` gives."""
        return getattr(result, "rowcount", None)


class _Classes:
    """The classes that were met, each patched once."""

    def __init__(self, recorder: _Recorder, patches: Patches) -> None:
        self.recorder = recorder
        self.patches = patches
        self.met: set[type] = set()

    def connect(self, original: Any, get: Get) -> FunctionType:  # noqa: ARG002 - connections outlive profiles
        """What replaces the module's `connect`."""

        def connect(*args: Any, **kwargs: Any) -> Any:
            connection = original(*args, **kwargs)
            self.meet(connection, lambda kept: kept.setdefault(SESSION, self.session(kwargs)))
            return connection

        return connect  # type: ignore[return-value]

    def cursor(self, original: Any, get: Get) -> FunctionType:  # noqa: ARG002 - cursors outlive profiles
        """What replaces a connection's `cursor`."""

        def cursor(connection: Any, *args: Any, **kwargs: Any) -> Any:
            given = original(connection, *args, **kwargs)
            if hasattr(given, "cursor"):  # it is another connection, to the same database
                db = self.recorder.session(connection).db
                self.meet(given, lambda kept: kept.setdefault(SESSION, Session(self.recorder.system, db)))
            else:  # what is kept beside an object must not keep it alive
                own = hasattr(given, "__dict__")
                self.meet(given, lambda kept: kept.setdefault(_CONNECTION, connection if own else ref(connection)))
            return given

        return cursor  # type: ignore[return-value]

    def session(self, given: dict[str, Any]) -> Session:
        """Where `connect` went, by the names of its arguments that hold no password."""
        host, port = given.get("host", ""), given.get("port", "")
        database = next((given[name] for name in ("database", "dbname", "db") if name in given), "")
        where = f"{host}:{port}" if port else f"{host}"
        db = f"{where}/{database}" if where and database else f"{where}{database}"
        return Session(self.recorder.system, db if db and "@" not in db else None)  # it may be a URL with a password

    def meet(self, thing: Any, keep: Callable[[dict[str, Any]], object]) -> None:
        """Patch its class if it is new, and keep something with it; the application's call must not fail of it."""
        try:
            self.patch(type(thing))
            keep(kept_with(thing))
        except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
            fault(self.recorder.name, error)

    def patch(self, kind: type) -> None:
        """Replace the methods that PEP 249 names."""
        if kind in self.met or not self.patches.active:
            return
        self.met.add(kind)
        try:
            for name, make in self.methods(kind).items():
                if callable(getattr(kind, name, None)):
                    self.patches.replace(kind, name, make)
        except TypeError:
            warn(
                "%s: the methods of %s cannot be replaced, so that what it runs is not seen; "
                "a driver of its own could see it: docs/drivers.md",
                self.recorder.name,
                kind.__qualname__,
            )

    def methods(self, kind: type) -> dict[str, Make]:
        """Of a connection, of a cursor, or of what is both."""
        recorder = self.recorder
        methods: dict[str, Make] = {}
        if hasattr(kind, "cursor"):
            commands = {"begin": "BEGIN", "commit": "COMMIT", "rollback": "ROLLBACK", "close": "ROLLBACK"}
            methods = {name: recorder.command(text) for name, text in commands.items()}
            methods |= {"cursor": self.cursor, "execute": recorder.query}
        if hasattr(kind, "rowcount") or not hasattr(kind, "cursor"):
            methods |= {"execute": recorder.execute, "executemany": recorder.executemany}
            methods |= {"callproc": recorder.callproc, "fetchall": recorder.fetch, "fetchmany": recorder.fetch}
        return methods


def _told(connection: Any, name: str) -> Any:
    try:
        return getattr(connection, name, None)
    except Exception:  # noqa: BLE001 - a closed connection may raise what it likes
        return None
