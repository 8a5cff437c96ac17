"""`python -m benchmarks.overhead`, run by `scripts/overhead`."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.overhead import callgrind, promises
from benchmarks.overhead.cost import cost
from benchmarks.overhead.variants import VARIANTS

GATE = ("ours", "ours-no-callers", "ours-no-detectors", "ours-sample-0", "ours-texts", "ours-disabled")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/overhead", description=__doc__)
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--only", nargs="+", default=[])
    args = parser.parse_args()
    names = [name for given in args.only for name in given.split(",")] or list(GATE)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        print(f"--only: unknown {', '.join(unknown)}; known: {', '.join(VARIANTS)}", file=sys.stderr)
        return 2
    try:
        callgrind.check_valgrind()
    except callgrind.ValgrindMissingError as error:
        print(error, file=sys.stderr)
        return 2
    console = Console()
    wanted = list(dict.fromkeys([*(VARIANTS[name].bare for name in names), *names]))
    counted = {}
    with Progress(console=console) as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = progress.add_task("instructions", total=len(wanted))

        def run(name):
            counted[name] = callgrind.count(name)
            progress.advance(task)

        list(pool.map(run, wanted))
    costs = {name: cost(counted[name][0], counted[VARIANTS[name].bare][0]) for name in names}
    folding = {name: counted[name][1] for name in names}
    table = Table(
        "variant",
        "kInstr/query",
        "kInstr/request",
        "with a finding",
        "folding/query",
        "folding/request",
        title="instructions",
    )
    for name in names:
        one, fold = costs[name], cost(folding[name], dict.fromkeys(folding[name], 0.0))
        cells = [one.per_query, one.per_request, one.with_finding, fold.per_query, fold.per_request]
        table.add_row(VARIANTS[name].label, *(f"{cell / 1000:,.2f}" for cell in cells))
    console.print(table)
    kept = True
    table = Table("promise", "measured", "limit", "", title="promises")
    for promise in promises.of_instructions(costs):
        kept = kept and promise.kept
        table.add_row(
            promise.name,
            f"{promise.measured:,.2f}",
            f"{promise.limit:,.2f} {promise.unit}",
            "ok" if promise.kept else "failed",
        )
    console.print(table)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
