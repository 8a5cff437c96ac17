"""aiomysql: cursors, direct `Connection.query` and pools, as in PyMySQL whose protocol it builds on.

It calls none of the methods of PyMySQL that are hooked, so that each statement is seen once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.collector.calls import Recorder

if TYPE_CHECKING:
    from types import ModuleType

    from perf_middleware.collector.calls import Call
    from perf_middleware.collector.patching import Patches

MODULE = "aiomysql"

#: Methods that send a fixed statement by a way of their own. The server rolls back what `close` leaves open.
COMMANDS = {
    "begin": "BEGIN",
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
    "autocommit": "SET autocommit",
    "show_warnings": "SHOW WARNINGS",
}

_IN_TRANSACTION, _AUTOCOMMIT = 1, 2  # SERVER_STATUS_IN_TRANS, SERVER_STATUS_AUTOCOMMIT


class AiomysqlRecorder(Recorder):
    """What asyncmy, which comes from it, tells in the same way."""

    name = "aiomysql"
    awaits = True

    def identify(self, connection: Any) -> tuple[str, str]:
        """By what the server and the connection's own attributes say."""
        system = "mariadb" if "mariadb" in connection.get_server_info().lower() else "mysql"
        where = connection.unix_socket or f"{connection.host}:{connection.port}"
        return system, f"{where}/{connection.db or ''}"

    def inside(self, call: Call) -> bool | None:
        """By the server's status flags."""
        status, result = call.connection.server_status, call.connection._result  # noqa: SLF001
        if status & (_IN_TRANSACTION | _AUTOCOMMIT):
            return bool(status & _IN_TRANSACTION)
        # No status is taken from the end of a result, so its tables have to tell.
        return None if result is not None and result.field_count else False

    def is_open(self, connection: Any) -> bool:
        """The driver closes it when a statement is cancelled."""
        return not connection.closed


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch the methods of aiomysql's classes; connections opened before are seen too."""
    recorder = AiomysqlRecorder(module.MySQLError)
    for name in ("execute", "executemany", "callproc"):
        patches.replace(module.Cursor, name, getattr(recorder, name))
    for name in ("fetchall", "fetchmany"):
        patches.replace(module.SSCursor, name, recorder.fetch)
    connection, pool = module.Connection, module.Pool
    patches.replace(connection, "query", recorder.query)
    patches.replace(connection, "select_db", recorder.select_db)
    for name, text in COMMANDS.items():
        patches.replace(connection, name, recorder.command(text))
    patches.replace(connection, "close", recorder.command("ROLLBACK", awaits=False))
    patches.replace(pool, "_acquire", recorder.checkout)
    patches.replace(pool, "_fill_free_pool", recorder.opening)
