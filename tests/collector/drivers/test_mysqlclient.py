"""mysqlclient: what is its own."""

from __future__ import annotations

import os

import pytest

from perf_middleware import collector

try:
    import MySQLdb
except ImportError:
    if os.environ.get("CI"):
        raise
    pytest.skip("mysqlclient is not installed: it is built from source", allow_module_level=True)


@pytest.fixture
def hooked():
    collector.install("mysqlclient", "pymysql")
    yield
    collector.uninstall("mysqlclient", "pymysql")


@pytest.fixture
def opened(mariadb):
    made = []

    def opening(**options):
        given = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
        made.append(MySQLdb.connect(**{**given, "database": mariadb.database, "autocommit": True, **options}))
        return made[-1]

    yield opening
    for connection in made:
        if connection.open:
            connection.close()


def test_a_lost_connection_ends_its_transaction_and_its_statement_was_sent(record, opened):
    connection, other = opened(), opened()
    with record() as seen:
        connection.begin()
        other.kill(connection.thread_id())
        with pytest.raises(MySQLdb.OperationalError) as lost:
            connection.cursor().execute("SELECT 1")
    assert [transaction.outcome for transaction in seen.transactions] == ["rollback"]
    assert [query.error for query in seen.queries] == [f"OperationalError {lost.value.args[0]}"]


def test_a_closed_cursor_s_statement_never_leaves(record, opened):
    cursor = opened().cursor()
    cursor.close()
    with record() as seen, pytest.raises(MySQLdb.ProgrammingError):
        cursor.execute("SELECT 1")
    assert [(query.wire, query.error) for query in seen.queries] == [(0, "ProgrammingError")]


def test_statements_given_to_the_connection_itself_are_queries(record, opened):
    connection = opened()
    with record() as seen:
        connection.query("SELECT 1")
        connection.store_result()
        connection.query(b"DO 1")
        connection.show_warnings()
        with pytest.raises(MySQLdb.ProgrammingError):
            connection.query("SELEC 1")
    assert [(query.fingerprint, query.wire, query.rows) for query in seen.queries] == [
        ("SELECT ?", 1, None),
        ("DO ?", 1, None),
        ("SHOW WARNINGS", 1, None),
        ("SELEC ?", 1, None),
    ]


@pytest.mark.parametrize("make", [list, iter, lambda sets: (item for item in sets)])
def test_executemany_counts_its_sets_however_they_come(record, opened, make):
    connection = opened()
    cursor = connection.cursor()
    cursor.execute("CREATE OR REPLACE TABLE sets_mysqlclient (a INT)")
    with record() as seen:
        cursor.executemany("INSERT INTO sets_mysqlclient VALUES (%s)", make([(1,), (2,), (3,)]))
        cursor.executemany("UPDATE sets_mysqlclient SET a = %s", make([(1,), (2,)]))
    assert [(query.many, query.wire) for query in seen.queries] == [(3, 1), (2, 2)]


def test_by_text_too_transactions_begin_and_end(record, opened):
    cursor = opened().cursor()
    cursor.execute("CREATE OR REPLACE TABLE texts_mysqlclient (a INT)")
    with record() as seen:
        for text in (
            "begin",
            "INSERT INTO texts_mysqlclient VALUES (1)",
            "SAVEPOINT a",
            "ROLLBACK TO a",
            "SELECT a FROM texts_mysqlclient",
            "rollback",
            "SELECT a FROM texts_mysqlclient",
            "START TRANSACTION",
            b"SELECT a FROM texts_mysqlclient",
            "CREATE OR REPLACE TABLE texts_mysqlclient_2 (a INT)",
            "SELECT a FROM texts_mysqlclient",
        ):
            cursor.execute(text)
    assert [query.transaction for query in seen.queries] == [0, 0, None, 1, 1, None]
    assert [transaction.outcome for transaction in seen.transactions] == ["rollback", "commit"]
