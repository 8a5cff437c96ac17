"""`perf-middleware demo`: a small shop on real servers, visited, and what its owner gets to see.

Flask under gunicorn and Starlette under uvicorn serve the same pages from one MariaDB (or SQLite, where it is
not installed) and keep their stats in one Valkey. The demo checks itself: exit code 1 when the N+1 query is not
found on its line, or when the totals that two readers see are not what was sent.
"""

from __future__ import annotations

import ast
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from perf_middleware.cli.demo import servers
from perf_middleware.cli.demo.visitors import Answer, visit, visit_all
from perf_middleware.stats.read import routes
from perf_middleware.stores import open_store

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from perf_middleware.stats.read import FindingStats, RouteStats, WindowStats

SHOP: Final = Path(__file__).with_name("shop.py")
FRONTS: Final = "perf_middleware.cli.demo"
REPORT: Final = ("perf_middleware", "report", "--store")

#: How often each page is visited on each of the two fronts.
VISITS: Final = {"/orders": 60, "/orders/fixed": 60, "/basket": 40, "/products/7": 60, "/turnover": 3}

FLUSH_INTERVAL_S: Final = 0.5
FLUSH_TIMEOUT_S: Final = 20.0


class Shop(msgspec.Struct):
    """The running shop.

    Attributes:
        environment: Of its processes.
        store: URL of its stats.
        folder: Where the fronts' output goes.
        ports: Of its fronts.
        answers: To all visits so far.

    """

    environment: dict[str, str]
    store: str
    folder: Path
    ports: list[int] = []
    answers: list[Answer] = []


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb, which has no arguments."""
    subparsers.add_parser(
        "demo",
        help="a small shop on real servers, measured: what its owner gets to see",
        description="Serves a small shop from private servers, visits it, and shows and checks what was measured.",
    )


def run(_args: argparse.Namespace) -> int:
    """Open the shop, visit it, show what was measured, and check it.

    Raises:
        ServerError: When one of the servers does not start.
        VisitError: When a page is not there.

    """
    from rich.console import Console  # noqa: PLC0415 - an extra

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, soft_wrap=True)
    with ExitStack() as open_servers:
        shop = _open_shop(console, open_servers)
        _visit(console, shop)
        stats = _stats_of_all(shop)
        _show_request(console, shop)
        _show_report(console, shop)
        found = _show_n_plus_one(console, stats)
        agreed = _show_totals(console, shop, stats)
    return 0 if found and agreed else 1


def _open_shop(console: Console, open_servers: ExitStack) -> Shop:
    folder = open_servers.enter_context(servers.temporary_folder())
    store = open_servers.enter_context(servers.valkey())
    database, name = _open_database(console, open_servers, folder)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PERF_MIDDLEWARE_")}
    settings = {"PERF_MIDDLEWARE_STORE": store, "PERF_MIDDLEWARE_FLUSH_INTERVAL_S": str(FLUSH_INTERVAL_S)}
    shop = Shop({**ours, **settings, "SHOP_DATABASE": database}, store, folder)
    if _python(shop, f"{FRONTS}.shop").returncode:
        raise servers.ServerError(f"the demo's shop could not be filled: {name} refused")
    gunicorn = ("gunicorn", "--workers=2", "--threads=4", "--graceful-timeout=5", f"{FRONTS}.shop_flask:app")
    uvicorn = ("uvicorn", "--log-level=warning", f"{FRONTS}.shop_starlette:app")
    _open_front(open_servers, shop, *gunicorn, "--bind={host}:{port}")
    _open_front(open_servers, shop, *uvicorn, "--host={host}", "--port={port}")
    console.print(f"A shop on {name}: Flask under gunicorn (2 workers), Starlette under uvicorn, stats in Valkey.")
    return shop


def _open_database(console: Console, open_servers: ExitStack, folder: Path) -> tuple[str, str]:
    """The URL of the shop's database and what to call it."""
    if find_spec("pymysql") is not None:
        try:
            server = open_servers.enter_context(servers.mariadb())
        except servers.ServerMissingError as missing:
            console.print(f"{missing}", style="dim")
        else:
            address = f"{server.user}:{server.password}@{server.host}:{server.port}/{server.database}"
            return f"mysql://{address}", "MariaDB (PyMySQL)"
    return f"sqlite:///{folder / 'shop.sqlite3'}", "SQLite"


def _open_front(open_servers: ExitStack, shop: Shop, program: str, *arguments: str) -> None:
    """Start one front; it is ready when it has answered its first visitor."""

    def command(port: int) -> list[str]:
        places = {"{host}": servers.HOST, "{port}": str(port)}
        filled = [re.sub(r"\{\w+\}", lambda place: places[place[0]], argument) for argument in arguments]
        return [sys.executable, "-m", program, *filled]

    def ready(port: int) -> bool:
        try:
            shop.answers.append(visit(port, "/products/1"))
        except OSError:
            return False
        return True

    output = shop.folder / f"{program}.log"
    front = servers.listening(program, command, ready=ready, output=output, env=shop.environment)
    shop.ports.append(open_servers.enter_context(front))


def _visit(console: Console, shop: Shop) -> None:
    from rich.progress import track  # noqa: PLC0415

    visits = [(port, path) for port in shop.ports for path, times in VISITS.items() for _ in range(times)]
    random.Random(1).shuffle(visits)  # noqa: S311 - the same mix of pages every time
    bar = track(
        visit_all(visits),
        "Visiting",
        total=len(visits),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    shop.answers.extend(bar)


def _stats_of_all(shop: Shop) -> WindowStats:
    """The stats, once all processes have sent theirs; as they are, when that takes too long."""
    store = open_store(shop.store)
    deadline = time.monotonic() + FLUSH_TIMEOUT_S
    try:
        while (stats := routes(store)).n < len(shop.answers) and time.monotonic() < deadline:
            time.sleep(FLUSH_INTERVAL_S / 5)
    finally:
        store.close()
    return stats


def _show_request(console: Console, shop: Shop) -> None:
    """One visit as its response told it, and as its line in the log does."""
    answer = [answer for answer in shop.answers if answer.path == "/orders"][-1]
    _title(console, "A response tells what it cost", "curl -i http://shop/orders")
    for name, value in answer.headers:
        if name.startswith(("X-Perf-", "Server-Timing")):
            console.print(f"{name}: {value}", markup=False)
    _title(console, "So does its line in the log", "stderr of the server")
    logged = "\n".join(log.read_text() for log in shop.folder.glob("*.log")).splitlines()
    identified = f'"{answer.identity}"'
    console.print(next((line for line in logged if identified in line), "(not there)"), markup=False)


def _show_report(console: Console, shop: Shop) -> None:
    _title(console, "The report adds up all processes", "perf-middleware report --store redis://...")
    sys.stdout.flush()
    _python(shop, *REPORT, shop.store)


def _python(shop: Shop, *module: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run one of our modules in a process of its own."""
    command = [sys.executable, "-m", *module]
    output = subprocess.PIPE if capture else None
    return subprocess.run(command, env=shop.environment, check=False, stdout=output, text=True)  # noqa: S603 - ourselves


def _show_n_plus_one(console: Console, stats: WindowStats) -> bool:
    _title(console, "The N+1 query, before and after", "GET /orders and GET /orders/fixed")
    by_name = {route.name: route for route in stats.routes}
    before, after = by_name["GET /orders"], by_name["GET /orders/fixed"]
    first, last = n_plus_one_lines(SHOP.read_text())
    finding = next((finding for finding in before.findings if finding.kind == "n_plus_one"), None)
    if finding is None or not is_at(finding, first, last):
        place = f"at {finding.caller}" if finding else "nowhere"
        console.print(f"FAILED: the N+1 query is in {SHOP.name}:{first}, and was found {place}", style="bold red")
        return False
    console.print(f"{finding.title} ({finding.severity}, in {finding.n} of {before.n} requests)", style="bold")
    console.print(f"    {SHOP.read_text().splitlines()[first - 1].strip()}", markup=False)
    console.print(f"{finding.recommendation}\n", markup=False)
    for label, route in (("before", before), ("after", after)):
        console.print(f"  {label:<7} {_cost(route)}", markup=False)
    return True


def _cost(route: RouteStats) -> str:
    median = "unknown, n too small" if route.p50_ms is None else f"{route.p50_ms:.1f} ms"
    return f"{route.name:<18} {route.queries_mean:5.1f} queries, median {median} (n = {route.n})"


def n_plus_one_lines(source: str) -> tuple[int, int]:
    """First and last line of the query inside the loop of the shop's `orders`, as its source says."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "orders"]
    loop = next(node for node in ast.walk(functions[0]) if isinstance(node, ast.For))
    query = next(
        node
        for node in ast.walk(loop)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "execute"
    )
    return query.lineno, query.end_lineno or query.lineno


def is_at(finding: FindingStats, first: int, last: int) -> bool:
    """Whether a finding points into the shop's `orders`, between two lines."""
    place = re.fullmatch(r"(?P<file>.+):(?P<line>\d+) in orders", finding.caller or "")
    return place is not None and Path(place["file"]).name == SHOP.name and first <= int(place["line"]) <= last


def _show_totals(console: Console, shop: Shop, stats: WindowStats) -> bool:
    _title(console, "Everyone's totals", "perf-middleware report --format json, in a second process")
    report = _python(shop, *REPORT, shop.store, "--format", "json", capture=True)
    if report.returncode:
        console.print("FAILED: the second reader could not read", style="bold red")
        return False
    second = json.loads(report.stdout)
    totals = {
        "visitors sent, and headers told": (len(shop.answers), sum(answer.queries for answer in shop.answers)),
        "this reader": (stats.n, stats.queries),
        "second reader": (second["n"], second["queries"]),
    }
    for who, (requests, queries) in totals.items():
        console.print(f"  {who:<32} {requests:>6,} requests {queries:>8,} queries")
    agreed = len(set(totals.values())) == 1
    console.print("  equal" if agreed else "FAILED: they differ", style="bold green" if agreed else "bold red")
    return agreed


def _title(console: Console, title: str, source: str) -> None:
    console.print()
    console.print(f"{title} ({source})", style="bold cyan")
