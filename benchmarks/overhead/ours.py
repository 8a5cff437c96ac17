"""This package, with the options of each variant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable

#: Everything on but the log line. The background thread gets its turn when the benchmark says so, not in between.
DEFAULT = {"service": "shop", "log": False, "flush_interval_s": 60.0}


def wrap(door: str, build: Callable[[], Any], **options: Any) -> Tool:
    """The application behind our door."""
    if door in ("asgi", "starlette"):
        from perf_middleware.asgi import PerfMiddleware
    else:
        from perf_middleware.wsgi import PerfMiddleware

    app = build()
    options = DEFAULT | options
    if door == "flask":
        inner = app.wsgi_app = PerfMiddleware(app.wsgi_app, **options)
        return Tool(app, _settle(inner))
    middleware = PerfMiddleware(app, **options)
    return Tool(middleware, _settle(middleware))


def _settle(middleware: Any) -> Callable[[], object]:
    if middleware.pipeline is None:
        return lambda: None

    def settle() -> None:
        if not middleware.pipeline.rolling.flush(60.0):
            raise RuntimeError(f"the store did not take everything: {middleware.pipeline.rolling.status()}")

    return settle
