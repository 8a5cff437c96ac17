"""A connection of each driver that `doctor` can send statements with, behind the same three verbs."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from perf_middleware.errors import PerfMiddlewareError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

CONNECT_TIMEOUT_S: Final = 5

#: What a `--database` may begin with, and what it is called here.
SYSTEMS: Final = {"mysql": "mysql", "mariadb": "mysql", "postgresql": "postgresql", "postgres": "postgresql"}


class DatabaseError(PerfMiddlewareError):
    """Raised when a `--database` is none; the message never has the URL in it, which has a password in it."""


class Session(Protocol):
    """A connection in autocommit. A text has {0}, {1}, ... where values go."""

    async def execute(self, text: str, *values: object) -> None:
        """Send a statement and take all its rows."""

    async def many(self, text: str, sets: Sequence[tuple[object, ...]]) -> None:
        """Send it for each set of values, by the driver's `executemany`."""

    async def close(self) -> None:
        """Close the connection."""


class Way(NamedTuple):
    """One way to talk to a database: a driver, or one of its interfaces.

    Attributes:
        driver: Name of the driver, or the layer, that is looked at.
        title: The same, told apart from the driver's other ways.
        system: "sqlite", which needs no server, or what the `--database` has to be.
        open: Gives a session; None for the URL where there is none.
        beside: Drivers that have to be hooked too.

    """

    driver: str
    title: str
    system: str
    open: Callable[[str | None], Awaitable[Session]]
    beside: tuple[str, ...] = ()


class CursorSession:
    """PEP 249, and what looks like it with `await`. Each statement has a cursor of its own, as applications do it."""

    def __init__(self, connection: Any, mark: str = "%s") -> None:
        self._connection = connection
        self._mark = mark

    async def execute(self, text: str, *values: object) -> None:
        """See `Session.execute`."""
        cursor = await _done(self._connection.cursor())
        text = text.format(*[self._mark] * len(values))
        try:
            await _done(cursor.execute(text, values) if values else cursor.execute(text))
            if cursor.description:
                await _done(cursor.fetchall())
        finally:
            await _done(cursor.close())

    async def many(self, text: str, sets: Sequence[tuple[object, ...]]) -> None:
        """See `Session.many`."""
        cursor = await _done(self._connection.cursor())
        await _done(cursor.executemany(text.format(*[self._mark] * len(sets[0])), sets))
        await _done(cursor.close())

    async def close(self) -> None:
        """See `Session.close`."""
        await _done(self._connection.close())


class AsyncpgSession:
    """asyncpg's own interface."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def execute(self, text: str, *values: object) -> None:
        """See `Session.execute`."""
        await self._connection.fetch(_numbered(text, len(values)), *values)

    async def many(self, text: str, sets: Sequence[tuple[object, ...]]) -> None:
        """See `Session.many`."""
        await self._connection.executemany(_numbered(text, len(sets[0])), sets)

    async def close(self) -> None:
        """See `Session.close`."""
        await self._connection.close()


class SqlalchemySession:
    """SQLAlchemy over sqlite3."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._connection = engine.connect()

    async def execute(self, text: str, *values: object) -> None:
        """See `Session.execute`."""
        result = self._connection.exec_driver_sql(text.format(*"?" * len(values)), values or None)
        if result.returns_rows:
            result.fetchall()

    async def many(self, text: str, sets: Sequence[tuple[object, ...]]) -> None:
        """See `Session.many`."""
        self._connection.exec_driver_sql(text.format(*"?" * len(sets[0])), list(sets))

    async def close(self) -> None:
        """See `Session.close`."""
        self._connection.close()
        self._engine.dispose()


def system_of(url: str) -> str:
    """Which system a `--database` names.

    Raises:
        DatabaseError: When it names none that a driver here talks to, or no database.

    """
    scheme = url.partition("://")[0]
    if scheme not in SYSTEMS:
        raise DatabaseError(
            f"--database: {scheme[:20]!r} is not accepted; accepted: mysql://USER:PASSWORD@HOST[:PORT]/DATABASE, "
            "postgresql://USER:PASSWORD@HOST[:PORT]/DATABASE (SQLite needs none: it is looked at in memory)"
        )
    try:
        parts = urlsplit(url)
        told = parts.hostname and parts.path.strip("/") and (parts.port or True)
    except ValueError:
        told = None
    if not told:
        raise DatabaseError(f"--database: host and database are needed: {scheme}://USER:PASSWORD@HOST[:PORT]/DATABASE")
    return SYSTEMS[scheme]


def mysql_options(url: str, **renamed: str) -> dict[str, Any]:
    """Keywords of a MySQL driver, `renamed` where it calls them otherwise."""
    parts = urlsplit(url)
    options = {
        "host": parts.hostname,
        "port": parts.port or 3306,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.strip("/")),
        "connect_timeout": CONNECT_TIMEOUT_S,
        "autocommit": True,
    }
    return {renamed.get(name, name): value for name, value in options.items()}


async def _sqlite3(_: str | None) -> Session:
    import sqlite3  # noqa: PLC0415 - not before it is hooked

    connection = sqlite3.connect(":memory:", isolation_level=None)
    return CursorSession(connection, "?")


async def _aiosqlite(_: str | None) -> Session:
    connection = await import_module("aiosqlite").connect(":memory:", isolation_level=None)
    return CursorSession(connection, "?")


async def _sqlalchemy(_: str | None) -> Session:
    engine = import_module("sqlalchemy").create_engine("sqlite://", isolation_level="AUTOCOMMIT")
    return SqlalchemySession(engine)


async def _pymysql(url: str | None) -> Session:
    connection = import_module("pymysql").connect(**mysql_options(url or ""))
    return CursorSession(connection)


async def _mysqlclient(url: str | None) -> Session:
    connection = import_module("MySQLdb").connect(**mysql_options(url or ""))
    return CursorSession(connection)


#: Its default is a collation that MariaDB has not.
_COLLATED: Final = {"charset": "utf8mb4", "collation": "utf8mb4_general_ci"}


async def _mysql_connector(url: str | None) -> Session:
    options = mysql_options(url or "", connect_timeout="connection_timeout")
    connection = import_module("mysql.connector").connect(**options, **_COLLATED)
    return CursorSession(connection)


async def _mysql_connector_aio(url: str | None) -> Session:
    options = {**mysql_options(url or "", connect_timeout="connection_timeout"), **_COLLATED}
    connect = import_module("mysql.connector.aio").connect
    try:
        connection = await connect(**options)
    except TypeError:  # its own, after connecting to a server without TLS
        connection = await connect(**options, ssl_disabled=True)
    return CursorSession(connection)


async def _aiomysql(url: str | None) -> Session:
    connection = await import_module("aiomysql").connect(**mysql_options(url or "", database="db"))
    return CursorSession(connection)


async def _asyncmy(url: str | None) -> Session:
    connection = await import_module("asyncmy").connect(**mysql_options(url or ""))
    return CursorSession(connection)


async def _psycopg(url: str | None) -> Session:
    connection = import_module("psycopg").connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)
    return CursorSession(connection)


async def _psycopg_async(url: str | None) -> Session:
    opening = import_module("psycopg").AsyncConnection.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)
    connection = await opening
    return CursorSession(connection)


async def _psycopg2(url: str | None) -> Session:
    connection = import_module("psycopg2").connect(url, connect_timeout=CONNECT_TIMEOUT_S)
    connection.autocommit = True
    return CursorSession(connection)


async def _asyncpg(url: str | None) -> Session:
    return AsyncpgSession(await import_module("asyncpg").connect(url, timeout=CONNECT_TIMEOUT_S))


WAYS: Final = (
    Way("sqlite3", "sqlite3", "sqlite", _sqlite3),
    Way("aiosqlite", "aiosqlite", "sqlite", _aiosqlite, beside=("sqlite3",)),
    Way("sqlalchemy", "sqlalchemy", "sqlite", _sqlalchemy, beside=("sqlite3",)),
    Way("pymysql", "pymysql", "mysql", _pymysql),
    Way("mysqlclient", "mysqlclient", "mysql", _mysqlclient),
    Way("mysql_connector", "mysql_connector", "mysql", _mysql_connector),
    Way("mysql_connector_aio", "mysql_connector_aio", "mysql", _mysql_connector_aio),
    Way("aiomysql", "aiomysql", "mysql", _aiomysql),
    Way("asyncmy", "asyncmy", "mysql", _asyncmy),
    Way("psycopg", "psycopg", "postgresql", _psycopg),
    Way("psycopg", "psycopg (async)", "postgresql", _psycopg_async),
    Way("psycopg2", "psycopg2", "postgresql", _psycopg2),
    Way("asyncpg", "asyncpg", "postgresql", _asyncpg),
)


def _numbered(text: str, count: int) -> str:
    return text.format(*[f"${number}" for number in range(1, count + 1)])


async def _done(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result
