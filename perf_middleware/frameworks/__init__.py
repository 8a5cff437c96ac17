"""Route names from the frameworks: one file each, hooked like the drivers when the application imports them.

`werkzeug` (and so Flask) and `django` tell the open profile which template matched; `starlette` (and FastAPI)
leaves it in the ASGI scope, where the door reads it. Others join through the entry point group
`perf_middleware.frameworks`, with a `perf_middleware.collector.Hookable` that sets the open capture's `route`.
"""

from __future__ import annotations

from importlib import import_module

from perf_middleware.collector.hooking import Hook
from perf_middleware.errors import fault
from perf_middleware.extensions import extensions

_OURS = ("werkzeug", "django")
_hooks: dict[str, Hook] = {}


def install() -> None:
    """Hook the frameworks that leave no trace a door could read; once per process."""
    theirs = {point.name: point.load for point in extensions("frameworks")}
    for name in (*_OURS, *theirs):
        if name in _hooks:
            continue
        try:
            _hooks[name] = Hook(import_module(f"{__name__}.{name}") if name in _OURS else theirs[name]())
        except Exception as error:  # noqa: BLE001 - an extension that cannot be imported leaves its routes unnamed
            fault(f"framework {name}", error)
        else:
            _hooks[name].install()


def uninstall() -> None:
    """Restore what `install` touched."""
    for hook in _hooks.values():
        hook.uninstall()
    _hooks.clear()
