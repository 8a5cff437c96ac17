"""ddtrace: its WSGI middleware and PyMySQL patch; no agent, no telemetry, no remote configuration."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

os.environ |= {
    "DD_TRACE_STARTUP_LOGS": "false",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CRASHTRACKING_ENABLED": "false",
    "DD_TRACE_AGENT_URL": "unix:///nowhere",
}

from ddtrace import patch
from ddtrace.contrib.wsgi import DDWSGIMiddleware
from ddtrace.internal.writer import TraceWriter
from ddtrace.trace import tracer

from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable


class Dropping(TraceWriter):
    last: Any = ()

    def recreate(self, **_: Any) -> Dropping:
        return self

    def stop(self, timeout: float | None = None) -> None:
        """There is no thread."""

    def write(self, spans: Any = None) -> None:
        self.last = spans

    def flush_queue(self) -> None:
        """There is no queue."""


def wrap(_: str, build: Callable[[], Any]) -> Tool:
    aggregator = tracer._span_aggregator  # noqa: SLF001 - there is no public way to another writer
    writer = aggregator.writer = Dropping()
    patch(pymysql=True)
    app = DDWSGIMiddleware(build(), tracer=tracer)
    return Tool(app, seen=lambda _: sum(span.span_type == "sql" for span in writer.last))
