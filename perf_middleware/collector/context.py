"""Which profile a query belongs to: one context variable holding a slot that finishing empties.

Tasks, threads and greenlets that copied the context keep a reference to the slot, never to the profile: what
they run after the profile was finished is counted as unattributed, and nothing keeps the profile alive.
"""

from __future__ import annotations

from contextvars import ContextVar
from itertools import count
from threading import Lock
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import field

from perf_middleware.collector.rows import CHECK_EVERY, END_S, EXTRA, TARGET, TOKEN, WIDTH, Reading
from perf_middleware.record import Profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.collector.rows import Facts, Row, Target
    from perf_middleware.record import Shed

#: Rows past the detailed ones that wait for being folded into counters: a bound on memory, not on counting.
FOLD_EVERY: Final = 1024

#: Queries of a metered profile whose noting is timed.
METERED_QUERIES: Final = 32


class Unattributed:
    """Queries that ran while no profile was open for them, counted since the process started.

    Counting takes no lock, which a fork could find held: an iterator's step is whole.
    """

    def __init__(self) -> None:
        self._ticks = count(1)
        self._reads = 0

    def add(self) -> None:
        """Count one; safe from any thread."""
        next(self._ticks)

    @property
    def count(self) -> int:
        """How many so far."""
        self._reads += 1
        return next(self._ticks) - self._reads


unattributed = Unattributed()


class Capture(msgspec.Struct, weakref=True, eq=False):
    """The slot: what one open profile has noted so far; a struct because making one costs little.

    Attributes:
        profile: What finishing will fill; None once finished.
        keep: Rows to keep: none in a profile that is not sampled.
        callers: Whether the application's frame is wanted.
        capture_sql: Characters of the text to keep.
        parent: Of the profile around this one.
        owner: What finishes this profile; blocks inside it report there too.
        plain: No row so far has an `Extra` or lacks a token: none failed, each was one statement of known values.
        detected: How many queries the findings cover; None before they were looked for.
        loop_thread: Identity of the event loop's thread, where there is one; queries on it are blocking.
        first_byte_ns: When the response began.
        last_byte_ns: When its last byte was handed over.
        route: The framework's template, noted by a framework's hook.
        own_ns: What this package took so far, timed at the beginning and at the first byte.
        headers_ns: What making the headers took, and
        shed: what was shed, in a profile that is watched.
        watcher: None but in a profile that the overhead guard watches: takes the nanoseconds from a query's end to the
            end of noting it, where `noted` is called.
        check_at: From this many facts on `noted` wants to be called; with a parent always.
        full: From this many on they are folded.
        waited_ns: Time spent waiting for connections out of pools; None where no pool told.
        relations: What rows are known to load, by the places where their facts begin; None without any.
        direct: `facts`, while a hook may add whole rows to them by itself, and has `check` called now and then: nothing
            is around this profile, and no event loop is to be blocked. None otherwise, and where callers are not
            wanted, which have
        lean: instead, or no rows are, which have
        sparse: with text, times and target only.
        reading: What the facts say, as far as they were read.
        facts: Of the rows noted, in order (see `rows`); None once finished. `noting.note_query` adds to it.
        start_ns: `perf_counter_ns` when the profile was opened.

    """

    profile: Profile | None
    keep: int
    callers: bool
    capture_sql: int = 0
    parent: Capture | None = None
    owner: Any = None
    plain: bool = True
    detected: int | None = None
    loop_thread: int | None = None
    first_byte_ns: int | None = None
    last_byte_ns: int | None = None
    route: str | None = None
    own_ns: int = 0
    headers_ns: int = 0
    shed: Shed | None = None
    watcher: Callable[[float], object] | None = None
    check_at: int = 0
    full: int = 0
    waited_ns: int | None = None
    relations: dict[int, str] | None = None
    direct: Facts | None = None
    lean: Facts | None = None
    sparse: Facts | None = None
    reading: Reading | None = None
    lock: Any = field(default_factory=Lock)
    facts: Facts | None = field(default_factory=list)
    start_ns: int = field(default_factory=perf_counter_ns)

    def __post_init__(self) -> None:
        self.full = (self.keep + FOLD_EVERY) * WIDTH
        parent = self.parent
        if parent is not None:
            self.loop_thread = parent.loop_thread
            return
        self.check_at = self.full
        if self.keep and self.callers:  # as most have it
            self.direct = self.facts
        else:
            self._invite(self.facts)

    def _invite(self, facts: Facts | None) -> None:
        """Let hooks add rows by themselves."""
        if not self.keep:
            self.sparse = facts
        elif self.callers:
            self.direct = facts
        else:
            self.lean = facts

    @property
    def detailed(self) -> bool:
        """Whether rows are kept (a sampled profile), so that callers and parameters are worth noting."""
        return self.keep > 0

    def note(self, row: Row) -> None:
        """Add one row: what `noting.note_query` does in place, for a profile around another."""
        facts = self.facts
        if facts is None:
            self.late()
            return
        if row[EXTRA] is not None or row[TOKEN] is None:
            self.plain = False
        facts += row
        if len(facts) >= self.check_at:
            self.noted(facts, row)

    def noted(self, facts: Facts, row: Row | None = None) -> None:
        """Fold what is too much to keep, and tell the profile around this one and who meters."""
        if self.watcher is not None and facts:
            self.watcher((perf_counter() - facts[END_S - WIDTH]) * 1e9)
            if len(facts) >= METERED_QUERIES * WIDTH:
                self.check_at = self.full
            elif not self.check_at and self.loop_thread is None:  # the first row told its connection
                facts[TARGET - WIDTH].left = 1
                self._invite(facts)
        if len(facts) >= self.full:
            self._absorb(facts)
        parent = self.parent
        if row is not None and parent is not None and parent.open:
            parent.note(row)

    def check(self, facts: Facts, target: Target) -> None:
        """Do what `note` does after each row, for a hook that has added some of this connection by itself."""
        target.left = CHECK_EVERY
        if len(facts) >= self.check_at:
            self.noted(facts)
            if not self.check_at:
                target.left = 1

    def watch(self, watcher: Callable[[float], object], shed: Shed | None, *, metered: bool) -> None:
        """Watch this one, if `metered` with the noting of its first queries."""
        self.watcher, self.shed, self.headers_ns = watcher, shed, 0
        if metered:
            self.check_at = 0
            self.direct = self.lean = self.sparse = None

    def on_loop(self, thread: int) -> None:
        """Have queries on this event loop's thread known as blocking."""
        self.loop_thread = thread
        self.direct = self.lean = self.sparse = None

    def late(self) -> None:
        """Count a query that came after the end."""
        unattributed.add()

    @property
    def open(self) -> bool:
        """False once finished."""
        return self.facts is not None

    def read(self) -> Reading:
        """What the facts noted so far say; cheap when nothing was added since the last time."""
        return self._read(self.facts)

    def close(self) -> Reading:
        """Empty the slot and read for the last time; who still holds the slot holds nothing more."""
        facts, self.facts = self.facts, None
        self.profile = None
        if self.direct is not None:
            self.direct = None
        else:
            self.lean = self.sparse = None
        reading = self._read(facts)
        if reading is not NOTHING:
            self.reading = None
        if self.parent is not None:
            self.parent = None
        return reading

    def _read(self, facts: Facts | None) -> Reading:
        reading = self.reading
        if facts and (reading is None or reading.read_until != len(facts)):
            self._absorb(facts)
        if self.relations is not None and self.reading is not None:
            self.reading.relations = self.relations
        return self.reading or NOTHING

    def _absorb(self, facts: Facts) -> None:
        """Read the rows to keep, and fold those beyond them into counters. Facts may be added meanwhile."""
        with self.lock:
            end, kept = len(facts), self.keep * WIDTH
            reading = self.reading
            if reading is None:
                reading = self.reading = Reading(facts, self.start_ns / 1e9, self.keep, self.capture_sql)
            reading.plain = self.plain
            reading.add(min(end, kept))
            if end > kept:
                reading.fold(facts[kept:end])
                del facts[kept:end]


#: Of profiles that asked nothing, and stay as they are.
NOTHING: Final = Reading([], 0, 0, 0)

#: Current while a finished profile is handed to the sinks: what they ask of a database is nobody's.
SUPPRESSED: Final = Capture(Profile(), keep=0, callers=False)
SUPPRESSED.close()

current: ContextVar[Capture | None] = ContextVar("perf_middleware_capture", default=None)
