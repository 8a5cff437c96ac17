"""A capture of its own for each test, with no pipeline around it: what the hooks note is what is looked at."""

from __future__ import annotations

import re
from contextlib import contextmanager
from time import perf_counter
from types import SimpleNamespace

import pymysql
import pytest

from perf_middleware import collector
from perf_middleware.collector.context import Capture, current
from perf_middleware.errors import faults
from perf_middleware.record import Profile

#: A connection's number and the statement it sent, less what steers sessions and transactions.
LOGGED = re.compile(
    r"^(?:\d{6} [ \d:]+)?\t{1,2} *(\d+) Query\t(?!(?:SET|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b)(.*)", re.MULTILINE
)


@pytest.fixture(autouse=True)
def no_faults():
    """No test of the hooks may leave a fault behind, unless it says so by clearing them."""
    faults.clear()
    yield
    assert not faults


@pytest.fixture
def hooked():
    collector.install("pymysql", "sqlite3")
    yield
    collector.uninstall("pymysql", "sqlite3")


@pytest.fixture
def record(hooked):
    """`with record() as seen:` collects; afterwards `seen.queries`, `seen.transactions` and the other numbers."""

    @contextmanager
    def recording(*, keep=2000, callers=True, capture_sql=0):
        seen = SimpleNamespace()
        seen.capture = Capture(Profile(), keep=keep, callers=callers, capture_sql=capture_sql, parent=current.get())
        token = current.set(seen.capture)
        try:
            yield seen
        finally:
            current.reset(token)
            reading = seen.capture.close()
            seen.transactions = reading.transactions(perf_counter())
            seen.queries = reading.queries(seen.capture)
            for name in ("query_count", "db_s", "db_sum_s", "fetch_ms", "folded"):
                setattr(seen, name, getattr(reading, name))

    return recording


@pytest.fixture
def connect(mariadb):
    """Open connections to the private server; all are closed at the end."""
    opened = []

    def connecting(**options):
        connection = pymysql.connect(
            **{
                "host": mariadb.host,
                "port": mariadb.port,
                "user": mariadb.user,
                "password": mariadb.password,
                "database": mariadb.database,
                "autocommit": True,
                "ssl_disabled": True,  # loading the certificates would take 25 ms a connection
                **options,
            }
        )
        opened.append(connection)
        return connection

    yield connecting
    for connection in opened:
        if connection.open:
            connection.close()


@pytest.fixture
def sent(connect, mariadb):
    """What the server's general log says a connection sent, less what steers sessions and transactions."""
    with connect().cursor() as cursor:
        cursor.execute("SET GLOBAL general_log = 1")

    def statements(connection):
        log = mariadb.general_log.read_text(errors="replace")
        return [text for number, text in LOGGED.findall(log) if int(number) == connection.thread_id()]

    return statements
