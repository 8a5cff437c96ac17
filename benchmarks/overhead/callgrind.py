"""Instructions, counted by callgrind: they do not depend on what else the machine does.

A worker calls `ctermid` of the C library before and after each batch of requests; callgrind writes a profile each
time, so start-up, imports and warm-up stand in profiles of their own. What a request costs is the difference of a
long and a short batch, divided by the difference of their requests: what both have in common cancels out.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.overhead.processes import run_worker
from benchmarks.overhead.worker import INSTRUCTION_BATCHES, mark
from benchmarks.overhead.workload import QUERIES

_MARKS_PER_BATCH = 3
_TOTAL = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


class ValgrindMissingError(Exception):
    """Raised when valgrind is not installed; the message says how to get it."""


def check_valgrind() -> None:
    """See that valgrind is there."""
    if shutil.which("valgrind") is None:
        raise ValgrindMissingError("valgrind is not installed. On Debian or Ubuntu: sudo apt-get install valgrind")


def count(variant: str) -> tuple[dict[int, float], dict[int, float]]:
    """Instructions of one request, and of its share of the work in the background, by queries a request."""
    with TemporaryDirectory(prefix="perf-") as folder:
        out = Path(folder) / "out"
        valgrind = ["valgrind", "--tool=callgrind", "--dump-before=ctermid", f"--callgrind-out-file={out}"]
        run_worker("instructions", variant, around=valgrind)
        counts = [_total(out.with_name(f"out.{number + 1}")) for number in range(_expected())]
    return per_request(counts, 1), per_request(counts, 2)


def per_request(counts: list[int], offset: int) -> dict[int, float]:
    """From the counts between marks: those `offset` marks after the beginning of each batch, by queries a request."""
    batches = iter(counts[offset::_MARKS_PER_BATCH])
    short, long = INSTRUCTION_BATCHES
    return {queries: (-next(batches) + next(batches)) / (long - short) for queries in QUERIES}


def _expected() -> int:
    return len(QUERIES) * len(INSTRUCTION_BATCHES) * _MARKS_PER_BATCH


def _total(path: Path) -> int:
    if not path.exists():
        raise RuntimeError(f"callgrind did not see {mark.__name__}() of the worker: {path.name} is missing")
    found = _TOTAL.search(path.read_text(errors="replace"))
    if found is None:
        raise RuntimeError(f"callgrind wrote no total into {path.name}")
    return int(found[1])
