"""Starlette and FastAPI: the route left in the ASGI scope, under the templates of the mounts that led to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_MAX_PREFIXES: Final = 10_000
_MAX_DEPTH: Final = 20

#: Prefix by the route's identity; the route is kept beside it so that the identity stays its own.
_prefixes: dict[int, tuple[Any, str]] = {}


def route_of(scope: MutableMapping[str, Any], app: Any, root_path: str) -> str | None:
    """The template of the route that answered ("/shop/{tenant}/orders/{id}"), or None when no route matched.

    `app` and `root_path` are what the scope said at the door: the mounts are looked for below them.
    """
    route = scope.get("route")
    path = getattr(route, "path", None)
    if not isinstance(path, str):
        return None
    context = (scope.get("fastapi") or {}).get("effective_route_context")
    if (
        context is not None and getattr(context, "original_route", None) is route
    ):  # FastAPI's included routers: the path with their prefixes
        path = str(context.path)
    if scope.get("root_path", "") == root_path:
        return path
    return _prefix(app, route) + path


def _prefix(app: Any, route: Any) -> str:
    known = _prefixes.get(id(route))
    if known is None:
        if len(_prefixes) >= _MAX_PREFIXES:
            _prefixes.clear()
        known = _prefixes[id(route)] = (route, _search(app, route, _MAX_DEPTH) or "")
    return known[1]


def _search(holder: Any, route: Any, depth: int) -> str | None:
    """The templates of the mounts between an application and a route below it; None when it is not there."""
    for child in _routes(holder, depth):
        if child is route:
            return ""
        if depth:
            below = _search(child, route, depth - 1)
            if below is not None:
                is_mount = hasattr(child, "app") and isinstance(getattr(child, "path", None), str)
                return f"{child.path}{below}" if is_mount else below
    return None


def _routes(holder: Any, depth: int) -> list[Any]:
    """The routes of an application, router, mount or included router, whatever wraps it."""
    while holder is not None and depth:
        routes = getattr(holder, "routes", None)
        if routes:
            return list(routes)
        holder = getattr(holder, "app", None) or getattr(holder, "original_router", None)
        depth -= 1
    return []
