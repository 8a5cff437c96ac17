"""What each mode measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.overhead import variants
from benchmarks.overhead.variants import VARIANTS, Variant

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What the promises need.
_GATE_COUNTED = (
    "floor-full",
    "ours",
    "ours-no-callers",
    "ours-no-detectors",
    "ours-sample-0",
    "ours-texts",
    "ours-disabled",
    "otel",
    "ddtrace",
)
_GATE_TIMED = ("floor-clocks", "floor-full", "ours", "ours-sample-0", "ours-log", "direct-log")

#: Under valgrind these would take hours.
_TIMED_ONLY = ("silk-orm", "toolbar-orm")

ROUNDS, QUICK_ROUNDS = 9, 3
IMPORT_ROUNDS = 11
MEMORY_REQUESTS = 20_000


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        counted: In instructions.
        timed: In microseconds.
        imported: In milliseconds and MiB.
        sees: In queries noticed.
        rounds: Of what is timed.
        import_rounds: Of imports.
        memory_requests: Of the memory run; 0 for none.

    """

    counted: Sequence[Variant]
    timed: Sequence[Variant]
    imported: Sequence[Variant]
    sees: Sequence[Variant]
    rounds: int
    import_rounds: int
    memory_requests: int


def plan(*, gate: bool, quick: bool, only: Sequence[str], memory: bool) -> Plan:
    """The plan of a command line; `only` narrows what its mode would measure."""
    tools = [variant for variant in VARIANTS.values() if variant.tool is not None]
    shown = [variant for variant in tools if not quick or variant in (*variants.FLOOR, *variants.OURS, *variants.PEERS)]
    counted = [VARIANTS[name] for name in _GATE_COUNTED] if gate else shown
    timed = [VARIANTS[name] for name in _GATE_TIMED] if gate else shown
    if only:
        counted = [VARIANTS[name] for name in only]
        timed = [variant for variant in counted if not gate or variant in timed]
    wanted = [*counted, *timed]
    return Plan(
        counted=[variant for variant in counted if variant.name not in _TIMED_ONLY],
        timed=timed,
        imported=[variant for variant in tools if variant.imports and variant in wanted],
        sees=[] if gate else [variant for variant in tools if variant in wanted],
        rounds=QUICK_ROUNDS if quick else ROUNDS,
        import_rounds=QUICK_ROUNDS if quick else IMPORT_ROUNDS,
        memory_requests=MEMORY_REQUESTS if memory and not quick and VARIANTS["ours"] in wanted else 0,
    )
