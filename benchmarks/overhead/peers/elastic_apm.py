"""elastic-apm: its PyMySQL instrumentation, and around each request what its Flask integration does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import elasticapm
from elasticapm.transport.base import Transport
from elasticapm.utils.wsgi import get_environ, get_headers

from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable


class Dropping(Transport):
    queries = 0

    def queue(self, event_type: str, data: Any, flush: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the base
        self.queries += event_type == "span" and data["type"].startswith("db")

    def start_thread(self, pid: int | None = None) -> None:
        """There is nothing to send."""


def wrap(_: str, build: Callable[[], Any]) -> Tool:
    client = elasticapm.Client(
        service_name="shop",
        transport_class=f"{__name__}.Dropping",
        central_config=False,
        cloud_provider="none",
        metrics_sets=(),
        span_compression_enabled=False,  # it would fold the loop's queries into one span
    )
    elasticapm.instrument()
    inner = build()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        client.begin_transaction("request")
        elasticapm.set_context({"env": dict(get_environ(environ)), "headers": dict(get_headers(environ))}, "request")
        elasticapm.set_transaction_name("GET /orders", override=False)
        try:
            return inner(environ, start_response)
        finally:
            elasticapm.set_transaction_outcome(http_status_code=200, override=False)
            elasticapm.set_transaction_result("HTTP 2xx", override=False)
            client.end_transaction()

    def seen(_: object) -> int:
        transport = client._transport  # noqa: SLF001 - it is our own class
        count, transport.queries = transport.queries, 0
        return count

    return Tool(app, seen=seen)
