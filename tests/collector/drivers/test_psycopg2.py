"""Every statement psycopg2 sends, against a real server and its log."""

from __future__ import annotations

import io
import re
import threading

import psycopg2
import pytest
from psycopg2 import extensions, extras, pool, sql
from seen_by import facts, line_of, outcomes, total_wire

from perf_middleware import collector
from perf_middleware.collector.context import unattributed
from perf_middleware.errors import faults

TABLE = "CREATE TEMP TABLE items (id int PRIMARY KEY, v text)"
NUMBERS = "SELECT n FROM generate_series(1, %s) AS numbers(n)"
INSERT = "INSERT INTO items VALUES (%s, %s)"


@pytest.fixture
def hooked():
    collector.install("psycopg2")
    yield
    collector.uninstall("psycopg2")


@pytest.fixture
def connect(postgresql):
    """Open connections to the private server; all are closed at the end."""
    opened = []

    def connecting(*args, autocommit=True, **options):
        connection = psycopg2.connect(postgresql.url, *args, **options)
        opened.append(connection)
        connection.autocommit = True
        extensions.cursor(connection).execute(TABLE)  # past the layer
        connection.autocommit = autocommit
        return connection

    yield connecting
    for connection in opened:
        connection.close()


@pytest.fixture
def sent(postgresql):
    """What the server was sent since the table was made."""
    return lambda connection: postgresql.sent(connection.info.backend_pid)[1:]


# ------------------------------------------------------------------------------------------- what must not happen


def test_what_steers_is_no_query(record, connect, sent):
    connection = connect(autocommit=False)
    with record() as seen, connection.cursor() as cursor:
        cursor.execute("SET search_path TO public")
        cursor.execute("SAVEPOINT a")
        cursor.execute("ROLLBACK TO SAVEPOINT a")
        connection.commit()
        connection.rollback()
    assert seen.queries == []
    assert sent(connection) == []


def test_nothing_is_noted_without_a_profile_and_each_statement_is_unattributed_once(hooked, connect):
    connection = connect(autocommit=False)
    before = unattributed.count
    with connection.cursor() as cursor, connection.cursor("c") as named:
        cursor.execute("SELECT 1")
        cursor.executemany(INSERT, [(1, "a"), (2, "b")])
        cursor.callproc("abs", (-1,))
        cursor.copy_expert("COPY items TO STDOUT", io.StringIO())
        cursor.copy_to(io.StringIO(), "items")
        cursor.copy_from(io.StringIO("7\tx\n"), "items")
        named.execute("SELECT 1")
        named.fetchall()
    assert unattributed.count - before == 7


def test_a_factory_that_is_a_function_is_left_alone_and_reported(record, connect):
    with record() as seen:
        connection = connect(connection_factory=lambda dsn: extensions.connection(dsn))  # noqa: PLW0108 - a function
        connection.cursor().execute("SELECT 1")
        assert type(connection) is extensions.connection
        cursor = connect().cursor(cursor_factory=lambda *args, **options: extensions.cursor(*args, **options))  # noqa: PLW0108
        cursor.execute("SELECT 1")
        assert type(cursor) is extensions.cursor
    assert seen.queries == []
    assert faults == {"psycopg2: a factory that is no class of psycopg2's: TypeError": 2}
    faults.clear()


def test_a_class_that_asks_to_be_ignored_is_not_touched(record, connect):
    class Ours(extensions.connection):
        perf_middleware_ignore = True

    with record() as seen:
        connection = connect(Ours)
        connection.cursor().execute("SELECT 1")
    assert type(connection) is Ours
    assert seen.queries == []


def test_the_application_s_errors_are_its_own_and_no_value_is_in_the_record(record, connect, sent):
    connection = connect()
    stopped = KeyError("secret")

    def failing():
        yield (1, "a")
        raise stopped

    class Source:
        def read(self, *_):
            raise stopped

    with record() as seen, connection.cursor() as cursor:
        with pytest.raises(KeyError) as raised:
            cursor.executemany(INSERT, failing())
        assert raised.value is stopped
        with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
            cursor.execute("SELECT 'secret'::int")
        with pytest.raises(psycopg2.Error):
            cursor.copy_expert("COPY items FROM STDIN", Source())
    assert [query.error for query in seen.queries[:2]] == ["KeyError", "InvalidTextRepresentation 22P02"]
    assert total_wire(seen) == len(sent(connection)) == 3
    assert "secret" not in str(seen.queries)


def test_a_wrong_call_fails_as_it_does_without_us_and_sends_nothing(record, connect, sent):
    def mistakes():
        connection, closed = connect(), connect()
        pid = connection.info.backend_pid
        cursor, late, used = connection.cursor(), closed.cursor(), connection.cursor()
        closed.close()
        used.close()
        for call in (
            lambda: cursor.execute("SELECT %s", ()),
            lambda: cursor.execute("SELECT %s", (object(),)),
            lambda: cursor.execute("SELECT %(a)s", {}),
            lambda: cursor.execute(5),
            lambda: cursor.execute(""),
            lambda: used.execute("SELECT 1"),
            lambda: late.execute("SELECT 1"),
            lambda: cursor.executemany("SELECT %s", 5),
            lambda: cursor.executemany("SELECT %s", [()]),
            lambda: cursor.executemany("SELECT %s", [(object(),)]),
            lambda: cursor.callproc(5),
            lambda: cursor.copy_from(5, "items"),
            lambda: cursor.copy_expert("SELECT 1", None),
            closed.commit,
            closed.rollback,
            closed.cursor,
            lambda: psycopg2.connect("no such thing"),
            lambda: psycopg2.connect(),  # noqa: PLW0108 - looked up when called
        ):
            try:
                call()
            except Exception as error:  # noqa: BLE001
                yield type(error), str(error).partition(" at 0x")[0]
            else:
                yield None
        assert sent(connection) == []
        assert pid

    with record() as seen:
        hooked = list(mistakes())
    collector.uninstall("psycopg2")
    bare = list(mistakes())
    collector.install("psycopg2")
    assert hooked == bare
    assert None not in bare
    assert total_wire(seen) == 0
    assert len(seen.queries) == 13
    assert all(query.error for query in seen.queries)


def test_nothing_is_counted_after_uninstalling_but_the_connection_works(record, connect):
    before = psycopg2.connect.__wrapped__
    with record() as seen:
        connection = connect()
        cursor = connection.cursor()
        collector.uninstall("psycopg2")
        noted = unattributed.count
        try:
            assert psycopg2.connect is before
            cursor.execute("SELECT 1")
            with connection, connection.cursor() as late:
                late.execute("SELECT 1")
                assert late.fetchall() == [(1,)]
        finally:
            collector.install("psycopg2")
    assert seen.queries == []
    assert unattributed.count == noted


def test_what_looks_at_the_types_is_content(record, connect):
    with record() as seen:
        connection = connect()
        cursor = connection.cursor()
        assert isinstance(connection, extensions.connection)
        assert isinstance(cursor, extensions.cursor)
        assert type(connection).__name__ == "connection"
        assert type(cursor).__name__ == "cursor"
        extensions.register_type(extensions.UNICODE, connection)
        extensions.register_type(extensions.UNICODEARRAY, cursor)
        extras.register_uuid(conn_or_curs=connection)
        extras.register_default_jsonb(connection)
        assert extensions.quote_ident("a b", connection) == '"a b"'
        cursor.execute("SELECT %s::jsonb", (extras.Json({"a": 1}),))
        assert cursor.fetchone() == ({"a": 1},)
        assert cursor.mogrify("SELECT %s", (1,)) == b"SELECT 1"
    assert len(seen.queries) == 1


# ------------------------------------------------------------------------- each kind of cursor, each way of asking


class Cells:
    """Each is one, beside what is to be seen of it."""

    @staticmethod
    def one(connection):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 UNION SELECT 2")
            assert len(cursor.fetchall()) == 2

    @staticmethod
    def parameters(connection):
        with connection.cursor() as cursor:
            cursor.execute(NUMBERS, (7,))

    @staticmethod
    def as_bytes(connection):
        with connection.cursor() as cursor:
            cursor.execute(b"SELECT 'x'")

    @staticmethod
    def composed(connection):
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("SELECT {}, 5").format(sql.Literal("x")))

    @staticmethod
    def several(connection):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1; SELECT 2 UNION SELECT 3")

    @staticmethod
    def many(connection):
        with connection.cursor() as cursor:
            cursor.executemany(INSERT, [(1, "a"), (2, "b"), (3, "c")])

    @staticmethod
    def many_generated(connection):
        with connection.cursor() as cursor:
            cursor.executemany(INSERT, ((number, "x") for number in range(4)))

    @staticmethod
    def many_nothing(connection):
        with connection.cursor() as cursor:
            cursor.executemany(INSERT, [])

    @staticmethod
    def many_failed(connection):
        with connection.cursor() as cursor, pytest.raises(psycopg2.errors.UniqueViolation):
            cursor.executemany(INSERT, [(1, "a"), (1, "b"), (3, "c")])

    @staticmethod
    def many_unfit(connection):
        with connection.cursor() as cursor, pytest.raises(psycopg2.ProgrammingError):
            cursor.executemany(INSERT, [(1, "a"), (2, object()), (3, "c")])

    @staticmethod
    def failed(connection):
        with connection.cursor() as cursor, pytest.raises(psycopg2.errors.UndefinedTable):
            cursor.execute("SELECT 1 FROM missing_table WHERE id = %s", (1,))

    @staticmethod
    def procedure(connection):
        with connection.cursor() as cursor:
            cursor.callproc("abs", (-4,))  # execute
            assert cursor.fetchall() == [(4,)]

    @staticmethod
    def values(connection):
        with connection.cursor() as cursor:
            extras.execute_values(cursor, "INSERT INTO items VALUES %s", [(n, "x") for n in range(250)])

    @staticmethod
    def batch(connection):
        with connection.cursor() as cursor:
            extras.execute_batch(cursor, INSERT, [(number, "x") for number in range(150)])

    @staticmethod
    def copied_in(connection):
        with connection.cursor() as cursor:
            cursor.copy_expert("COPY items FROM STDIN", io.StringIO("1\ta\n2\tb\n"))
            cursor.copy_from(io.StringIO("3\ta\n"), "items")

    @staticmethod
    def copied_out(connection):
        with connection.cursor() as cursor:
            cursor.copy_expert("COPY (SELECT generate_series(1, 4)) TO STDOUT", io.StringIO())
            cursor.copy_to(io.StringIO(), "items")

    @staticmethod
    def copied_failed(connection):
        with connection.cursor() as cursor, pytest.raises(psycopg2.errors.InvalidTextRepresentation):
            cursor.copy_from(io.StringIO("no number\ta\n"), "items")

    @staticmethod
    def server_side(connection):
        with connection, connection.cursor("c") as cursor:
            cursor.execute(NUMBERS, (250,))
            assert cursor.fetchone()[0] == 1
            assert len(cursor.fetchmany(9)) == 9
            cursor.scroll(40)
            assert len(cursor.fetchall()) == 200

    @staticmethod
    def server_side_held(connection):
        with connection.cursor("c", withhold=True) as cursor:
            cursor.execute(NUMBERS, (5,))
            connection.commit()
            assert len(cursor.fetchall()) == 5

    @staticmethod
    def server_side_over(connection):
        cursor = connection.cursor(name="c")
        cursor.execute(NUMBERS, (5,))
        connection.rollback()
        with pytest.raises(psycopg2.ProgrammingError):
            cursor.close()

    @staticmethod
    def server_side_failed_late(connection):
        with pytest.raises(psycopg2.errors.DivisionByZero), connection, connection.cursor("c") as cursor:
            cursor.execute("SELECT 1 / (n - 5) FROM generate_series(1, 9) AS numbers(n)")
            cursor.fetchall()


MISSING = "UndefinedTable 42P01"

#: Of each query in a cell: rows, many, wire and error.
CELLS = {
    "one": [(2, None, 1, None)],
    "parameters": [(7, None, 1, None)],
    "as_bytes": [(1, None, 1, None)],
    "composed": [(1, None, 1, None)],
    "several": [(2, None, 1, None)],
    "many": [(3, 3, 3, None)],
    "many_generated": [(4, 4, 4, None)],
    "many_nothing": [],
    "many_failed": [(None, 2, 2, "UniqueViolation 23505")],
    "many_unfit": [(None, 2, 1, "ProgrammingError")],
    "failed": [(None, None, 1, MISSING)],
    "procedure": [(1, None, 1, None)],
    "values": [(100, None, 1, None), (100, None, 1, None), (50, None, 1, None)],
    "batch": [(1, None, 1, None), (1, None, 1, None)],
    "copied_in": [(2, None, 1, None), (1, None, 1, None)],
    "copied_out": [(4, None, 1, None), (0, None, 1, None)],
    "copied_failed": [(None, None, 1, "InvalidTextRepresentation 22P02")],
    "server_side": [(210, None, 6, None)],
    "server_side_held": [(5, None, 3, None)],
    "server_side_over": [(None, None, 1, None)],
    "server_side_failed_late": [(None, None, 2, "DivisionByZero 22012")],
}
NAMED = {cell for cell in CELLS if cell.startswith("server_side")}
FETCHED = NAMED - {"server_side_over", "server_side_failed_late"}
FACTORIES = [None, extras.DictConnection, extras.RealDictConnection, extras.NamedTupleConnection]


@pytest.mark.parametrize("cell", CELLS)
def test_each_statement_is_one_query_and_its_wire_is_what_the_server_logged(record, connect, sent, postgresql, cell):
    connection = connect(autocommit=cell not in NAMED)
    with record() as seen:
        getattr(Cells, cell)(connection)
    assert facts(seen) == CELLS[cell]
    assert total_wire(seen) == len(sent(connection))
    assert {query.db for query in seen.queries} <= {postgresql.db}
    assert {query.system for query in seen.queries} <= {"postgresql"}
    lines = [line_of(query, __file__) for query in seen.queries]
    assert all(function.endswith(f".{cell}") for _, function in lines)
    assert all("execute" in line or "copy" in line for line, _ in lines)
    assert any(query.fetch_ms is not None for query in seen.queries) == (cell in FETCHED)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("cell", ["many", "failed", "procedure", "server_side"])
def test_a_caller_s_own_connections_and_cursors_still_win_and_are_seen(record, connect, sent, factory, cell):
    connection = connect(connection_factory=factory, autocommit=cell not in NAMED)
    with record() as seen:
        if cell == "procedure":
            connection.cursor().callproc("abs", (-4,))
        elif cell == "server_side":
            with connection.cursor("c") as cursor:
                cursor.execute(NUMBERS, (5,))
                assert len(cursor.fetchall()) == 5
        else:
            getattr(Cells, cell)(connection)
    assert isinstance(connection, factory or extensions.connection)
    assert len(seen.queries) == 1
    assert total_wire(seen) == len(sent(connection))


@pytest.mark.parametrize("cursor", [extras.DictCursor, extras.RealDictCursor, extras.NamedTupleCursor])
def test_each_way_of_choosing_a_cursor_s_class_is_seen(record, connect, cursor):
    with record() as seen:
        for made in (
            connect(cursor_factory=cursor).cursor(),
            connect().cursor(cursor_factory=cursor),
            connect().cursor(None, cursor),
        ):
            assert isinstance(made, cursor)
            made.execute("SELECT 1 AS a")
            row = made.fetchone()
            assert (row.a if cursor is extras.NamedTupleCursor else row["a"]) == 1
    assert len(seen.queries) == 3


def test_equal_parameters_have_equal_tokens_and_others_not(record, connect):
    with record() as seen, connect(autocommit=False) as connection:
        for name in (None, "c"):
            for number in (1, 2, 1):
                with connection.cursor(name) as cursor:
                    cursor.execute(NUMBERS, (number,))
        connection.cursor().executemany(INSERT, [(1, "a")])
    tokens = [query.params_hash for query in seen.queries]
    assert tokens[0] == tokens[2] != tokens[1]
    assert tokens[3] == tokens[5] != tokens[4]
    assert tokens[6] is None


def test_rows_of_a_named_cursor_read_one_by_one_cost_nothing_and_stay_unknown(record, connect):
    with record() as seen, connect(autocommit=False) as connection, connection.cursor("c") as cursor:
        cursor.execute(NUMBERS, (5,))
        assert len(list(cursor)) == 5
    assert (seen.queries[0].rows, seen.queries[0].fetch_ms) == (None, None)


# --------------------------------------------------------------------------------------------------- transactions


def test_the_first_statement_begins_one_that_commit_rollback_with_or_close_end(record, connect):
    connection = connect(autocommit=False)
    with record() as seen, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.execute("SELECT 2")
        connection.commit()
        cursor.execute("SELECT 3")
        connection.rollback()
        connection.rollback()
        with connection:
            cursor.execute("SELECT 4")
        with pytest.raises(ZeroDivisionError), connection:
            cursor.execute("SELECT 5")
            raise ZeroDivisionError
        cursor.execute("SELECT 6")
        connection.close()
        connection.close()
    assert outcomes(seen) == ["commit", "rollback", "commit", "rollback", "rollback"]
    assert [query.transaction for query in seen.queries] == [0, 0, 1, 2, 3, 4]
    for transaction in seen.transactions:
        assert 0 < transaction.busy_ms <= transaction.duration_ms + 0.01


def test_autocommit_makes_no_transactions(record, connect):
    with record() as seen:
        connect().cursor().execute("SELECT 1")
    assert seen.transactions == []


def test_a_failed_statement_leaves_its_transaction_open_but_a_lost_connection_does_not(record, connect):
    connection, other = connect(autocommit=False), connect()
    with record() as seen, connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.UndefinedTable):
            cursor.execute("SELECT 1 FROM missing_table")
        connection.rollback()
        cursor.execute("SELECT 1")
        other.cursor().execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 2")
    assert outcomes(seen) == ["rollback", "rollback"]
    assert [query.transaction for query in seen.queries] == [0, 1, None, 1]
    assert seen.queries[-1].wire == 1


def test_a_reset_rolls_back(record, connect):
    connection = connect(autocommit=False)
    with record() as seen:
        connection.cursor().execute("SELECT 1")
        connection.reset()
    assert outcomes(seen) == ["rollback"]


def test_two_phase_commit_ends_the_transaction(record, connect):
    connection = connect(autocommit=False)
    with record() as seen:
        connection.tpc_begin(connection.xid(1, "a", "b"))
        connection.cursor().execute("SELECT 1")
        connection.tpc_rollback()
    assert outcomes(seen) == ["rollback"]


# ---------------------------------------------------------------------------------------- who asked, and for whom


def test_a_connection_opened_before_is_not_seen_and_that_is_told(postgresql, caplog, request):
    opened = psycopg2.connect(postgresql.url)
    record = request.getfixturevalue("record")
    assert re.search(r"psycopg2: \d+ connections were opened before", caplog.text)
    with record() as seen:
        opened.cursor().execute("SELECT 1")
    opened.close()
    assert seen.queries == []


def test_the_password_is_nowhere(record, connect, postgresql):
    with record(capture_sql=1000) as seen:
        connect().cursor().execute("SELECT 1")
    assert seen.queries[0].db == postgresql.db
    assert postgresql.password not in str(seen.queries)


def test_connections_of_its_own_pool_are_seen(record, postgresql):
    with record() as seen:
        connections = pool.ThreadedConnectionPool(1, 2, postgresql.url)
        connection = connections.getconn()
        connection.cursor().execute("SELECT 1")
        connections.putconn(connection)
        connections.closeall()
    assert len(seen.queries) == 1
    assert outcomes(seen) == ["rollback"]


def test_threads_do_not_cross(record, connect):
    connections, counts = [connect() for _ in range(8)], {}

    def work(number):
        with record() as seen:
            for _ in range(number):
                connections[number].cursor().execute("SELECT %s", (number,))
        counts[number] = len(seen.queries)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {number: number for number in range(8)}
