"""Visitors of the demo's shop: requests, a few at a time, and what the answers told."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import msgspec

from perf_middleware.cli.demo.servers import HOST
from perf_middleware.errors import PerfMiddlewareError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

AT_ONCE: Final = 8
TIMEOUT_S: Final = 30.0


class VisitError(PerfMiddlewareError):
    """Raised when the shop answers with anything but a page."""


class Answer(msgspec.Struct, frozen=True):
    """One answer: the page's path and the response's headers."""

    path: str
    headers: list[tuple[str, str]]

    @property
    def identity(self) -> str:
        """The profile's id, which its line in the log has too."""
        return dict(self.headers)["X-Perf-Id"]

    @property
    def queries(self) -> int:
        """What the middleware's header says that the page asked of its database."""
        return int(dict(self.headers)["X-Perf-Queries"])


def visit(port: int, path: str) -> Answer:
    """Get one page.

    Raises:
        VisitError: When it is not there.
        OSError: When nobody listens.

    """
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise VisitError(f"the demo's shop answered {response.status} to GET {path}")
    return Answer(path, [(name.title(), value) for name, value in response.getheaders()])


def visit_all(visits: Iterable[tuple[int, str]]) -> Iterator[Answer]:
    """Get many pages, each a (port, path), eight at a time."""
    with ThreadPoolExecutor(AT_ONCE) as visitors:
        yield from visitors.map(lambda asked: visit(*asked), visits)
