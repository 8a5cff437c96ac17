"""queryspy's WSGI middleware. It sees what goes through SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from queryspy.wsgi import QuerySpyMiddleware

from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable


def wrap(_: str, build: Callable[[], Any]) -> Tool:
    return Tool(QuerySpyMiddleware(build()), seen=lambda headers: int(headers["x-queryspy-queries"]))
