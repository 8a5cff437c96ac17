"""What watching costs: ours beside a bare application, a hand-written floor and the peers.

Without options everything is measured. docs/overhead.md says how, and how long each mode takes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console

from benchmarks.overhead import documents, plot, show
from benchmarks.overhead.callgrind import ValgrindMissingError, check_valgrind
from benchmarks.overhead.measuring import Measuring
from benchmarks.overhead.plan import plan
from benchmarks.overhead.promises import promises
from benchmarks.overhead.results import Results, this_run
from benchmarks.overhead.tables import tables
from benchmarks.overhead.variants import VARIANTS
from perf_middleware.cli.demo.servers import ServerMissingError

if TYPE_CHECKING:
    from collections.abc import Sequence

PIPED_WIDTH = 140
FINE, BROKEN_PROMISE, MISTAKE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, and with --gate judge."""
    parser = _parser()
    options = parser.parse_args(arguments)
    only = _names(options.only, parser)
    if options.write and (options.gate or options.quick or only):
        parser.error("--write: the documents show a full run; without --gate, --quick and --only")
    try:
        results = _load(options.results) if options.results else _measure(options, only)
    except (ValgrindMissingError, ServerMissingError, OSError, msgspec.MsgspecError) as error:
        return _mistake(error)
    _show(results, options)
    broken = [promise for promise in results.promises if not promise.kept]
    return BROKEN_PROMISE if options.gate and broken else FINE


def _measure(options: argparse.Namespace, only: Sequence[str]) -> Results:
    check_valgrind()
    planned = plan(gate=options.gate, quick=options.quick, only=only, memory=not options.no_memory)
    results = Results(this_run())
    Measuring(planned, results, Console(stderr=True)).run()
    results.promises = promises(results.measured)
    return results


def _load(path: Path) -> Results:
    return msgspec.json.decode(path.read_bytes(), type=Results)


def _show(results: Results, options: argparse.Namespace) -> None:
    if options.format == "json":
        print(msgspec.json.format(msgspec.json.encode(results)).decode())
    elif options.format == "markdown":
        print(show.markdown(tables(results), results))
    else:
        show.on_terminal(results, Console(width=None if sys.stdout.isatty() else PIPED_WIDTH))
    if options.plot:
        plot.draw(results, options.plot)
    if options.write:
        documents.write(results)


def _names(given: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Names, with spaces or commas between them."""
    names = [name for text in given for name in text.split(",") if name]
    for name in names:
        if name not in VARIANTS or VARIANTS[name].tool is None:
            known = ", ".join(name for name, variant in VARIANTS.items() if variant.tool)
            parser.error(f"--only: no variant is called {name!r}; known: {known}")
    return names


def _mistake(error: Exception) -> int:
    print(f"overhead: {error}", file=sys.stderr)
    return MISTAKE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/overhead", description=__doc__)
    parser.add_argument("--gate", action="store_true", help="only what is promised; exit code 1 when it does not hold")
    parser.add_argument("--quick", action="store_true", help="3 rounds, no doors, no drivers, no memory run")
    parser.add_argument("--no-memory", action="store_true", help="without the runs of 20,000 requests")
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT", help="these variants alone")
    parser.add_argument("--from", dest="results", type=Path, metavar="FILE", help="show what --format json printed")
    parser.add_argument("--format", choices=("table", "json", "markdown"), default="table")
    parser.add_argument("--markdown", dest="format", action="store_const", const="markdown")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw kInstr per query (.svg or .png)")
    parser.add_argument("--write", action="store_true", help="refresh README.md, docs/overhead.md and the plot")
    return parser


if __name__ == "__main__":
    sys.exit(main())
