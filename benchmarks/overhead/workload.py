"""The application that everything is wrapped around: one request, so many statements in a loop, one short answer."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: Statements in a request: none, few, and many; what a query costs is the slope between the last two.
QUERIES = (0, 10, 60)

BODY = b"ok"

_SELECT = (
    "SELECT id, customer_id, status, currency, total_cents, created_at, updated_at FROM orders "
    "WHERE customer_id = {value} AND status <> 'cancelled' ORDER BY created_at DESC LIMIT 20"
)

_numbers = count(1)


class Workload:
    """What a request does.

    Attributes:
        queries: Statements a request runs; the benchmark changes it between batches.

    """

    def __init__(self, connect: Callable[[], Any], placeholder: str, *, texts_differ: bool) -> None:
        self.queries = 0
        self.connect = connect
        self.connection: Any = None
        self.ask = _ask_in_text if texts_differ else _ask
        self.select = _SELECT.format(value="{}" if texts_differ else placeholder)

    def view(self) -> bytes:
        """An N+1: the same statement in a loop, each time with another value."""
        if self.connection is None:
            self.connection = self.connect()
        cursor = self.connection.cursor()
        ask, select = self.ask, self.select
        for customer in range(self.queries):
            ask(cursor, select, customer)
        return BODY


def _ask(cursor: Any, select: str, customer: int) -> None:
    cursor.execute(select, (customer,))


def _ask_in_text(cursor: Any, select: str, _: int) -> None:
    """The value stands in the statement, and no statement ever comes twice."""
    cursor.execute(select.format(next(_numbers)))
