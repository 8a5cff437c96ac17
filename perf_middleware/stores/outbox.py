"""The outbox: batches on their way to a store, in order, each applied exactly once.

A batch gets its number when it is first sent, and keeps it until the store has answered: a repeated batch is
recognised there. The last ones that were acknowledged are kept too, for a store that comes back without them
(restored from an older dump, failed over): it refuses what does not follow, and gets the missing ones again.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Final

from perf_middleware.errors import StoreError
from perf_middleware.stats.window import DAY_S
from perf_middleware.stores import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.stats.batch import Batch
    from perf_middleware.stores import Store

#: Batches that wait in memory for a store that is away; beyond it the oldest is dropped, and counted.
MAX_PENDING: Final = 60

#: Acknowledged batches kept for a store that lost them.
MAX_ACKNOWLEDGED: Final = 60

#: They are kept for less time than a store remembers a worker's last number (48 h): a store that forgot
#: the number of a worker that was idle for so long did not lose the batches.
ACKNOWLEDGED_KEPT_S: Final = DAY_S

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0

_jitter = random.SystemRandom()


class Outbox:
    """Sends to one store; used by one thread at a time.

    Attributes:
        flushed: Records the store has.
        duplicates: Batches the store had already, because an earlier answer was lost.
        dropped: Records given up: for want of room, or because the store can never take them.
        dropped_batches: Batches likewise.
        lost: Batches the store lost that were acknowledged too long ago to be sent again.
        failures: Attempts that found the store away.
        last_error: Class of the last error there was; None when there never was one.

    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.flushed = 0
        self.duplicates = 0
        self.dropped = 0
        self.dropped_batches = 0
        self.lost = 0
        self.failures = 0
        self.last_error: str | None = None
        self._store = store
        self._clock = clock
        self._seq = 0
        self._pending: deque[Batch] = deque()
        self._acknowledged: deque[tuple[Batch, float]] = deque(maxlen=MAX_ACKNOWLEDGED)
        self._pause_s = 0.0
        self._retry_s = 0.0

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, batch: Batch) -> None:
        """Add a batch; when there are too many, the oldest that was never sent is dropped."""
        self._pending.append(batch)
        if len(self._pending) > MAX_PENDING:
            self._drop(1 if self._pending[0].seq else 0)

    def send(self, *, now: bool = False) -> bool:
        """Send what waits, oldest first; True when nothing is left. Does nothing while pausing, unless `now`."""
        if not now and self._clock() < self._retry_s:
            return not self._pending
        try:
            while self._pending:
                self._send_first()
        except StoreUnavailable as error:
            self.failures += 1
            self.last_error = _class_of(error)
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2 or FIRST_PAUSE_S)
            self._retry_s = self._clock() + self._pause_s * _jitter.uniform(0.5, 1.0)
            return False
        self._pause_s = self._retry_s = 0.0
        return True

    def _send_first(self) -> None:
        batch = self._pending[0]
        if not batch.seq:
            self._seq += 1
            batch.seq = self._seq
        after = batch.seq - 1
        try:
            while (reply := self._store.apply(batch, after)).outcome == "gap":
                after = self._send_again(reply.last)
        except StoreUnavailable:
            raise
        except StoreError as error:
            self.last_error = _class_of(error)
            self._drop(0)
            return
        self.lost += batch.seq - 1 - after
        self.duplicates += reply.outcome == "duplicate"
        self.flushed += batch.records
        self._acknowledged.append((self._pending.popleft(), self._clock()))

    def _send_again(self, last: int) -> int:
        """Send the batches after `last` again; the number the first waiting one now follows."""
        oldest_s = self._clock() - ACKNOWLEDGED_KEPT_S
        for batch, sent_s in self._acknowledged:
            if batch.seq > last and sent_s > oldest_s:
                self._store.apply(batch, last)
                self.lost += batch.seq - 1 - last
                last = batch.seq
        return last

    def _drop(self, index: int) -> None:
        self.dropped += self._pending[index].records
        self.dropped_batches += 1
        del self._pending[index]


def _class_of(error: Exception) -> str:
    return type(error.__cause__ or error).__name__
