"""What importing a tool costs, above an application that has imported PyMySQL and nothing else.

In fresh processes, in CPU time, so that a busy machine does not count. The compiled files are there already, in a
folder of the benchmark's own: where `PYTHONDONTWRITEBYTECODE` is set, or the checkout may not be written to, a package
that was installed in place would be compiled anew by every import, and only what pip has installed would not.
"""

from __future__ import annotations

from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.overhead.processes import run_python
from benchmarks.overhead.results import Import

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.overhead.variants import Variant

_PROGRAM = """
import sys, time, pymysql
def rss_kib():
    with open("/proc/self/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith("VmRSS")))
before_kib, start_ns = rss_kib(), time.process_time_ns()
for name in sys.argv[1:]:
    __import__(name)
took_ns = time.process_time_ns() - start_ns
print([took_ns / 1e6, (rss_kib() - before_kib) / 1024])
"""


def measure(variants: Sequence[Variant], rounds: int, advance: Callable[[], object]) -> dict[str, Import]:
    """Medians over rounds, each in an order of its own; a first round, not counted, lets Python compile."""
    taken: dict[str, list[list[float]]] = {variant.name: [] for variant in variants}
    with TemporaryDirectory() as compiled:
        environment = {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        for number in range(rounds + 1):
            for variant in Random(number).sample(variants, len(variants)):
                ms_mib = run_python(["-c", _PROGRAM, *variant.imports], environment=environment)
                if number:
                    taken[variant.name].append(ms_mib)
                advance()
    return {name: Import(*(median(column) for column in zip(*rows, strict=True))) for name, rows in taken.items()}
