"""What importing a tool costs, above an application that has imported PyMySQL and nothing else; and what comes after.

In fresh processes, in CPU time, so that a busy machine does not count. The compiled files are there already, in a
folder of the benchmark's own: where `PYTHONDONTWRITEBYTECODE` is set, or the checkout may not be written to, a package
that was installed in place would be compiled anew by every import, and only what pip has installed would not.
"""

from __future__ import annotations

import json
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.overhead.processes import run_python
from benchmarks.overhead.results import Import

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.overhead.variants import Variant

_RSS = """
def rss_kib():
    with open("/proc/self/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith("VmRSS")))
"""

_IMPORT = f"""
import sys, time, pymysql
{_RSS}
before_kib, start_ns = rss_kib(), time.process_time_ns()
for name in sys.argv[1:]:
    __import__(name)
took_ns = time.process_time_ns() - start_ns
print([took_ns / 1e6, (rss_kib() - before_kib) / 1024])
"""

#: The variants whose start is looked at, each with the keywords of its door.
STARTED = {"ours": {"log": False}, "ours-log": {}, "ours-disabled": {"enabled": False}}

#: What a door does until it is at work, each with what was before.
STAGES = ("imported", "constructed", "first request", "first flush")

#: Its application has served a request already, which is not ours to pay.
_START = f"""
import json, sys, time
from benchmarks.overhead import databases, doors
from benchmarks.overhead.workload import QUERIES, Workload
{_RSS}
workload = Workload(lambda: databases.connect("pymysql"), "%s", texts_differ=False)
workload.queries = QUERIES[1]
app = doors.build("wsgi", workload)
doors.server("wsgi", app)(1)
stages = []
def reached():
    stages.append([(time.process_time_ns() - start_ns) / 1e6, (rss_kib() - before_kib) / 1024])
before_kib, start_ns = rss_kib(), time.process_time_ns()
from perf_middleware.wsgi import PerfMiddleware
reached()
door = PerfMiddleware(app, **json.loads(sys.argv[1]))
reached()
doors.server("wsgi", door)(1)
reached()
assert door.pipeline is None or door.pipeline.rolling.flush(60)
reached()
print(json.dumps(stages))
"""


def measure(variants: Sequence[Variant], rounds: int, advance: Callable[[], object]) -> dict[str, Import]:
    """What importing each variant's modules adds."""
    programs = {variant.name: ["-c", _IMPORT, *variant.imports] for variant in variants}
    return {name: _median(taken) for name, taken in _rounds(programs, rounds, advance).items()}


def start(variants: Sequence[Variant], rounds: int, advance: Callable[[], object]) -> dict[str, dict[str, Import]]:
    """What a door of ours has added by the end of each stage."""
    programs = {variant.name: ["-c", _START, json.dumps(STARTED[variant.name])] for variant in variants}
    return {
        name: dict(zip(STAGES, map(_median, zip(*taken, strict=True)), strict=True))
        for name, taken in _rounds(programs, rounds, advance).items()
    }


def _rounds(programs: Mapping[str, Sequence[str]], rounds: int, advance: Callable[[], object]) -> dict[str, list[Any]]:
    """What each program prints, in rounds of an order of their own; in a first one, not counted, Python compiles."""
    printed: dict[str, list[Any]] = {name: [] for name in programs}
    with TemporaryDirectory() as compiled:
        environment = {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        for number in range(rounds + 1):
            for name in Random(number).sample(list(programs), len(programs)):
                result = run_python(programs[name], environment=environment)
                if number:
                    printed[name].append(result)
                advance()
    return printed


def _median(ms_mib: Iterable[Sequence[float]]) -> Import:
    return Import(*map(median, zip(*ms_mib, strict=True)))
