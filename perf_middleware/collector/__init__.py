"""Collecting queries: driver hooks that note facts into the open profile.

`install("pymysql")` and `uninstall("pymysql")` are counted, so each part of a program may call them; without
names they mean every driver known. A driver is hooked when the application has imported it, or imports it.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import TYPE_CHECKING

from perf_middleware.collector.context import unattributed
from perf_middleware.collector.hooking import Hook, Hookable
from perf_middleware.collector.patching import Patches
from perf_middleware.collector.propagating import propagate
from perf_middleware.errors import OptionError
from perf_middleware.extensions import extensions

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "Hookable",
    "Patches",
    "hooks",
    "install",
    "install_dbapi",
    "known",
    "propagate",
    "status",
    "unattributed",
    "uninstall",
    "uninstall_dbapi",
]


class _File:
    """A file of ours, imported when the module is that it waits for: an application has few of them."""

    def __init__(self, path: str, module: str) -> None:
        self.MODULE = module
        self._path = path

    def hook(self, module: ModuleType, patches: Patches) -> None:
        """Have the file hook the module."""
        import_module(f"{__name__}.{self._path}").hook(module, patches)


#: Ours by name.
_DRIVERS = {
    name: _File(f"drivers.{name}", module)
    for name, module in {
        "pymysql": "pymysql",
        "aiomysql": "aiomysql",
        "aiosqlite": "aiosqlite",
        "asyncmy": "asyncmy",
        "asyncpg": "asyncpg",
        "mysql_connector": "mysql.connector",
        "mysql_connector_aio": "mysql.connector.aio",
        "mysqlclient": "MySQLdb.connections",
        "psycopg": "psycopg",
        "psycopg2": "psycopg2",
        "psycopg_pool": "psycopg_pool",
        "sqlite3": "sqlite3",
    }.items()
}

#: Layers over them, which annotate what a driver notes, or note it where no driver does.
_LAYERS = {
    "django": _File("layers.django", "django.db.models"),
    "sqlalchemy": _File("layers.sqlalchemy", "sqlalchemy"),
}

_OURS = _DRIVERS | _LAYERS

_hooks: dict[str, Hook] = {}
_lock = threading.RLock()


def known() -> tuple[str, ...]:
    """Names of all drivers that can be hooked: ours and third parties'."""
    return tuple(dict.fromkeys((*_OURS, *(point.name for point in extensions("drivers")))))


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


def install_dbapi(module: ModuleType, *, system: str) -> None:
    """Hook any module of PEP 249, for a driver that has no name here; counted as `install` is.

    Args:
        module: What the application connects with, such as `duckdb`.
        system: What it connects to, as OpenTelemetry's `db.system.name` has it: "duckdb", "oracle.db", ...

    Raises:
        OptionError: For a module whose driver has a name here.

    """
    from perf_middleware.collector.dbapi import Module  # noqa: PLC0415 - hardly any application asks for it

    name = module.__name__
    with _lock:
        known_by = [ours for ours, file in _DRIVERS.items() if f"{file.MODULE}.".startswith(f"{name}.")]
        if known_by:
            raise OptionError(f"install_dbapi: {name} is seen by a driver: install({known_by[0]!r})")
        if name not in _hooks:
            _hooks[name] = Hook(Module(module, system))
        _hooks[name].install()


def uninstall_dbapi(module: ModuleType) -> None:
    """Undo one `install_dbapi` of a module; the last one restores every attribute touched."""
    with _lock:
        if module.__name__ in _hooks:
            _hooks[module.__name__].uninstall()


def status() -> dict[str, str]:
    """For each driver that was asked for: hooked, waiting for import, not hooked, or uninstalled."""
    return {name: hook.status() for name, hook in _hooks.items()}


def hooks(*names: str) -> dict[str, Hook]:
    """The hooks of the named drivers, installed or not, or of those that were asked for until now.

    Raises:
        OptionError: For a name nobody has, or a third party's driver that cannot be loaded.

    """
    with _lock:
        return {name: _hook(name) for name in names} if names else dict(_hooks)


def _hook(name: str) -> Hook:
    hook = _hooks.get(name)
    if hook is None:
        hook = _hooks[name] = Hook(_load(name))
    return hook


def _load(name: str) -> Hookable:
    if name in _OURS:
        return _OURS[name]
    for point in extensions("drivers"):
        if point.name == name:
            try:
                driver: Hookable = point.load()
            except Exception as error:
                raise OptionError(f"drivers: {name!r} cannot be loaded from {point.value}: {error}") from error
            return driver
    raise OptionError(f"drivers: unknown name {name!r}; known: {', '.join(known())}")
