"""The `rolling` sink: every profile is counted, by one append on the request's thread.

One background thread per sink folds what was appended into rows and sends them to a store every few seconds.
It starts with the first profile of a process and does all the I/O, so that a store that is slow, full or gone
costs a request nothing; no query of a store is ever taken for one of the application's.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import random
import sys
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.errors import fault, faults, warn
from perf_middleware.stats.delta import Delta, delta
from perf_middleware.stats.fold import Fold
from perf_middleware.stores import open_store
from perf_middleware.stores.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.record import Profile
    from perf_middleware.stores import Store

#: Records that may wait to be folded; beyond it a request folds a few itself.
MAX_WAITING: Final = 10_000

#: Records folded before other threads get their turn.
SLICE: Final = 32

#: Rows wait in memory for at most this long, in seconds.
LONGEST_INTERVAL_S: Final = 60.0

#: Seconds that the end of the process may wait for the last flush.
EXIT_BUDGET_S: Final = 1.0

_jitter = random.SystemRandom()


class Rolling:
    """A sink that keeps rolling stats of all profiles in a store.

    Args:
        store: URL of the store (see `perf_middleware.stores`).
        service: Name the stats are kept under.
        flush_interval_s: How often rows are sent, give or take 20 %; at least once a minute.
        max_routes: Names a window holds; beyond it `(other)`.
        prefix: Of the store's keys.

    Raises:
        OptionError: When the URL is not one of a store.

    """

    def __init__(
        self,
        store: str = "memory://",
        *,
        service: str,
        flush_interval_s: float = 5.0,
        max_routes: int = 1000,
        prefix: str = "pm1",
    ) -> None:
        self._flusher = _Flusher(
            lambda: open_store(store, prefix=prefix),
            service=service,
            flush_interval_s=min(flush_interval_s, LONGEST_INTERVAL_S),
            max_routes=max_routes,
        )
        #: What calling the sink does, without the call.
        self.record = self._flusher.record
        weakref.finalize(self, self._flusher.stop).atexit = False

    def __call__(self, profile: Profile) -> None:
        """Count a finished profile; never raises."""
        self.record(profile)

    def flush(self, timeout_s: float = EXIT_BUDGET_S) -> bool:
        """Have all that was recorded until now in the store; False when that took too long or is not possible now."""
        return self._flusher.flush(timeout_s)

    def close(self, timeout_s: float = EXIT_BUDGET_S) -> bool:
        """Flush and stop the thread; the next profile starts it again."""
        return self._flusher.close(timeout_s)

    def status(self) -> dict[str, Any]:
        """Counts of this process: `recorded` = `flushed` + `pending` + `dropped`, in profiles.

        `duplicates` and `lost` are batches (see `Outbox`), `failures` attempts that found the store away,
        `last_error` the class of the last error there was, `flush_ms` what the last flush took.
        """
        return self._flusher.status()


class _Flusher:
    """What a sink and its thread share; the thread does not keep the sink itself alive."""

    def __init__(self, open_: Callable[[], Store], *, service: str, flush_interval_s: float, max_routes: int) -> None:
        self._open = open_
        self._service = service
        self._flush_interval_s = flush_interval_s
        self._max_routes = max_routes
        self._queue: deque[Delta] = deque()
        self._begin()
        _flushers.add(self)

    def _begin(self) -> None:
        """Take on a new identity: at the start, and in a forked child."""
        self._pid = os.getpid()
        self._worker = os.urandom(8).hex()
        self._queue.clear()
        self._taken = 0
        self._fold = Fold(self._service, max_routes=self._max_routes)
        self._store = self._open()
        self._outbox = Outbox(self._store, time.monotonic)
        self._fold_lock = threading.Lock()
        self._start_lock = threading.Lock()
        self._wake = threading.Event()
        self._waiters: deque[_Waiter] = deque()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._warned = False
        self._flush_ms: float | None = None

    def survive_fork(self) -> None:
        """Begin anew in a child; what the parent had open stays open, and is the parent's."""
        _inherited.append(self._store)
        self._begin()

    def record(self, profile: Profile) -> None:
        try:
            change = delta(profile)
            if os.getpid() != self._pid:
                self.survive_fork()
            queue = self._queue
            queue.append(change)
            if self._thread is None:
                self._start()
            if len(queue) > MAX_WAITING:
                self._fold_slice()
        except Exception as error:  # noqa: BLE001 - nothing of ours reaches the application
            fault("rolling", error)

    def flush(self, timeout_s: float) -> bool:
        waiter = self.request_flush()
        return waiter is None or (waiter.wait(timeout_s) and waiter.sent)

    def close(self, timeout_s: float) -> bool:
        self.stop()
        sent = self.flush(timeout_s)
        self.join(timeout_s)
        return sent

    def stop(self) -> None:
        """Let the thread end after its next turn. Takes no lock: it may be called by the garbage collector."""
        self._stopping = True

    def join(self, timeout_s: float) -> None:
        thread = self._thread
        if thread is not None:
            thread.join(max(0.0, timeout_s))

    def request_flush(self) -> _Waiter | None:
        """Ask the thread to flush now; None when there is nothing to flush."""
        if os.getpid() != self._pid:
            self.survive_fork()
        with self._start_lock:
            if self._thread is None:
                return None
            waiter = _Waiter()
            self._waiters.append(waiter)
        self._wake.set()
        return waiter

    def status(self) -> dict[str, Any]:
        with self._fold_lock:
            recorded = self._taken + len(self._queue)
            dropped = self._taken - self._fold.folded + self._fold.dropped
        outbox = self._outbox
        dropped += outbox.dropped
        return {
            "recorded": recorded,
            "flushed": outbox.flushed,
            "pending": recorded - outbox.flushed - dropped,
            "dropped": dropped,
            "duplicates": outbox.duplicates,
            "lost": outbox.lost,
            "failures": outbox.failures,
            "last_error": outbox.last_error,
            "flush_ms": self._flush_ms,
        }

    def _start(self) -> None:
        if sys.is_finalizing():  # a thread started now would never run, and starting waits for it
            return
        with self._start_lock:
            if self._thread is None:
                # An empty context: what the thread asks of its store is never a query of the request that started it.
                run = contextvars.Context().run
                thread = threading.Thread(target=run, args=(self._run,), name="perf-middleware-rolling", daemon=True)
                self._stopping = False
                thread.start()
                self._thread = thread
                _flush_when_a_child_ends()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._flush_interval_s * _jitter.uniform(0.8, 1.2))
            self._wake.clear()
            self._turn()
            if self._stopping:
                self._store.close()
            if self._ended():
                return

    def _ended(self) -> bool:
        """Whether the thread may end: whoever sees no thread from here on starts another one."""
        with self._start_lock:
            thread, self._thread = self._thread, None
            if not self._stopping or self._queue or self._waiters:
                self._thread = thread
            return self._thread is None

    def _turn(self) -> None:
        waiters = [self._waiters.popleft() for _ in range(len(self._waiters))]
        started = time.perf_counter()
        sent = False
        try:
            self._fold_waiting()
            sent = self._send(now=bool(waiters))
        except Exception as error:  # noqa: BLE001 - the thread outlives whatever a store does
            fault("rolling flush", error)
        self._flush_ms = (time.perf_counter() - started) * 1000
        for waiter in waiters:
            waiter.sent = sent
            waiter.set()

    def _fold_waiting(self) -> None:
        for _ in range(0, len(self._queue), SLICE):
            self._fold_slice()
            time.sleep(0)

    def _fold_slice(self) -> None:
        with self._fold_lock:
            for _ in range(min(SLICE, len(self._queue))):
                change = self._queue.popleft()
                self._taken += 1
                try:
                    self._fold.add(change)
                except Exception as error:  # noqa: BLE001 - one odd profile must not stop the others
                    fault("rolling fold", error)

    def _send(self, *, now: bool) -> bool:
        with self._fold_lock:
            batches = list(self._fold.batches(self._worker))
        outbox = self._outbox
        failures, dropped_batches = outbox.failures, outbox.dropped_batches
        sent = outbox.send(now=now)
        for batch in batches:
            outbox.put(batch)
            sent = outbox.send()
        failures, dropped_batches = outbox.failures - failures, outbox.dropped_batches - dropped_batches
        if failures or dropped_batches:
            faults[f"store: {outbox.last_error}"] += failures or dropped_batches
        if dropped_batches:
            self._fold.forget_texts()
        self._warn(trouble=not sent or dropped_batches > 0)
        return sent

    def _warn(self, *, trouble: bool) -> None:
        """One line when a store begins to fail, none while it goes on failing."""
        if trouble and not self._warned:
            warn(
                "perf.store service=%s error=%s pending_batches=%d dropped_batches=%d",
                self._service,
                self._outbox.last_error,
                len(self._outbox),
                self._outbox.dropped_batches,
            )
        self._warned = trouble


class _Waiter(threading.Event):
    """Set when the flush it waits for was tried; `sent` tells whether everything arrived."""

    sent = False


#: Every flusher of this process, for a fork and for the end of the process.
_flushers: weakref.WeakSet[_Flusher] = weakref.WeakSet()

#: A child keeps what its parent had open: closing an inherited SQLite connection would harm the parent's.
_inherited: list[Store] = []


def _after_fork() -> None:
    for flusher in list(_flushers):
        flusher.survive_fork()


def _at_exit() -> None:
    """Flush and close every sink at the same time, within one budget."""
    deadline = time.monotonic() + EXIT_BUDGET_S
    flushers = list(_flushers)
    for flusher in flushers:
        flusher.stop()
        flusher.request_flush()
    for flusher in flushers:
        flusher.join(deadline - time.monotonic())


def _flush_when_a_child_ends() -> None:
    """A process of `multiprocessing` ends without `atexit`, and with finalizers of its own."""
    global _watched_pid  # noqa: PLW0603 - once a process
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _watched_pid != os.getpid():
        _watched_pid = os.getpid()
        util.Finalize(None, _at_exit, exitpriority=1)


_watched_pid: int | None = None

os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
