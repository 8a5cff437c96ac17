"""Profile JSONL in a file: what `perf-middleware analyze` reads."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from perf_middleware.record import to_json

if TYPE_CHECKING:
    from perf_middleware.record import Profile

#: The file is renamed to `<path>.1` when it has grown past this, so that two files bound the disk used.
ROTATE_BYTES: Final = 64 * 1024 * 1024


class Jsonl:
    """Appends each profile as one line; several processes may share the file (one `write` a line, O_APPEND)."""

    def __init__(self, path: str, *, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.path = path
        self.rotate_bytes = rotate_bytes
        self._lock = threading.Lock()

    def __call__(self, profile: Profile) -> None:
        """Write one line.

        Raises:
            OSError: When the file cannot be written; the pipeline counts it.

        """
        line = to_json(profile) + b"\n"
        with self._lock:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                full = os.fstat(descriptor).st_size + len(line) > self.rotate_bytes
                if not full:
                    os.write(descriptor, line)
            finally:
                os.close(descriptor)
            if full:
                os.replace(self.path, f"{self.path}.1")  # noqa: PTH105 - the same three calls as above
                with open(self.path, "ab", opener=_private) as file:
                    file.write(line)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
