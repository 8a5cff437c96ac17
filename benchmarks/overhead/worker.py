"""One variant in a fresh process: `python -m benchmarks.overhead.worker MEASURE VARIANT`; the last line is the result.

The parent (`processes.py`) starts it, under valgrind for instructions.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from importlib import import_module
from statistics import median
from time import process_time_ns

from benchmarks.overhead import databases, doors
from benchmarks.overhead.tool import Tool
from benchmarks.overhead.variants import VARIANTS, Variant
from benchmarks.overhead.workload import QUERIES, Workload

#: Requests of the two batches whose difference is counted: what they share (the call, the marks) cancels out.
INSTRUCTION_BATCHES = (10, 40)

WARM_UP_REQUESTS = 40

TIME_BATCHES, TIME_REQUESTS = 9, 20
FEW = QUERIES[1]


class Served:
    """A variant at work."""

    def __init__(self, variant: Variant) -> None:
        placeholder = databases.PLACEHOLDERS[variant.driver]
        self.workload = Workload(
            lambda: databases.connect(variant.driver), placeholder, texts_differ=variant.texts_differ
        )
        self.tool = wrap(variant, self.workload)
        self.serve = doors.server(variant.door, self.tool.app)

    def warm_up(self, requests: int = WARM_UP_REQUESTS) -> None:
        """Let caches fill, and take what is there by now out of the garbage collector's sight, for all alike."""
        for queries in QUERIES:
            self.workload.queries = queries
            self.serve(requests)
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
    batches: dict[int, list[float]] = {queries: [] for queries in QUERIES}
    for _ in range(TIME_BATCHES):
        for queries, times in batches.items():
            served.workload.queries = queries
            served.tool.settle()
            gc.collect()
            start_ns = process_time_ns()
            served.serve(TIME_REQUESTS)
            times.append((process_time_ns() - start_ns) / TIME_REQUESTS / 1000)
    return {queries: median(times) for queries, times in batches.items()}


def sees(variant: Variant) -> int | None:
    """How many of ten queries the tool noticed."""
    served = Served(variant)
    seen = served.tool.seen
    if seen is None:
        return None
    for queries in (0, FEW):  # the first request connects
        served.workload.queries = queries
        count = seen(_by_name(served.serve(1)))
    return count


def _by_name(headers: list[tuple[str | bytes, str | bytes]]) -> dict[str, str]:
    texts = [[part.decode() if isinstance(part, bytes) else part for part in header] for header in headers]
    return {name.lower(): value for name, value in texts}


def mark() -> None:
    """Call a function of the C library that nobody else calls: callgrind is told to watch for it."""
    os.ctermid()


MEASURES = {"instructions": instructions, "time": time, "sees": sees}


def main() -> None:
    measure, name = sys.argv[1:3]
    result = MEASURES[measure](VARIANTS[name])
    print("\n" + json.dumps(result), flush=True)
    os._exit(0)  # what a tool does at the end of its process is not measured


if __name__ == "__main__":
    main()
