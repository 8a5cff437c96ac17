"""The versions the tests ran with, which docs/coexistence.md cites."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "opentelemetry-instrumentation",
    "opentelemetry-sdk",
    "ddtrace",
    "newrelic",
    "sentry-sdk",
    "django-debug-toolbar",
    "django-silk",
    "pymysql",
    "sqlalchemy",
    "flask",
    "django",
)


def pytest_report_header():
    return "beside: " + ", ".join(f"{package} {_version(package)}" for package in PACKAGES)


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
