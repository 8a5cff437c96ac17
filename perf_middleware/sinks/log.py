"""One canonical structlog event a profile: `perf.request`, `perf.job` or `perf.block`.

It goes through the application's own structlog configuration and contextvars; where the application configured
none, it is one JSON object a line on stderr. `log.schema.json` beside this file describes every line.
"""

from __future__ import annotations

import sys
from operator import attrgetter
from random import Random
from typing import TYPE_CHECKING, Any

from perf_middleware.record import SEVERITIES, Finding, Profile

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Keys as OpenTelemetry's semantic conventions (v1.44) name them, where they have a name.
OTEL_NAMES = {
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
    "error": "error.type",
    "service": "service.name",
}

#: Absent where unknown; the others always are there.
_OPTIONAL = (
    "started_at",
    "service",
    "method",
    "route",
    "status",
    "error",
    "first_byte_ms",
    "fetch_ms",
    "wait_ms",
    "own_ms",
    "trace_id",
    "span_id",
    "parent_id",
    "shed",
)

_optional = attrgetter(*_OPTIONAL)

_SERVER_ERROR = 500

#: The event's level by the worst finding; what failed is an error whatever was found.
LEVELS = {"low": "info", "medium": "warning", "high": "warning", "critical": "error"}


class _Stderr:
    """One line, one write, and no lock that a fork could find held."""

    def info(self, line: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(line + "\n")

    warning = error = info


class Log:
    """Writes the event of each profile; healthy ones are thinned to `sample_rate`, with `weight` saying so."""

    def __init__(self, *, names: str = "perf", sample_rate: float = 1.0, slow_ms: float = 1000.0) -> None:
        self._optional = [OTEL_NAMES.get(key, key) for key in _OPTIONAL] if names == "otel" else _OPTIONAL
        self.sample_rate = sample_rate
        self.slow_ms = slow_ms
        self._chance = Random()  # noqa: S311 - our own generator: the application's sequence stays its own
        import structlog  # noqa: PLC0415 - it costs more than the whole door; and not later: a fork may meet the import

        self._structlog = structlog
        processors: list[Any] = [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ]
        self._default = structlog.wrap_logger(_Stderr(), processors=processors).bind()
        #: The application's logger, and the configuration it was made for.
        self._made: tuple[Any, dict[str, Any]] = None, {}

    def __call__(self, profile: Profile) -> None:
        """Log one profile, on the thread of the request, so that its contextvars are there."""
        weight = profile.weight
        if self.sample_rate < 1.0 and not (is_unusual(profile, self.slow_ms) or profile.findings):
            if self._chance.random() >= self.sample_rate:
                return
            weight /= self.sample_rate
        fields = describe(profile, weight, self._optional)
        log = getattr(self._logger(), _level(profile))
        try:
            log(f"perf.{profile.kind}", **fields)
        except KeyError:  # the standard library's logging refuses `name` as an extra, which render_to_log_kwargs makes
            if "name" not in fields:
                raise
            fields["profile_name"] = fields.pop("name")
            log(f"perf.{profile.kind}", **fields)

    def _logger(self) -> Any:
        """As the application configured it last; bound once where it asks for that, as its own loggers are then."""
        structlog = self._structlog
        if not structlog.is_configured():
            return self._default
        config = structlog.get_config()
        logger, known = self._made
        if config != known:
            logger = structlog.get_logger()
            if config["cache_logger_on_first_use"] is True:
                logger = logger.bind()
            self._made = logger, config
        return logger


def is_unusual(profile: Profile, slow_ms: float) -> bool:
    """Slow or failed: kept whatever the sampling says."""
    return profile.duration_ms >= slow_ms or _failed(profile)


def describe(profile: Profile, weight: float, optional: Iterable[str] = _OPTIONAL) -> dict[str, Any]:
    """The event's flat keys: as in the record, the optional ones by these names; those that are unknown are absent."""
    fields = {
        "id": profile.id,
        "kind": profile.kind,
        "name": profile.name,
        "duration_ms": profile.duration_ms,
        "query_count": profile.query_count,
        "db_ms": profile.db_ms,
        "db_sum_ms": profile.db_sum_ms,
        "weight": weight,
        "truncated": profile.truncated,
        "finding_count": len(profile.findings),
    }
    for key, value in zip(optional, _optional(profile), strict=True):
        if value is not None:
            fields[key] = value  # noqa: PERF403 - a second dict costs more
    if profile.findings:
        fields["severity"] = worst(profile.findings)
        fields["findings"] = [_summary(finding) for finding in profile.findings]
    if profile.tags:
        fields.update({f"tag_{name}": value for name, value in profile.written_tags().items()})
    return fields


def worst(findings: list[Finding]) -> str:
    """The highest severity among the findings."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index)


def _summary(finding: Finding) -> str:
    """As in the X-Perf-Findings header, with the place: "n_plus_one;severity=high;count=27;caller=shop.py:4 in f"."""
    caller = f";caller={finding.caller}" if finding.caller else ""
    return f"{finding.kind};severity={finding.severity};count={finding.count};id={finding.finding_id}{caller}"


def _failed(profile: Profile) -> bool:
    return profile.error is not None or (profile.status or 0) >= _SERVER_ERROR


def _level(profile: Profile) -> str:
    if _failed(profile):
        return "error"
    return LEVELS[worst(profile.findings)] if profile.findings else "info"
