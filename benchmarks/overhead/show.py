"""Tables on the terminal and in Markdown, with what a reader needs to weigh them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import table as rich_table

from benchmarks.overhead.tables import tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from benchmarks.overhead.results import Results
    from benchmarks.overhead.tables import Table


def on_terminal(results: Results, console: Console) -> None:
    """Print all of it."""
    for table in tables(results):
        shown = rich_table.Table(title=table.title)
        for number, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if number else "left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    console.print(circumstances(results), soft_wrap=True)


def markdown(shown: Iterable[Table], results: Results) -> str:
    """The tables, a heading each, and the circumstances."""
    return "\n\n".join([*(_markdown(table) for table in shown), circumstances(results)])


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.rows]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {table.title}\n\n{rows}"


def circumstances(results: Results) -> str:
    """When, on what, of how many."""
    run = results.run
    timed = {one.timed_requests for one in results.measured.values() if one.timed_requests}
    parts = [
        f"{run.date}, commit {run.commit}, {run.python}, {run.processor}, {run.cores} cores.",
        f"CPU time: {run.rounds} rounds, {_range(timed)} requests of each size." if run.rounds else "",
        f"Imports: {run.import_rounds} rounds." if run.import_rounds else "",
        ", ".join(f"{name} {version}" for name, version in run.versions.items()) + ".",
    ]
    return " ".join(part for part in parts if part)


def _range(numbers: set[int]) -> str:
    return " to ".join(f"{number:,}" for number in sorted({min(numbers), max(numbers)}))
