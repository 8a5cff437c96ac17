"""Collecting queries: driver hooks that note facts into the open profile.

`install("pymysql")` and `uninstall("pymysql")` are counted, so each part of a program may call them; without
names they mean every driver known. A driver is hooked when the application has imported it, or imports it.
"""

from __future__ import annotations

import threading
from importlib import import_module

from perf_middleware.collector.context import propagate, unattributed
from perf_middleware.collector.hooking import Hook, Hookable
from perf_middleware.collector.patching import Patches
from perf_middleware.errors import OptionError
from perf_middleware.extensions import extensions

__all__ = ["Hookable", "Patches", "install", "known", "propagate", "status", "unattributed", "uninstall"]

#: Ours by name; each is imported only when asked for.
_DRIVERS = {
    name: f"perf_middleware.collector.drivers.{name}"
    for name in ("asyncpg", "psycopg", "psycopg2", "psycopg_pool", "pymysql", "sqlite3")
}


_hooks: dict[str, Hook] = {}
_lock = threading.RLock()


def known() -> tuple[str, ...]:
    """Names of all drivers that can be hooked: ours and third parties'."""
    return tuple(dict.fromkeys((*_DRIVERS, *(point.name for point in extensions("drivers")))))


def install(*names: str) -> None:
    """Hook the named drivers, or all.

    Raises:
        OptionError: For a name nobody has, or a third party's driver that cannot be loaded.

    """
    with _lock:
        for hook in [_hook(name) for name in names or known()]:
            hook.install()


def uninstall(*names: str) -> None:
    """Undo one `install` of the named drivers, or of all; the last one restores every attribute touched.

    Raises:
        OptionError: For a name nobody has, or a third party's driver that cannot be loaded.

    """
    with _lock:
        for hook in [_hook(name) for name in names or known()]:
            hook.uninstall()


def status() -> dict[str, str]:
    """For each driver that was asked for: hooked, waiting for import, not hooked, or uninstalled."""
    return {name: hook.status() for name, hook in _hooks.items()}


def _hook(name: str) -> Hook:
    hook = _hooks.get(name)
    if hook is None:
        hook = _hooks[name] = Hook(_load(name))
    return hook


def _load(name: str) -> Hookable:
    if name in _DRIVERS:
        return import_module(_DRIVERS[name])
    for point in extensions("drivers"):
        if point.name == name:
            try:
                driver: Hookable = point.load()
            except Exception as error:
                raise OptionError(f"drivers: {name!r} cannot be loaded from {point.value}: {error}") from error
            return driver
    raise OptionError(f"drivers: unknown name {name!r}; known: {', '.join(known())}")
