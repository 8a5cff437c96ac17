"""DuckDB for perf-middleware: its connections are their own cursors, of a compiled type that lets methods be replaced.

DuckDB tells neither whether a transaction is open nor, before they are fetched, how many rows there are: the first is
followed in the statements, and the second is what is taken by `fetchall` and `fetchmany`. Which file it is would have
to be asked for by a statement; so the record says the system alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.collector.calls import Recorder, begun

if TYPE_CHECKING:
    from types import ModuleType

    from perf_middleware.collector import Patches
    from perf_middleware.collector.calls import Call

#: The driver is hooked when the application has imported this module.
MODULE = "duckdb"


class DuckDB(Recorder):
    """What differs from other drivers."""

    name = "duckdb"  # in the log, where something of ours fails
    system = "duckdb"  # in the record
    through_query = False  # there is no method behind `execute` that could be hooked, too
    parameters = sets = "parameters"  # what `execute` and `executemany` call their second argument

    def connection(self, cursor: Any) -> Any:
        """A connection is its own cursor."""
        return cursor

    def inside(self, call: Call) -> bool | None:
        """DuckDB commits each statement by itself, but between BEGIN and COMMIT."""
        return bool(begun(call))


def hook(module: ModuleType, patches: Patches) -> None:
    """Replace the methods; the last `uninstall` gives back the very objects that were there."""
    recorder, connection = DuckDB(module.Error), module.DuckDBPyConnection
    for name in ("execute", "executemany"):
        patches.replace(connection, name, getattr(recorder, name))
    for name in ("fetchall", "fetchmany"):
        patches.replace(connection, name, recorder.fetch)
    for name, text in {"begin": "BEGIN", "commit": "COMMIT", "rollback": "ROLLBACK"}.items():
        patches.replace(connection, name, recorder.command(text))
