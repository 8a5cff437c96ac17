"""Route names from the frameworks: one file each, hooked like the drivers when the application imports them.

`werkzeug` (and so Flask) and `django` tell the open profile which template matched; `starlette` (and FastAPI)
leaves it in the ASGI scope, where the door reads it.
"""

from __future__ import annotations

from importlib import import_module

from perf_middleware.collector.hooking import Hook

_HOOKED = ("werkzeug", "django")
_hooks: dict[str, Hook] = {}


def install() -> None:
    """Hook the frameworks that leave no trace a door could read; once per process."""
    for name in _HOOKED:
        if name not in _hooks:
            hook = _hooks[name] = Hook(import_module(f"{__name__}.{name}"))
            hook.install()


def uninstall() -> None:
    """Restore what `install` touched."""
    for hook in _hooks.values():
        hook.uninstall()
    _hooks.clear()
