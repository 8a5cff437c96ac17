"""The plot of the README: instructions per query, on a logarithmic axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.overhead import variants
from benchmarks.overhead.variants import VARIANTS

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.overhead.results import Results

_FLOOR, _OURS, _PEER = "#8a8f98", "#1a7f5a", "#c9803a"


def draw(results: Results, path: Path) -> None:
    """One bar for each tool that saw the queries."""
    mpl.rcParams["svg.hashsalt"] = "overhead"  # the same numbers make the same file
    bars = []
    for variant in (VARIANTS["floor-full"], VARIANTS["ours"], *variants.PEERS):
        measured = results.measured.get(variant.name)
        if measured is not None and measured.instructions is not None and measured.sees != 0:
            colour = {"floor-full": _FLOOR, "ours": _OURS}.get(variant.name, _PEER)
            label = "floor, written by hand" if variant.name == "floor-full" else variant.label
            bars.append((measured.instructions.per_query / 1000, label, colour))
    bars.sort(reverse=True)
    figure = Figure(figsize=(8, 0.45 * len(bars) + 1), layout="constrained")
    axes = figure.subplots()
    values, labels, colours = zip(*bars, strict=True)
    drawn = axes.barh(labels, values, color=colours)
    axes.bar_label(drawn, labels=[f"{value:,.1f}" for value in values], padding=4)
    axes.set_xscale("log")
    axes.set_xlim(1, max(values) * 2)
    axes.set_xlabel(f"thousands of instructions that watching one query adds\n(PyMySQL, WSGI; {results.run.date})")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
