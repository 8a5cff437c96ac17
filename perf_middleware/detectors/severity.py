"""How much a finding matters: one table over measured time, count and share of the request.

A row is met when all three of its numbers are reached; the finding gets the level of the highest row it meets.
So more time, more statements or a larger share can only raise a level, never lower it. The numbers are judgement,
not measurement: a person notices a second (Nielsen, "Response Times: The 3 Important Limits": 0.1 s, 1 s, 10 s);
statements in the hundreds grow with the data whatever they cost today; and what takes under a tenth of a request
is not where its time goes, unless it is long in itself. The same table is in docs/findings.md, held equal by a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from perf_middleware.record import Profile, Severity

#: level, time_ms, count, share: each "at least".
TABLE: Final[tuple[tuple[Severity, float, int, float], ...]] = (
    ("critical", 1000, 1, 0.5),
    ("critical", 500, 100, 0.5),
    ("high", 1000, 1, 0.1),
    ("high", 250, 1, 0.25),
    ("high", 100, 50, 0.25),
    ("medium", 500, 1, 0.0),
    ("medium", 50, 1, 0.1),
    ("medium", 10, 20, 0.1),
    ("medium", 0, 100, 0.0),
)

#: Below both no row is met: less time than the least that any row asks for, and fewer than those that ask for none.
_LEAST_MS: Final = min(time_ms for _, time_ms, _, _ in TABLE if time_ms)
_LEAST_COUNT: Final = min(count for _, time_ms, count, _ in TABLE if not time_ms)


def severity_in(profile: Profile, time_ms: float, count: int) -> Severity:
    """The level of a finding of this profile."""
    if time_ms < _LEAST_MS and count < _LEAST_COUNT:  # as most are: what time they share need not be known
        return "low"
    return severity(time_ms, count, share(profile, time_ms))


def share(profile: Profile, time_ms: float) -> float:
    """How much of the profile's duration that is; until its last query's end where the duration was not recorded."""
    duration_ms = profile.duration_ms
    if duration_ms <= 0 and profile.queries:
        duration_ms = profile.queries[-1].start_ms + profile.queries[-1].duration_ms
    return time_ms / duration_ms if duration_ms > 0 else 0.0


def severity(time_ms: float, count: int, share: float) -> Severity:
    """The level of a finding.

    Args:
        time_ms: What a fix can save, the finding's `wasted_ms`.
        count: Statements concerned.
        share: Of the profile's duration that `time_ms` is, from 0; above 1 when statements overlapped.

    """
    for level, least_ms, least_count, least_share in TABLE:
        if time_ms >= least_ms and count >= least_count and share >= least_share:
            return level
    return "low"
