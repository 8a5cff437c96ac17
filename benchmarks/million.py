"""A million rows streamed by one statement, and a million statements in one block: what they take of time and memory.

    .venv/bin/python -m benchmarks.million

The rows come from a private MariaDB through PyMySQL's SSCursor, one by one and 1,000 at a time, bare and inside a block
in turns; the ratio is that of CPU times, the median of the rounds. The statements are PyMySQL's without a server.
"""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.cursors import SSCursor
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.overhead import databases
from perf_middleware import collector, profile
from perf_middleware.cli.demo import servers

if TYPE_CHECKING:
    from collections.abc import Callable

MILLION = 1_000_000
ROUNDS = 5

#: Statements before memory is looked at for the first time.
FIRST = 100_000


def one_by_one(connection: Any) -> None:
    """Iterate over the cursor."""
    with connection.cursor(SSCursor) as cursor:
        cursor.execute(f"SELECT seq FROM seq_1_to_{MILLION}")
        assert sum(1 for _ in cursor) == MILLION


def in_bulk(connection: Any) -> None:
    """Take 1,000 rows at a time."""
    with connection.cursor(SSCursor) as cursor:
        cursor.execute(f"SELECT seq FROM seq_1_to_{MILLION}")
        count = 0
        while rows := cursor.fetchmany(1000):
            count += len(rows)
        assert count == MILLION


def stream(connection: Any, take: Callable[[Any], None]) -> tuple[float, int, float]:
    """How many times the bare CPU time it takes in a block, the queries counted, and the MiB grown."""
    ratios = []
    for _ in track(range(ROUNDS), f"rows, {take.__name__}", transient=True):
        bare_s = _cpu_s(lambda: take(connection))
        before_mib = _resident_mib()
        with profile("rows") as seen:
            ratios.append(_cpu_s(lambda: take(connection)) / bare_s)
        grown_mib = _resident_mib() - before_mib
    return median(ratios), seen.query_count, grown_mib


def run_statements(connection: Any) -> tuple[int, float]:
    """The queries counted in a block of a million, and the MiB grown after the first of them."""
    with profile("statements") as seen, connection.cursor() as cursor:
        for number in track(range(MILLION), "statements", transient=True):
            cursor.execute("SELECT name FROM product WHERE id = %s", (number,))
            if number == FIRST:
                before_mib = _resident_mib()
        grown_mib = _resident_mib() - before_mib
    return seen.query_count, grown_mib


def _cpu_s(function: Callable[[], None]) -> float:
    start_s = process_time()
    function()
    return process_time() - start_s


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measure and print."""
    os.environ.setdefault("PERF_MIDDLEWARE_LOG", "0")
    collector.install("pymysql")
    table = Table("in one block", "queries counted", "CPU time, of the bare one", "MiB grown", title="A million")
    with servers.mariadb() as server:
        connection = pymysql.connect(
            host=server.host, port=server.port, user=server.user, password=server.password, database=server.database
        )
        for take in (one_by_one, in_bulk):
            ratio, queries, grown_mib = stream(connection, take)
            table.add_row(f"rows, {take.__name__}", f"{queries:,}", f"{ratio:.2f}", f"{grown_mib:.1f}")
        connection.close()
    queries, grown_mib = run_statements(databases.connect("pymysql"))
    table.add_row("statements", f"{queries:,}", "", f"{grown_mib:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
