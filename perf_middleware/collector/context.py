"""Which profile a query belongs to: one context variable holding a slot that finishing empties.

Tasks, threads and greenlets that copied the context keep a reference to the slot, never to the profile: what
they run after the profile was finished is counted as unattributed, and nothing keeps the profile alive.
"""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from functools import partial
from itertools import count
from threading import Lock
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from perf_middleware.collector.rows import Reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

    from perf_middleware.collector.rows import Row
    from perf_middleware.record import Profile

P = ParamSpec("P")
R = TypeVar("R")

#: Rows past the detailed ones that wait for being folded into counters: a bound on memory, not on counting.
FOLD_EVERY: Final = 1024


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


class Capture:
    """The slot: what one open profile has noted so far.

    Attributes:
        profile: What finishing will fill; None once finished.
        rows: The facts noted, in order; None once finished. Hooks append to it through `noting.note_query`.
        check_at: A longer list of rows than this wants `noted` to be called; with a parent every one does.
        plain: No row so far has an `Extra`: none failed, and each was one statement.
        start_ns: `perf_counter_ns` when the profile was opened.
        detailed: Whether rows are kept (a sampled profile), so that callers and parameters are worth noting.
        detected: How many queries the findings cover; None before they were looked for.
        callers: Whether the application's frame is wanted.
        loop_thread: Identity of the event loop's thread, where there is one; queries on it are blocking.
        first_byte_ns: When the response began.
        last_byte_ns: When its last byte was handed over.
        owner: What finishes this profile; blocks inside it report there too.
        route: The framework's template, noted by a framework's hook.

    """

    __slots__ = (
        "__weakref__",
        "_keep",
        "_lock",
        "_reading",
        "callers",
        "check_at",
        "detailed",
        "detected",
        "first_byte_ns",
        "last_byte_ns",
        "loop_thread",
        "own_ns",
        "owner",
        "parent",
        "plain",
        "profile",
        "route",
        "rows",
        "start_ns",
    )

    def __init__(
        self, profile: Profile, *, keep: int, callers: bool, capture_sql: int = 0, parent: Capture | None = None
    ) -> None:
        self.profile: Profile | None = profile
        self.parent = parent
        self.plain = True
        self.detailed = keep > 0
        self.detected: int | None = None
        self.callers = callers and keep > 0
        self.loop_thread: int | None = None
        self.first_byte_ns: int | None = None
        self.last_byte_ns: int | None = None
        self.owner: Any = None
        self.route: str | None = None
        self.own_ns = 0
        self._keep = keep
        self.check_at = keep + FOLD_EVERY
        if parent is not None:
            self.loop_thread = parent.loop_thread
            self.check_at = 0
        self.rows: list[Row] | None = []
        self._lock = Lock()
        self.start_ns = start_ns = perf_counter_ns()
        self._reading = Reading(start_ns, keep, capture_sql)

    def note(self, row: Row) -> None:
        """Append one fact: what `noting.note_query` does in place, for a profile around another."""
        rows = self.rows
        if rows is None:
            self.late()
            return
        if row[10] is not None:
            self.plain = False
        rows.append(row)
        if len(rows) >= self.check_at:
            self.noted(rows, row)

    def noted(self, rows: list[Row], row: Row) -> None:
        """Fold what is too much to keep, and tell the profile around this one."""
        if len(rows) >= self._keep + FOLD_EVERY:
            self._absorb(rows)
        parent = self.parent
        if parent is not None and parent.open:
            parent.note(row)

    def late(self) -> None:
        """Count a query that came after the end."""
        unattributed.add()

    @property
    def open(self) -> bool:
        """False once finished."""
        return self.rows is not None

    def read(self) -> Reading:
        """What the rows noted so far say; cheap when nothing was added since the last time."""
        if self.rows is not None:
            self._absorb(self.rows)
        return self._reading

    def close(self) -> Reading:
        """Empty the slot and read for the last time; who still holds the slot holds nothing more."""
        rows, self.rows = self.rows, None
        self.profile = None
        self.parent = None
        if rows is not None:
            self._absorb(rows)
        reading, self._reading = self._reading, _EMPTY
        return reading

    def _absorb(self, rows: list[Row]) -> None:
        """Read the rows to keep, and fold those beyond them into counters. Appends may go on meanwhile."""
        with self._lock:
            end = len(rows)
            reading = self._reading
            keep = self._keep
            reading.plain = self.plain
            reading.add(rows[reading.seen : min(end, keep)])
            if end > keep:
                reading.fold(rows[keep:end])
                del rows[keep:end]


#: What is read of a profile that is over: nothing, and nothing is added to it.
_EMPTY: Final = Reading(0, 0, 0)

current: ContextVar[Capture | None] = ContextVar("perf_middleware_capture", default=None)


def propagate(executor: Executor) -> Executor:
    """Make a plain executor's jobs count to the profile that was open when they were submitted.

    Without it such jobs have no context and count as unattributed. Returns the same executor; a second call does
    nothing.

    Raises:
        TypeError: For an executor of processes: a context stays in its process.

    """
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415 - it brings multiprocessing

    if isinstance(executor, ProcessPoolExecutor):
        raise TypeError("propagate() wants an executor of threads: the jobs of processes cannot be told apart here")
    submit = executor.submit
    if getattr(submit, "propagates", False):
        return executor

    def submit_in_context(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        return submit(partial(copy_context().run, function, *args, **kwargs))

    submit_in_context.propagates = True  # type: ignore[attr-defined]
    setter: Any = executor
    setter.submit = submit_in_context
    return executor
