"""Werkzeug and Flask: the rule that `MapAdapter.match` found.

Where a dispatcher mounted the application is not part of it: `SCRIPT_NAME` comes from the path, not from a template.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType, ModuleType

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.patching import Patches

MODULE = "werkzeug.routing"


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch `MapAdapter.match`; the first match of a request is its route."""
    patches.replace(module.MapAdapter, "match", _match)


def _match(original: Any, get: Callable[[], Capture | None]) -> FunctionType:
    def match(  # noqa: PLR0917 - werkzeug's own signature
        self: Any,
        path_info: Any = None,
        method: Any = None,
        return_rule: bool = False,  # noqa: FBT001, FBT002
        query_args: Any = None,
        websocket: Any = None,
    ) -> Any:
        capture = get()
        if capture is None or capture.route is not None:
            return original(self, path_info, method, return_rule, query_args, websocket)
        rule, arguments = original(self, path_info, method, True, query_args, websocket)  # noqa: FBT003
        try:
            capture.route = rule.rule
        except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
            fault("werkzeug", error)
        return (rule, arguments) if return_rule else (rule.endpoint, arguments)

    return match  # type: ignore[return-value]
