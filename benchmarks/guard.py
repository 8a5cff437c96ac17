"""Whether the overhead guard tells the truth: what watching costs by its own account, beside what it really costs.

    .venv/bin/python -m benchmarks.guard --queries 20

An application that does nothing but queries (PyMySQL's without a server) is served bare and watched, in interleaved
batches of one process. "really" is how much more CPU time the watched one takes (medians), "says" is the guard's own
account. The last row of a driver has a guard that may shed. Needs a quiet machine: time spent waiting for a CPU counts
to the application in the account, and is not in the CPU time.
"""

from __future__ import annotations

import argparse
import logging
from functools import partial
from statistics import median
from time import process_time_ns
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.overhead import databases, doors, ours
from benchmarks.overhead.workload import Workload

if TYPE_CHECKING:
    from benchmarks.overhead.tool import Tool

#: The options that leave out what the guard would shed, and those of a guard that sheds.
VARIANTS = {
    "everything": {},
    "no callers": {"capture_callers": False},
    "no rows": {"sample_rate": 0},
    "at most 2 %": {"max_overhead_percent": 2},
}

#: Requests in a batch: enough for some to be watched.
BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=20, help="a request")
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--door", choices=("wsgi", "asgi"), default="wsgi")
    args = parser.parse_args()
    logging.disable()
    title = f"{args.queries} queries a request, {args.rounds * BATCH:,} requests"
    table = Table("driver", "watched", "really %", "says %", "says ns/query", "changes", "sheds", title=title)
    for driver in ("pymysql", "sqlite3"):
        for row in measure(driver, args):
            table.add_row(*row)
    Console().print(table)


def measure(driver: str, args: argparse.Namespace) -> list[tuple[str, ...]]:
    """A row for each of what can be left out, and one for a guard that decides."""
    wrapped = {name: wrap(driver, args, **options) for name, options in VARIANTS.items()}
    serves = {name: doors.server(args.door, tool.app) for name, tool in wrapped.items()}
    serves["bare"] = doors.server(args.door, build(driver, args))
    times_ns: dict[str, list[int]] = {name: [] for name in serves}
    for _ in track(range(args.rounds), driver):
        for name, serve in serves.items():
            start_ns = process_time_ns()
            serve(BATCH)
            times_ns[name].append(process_time_ns() - start_ns)
    rows = []
    for name, tool in wrapped.items():
        really = 100 * (median(times_ns[name]) / median(times_ns["bare"]) - 1)
        status = tool.app.pipeline.guard.status()
        says = [_or_dash(status[key]) for key in ("overhead_percent", "query_ns", "changes")]
        rows.append((driver, name, f"{really:,.1f}", *says, status["shed"] or "nothing"))
    return rows


def wrap(driver: str, args: argparse.Namespace, **options: Any) -> Tool:
    return ours.wrap(args.door, partial(build, driver, args), **options)


def build(driver: str, args: argparse.Namespace) -> Any:
    workload = Workload(lambda: databases.connect(driver), databases.PLACEHOLDERS[driver], texts_differ=False)
    workload.queries = args.queries
    return doors.build(args.door, workload)


def _or_dash(number: float | None) -> str:
    return "-" if number is None else f"{number:,.1f}" if isinstance(number, float) else str(number)


if __name__ == "__main__":
    main()
