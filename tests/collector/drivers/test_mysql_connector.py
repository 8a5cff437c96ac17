"""MySQL Connector/Python: what is its own."""

from __future__ import annotations

import gc

import mysql.connector
import pytest

from perf_middleware import collector


@pytest.fixture
def hooked():
    collector.install("mysql_connector")
    yield
    collector.uninstall("mysql_connector")


@pytest.fixture(params=[True, False], ids=["in Python", "in C"])
def opened(mariadb, request):
    made = []

    def opening(**options):
        given = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
        given |= {"charset": "utf8mb4", "collation": "utf8mb4_general_ci", "database": mariadb.database}
        made.append(mysql.connector.connect(**given, use_pure=request.param, **options))
        return made[-1]

    yield opening
    for connection in made:
        connection.close()


def test_a_text_of_nothing_and_a_prepared_statement_without_its_values_are_no_queries(record, opened):
    connection = opened(autocommit=True)
    with record() as seen:
        with connection.cursor() as cursor:
            cursor.execute("")
        with connection.cursor(prepared=True) as cursor:
            cursor.execute("SELECT %s")
    assert seen.queries == []


def test_a_cursor_whose_connection_is_gone_fails_as_it_does_without_us(record, mariadb):
    given = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
    given |= {"charset": "utf8mb4", "collation": "utf8mb4_general_ci", "ssl_disabled": True}
    connection = mysql.connector.connect(**given, use_pure=True)
    cursor = connection.cursor()
    connection.close()
    del connection
    gc.collect()
    with record() as seen, pytest.raises(mysql.connector.ProgrammingError, match="not connected"):
        cursor.execute("SELECT 1")
    assert [(query.wire, query.error) for query in seen.queries] == [(0, "ProgrammingError")]


def test_prepared_statements_are_told_apart_by_their_parameters(record, opened):
    connection = opened(autocommit=True)
    with record() as seen, connection.cursor(prepared=True) as cursor:
        for value in (1, 2, 2):
            cursor.execute("SELECT %s", (value,))
            cursor.fetchall()
    first, second, third = (query.params_hash for query in seen.queries)
    assert first != second == third
    assert [query.wire for query in seen.queries] == [1, 1, 1]


def test_what_the_driver_asks_for_itself_is_seen(record, opened):
    connection = opened(autocommit=True)
    with record() as seen:
        assert connection.database == "perf"
    assert [query.fingerprint for query in seen.queries] == ["SELECT DATABASE()"]


def test_rows_taken_one_by_one_are_unknown(record, opened):
    connection = opened(autocommit=True)
    with record() as seen, connection.cursor() as cursor:
        cursor.execute("SELECT seq FROM seq_1_to_5")
        assert len(list(cursor)) == 5
    assert [(query.rows, query.fetch_ms) for query in seen.queries] == [(None, None)]


def test_a_connection_that_begins_by_itself_has_its_transactions(record, opened):
    connection = opened()
    with record() as seen, connection.cursor(buffered=True) as cursor:
        cursor.execute("SELECT COUNT(*) FROM information_schema.tables")
        cursor.execute("CREATE OR REPLACE TABLE begins_by_itself (a INT)")
        cursor.execute("INSERT INTO begins_by_itself VALUES (1)")
        connection.rollback()
    assert [transaction.outcome for transaction in seen.transactions][-1] == "rollback"
    assert seen.queries[-1].transaction is not None
