"""sqlite3, whose connections and cursors are seen through subclasses."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
import threading
from sqlite3 import dbapi2

import pytest

from perf_middleware import collector
from perf_middleware.collector.context import current, unattributed
from perf_middleware.errors import faults


def fingerprints(seen):
    return [query.fingerprint for query in seen.queries]


def outcomes(seen):
    return [transaction.outcome for transaction in seen.transactions]


# ------------------------------------------------------------------------------------------- what must not happen


def test_statements_that_steer_are_no_queries(record):
    with record() as seen:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        for text in ("PRAGMA foreign_keys = 1", "BEGIN", "SAVEPOINT a", "RELEASE a", "COMMIT"):
            connection.execute(text)
        connection.close()
    assert seen.queries == []
    assert outcomes(seen) == ["commit"]


def test_a_factory_that_is_a_function_is_left_alone_and_reported(record):
    def factory(*args, **kwargs):
        return sqlite3.Connection(*args, **kwargs)

    with record() as seen:
        connection = sqlite3.connect(":memory:", factory=factory)
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    assert type(connection) is sqlite3.Connection
    assert seen.queries == []
    assert list(faults) == ["sqlite3: a factory that is no class of sqlite3's: TypeError"]
    faults.clear()
    connection.close()


def test_a_class_that_refuses_subclasses_is_left_alone_and_reported(record):
    class Final(sqlite3.Connection):
        def __init_subclass__(cls):
            raise RuntimeError("no subclasses")

    with record():
        connection = sqlite3.connect(":memory:", factory=Final)
    assert type(connection) is Final
    assert list(faults) == ["sqlite3: a factory that cannot be subclassed: RuntimeError"]
    faults.clear()
    connection.close()


def test_a_factory_that_asks_to_be_ignored_is_not_touched(record):
    class Ours(sqlite3.Connection):
        perf_middleware_ignore = True

    before = unattributed.count
    with record() as seen:
        connection = sqlite3.connect(":memory:", factory=Ours)
        connection.execute("SELECT 1")
    connection.execute("SELECT 1")
    connection.close()
    assert type(connection) is Ours
    assert (seen.queries, unattributed.count) == ([], before)


def test_mistakes_raise_what_they_raise_without_us(record):
    def mistakes():
        connection = sqlite3.connect(":memory:")
        cursor = connection.cursor()
        wrong = [
            lambda: cursor.execute("SELECT ?"),
            lambda: cursor.execute("SELEC 1"),
            lambda: cursor.execute("SELECT 1; SELECT 2"),
            lambda: cursor.execute(5),
            lambda: cursor.execute("SELECT ?", (object(),)),
            lambda: cursor.execute("SELECT '\udcff'"),
            lambda: cursor.execute("SELECT \0"),
            lambda: cursor.executemany("SELECT ?", [(1,)]),
            lambda: cursor.executemany("INSERT INTO t VALUES (?)", 5),
            lambda: connection.cursor(None),
            lambda: pickle.dumps(connection),
            lambda: pickle.dumps(cursor),
            sqlite3.connect,
            connection.close,
            lambda: connection.execute("SELECT 1"),
            connection.commit,
            connection.close,
            lambda: sqlite3.connect("/nowhere/at/all"),
        ]
        for call in wrong:
            try:
                call()
            except Exception as error:  # noqa: BLE001
                yield type(error), str(error).replace("sqlite3.", "")  # a C type says its module, too
            else:
                yield None

    with record() as seen:
        hooked = list(mistakes())
    collector.uninstall("sqlite3")
    bare = list(mistakes())
    collector.install("sqlite3")
    assert hooked == bare
    faults.clear()  # None as a cursor's factory
    assert sum(error is None for error in bare) == 2
    assert seen.queries
    assert all(query.error for query in seen.queries)


def test_nothing_is_counted_after_uninstalling_but_the_connection_works(record):
    with record() as seen:
        connection = sqlite3.connect(":memory:")
        collector.uninstall("sqlite3")
        before = unattributed.count
        try:
            with connection:
                connection.execute("CREATE TABLE t (a)")
                connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
                connection.executescript("INSERT INTO t VALUES (3)")
            rows = connection.execute("SELECT a FROM t").fetchall()
        finally:
            collector.install("sqlite3")
    assert rows == [(1,), (2,), (3,)]
    assert seen.queries == []
    token = current.set(None)
    connection.execute("SELECT 1")
    current.reset(token)
    assert unattributed.count == before
    connection.close()


# ----------------------------------------------------------------------------------------- each statement, only once


def test_the_connection_s_shortcuts_are_one_query_each(record):
    with record() as seen:
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", ((number,) for number in range(3)))
        connection.executescript("INSERT INTO t VALUES (3); INSERT INTO t VALUES (4)")
        assert connection.execute("SELECT a FROM t").fetchall() == [(0,), (1,), (2,), (3,), (4,)]
        connection.close()
    assert [(query.many, query.wire, query.rows) for query in seen.queries] == [
        (None, 1, None),
        (3, 3, 3),
        (None, 1, None),
        (None, 1, 5),
    ]
    assert seen.queries[3].fetch_ms is not None


def test_dbapi2_and_a_positional_factory_are_the_same(record):
    class Mine(sqlite3.Connection):
        pass

    with record() as seen:
        connection = dbapi2.connect(":memory:", 5.0, 0, None, True, Mine)  # noqa: FBT003
        connection.execute("SELECT 1")
    assert isinstance(connection, Mine)
    assert type(connection).__name__ == "Mine"
    assert len(seen.queries) == 1
    connection.close()


def test_the_caller_s_own_classes_still_win(record):
    class Rows(sqlite3.Cursor):
        def execute(self, sql, *args):
            return super().execute(sql.replace("%s", "?"), *args)

        def executemany(self, sql, sets):
            self.sets = len(sets)
            return super().executemany(sql, sets)

    class Mine(sqlite3.Connection):
        def cursor(self):
            return super().cursor(Rows)

    with record() as seen:
        connection = sqlite3.connect(":memory:", factory=Mine)
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (a)")
        cursor.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
        assert cursor.sets == 2
        assert cursor.execute("SELECT a FROM t WHERE a = %s", (2,)).fetchall() == [(2,)]
    assert isinstance(cursor, Rows)
    assert isinstance(cursor, sqlite3.Cursor)
    assert fingerprints(seen) == ["CREATE TABLE t(a)", "INSERT INTO t VALUES (?)", "SELECT a FROM t WHERE a = ?"]
    connection.close()


def test_a_cursor_factory_is_a_keyword_too(record):
    class Mine(sqlite3.Cursor):
        pass

    with record() as seen:
        connection = sqlite3.connect(":memory:")
        assert isinstance(connection.cursor(factory=Mine).execute("SELECT 1"), Mine)
        connection.close()
    assert len(seen.queries) == 1


def test_a_connection_s_type_can_be_the_factory_of_another_also_over_a_new_install(record):
    with record() as seen:
        first = sqlite3.connect(":memory:")
        second = sqlite3.connect(":memory:", factory=type(first))
        second.execute("SELECT 1")
        collector.uninstall("sqlite3")
        collector.install("sqlite3")
        third = sqlite3.connect(":memory:", factory=type(first))
        third.execute("SELECT 1")
    assert len(seen.queries) == 2
    for connection in (first, second, third):
        connection.close()


def test_two_threads_on_one_connection_lose_no_query(record):
    each = 200
    with record() as seen:
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        capture = current.get()

        def work():
            current.set(capture)
            for _ in range(each):
                connection.execute("SELECT 1")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen.query_count == len(seen.queries) == 4 * each
    connection.close()


def test_an_executemany_that_fails_half_way_tells_how_far_it_came(record):
    def failing():
        yield (3,)
        raise KeyError(4242)

    with record() as seen:
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")
        with pytest.raises(sqlite3.IntegrityError):
            connection.executemany("INSERT INTO t VALUES (?)", [(1,), (1,), (2,)])
        with pytest.raises(KeyError):
            connection.executemany("INSERT INTO t VALUES (?)", failing())
        with pytest.raises(sqlite3.ProgrammingError):
            connection.executemany("INSERT INTO t VALUES (?)", [(4,), (5, 5)])
        connection.executemany("INSERT INTO t VALUES (?)", [])
        connection.close()
    assert [(query.many, query.wire, query.error) for query in seen.queries[1:]] == [
        (2, 2, "IntegrityError SQLITE_CONSTRAINT_PRIMARYKEY"),
        (1, 1, "KeyError"),
        (2, 1, "ProgrammingError"),
    ]


def test_statements_that_never_reach_sqlite_have_wire_0(record):
    with record() as seen:
        connection = sqlite3.connect(":memory:")
        for call in (
            lambda: connection.execute("SELECT ?"),
            lambda: connection.execute("SELECT '\udcff'"),
            lambda: connection.execute("SELECT ?", (object(),)),
        ):
            with pytest.raises((sqlite3.Error, UnicodeEncodeError)):
                call()
        cursor = connection.cursor()
        connection.close()
        with pytest.raises(sqlite3.ProgrammingError):
            cursor.execute("SELECT 1")
    assert [query.wire for query in seen.queries] == [0, 0, 0, 0]
    assert all(query.error for query in seen.queries)


# --------------------------------------------------------------------------------------------------- transactions


def test_leaving_the_connection_s_block_commits_or_rolls_back(record):
    with record() as seen:
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE t (a UNIQUE)")
        with connection:
            connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(sqlite3.IntegrityError), connection:  # noqa: PT012 - the connection's block is the subject
            connection.execute("INSERT INTO t VALUES (2)")
            connection.execute("INSERT INTO t VALUES (1)")
        connection.execute("INSERT INTO t VALUES (3)")
        connection.commit()
        connection.execute("INSERT INTO t VALUES (4)")
        connection.rollback()
        connection.execute("INSERT INTO t VALUES (5)")
        connection.close()
    assert outcomes(seen) == ["commit", "rollback", "commit", "rollback", "rollback"]
    assert [query.transaction for query in seen.queries] == [None, 0, 1, 1, 2, 3, 4]


def test_a_commit_that_finds_the_file_locked_leaves_the_transaction_open(record, tmp_path):
    path = tmp_path / "locked.sqlite3"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE t (a)")
    other.execute("INSERT INTO t VALUES (1)")
    with record() as seen:
        connection = sqlite3.connect(path, timeout=0)
        connection.execute("INSERT INTO t VALUES (2)")
        reader = other.execute("BEGIN")
        other.execute("SELECT * FROM t").fetchall()
        with pytest.raises(sqlite3.OperationalError):
            connection.commit()
        reader.execute("COMMIT")
        connection.commit()
    assert outcomes(seen) == ["commit", "commit"]  # the other connection's, too
    assert [query.transaction for query in seen.queries] == [0, 1]
    connection.close()
    other.close()


# ---------------------------------------------------------------------------------------------------------- where


def test_each_memory_database_is_its_own_and_a_file_is_its_path_without_the_uri_s_query(record, tmp_path):
    path = tmp_path / "a.sqlite3"
    with record() as seen:
        opened = [
            sqlite3.connect(":memory:"),
            sqlite3.connect(":memory:"),
            sqlite3.connect("file::memory:?cache=shared", uri=True),
            sqlite3.connect("file::memory:?cache=shared", uri=True),
            sqlite3.connect(f"file:{path}?mode=rwc&key=secret", uri=True),
            sqlite3.connect(path),
            sqlite3.connect(database=str(path)),
        ]
        for connection in opened:
            connection.execute("SELECT 1")
    first, second, shared, shared_too, *files = (query.db for query in seen.queries)
    assert len({first, second, shared}) == 3
    assert shared == shared_too
    assert files == [f"file:{path}", str(path), str(path)]
    assert {query.system for query in seen.queries} == {"sqlite"}
    for connection in opened:
        connection.close()


# ---------------------------------------------------------------------------------------------- it stays what it was


def test_factories_and_detected_types_work_as_before(record):
    with record():
        connection = sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_COLNAMES)
        connection.row_factory = sqlite3.Row
        connection.text_factory = bytes
        row = connection.execute("SELECT 'x' AS a, '2026-01-02' AS 'b [shout]'").fetchone()
        assert row["a"] == b"x"
        sqlite3.register_converter("shout", lambda value: value + b"!")
        assert tuple(connection.execute("SELECT 'x' AS 'b [shout]'").fetchone()) == (b"x!",)
        assert isinstance(connection, sqlite3.Connection)
        assert repr(type(connection)) == "<class 'sqlite3.Connection'>"
        copy = sqlite3.connect(":memory:")
        connection.backup(copy)
        assert list(copy.iterdump()) == ["BEGIN TRANSACTION;", "COMMIT;"]
        connection.close()
        copy.close()


def test_sqlalchemy_s_way_is_one_query_a_statement(hooked):
    code = """
import warnings; warnings.simplefilter("error")
from perf_middleware import collector, profile
collector.install("sqlite3")
import sqlalchemy as sa
engine = sa.create_engine("sqlite://")
with profile("x") as p, engine.begin() as connection:
    connection.execute(sa.text("CREATE TABLE t (a)"))
    connection.execute(sa.text("INSERT INTO t VALUES (:a)"), [{"a": 1}, {"a": 2}])
    assert connection.execute(sa.text("SELECT a FROM t WHERE a = :a"), {"a": 2}).fetchall() == [(2,)]
print([(q.fingerprint, q.many, q.rows) for q in p.queries], [t.outcome for t in p.transactions])
"""
    pytest.importorskip("sqlalchemy")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == (
        "[('CREATE TABLE t(a)', None, None), ('INSERT INTO t VALUES (?)', 2, 2), "
        "('SELECT a FROM t WHERE a = ?', None, 1)] ['commit']"
    ), done.stderr
