"""Profile JSONL in a file: what `perf-middleware analyze` reads."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perf_middleware.errors import OptionError
from perf_middleware.record import to_json

if TYPE_CHECKING:
    from perf_middleware.record import Profile

#: The file is renamed to `<path>.1` before it grows past this, so that two files bound the disk used.
ROTATE_BYTES: Final = 64 * 1024 * 1024


class Jsonl:
    """Appends each profile as one line; threads and processes may share the file (one `write` a line, O_APPEND).

    Raises:
        OptionError: When there is no folder to write into.

    """

    def __init__(self, path: str, *, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.path = Path(path).absolute()
        self.rotate_bytes = rotate_bytes
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise OptionError(f"jsonl: {path!r} is not accepted; accepted: a file in a folder that exists")

    def __call__(self, profile: Profile) -> None:
        """Write one line.

        Raises:
            OSError: When the file cannot be written; the pipeline counts it.

        """
        line = to_json(profile) + b"\n"
        if not self._append(line):
            self._append(line, anyway=True)

    def _append(self, line: bytes, *, anyway: bool = False) -> bool:
        """Write unless the file is full; then move it away."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if anyway or not size or size + len(line) <= self.rotate_bytes:
                os.write(descriptor, line)
                return True
            self._rotate(descriptor)
        finally:
            os.close(descriptor)
        return False

    def _rotate(self, descriptor: int) -> None:
        """Rename the full file, unless somebody else just did: the lock is on the file, not on its name."""
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(self.path.stat(), os.fstat(descriptor)):
                self.path.replace(f"{self.path}.1")
