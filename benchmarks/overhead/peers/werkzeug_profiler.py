"""werkzeug's ProfilerMiddleware: cProfile around each request. It sees functions, not queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from werkzeug.middleware.profiler import ProfilerMiddleware

from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable


def wrap(_: str, build: Callable[[], Any]) -> Tool:
    return Tool(ProfilerMiddleware(build(), stream=Path("/dev/null").open("w")))
