"""blocking_call: a synchronous driver was called on the thread of an event loop, which stood still meanwhile.

Every other request of the process waits, also those that need no database. The threshold is that of asyncio's own
debug mode, which logs a callback that runs longer.

https://docs.python.org/3/library/asyncio-dev.html#running-blocking-code
https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.slow_callback_duration
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import at, counted, finding_id, most_common
from perf_middleware.detectors.severity import severity_in
from perf_middleware.record import Finding, union_ms
from perf_middleware.sql import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.record import Profile

#: Milliseconds in which an event loop stood still, in one profile.
DEFAULT: Final = 100.0


def detect(profile: Profile, threshold: float) -> Sequence[Finding]:
    """One finding at most: what mends one call mends all."""
    if 0 < profile.db_sum_ms < threshold:  # all together
        return ()
    blocking_ms = [runs.blocking_ms() for runs in profile.by_fingerprint.values()]
    if not any(blocking_ms) or sum(blocking_ms) < threshold:
        return ()
    return [_finding(profile, threshold)]


def _finding(profile: Profile, threshold: float) -> Finding:
    queries = profile.rows.queries
    evidence = [index for index, query in enumerate(queries) if query.blocking]
    blocking = [queries[index] for index in evidence]
    durations_ms = [query.duration_ms for query in blocking]
    total_ms, wasted_ms = sum(durations_ms), max(union_ms([query.start_ms for query in blocking], durations_ms), 0.0)
    longest = max(blocking, key=lambda query: query.duration_ms)
    caller, count = most_common(counted([query.caller for query in blocking])), len(blocking)
    calls = f"{count} calls" if count > 1 else "a call"
    return Finding(
        finding_id=finding_id("blocking_call", profile.name, caller),
        kind="blocking_call",
        severity=severity_in(profile, wasted_ms, count),
        confidence="high",
        threshold=f"blocking_call: {total_ms:.0f} >= {threshold:g} ms",
        title=f"the event loop stood still for {total_ms:.0f} ms in {calls} of the database{at(caller)}",
        fingerprint=longest.fingerprint or "",
        tables=list(dict.fromkeys(table for query in blocking for table in _tables(query.fingerprint, query.system))),
        caller=caller,
        count=count,
        total_ms=total_ms,
        wasted_ms=wasted_ms,
        evidence=evidence,
        recommendation=(
            f"Ask on a thread{at(caller)}: a plain `def` endpoint (Starlette, FastAPI), `asyncio.to_thread`, "
            "Django's sync_to_async; or use an asynchronous driver."
        ),
    )


def _tables(fingerprint: str | None, system: str | None) -> tuple[str, ...]:
    return parse(fingerprint or "", system).tables
