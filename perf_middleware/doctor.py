"""What this process knows about itself: `diagnose()`, for an application to call and for `perf-middleware doctor`.

    from perf_middleware.doctor import diagnose

    @app.get("/internal/perf")
    def perf():
        return msgspec.to_builtins(diagnose())

It asks nothing of a database or a store and changes nothing; no door imports it.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from functools import cache
from itertools import pairwise
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

import perf_middleware
from perf_middleware import collector
from perf_middleware.errors import faults
from perf_middleware.pipeline import pipelines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perf_middleware.collector.hooking import Hook
    from perf_middleware.pipeline import Pipeline

SCHEMA: Final = 1

#: How often the clock is read to see whether it steps, and how finely: about a millisecond of reading.
CLOCK_READS: Final = 10_000


class DriverState(msgspec.Struct, frozen=True):
    """A driver that was asked for.

    Attributes:
        version: None while the application has not imported it, or where it does not say.
        status: As `collector.status()` has it: "hooked", "waiting for import", "not hooked", "uninstalled".
        patched: Attributes that are replaced by ours.
        others: The modules of other tools that have wrapped one of these attributes, the outermost first, by place.

    """

    name: str
    module: str
    version: str | None
    status: str
    patched: int
    others: dict[str, list[str]]


class PipelineState(msgspec.Struct, frozen=True):
    """What one door, or the blocks outside of any, report to.

    Attributes:
        store: Its URL without user, password and options.
        guard: See `Guard.status`.
        rolling: See `Rolling.status`.

    """

    service: str
    store: str
    guard: dict[str, Any]
    rolling: dict[str, Any]


class ClockState(msgspec.Struct, frozen=True):
    """The clock of every duration, `time.perf_counter_ns`.

    Attributes:
        resolution_ns: As the system has it.
        monotonic: Whether the system promises that it never steps back.
        reads: How often it was read to see,
        step_ns: the smallest step that was seen (None when it stood still), and
        steps_back: how often it went back.

    """

    implementation: str
    resolution_ns: float
    monotonic: bool
    reads: int
    step_ns: int | None
    steps_back: int


class Diagnosis(msgspec.Struct, frozen=True):
    """One process.

    Attributes:
        faults: Our own failures since the process started, by "place: ExceptionClass".
        unattributed: Queries that ran while no profile was open for them.

    """

    schema: int
    version: str
    python: str
    pid: int
    drivers: list[DriverState]
    pipelines: list[PipelineState]
    clock: ClockState
    faults: dict[str, int]
    unattributed: int


def diagnose() -> Diagnosis:
    """Look at this process: what is hooked and by whom else, what is shed, what reached the store, what failed."""
    return Diagnosis(
        schema=SCHEMA,
        version=perf_middleware.__version__,
        python=platform.python_version(),
        pid=os.getpid(),
        drivers=[_driver(name, hook) for name, hook in collector.hooks().items()],
        pipelines=[_pipeline(pipeline) for pipeline in pipelines()],
        clock=read_clock(),
        faults=dict(faults),
        unattributed=collector.unattributed.count,
    )


def read_clock(reads: int = CLOCK_READS) -> ClockState:
    """Read the clock so many times, and say what the system promises about it."""
    promised = time.get_clock_info("perf_counter")
    times_ns = [time.perf_counter_ns() for _ in range(reads)]
    steps_ns = [after - before for before, after in pairwise(times_ns)]
    return ClockState(
        implementation=promised.implementation,
        resolution_ns=promised.resolution * 1e9,
        monotonic=promised.monotonic,
        reads=reads,
        step_ns=min((step for step in steps_ns if step > 0), default=None),
        steps_back=sum(step < 0 for step in steps_ns),
    )


def version_of(module: str) -> str | None:
    """Version of an imported module's distribution, SQLite's for `sqlite3`; None where none says, or not imported."""
    from importlib import metadata  # noqa: PLC0415 - slow, and only who asks needs it

    package = module.partition(".")[0]
    if module == "sqlite3" and module in sys.modules:
        return str(sys.modules[module].sqlite_version)
    if module not in sys.modules or package not in _distributions():
        return None
    # `__version__` is not always its own: PyMySQL's is that of the mysqlclient it takes the place of.
    return metadata.version(_distributions()[package][0])


@cache
def _distributions() -> Mapping[str, list[str]]:
    from importlib import metadata  # noqa: PLC0415

    return metadata.packages_distributions()


def others_on(function: Any, module: str) -> list[str]:
    """The modules of the tools that have wrapped a function of `module`, the outermost first; not ours."""
    homes = {module.partition(".")[0], "perf_middleware", *sys.stdlib_module_names}
    found = []
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        home = _home(function)
        if home and home.partition(".")[0] not in homes:
            found.append(home)
        function = getattr(function, "__wrapped__", None)
    return found


def without_credentials(url: str) -> str:
    """A URL's scheme, host, port and path."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{url.partition('://')[0]}://..."
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_ours(thing: Any) -> bool:
    """Whether it is a function of our making; asks lazy objects nothing, which would wake them."""
    return type(thing) is FunctionType and thing.__globals__["__name__"].partition(".")[0] == "perf_middleware"


def _home(function: Any) -> str | None:
    """Name of the module whose code it is: a wrapper of wrapt's is its user's, and calls itself what it wraps."""
    function = getattr(function, "_self_wrapper", function)
    function = getattr(function, "__func__", function)
    home: str | None = getattr(function, "__globals__", {}).get("__name__")
    return home or getattr(type(function), "__module__", None)


def _driver(name: str, hook: Hook) -> DriverState:
    module = hook.target.MODULE
    places = hook.patches.places() if hook.patches else []
    others = {place: others_on(function, module) for place, function in places}
    return DriverState(
        name=name,
        module=module,
        version=version_of(module),
        status=hook.status(),
        patched=len(places),
        others={place: tools for place, tools in others.items() if tools},
    )


def _pipeline(pipeline: Pipeline) -> PipelineState:
    settings = pipeline.settings
    return PipelineState(
        service=settings.service,
        store=without_credentials(settings.store),
        guard=pipeline.guard.status(),
        rolling=pipeline.rolling.status(),
    )
