"""Logging that itself asks the watched database: neither recursion nor queries that are nobody's request's."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import contextmanager

import pytest
import structlog

from perf_middleware import profile
from perf_middleware.collector import noting, unattributed
from perf_middleware.errors import faults
from perf_middleware.wsgi import PerfMiddleware

OWN = 3


class Table(logging.Handler):
    """Keeps every line in a table, through the driver that is watched."""

    def __init__(self, path):
        super().__init__()
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("CREATE TABLE line (logger TEXT, text TEXT)")
        self.depth = self.deepest = 0

    def emit(self, record):
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        self.connection.execute("INSERT INTO line VALUES (?, ?)", (record.name, record.getMessage()))
        self.depth -= 1

    def lines(self, logger):
        return self.connection.execute("SELECT text FROM line WHERE logger = ?", (logger,)).fetchall()

    def close(self):
        super().close()
        self.connection.close()


@pytest.fixture
def logged(tmp_path):
    """`with logged() as table`: the application's logging ends in a table, on a connection the hooks see."""

    @contextmanager
    def logging_to_table():
        table, root = Table(tmp_path / "log.sqlite"), logging.getLogger()
        level = root.level
        root.addHandler(table)
        root.setLevel(logging.INFO)
        structlog.configure(
            processors=[structlog.stdlib.render_to_log_kwargs],
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=False,
        )
        try:
            yield table
        finally:
            root.setLevel(level)
            root.removeHandler(table)
            table.close()
            structlog.reset_defaults()

    return logging_to_table


def serve(app):
    return app({}, lambda status, headers, exc_info=None: None)


def asking(query):
    def app(environ, start_response):
        query(OWN)
        start_response("200 OK", [])
        return [b"x"]

    return app


def test_a_handler_that_asks_the_database_is_called_once_a_request_and_its_queries_are_in_no_record(
    profiled, query, logged
):
    app = profiled(PerfMiddleware, asking(query), log=True)
    with logged() as table:
        before = unattributed.count
        for _ in range(5):
            serve(app)
        late = unattributed.count - before
        assert table.connection.execute("SELECT count(*) FROM line").fetchone() == (5,)
        assert (table.deepest, late) == (1, 5)
    assert [p.query_count for p in profiled.profiles] == [OWN] * 5
    assert not any("line" in row.fingerprint for p in profiled.profiles for row in p.queries)


def test_lines_the_application_logs_in_its_request_are_its_own_work_and_counted_once(profiled, query, logged):
    def app(environ, start_response):
        query(OWN)
        logging.getLogger("shop").warning("sold out")
        start_response("200 OK", [])
        return [b"x"]

    wrapped = profiled(PerfMiddleware, app, log=True)
    with logged() as table:
        serve(wrapped)
        assert table.lines("shop") == [("sold out",)]
        assert table.deepest == 1
    assert [p.query_count for p in profiled.profiles] == [OWN + 1]


def test_a_handler_asking_while_a_childs_event_is_written_is_not_in_the_request_around_it(profiled, query, logged):
    def app(environ, start_response):
        with profile("part"):
            query(1)
        query(OWN)
        start_response("200 OK", [])
        return [b"x"]

    wrapped = profiled(PerfMiddleware, app, log=True)
    with logged() as table:
        serve(wrapped)
        assert table.connection.execute("SELECT count(*) FROM line").fetchone() == (2,)
    assert [(p.kind, p.query_count) for p in profiled.profiles] == [("block", 1), ("request", OWN + 1)]


def test_a_fault_of_ours_in_a_hook_logged_to_the_watched_database_does_not_recurse(
    profiled, query, logged, monkeypatch
):
    def broken(depth):
        raise RuntimeError

    wrapped = profiled(PerfMiddleware, asking(query), headers="off")
    monkeypatch.setattr("perf_middleware.errors._last_logged", None)
    with logged() as table:
        monkeypatch.setattr(noting, "find_caller", broken)
        body = serve(wrapped)
        monkeypatch.undo()
        assert [text.split()[0] for (text,) in table.lines("perf_middleware")] == ["perf.fault"]
        assert table.deepest == 1
    assert body == [b"x"]
    assert faults["sqlite3: RuntimeError"] >= OWN
    faults.clear()


def test_the_store_s_own_statements_are_in_no_record_and_not_unattributed(profiled, query, tmp_path):
    wrapped = profiled(PerfMiddleware, asking(query), store=f"sqlite:///{tmp_path / 'stats.sqlite'}")
    before = unattributed.count
    serve(wrapped)
    wrapped.pipeline.rolling.flush()
    assert unattributed.count == before
    assert [p.query_count for p in profiled.profiles] == [OWN]
    kept = sqlite3.connect(tmp_path / "stats.sqlite")
    tables = [name for (name,) in kept.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = sum(kept.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables)
    kept.close()
    assert rows > 0
