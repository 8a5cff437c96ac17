"""mysqlclient (module MySQLdb): its cursors and `Connection` are classes of Python around a C library's connection.

The C library knows whether a transaction is open, and tells nobody; so with autocommit on the statements that begin
and end one are looked for, and with it off the first one that uses a table is taken for the beginning.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from perf_middleware.collector.calls import Recorder, begun, plain

if TYPE_CHECKING:
    from types import ModuleType

    from perf_middleware.collector.calls import Call
    from perf_middleware.collector.patching import Patches

MODULE = "MySQLdb.connections"

#: COMMIT, ROLLBACK but to a savepoint, and what commits by itself.
_ENDS = re.compile(
    r"\s*(COMMIT|ROLLBACK(?!\s+(WORK\s+)?TO)|ALTER|CREATE(?!\s+TEMPORARY)|DROP(?!\s+TEMPORARY)|GRANT|RENAME|REVOKE"
    r"|SET\s+AUTOCOMMIT|TRUNCATE)\b",
    re.IGNORECASE,
)


class _Recorder(Recorder):
    name = "mysqlclient"

    def identify(self, connection: Any) -> tuple[str, str]:
        system = "mariadb" if "mariadb" in connection.get_server_info().lower() else "mysql"
        host, _, way = connection.get_host_info().partition(" via ")
        where = host if "TCP" not in way else f"{host}:{connection.port}"
        database = getattr(connection, "database", "")  # from 2.3 on it is there
        return system, f"{where}/{plain(database or '')}"

    def inside(self, call: Call) -> bool | None:
        is_begun = begun(call, _ENDS)
        if is_begun:
            return True
        return False if is_begun is None or call.connection.get_autocommit() else None

    def is_open(self, connection: Any) -> bool:
        return bool(connection.open)


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch the methods of mysqlclient's classes; connections opened before are seen too."""
    recorder, cursors, connection = _Recorder(module.Error), module.cursors, module.Connection
    for name in ("execute", "executemany", "callproc"):
        patches.replace(cursors.BaseCursor, name, getattr(recorder, name))
    for name in ("fetchall", "fetchmany"):
        patches.replace(cursors.CursorUseResultMixIn, name, recorder.fetch)
    patches.replace(connection, "query", recorder.query)
    patches.replace(connection, "select_db", recorder.select_db)
    for name, text in _COMMANDS.items():
        patches.replace(connection, name, recorder.command(text))


#: Methods that send a fixed statement by a way of their own. The server rolls back what `close` leaves open.
_COMMANDS = {"commit": "COMMIT", "rollback": "ROLLBACK", "autocommit": "SET autocommit", "close": "ROLLBACK"}
