"""What every driver notes about a query, in one place: text, parameters' token, caller's position, thread."""

from __future__ import annotations

from itertools import count
from operator import itemgetter
from threading import get_ident
from typing import TYPE_CHECKING, Any

from perf_middleware.collector.caller import find_caller
from perf_middleware.collector.rows import EXTRA, KEEP_TEXT_CHARS, TARGET, WAIT, WIDTH, Extra, Target
from perf_middleware.sql import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.rows import Row, Token

_FIRST = itemgetter(0)


def note_query(  # noqa: PLR0917 - a row's facts, in its order; keywords would cost on the hot path
    capture: Capture,
    target: Target,
    query: Any,
    token: Token,
    start_ns: int,
    end_ns: int,
    rows: int | None,
    inside: bool | int | None,  # noqa: FBT001
    extra: Extra | None,
) -> None:
    """Append one row; for a hook, or one helper of it, whose frames are not looked at for the caller.

    Only an exact `str` is kept as it is: anything else may change, or have methods of its own.
    """
    facts = capture.facts
    if facts is None:
        capture.late()
        return
    code, lasti = None, 0
    if capture.callers:
        code, lasti = find_caller(3)
    if type(query) is not str or len(query) > KEEP_TEXT_CHARS:
        query = parse(query, target.system)
    if capture.loop_thread is not None and not target.awaited and capture.loop_thread == get_ident():
        extra = extra or Extra()
        extra.blocking = True
    if extra is not None or token is None:
        capture.plain = False
    start_s, end_s = start_ns / 1e9, end_ns / 1e9
    row: Row = (query, start_s, end_s, end_s - start_s, target, token, code, lasti, rows, inside, extra)
    facts += row
    if len(facts) >= capture.check_at:
        capture.noted(facts, row)


def note_wait(capture: Capture, target: Target, start_ns: int, end_ns: int) -> None:
    """Note that somebody waited for this connection out of a pool, from `start_ns` to `end_ns` of `perf_counter_ns`.

    The next query of the connection tells it as its `wait_ms`. For every checkout that a pool's hook times, also short
    ones; the time it takes to open a connection is no wait where it can be told apart.
    """
    if not capture.open:
        return
    around: Capture | None = capture
    while around is not None:
        around.waited_ns = (around.waited_ns or 0) + end_ns - start_ns
        around = around.parent
    start_s, end_s = start_ns / 1e9, end_ns / 1e9
    capture.note((WAIT, start_s, end_s, end_s - start_s, target, 0, None, 0, None, None, None))


def note_relation(capture: Capture, relation: str) -> None:
    """Have the query that was noted last known as what loads `relation`, such as "Order.customer"."""
    around: Capture | None = capture
    while around is not None:
        facts = around.facts
        folded = around.reading is not None and around.reading.folded  # then the last row is no longer among the facts
        if facts and not folded and len(facts) <= around.keep * WIDTH:
            if around.relations is None:
                around.relations = {}
            around.relations[len(facts) - WIDTH] = relation
        around = around.parent


def extra_of_last(capture: Capture, target: Target) -> Extra | None:
    """The `Extra` of the query of this connection that was noted last, to be filled while its rows are fetched."""
    extra: Extra | None = None
    around: Capture | None = capture
    while around is not None:
        facts = around.facts or []
        place = next(
            (place for place in range(len(facts) - WIDTH, -1, -WIDTH) if facts[place + TARGET] is target), None
        )
        if place is not None:
            extra = facts[place + EXTRA] = facts[place + EXTRA] or extra or Extra()
            around.plain = False
            if around.reading is not None:
                around.reading.plain = False
        around = around.parent
    return extra


def counted(sets: Iterable[Any]) -> tuple[Iterator[Any], Callable[[], int]]:
    """The same parameter sets, taken one by one as the driver asks, and a function (to call once) that counts those."""
    ticks = count()
    return map(_FIRST, zip(sets, ticks)), ticks.__next__  # noqa: B905 - the ticks have no end
