"""Seeing C types through subclasses: our layer stands directly on the driver's class, below a caller's own."""

from __future__ import annotations

import gc
import types
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from perf_middleware.collector.context import current, unattributed
from perf_middleware.errors import fault, warn

if TYPE_CHECKING:
    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.patching import Patches


def traced(factory: Any, base: type, layer: type, driver: str) -> Any:
    """The factory's class with our layer in its ancestry, above the driver's `base`.

    The factory itself where that cannot be, which is a fault.

    One with `perf_middleware_ignore` is never touched.
    """
    if is_ignored(factory):
        return factory
    if not isinstance(factory, type) or not issubclass(factory, base):
        fault(f"{driver}: a factory that is no class of {driver}'s", TypeError())
        return factory
    try:
        return _subclass(factory, base, layer)  # type: ignore[arg-type] # classes are hashable
    except Exception as error:  # noqa: BLE001 - a class may refuse to be subclassed
        fault(f"{driver}: a factory that cannot be subclassed", error)
        return factory


def open_capture(patches: Patches) -> Capture | None:
    """The open profile's; without one the query is unattributed, unless the hooks are uninstalled."""
    if not patches.active:
        return None
    capture = current.get()
    if capture is None:
        unattributed.add()
    return capture


def is_ignored(factory: Any) -> bool:
    """Whether a factory asks not to be touched."""
    return bool(getattr(factory, "perf_middleware_ignore", False))


def named_like(base: type, layer: type) -> type:
    """The layer, known by the name of what it stands on."""
    layer.__name__, layer.__qualname__, layer.__module__ = base.__name__, base.__qualname__, base.__module__
    layer.__doc__ = base.__doc__
    return layer


def tell_of_open(connection: type, driver: str) -> None:
    """Say once that what the open connections run will not be seen, rather than let it count as nothing."""
    # `type` and not `isinstance`, which asks lazy objects for their class and so wakes them.
    classes = [type(thing) for thing in gc.get_objects()]
    opened = sum(issubclass(kind, connection) and not is_ignored(kind) for kind in classes)
    if opened:
        warn(
            "%s: %d connections were opened before perf_middleware hooked the driver and are not seen; "
            "call perf_middleware.collector.install() before the application opens them",
            driver,
            opened,
        )


@lru_cache(maxsize=256)
def _subclass(kind: type, base: type, layer: type) -> type:
    if issubclass(kind, layer):
        return kind
    if kind is base:
        return layer
    return named_like(kind, types.new_class(kind.__name__, (kind, layer)))
