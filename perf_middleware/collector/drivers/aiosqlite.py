"""aiosqlite: each connection runs the calls of sqlite3 in a thread of its own, which knows no request.

The statements are sqlite3's to note, and its hook has to be installed too. Here what is handed to the thread is made
to count to the profile of whoever awaits it, on that line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.collector.patching import NOBODY
from perf_middleware.collector.propagating import carried

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType, ModuleType

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.patching import Patches

MODULE = "aiosqlite"

_NOBODYS = (None, NOBODY)


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch the one method that everything goes through; connections opened before are seen if sqlite3 saw them."""
    from inspect import iscoroutinefunction  # noqa: PLC0415 - whoever has no aiosqlite need not have it

    if not iscoroutinefunction(module.Connection._execute):  # noqa: SLF001 - where all of them hand over, since 0.10
        raise TypeError("aiosqlite.Connection._execute is no coroutine function")
    patches.replace(module.Connection, "_execute", _execute)


def _execute(original: Any, get: Callable[[], Capture | None]) -> FunctionType:
    async def _execute(self: Any, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return await original(self, fn if get() in _NOBODYS else carried(fn), *args, **kwargs)

    return _execute  # type: ignore[return-value]
