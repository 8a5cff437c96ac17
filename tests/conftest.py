"""Real servers for every test that asks: started on first use, one of each per pytest-xdist worker."""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress

import foreign_table
import private_postgresql
import pytest

from perf_middleware.cli.demo import servers

with suppress(ImportError):
    import _mysql_connector  # noqa: F401 - wants static memory of threads, of which later ones leave too little


@contextmanager
def _or_skip(server):
    """A server that is not installed skips the test on a laptop and fails it in CI."""
    try:
        running = server.__enter__()
    except servers.ServerMissingError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    try:
        yield running
    finally:
        server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def mariadb():
    """A private MariaDB (`servers.MariaDB`), shared by the tests of a worker: each makes its own tables."""
    with _or_skip(servers.mariadb()) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql():
    """A private PostgreSQL (`private_postgresql.PostgreSQL`), shared by the tests of a worker, as MariaDB is."""
    with _or_skip(private_postgresql.postgresql()) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_url():
    """The URL of a private Valkey, shared by the tests of a worker: each uses its own service name."""
    with _or_skip(servers.valkey()) as url:
        yield url


@pytest.fixture
def profiled():
    """`profiled(door, app, **options)` wraps an application; `profiled.profiles` is what its sink was given.

    The overhead guard may shed nothing, unless the options say so: how long a test takes is no part of it.
    """

    def wrap(door, app, **options):
        given = {"log": False, "sinks": [wrap.profiles.append], "max_overhead_percent": 0, **options}
        middleware = door(app, **given)
        made.append(middleware)
        return middleware

    made = []
    wrap.profiles = []
    yield wrap
    for middleware in made:
        middleware.close()


@pytest.fixture
def query(profiled, tmp_path):
    """`query(n)` runs n statements, from any thread, on a database opened after the door hooked its driver."""
    path = tmp_path / "items.sqlite"
    made = sqlite3.connect(path)
    made.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, title TEXT)")
    made.close()

    def run(count=1):
        if not opened:
            opened.append(sqlite3.connect(path, check_same_thread=False))
        for number in range(count):
            opened[0].cursor().execute("SELECT title FROM item WHERE id = ?", (number,)).fetchall()

    opened = []
    yield run
    for connection in opened:
        connection.close()


def pytest_terminal_summary(terminalreporter):
    """What the foreign suites found, which only their own tests could tell otherwise."""
    foreign_table.write(terminalreporter)
