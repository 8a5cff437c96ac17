"""OpenTelemetry's instrumentations of door and driver, a batch processor, and an exporter that drops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable


class Dropping(SpanExporter):
    def __init__(self) -> None:
        self.queries = 0

    def export(self, spans: Any) -> SpanExportResult:
        self.queries += sum("db.system" in (span.attributes or {}) for span in spans)
        return SpanExportResult.SUCCESS


def wrap(door: str, build: Callable[[], Any], *, driver: str = "pymysql", sampled: bool = True) -> Tool:
    exporter = Dropping()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON if sampled else ALWAYS_OFF))
    processor = BatchSpanProcessor(exporter, max_queue_size=100_000, max_export_batch_size=100_000)
    provider.add_span_processor(processor)
    _instrument_driver(driver, provider)
    app = _instrument_door(door, build, provider)

    def seen(_: object) -> int:
        exporter.queries = 0
        processor.force_flush()
        return exporter.queries

    return Tool(app, processor.force_flush, seen)


def _instrument_driver(driver: str, provider: Any) -> None:
    if driver == "pymysql":
        from opentelemetry.instrumentation.pymysql import PyMySQLInstrumentor as Instrumentor
    else:
        from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor as Instrumentor
    Instrumentor().instrument(tracer_provider=provider)


def _instrument_door(door: str, build: Callable[[], Any], provider: Any) -> Any:
    if door == "wsgi":
        from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

        return OpenTelemetryMiddleware(build(), tracer_provider=provider)
    if door == "asgi":
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as OpenTelemetryASGI

        return OpenTelemetryASGI(build(), tracer_provider=provider)
    if door == "django":
        from opentelemetry.instrumentation.django import DjangoInstrumentor

        from benchmarks.overhead import django_site

        django_site.configure()
        DjangoInstrumentor().instrument(tracer_provider=provider)
        return build()
    app = build()
    if door == "flask":
        from opentelemetry.instrumentation.flask import FlaskInstrumentor as Instrumentor
    else:
        from opentelemetry.instrumentation.starlette import StarletteInstrumentor as Instrumentor
    Instrumentor.instrument_app(app, tracer_provider=provider)
    return app
