"""One variant in a fresh process: `python -m benchmarks.overhead.worker MEASURE VARIANT`; the last line is the result.

The parent (`processes.py`) starts it, under valgrind for instructions.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from socket import SOCK_STREAM
from statistics import median
from time import monotonic, process_time_ns
from typing import Any

from benchmarks.overhead import databases, doors
from benchmarks.overhead.tool import Tool
from benchmarks.overhead.variants import VARIANTS, Variant
from benchmarks.overhead.workload import QUERIES, Workload

#: Requests of the two batches whose difference is counted: what they share (the call, the marks) cancels out.
INSTRUCTION_BATCHES = (10, 40)

TIME_BATCHES = 9
FEW = QUERIES[1]
MEMORY_QUERIES = 50

#: Longer than the shortest window of rolling stats.
WINDOW_S = 11.0


class Served:
    """A variant at work."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        placeholder = databases.PLACEHOLDERS[variant.driver]
        self.workload = Workload(
            lambda: databases.connect(variant.driver), placeholder, texts_differ=variant.texts_differ
        )
        self.tool = wrap(variant, self.workload)
        self.serve = doors.server(variant.door, self.tool.app)

    def warm_up(self) -> None:
        """Let caches fill, and take what is there by now out of the garbage collector's sight, for all alike."""
        for queries in QUERIES:
            self.workload.queries = queries
            self.serve(2 * requests_in_batch(self.variant))
        self.tool.settle()
        gc.collect()
        gc.freeze()


def wrap(variant: Variant, load: Workload) -> Tool:
    """The variant's application in its tool."""

    def build():
        return doors.build(variant.door, load)

    if variant.tool is None:
        return Tool(build())
    module, function = variant.tool.split(":")
    return getattr(import_module(module), function)(variant.door, build, **variant.options)


def instructions(variant: Variant) -> None:
    """Serve batches between marks; callgrind writes what it counted at each of them (see `callgrind.py`)."""
    served = Served(variant)
    served.warm_up()
    for queries in QUERIES:
        served.workload.queries = queries
        for requests in INSTRUCTION_BATCHES:
            gc.collect()
            mark()
            served.serve(requests)
            mark()
            served.tool.settle()
            mark()


def time(variant: Variant) -> dict[int, float]:
    """Microseconds of process CPU time of one request, by queries a request: the median of interleaved batches."""
    served = Served(variant)
    served.warm_up()
    requests = requests_in_batch(variant)
    batches: dict[int, list[float]] = {queries: [] for queries in QUERIES}
    for _ in range(TIME_BATCHES):
        for queries, times in batches.items():
            served.workload.queries = queries
            served.tool.settle()
            gc.collect()
            start_ns = process_time_ns()
            served.serve(requests)
            times.append((process_time_ns() - start_ns) / requests / 1000)
    return {queries: median(times) for queries, times in batches.items()}


def requests_in_batch(variant: Variant) -> int:
    """Requests timed at once; fewer of those that take milliseconds."""
    return 4 if variant.driver == "django" else 20


def sees(variant: Variant) -> int | str:
    """How many of ten queries the tool noticed, while nothing but a server of the benchmark's own was contacted."""
    contacted = _contacted()
    served = Served(variant)
    seen = served.tool.seen
    count: int | str = 0
    for queries in (0, FEW):  # the first request connects
        served.workload.queries = queries
        headers = _by_name(served.serve(1))
        count = seen(headers) if seen else "functions"
    if contacted and variant.server is None:
        raise RuntimeError(f"{variant.name} opened connections: {contacted}")
    return count


def _contacted() -> list[str]:
    """Fills with the addresses that Python connects to from here on; a datagram socket sends nothing by connecting."""
    addresses: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and arguments[0].type == SOCK_STREAM:
            addresses.append(str(arguments[1]))

    sys.addaudithook(hook)
    return addresses


def memory(variant: Variant, requests: str) -> dict[str, float]:
    """MiB of resident memory after a third of the requests and at the end, with the background thread at work.

    They begin when a window of stats has ended: the first change of windows takes room once.
    """
    total = int(requests)
    served = Served(replace(variant, options=variant.options | {"flush_interval_s": 1.0}))
    served.workload.queries = MEMORY_QUERIES
    until_s = monotonic() + WINDOW_S
    while monotonic() < until_s:
        served.serve(100)
    served.serve(total // 3)
    after_third_mib = _resident_mib()
    served.serve(total - total // 3)
    at_end_mib = _resident_mib()
    return {
        "requests": total,
        "queries": MEMORY_QUERIES,
        "after_third_mib": after_third_mib,
        "at_end_mib": at_end_mib,
    }


def _resident_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _by_name(headers: list[tuple[str | bytes, str | bytes]]) -> dict[str, str]:
    texts = [[part.decode() if isinstance(part, bytes) else part for part in header] for header in headers]
    return {name.lower(): value for name, value in texts}


def mark() -> None:
    """Call a function of the C library that nobody else calls: callgrind is told to watch for it."""
    os.ctermid()


MEASURES = {"instructions": instructions, "time": time, "sees": sees, "memory": memory}


def main() -> None:
    measure, name, *more = sys.argv[1:]
    result = MEASURES[measure](VARIANTS[name], *more)
    print("\n" + json.dumps(result), flush=True)
    os._exit(0)  # what a tool does at the end of its process is not measured


if __name__ == "__main__":
    main()
