"""All measurements of a run, in order, with a bar on the terminal."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.overhead import callgrind, databases, importing, ours
from benchmarks.overhead.cost import cost, median_cost
from benchmarks.overhead.plan import MEMORY_REQUESTS
from benchmarks.overhead.processes import run_worker
from benchmarks.overhead.results import Measured, Memory, Results
from benchmarks.overhead.variants import OURS, VARIANTS
from benchmarks.overhead.worker import TIME_BATCHES, requests_in_batch
from perf_middleware.cli.demo import servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from benchmarks.overhead.plan import Plan
    from benchmarks.overhead.variants import Variant

_Times = dict[int, float]

#: Runs of each of our variants under callgrind.
COUNT_ROUNDS: Final = 3


class Measuring:
    """One run of a plan."""

    def __init__(self, plan: Plan, results: Results, console: Console) -> None:
        self.plan, self.results = plan, results
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console)

    def run(self) -> None:
        """Measure everything that is planned."""
        plan = self.plan
        with ExitStack() as stack:
            stack.enter_context(_servers([*plan.sees, *plan.counted, *plan.timed]))
            stack.enter_context(self.progress)
            self._see(plan.sees)
            self._import(plan.imported)
            self._start(plan.started)
            self._count(plan.counted)
            self._time(plan.timed)
            self._remember(plan.remembered)

    def _of(self, name: str) -> Measured:
        return self.results.measured.setdefault(name, Measured())

    def _see(self, variants: Sequence[Variant]) -> None:
        task = self.progress.add_task("queries seen", total=len(variants))
        for variant in variants:
            self._of(variant.name).sees = run_worker("sees", variant.name)
            self.progress.advance(task)

    def _import(self, variants: Sequence[Variant]) -> None:
        rounds = self.plan.import_rounds if variants else 0
        task = self.progress.add_task("imports", total=len(variants) * (rounds + 1))
        for name, imported in importing.measure(variants, rounds, lambda: self.progress.advance(task)).items():
            self._of(name).imported = imported
        self.results.run.import_rounds = rounds

    def _start(self, variants: Sequence[Variant]) -> None:
        rounds = self.plan.import_rounds
        task = self.progress.add_task("start", total=len(variants) * (rounds + 1))
        for name, stages in importing.start(variants, rounds, lambda: self.progress.advance(task)).items():
            self._of(name).started = stages

    def _count(self, variants: Sequence[Variant]) -> None:
        """Counts do not depend on the load, so as many at a time as there are cores; medians of ours.

        For some requests, which the overhead guard picks by chance, cost more than others.
        """
        names = [variant.name for variant in _with_bare(variants)]
        runs = [name for name in names for _ in range(COUNT_ROUNDS if VARIANTS[name] in OURS else 1)]
        task = self.progress.add_task("instructions", total=len(runs))

        def count(name: str) -> tuple[_Times, _Times]:
            counted = callgrind.count(name)
            self.progress.advance(task)
            return counted

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            counted = list(zip(runs, pool.map(count, runs), strict=True))
        counts = {name: _medians([times for run, times in counted if run == name]) for name in names}
        for variant in variants:
            on_request, in_background = counts[variant.name]
            measured = self._of(variant.name)
            measured.instructions = cost(on_request, counts[variant.bare][0])
            measured.folding = cost(in_background, counts[variant.bare][1])

    def _time(self, variants: Sequence[Variant]) -> None:
        """One process at a time, each round in an order of its own."""
        names = [variant.name for variant in _with_bare(variants)]
        rounds: list[dict[str, _Times]] = []
        task = self.progress.add_task("CPU time", total=len(names) * self.plan.rounds)
        for number in range(self.plan.rounds if names else 0):
            times: dict[str, _Times] = {}
            for name in Random(number).sample(names, len(names)):
                times[name] = {int(queries): us for queries, us in run_worker("time", name).items()}
                self.progress.advance(task)
            rounds.append(times)
        for variant in variants:
            measured = self._of(variant.name)
            measured.us = median_cost([(times[variant.name], times[variant.bare]) for times in rounds])
            measured.timed_requests = TIME_BATCHES * requests_in_batch(variant) * len(rounds)
        self.results.run.rounds = len(rounds)

    def _remember(self, variants: Sequence[Variant]) -> None:
        task = self.progress.add_task(f"memory, {MEMORY_REQUESTS:,} requests", total=len(variants))
        for variant in variants:
            self._of(variant.name).memory = Memory(**run_worker("memory", variant.name, str(MEMORY_REQUESTS)))
            self.progress.advance(task)


def _medians(runs: list[tuple[_Times, _Times]]) -> tuple[_Times, _Times]:
    """Of each size, on the request and in the background."""
    on_request, in_background = zip(*runs, strict=True)
    return (
        {queries: median(run[queries] for run in on_request) for queries in on_request[0]},
        {queries: median(run[queries] for run in in_background) for queries in in_background[0]},
    )


def _with_bare(variants: Sequence[Variant]) -> list[Variant]:
    """The variants, and the bare application of each."""
    return list(dict.fromkeys([*(VARIANTS[variant.bare] for variant in variants), *variants]))


@contextmanager
def _servers(variants: Sequence[Variant]) -> Iterator[None]:
    """Private servers for the variants that need one; the workers find them in the environment."""
    with ExitStack() as stack:
        needed = {variant.server for variant in variants}
        if "mariadb" in needed:
            server = stack.enter_context(servers.mariadb())
            reach = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
            os.environ[databases.MARIADB_ENVIRONMENT] = json.dumps(reach | {"database": server.database})
        if "valkey" in needed:
            os.environ[ours.VALKEY_ENVIRONMENT] = stack.enter_context(servers.valkey())
        yield
