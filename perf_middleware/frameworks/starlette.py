"""Starlette and FastAPI: the route left in the ASGI scope, under the templates of the mounts that led to it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

_MAX_ROUTES: Final = 10_000
_MAX_DEPTH: Final = 20
_PARAMETER: Final = re.compile(r"\\{[^{}]*\\}")

#: The templates of the mounts above a route, by its identity, with the route, so that its identity stays its own.
_mounts: dict[int, tuple[Any, list[str]]] = {}


def route_of(scope: MutableMapping[str, Any], app: Any, root_path: str) -> str | None:
    """The template of the route that answered ("/shop/{tenant}/orders/{id}"), or None when no route matched.

    `app` and `root_path` are what the scope said at the door: the mounts are looked for below them.
    """
    route = scope.get("route")
    path = getattr(route, "path", None)
    if not isinstance(path, str):
        return None
    context = (scope.get("fastapi") or {}).get("effective_route_context")
    if context is not None and context.original_route is route:  # FastAPI's included routers have their prefixes there
        path = str(context.path)
    below = scope.get("root_path", "").removeprefix(root_path)
    return _prefix(app, route, below) + path if below else path


def _prefix(app: Any, route: Any, mounted_at: str) -> str:
    """The template of the mounts that led to a route; where several do, the one that fits the path they matched."""
    if id(route) not in _mounts:
        if len(_mounts) >= _MAX_ROUTES:
            _mounts.clear()
        _mounts[id(route)] = (route, list(_search(app, route, _MAX_DEPTH)) or [""])
    templates = _mounts[id(route)][1]
    return next((template for template in templates if _fits(template, mounted_at)), templates[0])


def _fits(template: str, path: str) -> bool:
    return re.fullmatch(_PARAMETER.sub(".+", re.escape(template)), path) is not None


def _search(holder: Any, route: Any, depth: int) -> Iterator[str]:
    """The templates of the mounts between an application and a route below it, one for each way there."""
    for child in _routes(holder, depth):
        if child is route:
            yield ""
        elif depth:
            path = getattr(child, "path", None)
            mount = path if hasattr(child, "app") and isinstance(path, str) else ""
            for below in _search(child, route, depth - 1):
                yield mount + below


def _routes(holder: Any, depth: int) -> list[Any]:
    """The routes of an application, router, mount or included router, whatever wraps it."""
    while holder is not None and depth:
        routes = getattr(holder, "routes", None)
        if routes:
            return list(routes)
        holder = getattr(holder, "app", None) or getattr(holder, "original_router", None)
        depth -= 1
    return []
