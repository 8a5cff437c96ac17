"""Reading: the rows of the last minutes, hours or days, merged into one typed answer per route."""

from __future__ import annotations

import time
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from perf_middleware.record import SEVERITIES
from perf_middleware.stats.fold import caller_text_key, finding_text_key, query_text_key
from perf_middleware.stats.histogram import lane_count, lane_duration_us
from perf_middleware.stats.row import OTHER, Totals, unpack
from perf_middleware.stats.window import FINDING, QUERY, ROUTE, TEXT, Window, cover, number_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: What a query's or finding's text is until a worker has told it.
UNKNOWN_TEXT: Final = "(text not known)"


class Readable(Protocol):
    """The part of a store that reading needs (`perf_middleware.stores.Store`)."""

    def read(self, service: str, windows: Sequence[Window]) -> list[dict[str, bytes]]:
        """What each window holds."""

    def services(self) -> list[str]:
        """Names of the services, sorted."""


class QueryStats(msgspec.Struct):
    """One fingerprint in one route.

    Attributes:
        fingerprint: The text without its literals.
        system: mysql, sqlite, ...; None where unknown.
        caller: Where it was last seen to come from.
        n: Requests that ran it.
        count: How often it ran, counted.
        count_p95: 95th percentile of runs per request that ran it; None below n = 100.
        wire: Statements really sent.
        errors: Runs that failed.
        total_ms: Time in it, timed, as is `max_ms`, the longest single run.

    """

    fingerprint: str
    system: str | None
    caller: str | None
    n: int
    count: int
    count_p95: int | None
    wire: int
    errors: int
    total_ms: float
    max_ms: float


class FindingStats(msgspec.Struct):
    """One finding in one route.

    Attributes:
        severity: The highest seen in the window.
        n: Requests that had it.
        count: Statements concerned, summed.
        total_ms: Their time, summed.
        wasted_ms: Measured upper bound of what a fix would have saved, summed.

    """

    finding_id: str
    kind: str
    severity: str
    title: str
    caller: str | None
    recommendation: str
    n: int
    count: int
    total_ms: float
    wasted_ms: float


class RouteStats(msgspec.Struct):
    """One route, job or block.

    Attributes:
        kind: "request", "job" or "block"; None for "(other)", which has all names beyond the bound.
        n: Profiles, counted; `errors` of them failed (an exception, or a status of 500 or above).
        p50_ms: From the merged histogram, within 0.55 %; None below n = 20. Likewise `p95_ms` below 100 and
            `p99_ms` below 500: a percentile of fewer values says nothing.
        queries: Counted, summed; `wire` statements were really sent.
        queries_mean: Per profile.
        queries_p95: None below n = 100.
        db_share: Part of the duration with at least one query running; None when the duration is 0.
        detailed_queries: How many of the queries the rows of `top_queries` (all of them) account for: fewer
            than `queries` when sampling kept no rows, or the bound of names was reached.
        top_queries: By total time, longest first.
        findings: Severest first, then by time.

    """

    service: str
    kind: str | None
    name: str
    n: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float
    max_ms: float
    queries: int
    wire: int
    queries_mean: float
    queries_p95: int | None
    db_ms: float
    db_share: float | None
    detailed_queries: int
    top_queries: list[QueryStats]
    findings: list[FindingStats]


class WindowStats(msgspec.Struct):
    """Everything in one stretch of time.

    Attributes:
        from_s: Unix time at which it really begins: at or before what was asked for.
        to_s: Unix time at which it was read.
        services: Those it is about.
        n: Profiles in all routes; `errors`, `queries` and `db_ms` are summed likewise.
        routes: By time spent in them, longest first.

    """

    from_s: int
    to_s: int
    services: list[str]
    n: int
    errors: int
    queries: int
    db_ms: float
    routes: list[RouteStats]


def routes(
    store: Readable, service: str | None = None, *, window_s: float = 3600.0, top: int = 5, now_s: float | None = None
) -> WindowStats:
    """What the store knows of the last `window_s` seconds.

    Args:
        store: Where to read.
        service: Only this one; all when None.
        window_s: Asked for; the answer says how long it really is.
        top: Queries told per route.
        now_s: Unix time of the end; the clock's when None.

    Raises:
        StoreError: When the store cannot be read.

    """
    now_s = time.time() if now_s is None else now_s
    services = store.services() if service is None else [service]
    start_s, tiles = cover(now_s, window_s, (ROUTE, QUERY, FINDING))
    found = [route for name in services for route in _service_routes(store, name, tiles, _months(start_s, now_s), top)]
    found.sort(key=lambda route: route.mean_ms * route.n, reverse=True)
    return WindowStats(
        from_s=start_s,
        to_s=int(now_s),
        services=services,
        n=sum(route.n for route in found),
        errors=sum(route.errors for route in found),
        queries=sum(route.queries for route in found),
        db_ms=sum(route.db_ms for route in found),
        routes=found,
    )


def merged(windows: Iterable[Mapping[str, bytes]]) -> dict[str, Totals]:
    """Rows of the same name in several windows, added up."""
    totals: dict[str, Totals] = {}
    for rows in windows:
        for name, blob in rows.items():
            row = unpack(blob)
            known = totals.get(name)
            if known is None:
                totals[name] = row
            else:
                known.merge(row)
    return totals


def percentile_ms(totals: Totals, share: float) -> float | None:
    """Nearest-rank percentile of the durations; None when n is too small for it (`LEAST_N`)."""
    lane = totals.durations.percentile_lane(share)
    return None if lane is None else min(lane_duration_us(lane), totals.max_us) / 1000


def percentile_count(totals: Totals, share: float) -> int | None:
    """Nearest-rank percentile of queries per profile; None when n is too small for it."""
    lane = totals.counts.percentile_lane(share)
    return None if lane is None else lane_count(lane)


def severity_rank(severity: str) -> int:
    """Position in `SEVERITIES`; -1 for one that this version does not know."""
    ranks: tuple[str, ...] = SEVERITIES
    return ranks.index(severity) if severity in ranks else -1


def _service_routes(
    store: Readable, service: str, tiles: Mapping[str, list[Window]], months: list[Window], top: int
) -> list[RouteStats]:
    windows = [window for kind in (ROUTE, QUERY, FINDING) for window in tiles[kind]] + months
    read = store.read(service, windows)
    by_kind = {
        kind: [rows for window, rows in zip(windows, read, strict=True) if window.kind == kind]
        for kind in (ROUTE, QUERY, FINDING, TEXT)
    }
    texts = {key: text.decode() for month in by_kind[TEXT] for key, text in month.items()}
    queries = _queries(merged(by_kind[QUERY]), texts)
    findings = _findings(merged(by_kind[FINDING]), texts)
    return [
        _route(service, key, totals, queries.get(key, []), findings.get(key, []), top=top)
        for key, totals in merged(by_kind[ROUTE]).items()
    ]


def _route(
    service: str, key: str, totals: Totals, queries: list[QueryStats], findings: list[FindingStats], *, top: int
) -> RouteStats:
    kind, _, name = key.rpartition("\0")
    return RouteStats(
        service=service,
        kind=kind or None,
        name=name,
        n=totals.n,
        errors=totals.errors,
        p50_ms=percentile_ms(totals, 0.5),
        p95_ms=percentile_ms(totals, 0.95),
        p99_ms=percentile_ms(totals, 0.99),
        mean_ms=totals.sum_us / totals.n / 1000,
        max_ms=totals.max_us / 1000,
        queries=totals.queries,
        wire=totals.wire,
        queries_mean=totals.queries / totals.n,
        queries_p95=percentile_count(totals, 0.95),
        db_ms=totals.db_us / 1000,
        db_share=totals.db_us / totals.sum_us if totals.sum_us else None,
        detailed_queries=sum(query.count for query in queries),
        top_queries=queries[:top],
        findings=findings,
    )


def _queries(rows: Mapping[str, Totals], texts: Mapping[str, str]) -> dict[str, list[QueryStats]]:
    """Queries by the key of their route, longest first; those beyond the bound belong to no route."""
    found: dict[str, list[QueryStats]] = {}
    for name, totals in rows.items():
        if name != OTHER:
            query_id, _, route = name.partition("\0")
            system, _, fingerprint = texts.get(query_text_key(query_id), f"\0{UNKNOWN_TEXT}").partition("\0")
            found.setdefault(route, []).append(
                QueryStats(
                    fingerprint=fingerprint,
                    system=system or None,
                    caller=texts.get(caller_text_key(name)),
                    n=totals.n,
                    count=totals.queries,
                    count_p95=percentile_count(totals, 0.95),
                    wire=totals.wire,
                    errors=totals.errors,
                    total_ms=totals.sum_us / 1000,
                    max_ms=totals.max_us / 1000,
                )
            )
    for queries in found.values():
        queries.sort(key=attrgetter("total_ms"), reverse=True)
    return found


def _findings(rows: Mapping[str, Totals], texts: Mapping[str, str]) -> dict[str, list[FindingStats]]:
    """Findings by the key of their route, severest first; the rows of each severity of one finding are added up."""
    found: dict[str, dict[str, FindingStats]] = {}
    for name, totals in rows.items():
        if name != OTHER:
            severity, kind, finding_id, route = name.split("\0", 3)
            findings = found.setdefault(route, {})
            if finding_id not in findings:
                findings[finding_id] = _told(finding_id, kind, severity, texts.get(finding_text_key(finding_id)))
            finding = findings[finding_id]
            finding.severity = max(finding.severity, severity, key=severity_rank)
            finding.n += totals.n
            finding.count += totals.queries
            finding.total_ms += totals.sum_us / 1000
            finding.wasted_ms += totals.db_us / 1000
    return {
        route: sorted(
            findings.values(), key=lambda finding: (severity_rank(finding.severity), finding.total_ms), reverse=True
        )
        for route, findings in found.items()
    }


def _told(finding_id: str, kind: str, severity: str, text: str | None) -> FindingStats:
    told = msgspec.json.decode(text) if text else {}
    return FindingStats(
        finding_id=finding_id,
        kind=kind,
        severity=severity,
        title=told.get("title") or UNKNOWN_TEXT,
        caller=told.get("caller") or None,
        recommendation=told.get("recommendation") or "",
        n=0,
        count=0,
        total_ms=0.0,
        wasted_ms=0.0,
    )


def _months(start_s: float, now_s: float) -> list[Window]:
    """The months' texts, oldest first: a later one wins."""
    first, last = number_at("1mo", start_s), number_at("1mo", now_s)
    return [Window(TEXT, "1mo", number) for number in range(first, last + 1)]
