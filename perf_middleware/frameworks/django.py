"""Django, WSGI and ASGI: the template that `resolve_request` found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType, ModuleType

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.patching import Patches

MODULE = "django.core.handlers.base"


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch `BaseHandler.resolve_request`, which both handlers call and which has no signal of its own."""
    patches.replace(module.BaseHandler, "resolve_request", _resolve_request)


def _resolve_request(original: Any, get: Callable[[], Capture | None]) -> FunctionType:
    def resolve_request(self: Any, request: Any) -> Any:
        match = original(self, request)
        capture = get()
        if capture is not None and capture.route is None:
            try:
                capture.route = f"/{match.route}" if isinstance(match.route, str) else None
            except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
                fault("django", error)
        return match

    return resolve_request  # type: ignore[return-value]
