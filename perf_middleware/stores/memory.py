"""`memory://`: the rows in this process. No file, no socket; other processes do not see them.

All stores opened by the same URL in a process are the same store: what `memory://NAME` keeps is apart
from what `memory://` does. A forked child begins with an empty one.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from perf_middleware.stats.batch import Batch, Reply
from perf_middleware.stats.row import OTHER
from perf_middleware.stats.window import MINUTE_S
from perf_middleware.stores import MAX_SERVICES, SEQ_KEPT_S
from perf_middleware.stores.window_rows import merge_rows, new_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.stats.window import Window

_opened: dict[tuple[int, str], MemoryStore] = {}


class MemoryStore:
    """Windows in a dict."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, Window], dict[str, bytes]] = {}
        self._last: dict[tuple[str, str], tuple[int, float]] = {}
        self._seen: dict[str, float] = {}
        self._pruned_s = 0.0

    def apply(self, batch: Batch, after: int) -> Reply:
        """See `Store.apply`; this store is always available."""
        now_s = self._clock()
        with self._lock:
            worker = batch.service, batch.worker
            last, _ = self._last.get(worker, (0, 0.0))
            if batch.seq <= last:
                return Reply("duplicate", last)
            if after > last:
                return Reply("gap", last)
            self._last[worker] = batch.seq, now_s + SEQ_KEPT_S
            self._merge(batch, now_s)
            self._prune(now_s)
            return Reply("applied", last)

    def read(self, service: str, windows: Sequence[Window]) -> list[dict[str, bytes]]:
        """See `Store.read`."""
        with self._lock:
            return [self._windows.get((service, window), {}).copy() for window in windows]

    def services(self) -> list[str]:
        """See `Store.services`."""
        with self._lock:
            return sorted(self._seen)

    def close(self) -> None:
        """Nothing is held open; the rows stay for other readers in this process."""

    def _merge(self, batch: Batch, now_s: float) -> None:
        if batch.service in self._seen or len(self._seen) < MAX_SERVICES:
            self._seen[batch.service] = now_s
        for group in batch.groups:
            for window in group.windows:
                if window.expires_s > now_s:
                    rows = self._windows.setdefault((batch.service, window), {})
                    rows.update(merge_rows(rows, len(rows) - (OTHER in rows), group.max_names, group.rows))
        for window, texts in batch.texts:
            known = self._windows.setdefault((batch.service, window), {})
            written = new_texts(known, texts, batch.max_texts, len(known))
            known.update((key, text.encode()) for key, text in written.items())

    def _prune(self, now_s: float) -> None:
        if now_s - self._pruned_s < MINUTE_S:
            return
        self._pruned_s = now_s
        self._windows = {key: rows for key, rows in self._windows.items() if key[1].expires_s > now_s}
        self._last = {worker: entry for worker, entry in self._last.items() if entry[1] > now_s}
        alive = {service for service, _ in self._windows}
        self._seen = {service: seen_s for service, seen_s in self._seen.items() if service in alive}


def open(url: str, prefix: str) -> MemoryStore:  # noqa: A001, ARG001 - every store module has this verb; nothing to prefix
    """The process's store of this URL."""
    return _opened.setdefault((os.getpid(), url), MemoryStore())
