"""A batch: the unit that travels to a store and is applied there exactly once.

Everything is an array in MessagePack, so that a batch is small on the wire and in a file.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from perf_middleware.stats.row import NamedRow  # noqa: TC001 - msgspec reads the annotations at run time
from perf_middleware.stats.window import Window  # noqa: TC001

#: Rows in one batch: bounds how long a store is busy with it.
BATCH_ROWS: Final = 40


class Group(msgspec.Struct, array_like=True):
    """Rows that go to each of these windows; a window holds at most `max_names` names and `(other)`."""

    windows: list[Window]
    max_names: int
    rows: list[NamedRow]


class Batch(msgspec.Struct, array_like=True):
    """What one worker sends at once.

    Attributes:
        service: Whose stats they are.
        worker: 16 hex digits, new in each process.
        seq: 1, 2, 3, ... of this worker; 0 until it is sent for the first time.
        records: Profiles that are counted by this batch.
        groups: Rows.
        texts: What names stand for, by window of kind "t": `{key: text}`.
        max_texts: Bound of each of those windows.

    """

    service: str
    worker: str
    seq: int
    records: int
    groups: list[Group]
    texts: list[tuple[Window, dict[str, str]]]
    max_texts: int


class Reply(NamedTuple):
    """A store's answer: "applied"; "duplicate" (was applied before); "gap" (a batch before it is missing).

    `last` is the seq of the last batch of that worker the store knew before.
    """

    outcome: str
    last: int
