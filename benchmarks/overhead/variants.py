"""The table of everything that is measured; a variant is measured against the bare application of its own setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Variant:
    """One way of watching one application.

    Attributes:
        name: On the command line.
        label: In the tables.
        tool: "module:function" that wraps the application; None for the bare one.
        door: See `doors`.
        driver: See `databases`.
        texts_differ: Every statement has a text of its own.
        options: Keywords of the function.
        imports: The modules that an application imports to be watched so.

    """

    name: str
    label: str
    tool: str | None = None
    door: str = "wsgi"
    driver: str = "pymysql"
    texts_differ: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    imports: tuple[str, ...] = ()

    @property
    def setting(self) -> tuple[str, str, bool]:
        """What a variant shares with the bare application it is compared with."""
        return self.door, self.driver, self.texts_differ

    @property
    def server(self) -> str | None:
        """The server of the benchmark's own that it needs: "mariadb" or "valkey"."""
        if self.driver == "mariadb":
            return "mariadb"
        return "valkey" if self.options.get("store") == "redis" else None

    @property
    def bare(self) -> str:
        """Name of that bare application."""
        return BARE[self.setting]


_HERE = "benchmarks.overhead"
_OURS, _FLOOR, _OTEL = f"{_HERE}.ours:wrap", f"{_HERE}.floor:wrap", f"{_HERE}.peers.opentelemetry:wrap"

FLOOR = (
    Variant("floor-clocks", "two clock reads and an append", _FLOOR, options={"level": "clocks"}),
    Variant("floor-fingerprint", "+ fingerprint", _FLOOR, options={"level": "fingerprint"}),
    Variant("floor-caller", "+ caller", _FLOOR, options={"level": "caller"}),
    Variant("floor-full", "full: headers, N+1, one JSON line", _FLOOR, options={"level": "full"}),
    Variant("floor-texts", "full, every text different", _FLOOR, texts_differ=True, options={"level": "full"}),
)

OURS = (
    Variant("ours", "perf-middleware", _OURS, imports=("perf_middleware.wsgi",)),
    Variant("ours-no-callers", "callers off", _OURS, options={"capture_callers": False}),
    Variant("ours-no-detectors", "detectors off", _OURS, options={"detectors": []}),
    Variant("ours-sample-0", "sample_rate=0", _OURS, options={"sample_rate": 0.0}),
    Variant("ours-texts", "every text different", _OURS, texts_differ=True),
    Variant("ours-disabled", "enabled=False", _OURS, options={"enabled": False}),
    Variant("ours-sqlite", "sqlite store", _OURS, options={"store": "sqlite"}),
    Variant("ours-redis", "redis store (Valkey)", _OURS, options={"store": "redis"}),
    Variant("ours-log", "log on", f"{_HERE}.logs:wrap"),
    Variant("direct-log", "bare, one such line logged directly", f"{_HERE}.logs:direct"),
)

PEERS = (
    Variant(
        "otel",
        "OpenTelemetry wsgi + pymysql",
        _OTEL,
        imports=(
            "opentelemetry.sdk.trace.export",
            "opentelemetry.instrumentation.wsgi",
            "opentelemetry.instrumentation.pymysql",
        ),
    ),
    Variant("otel-unsampled", "OpenTelemetry, sampled out", _OTEL, options={"sampled": False}),
    Variant(
        "ddtrace",
        "ddtrace",
        f"{_HERE}.peers.datadog:wrap",
        imports=("ddtrace.trace", "ddtrace.contrib.wsgi", "ddtrace.contrib.internal.pymysql.patch"),
    ),
    Variant("elastic-apm", "elastic-apm", f"{_HERE}.peers.elastic_apm:wrap", imports=("elasticapm",)),
    Variant("newrelic", "newrelic (developer mode)", f"{_HERE}.peers.new_relic:wrap", imports=("newrelic.agent",)),
    Variant(
        "sentry", "sentry-sdk", f"{_HERE}.peers.sentry:wrap", imports=("sentry_sdk", "sentry_sdk.integrations.wsgi")
    ),
    Variant("queryspy", "queryspy", f"{_HERE}.peers.queryspy:wrap", imports=("queryspy.wsgi",)),
    Variant(
        "werkzeug-profiler",
        "werkzeug ProfilerMiddleware",
        f"{_HERE}.peers.werkzeug_profiler:wrap",
        imports=("werkzeug.middleware.profiler",),
    ),
)


def _trio(
    name: str, label: str, *, door: str = "wsgi", driver: str = "pymysql", otel: str = "pymysql"
) -> list[Variant]:
    """Bare, ours and OpenTelemetry behind one door, before one driver."""
    setting = {"door": door, "driver": driver}
    return [
        Variant(f"bare-{name}", f"{label}, bare", **setting),
        Variant(f"ours-{name}", f"{label}, perf-middleware", _OURS, **setting),
        Variant(f"otel-{name}", f"{label}, OpenTelemetry", _OTEL, **setting, options={"driver": otel}),
    ]


DOORS = (
    *_trio("asgi", "ASGI", door="asgi"),
    *_trio("flask", "Flask", door="flask"),
    *_trio("starlette", "Starlette", door="starlette"),
    *_trio("django", "Django", door="django"),
)

DRIVERS = (
    *_trio("mariadb", "PyMySQL, MariaDB", driver="mariadb"),
    *_trio("sqlite3", "sqlite3", driver="sqlite3", otel="sqlite3"),
    *_trio("sqlalchemy", "SQLAlchemy, sqlite3", driver="sqlalchemy", otel="sqlite3"),
    Variant("sentry-sqlalchemy", "SQLAlchemy, sentry-sdk", f"{_HERE}.peers.sentry:wrap", driver="sqlalchemy"),
    Variant("queryspy-sqlalchemy", "SQLAlchemy, queryspy", f"{_HERE}.peers.queryspy:wrap", driver="sqlalchemy"),
    *_trio("orm", "Django's ORM, sqlite3", door="django", driver="django", otel="sqlite3"),
    Variant("silk-orm", "Django's ORM, django-silk", f"{_HERE}.peers.django_silk:wrap", door="django", driver="django"),
    Variant(
        "toolbar-orm",
        "Django's ORM, debug-toolbar",
        f"{_HERE}.peers.django_debug_toolbar:wrap",
        door="django",
        driver="django",
    ),
)

_TABLE = (
    Variant("bare", "bare"),
    Variant("bare-texts", "bare, every text different", texts_differ=True),
    *FLOOR,
    *OURS,
    *PEERS,
    *DOORS,
    *DRIVERS,
)

VARIANTS = {variant.name: variant for variant in _TABLE}
BARE = {variant.setting: variant.name for variant in _TABLE if variant.tool is None}
