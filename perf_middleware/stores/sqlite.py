"""`sqlite:///path`: the rows in a file, for the processes of one host.

One table of windows, one of the rows in them. A window that has expired goes with its rows, found through an
index, at most once a minute: nothing is ever scanned. Use a file of its own, never the application's database.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perf_middleware.errors import OptionError, StoreError
from perf_middleware.stats.batch import Batch, Reply
from perf_middleware.stats.row import OTHER
from perf_middleware.stats.window import MINUTE_S
from perf_middleware.stores import MAX_SERVICES, SEQ_KEPT_S, StoreUnavailable
from perf_middleware.stores.window_rows import merge_rows, new_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from perf_middleware.stats.batch import Group
    from perf_middleware.stats.window import Window

#: Written into the file; a file of another version is refused.
FILE_VERSION: Final = 1

BUSY_TIMEOUT_S: Final = 5.0

_SCHEMA: Final = f"""
CREATE TABLE windows (id INTEGER PRIMARY KEY, service TEXT NOT NULL, name TEXT NOT NULL, names INTEGER NOT NULL,
    expires_s INTEGER NOT NULL, UNIQUE (service, name));
CREATE INDEX windows_by_end ON windows (expires_s);
CREATE TABLE rows (window INTEGER NOT NULL, name TEXT NOT NULL, row BLOB NOT NULL, PRIMARY KEY (window, name))
    WITHOUT ROWID;
CREATE TABLE workers (service TEXT NOT NULL, worker TEXT NOT NULL, seq INTEGER NOT NULL, expires_s REAL NOT NULL,
    PRIMARY KEY (service, worker)) WITHOUT ROWID;
CREATE INDEX workers_by_end ON workers (expires_s);
PRAGMA user_version = {FILE_VERSION};
"""


class _Connection(sqlite3.Connection):
    """Ours: its statements are no queries of the application."""

    perf_middleware_ignore = True


class SqliteStore:
    """Windows in an SQLite file (WAL)."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._pruned_s = 0.0

    def apply(self, batch: Batch, after: int) -> Reply:
        """See `Store.apply`; one transaction."""
        now_s = self._clock()
        with self._transaction() as connection:
            last = _last_seq(connection, batch)
            if batch.seq <= last:
                return Reply("duplicate", last)
            if after > last:
                return Reply("gap", last)
            connection.execute(
                "INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?)",
                (batch.service, batch.worker, batch.seq, now_s + SEQ_KEPT_S),
            )
            for group in batch.groups:
                for window in group.windows:
                    if window.expires_s > now_s:
                        _merge(connection, batch.service, window, group)
            for window, texts in batch.texts:
                _tell(connection, batch.service, window, texts, batch.max_texts)
            if now_s - self._pruned_s >= MINUTE_S:
                _prune(connection, now_s)
                self._pruned_s = now_s
            return Reply("applied", last)

    def read(self, service: str, windows: Sequence[Window]) -> list[dict[str, bytes]]:
        """See `Store.read`; never creates the file."""
        if not self._path.exists():
            return [{} for _ in windows]
        with self._connected() as connection:
            return [dict(_rows(connection, service, window)) for window in windows]

    def services(self) -> list[str]:
        """See `Store.services`; a service is forgotten with its last window."""
        if not self._path.exists():
            return []
        with self._connected() as connection:
            found = connection.execute(_SERVICES, (MAX_SERVICES,))
            return [service for (service,) in found if service is not None]

    def close(self) -> None:
        """See `Store.close`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is None:
                self._connection = self._connect()
            yield self._connection
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"the stats file {self._path} cannot be used now: {error}") from error
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} is not a stats file: {error}") from error
        except OSError as error:
            raise StoreUnavailable(f"the stats file {self._path} cannot be made: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        try:
            _prepare(connection, self._path)
        except BaseException:
            connection.close()
            raise
        return connection


#: The services one after another, each found by one step in the index of (service, name).
_SERVICES: Final = """
WITH RECURSIVE found (service) AS (
    SELECT min(service) FROM windows
    UNION ALL
    SELECT (SELECT min(service) FROM windows WHERE service > found.service) FROM found WHERE found.service IS NOT NULL
)
SELECT service FROM found LIMIT ?
"""


def open(url: str, prefix: str) -> SqliteStore:  # noqa: A001, ARG001 - every store module has this verb; a file needs no prefix
    """The store in this file; made by the first batch.

    Raises:
        OptionError: When the URL has no path.

    """
    path = url.removeprefix("sqlite:///")
    if not path or path == url:
        raise OptionError("store: a path is missing; accepted: sqlite:///relative/path or sqlite:////absolute/path")
    return SqliteStore(Path(path).absolute())


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version, tables = _look(connection)
    if version not in (0, FILE_VERSION):
        raise StoreError(f"{path} is a stats file of version {version}; this program reads {FILE_VERSION}")
    if version == 0 and tables:
        raise StoreError(f"{path} is a database with tables of its own; give the stats a file of their own")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        if _look(connection) == (0, 0):  # else another process was faster
            for statement in _SCHEMA.strip().split(";"):
                connection.execute(statement)
        connection.execute("COMMIT")


def _look(connection: sqlite3.Connection) -> tuple[int, int]:
    """Version of the file, and how many tables and indexes it has: both of the same moment."""
    found: tuple[int, int] = connection.execute(
        "SELECT (SELECT user_version FROM pragma_user_version), count(*) FROM sqlite_master"
    ).fetchone()
    return found


def _last_seq(connection: sqlite3.Connection, batch: Batch) -> int:
    found = connection.execute(
        "SELECT seq FROM workers WHERE service = ? AND worker = ?", (batch.service, batch.worker)
    ).fetchone()
    return found[0] if found else 0


def _window(connection: sqlite3.Connection, service: str, window: Window) -> tuple[int, int]:
    """Id of the window, made when it is new, and how many names it has."""
    name = window.key
    connection.execute(
        "INSERT INTO windows (service, name, names, expires_s) VALUES (?, ?, 0, ?) ON CONFLICT DO NOTHING",
        (service, name, window.expires_s),
    )
    found: tuple[int, int] = connection.execute(
        "SELECT id, names FROM windows WHERE service = ? AND name = ?", (service, name)
    ).fetchone()
    return found


def _merge(connection: sqlite3.Connection, service: str, window: Window, group: Group) -> None:
    number, names = _window(connection, service, window)
    known = _known(connection, number, [OTHER, *(row.name for row in group.rows)])
    changed = merge_rows(known, names, group.max_names, group.rows)
    _write(connection, number, changed)
    new = sum(name not in known and name != OTHER for name in changed)
    connection.execute("UPDATE windows SET names = names + ? WHERE id = ?", (new, number))


def _tell(connection: sqlite3.Connection, service: str, window: Window, texts: dict[str, str], max_texts: int) -> None:
    number, names = _window(connection, service, window)
    known = _known(connection, number, texts)
    written = new_texts(known, texts, max_texts, names)
    _write(connection, number, {key: text.encode() for key, text in written.items()})
    connection.execute(
        "UPDATE windows SET names = names + ? WHERE id = ?", (sum(key not in known for key in written), number)
    )


def _known(connection: sqlite3.Connection, number: int, names: Iterable[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in names:
        row = connection.execute("SELECT row FROM rows WHERE window = ? AND name = ?", (number, name)).fetchone()
        if row is not None:
            found[name] = row[0]
    return found


def _write(connection: sqlite3.Connection, number: int, rows: dict[str, bytes]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", [(number, name, row) for name, row in rows.items()]
    )


def _rows(connection: sqlite3.Connection, service: str, window: Window) -> Iterator[tuple[str, bytes]]:
    return connection.execute(
        "SELECT rows.name, row FROM windows JOIN rows ON rows.window = windows.id"
        " WHERE service = ? AND windows.name = ?",
        (service, window.key),
    )


def _prune(connection: sqlite3.Connection, now_s: float) -> None:
    expired = connection.execute("SELECT id FROM windows WHERE expires_s <= ?", (now_s,)).fetchall()
    connection.executemany("DELETE FROM rows WHERE window = ?", expired)
    connection.executemany("DELETE FROM windows WHERE id = ?", expired)
    connection.execute("DELETE FROM workers WHERE expires_s <= ?", (now_s,))
