"""Any module of PEP 249: one made for the test in Python, and real ones in C."""

from __future__ import annotations

import gc
import logging
import sqlite3
import sys
import weakref
from types import ModuleType

import duckdb
import pymysql
import pytest

from perf_middleware import collector
from perf_middleware.collector.context import unattributed
from perf_middleware.errors import OptionError, faults


class Base:
    """Passes on what the module made for a test has, to SQLite below our hooks."""

    def __init__(self, below):
        self.below = below


class Cursor(Base):
    @property
    def rowcount(self):
        return self.below.rowcount

    @property
    def description(self):
        return self.below.description

    def execute(self, operation, parameters=()):
        self.below.execute(operation, parameters)

    def executemany(self, operation, seq_of_parameters):
        self.below.executemany(operation, seq_of_parameters)

    def fetchall(self):
        return self.below.fetchall()

    def fetchmany(self, size=1):
        return self.below.fetchmany(size)


class Connection(Base):
    @property
    def in_transaction(self):
        return self.below.in_transaction

    def cursor(self):
        return Cursor(self.below.cursor())

    def commit(self):
        self.below.commit()

    def rollback(self):
        self.below.rollback()

    def close(self):
        self.below.close()


class Unmarked(sqlite3.Connection):
    """SQLite's own, which our hooks of sqlite3 leave alone."""

    perf_middleware_ignore = True


@pytest.fixture
def plain(monkeypatch):
    """A module as a driver that we do not know has it, hooked."""
    module = ModuleType("plain_driver")
    module.Error = sqlite3.Error
    module.connect = lambda **given: Connection(sqlite3.connect(":memory:", factory=Unmarked))
    monkeypatch.setitem(sys.modules, "plain_driver", module)
    collector.install_dbapi(module, system="plain")
    yield module
    collector.uninstall_dbapi(module)


@pytest.fixture
def duck():
    collector.install_dbapi(duckdb, system="duckdb")
    yield duckdb
    collector.uninstall_dbapi(duckdb)


# ------------------------------------------------------------------------------------------- what must not happen


def test_a_module_that_has_a_driver_here_is_refused_with_its_name():
    for module, name in ((pymysql, "pymysql"), (sqlite3, "sqlite3")):
        with pytest.raises(OptionError, match=rf"seen by a driver: install\('{name}'\)"):
            collector.install_dbapi(module, system="mysql")


def test_a_class_whose_methods_cannot_be_replaced_is_told_once_and_works(record, caplog, monkeypatch):
    module = ModuleType("immutable_driver")
    module.Error, module.connect = sqlite3.Error, sqlite3.Connection
    monkeypatch.setitem(sys.modules, "immutable_driver", module)
    collector.uninstall("sqlite3")
    collector.install_dbapi(module, system="immutable")
    try:
        with caplog.at_level(logging.WARNING), record() as seen:
            for _ in range(2):
                connection = module.connect(":memory:")
                assert connection.cursor().execute("SELECT 1").fetchall() == [(1,)]
                connection.close()
    finally:
        collector.uninstall_dbapi(module)
        collector.install("sqlite3")
    assert seen.queries == []
    assert [record.getMessage() for record in caplog.records if "immutable" in record.getMessage()] == [
        (
            "immutable_driver: the methods of Connection cannot be replaced, so that what it runs is not seen; "
            "a driver of its own could see it: docs/drivers.md"
        )
    ]


def test_installing_is_counted_and_the_last_uninstalling_restores_identity(record):
    def touched():
        return {name: value for name, value in vars(duckdb.DuckDBPyConnection).items() if name[:2] != "__"}

    before, connect = touched(), duckdb.connect
    collector.install_dbapi(duckdb, system="duckdb")
    collector.install_dbapi(duckdb, system="duckdb")
    with record() as seen:
        connection = duckdb.connect()
        collector.uninstall_dbapi(duckdb)
        connection.execute("SELECT 1")
        assert duckdb.connect is not connect
        assert collector.status()["duckdb"] == "hooked"
        collector.uninstall_dbapi(duckdb)
        connection.execute("SELECT 2")
        connection.close()
    after = touched()
    assert [query.fingerprint for query in seen.queries] == ["SELECT ?"]
    assert duckdb.connect is connect
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def test_an_error_is_the_same_object_and_only_its_class_is_kept(record, plain):
    error = plain.Error(4242, "secret")

    class Failing:
        def execute(self, operation, parameters):
            raise error

    with record() as seen:
        connection = plain.connect()
        cursor = connection.cursor()
        cursor.below = Failing()
        with pytest.raises(plain.Error) as failed:
            cursor.execute("SELECT 1")
        connection.close()
    assert failed.value is error
    assert [query.error for query in seen.queries] == ["Error"]


def test_nothing_of_ours_keeps_a_connection_or_a_cursor_alive(record, duck, plain):
    with record():
        connection, other = duck.connect(), plain.connect()
        cursor = other.cursor()
        connection.execute("SELECT 1")
        cursor.execute("SELECT 1")
    kept = [weakref.ref(connection), weakref.ref(other), weakref.ref(cursor)]
    other.close()
    del connection, other, cursor
    gc.collect()
    assert [reference() for reference in kept] == [None, None, None]


def test_what_runs_without_a_profile_is_unattributed(plain):
    before = unattributed.count
    connection = plain.connect()
    connection.cursor().execute("SELECT 1")
    connection.close()
    assert unattributed.count == before + 1


# ---------------------------------------------------------------------------------------------- what must be seen


def test_statements_sets_rows_fetches_and_errors_are_seen(record, plain):
    with record() as seen:
        connection = plain.connect(host="db.example", port=5, database="shop", password="secret")
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (a)")
        cursor.executemany("INSERT INTO t VALUES (?)", [(1,), (2,), (3,)])
        cursor.executemany("INSERT INTO t VALUES (?)", [])
        cursor.executemany("INSERT INTO t VALUES (?)", ((number,) for number in range(2)))
        cursor.execute("SELECT a FROM t WHERE a > ?", (1,))
        assert cursor.fetchall() == [(2,), (3,)]
        cursor.execute(operation="SELECT a FROM t WHERE a > ?", parameters=(2,))
        assert cursor.fetchmany(5) == [(3,)]
        with pytest.raises(plain.Error):
            cursor.execute("SELECT a FROM missing")
        connection.close()
    assert [(query.fingerprint, query.many, query.rows, query.error) for query in seen.queries] == [
        ("CREATE TABLE t(a)", None, None, None),
        ("INSERT INTO t VALUES (?)", 3, 3, None),
        ("INSERT INTO t VALUES (?)", 2, 2, None),
        ("SELECT a FROM t WHERE a > ?", None, 2, None),
        ("SELECT a FROM t WHERE a > ?", None, 1, None),
        ("SELECT a FROM missing", None, None, "OperationalError"),
    ]
    assert {query.system for query in seen.queries} == {"plain"}
    assert {query.db for query in seen.queries} == {"db.example:5/shop"}
    assert [query.wire for query in seen.queries] == [1] * 6
    assert seen.queries[3].params_hash != seen.queries[4].params_hash
    assert seen.queries[3].fetch_ms is not None
    assert all(" in test_statements" in query.caller for query in seen.queries)
    assert "secret" not in str(seen.queries)


def test_transactions_are_told_by_the_connection_where_it_can(record, plain):
    with record() as seen:
        connection = plain.connect()
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (a)")
        cursor.execute("INSERT INTO t VALUES (1)")
        connection.commit()
        cursor.execute("SELECT a FROM t")
        cursor.execute("INSERT INTO t VALUES (2)")
        connection.rollback()
        cursor.execute("INSERT INTO t VALUES (3)")
        connection.close()
    assert [transaction.outcome for transaction in seen.transactions] == ["commit", "rollback", "rollback"]
    assert [query.transaction for query in seen.queries] == [None, 0, None, 1, 2]


def test_duckdb_s_connections_are_their_own_cursors(record, duck, tmp_path):
    with record() as seen:
        connection = duck.connect(database=str(tmp_path / "a.duckdb"))
        connection.execute("CREATE TABLE t AS SELECT range AS a FROM range(5)")
        assert connection.execute("SELECT a FROM t WHERE a > ?", [2]).fetchall() == [(3,), (4,)]
        connection.executemany("INSERT INTO t VALUES (?)", [[1], [2]])
        connection.begin()
        other = connection.cursor()
        assert len(other.execute("SELECT a FROM t").fetchall()) == 7
        connection.execute("DELETE FROM t")
        connection.commit()
        connection.close()
    assert [(query.many, query.rows, query.transaction) for query in seen.queries] == [
        (None, 5, None),
        (None, 2, None),
        (2, 2, None),
        (None, 7, None),
        (None, 7, 0),
    ]
    assert [transaction.outcome for transaction in seen.transactions] == ["commit"]
    assert {query.db for query in seen.queries} == {str(tmp_path / "a.duckdb")}
    assert faults == {}
