"""What the project promises about its cost, each with its limit; `--gate` holds the measurements against them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks.overhead.variants import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.overhead.cost import Cost
    from benchmarks.overhead.results import Import, Measured, Memory

#: kInstr on the request's thread, everything on but the log line; what is pursued beyond them.
PER_QUERY: Final = 8.0
PER_REQUEST: Final = 71.0
PURSUED_PER_QUERY: Final = 5.0
PURSUED_PER_REQUEST: Final = 35.0
PER_QUERY_TEXTS_DIFFER: Final = 14.0

#: Of the instructions a query costs with OpenTelemetry or ddtrace.
SHARE_OF_PEER: Final = 1 / 30

#: Switched off, a request is handed on: one Python call and a look-up, in kInstr. A query costs nothing: this is
#: what two runs of the bare application differ by.
HANDED_ON: Final = 2.0
NOTHING: Final = 0.05

#: Microseconds with `sample_rate=0`, and of our part of a log line.
SAMPLED_OUT_PER_QUERY_US: Final = 0.4
SAMPLED_OUT_PER_REQUEST_US: Final = 5.0
LOG_US: Final = 3.0

IMPORT_MS: Final = 40.0
IMPORT_MIB: Final = 3.0

#: MiB that resident memory may differ by between a third of the requests and their end: windows of stats begin.
GROWTH_MIB: Final = 1.0


class Promise(msgspec.Struct, frozen=True):
    """A number that may not be larger than its limit.

    Attributes:
        pursued: A smaller number that is worked towards.
        beside: The same of the floor, in the same run.

    """

    name: str
    measured: float
    limit: float
    unit: str
    pursued: float | None = None
    beside: float | None = None

    @property
    def kept(self) -> bool:
        return self.measured <= self.limit


def promises(measured: Mapping[str, Measured]) -> list[Promise]:
    """Every promise that this run has measured something for."""
    instructions = {name: one.instructions for name, one in measured.items() if one.instructions is not None}
    us = {name: one.us for name, one in measured.items() if one.us is not None}
    imported = {name: one.imported for name, one in measured.items() if one.imported is not None}
    memory = {name: one.memory for name, one in measured.items() if one.memory is not None}
    return [
        *_of_instructions(instructions),
        *_of_peers(instructions),
        *_of_times(us),
        *_of_imports(imported),
        *_of_memory(memory),
    ]


def _of_instructions(costs: Mapping[str, Cost]) -> Iterator[Promise]:
    floor, ours = costs.get("floor-full"), costs.get("ours")
    if ours:
        beside = _kilo(floor, "per_query")
        yield Promise("per query", ours.per_query / 1000, PER_QUERY, "kInstr", PURSUED_PER_QUERY, beside)
        for name, what in (("per request", "per_request"), ("per request with an N+1 found", "with_finding")):
            measured, beside = getattr(ours, what) / 1000, _kilo(floor, what)
            yield Promise(name, measured, PER_REQUEST, "kInstr", PURSUED_PER_REQUEST, beside)
    if texts := costs.get("ours-texts"):
        beside = _kilo(costs.get("floor-texts"), "per_query")
        name = "per query, every text different"
        yield Promise(name, texts.per_query / 1000, PER_QUERY_TEXTS_DIFFER, "kInstr", beside=beside)
        yield Promise("per request, every text different", texts.per_request / 1000, PER_REQUEST, "kInstr")
    if disabled := costs.get("ours-disabled"):
        yield Promise("per query, enabled=False", disabled.per_query / 1000, NOTHING, "kInstr")
        yield Promise("per request, enabled=False", disabled.per_request / 1000, HANDED_ON, "kInstr")


def _of_peers(costs: Mapping[str, Cost]) -> Iterator[Promise]:
    for peer, name in (("otel", "OpenTelemetry"), ("ddtrace", "ddtrace")):
        if peer in costs and "ours" in costs:
            limit = costs[peer].per_query * SHARE_OF_PEER / 1000
            yield Promise(f"per query, 1/30 of {name}", costs["ours"].per_query / 1000, limit, "kInstr")


def _of_times(us: Mapping[str, Cost]) -> Iterator[Promise]:
    floor = us.get("floor-clocks")
    if sampled_out := us.get("ours-sample-0"):
        for name, what, limit in (
            ("per query, sample_rate=0", "per_query", SAMPLED_OUT_PER_QUERY_US),
            ("per request, sample_rate=0", "per_request", SAMPLED_OUT_PER_REQUEST_US),
        ):
            beside = getattr(floor, what) if floor else None
            yield Promise(name, getattr(sampled_out, what), limit, "µs", beside=beside)
    if {"ours", "ours-log", "direct-log"} <= us.keys():
        direct = us["direct-log"].per_request
        added = us["ours-log"].per_request - us["ours"].per_request - direct
        yield Promise("a log line, beyond a direct call", added, LOG_US, "µs", beside=direct)


def _of_imports(imported: Mapping[str, Import]) -> Iterator[Promise]:
    if ours := imported.get("ours"):
        yield Promise("import of the door, time", ours.ms, IMPORT_MS, "ms")
        yield Promise("import of the door, memory", ours.mib, IMPORT_MIB, "MiB")


def _of_memory(memories: Mapping[str, Memory]) -> Iterator[Promise]:
    for variant in OURS:
        if memory := memories.get(variant.name):
            grown = memory.at_end_mib - memory.after_third_mib
            name = f"memory grown in {memory.requests * 2 // 3:,} requests, {variant.label}"
            yield Promise(name, grown, GROWTH_MIB, "MiB")


def _kilo(cost: Cost | None, what: str) -> float | None:
    return None if cost is None else getattr(cost, what) / 1000
