"""The checks as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from perf_middleware.cli.doctor.checks import Check

COLOURS: Final = {"ok": "green", "warning": "yellow", "failed": "bold red", "unknown": "yellow", "skipped": "dim"}
COUNTED: Final = ("queries", "failed", "sets", "transactions")
TITLES: Final = {"drivers": "Drivers", "process": "This process", "store": "Store", "privacy": "Privacy"}


def show(checks: Sequence[Check]) -> None:
    """Print one table for each area, and one line that sums up."""
    from rich.console import Console  # noqa: PLC0415 - an extra: only the screen needs it

    console = Console(highlight=False)
    for area in dict.fromkeys(check.area for check in checks):
        console.print(TITLES[area], style="bold")
        _AREAS.get(area, _print_checks)(console, [check for check in checks if check.area == area])
    failed = [check for check in checks if check.outcome == "failed"]
    skipped = sum(check.outcome == "skipped" for check in checks)
    warnings = [check for check in checks if check.outcome in ("warning", "unknown")]
    summary = f"{len(checks) - skipped} checks: {len(failed)} failed, {len(warnings)} to look at; {skipped} skipped"
    console.print(summary, style=COLOURS["failed" if failed else "warning" if warnings else "ok"])


def _print_drivers(console: Console, checks: list[Check]) -> None:
    """What was counted, "7 of 8" where that is not what was sent; below, what there is to say in words."""
    from rich.text import Text  # noqa: PLC0415

    table = _table("driver", "version", "outcome")
    for column in COUNTED:
        table.add_column(column, justify="right", no_wrap=True)
    said: dict[str, list[str]] = {}
    for check in sorted(checks, key=lambda check: check.outcome == "skipped"):
        style = "dim" if check.outcome == "skipped" else ""
        cells = (check.name, check.facts["version"] or "-")
        table.add_row(
            *(Text(_printable(cell), style=style) for cell in cells),
            Text(check.outcome, style=COLOURS[check.outcome]),
            *_numbers(check),
        )
        if not check.facts["sent"]:
            said.setdefault(check.detail, []).append(check.name)
    console.print(table)
    for detail, names in said.items():
        console.print(_printable(f"{', '.join(names)}: {detail}"), markup=False, style="dim")
    console.print()


def _numbers(check: Check) -> list[Text]:
    from rich.text import Text  # noqa: PLC0415

    sent, counted = check.facts["sent"], check.facts["counted"]
    if not sent:
        return []
    return [
        Text(str(sent[name])) if sent[name] == counted[name] else Text(f"{counted[name]} of {sent[name]}", style="red")
        for name in COUNTED
    ]


def _print_checks(console: Console, checks: list[Check]) -> None:
    table = _table("check", "outcome", "found")
    for check in checks:
        _add(table, check)
    console.print(table)


def _print_privacy(console: Console, checks: list[Check]) -> None:
    """Both doors in one cell: what leaked, and by which, is said below the table."""
    from rich.text import Text  # noqa: PLC0415

    outputs = dict.fromkeys(output.split()[1] for check in checks for output in check.facts["outputs"])
    table = _table("planted in", *outputs)
    for check in checks:
        if not check.facts["outputs"]:
            continue
        words: dict[str, set[str]] = {output: set() for output in outputs}
        for name, word in check.facts["outputs"].items():
            words[name.split()[1]].add(word)
        cells = [max(found, key=_WORST.index) for found in words.values()]
        table.add_row(Text(check.name), *(Text(word, style=_WORDS[word]) for word in cells))
    console.print(table)
    for check in checks:
        if check.detail:
            console.print(f"{check.name}: {check.detail}", style=COLOURS[check.outcome], markup=False)


_WORDS: Final = {"clean": "green", "empty": "yellow", "LEAKED": "bold red"}
_WORST: Final = tuple(_WORDS)
_AREAS: Final = {"drivers": _print_drivers, "privacy": _print_privacy}


def _table(*columns: str) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add(table: Table, check: Check) -> None:
    from rich.text import Text  # noqa: PLC0415

    colour = COLOURS[check.outcome]
    style = "dim" if check.outcome == "skipped" else ""
    outcome = Text(check.outcome, style=colour)
    table.add_row(
        Text(_printable(check.name), style=style),
        outcome,
        Text(_printable(check.detail), style=style),
    )


def _printable(text: str) -> str:
    """Servers and other packages say what is told here: no control character of theirs may reach the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
