"""psycopg_pool: how long a connection was waited for, less the time in which it was opened."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from perf_middleware.collector.drivers.psycopg import target_of
from perf_middleware.collector.postgresql import note_checkout
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType, ModuleType

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.patching import Patches

    Get = Callable[[], Capture | None]

MODULE = "psycopg_pool"


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch both pools; those that keep no connections inherit from them."""
    patches.replace(module.ConnectionPool, "getconn", _getconn)
    patches.replace(module.ConnectionPool, "_connect", _connect)
    patches.replace(module.AsyncConnectionPool, "getconn", _getconn_async)
    patches.replace(module.AsyncConnectionPool, "_connect", _connect_async)


def _getconn(original: Any, get: Get) -> FunctionType:
    def getconn(self: Any, timeout: Any = None) -> Any:
        capture = get()
        if capture is None:
            return original(self, timeout)
        connection, start_ns = None, perf_counter_ns()
        try:
            connection = original(self, timeout)
        finally:
            _note(capture, connection, start_ns)
        return connection

    return getconn  # type: ignore[return-value]


def _getconn_async(original: Any, get: Get) -> FunctionType:
    async def getconn(self: Any, timeout: Any = None) -> Any:  # noqa: ASYNC109 - the pool's own signature
        capture = get()
        if capture is None:
            return await original(self, timeout)
        connection, start_ns = None, perf_counter_ns()
        try:
            connection = await original(self, timeout)
        finally:
            _note(capture, connection, start_ns)
        return connection

    return getconn  # type: ignore[return-value]


def _connect(original: Any, get: Get) -> FunctionType:  # noqa: ARG001 - a pool connects in threads of its own, too
    def _connect(self: Any, timeout: Any = None) -> Any:
        opening_ns = perf_counter_ns()
        connection = original(self, timeout)
        _opened(connection, opening_ns)
        return connection

    return _connect  # type: ignore[return-value]


def _connect_async(original: Any, get: Get) -> FunctionType:  # noqa: ARG001 - likewise in tasks
    async def _connect(self: Any, timeout: Any = None) -> Any:  # noqa: ASYNC109 - the pool's own signature
        opening_ns = perf_counter_ns()
        connection = await original(self, timeout)
        _opened(connection, opening_ns)
        return connection

    return _connect  # type: ignore[return-value]


def _opened(connection: Any, opening_ns: int) -> None:
    try:
        target_of(connection).opening_ns = opening_ns
    except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
        fault("psycopg_pool", error)


def _note(capture: Capture, connection: Any, start_ns: int) -> None:
    try:
        note_checkout(capture, None if connection is None else target_of(connection), start_ns)
    except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
        fault("psycopg_pool", error)
