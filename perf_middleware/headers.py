"""What a response tells: `Server-Timing` and `X-Perf-*`, at most 512 bytes, ASCII, cut at entry borders."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, AnyStr, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perf_middleware.record import Profile

#: All our names and values together; proxies refuse responses whose headers grow without a bound.
MAX_BYTES: Final = 512

ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def client_id(value: str | None) -> str | None:
    """A client's id if it may be echoed: 1 to 64 letters, digits, dots, underscores or dashes."""
    return value if value is not None and ACCEPTED_ID.fullmatch(value) else None


def traceparent(value: str | None) -> tuple[str | None, str | None]:
    """Trace and span id of a W3C `traceparent`, or (None, None) when it is absent, malformed or all zero.

    As https://www.w3.org/TR/trace-context/ says, version ff is none, and only versions after 00 may say more.
    """
    match = _TRACEPARENT.fullmatch(value or "")
    if match is None:
        return None, None
    version, trace_id, span_id, more = match.groups()
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not span_id.strip("0"):
        return None, None
    return trace_id, span_id


def render(profile: Profile, level: str, elapsed_ms: float) -> list[tuple[str, str]]:
    """Header pairs for what is known at the first byte; `Server-Timing` comes first.

    `elapsed_ms` is the time since the profile's start: `total`; `app` is what of it no query was running in.
    """
    if level == "off":
        return []
    count, db_ms, own_ms = profile.query_count, profile.db_ms, profile.own_ms or 0.0
    tenths, thousandths = (elapsed_ms * 10 + 0.5) // 1, (own_ms * 1000 + 0.5) // 1
    total = _tenths.get(tenths) or _tenth(tenths)
    own = _thousandths.get(thousandths) or _thousandth(thousandths)
    if count:
        plural = "query" if count == 1 else "queries"
        db_tenths = (db_ms * 10 + 0.5) // 1
        app_tenths = tenths - db_tenths if tenths > db_tenths else 0.0
        database = _tenths.get(db_tenths) or _tenth(db_tenths)
        app = _tenths.get(app_tenths) or _tenth(app_tenths)
        timing = f'total;dur={total}, db;dur={database};desc="{count} {plural}", app;dur={app}, perf;dur={own}'
    else:
        timing = f'total;dur={total}, db;dur=0.0;desc="0 queries", app;dur={total}, perf;dur={own}'
    if profile.shed is not None:
        timing += f';desc="{profile.shed} shed"'
    if profile.fetch_ms:
        timing += f", db-fetch;dur={profile.fetch_ms:.3f}"
    if profile.wait_ms:
        timing += f", db-wait;dur={profile.wait_ms:.3f}"
    pairs = [
        ("Server-Timing", timing),
        ("X-Perf-Id", profile.id),
        ("X-Perf-Queries", str(count)),
        ("X-Perf-Query-Time", f"{db_ms:.3f}" if db_ms else "0.000"),
    ]
    if level == "full" and profile.findings:
        room = MAX_BYTES - sum(len(name) + len(value) + 4 for name, value in pairs) - len("X-Perf-Findings") - 4
        entries = _cut([f"{f.kind};severity={f.severity};count={f.count}" for f in profile.findings], room)
        if entries:
            pairs.append(("X-Perf-Findings", entries))
    return pairs


#: Texts of tenths and thousandths of a millisecond that are remembered: making one costs more than looking at it, and
#: most requests take few of them.
MAX_TEXTS: Final = 1024

_tenths: dict[float, str] = {}
_thousandths: dict[float, str] = {}


def _tenth(number: float) -> str:
    text = f"{number / 10:.1f}"
    if len(_tenths) < MAX_TEXTS:
        _tenths[number] = text
    return text


def _thousandth(number: float) -> str:
    text = f"{number / 1000:.3f}"
    if len(_thousandths) < MAX_TEXTS:
        _thousandths[number] = text
    return text


def append(
    theirs: Iterable[tuple[AnyStr, AnyStr]], ours: Sequence[tuple[AnyStr, AnyStr]], separator: AnyStr
) -> list[tuple[AnyStr, AnyStr]]:
    """A new list of the application's headers and ours; its own `Server-Timing` gets our first pair at its end.

    The application's pairs are passed on as they are: text for WSGI, bytes for ASGI; `separator` is ", " of that type.
    """
    merged = list(theirs)
    timing, value = ours[0]
    for index, (name, own) in enumerate(merged):
        if len(name) == len(timing) and name.lower() == timing.lower():
            merged[index] = (name, own + separator + value if own.strip() else value)
            return merged + list(ours[1:])
    return merged + list(ours)


def _cut(entries: list[str], room: int) -> str:
    """As many whole ASCII entries as fit into `room` characters."""
    text = ""
    for entry in entries:
        if not (entry.isascii() and entry.isprintable()):
            continue
        longer = f"{text}, {entry}" if text else entry
        if len(longer) > room:
            break
        text = longer
    return text
