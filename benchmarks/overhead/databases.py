"""Where statements go: PyMySQL with nothing behind it, PyMySQL and a real MariaDB, sqlite3 in memory."""

from __future__ import annotations

import json
import os
from typing import Any

#: How the parent tells a worker where its private MariaDB is (JSON of `pymysql.connect`'s keywords).
MARIADB_ENVIRONMENT = "OVERHEAD_MARIADB"

#: The drivers, each with the placeholder of its statements.
PLACEHOLDERS = {"pymysql": "%s", "mariadb": "%s", "sqlite3": "?", "sqlalchemy": "?", "django": "?"}

_TABLE = (
    "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, customer_id INTEGER, status VARCHAR(20), "
    "currency CHAR(3), total_cents INTEGER, created_at VARCHAR(30), updated_at VARCHAR(30))"
)
_INDEX = "CREATE INDEX IF NOT EXISTS by_customer ON orders (customer_id, status, created_at)"


def connect(driver: str) -> Any:
    """A new connection: of "pymysql" (no server), "mariadb" (PyMySQL and a server) or "sqlite3" (in memory); of
    "sqlalchemy" or "django" (its ORM), both over sqlite3.
    """
    opened = {
        "pymysql": _pymysql,
        "mariadb": _mariadb,
        "sqlite3": _sqlite3,
        "sqlalchemy": _sqlalchemy,
        "django": _django,
    }
    return opened[driver]()


def _pymysql() -> Any:
    """All of PyMySQL's Python path but for the packets, which are neither sent nor read."""
    import pymysql

    class Answer:
        affected_rows = 1
        description = (("id", 3, None, 11, 11, 0, True),)
        field_count = 1
        has_next = False
        insert_id = 0
        rows = ((1,),)
        server_status = 2  # autocommit
        unbuffered_active = False
        warning_count = 0

    def send(self: Any, command: int, sql: Any) -> None:
        """Send nothing."""

    def read(self: Any, unbuffered: bool = False) -> int:  # noqa: FBT001, FBT002 - PyMySQL's signature
        self._result = Answer
        return 1

    # On the class, and opened by `connect`: that is where the peers look.
    pymysql.connections.Connection._execute_command = send  # noqa: SLF001
    pymysql.connections.Connection._read_query_result = read  # noqa: SLF001
    connection = pymysql.connect(defer_connect=True, host="db.example", database="shop")
    opened = getattr(connection, "__wrapped__", connection)
    opened._sock = object()  # noqa: SLF001 - what makes it an open one
    opened.server_version = "10.11.6-MariaDB"
    opened.server_status = Answer.server_status
    return connection


def _mariadb() -> Any:
    import pymysql

    connection = pymysql.connect(**json.loads(os.environ[MARIADB_ENVIRONMENT]), autocommit=True)
    connection.cursor().execute(_TABLE)
    connection.cursor().execute(_INDEX)
    return connection


def _sqlite3() -> Any:
    import sqlite3

    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.cursor().execute(_TABLE)
    connection.cursor().execute(_INDEX)
    return connection


def _sqlalchemy() -> Any:
    import sqlalchemy

    class Cursor:
        """An open connection of an engine, with a cursor's methods."""

        def __init__(self) -> None:
            self.connection = sqlalchemy.create_engine("sqlite://").connect()
            self.execute = self.connection.exec_driver_sql
            self.execute(_TABLE)
            self.execute(_INDEX)

        def cursor(self) -> Cursor:
            return self

    return Cursor()


def _django() -> Any:
    from benchmarks.overhead.django_site import Orders

    return Orders()
