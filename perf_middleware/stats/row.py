"""A row: what is known of one name (a route, a query, a finding) in one window, and its packed form.

The packed form is the same in every store; `stores/merge.lua` merges it inside Redis, `merge` here does it
everywhere else, byte for byte alike:

    7 x u64   n, errors, queries, wire, db_us, sum_us, max_us
    twice     u16 lo, u16 lanes, u8 width, then `lanes` counts of `width` bytes: durations, then counts

All integers are little-endian. A histogram spans its lowest to its highest lane and its width is the least that
holds its largest count, so equal contents are equal bytes, whatever the order of merging.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from perf_middleware.stats.histogram import Histogram, count_lane, duration_lane

#: The name that takes what a full window has no room for.
OTHER: Final = "(other)"

_COUNTERS: Final = struct.Struct("<7Q")
_LANES: Final = struct.Struct("<HHB")


class Row:
    """A row while it grows in this process: `n` samples, histograms as `{lane: samples}`."""

    __slots__ = ("counts", "db_us", "durations", "errors", "max_us", "n", "queries", "sum_us", "wire")

    def __init__(self) -> None:
        self.n = self.errors = self.queries = self.wire = self.db_us = self.sum_us = self.max_us = 0
        self.durations: dict[int, int] = {}
        self.counts: dict[int, int] = {}

    def add(self, *, duration_us: int, max_us: int, db_us: int, queries: int, wire: int, errors: int) -> None:
        """Count one sample: what one profile tells of this name (meaning by kind of row: docs/stats.md)."""
        self.n += 1
        self.errors += errors
        self.queries += queries
        self.wire += wire
        self.db_us += db_us
        self.sum_us += duration_us
        self.max_us = max(self.max_us, max_us)
        lane = duration_lane(duration_us)
        self.durations[lane] = self.durations.get(lane, 0) + 1
        lane = count_lane(queries)
        self.counts[lane] = self.counts.get(lane, 0) + 1

    def named(self, name: str) -> NamedRow:
        """The row in the form it travels in."""
        return NamedRow(
            name,
            self.n,
            self.errors,
            self.queries,
            self.wire,
            self.db_us,
            self.sum_us,
            self.max_us,
            _pairs(self.durations),
            _pairs(self.counts),
        )


class NamedRow(msgspec.Struct, array_like=True, gc=False):
    """A row on its way to a store: each histogram is lane, n, lane, n, ... in ascending lanes."""

    name: str
    n: int
    errors: int
    queries: int
    wire: int
    db_us: int
    sum_us: int
    max_us: int
    durations: list[int]
    counts: list[int]


class Totals:
    """A row as a store keeps it: the same counters, and dense histograms."""

    __slots__ = ("counts", "db_us", "durations", "errors", "max_us", "n", "queries", "sum_us", "wire")

    def __init__(self) -> None:
        self.n = self.errors = self.queries = self.wire = self.db_us = self.sum_us = self.max_us = 0
        self.durations = Histogram()
        self.counts = Histogram()

    def merge(self, other: Totals) -> None:
        """Add what another row counted."""
        self._add_counters(other)
        self.durations.merge(other.durations)
        self.counts.merge(other.counts)

    def add(self, row: NamedRow) -> None:
        """Add what a row on its way counted."""
        self._add_counters(row)
        self.durations.merge(Histogram.from_pairs(row.durations))
        self.counts.merge(Histogram.from_pairs(row.counts))

    def _add_counters(self, other: Totals | NamedRow) -> None:
        self.n += other.n
        self.errors += other.errors
        self.queries += other.queries
        self.wire += other.wire
        self.db_us += other.db_us
        self.sum_us += other.sum_us
        self.max_us = max(self.max_us, other.max_us)


def pack(totals: Totals) -> bytes:
    """The packed form."""
    return b"".join(
        (
            _COUNTERS.pack(
                totals.n, totals.errors, totals.queries, totals.wire, totals.db_us, totals.sum_us, totals.max_us
            ),
            *_write_lanes(totals.durations),
            *_write_lanes(totals.counts),
        )
    )


def unpack(blob: bytes) -> Totals:
    """Read the packed form."""
    totals = Totals()
    (
        totals.n,
        totals.errors,
        totals.queries,
        totals.wire,
        totals.db_us,
        totals.sum_us,
        totals.max_us,
    ) = _COUNTERS.unpack_from(blob)
    totals.durations, end = _read_lanes(blob, _COUNTERS.size)
    totals.counts, _ = _read_lanes(blob, end)
    return totals


def merge(blob: bytes | None, row: NamedRow) -> bytes:
    """The packed row with another added: the twin of `stores/merge.lua`."""
    totals = Totals() if blob is None else unpack(blob)
    totals.add(row)
    return pack(totals)


def _pairs(lanes: dict[int, int]) -> list[int]:
    return [number for pair in sorted(lanes.items()) for number in pair]


def _write_lanes(histogram: Histogram) -> tuple[bytes, bytes]:
    width = histogram.width()
    return _LANES.pack(histogram.lo, len(histogram), width), histogram.to_bytes(width)


def _read_lanes(blob: bytes, start: int) -> tuple[Histogram, int]:
    lo, lanes, width = _LANES.unpack_from(blob, start)
    start += _LANES.size
    end = start + lanes * width
    return Histogram.from_bytes(lo, width, blob[start:end]), end
