"""What one run measured; saved as JSON, and shown as tables."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from benchmarks.overhead.cost import Cost  # noqa: TC001 - msgspec reads the annotations
from benchmarks.overhead.promises import Promise  # noqa: TC001 - likewise

_PACKAGES = (
    "perf-middleware",
    "pymysql",
    "structlog",
    "flask",
    "starlette",
    "django",
    "sqlalchemy",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-pymysql",
    "ddtrace",
    "elastic-apm",
    "newrelic",
    "sentry-sdk",
    "queryspy",
    "werkzeug",
    "django-silk",
    "django-debug-toolbar",
)


class Import(msgspec.Struct, frozen=True):
    """CPU milliseconds and MiB of resident memory that importing a tool added."""

    ms: float
    mib: float


class Memory(msgspec.Struct, frozen=True):
    """MiB of resident memory after a third of the requests, and after all of them."""

    requests: int
    queries: int
    after_third_mib: float
    at_end_mib: float


class Measured(msgspec.Struct):
    """What was measured of one variant; None where it was not.

    Attributes:
        sees: Of ten queries, how many the tool noticed; "functions" when it does not tell queries.
        us: Microseconds of CPU time, median over rounds.
        timed_requests: In all rounds, for each number of queries.
        instructions: Counted on the request's thread.
        folding: Instructions of the thread in the background, for each request and query it folds and sends.
        imported: What importing it added.
        started: What it had added by the end of each stage (see `importing.STAGES`).
        memory: Of many requests.

    """

    sees: int | str | None = None
    us: Cost | None = None
    timed_requests: int = 0
    instructions: Cost | None = None
    folding: Cost | None = None
    imported: Import | None = None
    started: dict[str, Import] = {}
    memory: Memory | None = None


class Run(msgspec.Struct):
    """How the numbers came about.

    Attributes:
        rounds: Of the measurements of CPU time: fresh processes of each variant.
        import_rounds: Fresh processes for each import.

    """

    date: str
    commit: str
    python: str
    processor: str
    cores: int
    versions: dict[str, str]
    rounds: int = 0
    import_rounds: int = 0


class Results(msgspec.Struct):
    """All of one run."""

    run: Run
    measured: dict[str, Measured] = {}
    promises: list[Promise] = []


def this_run() -> Run:
    """Date, versions and machine."""
    return Run(
        date=datetime.now(UTC).date().isoformat(),
        commit=_printed_by("git", "rev-parse", "--short", "HEAD"),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        versions={name: version(name) for name in _PACKAGES} | _programs(),
    )


def _programs() -> dict[str, str]:
    """Versions of the programs, by the first number that they print."""
    printed = {name: _printed_by(name, "--version") for name in ("valgrind", "mariadbd") if shutil.which(name)}
    return {name: found[0] for name, text in printed.items() if (found := re.search(r"\d+(\.\d+)+", text))}


def _printed_by(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
