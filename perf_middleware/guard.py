"""The overhead guard: what watching costs is measured, and when it is too much, callers are shed, then rows.

Counters never are: how many queries there were, and how long they took, is exact whatever is shed. What counts as our
own cost, and what does not, is in docs/guard.md.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from random import Random
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from perf_middleware.errors import warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.collector.context import Capture
    from perf_middleware.record import Profile, Shed

#: What is shed first, and then: with rows go the callers too, and all that is made of rows.
ORDER: Final[tuple[Shed | None, ...]] = (None, "callers", "rows")

#: One request in about 2**3 is watched: timed from its beginning to its end. While something is shed it may be a try.
WATCH_BITS: Final = 3

#: One watched request in 2**3 is metered: the noting of its first queries is timed. So are the first ones, at the start
#: and after each change, which are all watched.
METER_BITS: Final = 3
METERED_AT_FIRST: Final = 16

#: A block of watched requests ends when it has this many, and when they took this long together: one slow moment, or a
#: night with nothing but health checks, decides nothing.
BLOCK_REQUESTS: Final = 32
BLOCK_NS: Final = 50_000_000

#: Something changes only when so many blocks in a row ask for it.
BLOCKS: Final = 3

#: A request that took longer counts as if it had taken this long, our cost in proportion: no long poll and no stream
#: hides what the others cost.
LONGEST_REQUEST_NS: Final = 1_000_000_000

#: Queries whose noting times are kept, and the share of them (one in so many, the longest) that is left out: there the
#: process was interrupted.
SAMPLES: Final = 32
LEFT_OUT: Final = 8

#: A try has back what was shed last. All requests have, once tries cost less than this share of what is allowed.
RECOVER_BELOW: Final = 0.7

#: For this long after a change nothing is tried. Vain tries double it, and so does what has to be shed again, up to the
#: longest; it starts over where that happens after as long a time without a change.
FIRST_PAUSE_NS: Final = 10_000_000_000
LONGEST_PAUSE_NS: Final = 640_000_000_000


class Meter:
    """What it takes to note one query in one degree of detail.

    Attributes:
        samples_ns: The last ones that were timed, from the end of the driver's call to the end of noting.
        query_ns: Of a query: their mean without the longest, and the frames around the driver's call.

    """

    __slots__ = ("_frames_ns", "query_ns", "samples_ns")

    def __init__(self, frames_ns: float) -> None:
        self._frames_ns = self.query_ns = frames_ns
        self.samples_ns: deque[float] = deque(maxlen=SAMPLES)

    def settle(self) -> None:
        """Work out the mean anew."""
        shortest = sorted(self.samples_ns)
        if shortest:
            del shortest[len(shortest) - len(shortest) // LEFT_OUT :]
            self.query_ns = self._frames_ns + sum(shortest) / len(shortest)


class Block(NamedTuple):
    """Requests of which the same was shed: how many, what they cost us, and what they took without that."""

    requests: int
    own_ns: float
    app_ns: float

    @property
    def percent(self) -> float:
        """Our own cost, of the application's time."""
        return 100 * self.own_ns / self.app_ns


class _Tally:
    """The block that is filling, and the last ones."""

    __slots__ = ("blocks", "own_ns", "requests", "took_ns")

    def __init__(self) -> None:
        self.blocks: deque[Block] = deque(maxlen=BLOCKS)
        self.begin_block()

    def begin_block(self) -> None:
        self.requests = self.took_ns = 0
        self.own_ns = 0.0

    def end_block(self) -> None:
        self.blocks.append(Block(self.requests, self.own_ns, max(1.0, self.took_ns - self.own_ns)))
        self.begin_block()


class Guard:
    """Decides for each request what is left out of it.

    Threads share one without a lock: a race may lose an observation, or count a block twice.

    Args:
        max_percent: Own cost, in percent of the application's time, above which something is shed; 0 for never.
        service: For the log.
        can_shed: What there is to be shed, in order.
        frames_ns: What a hook's frames take around the driver's call; timed when absent.
        chance: Picks the requests that are watched.

    Attributes:
        shed: What is left out of requests now.
        until_watched: Requests until one is, for the pipeline to count down.

    """

    def __init__(
        self,
        max_percent: float,
        *,
        service: str = "app",
        can_shed: Sequence[Shed] = ("callers", "rows"),
        frames_ns: float | None = None,
        chance: Random | None = None,
    ) -> None:
        frames_ns = _time_frames_ns() if frames_ns is None else frames_ns
        self.shed: Shed | None = None
        self._max_percent = max_percent
        self._service = service
        self._order = (None, *can_shed)
        self._meters = {shed: Meter(frames_ns) for shed in ORDER}
        self._chance = chance or Random()  # noqa: S311 - which request is watched is no secret
        self._pause_ns = FIRST_PAUSE_NS
        self._try_from_ns = 0
        self._changed_ns: int | None = None
        self._changes = 0
        self._start()

    def begin(self, now_ns: int) -> Shed | None:
        """What to leave out of the request that is watched next: `shed`, or less when it is a try."""
        shed = self.shed
        if self._at_first > 0:
            self._at_first -= 1
            self.until_watched = 1
            return shed
        self.until_watched = 1 + self._chance.getrandbits(WATCH_BITS + 1)
        return shed if shed is None or now_ns < self._try_from_ns else self._next(shed, -1)

    def watch(self, capture: Capture, shed: Shed | None) -> None:
        """Watch a request of which this was shed, some of them with the noting of their queries."""
        meter = self._meters[_left_out(capture)]
        metered = self._at_first > 0 or not self._chance.getrandbits(METER_BITS)
        capture.watch(meter.samples_ns.append, shed, metered=metered)
        if metered:
            meter.settle()

    def observe(self, capture: Capture, profile: Profile, own_ns: float, now_ns: int) -> None:
        """Take in a watched request that ends now, and what of it was ours but for the noting of its queries."""
        took_ns = now_ns - capture.start_ns
        if profile.query_count:
            own_ns += profile.query_count * self._meters[_left_out(capture)].query_ns
        if took_ns > LONGEST_REQUEST_NS:
            own_ns *= LONGEST_REQUEST_NS / took_ns
            took_ns = LONGEST_REQUEST_NS
        tally = self._tallies[capture.shed]
        tally.requests += 1
        tally.own_ns += own_ns
        tally.took_ns += took_ns
        if tally.requests >= BLOCK_REQUESTS and tally.took_ns >= BLOCK_NS:
            tally.end_block()
            blocks = list(tally.blocks)
            if len(blocks) == BLOCKS and self._max_percent:
                self._judge(blocks, capture.shed, now_ns)

    def status(self) -> dict[str, Any]:
        """What is shed now, and why.

        `overhead_percent` is our own cost in the last `requests` watched ones of which the same was shed, `query_ns`
        what noting one query takes, from `query_samples` of them; both None before there are any. `changes` counts
        since the start.
        """
        shed = self.shed
        seen = _together(list(self._tallies[shed].blocks))
        meters = [self._meters[left_out] for left_out in ORDER[ORDER.index(shed) :]]
        meter = next((meter for meter in meters if meter.samples_ns), meters[0])
        meter.settle()
        return {
            "shed": shed,
            "max_overhead_percent": self._max_percent,
            "overhead_percent": seen.percent if seen.requests else None,
            "requests": seen.requests,
            "query_ns": meter.query_ns if meter.samples_ns else None,
            "query_samples": len(meter.samples_ns),
            "changes": self._changes,
        }

    def _start(self) -> None:
        self._tallies: dict[Shed | None, _Tally] = {shed: _Tally() for shed in ORDER}
        self._at_first = METERED_AT_FIRST
        self.until_watched = 1

    def _judge(self, blocks: list[Block], shed: Shed | None, now_ns: int) -> None:
        """Shed more or less, for what these requests cost of which this was shed."""
        now_shed, percents = self.shed, [block.percent for block in blocks]
        if shed == now_shed:
            if min(percents) > self._max_percent and shed != self._order[-1]:
                self._change(self._next(shed, 1), blocks, now_ns)
        elif now_shed is not None and shed == self._next(now_shed, -1):
            if max(percents) < RECOVER_BELOW * self._max_percent:
                self._change(shed, blocks, now_ns)
            else:
                self._tallies[shed].blocks.clear()
                self._pause(2 * self._pause_ns, now_ns)

    def _next(self, shed: Shed | None, step: Literal[-1, 1]) -> Shed | None:
        return self._order[self._order.index(shed) + step]

    def _change(self, shed: Shed | None, blocks: list[Block], now_ns: int) -> None:
        """Shed this from now on, for the reason that these blocks give."""
        if self._order.index(shed) < self._order.index(self.shed):
            self._pause(self._pause_ns, now_ns)
        elif self._changed_ns is None or now_ns - self._changed_ns > LONGEST_PAUSE_NS:
            self._pause(FIRST_PAUSE_NS, now_ns)
        else:
            self._pause(2 * self._pause_ns, now_ns)
        self._changed_ns = now_ns
        self._changes += 1
        self.shed = shed
        self._start()
        seen = _together(blocks)
        with suppress(Exception):  # a handler of the application's that raises has the last word nowhere
            warn(
                "perf.overhead service=%s shed=%s overhead_percent=%.2f max_overhead_percent=%g requests=%d",
                self._service,
                shed or "nothing",
                seen.percent,
                self._max_percent,
                seen.requests,
            )

    def _pause(self, pause_ns: int, now_ns: int) -> None:
        self._pause_ns = min(pause_ns, LONGEST_PAUSE_NS)
        self._try_from_ns = now_ns + self._pause_ns


def _left_out(capture: Capture) -> Shed | None:
    """What nobody notes of its queries: shed, or never asked for by the options and the sampling."""
    if not capture.detailed:
        return "rows"
    return None if capture.callers else "callers"


def _together(blocks: list[Block]) -> Block:
    requests, own_ns, app_ns = zip(*blocks, strict=True) if blocks else ((), (), ())
    return Block(sum(requests), sum(own_ns), sum(app_ns))


def _time_frames_ns() -> float:
    """What a hook's frames take before the driver's call and after the noting: the least of an empty one's rounds."""
    slot: ContextVar[bool] = ContextVar("slot", default=True)
    get = slot.get

    def hooked(first: Any, second: Any, third: Any = None) -> Any:
        if not get():
            return None
        perf_counter_ns()
        try:
            result = _driver(first, second, third)
        except BaseException:  # noqa: TRY203 - as a hook does
            raise
        return result

    return max(0.0, _least_ns(hooked) - _least_ns(_driver))


def _driver(_first: Any, _second: Any, _third: Any = None) -> Any:
    return None


def _least_ns(function: Any) -> float:
    calls, rounds_ns = 20, []
    for _ in range(5):
        start_ns = perf_counter_ns()
        for _ in range(calls):
            function(1, 2, 3)
        rounds_ns.append(perf_counter_ns() - start_ns)
    return min(rounds_ns) / calls
