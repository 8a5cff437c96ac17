"""Windows: which stretches of time rows are kept for, how long, and which of them tile "the last hour".

A window is (kind, tier, number). Fixed tiers count `unix_time // seconds`; months and years are calendar ones
in UTC. Everything a store keeps is a window with an end, so everything expires.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400
MONTHS_KEPT_S: Final = 25 * 31 * DAY_S

#: Kinds of rows: routes, queries of a route, findings of a route; and the texts that belong to them.
ROUTE: Final = "r"
QUERY: Final = "q"
FINDING: Final = "f"
TEXT: Final = "t"

#: Length of the fixed tiers in seconds; "1mo" and "1y" follow the calendar.
TIER_S: Final = {"10s": 10, "1m": MINUTE_S, "1h": HOUR_S, "6h": 6 * HOUR_S, "1d": DAY_S}

#: How long a window outlives its end, in seconds, by kind and tier, finest first. "1y" is the running total.
KEPT_S: Final[dict[str, dict[str, int]]] = {
    ROUTE: {
        "10s": 16 * MINUTE_S,
        "1m": 4 * HOUR_S,
        "1h": 9 * DAY_S,
        "6h": 31 * DAY_S,
        "1d": 62 * DAY_S,
        "1mo": MONTHS_KEPT_S,
        "1y": MONTHS_KEPT_S,
    },
    QUERY: {"1m": 70 * MINUTE_S, "1h": 3 * DAY_S, "1d": 31 * DAY_S, "1mo": MONTHS_KEPT_S},
    FINDING: {"1m": 70 * MINUTE_S, "1h": 3 * DAY_S, "1d": 31 * DAY_S, "1mo": MONTHS_KEPT_S, "1y": MONTHS_KEPT_S},
    TEXT: {"1mo": MONTHS_KEPT_S},
}


class Window(NamedTuple):
    """One stretch of time of one kind of rows."""

    kind: str
    tier: str
    number: int

    @property
    def key(self) -> str:
        """Its name in a store."""
        return f"{self.kind}:{self.tier}:{self.number}"

    @property
    def start_s(self) -> int:
        """Unix time of its first second."""
        return _start_s(self.tier, self.number)

    @property
    def end_s(self) -> int:
        """Unix time of the first second after it."""
        return _start_s(self.tier, self.number + 1)

    @property
    def expires_s(self) -> int:
        """Unix time from which on no store needs to know it."""
        return self.end_s + KEPT_S[self.kind][self.tier]


def number_at(tier: str, second: float) -> int:
    """Number of the tier's window that holds this unix time."""
    if tier in TIER_S:
        return int(second // TIER_S[tier])
    utc = datetime.fromtimestamp(second, UTC)
    return utc.year if tier == "1y" else utc.year * 12 + utc.month - 1


def windows_at(kind: str, second: float) -> list[Window]:
    """The windows of every tier that hold this unix time, finest first."""
    return [Window(kind, tier, number_at(tier, second)) for tier in KEPT_S[kind]]


def cover(now_s: float, span_s: float, kinds: Sequence[str]) -> tuple[int, dict[str, list[Window]]]:
    """The fewest windows that tile the last `span_s` seconds, and the unix time at which they really begin.

    The beginning is rounded down to the finest tier that every kind still keeps at that age, so all kinds tell
    about the same stretch. An open window may be used: it holds nothing after now.
    """
    start_s = min(_begin(now_s, span_s, kind) for kind in kinds)
    return start_s, {kind: _tile(start_s, now_s, kind) for kind in kinds}


def _begin(now_s: float, span_s: float, kind: str) -> int:
    for tier in _tiling(kind):
        start_s = Window(kind, tier, number_at(tier, now_s - span_s)).start_s
        if now_s - start_s <= KEPT_S[kind][tier]:
            return start_s
    oldest = Window(kind, "1mo", number_at("1mo", now_s - MONTHS_KEPT_S))
    return oldest.end_s


def _tile(start_s: int, now_s: float, kind: str) -> list[Window]:
    tiles: list[Window] = []
    while start_s <= now_s:
        tiles.append(_largest(start_s, now_s, kind))
        start_s = tiles[-1].end_s
    return tiles


def _largest(start_s: int, now_s: float, kind: str) -> Window:
    for tier in reversed(_tiling(kind)):
        window = Window(kind, tier, number_at(tier, start_s))
        if window.start_s == start_s and now_s - start_s <= KEPT_S[kind][tier]:
            return window
    raise AssertionError(f"no {kind} window begins at {start_s}")


def _tiling(kind: str) -> list[str]:
    return [tier for tier in KEPT_S[kind] if tier != "1y"]


def _start_s(tier: str, number: int) -> int:
    if tier in TIER_S:
        return number * TIER_S[tier]
    year, month = (number, 0) if tier == "1y" else divmod(number, 12)
    return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp())
