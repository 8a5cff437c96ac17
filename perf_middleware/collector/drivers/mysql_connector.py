"""MySQL Connector/Python (module mysql.connector): its connections in Python and around the C library, all cursors.

Cursors that do not buffer are its default: their rows come from the server when they are fetched. Prepared statements
are counted where they are executed, not where they are prepared. The driver knows whether a transaction is open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.collector.calls import Recorder

if TYPE_CHECKING:
    from types import ModuleType

    from perf_middleware.collector.calls import Call
    from perf_middleware.collector.patching import Patches

MODULE = "mysql.connector"


class ConnectorRecorder(Recorder):
    """What both interfaces, the blocking one and asyncio's, tell in the same way."""

    name = "mysql_connector"
    statement = "operation"
    parameters = "params"
    sets = "seq_params"

    def connection(self, cursor: Any) -> Any:
        """The object itself: cursors of a connection in Python have a weak proxy, whose object may be gone."""
        try:
            return cursor._connection.get_self()  # noqa: SLF001
        except (AttributeError, ReferenceError):
            return None

    def checked_out(self, result: Any) -> Any:
        """The pool's wrapper has it."""
        return result._cnx  # noqa: SLF001

    def identify(self, connection: Any) -> tuple[str, str]:
        """As it was configured: asking for the database would be a statement."""
        version = connection.server_info if hasattr(connection, "server_info") else connection.get_server_info()
        system = "mariadb" if "mariadb" in version.lower() else "mysql"
        where = connection.unix_socket or f"{connection.server_host}:{connection.server_port}"
        return system, f"{where}/{connection._database or ''}"  # noqa: SLF001

    def inside(self, call: Call) -> bool:
        """The server's own status."""
        return bool(call.connection.in_transaction)

    def is_open(self, connection: Any) -> bool:
        """Without the ping that `is_connected` sends."""
        return getattr(connection, "_socket", None) is not None or bool(getattr(connection, "_cmysql", None))

    def is_streaming(self, cursor: Any, rows: Any) -> bool:  # noqa: ARG002 - 0 of the rows may have been read
        """The connection, or in C the prepared statement, has rows that nobody has read."""
        prepared = getattr(cursor, "_stmt", None)
        return bool(cursor._connection.unread_result or (prepared is not None and prepared.have_result_set))  # noqa: SLF001

    def errno(self, error: BaseException) -> int | None:
        """It has a name here."""
        number = getattr(error, "errno", None) if isinstance(error, self.error) else None
        return number if type(number) is int else None

    def patch_cursors(self, module: Any, patches: Patches) -> None:
        """Patch the methods of all cursors of a module."""
        for kind in list(vars(module).values()):
            if isinstance(kind, type) and kind.__module__ == module.__name__ and hasattr(kind, "execute"):
                for name, make in _CURSOR.items():
                    if name in vars(kind):
                        patches.replace(kind, name, getattr(self, make))

    def patch_connection(self, connection: Any, patches: Patches) -> None:
        """Patch what connections have in common; what `close` leaves open the server rolls back."""
        patches.replace(connection, "cmd_query", self.query)
        patches.replace(connection, "cmd_stmt_execute", self.execution())
        patches.replace(connection, "cmd_init_db", self.select_db)
        for name in ("close", "disconnect"):
            patches.replace(connection, name, self.command("ROLLBACK"))


_CURSOR = {
    "execute": "execute",
    "executemany": "executemany",
    "callproc": "callproc",
    "fetchall": "fetch",
    "fetchmany": "fetch",
}


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch the methods of Connector/Python's classes; connections opened before are seen too."""
    recorder = ConnectorRecorder(module.Error)
    recorder.patch_cursors(module.cursor, patches)
    recorder.patch_connection(module.MySQLConnection, patches)
    patches.replace(module.MySQLConnection, "cmd_query_iter", recorder.execution(awaits=False))
    patches.replace(module.pooling.MySQLConnectionPool, "get_connection", recorder.checkout)
    if module.HAVE_CEXT:
        connection = module.CMySQLConnection
        recorder.patch_cursors(module.cursor_cext, patches)
        recorder.patch_connection(connection, patches)
        patches.replace(connection, "_execute_query", recorder.query)
        patches.replace(connection, "info_query", recorder.query)
        patches.replace(connection, "commit", recorder.command("COMMIT"))
        patches.replace(connection, "rollback", recorder.command("ROLLBACK"))
