"""`perf-middleware report`: what the routes cost in the last hour (or any other window), as a screen or as JSON.

Reads a store; nothing here measures. A percentile of too few requests is not told: `n<100` says what it takes.
The JSON is one object, described in docs/stats.md.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from perf_middleware.cli import FAILED
from perf_middleware.errors import StoreError
from perf_middleware.record import SEVERITIES
from perf_middleware.stats.histogram import LEAST_N
from perf_middleware.stats.read import routes, severity_rank
from perf_middleware.stores import DEFAULT_FILE_URL, open_store

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from perf_middleware.stats.read import FindingStats, QueryStats, RouteStats, WindowStats

SCHEMA: Final = 1
COLOURS: Final = {"low": "cyan", "medium": "yellow", "high": "red", "critical": "bold white on red"}
UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST_WINDOW_S: Final = 775 * 86_400

#: Routes whose queries are shown, and queries of each.
QUERY_ROUTES: Final = 5
QUERIES: Final = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser(
        "report",
        help="what the routes cost, from the rolling stats",
        description="Requests, percentiles, queries, database share and findings of each route in a window.",
        epilog="Exit code: 0 also with findings; 1 with --fail-on when one is that severe; 2 for a mistake.",
    )
    parser.add_argument("--store", metavar="URL", help=f"where the stats are (default: {DEFAULT_FILE_URL})")
    parser.add_argument("--service", metavar="S", help="only this service (default: all in the store)")
    parser.add_argument(
        "--window", metavar="SPAN", type=_span, default="1h", help="how far back: 15m, 1h, 7d (default: 1h)"
    )
    parser.add_argument("--limit", metavar="N", type=_limit, default=20, help="routes in the table (default: 20)")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: one object with every route")
    parser.add_argument("--fail-on", choices=SEVERITIES, metavar="SEVERITY", help=f"one of {', '.join(SEVERITIES)}")


def run(args: argparse.Namespace) -> int:
    """Read the window and print it; the exit code says whether `--fail-on` was met.

    Raises:
        OptionError: When the URL is not one of a store.
        StoreError: When there is no such file, or the store cannot be read.

    """
    url = args.store or os.environ.get("PERF_MIDDLEWARE_STORE") or DEFAULT_FILE_URL
    _check_readable(url)
    store = open_store(url, prefix=os.environ.get("PERF_MIDDLEWARE_REDIS_PREFIX", "pm1"))
    try:
        stats = routes(store, args.service, window_s=args.window, now_s=time.time())
        known = store.services()
    finally:
        store.close()
    if args.format == "json":
        document = {"schema": SCHEMA, "window_s": args.window, **msgspec.to_builtins(stats)}
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        _print(stats, url, known, limit=args.limit)
    return FAILED if args.fail_on and _reaches(stats, args.fail_on) else 0


def _check_readable(url: str) -> None:
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        raise StoreError(
            "memory:// is seen only by the process that wrote it; give the application and this command the same "
            "--store: sqlite:///PATH or redis://HOST"
        )
    path = url.removeprefix("sqlite:///")
    if scheme == "sqlite" and path != url and not os.path.exists(path):  # noqa: PTH110 - the URL holds a plain path
        raise StoreError(
            f"there is no stats file {path}: start the application by `perf-middleware run MODULE:APP` in this "
            "folder, or say where it keeps its stats with --store URL"
        )


def _reaches(stats: WindowStats, severity: str) -> bool:
    least = severity_rank(severity)
    return any(severity_rank(finding.severity) >= least for route in stats.routes for finding in route.findings)


def _print(stats: WindowStats, url: str, known: list[str], *, limit: int) -> None:
    from rich.console import Console  # noqa: PLC0415 - an extra: only the screen needs it

    console = Console(highlight=False)
    console.print(_heading(stats, url), style="bold", markup=False)
    if not stats.routes:
        console.print("no requests in this window" + _hint(stats, known), markup=False)
        return
    console.print(_table(stats, limit))
    console.print(_legend(stats), style="dim")
    if len(stats.routes) > limit:
        console.print(f"and {len(stats.routes) - limit} more routes (--limit)", style="dim")
    _print_findings(console, stats)
    _print_queries(console, stats)


def _heading(stats: WindowStats, url: str) -> str:
    begin, end = (time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second)) for second in (stats.from_s, stats.to_s))
    length = timedelta(seconds=stats.to_s - stats.from_s)
    services = ", ".join(_printable(service) for service in stats.services) or "no service"
    return f"{services}: {stats.n:,} profiles from {begin} to {end} UTC ({length}), {_place(url)}"


def _hint(stats: WindowStats, known: list[str]) -> str:
    if not known:
        return ": nothing was ever stored here"
    if not set(stats.services) & set(known):
        return f": no service of that name; there are: {', '.join(map(_printable, known))}"
    return "; a longer one may have some: --window 7d"


def _place(url: str) -> str:
    """The store without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _table(stats: WindowStats, limit: int) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    several = len(stats.services) > 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("route", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    for column in ("p50 ms", "p95 ms", "p99 ms", "queries", "p95"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("db", justify="right", no_wrap=True)
    table.add_column("findings")
    for route in stats.routes[:limit]:
        table.add_row(
            Text(_name(route, several=several)),
            f"{route.n:,}",
            _percentile(route.p50_ms, 0.5, ".1f"),
            _percentile(route.p95_ms, 0.95, ".1f"),
            _percentile(route.p99_ms, 0.99, ".1f"),
            f"{route.queries_mean:,.1f}",
            _percentile(route.queries_p95, 0.95, ""),
            "-" if route.db_share is None else f"{route.db_share:.0%}",
            _severities(route),
        )
    return table


def _legend(stats: WindowStats) -> str:
    words = "queries: mean and p95 per profile; db: share of the time"
    if any(value is None for route in stats.routes for value in (route.p50_ms, route.p95_ms, route.p99_ms)):
        words += "; n<: n too small for that percentile"
    return f"{words}; failed: {stats.errors:,} of {stats.n:,}\n"


def _percentile(value: float | None, share: float, form: str) -> RenderableType:
    """The value, or how many profiles it would take to tell."""
    from rich.text import Text  # noqa: PLC0415

    return Text(f"n<{LEAST_N[share]}", style="dim") if value is None else f"{value:,{form}}"


def _severities(route: RouteStats) -> RenderableType:
    from rich.text import Text  # noqa: PLC0415

    text = Text()
    for severity in reversed(SEVERITIES):
        count = sum(finding.severity == severity for finding in route.findings)
        if count:
            text.append(" " if text else "")
            text.append(f"{count} {severity}", style=COLOURS[severity])
    return text


def _print_findings(console: Console, stats: WindowStats) -> None:
    found = [(route, finding) for route in stats.routes for finding in route.findings]
    if not found:
        return
    console.print("Findings", style="bold")
    found.sort(key=lambda pair: pair[1].total_ms, reverse=True)
    found.sort(key=lambda pair: severity_rank(pair[1].severity), reverse=True)
    for route, finding in found:
        _print_finding(console, route, finding)


def _print_finding(console: Console, route: RouteStats, finding: FindingStats) -> None:
    from rich.padding import Padding  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    head = Text(f"{finding.severity:<8} ", style=COLOURS.get(finding.severity, ""))
    head.append(f"{finding.kind}: ", style="bold")
    head.append(_printable(finding.title), style="default not bold")
    saving = f", up to {finding.wasted_ms:,.1f} ms to save" if finding.wasted_ms else ""
    place = "" if finding.caller and finding.caller in finding.title else finding.caller or "(caller not known)"
    lines = [
        Text(_printable(place)),
        Text(_printable(finding.recommendation)),
        Text(
            f"{_printable(route.name)}: in {finding.n:,} of {route.n:,}, "
            f"{finding.count:,} queries concerned, {finding.total_ms:,.1f} ms in all{saving}",
            style="dim",
        ),
    ]
    console.print(Padding(head, (0, 0, 0, 2)))
    for line in lines:
        if line:
            console.print(Padding(line, (0, 0, 0, 11)))
    console.print()


def _print_queries(console: Console, stats: WindowStats) -> None:
    shown = [route for route in stats.routes if route.top_queries][:QUERY_ROUTES]
    if not shown:
        return
    console.print("Queries by time", style="bold")
    several = len(stats.services) > 1
    for route in shown:
        note = ""
        if route.detailed_queries < route.queries:
            note = f"  ({route.detailed_queries / route.queries:.0%} of its queries were kept in detail)"
        console.print(f"  {_name(route, several=several)}{note}", markup=False)
        for query in route.top_queries[:QUERIES]:
            _print_query(console, query)


def _print_query(console: Console, query: QueryStats) -> None:
    from rich.padding import Padding  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    numbers = f"{query.total_ms:>10,.1f} ms {query.count:>8,} times  "
    text = Text(numbers)
    text.append(_printable(query.fingerprint))
    text.truncate(max(40, console.width - 4), overflow="ellipsis")
    console.print(Padding(text, (0, 0, 0, 4)))
    if query.caller:
        console.print(Padding(Text(_printable(query.caller), style="dim"), (0, 0, 0, 4 + len(numbers))))


def _name(route: RouteStats, *, several: bool) -> str:
    name = _printable(route.name) if route.kind in ("request", None) else f"{_printable(route.name)} ({route.kind})"
    return f"{_printable(route.service)}: {name}" if several else name


def _printable(text: str) -> str:
    """A store is written by others: no control character of it may reach the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _span(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    seconds = int(found[1]) * UNITS_S[found[2]] if found else 0
    if not 0 < seconds <= LONGEST_WINDOW_S:
        raise argparse.ArgumentTypeError(f"{text!r}: a number and s, m, h or d is accepted, such as 90s, 15m, 1h or 7d")
    return float(seconds)


def _limit(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 is accepted")
    return int(text)
