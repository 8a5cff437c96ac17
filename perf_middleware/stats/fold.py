"""Folding: deltas become rows per 10 seconds, and rows become batches.

Not thread-safe: whoever folds holds a lock (see `perf_middleware.sinks.rolling`).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from perf_middleware.stats.batch import BATCH_ROWS, Batch, Group
from perf_middleware.stats.row import OTHER, Row
from perf_middleware.stats.window import DAY_S, FINDING, QUERY, ROUTE, TEXT, TIER_S, Window, number_at, windows_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.record import Finding
    from perf_middleware.stats.delta import Delta, QueryGroup

#: Bound of a window's query rows, and of its finding rows; beyond it `(other)`.
MAX_NAMES: Final = 2000

#: Bound of the texts of one service and month.
MAX_TEXTS: Final = 10_000

#: Windows of ten seconds, by kind, that wait to become batches (ten minutes of all kinds): only a store that
#: never answers makes them more, and then the oldest is dropped.
MAX_WINDOWS: Final = 180

MAX_NAME_CHARS: Final = 200
MAX_TEXT_CHARS: Final = 2000

#: What a finding's text holds.
FINDING_FIELDS: Final = ("title", "caller", "recommendation")

_FINEST_S: Final = TIER_S["10s"]

#: A row brings at most two texts along: its query's and its caller's.
_BATCH_TEXTS: Final = 2 * BATCH_ROWS

_Key = tuple[int, str]


class Fold:
    """Rows that were not sent yet, by ten-second window and kind.

    Attributes:
        folded: Deltas added so far.
        dropped: Those of them that are in no batch, because the store never answered.

    """

    def __init__(self, service: str, *, max_routes: int) -> None:
        self.folded = 0
        self.dropped = 0
        self._service = service
        self._max_names = {ROUTE: max_routes, QUERY: MAX_NAMES, FINDING: MAX_NAMES}
        self._rows: dict[_Key, dict[str, Row]] = {}
        self._texts: dict[tuple[Window, str], str] = {}
        self._sent: dict[str, str] = {}
        self._sent_day = 0

    def add(self, delta: Delta) -> None:
        """Count one profile."""
        ten_s = int(delta.second // _FINEST_S)
        if ten_s * _FINEST_S // DAY_S != self._sent_day:
            self._sent_day = ten_s * _FINEST_S // DAY_S
            self._sent.clear()
        duration_us, db_us = _us(delta.duration_ms), _us(delta.db_ms)
        route, row = self._row((ten_s, ROUTE), route_key(delta.kind, delta.name))
        row.add(
            duration_us=duration_us,
            max_us=duration_us,
            db_us=db_us,
            queries=delta.query_count,
            wire=sum([group[1] for group in delta.groups.values()]),
            errors=delta.failed,
        )
        self.folded += 1
        for fingerprint, group in delta.groups.items():
            if fingerprint is not None:
                self._add_query(ten_s, route, fingerprint, group)
        for finding in delta.findings:
            self._add_finding(ten_s, route, finding)

    def batches(self, worker: str) -> Iterator[Batch]:
        """Take everything, in batches without a seq."""
        rows, self._rows = self._rows, {}
        texts, self._texts = iter(self._texts.items()), {}
        flat = ((key, name, row) for key, named in rows.items() for name, row in named.items())
        while chunk := list(islice(flat, BATCH_ROWS)):
            yield Batch(
                service=self._service,
                worker=worker,
                seq=0,
                records=sum(row.n for (_, kind), _, row in chunk if kind == ROUTE),
                groups=self._groups(chunk),
                texts=_by_window(islice(texts, _BATCH_TEXTS)),
                max_texts=MAX_TEXTS,
            )

    def forget_texts(self) -> None:
        """Send every text again when it is next seen: a batch that carried some was lost."""
        self._sent.clear()

    def _add_query(self, ten_s: int, route: str, fingerprint: str, group: QueryGroup) -> None:
        count, wire, errors, total_ms, max_ms, system, caller = group
        total_us, max_us = _us(total_ms), _us(max_ms)
        query_id = _query_id(system, fingerprint)
        name, row = self._row((ten_s, QUERY), query_key(query_id, route))
        if not row.n and name != OTHER:
            self._tell(ten_s, query_text_key(query_id), _query_text(system, fingerprint))
            if caller is not None:
                self._tell(ten_s, caller_text_key(name), caller[:MAX_TEXT_CHARS])
        row.add(duration_us=total_us, max_us=max_us, db_us=total_us, queries=count, wire=wire, errors=errors)

    def _add_finding(self, ten_s: int, route: str, finding: Finding) -> None:
        total_us, wasted_us = _us(finding.total_ms), _us(finding.wasted_ms)
        name, row = self._row((ten_s, FINDING), finding_key(finding, route))
        if not row.n and name != OTHER:
            text = {field: _encodable(getattr(finding, field) or "")[:MAX_TEXT_CHARS] for field in FINDING_FIELDS}
            self._tell(ten_s, finding_text_key(finding.finding_id), msgspec.json.encode(text).decode())
        row.add(duration_us=total_us, max_us=total_us, db_us=wasted_us, queries=finding.count, wire=0, errors=0)

    def _row(self, key: _Key, name: str) -> tuple[str, Row]:
        rows = self._rows.get(key)
        if rows is None:
            self._make_room()
            rows = self._rows[key] = {}
        row = rows.get(name)
        if row is None:
            if len(rows) - (OTHER in rows) >= self._max_names[key[1]]:
                name = OTHER
            row = rows.setdefault(name, Row())
        return name, row

    def _make_room(self) -> None:
        if len(self._rows) >= MAX_WINDOWS:
            oldest = min(self._rows)
            rows = self._rows.pop(oldest)
            if oldest[1] == ROUTE:
                self.dropped += sum(row.n for row in rows.values())

    def _tell(self, ten_s: int, key: str, text: str) -> None:
        """Send a text once a day, and when the first row of ten seconds finds it changed."""
        if self._sent.get(key) == text:
            return
        if len(self._sent) >= MAX_TEXTS:
            self._sent.clear()
        self._sent[key] = text
        self._texts[Window(TEXT, "1mo", number_at("1mo", ten_s * _FINEST_S)), key] = _encodable(text)

    def _groups(self, chunk: list[tuple[_Key, str, Row]]) -> list[Group]:
        groups: dict[_Key, Group] = {}
        for key, name, row in chunk:
            group = groups.get(key)
            if group is None:
                ten_s, kind = key
                group = groups[key] = Group(windows_at(kind, ten_s * _FINEST_S), self._max_names[kind], [])
            group.rows.append(row.named(name))
        return list(groups.values())


def route_key(kind: str, name: str) -> str:
    """Name of a route's row."""
    return f"{_clean(kind)}\0{_clean(name) or '(unmatched)'}"


def query_key(query_id: str, route: str) -> str:
    """Name of a query's row; `route` is the key of its route."""
    return f"{query_id}\0{route}"


def finding_key(finding: Finding, route: str) -> str:
    """Name of a finding's row: with its severity, so that each severity is counted."""
    return f"{_clean(finding.severity)}\0{_clean(finding.kind)}\0{_clean(finding.finding_id)}\0{route}"


def query_text_key(query_id: str) -> str:
    """Key of "system NUL fingerprint" among the texts."""
    return f"q:{query_id}"


def caller_text_key(query_name: str) -> str:
    """Key of the last caller of a query row among the texts."""
    return f"c:{query_name}"


def finding_text_key(finding_id: str) -> str:
    """Key of a finding's title, caller and recommendation (JSON) among the texts."""
    return f"f:{_clean(finding_id)}"


@lru_cache(maxsize=2 * MAX_NAMES)
def _query_id(system: str | None, fingerprint: str) -> str:
    """16 hex digits that stand for a query's text in the names of rows."""
    from hashlib import blake2b  # noqa: PLC0415 - OpenSSL, paid by the sink's thread

    return blake2b(_query_text(system, fingerprint).encode("utf-8", "replace"), digest_size=8).hexdigest()


def _query_text(system: str | None, fingerprint: str) -> str:
    return f"{system or ''}\0{fingerprint[:MAX_TEXT_CHARS]}"


def _clean(name: str) -> str:
    """A part of a row's name: short, encodable, without the character that ends a part."""
    return _encodable(name[:MAX_NAME_CHARS]).replace("\0", " ")


def _by_window(texts: Iterator[tuple[tuple[Window, str], str]]) -> list[tuple[Window, dict[str, str]]]:
    windows: dict[Window, dict[str, str]] = {}
    for (window, key), text in texts:
        windows.setdefault(window, {})[key] = text
    return list(windows.items())


def _us(duration_ms: float) -> int:
    return max(0, round(duration_ms * 1000))


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
