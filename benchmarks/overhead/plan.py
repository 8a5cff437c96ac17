"""What each mode measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.overhead import variants
from benchmarks.overhead.importing import STARTED
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

#: Whose memory may not grow.
_REMEMBERED = ("ours", "ours-sample-0", "ours-texts", "ours-disabled")

ROUNDS, QUICK_ROUNDS = 5, 3
IMPORT_ROUNDS = 7
MEMORY_REQUESTS = 20_000


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        counted: In instructions.
        timed: In microseconds.
        imported: In milliseconds and MiB.
        started: In milliseconds and MiB, stage by stage.
        sees: In queries noticed.
        remembered: In MiB, before and after many requests.
        rounds: Of what is timed.
        import_rounds: Of imports.

    """

    counted: Sequence[Variant]
    timed: Sequence[Variant]
    imported: Sequence[Variant]
    started: Sequence[Variant]
    sees: Sequence[Variant]
    remembered: Sequence[Variant]
    rounds: int
    import_rounds: int


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
        started=[VARIANTS[name] for name in STARTED if VARIANTS[name] in wanted],
        sees=[] if gate else [variant for variant in tools if variant in wanted],
        remembered=[VARIANTS[name] for name in _REMEMBERED if memory and not quick and VARIANTS[name] in wanted],
        rounds=QUICK_ROUNDS if quick else ROUNDS,
        import_rounds=QUICK_ROUNDS if quick else IMPORT_ROUNDS,
    )
