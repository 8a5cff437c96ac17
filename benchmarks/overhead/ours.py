"""This package, with the options of each variant."""

from __future__ import annotations

import os
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from benchmarks.overhead.tool import Tool, nothing

if TYPE_CHECKING:
    from collections.abc import Callable

#: Everything on but the log line; the guard watches, and is content. The background thread gets its turn when the
#: benchmark says so, not in between.
DEFAULT = {"service": "shop", "flush_interval_s": 60.0, "max_overhead_percent": 10_000}


#: Where a test's own Valkey is; set by the parent.
VALKEY_ENVIRONMENT = "OVERHEAD_VALKEY"


def wrap(door: str, build: Callable[[], Any], *, store: str = "memory", log: bool = False, **options: Any) -> Tool:
    """The application behind our door."""
    if door in ("asgi", "starlette"):
        from perf_middleware.asgi import PerfMiddleware
    else:
        from perf_middleware.wsgi import PerfMiddleware

    app = build()
    middleware = PerfMiddleware(
        app.wsgi_app if door == "flask" else app, **(DEFAULT | options), store=_url(store), log=log
    )
    if door == "flask":
        app.wsgi_app = middleware
    else:
        app = middleware
    return Tool(app, _settle(middleware), _seen)


def _url(store: str) -> str:
    if store == "sqlite":
        return f"sqlite:///{mkdtemp(prefix='perf-')}/stats.sqlite3"
    return os.environ[VALKEY_ENVIRONMENT] if store == "redis" else "memory://"


def _settle(middleware: Any) -> Callable[[], object]:
    """What folds and sends everything that was recorded."""
    if middleware.pipeline is None:
        return nothing
    rolling = middleware.pipeline.rolling

    def settle() -> None:
        if not rolling.flush(60.0):
            raise RuntimeError(f"the store did not take everything: {rolling.status()}")

    return settle


def _seen(headers: dict[str, str]) -> int:
    return int(headers.get("x-perf-queries", 0))
