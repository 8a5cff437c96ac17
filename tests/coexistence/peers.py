"""The tools we live beside, behind three verbs: install, uninstall, and what each saw.

Nothing leaves the process: what a peer would send is taken where it hands it over. `queries` are the texts of the
statements it recorded, `requests` how many requests; `doors` wraps an application as the peer's own manual does.
"""

from __future__ import annotations

import os


class Peer:
    """A tool that patches nothing by itself.

    Attributes:
        django_apps: What it wants in Django's INSTALLED_APPS.
        django_middleware: What it wants in Django's MIDDLEWARE.

    """

    django_apps = ()
    django_middleware = ()

    def __init__(self):
        self.queries = []
        self.requests = 0

    def install(self, framework):
        """Patch what the tool patches for an application of this framework."""

    def watch(self):
        """Look into a tool that can be looked into only when the application is there."""

    def uninstall(self):
        """Take that back, as far as the tool can."""

    def wsgi(self, app):
        """The application in the tool's own WSGI middleware, where it has one."""
        return app

    def asgi(self, app):
        """The application in the tool's own ASGI middleware, where it has one."""
        return app


class OpenTelemetry(Peer):
    """The SDK with a span processor of our own in place of an exporter."""

    def install(self, framework):
        from opentelemetry import trace
        from opentelemetry.instrumentation.pymysql import PyMySQLInstrumentor
        from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

        class Taken(SpanProcessor):
            def on_end(_, span):  # noqa: N805 - the peer is the self that matters
                if span.kind is trace.SpanKind.SERVER:
                    self.requests += 1
                if statement := span.attributes.get("db.statement"):
                    self.queries.append(statement)

        provider = TracerProvider()
        provider.add_span_processor(Taken())
        trace.set_tracer_provider(provider)
        self.instrumentors = [SQLite3Instrumentor(), PyMySQLInstrumentor()]
        if framework == "flask":
            from opentelemetry.instrumentation.flask import FlaskInstrumentor

            self.instrumentors.append(FlaskInstrumentor())
        if framework == "django":
            from opentelemetry.instrumentation.django import DjangoInstrumentor

            self.instrumentors.append(DjangoInstrumentor())
        self.wraps = framework == "raw"
        for instrumentor in self.instrumentors:
            instrumentor.instrument()

    def uninstall(self):
        for instrumentor in self.instrumentors:
            instrumentor.uninstrument()

    def wsgi(self, app):
        from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

        return OpenTelemetryMiddleware(app) if self.wraps else app

    def asgi(self, app):
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        return OpenTelemetryMiddleware(app) if self.wraps else app


class Ddtrace(Peer):
    """The tracer with a filter that keeps every trace from being sent."""

    def install(self, framework):
        os.environ |= {"DD_INSTRUMENTATION_TELEMETRY_ENABLED": "0", "DD_REMOTE_CONFIGURATION_ENABLED": "0"}
        import ddtrace
        from ddtrace.trace import TraceFilter, tracer

        class Taken(TraceFilter):
            def process_trace(_, trace):  # noqa: N805 - the peer is the self that matters
                self.requests += sum(span.parent_id is None for span in trace)
                self.queries += [span.resource for span in trace if span.name in ("sqlite.query", "pymysql.query")]

        tracer.configure(trace_processors=[Taken()])
        integrations = {"flask": {"flask": True}, "django": {"django": True}}.get(framework, {})
        ddtrace.patch(sqlite3=True, pymysql=True, raise_errors=True, **integrations)
        self.wraps = framework == "raw"

    def uninstall(self):
        from ddtrace.contrib.internal.pymysql.patch import unpatch as leave_pymysql
        from ddtrace.contrib.internal.sqlite3.patch import unpatch as leave_sqlite3

        leave_pymysql()
        leave_sqlite3()

    def wsgi(self, app):
        from ddtrace.contrib.wsgi import DDWSGIMiddleware

        return DDWSGIMiddleware(app) if self.wraps else app

    def asgi(self, app):
        from ddtrace.contrib.asgi import TraceMiddleware

        return TraceMiddleware(app) if self.wraps else app


class NewRelic(Peer):
    """The agent in developer mode, which speaks to nobody; it cannot be uninstalled."""

    def install(self, framework):
        os.environ |= {
            "NEW_RELIC_DEVELOPER_MODE": "true",
            "NEW_RELIC_LICENSE_KEY": "0" * 40,
            "NEW_RELIC_LOG": os.devnull,
        }
        import newrelic.agent
        from newrelic.core.stats_engine import StatsEngine

        newrelic.agent.initialize()
        newrelic.agent.register_application(timeout=10)
        record = StatsEngine.record_transaction

        def taken(engine, transaction):
            self.requests += 1
            self._walk(transaction.root)
            return record(engine, transaction)

        StatsEngine.record_transaction = taken
        self.wraps = framework == "raw"

    def _walk(self, node):
        if type(node).__name__ == "DatabaseNode":
            self.queries.append(node.sql)
        for child in getattr(node, "children", ()):
            self._walk(child)

    def wsgi(self, app):
        from newrelic.agent import WSGIApplicationWrapper

        return WSGIApplicationWrapper(app) if self.wraps else app

    def asgi(self, app):
        from newrelic.agent import ASGIApplicationWrapper

        return ASGIApplicationWrapper(app) if self.wraps else app


class Sentry(Peer):
    """The SDK with a transport that keeps what it is given; it cannot be uninstalled, and sees no driver by itself."""

    def install(self, framework):
        import sentry_sdk
        from sentry_sdk.transport import Transport

        class Taken(Transport):
            def capture_envelope(_, envelope):  # noqa: N805 - the peer is the self that matters
                transaction = envelope.get_transaction_event()
                if transaction is not None:
                    self.requests += 1
                    self.queries += [s["description"] for s in transaction["spans"] if s["op"].startswith("db")]

        sentry_sdk.init(
            dsn="http://key@localhost/1",
            transport=Taken,
            traces_sample_rate=1.0,
            auto_session_tracking=False,
            auto_enabling_integrations=False,
            integrations=_sentry_integrations(framework),
        )
        self.wraps = framework == "raw"

    def wsgi(self, app):
        from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

        return SentryWsgiMiddleware(app) if self.wraps else app

    def asgi(self, app):
        from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

        return SentryAsgiMiddleware(app) if self.wraps else app


def _sentry_integrations(framework):
    """What Sentry would find by itself, without importing all that is installed."""
    if framework == "django":
        from sentry_sdk.integrations.django import DjangoIntegration

        return [DjangoIntegration()]
    if framework == "flask":
        from sentry_sdk.integrations.flask import FlaskIntegration
        from sentry_sdk.integrations.sqlalchemy import SqlalchemyIntegration

        return [FlaskIntegration(), SqlalchemyIntegration()]
    return []


class DebugToolbar(Peer):
    """Django's debug toolbar; it wraps the cursors of each request and has no uninstalling."""

    django_apps = ("debug_toolbar",)
    django_middleware = ("debug_toolbar.middleware.DebugToolbarMiddleware",)

    def watch(self):
        from debug_toolbar.panels.sql.panel import SQLPanel

        generate = SQLPanel.generate_stats

        def taken(panel, request, response):
            self.requests += 1
            self.queries += [query["sql"] for query in panel._queries]
            return generate(panel, request, response)

        SQLPanel.generate_stats = taken


class Silk(Peer):
    """django-silk, which keeps what it saw of the ORM in the application's own database, inside the request."""

    django_apps = ("silk",)
    django_middleware = ("silk.middleware.SilkyMiddleware",)

    def watch(self):
        from silk.collector import DataCollector

        finalise = DataCollector().finalise

        def taken():
            self.requests += 1
            self.queries += [query["query"] for query in DataCollector().queries.values()]
            return finalise()

        DataCollector().finalise = taken


PEERS = {
    "opentelemetry": OpenTelemetry,
    "ddtrace": Ddtrace,
    "newrelic": NewRelic,
    "sentry": Sentry,
    "debug_toolbar": DebugToolbar,
    "silk": Silk,
}
