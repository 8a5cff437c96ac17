"""What is wrong in a profile: one file per kind of finding, each a pure function of the record.

A detector is a module (or any object) with `DEFAULT`, its threshold, and `detect(profile, threshold)`, which
yields findings. Ours are in the table below; others join through the entry point group
`perf_middleware.detectors`, under the name of the kind they find.
"""

from __future__ import annotations

import math
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from perf_middleware.detectors.repeats import complete, forget
from perf_middleware.errors import fault
from perf_middleware.extensions import extensions
from perf_middleware.record import SEVERITIES, Finding, Profile
from perf_middleware.settings import check_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint


class Detector(Protocol):
    """What a detector's file holds."""

    DEFAULT: float

    def detect(self, profile: Profile, threshold: float) -> Iterable[Finding]:
        """Find; the queries' fingerprints are complete."""
        ...


#: Each is a file here, imported when it is first asked for.
_OURS: Final = (
    "n_plus_one",
    "duplicate_query",
    "write_loop",
    "query_count",
    "slow_query",
    "slow_fetch",
    "large_result",
    "pool_wait",
    "long_transaction",
    "blocking_call",
)

#: Those whose threshold is a duration: they find nothing where no sum of times reaches it.
_TIMED: Final = frozenset(("slow_query", "slow_fetch", "pool_wait", "long_transaction", "blocking_call"))

#: The one whose threshold is a number of queries of all kinds.
_COUNTED: Final = "query_count"

#: A kind to look for, with what finds it and its threshold.
Planned: TypeAlias = "tuple[str, Callable[[Profile, float], Iterable[Finding]], float]"


class Plan(NamedTuple):
    """What to look for.

    Attributes:
        kinds: All.
        usual: Of them those that ask more of a profile than its sums.
        quick_ms: No time of a usual profile reaches this,
        few_queries: nor does the number of its queries this.

    """

    kinds: list[Planned]
    usual: list[Planned]
    quick_ms: float
    few_queries: float


def names() -> tuple[str, ...]:
    """Every kind that can be found, ours first."""
    return (*_OURS, *(name for name in _entry_points() if name not in _OURS))


def want_rows(detectors: Sequence[str] | None) -> bool:
    """Whether one of them is a third party's, which may look at a live profile's rows and not only at `Runs`."""
    return any(name not in _OURS for name in (names() if detectors is None else detectors))


def analyze(
    profile: Profile,
    detectors: Sequence[str] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> list[Finding]:
    """Everything wrong in a profile, the worst first.

    Its queries are completed in place with their fingerprints where a saved trace has only texts.

    Args:
        profile: Live or read from a file.
        detectors: Kinds to look for; None for all.
        thresholds: By kind, where a detector's default does not fit.

    Raises:
        OptionError: When a kind does not exist. A detector that fails is counted as our own fault, not raised.

    """
    chosen = plan(detectors, thresholds)
    if chosen.kinds:
        complete(profile)
    return find(profile, chosen)


def plan(detectors: Sequence[str] | None = None, thresholds: Mapping[str, float] | None = None) -> Plan:
    """What `find` is to look for, made once for many profiles; the options are those of `analyze`."""
    chosen = names() if detectors is None else tuple(detectors)
    check_names("detectors", chosen, names())
    check_names("thresholds", tuple(thresholds or ()), names())
    planned: list[Planned] = []
    for name in chosen:
        try:
            detector = _detector(name)
            planned.append((name, detector.detect, (thresholds or {}).get(name, detector.DEFAULT)))
        except Exception as error:  # noqa: BLE001 - a third party's detector that cannot be loaded is done without
            fault(f"detectors.{name}", error)
    usual = [kind for kind in planned if kind[0] not in _TIMED and kind[0] != _COUNTED]
    least = {name: threshold for name, _, threshold in planned}
    quick_ms = min([least[name] for name in _TIMED if name in least], default=math.inf)
    return Plan(planned, usual, quick_ms, least.get(_COUNTED, math.inf))


def find(profile: Profile, chosen: Plan) -> list[Finding]:
    """What `analyze` finds, in a profile whose fingerprints are complete."""
    forget(profile)
    findings: list[Finding] = []
    kinds, usual, quick_ms, few_queries = chosen
    if (
        0 < profile.query_count < few_queries
        and 0 < profile.duration_ms < quick_ms
        and 0 < profile.db_sum_ms < quick_ms
        and (profile.fetch_ms or 0.0) < quick_ms
        and (profile.wait_ms or 0.0) < quick_ms
    ):
        kinds = usual
    for name, detect, threshold in kinds:
        try:
            found = [*detect(profile, threshold)]
            if found:
                findings += [finding for finding in found if finding.severity in SEVERITIES]
        except Exception as error:  # noqa: BLE001 - a third party's detector, or ours, must not harm the request
            fault(f"detectors.{name}", error)
    if len(findings) > 1:
        findings.sort(key=lambda finding: (-SEVERITIES.index(finding.severity), -finding.wasted_ms))
    return findings


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {entry_point.name: entry_point for entry_point in extensions("detectors")}


@cache
def _detector(name: str) -> Detector:
    """Loaded once, when first asked for."""
    detector: Detector = import_module(f"{__name__}.{name}") if name in _OURS else _entry_points()[name].load()
    return detector
