"""Refreshing what the documents show: the text between `<!-- overhead -->` and `<!-- /overhead -->`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.overhead import plot, show
from benchmarks.overhead.processes import ROOT
from benchmarks.overhead.tables import against_peers, tables

if TYPE_CHECKING:
    from benchmarks.overhead.results import Results

START, END = "<!-- overhead -->\n", "<!-- /overhead -->"


def write(results: Results) -> None:
    """The README's table, all tables of docs/overhead.md, and the plot."""
    for name, shown in (("README.md", [against_peers(results)]), ("docs/overhead.md", tables(results))):
        path = ROOT / name
        path.write_text(between(path.read_text(), show.markdown(shown, results)))
    plot.draw(results, ROOT / "docs" / "overhead.svg")


def between(document: str, text: str) -> str:
    """The document with the text between the marks."""
    before, start, rest = document.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"the document has no {START.strip()} ... {END}")
    return f"{before}{start}\n{text}\n\n{end}{after}"
