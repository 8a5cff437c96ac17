"""The clock of every duration."""

from __future__ import annotations

from typing import Final

import msgspec

from perf_middleware.cli.doctor.checks import Check
from perf_middleware.doctor import read_clock

#: The store keeps whole microseconds (docs/stats.md): a coarser clock cannot tell short queries apart.
COARSEST_NS: Final = 1000


def check() -> Check:
    """Whether it ever goes back, and how finely it tells."""
    clock = read_clock()
    facts = msgspec.to_builtins(clock)
    seen = f"{clock.reads:,} reads of perf_counter_ns"
    if clock.steps_back or not clock.monotonic:
        return Check("process", "clock", "failed", f"it went back {clock.steps_back} times in {seen}", facts)
    if clock.step_ns is None:
        return Check("process", "clock", "failed", f"it stood still for {seen}", facts)
    detail = f"{seen}: never back, smallest step {clock.step_ns} ns ({clock.implementation})"
    if clock.step_ns > COARSEST_NS:
        return Check("process", "clock", "warning", f"{detail}; coarser than the microsecond stats are kept in", facts)
    return Check("process", "clock", "ok", detail, facts)
