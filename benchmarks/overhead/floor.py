"""The floor: the least that watching can cost in pure Python, written by hand for this one application.

Each level does what the one before does, and more: "clocks" reads two clocks and appends; "fingerprint" groups by
text and takes the values out of it; "caller" walks to the application's line; "full" looks for an N+1, sends two
headers and writes one JSON line. It has no options, no guards, no second driver and no stats.
"""

from __future__ import annotations

import os
import re
import sys
from contextvars import ContextVar
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = ("clocks", "fingerprint", "caller", "full")

#: So many queries of one fingerprint with different values are an N+1.
_N_PLUS_ONE = 5

_rows: ContextVar[list[Any] | None] = ContextVar("floor_rows", default=None)


def wrap(_: str, build: Callable[[], Any], *, level: str) -> Tool:
    """The application with the floor's hook and door."""
    from pymysql.cursors import Cursor

    walks = LEVELS.index(level) >= LEVELS.index("caller")
    Cursor.execute = _with_caller(Cursor.execute) if walks else _with_clocks(Cursor.execute)  # type: ignore[method-assign]
    finish = {"clocks": _count, "fingerprint": _group, "caller": _group, "full": _report}[level]
    door = _Door(build(), finish, full=level == "full")
    return Tool(door, seen=lambda _: door.seen)


class _Door:
    def __init__(self, app: Any, finish: Callable[[list[Any], int], int], *, full: bool) -> None:
        self.app, self.finish, self.full = app, finish, full
        self.seen = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        start_ns = perf_counter_ns()
        rows: list[Any] = []
        token = _rows.set(rows)
        try:
            if not self.full:
                return self.app(environ, start_response)
            held: list[Any] = []
            body = self.app(environ, lambda *call: held.append(call))
            status, headers = held[0]
            start_response(status, [*headers, *_headers(rows, start_ns)])
            return body
        finally:
            _rows.reset(token)
            self.seen = self.finish(rows, start_ns)


def _with_clocks(original: Any) -> Any:
    def execute(self: Any, query: Any, args: Any = None) -> Any:
        rows = _rows.get()
        if rows is None:
            return original(self, query, args)
        start_ns = perf_counter_ns()
        result = original(self, query, args)
        rows.append((query, start_ns, perf_counter_ns()))
        return result

    return execute


def _with_caller(original: Any) -> Any:
    def execute(self: Any, query: Any, args: Any = None) -> Any:
        rows = _rows.get()
        if rows is None:
            return original(self, query, args)
        start_ns = perf_counter_ns()
        result = original(self, query, args)
        end_ns = perf_counter_ns()
        frame: Any = sys._getframe(1)  # noqa: SLF001 - the way to look at a frame
        while frame is not None and _is_library(frame.f_code.co_filename):
            frame = frame.f_back
        rows.append((query, start_ns, end_ns, args, frame.f_code, frame.f_lasti))
        return result

    return execute


_known_files: dict[str, bool] = {}


def _is_library(filename: str) -> bool:
    known = _known_files.get(filename)
    if known is None:
        known = _known_files[filename] = "/site-packages/" in filename
    return known


def _count(rows: list[Any], _: int) -> int:
    return len(rows)


def _group(rows: list[Any], _: int) -> int:
    _by_fingerprint(rows)
    return len(rows)


def _report(rows: list[Any], start_ns: int) -> int:
    """Find the N+1 and write the line."""
    findings = [
        f"n_plus_one: {len(group)} times {fingerprint} in {group[0][4].co_qualname}"
        for fingerprint, group in _by_fingerprint(rows).items()
        if len(group) >= _N_PLUS_ONE and len({(row[0], row[3]) for row in group}) >= _N_PLUS_ONE
    ]
    line = {
        "event": "request",
        "queries": len(rows),
        "db_ms": _db_ms(rows),
        "duration_ms": (perf_counter_ns() - start_ns) / 1e6,
        "findings": findings,
    }
    os.write(_null, _encode(line) + b"\n")
    return len(rows)


def _headers(rows: list[Any], start_ns: int) -> list[tuple[str, str]]:
    total_ms = (perf_counter_ns() - start_ns) / 1e6
    return [
        ("Server-Timing", f'total;dur={total_ms:.3f}, db;dur={_db_ms(rows):.3f};desc="{len(rows)} queries"'),
        ("X-Perf-Queries", str(len(rows))),
    ]


def _db_ms(rows: list[Any]) -> float:
    return sum([row[2] - row[1] for row in rows]) / 1e6


_null = os.open(os.devnull, os.O_WRONLY)
_encode = msgspec.json.Encoder().encode


def _by_fingerprint(rows: list[Any]) -> dict[str, list[Any]]:
    texts: dict[str, list[Any]] = {}
    for row in rows:
        group = texts.get(row[0])
        if group is None:
            texts[row[0]] = [row]
        else:
            group.append(row)
    groups: dict[str, list[Any]] = {}
    for text, group in texts.items():
        groups.setdefault(_fingerprint(text), []).extend(group)
    return groups


#: Every digit is the same one in a masked text: texts that differ only in numbers share it.
_MASK = bytes.maketrans(b"123456789", b"000000000")
_DIGIT_IN_WORD = re.compile(rb"[A-Za-z_][0-9]")
_VALUE = re.compile(r"[0-9'\"](?:(?<=')[^']*'|(?<=\")[^\"]*\"|[0-9.]*)")
_MAX_TEXTS = 10_000

_by_text: dict[str, str] = {}
_by_mask: dict[bytes, str] = {}


def _fingerprint(text: str) -> str:
    """By text; else by the text with its digits masked; else by taking the values out."""
    known = _by_text.get(text)
    if known is not None:
        return known
    masked = text.encode().translate(_MASK)
    known = _by_mask.get(masked)
    if known is not None:
        return known
    known = _VALUE.sub("?", text)
    if len(_by_text) < _MAX_TEXTS:
        _by_text[text] = known
    if not _DIGIT_IN_WORD.search(masked):
        _by_mask[masked] = known
    return known
