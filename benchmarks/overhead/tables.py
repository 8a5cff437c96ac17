"""The results as tables, which the terminal and the documents show alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.overhead import variants
from benchmarks.overhead.importing import STAGES
from benchmarks.overhead.results import Measured
from benchmarks.overhead.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.overhead.cost import Cost
    from benchmarks.overhead.promises import Promise
    from benchmarks.overhead.results import Results
    from benchmarks.overhead.variants import Variant

_COLUMNS = ("µs/query", "µs/request", "kInstr/query", "kInstr/request", "with an N+1")
_UNKNOWN = ""


@dataclass(frozen=True)
class Table:
    """Text in rows; the first column is a name, the others are numbers."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]]


def tables(results: Results) -> list[Table]:
    """Every table that has rows."""
    return [table for table in (*costs(results), promises(results.promises)) if table.rows]


def costs(results: Results) -> list[Table]:
    """What was measured, by subject."""
    return [
        against_peers(results),
        Table("The floor, written by hand", ("", *_COLUMNS), _cost_rows(results, [*variants.FLOOR, VARIANTS["ours"]])),
        _options(results),
        Table("Doors", ("", *_COLUMNS), _cost_rows(results, variants.DOORS)),
        Table("Drivers and layers", ("", *_COLUMNS), _cost_rows(results, variants.DRIVERS)),
        _start(results),
        _memory(results),
    ]


def against_peers(results: Results) -> Table:
    """Ours, the floor, and the peers: the table of the README."""
    rows = []
    for variant in (VARIANTS["floor-full"], VARIANTS["ours"], *variants.PEERS):
        measured = results.measured.get(variant.name)
        if measured is not None:
            sees = _UNKNOWN if measured.sees is None else str(measured.sees)
            imported = measured.imported
            import_ = "" if imported is None else f"{imported.ms:,.0f} / {imported.mib:,.0f}"
            rows.append([variant.label, sees, *_cells(measured), import_])
    return Table("Beside the peers", ("", "sees of 10", *_COLUMNS, "import ms / MiB"), rows)


def promises(promised: Iterable[Promise]) -> Table:
    """What was promised, what was measured."""
    rows = [
        [
            promise.name,
            f"{promise.measured:,.2f} {promise.unit}",
            f"{promise.limit:,.2f}",
            _number(promise.pursued),
            _number(promise.beside),
            "ok" if promise.kept else "failed",
        ]
        for promise in promised
    ]
    return Table("Promises", ("", "measured", "at most", "pursued", "floor", ""), rows)


def _options(results: Results) -> Table:
    rows = []
    for variant in variants.OURS:
        measured = results.measured.get(variant.name)
        if measured is not None:
            rows.append([variant.label, *_cells(measured), *_folding(measured.folding)])
    return Table("Options", ("", *_COLUMNS, "background kInstr/query", "/request"), rows)


def _start(results: Results) -> Table:
    rows = []
    for variant in variants.OURS:
        if started := _measured(results, variant).started:
            label = variant.label if variant.name != "ours" else f"{variant.label}, log off"
            rows.append([label, *[f"{started[stage].ms:,.1f} / {started[stage].mib:,.1f}" for stage in STAGES]])
    return Table("Start, ms / MiB", ("", *STAGES), rows)


def _memory(results: Results) -> Table:
    rows = []
    for variant in variants.OURS:
        if memory := _measured(results, variant).memory:
            mib = [f"{memory.after_third_mib:,.1f}", f"{memory.at_end_mib:,.1f}"]
            rows.append([f"{variant.label}, {memory.requests:,} requests of {memory.queries} queries", *mib])
    return Table("Memory", ("", "MiB after a third", "MiB at the end"), rows)


def _measured(results: Results, variant: Variant) -> Measured:
    return results.measured.get(variant.name) or Measured()


def _cost_rows(results: Results, shown: Iterable[Variant]) -> list[list[str]]:
    known = [variant for variant in shown if variant.name in results.measured]
    return [[variant.label, *_cells(results.measured[variant.name])] for variant in known]


def _cells(measured: Measured) -> list[str]:
    us, instructions = measured.us, measured.instructions
    return [
        *([_UNKNOWN] * 2 if us is None else [f"{us.per_query:,.2f}", f"{us.per_request:,.1f}"]),
        *([_UNKNOWN] * 3 if instructions is None else _kilos(instructions)),
    ]


def _kilos(cost: Cost) -> list[str]:
    return [f"{instructions / 1000:,.1f}" for instructions in (cost.per_query, cost.per_request, cost.with_finding)]


def _folding(cost: Cost | None) -> list[str]:
    return [_UNKNOWN] * 2 if cost is None else _kilos(cost)[:2]


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.2f}"
