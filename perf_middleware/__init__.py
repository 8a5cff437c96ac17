"""perf_middleware: what each request costs in database work, what is wrong, and on which line."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = ["analyze", "collector", "profile", "propagate"]

if TYPE_CHECKING:
    from perf_middleware import collector
    from perf_middleware.block import profile
    from perf_middleware.collector import propagate
    from perf_middleware.detectors import analyze

_HOMES = {
    "analyze": "perf_middleware.detectors",
    "profile": "perf_middleware.block",
    "propagate": "perf_middleware.collector",
}


def __getattr__(name: str) -> object:
    """Import the public names when they are asked for, so that reading `__version__` costs nothing."""
    from importlib import import_module  # noqa: PLC0415

    if name == "collector":
        return import_module("perf_middleware.collector")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
