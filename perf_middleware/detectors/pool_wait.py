"""pool_wait: the request stood in line for a connection.

All connections of the pool were taken: by requests that hold one while they do something else, or by more threads
than the pool has connections. A tenth of a second is where a person begins to notice.

https://www.nngroup.com/articles/response-times-3-important-limits/
https://docs.sqlalchemy.org/en/20/errors.html#error-3o7r
https://github.com/brettwooldridge/HikariCP/wiki/About-Pool-Sizing
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.repeats import at, counted, finding_id, most_common
from perf_middleware.detectors.severity import severity_in
from perf_middleware.record import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf_middleware.record import Profile

#: Milliseconds that a profile waited in all.
DEFAULT: Final = 100.0


def detect(profile: Profile, threshold: float) -> Sequence[Finding]:
    """One finding at most: every statement that waits does so for the same pool."""
    waited_ms = profile.wait_ms
    if not waited_ms or waited_ms < threshold:
        return ()
    return [_finding(profile, waited_ms, threshold)]


def _finding(profile: Profile, waited_ms: float, threshold: float) -> Finding:
    queries = profile.rows.queries
    evidence = [index for index, query in enumerate(queries) if query.wait_ms]
    caller = most_common(counted([queries[index].caller for index in evidence]))
    count = max(len(evidence), 1)  # a wait that no statement followed is one too
    times = f"{count} times " if count > 1 else ""
    return Finding(
        finding_id=finding_id("pool_wait", profile.name, caller),
        kind="pool_wait",
        severity=severity_in(profile, waited_ms, count),
        confidence="high",
        threshold=f"pool_wait: {waited_ms:.0f} >= {threshold:g} ms",
        title=f"waited {times}for a connection out of the pool, {waited_ms:.0f} ms{at(caller)}",
        fingerprint="",
        caller=caller,
        count=count,
        total_ms=waited_ms,
        wasted_ms=waited_ms,
        evidence=evidence,
        recommendation=(
            "Find who holds connections: transactions open during slow work (long_transaction), sessions closed late, "
            "a second connection taken while one is held. Only then compare the pool's size with the number of threads."
        ),
    )
