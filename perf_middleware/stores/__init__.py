"""Stores: where rolling stats are kept. Same verbs, different reach: one process, one host, a fleet.

A store is found by the scheme of its URL, in the table here or among the entry points
`perf_middleware.stores` (name: the scheme; object: `open(url, prefix) -> Store`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol

from perf_middleware.errors import OptionError, StoreError
from perf_middleware.extensions import extensions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perf_middleware.stats.batch import Batch, Reply
    from perf_middleware.stats.window import Window

__all__ = ["DEFAULT_FILE_URL", "Store", "StoreUnavailable", "open_store"]

#: The store of the command line: a file beside the application, made by `run`, read by `report`.
DEFAULT_FILE_URL: Final = "sqlite:///.perf-middleware/stats.sqlite3"

#: Module of each scheme; it has `open(url, prefix) -> Store`.
SCHEMES: Final = {
    "memory": "perf_middleware.stores.memory",
    "sqlite": "perf_middleware.stores.sqlite",
    "redis": "perf_middleware.stores.redis",
    "rediss": "perf_middleware.stores.redis",
    "unix": "perf_middleware.stores.redis",
}

ACCEPTED: Final = (
    "memory:// (this process only), sqlite:///relative/path or sqlite:////absolute/path (one host), "
    "redis://HOST[:PORT][/DB], rediss://..., unix:///path/to/socket (a fleet)"
)

#: How long a worker's last seq is remembered, in seconds: longer than a worker keeps what it could not send.
SEQ_KEPT_S: Final = 172_800

#: How many services a store tells about.
MAX_SERVICES: Final = 1000


class StoreUnavailable(StoreError):  # noqa: N818 - a state that passes, not a mistake
    """Raised when a store cannot be reached now: what was not applied can be sent again later."""


class Store(Protocol):
    """What every store can do. Opening one does no I/O; a store is used by one thread at a time."""

    def apply(self, batch: Batch, after: int) -> Reply:
        """Add a batch to its windows exactly once.

        It is refused as a "gap" when the worker's last batch known here is older than the one numbered `after`.

        Raises:
            StoreUnavailable: When it should be sent again later.
            StoreError: When it can never be applied.

        """

    def read(self, service: str, windows: Sequence[Window]) -> list[dict[str, bytes]]:
        """What each window holds: packed rows by name, or UTF-8 texts by key; empty when unknown or expired.

        Raises:
            StoreError: When the store cannot be read.

        """

    def services(self) -> list[str]:
        """Names of the services that have sent something, sorted.

        Raises:
            StoreError: When the store cannot be read.

        """

    def close(self) -> None:
        """Give back files and sockets; the store may be used again and then opens them anew."""


def open_store(url: str, *, prefix: str = "pm1") -> Store:
    """The store of a URL; nothing is contacted or created yet.

    Args:
        url: See `ACCEPTED`.
        prefix: Of every key, where the store is shared with others (Redis).

    Raises:
        OptionError: When no store has this scheme, or the URL is not one.

    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise OptionError(f"store: this is not a URL; accepted: {ACCEPTED}")
    opener: Callable[[str, str], Store]
    if scheme in SCHEMES:
        opener = import_module(SCHEMES[scheme]).open
    else:
        found = next((point for point in extensions("stores") if point.name == scheme), None)
        if found is None:
            raise OptionError(f"store: no store has the scheme {scheme[:20]!r}; accepted: {ACCEPTED}")
        opener = found.load()
    return opener(url, prefix)
