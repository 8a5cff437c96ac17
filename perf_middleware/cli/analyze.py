"""`perf-middleware analyze FILE`: the findings in saved profiles (profile JSONL), as text or as JSON lines.

Reads one line at a time, so a file of any size needs the memory of its longest line. A line that is no profile
is reported by its number, without its content, and the rest is read. Nothing literal is printed: statements
appear as fingerprints only.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from perf_middleware import detectors
from perf_middleware.cli import FAILED
from perf_middleware.errors import OptionError, RecordError
from perf_middleware.record import SEVERITIES, Finding, Profile, read_jsonl

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from rich.console import Console

STDIN: Final = "-"
COLOURS: Final = {"low": "cyan", "medium": "yellow", "high": "red", "critical": "bold white on red"}

#: Below this a file is read before a progress bar would be seen.
PROGRESS_MIN_BYTES: Final = 4 * 1024 * 1024


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser(
        "analyze",
        help="findings in saved profiles",
        description="Reads profile JSONL (one profile a line) and tells what is wrong, on which line of your code.",
        epilog="Exit code: 0 also with findings; 1 with --fail-on, or when lines could not be read; 2 for a mistake.",
    )
    parser.add_argument("file", metavar="FILE", help=f"profile JSONL, or {STDIN} for standard input")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: one object per profile")
    parser.add_argument("--fail-on", choices=SEVERITIES, metavar="SEVERITY", help=f"one of {', '.join(SEVERITIES)}")


def run(args: argparse.Namespace) -> int:
    """Analyze every readable line; the exit code says whether all could be read and `--fail-on` was met.

    Raises:
        OptionError: When the file cannot be opened or read.

    """
    write: Callable[[Profile, list[Finding]], None]
    console: Console | None = None
    if args.format == "json":
        write = _write_json
    else:
        from rich.console import Console  # noqa: PLC0415 - an extra: only text needs it

        console = Console(highlight=False)
        write = _TextWriter(console).write
    totals = Totals()
    with _opened(args.file) as file, _progress(file, console) as lines:
        for number, record in read_jsonl(lines):
            if isinstance(record, RecordError):
                totals.unreadable += 1
                _warn(f"{_place(args.file)}:{number}: not a profile record: {_without_values(str(record))}")
                continue
            findings = detectors.analyze(record)
            totals.add(record, findings)
            write(record, findings)
    if console:
        console.print(totals.sentence())
    elif totals.unreadable:
        _warn(f"{_place(args.file)}: {totals.unreadable} of {totals.unreadable + totals.profiles} lines unreadable")
    return FAILED if totals.unreadable or totals.reaches(args.fail_on) else 0


@dataclass
class Totals:
    """What the summary says."""

    profiles: int = 0
    queries: int = 0
    unreadable: int = 0
    severities: Counter[str] = field(default_factory=Counter)

    def add(self, profile: Profile, findings: list[Finding]) -> None:
        """Count one profile; `query_count` is exact also where rows were not kept."""
        self.profiles += 1
        self.queries += max(profile.query_count, len(profile.queries))
        self.severities.update(finding.severity for finding in findings)

    def reaches(self, severity: str | None) -> bool:
        """Whether some finding is at least of this severity."""
        if severity is None:
            return False
        return any(self.severities[level] for level in SEVERITIES[SEVERITIES.index(severity) :])

    def sentence(self) -> str:
        """The last line of the text."""
        levels = [f"{self.severities[level]} {level}" for level in reversed(SEVERITIES) if self.severities[level]]
        findings = _plural(self.severities.total(), "finding") + (f" ({', '.join(levels)})" if levels else "")
        counts = [_plural(self.profiles, "profile"), _plural(self.queries, "query", "queries"), findings]
        if self.unreadable:
            counts.append(_plural(self.unreadable, "unreadable line"))
        return ", ".join(counts)


class _TextWriter:
    """One block per profile with findings; a profile without is only counted."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, profile: Profile, findings: list[Finding]) -> None:
        if not findings:
            return
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        count = max(profile.query_count, len(profile.queries))
        head = Text(_printable(profile.name or profile.id or "(no name)"), style="bold")
        head.append(f"  {_plural(count, 'query', 'queries')}, {profile.duration_ms:.1f} ms", style="not bold")
        if profile.id and profile.name:
            head.append(f"  {_printable(profile.id)}", style="not bold dim")
        self._console.print(head)
        grid = Table.grid(padding=(0, 1, 0, 0))
        for finding in findings:
            told = Text(f"{finding.kind}: ", style="bold")
            told.append(_printable(finding.title), style="not bold")
            told.append(
                f"\n{finding.total_ms:.1f} ms in all, up to {finding.wasted_ms:.1f} ms to save", style="not bold"
            )
            told.append(f"\n{_printable(finding.recommendation)}", style="not bold")
            if finding.fingerprint:
                told.append(f"\n{_printable(finding.fingerprint)}", style="not bold dim")
            grid.add_row("", Text(f"{finding.severity:<8}", style=COLOURS[finding.severity]), told)
        self._console.print(grid)
        self._console.print()


def _write_json(profile: Profile, findings: list[Finding]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode({"id": profile.id, "findings": findings}) + b"\n")
    sys.stdout.buffer.flush()  # whoever follows a growing input sees each profile as it comes


def _opened(path: str) -> AbstractContextManager[BinaryIO]:
    if path == STDIN:
        return nullcontext(sys.stdin.buffer)
    try:
        return open(path, "rb")  # noqa: PTH123 - the caller's `with` closes it
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OptionError(f"cannot read {path}: {reason}; give a file of profile JSONL, or {STDIN} for stdin") from None


@contextmanager
def _progress(file: BinaryIO, console: Console | None) -> Iterator[Iterator[bytes]]:
    """The lines of the file, with a bar on the terminal when the file is large enough for one to be seen.

    A bar and the text may share one terminal only through one console; JSON on that terminal leaves no room.
    """
    size = _size(file)
    shared = sys.stdout.isatty()
    if size < PROGRESS_MIN_BYTES or not sys.stderr.isatty() or (shared and console is None):
        yield iter(file)
        return
    try:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import Progress  # noqa: PLC0415
    except ModuleNotFoundError:  # JSON does not need rich, so its bar is only for those who have it
        yield iter(file)
        return
    screen = console if shared else Console(stderr=True)
    with Progress(console=screen, transient=True, redirect_stdout=False, redirect_stderr=shared) as progress:
        task = progress.add_task("analyze", total=size)

        def lines() -> Iterator[bytes]:
            for line in file:
                yield line
                progress.advance(task, len(line))

        yield lines()


def _size(file: BinaryIO) -> int:
    """Bytes from here to the end; 0 for a pipe."""
    if not file.seekable():
        return 0
    here = file.tell()
    size = file.seek(0, os.SEEK_END) - here
    file.seek(here)
    return size


def _warn(message: str) -> None:
    print(_printable(message), file=sys.stderr)  # noqa: T201 - stderr is the interface here


def _place(path: str) -> str:
    return "<stdin>" if path == STDIN else path


def _without_values(message: str) -> str:
    """The decoder's message without what it quotes of the line: a record may hold statements with values."""
    return re.sub(r"'.*'", "(not shown)", message)


def _printable(text: str) -> str:
    """A record comes from elsewhere: no control character of it may reach the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
