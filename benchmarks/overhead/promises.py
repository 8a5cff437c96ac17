"""What the project promises about its cost, each with its limit; `--gate` holds the measurements against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.overhead.cost import Cost


@dataclass(frozen=True)
class Promise:
    """A number that may not be larger than its limit."""

    name: str
    measured: float
    limit: float
    unit: str

    @property
    def kept(self) -> bool:
        return self.measured <= self.limit


#: kInstr per query and per request, and the stretch beyond the gate.
PER_QUERY, PER_REQUEST = 8.0, 71.0
STRETCH_PER_QUERY, STRETCH_PER_REQUEST = 5.0, 35.0
PER_QUERY_TEXTS_DIFFER = 14.0

#: What handing a request on may take where everything is switched off: one Python call.
PASSED_ON = 1.0

#: Of the instructions a query costs with OpenTelemetry or ddtrace.
SHARE_OF_PEER = 1 / 30


def of_instructions(costs: Mapping[str, Cost]) -> list[Promise]:
    """The promises about instructions, as far as their variants were counted. `costs` are in instructions."""
    promises: list[Promise] = []

    def promise(variant: str, what: str, limit: float, name: str) -> None:
        if variant in costs:
            promises.append(Promise(name, getattr(costs[variant], what) / 1000, limit, "kInstr"))

    promise("ours", "per_query", PER_QUERY, "per query")
    promise("ours", "per_request", PER_REQUEST, "per request")
    promise("ours", "with_finding", PER_REQUEST, "per request, with an N+1 found")
    promise("ours-texts", "per_query", PER_QUERY_TEXTS_DIFFER, "per query, every text different")
    promise("ours-texts", "per_request", PER_REQUEST, "per request, every text different")
    promise("ours-disabled", "per_query", 0.0, "per query, enabled=False")
    promise("ours-disabled", "per_request", PASSED_ON, "per request, enabled=False")
    if "ours" in costs:
        for peer in ("otel", "ddtrace"):
            if peer in costs:
                limit = costs[peer].per_query / 1000 * SHARE_OF_PEER
                promises.append(Promise(f"per query, 1/30 of {peer}", costs["ours"].per_query / 1000, limit, "kInstr"))
    return promises
