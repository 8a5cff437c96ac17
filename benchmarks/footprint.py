"""What rolling stats take in Redis: bytes of one window of each kind and tier, times the windows that are kept.

    .venv/bin/python benchmarks/footprint.py --routes 100 --queries 5 --profiles 200

Fills one window of every tier on a private Valkey with profiles of lognormal duration, asks the server for
`MEMORY USAGE` of each key, and adds up what it would be if every window that is kept were as full. An upper bound for
such traffic: a window of ten seconds is rarely as full as one of a day.
"""

from __future__ import annotations

import argparse
from random import Random

import redis
from rich.console import Console
from rich.progress import track
from rich.table import Table

from perf_middleware.cli.demo.servers import valkey
from perf_middleware.record import Profile, Query
from perf_middleware.sinks.rolling import Rolling
from perf_middleware.stats.window import KEPT_S, TIER_S

CALENDAR_S = {"1mo": 31 * 86_400, "1y": 365 * 86_400}
MIB = 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", type=int, default=100)
    parser.add_argument("--queries", type=int, default=5, help="different statements a route")
    parser.add_argument("--profiles", type=int, default=200, help="requests a route")
    args = parser.parse_args()
    with valkey() as url:
        fill(url, args.routes, args.queries, args.profiles)
        show(url, args)


def fill(url: str, routes: int, queries: int, profiles: int) -> None:
    chance = Random(1)
    sink = Rolling(url, service="shop", flush_interval_s=60)
    for _ in track(range(profiles), "requests to each route"):
        for route in range(routes):
            rows = [
                Query(fingerprint=f"SELECT a, b FROM table_{route} WHERE column_{query} = ?", duration_ms=1.0)
                for query in range(queries)
            ]
            duration_ms = chance.lognormvariate(3, 0.6)
            sink(Profile(name=f"GET /{route}", duration_ms=duration_ms, queries=rows, query_count=queries))
    assert sink.flush(60), sink.status()
    sink.close()


def show(url: str, args: argparse.Namespace) -> None:
    server = redis.Redis.from_url(url)
    largest: dict[tuple[str, str], int] = {}
    for key in server.scan_iter("pm1:{shop:0}:?:*"):
        kind, tier = key.decode().rsplit(":", 3)[1:3]
        largest[kind, tier] = max(largest.get((kind, tier), 0), server.memory_usage(key, samples=0))
    title = f"{args.routes} routes, {args.queries} statements each, {args.profiles} requests to each"
    table = Table("kind", "tier", "KiB a window", "windows kept", "MiB", title=title)
    total = 0
    for kind, tiers in KEPT_S.items():
        for tier, kept_s in tiers.items():
            size = largest.get((kind, tier), 0)
            windows = kept_s // (TIER_S | CALENDAR_S)[tier] + 1
            total += size * windows
            table.add_row(kind, tier, f"{size / 1024:,.1f}", str(windows), f"{size * windows / MIB:,.1f}")
    table.add_section()
    table.add_row("", "", "", "", f"{total / MIB:,.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
