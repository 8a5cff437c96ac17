"""Every statement PyMySQL sends, against a real server and its general log."""

from __future__ import annotations

import gc
import statistics
import time
from time import perf_counter_ns

import pymysql
import pytest
from pymysql.constants import CLIENT
from pymysql.cursors import Cursor, DictCursor, SSCursor, SSDictCursor

from perf_middleware import collector
from perf_middleware.collector.context import unattributed


def total_wire(seen):
    return sum(query.wire for query in seen.queries)


def table(connection, name, rows=0):
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE OR REPLACE TABLE {name} (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(40)) ENGINE=InnoDB"
        )
        if rows:
            cursor.execute(f"INSERT INTO {name} (v) SELECT seq FROM seq_1_to_{rows}")


# ------------------------------------------------------------------------------------------- what must not happen


def test_session_and_transaction_statements_are_no_queries(record, connect, sent):
    connection = connect()
    with record() as seen, connection.cursor() as cursor:
        connection.ping(reconnect=False)
        connection.autocommit(value=False)
        connection.begin()
        cursor.execute("SAVEPOINT a")
        cursor.execute("SET @x = 1")
        cursor.execute("ROLLBACK TO SAVEPOINT a")
        connection.commit()
        connection.autocommit(value=True)
    assert seen.queries == []
    assert sent(connection) == []


def test_nothing_is_noted_without_a_profile_and_each_statement_is_unattributed_once(hooked, connect, sent):
    connection = connect()
    before = unattributed.count
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.executemany("DO %s", [(1,), (2,)])
        connection.query("SELECT 2")
    assert unattributed.count - before == len(sent(connection)) == 4


def test_the_message_of_an_error_and_the_arguments_of_others_are_never_in_the_record(record, connect):
    connection = connect()

    def failing():
        yield (1,)
        raise KeyError(4242)

    with record() as seen, connection.cursor() as cursor:
        with pytest.raises(pymysql.err.ProgrammingError) as failed:
            cursor.execute("SELECT 'secret' FROM missing_table")
        with pytest.raises(KeyError):
            cursor.executemany("DO %s", failing())
    assert [query.error for query in seen.queries] == ["ProgrammingError 1146", "KeyError"]
    assert failed.value.args[0] == 1146


def test_rows_of_a_failed_statement_are_unknown_not_those_of_the_one_before(record, connect):
    with record() as seen, connect().cursor() as cursor:
        cursor.execute("SELECT 1 UNION SELECT 2")
        with pytest.raises(pymysql.err.ProgrammingError):
            cursor.execute("SELECT %s, %s", (1,))
    assert [query.rows for query in seen.queries] == [2, None]


def test_a_wrong_call_fails_as_it_does_without_us(record, connect):
    connection = connect()
    closed = connection.cursor()
    closed.close()
    with record() as seen, connection.cursor() as cursor:
        for call, error in (
            (lambda: cursor.execute(None), TypeError),
            (lambda: cursor.execute(b"SELECT \xff\xfe"), pymysql.err.ProgrammingError),
            (lambda: cursor.executemany("DO %s", 5), TypeError),
            (lambda: cursor.callproc("p", None), TypeError),
            (lambda: closed.execute("SELECT 1"), pymysql.err.ProgrammingError),
            (lambda: cursor.execute("SELECT '\x00"), pymysql.err.ProgrammingError),
        ):
            with pytest.raises(error):
                call()
    assert total_wire(seen) == 2
    assert all(query.error for query in seen.queries)


# ------------------------------------------------------------------------------------------------- cursors and rows


@pytest.mark.parametrize("cursor_class", [Cursor, DictCursor, SSCursor, SSDictCursor])
@pytest.mark.parametrize("subclassed", [False, True])
def test_each_kind_of_cursor_is_one_query_with_its_rows(record, connect, cursor_class, subclassed):
    if subclassed:
        cursor_class = type(
            "Mine", (cursor_class,), {"execute": lambda self, q, a=None: super(cursor_class, self).execute(q, a)}
        )
    with record() as seen, connect().cursor(cursor_class) as cursor:
        cursor.execute("SELECT seq FROM seq_1_to_7")
        assert len(cursor.fetchall()) == 7
    (query,) = seen.queries
    assert (query.rows, query.wire, query.error) == (7, 1, None)
    assert (query.fetch_ms is not None) == issubclass(cursor_class, SSCursor)


def test_the_consumer_s_time_between_fetches_is_not_the_database_s(record, connect, monkeypatch):
    with record() as seen, connect().cursor(SSCursor) as cursor:
        cursor.execute("SELECT seq, REPEAT('x', 1000) FROM seq_1_to_3000")
        inside = rows = 0
        while True:
            start_ns = perf_counter_ns()
            batch = cursor.fetchmany(500)
            inside += perf_counter_ns() - start_ns
            if not batch:
                break
            rows += len(batch)
            spin_until = perf_counter_ns() + 10_000_000
            while perf_counter_ns() < spin_until:
                pass
    (query,) = seen.queries
    assert query.rows == rows == 3000
    assert 0 < query.fetch_ms <= inside / 1e6


def test_rows_read_one_by_one_cost_nothing_and_stay_unknown(record, connect):
    with record() as seen, connect().cursor(SSCursor) as cursor:
        cursor.execute("SELECT seq FROM seq_1_to_5")
        assert len(list(cursor)) == 5
    assert (seen.queries[0].rows, seen.queries[0].fetch_ms) == (None, None)


def test_a_cursor_used_again_does_not_add_to_the_query_before(record, connect):
    with record() as seen, connect().cursor(SSCursor) as cursor:
        cursor.execute("SELECT seq FROM seq_1_to_5")
        cursor.fetchall()
        cursor.execute("SELECT seq FROM seq_1_to_3")
        cursor.fetchall()
    assert [query.rows for query in seen.queries] == [5, 3]


# --------------------------------------------------------------------------------------- many statements in one call


def test_a_stored_procedure_is_one_query(record, connect, sent):
    connection = connect()
    with connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE PROCEDURE twice(IN a INT) BEGIN SELECT a; SELECT a + 1; END")
    before = len(sent(connection))
    with record() as seen, connection.cursor() as cursor:
        cursor.callproc("twice", (3,))
        assert cursor.fetchall() == ((3,),)
        assert cursor.nextset()
        assert cursor.fetchall() == ((4,),)
    (query,) = seen.queries
    assert query.fingerprint == "CALL `twice`(?)"
    assert query.wire == len(sent(connection)) - before == 1
    assert query.params_hash is not None


def test_several_statements_in_one_text_are_one_query_as_in_the_server_s_log(record, connect, sent):
    connection = connect(client_flag=CLIENT.MULTI_STATEMENTS)
    with record() as seen, connection.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT 2")
        assert cursor.nextset()
        assert cursor.fetchall() == ((2,),)
    assert total_wire(seen) == len(sent(connection)) == 1


def test_a_bulk_insert_split_by_the_driver_is_one_query_with_its_true_number_of_statements(record, connect, sent):
    connection = connect()
    table(connection, "bulk")
    before = len(sent(connection))
    with record() as seen, connection.cursor() as cursor:
        cursor.max_stmt_length = 1000
        assert cursor.executemany("INSERT INTO bulk (v) VALUES (%s)", [("x" * 30,) for _ in range(200)]) == 200
    (query,) = seen.queries
    assert (query.many, query.rows) == (200, 200)
    assert query.wire == len(sent(connection)) - before > 5


@pytest.mark.parametrize("make", [list, tuple, iter, lambda sets: (item for item in sets), dict.fromkeys])
@pytest.mark.parametrize("text", ["UPDATE loops SET v = %s", "INSERT INTO loops (v) VALUES (%s)"])
def test_executemany_counts_its_sets_however_they_come(record, connect, sent, make, text):
    connection = connect()
    table(connection, "loops", 1)
    before = len(sent(connection))
    with record() as seen, connection.cursor() as cursor:
        cursor.executemany(text, make([("a",), ("b",), ("c",)]))
    (query,) = seen.queries
    assert query.many == 3
    assert query.wire == len(sent(connection)) - before == (3 if text.startswith("UPDATE") else 1)


def test_an_empty_executemany_is_no_query(record, connect):
    with record() as seen, connect().cursor() as cursor:
        assert cursor.executemany("DO %s", []) is None
    assert seen.queries == []


def test_an_executemany_that_fails_half_way_tells_what_was_sent(record, connect, sent):
    connection = connect()
    with record() as seen, connection.cursor() as cursor, pytest.raises(pymysql.err.Error):
        cursor.executemany(
            "SELECT * FROM seq_1_to_3 WHERE seq = %s AND NOT EXISTS (SELECT 1 FROM none_%s)", [(1, 1), (2, 2)]
        )
    (query,) = seen.queries
    assert (query.many, query.error) == (2, "ProgrammingError 1146")
    assert query.wire == len(sent(connection)) == 1


def test_queries_given_to_the_connection_itself_are_recorded(record, connect, sent):
    connection = connect()
    with record() as seen:
        connection.query("SELECT 1 UNION SELECT 2")
        connection.query(b"DO 1")
        connection.show_warnings()
        with pytest.raises(pymysql.err.ProgrammingError):
            connection.query("SELEC 1")
    assert [query.rows for query in seen.queries] == [2, 0, None, None]
    assert total_wire(seen) == len(sent(connection)) == 4


# ---------------------------------------------------------------------------------------------- what was never sent


def test_statements_that_never_reach_the_server_have_wire_0(record, connect, sent):
    connection = connect(charset="latin1")
    closed = connect()
    closed.close()
    with record() as seen, connection.cursor() as cursor, closed.cursor() as late:
        with pytest.raises(UnicodeEncodeError):
            cursor.execute("SELECT '\u20ac\u4e2d'")
        with pytest.raises(UnicodeEncodeError):
            connection.query("SELECT '\u4e2d'")
        with pytest.raises(pymysql.err.InterfaceError):
            late.execute("SELECT 1")
        with pytest.raises(pymysql.err.InterfaceError):
            closed.query("SELECT 1")
        with pytest.raises(pymysql.err.ProgrammingError):
            cursor.execute("SELECT %s %s", (1,))
    assert [query.wire for query in seen.queries] == [0, 0, 0, 0, 0]
    assert all(query.error for query in seen.queries)
    assert sent(connection) == []


def test_a_result_that_cannot_be_read_was_sent_all_the_same(record, connect, sent):
    connection = connect()
    with record() as seen, connection.cursor() as cursor, pytest.raises(UnicodeDecodeError):
        cursor.execute(b"SELECT '\xff\xfe'")
    assert [query.wire for query in seen.queries] == [1]
    assert len(sent(connection)) == 1


# --------------------------------------------------------------------------------------------------- hostile texts


def test_hostile_texts_leave_the_application_s_result_as_it_was(record, connect):
    connection = connect(max_allowed_packet=64 * 1024 * 1024)
    with connection.cursor() as cursor:
        cursor.execute("SET GLOBAL max_allowed_packet = 64 * 1024 * 1024")
    connection = connect(max_allowed_packet=64 * 1024 * 1024)
    large = "x" * 10_000_000
    with record(capture_sql=100) as seen, connection.cursor() as cursor:
        cursor.execute(f"SELECT LENGTH('{large}')")
        assert cursor.fetchall() == ((10_000_000,),)
        cursor.execute("SELECT LENGTH(%s)", (large,))
        assert cursor.fetchall() == ((10_000_000,),)
        cursor.execute("SELECT 'nul \0 inside'")
        assert cursor.fetchall() == (("nul \0 inside",),)
        cursor.execute(b"SELECT LENGTH('\xff\xfe')")
        assert cursor.fetchall()[0][0] > 0
        cursor.execute(bytearray(b"SELECT 1 -- don't"))
        with pytest.raises(pymysql.err.ProgrammingError):
            cursor.execute("SELECT 'unbalanced")
    assert len(seen.queries) == 6
    assert all(query.fingerprint for query in seen.queries)
    assert "secret" not in str([query.fingerprint for query in seen.queries])
    assert seen.queries[1].params_hash is not None


def test_no_method_of_a_parameter_or_of_a_text_subclass_is_called(record, connect):
    class Sly(str):
        __slots__ = ()

        def __len__(self):
            raise AssertionError("asked for its length")

        def __hash__(self):
            raise AssertionError("asked for its hash")

    with record() as seen, connect().cursor() as cursor:
        cursor.execute(Sly("SELECT 1"))
        cursor.execute("SELECT %s", ("a",))
    assert [query.error for query in seen.queries] == [None, None]


# --------------------------------------------------------------------------------------------------- transactions


def outcomes(seen):
    return [transaction.outcome for transaction in seen.transactions]


def test_autocommit_makes_no_transactions(record, connect):
    with record() as seen, connect().cursor() as cursor:
        cursor.execute("SELECT 1")
    assert seen.transactions == []
    assert seen.queries[0].transaction is None


def test_each_way_of_beginning_and_ending_is_a_transaction_with_its_outcome(record, connect):
    connection = connect()
    table(connection, "ways", 3)
    with record() as seen, connection.cursor() as cursor:
        connection.begin()
        cursor.execute("SELECT COUNT(*) FROM ways")
        connection.commit()
        cursor.execute("BEGIN")
        cursor.execute("UPDATE ways SET v = 'x'")
        cursor.execute("SAVEPOINT a")
        cursor.execute("ROLLBACK TO SAVEPOINT a")
        cursor.execute("ROLLBACK")
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT COUNT(*) FROM ways")
        cursor.execute("CREATE OR REPLACE TABLE ways_2 (id INT)")  # commits
        cursor.execute("SELECT 1")
        connection.begin()
        connection.begin()  # commits
        cursor.execute("SELECT 1")
        connection.rollback()
    assert outcomes(seen) == ["commit", "rollback", "commit", "commit", "rollback"]
    assert [query.transaction for query in seen.queries] == [0, 1, 2, 2, None, 4]
    for transaction in seen.transactions:
        assert 0 < transaction.busy_ms <= transaction.duration_ms + 0.01


def test_with_autocommit_off_the_first_statement_on_a_table_begins_it(record, connect):
    connection = connect(autocommit=False)
    table(connection, "implicit", 1)
    connection.commit()
    with record() as seen, connection.cursor() as cursor:
        cursor.execute("SELECT v FROM implicit")
        cursor.execute("SELECT v FROM implicit")
        connection.autocommit(value=True)
        cursor.execute("SELECT v FROM implicit")
    assert outcomes(seen) == ["commit"]
    assert [query.transaction for query in seen.queries] == [0, 0, None]


def test_a_transaction_that_outlives_its_profile_is_open_and_goes_on_in_the_next(record, connect):
    connection = connect()
    table(connection, "several", 1)
    with record() as first, connection.cursor() as cursor:
        connection.begin()
        cursor.execute("SELECT v FROM several")
    with record() as second, connection.cursor() as cursor:
        cursor.execute("SELECT v FROM several")
        connection.commit()
    with record() as third:
        connection.commit()
    assert outcomes(first) == ["open"]
    assert first.transactions[0].duration_ms > 0
    assert outcomes(second) == ["commit"]
    assert outcomes(third) == []


def test_what_close_leaves_open_is_rolled_back(record, connect):
    connection = connect()
    with record() as seen, connection.cursor() as cursor:
        connection.begin()
        cursor.execute("SELECT 1")
        connection.close()
    assert outcomes(seen) == ["rollback"]
    assert len(seen.queries) == 1


def test_a_failed_statement_leaves_its_transaction_open_but_a_lost_connection_does_not(record, connect):
    connection, other = connect(), connect()
    with record() as seen, connection.cursor() as cursor:
        connection.begin()
        with pytest.raises(pymysql.err.ProgrammingError):
            cursor.execute("SELECT * FROM missing_table")
        cursor.execute("SELECT 1")
        other.kill(connection.thread_id())
        with pytest.raises(pymysql.err.OperationalError):
            cursor.execute("SELECT 1")
    assert outcomes(seen) == ["rollback"]
    assert [query.transaction for query in seen.queries if query.db.endswith("/perf")][:2] == [0, 0]


# ---------------------------------------------------------------------------------------------------------- where


def test_the_target_names_server_and_database_without_credentials(record, connect, mariadb):
    connection = connect()
    with record() as seen, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        connection.begin()
        connection.select_db("mysql")
        cursor.execute("SELECT 1")
        connection.commit()
    where = f"{mariadb.host}:{mariadb.port}"
    assert [query.db for query in seen.queries] == [f"{where}/perf", f"{where}/mysql"]
    assert {query.system for query in seen.queries} == {"mariadb"}
    assert outcomes(seen) == ["commit"]
    assert mariadb.password not in str(seen.queries)


def test_mysql_is_told_from_mariadb_by_the_server_s_version(record, connect):
    connection = connect()
    connection.server_version = "8.0.36"
    with record() as seen:
        connection.query("SELECT 1")
    assert seen.queries[0].system == "mysql"


def test_a_connection_opened_before_the_hooks_is_seen(connect, request):
    connection = connect()
    record = request.getfixturevalue("record")
    with record() as seen, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert len(seen.queries) == 1


def test_a_connection_that_is_not_open_yet_has_failed_statements_and_no_transaction(record, mariadb):
    server = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
    connection = pymysql.Connection(**server, defer_connect=True)
    with record() as seen:
        for call in (lambda: connection.cursor().execute("SELECT 1"), lambda: connection.query("SELECT 1")):
            with pytest.raises(pymysql.err.InterfaceError):
                call()
    assert [query.error for query in seen.queries] == ["InterfaceError"] * 2
    assert (total_wire(seen), seen.transactions) == (0, [])

    connection.connect()
    with record() as seen:
        connection.query("SELECT 1")
        connection.close()
    assert [(query.error, query.system) for query in seen.queries] == [(None, "mariadb")]


def test_a_connection_that_never_was_open_is_closed_without_a_fault_of_ours(record):
    with record() as seen:
        pymysql.Connection(defer_connect=True).close()
    assert (seen.queries, seen.transactions) == ([], [])


# ------------------------------------------------------------------------------------------------------------ time


@pytest.mark.parametrize("sleep_ms", [1, 10, 100])
def test_a_duration_is_what_a_clock_around_the_call_says(record, connect, sleep_ms):
    rounds = 3 if sleep_ms == 100 else 15
    around, bare = [], []
    connection = connect()
    cursor = connection.cursor()
    text = f"SELECT SLEEP({sleep_ms / 1000})"
    for _ in range(rounds):
        with record() as seen:
            start_ns = perf_counter_ns()
            cursor.execute(text)
            around.append((seen, perf_counter_ns() - start_ns))
        start_ns = perf_counter_ns()
        cursor.execute(text)
        bare.append((perf_counter_ns() - start_ns) / 1e6)
    measured = [seen.queries[0].duration_ms for seen, _ in around]
    for duration_ms, (_, outside_ns) in zip(measured, around, strict=True):
        assert sleep_ms <= duration_ms <= outside_ns / 1e6
    client_ms = statistics.median(outside_ns / 1e6 for _, outside_ns in around)
    assert client_ms - statistics.median(measured) < 1 + 0.05 * client_ms
    assert abs(statistics.median(measured) - statistics.median(bare)) < 1 + 0.05 * statistics.median(bare)


def test_a_stepping_wall_clock_changes_no_duration(record, connect, monkeypatch):
    steps = iter(range(0, -100_000_000, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(steps)))
    with record() as seen, connect().cursor() as cursor:
        cursor.execute("SELECT SLEEP(0.001)")
    assert 1 <= seen.queries[0].duration_ms < 1000
    assert 0 <= seen.queries[0].start_ms < 1000


# --------------------------------------------------------------------------------------------------------- memory


def test_nothing_of_a_query_is_kept_by_its_connection_or_cursor(record, connect):
    connection = connect()
    cursor = connection.cursor(SSCursor)
    with record():
        cursor.execute("SELECT %s", ("a parameter",))
        cursor.fetchall()
    gc.collect()
    kept = [*vars(connection).values(), vars(cursor)["_perf_middleware_extra"]]
    assert not [value for value in kept if type(value).__name__ in ("Capture", "Profile", "Reading")]


def test_installed_hooks_are_gone_after_uninstalling(record, connect):
    connection = connect()
    collector.uninstall("pymysql")
    try:
        with record() as seen, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        collector.install("pymysql")
    assert seen.queries == []
