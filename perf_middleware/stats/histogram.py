"""Histograms of integer counts in logarithmic buckets ("lanes"): merging is adding, in any order.

Durations use OpenTelemetry's base-2 exponential layout at the fixed scale 6: 64 lanes per doubling, so a value
read back is within 0.542 % of the value recorded (docs/stats.md has the derivation). Counts, such as queries
per request, have a lane each up to 127 and the same 64 lanes per doubling above.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from itertools import accumulate
from math import ceil, log2
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: OpenTelemetry's scale: 2**6 lanes per doubling.
SCALE: Final = 6
LANES_PER_DOUBLING: Final = 1 << SCALE

#: Lane of exactly one second, 20 doublings above lane 0 (0.95 microseconds).
SECOND_LANE: Final = 20 * LANES_PER_DOUBLING

#: Durations above 65,536 s share the last lane.
LAST_LANE: Final = 36 * LANES_PER_DOUBLING - 1

#: Counts below this have a lane of their own.
EXACT_COUNTS: Final = 128

#: Least sample size for which a percentile is told at all (docs/stats.md).
LEAST_N: Final = {0.5: 20, 0.95: 100, 0.99: 500}

_BASE: Final = 2 ** (1 / LANES_PER_DOUBLING)
_MIDDLE: Final = 2 * _BASE / (1 + _BASE)
_EXACT_DOUBLINGS: Final = EXACT_COUNTS.bit_length() - 1
_LANE_BYTES: Final = 8
_LANE_BITS: Final = 8 * _LANE_BYTES


def duration_lane(duration_us: int) -> int:
    """The lane of a duration in microseconds."""
    if duration_us <= 0:
        return 0
    return min(LAST_LANE, max(0, int(log2(duration_us / 1e6) * LANES_PER_DOUBLING + SECOND_LANE)))


def lane_duration_us(lane: int) -> float:
    """The duration that stands for a lane: its relative error is equal at both borders, at most 0.542 %."""
    return float(2 ** ((lane - SECOND_LANE) / LANES_PER_DOUBLING) * _MIDDLE * 1e6)


def count_lane(count: int) -> int:
    """The lane of a count: exact below 128, then 64 lanes per doubling."""
    if count < EXACT_COUNTS:
        return max(0, count)
    return min(LAST_LANE, EXACT_COUNTS + int((log2(count) - _EXACT_DOUBLINGS) * LANES_PER_DOUBLING))


def lane_count(lane: int) -> int:
    """The count that stands for a lane: itself below 128, within 0.55 % (or half a query) above."""
    if lane < EXACT_COUNTS:
        return lane
    return round(2 ** (_EXACT_DOUBLINGS + (lane - EXACT_COUNTS) / LANES_PER_DOUBLING) * _MIDDLE)


class Histogram:
    """Counts of the lanes from `lo` on, each in 64 bits of one large integer: adding two of them is one addition."""

    __slots__ = ("lo", "packed")

    def __init__(self, lo: int = 0, packed: int = 0) -> None:
        self.lo = lo
        self.packed = packed

    @classmethod
    def from_pairs(cls, pairs: Sequence[int]) -> Histogram:
        """A histogram of lane, n, lane, n, ... in ascending lanes."""
        lo = pairs[0] if pairs else 0
        lanes = zip(pairs[::2], pairs[1::2], strict=True)
        return cls(lo, sum(count << _LANE_BITS * (lane - lo) for lane, count in lanes))

    @classmethod
    def from_bytes(cls, lo: int, width: int, lanes: bytes) -> Histogram:
        """Read what `to_bytes` wrote."""
        wide = bytearray(len(lanes) // width * _LANE_BYTES)
        for place in range(width):
            wide[place::_LANE_BYTES] = lanes[place::width]
        return cls(lo, int.from_bytes(wide, "little"))

    def __len__(self) -> int:
        """Lanes from the lowest to the highest that has a count."""
        return (self.packed.bit_length() + _LANE_BITS - 1) // _LANE_BITS

    def merge(self, other: Histogram) -> None:
        """Add the other's counts to ours."""
        if not other.packed:
            return
        if not self.packed:
            self.lo = other.lo
        elif other.lo < self.lo:
            self.packed <<= _LANE_BITS * (self.lo - other.lo)
            self.lo = other.lo
        self.packed += other.packed << _LANE_BITS * (other.lo - self.lo)

    def counts(self) -> tuple[int, ...]:
        """The count of each lane, from `lo` on."""
        return struct.unpack(f"<{len(self)}Q", self.to_bytes(_LANE_BYTES))

    def total(self) -> int:
        """How many values were recorded."""
        return sum(self.counts())

    def percentile_lane(self, share: float) -> int | None:
        """Lane of the nearest-rank percentile; None where too few values were recorded (`LEAST_N`)."""
        cumulated = list(accumulate(self.counts()))
        if not cumulated or cumulated[-1] < LEAST_N[share]:
            return None
        return self.lo + bisect_left(cumulated, ceil(share * cumulated[-1]))

    def width(self) -> int:
        """Bytes a lane needs to hold the largest count: 1, 2, 4 or 8."""
        largest = max(self.counts(), default=0)
        return next(width for width in (1, 2, 4, _LANE_BYTES) if largest < 1 << 8 * width)

    def to_bytes(self, width: int) -> bytes:
        """The counts, little-endian, `width` bytes each."""
        wide = self.packed.to_bytes(len(self) * _LANE_BYTES, "little")
        lanes = bytearray(len(self) * width)
        for place in range(width):
            lanes[place::width] = wide[place::_LANE_BYTES]
        return bytes(lanes)
