"""MySQL Connector/Python's interface for asyncio (module mysql.connector.aio)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perf_middleware.collector.drivers.mysql_connector import ConnectorRecorder

if TYPE_CHECKING:
    from types import ModuleType

    from perf_middleware.collector.patching import Patches

MODULE = "mysql.connector.aio"


class _Recorder(ConnectorRecorder):
    name = "mysql_connector_aio"
    awaits = True


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch the methods of the interface's classes; connections opened before are seen too."""
    recorder = _Recorder(module.connection.Error)
    recorder.patch_cursors(module.cursor, patches)
    recorder.patch_connection(module.MySQLConnection, patches)
    patches.replace(module.MySQLConnection, "cmd_query_iter", recorder.execution(awaits=False))
    if hasattr(module, "MySQLConnectionPool"):  # since 9.5
        patches.replace(module.MySQLConnectionPool, "get_connection", recorder.checkout)
