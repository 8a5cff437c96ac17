"""Fresh processes for the workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]

TIMEOUT_S = 900


def run_worker(measure: str, variant: str, *more: str, around: Sequence[str] = ()) -> Any:
    """Run one worker to its end; what it measured."""
    return run_python(["-m", "benchmarks.overhead.worker", measure, variant, *more], around=around)


def run_python(
    arguments: Sequence[str], *, around: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Any:
    """Run a fresh Python to its end; the JSON of its last line."""
    done = subprocess.run(
        [*around, sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=_environment() | (environment or {}),
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[1:]} ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment() -> dict[str, str]:
    """The same hashes in every process, and none of this program's options."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERF_MIDDLEWARE_")}
    return kept | {"PYTHONHASHSEED": "0"}
