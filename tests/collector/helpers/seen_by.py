"""What tests of drivers ask of what was recorded."""

from __future__ import annotations

import linecache
from pathlib import Path
from time import perf_counter_ns


def spin():
    """Take 5 ms."""
    until_ns = perf_counter_ns() + 5_000_000
    while perf_counter_ns() < until_ns:
        pass


def total_wire(seen):
    """Statements really sent."""
    return sum(query.wire for query in seen.queries)


def outcomes(seen):
    """How each transaction ended."""
    return [transaction.outcome for transaction in seen.transactions]


def facts(seen):
    """Of each query."""
    return [(query.rows, query.many, query.wire, query.error) for query in seen.queries]


def line_of(query, file):
    """The line of this test's file that a query's caller names, and the function."""
    place, _, function = query.caller.partition(" in ")
    path, _, line = place.rpartition(":")
    assert Path(path).name == Path(file).name
    return linecache.getline(file, int(line)), function
