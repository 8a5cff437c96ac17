"""Every statement psycopg 3 sends, by threads and by asyncio, against a real server and its log."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import suppress
from time import perf_counter_ns

import psycopg
import psycopg_pool
import pytest
from psycopg import sql
from seen_by import facts, line_of, outcomes, spin, total_wire

from perf_middleware import collector
from perf_middleware.collector.context import unattributed
from perf_middleware.collector.drivers import psycopg as driver

TABLE = "CREATE TEMP TABLE items (id int PRIMARY KEY, v text)"
NUMBERS = "SELECT n FROM generate_series(1, %s) AS numbers(n)"
INSERT = "INSERT INTO items VALUES (%s, %s)"
FAILING = ("SELECT 1", "SELECT 1 FROM missing_table", "SELECT 2")


@pytest.fixture
def hooked():
    collector.install("psycopg", "psycopg_pool")
    yield
    collector.uninstall("psycopg", "psycopg_pool")


@pytest.fixture
def connect(postgresql):
    """Open connections to the private server; all are closed at the end."""
    opened = []

    def connecting(kind=psycopg.Connection, *, table=True, **options):
        connection = kind.connect(postgresql.url, autocommit=True, **options)
        opened.append(connection)
        if table:
            connection.execute(TABLE)
        return connection

    yield connecting
    for connection in opened:
        connection.close()


# ------------------------------------------------------------------------------------------- what must not happen


def test_what_steers_is_no_query(record, connect, postgresql):
    connection = connect(table=False)
    connection.autocommit = False
    with record() as seen:
        with connection.transaction(), connection.transaction():
            pass
        connection.execute("SET search_path TO public")
        connection.commit()
        connection.rollback()
    assert seen.queries == []
    assert postgresql.sent(connection.info.backend_pid) == []


def test_nothing_is_noted_without_a_profile_and_each_statement_is_unattributed_once(hooked, connect):
    connection = connect()
    before = unattributed.count
    connection.execute("SELECT 1")
    connection.cursor().executemany(INSERT, [(1, "a"), (2, "b")])
    with connection.transaction(), connection.cursor("c") as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()
    list(connection.cursor().stream("SELECT 1"))
    with connection.cursor().copy("COPY items TO STDOUT") as copy:
        list(copy)
    with connection.pipeline():
        connection.execute("SELECT 1")
    assert unattributed.count - before == 6


def test_what_goes_on_after_its_profile_is_nobody_s(record, connect):
    connection = connect()
    with connection.transaction(), connection.cursor("c") as cursor:
        with record() as seen:
            cursor.execute(NUMBERS, (3,))
        assert len(cursor.fetchall()) == 3
    assert facts(seen) == [(None, None, 1, None)]


def test_the_application_s_errors_are_its_own_and_no_value_is_in_the_record(record, connect):
    connection = connect()
    stopped = KeyError("secret")

    def failing():
        yield (1, "a")
        raise stopped

    with record() as seen:
        with pytest.raises(KeyError) as raised:
            connection.cursor().executemany(INSERT, failing())
        assert raised.value is stopped
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            connection.execute("SELECT 'secret'::int")
        with pytest.raises(KeyError), connection.cursor().copy("COPY items FROM STDIN") as copy:
            copy.write("1\tsecret\n")
            raise stopped
    assert [query.error for query in seen.queries] == ["KeyError", "InvalidTextRepresentation 22P02", "KeyError"]
    assert "secret" not in str(seen.queries)


def test_a_wrong_call_fails_as_it_does_without_us_and_sends_nothing(record, connect, postgresql):
    connection, closed = connect(table=False), connect(table=False)
    used = connection.cursor()
    used.close()
    late = closed.cursor()
    closed.close()
    wrong = [
        lambda: connection.execute("SELECT %s", ()),
        lambda: connection.execute("SELECT %s", (object(),)),
        lambda: used.execute("SELECT 1"),
        lambda: late.execute("SELECT 1"),
        lambda: connection.execute(5),
        lambda: connection.cursor().executemany("SELECT %s", 5),
        lambda: list(connection.cursor().stream("SELECT %s", ())),
        lambda: connection.cursor().copy("COPY items FROM STDIN WHERE %s", (object(),)).__enter__(),
    ]

    def mistakes():
        for call in wrong:
            with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is what is compared
                call()
            yield type(raised.value), str(raised.value).partition(" at 0x")[0]

    with record() as seen:
        hooked = list(mistakes())
    collector.uninstall("psycopg")
    bare = list(mistakes())
    collector.install("psycopg")
    assert hooked == bare
    assert total_wire(seen) == len(postgresql.sent(connection.info.backend_pid)) == 0
    assert len(seen.queries) == len(wrong)
    assert all(query.error for query in seen.queries)


def test_uninstalling_gives_back_every_attribute(postgresql):
    before = {
        (owner, name): value
        for owner in (*psycopg.AsyncServerCursor.__mro__, *psycopg.ServerCursor.__mro__, psycopg.AsyncConnection)
        for name, value in vars(owner).items()
    }
    collector.install("psycopg")
    assert inspect.iscoroutinefunction(psycopg.AsyncCursor.executemany)
    assert inspect.iscoroutinefunction(psycopg.AsyncConnection.close)
    assert any(vars(owner)[name] is not value for (owner, name), value in before.items())
    collector.uninstall("psycopg")
    assert all(vars(owner)[name] is value for (owner, name), value in before.items())


# ------------------------------------------------------------------------- each kind of cursor, each way of asking


class Sync:
    """What a thread asks; each is one cell, beside what is to be seen of it."""

    connection = psycopg.Connection

    @staticmethod
    def one(connection):
        connection.execute("SELECT 1 UNION SELECT 2").fetchall()

    @staticmethod
    def parameters(connection):
        connection.cursor().execute(NUMBERS, (7,)).fetchall()

    @staticmethod
    def composed(connection):
        connection.execute(sql.SQL("SELECT {}, 5").format(sql.Literal("x")))

    @staticmethod
    def several(connection):
        connection.execute("SELECT 1; SELECT 2")

    @staticmethod
    def prepared(connection):
        for _ in range(3):
            connection.execute(NUMBERS, (2,), prepare=True)

    @staticmethod
    def many(connection):
        connection.cursor().executemany(INSERT, [(1, "a"), (2, "b"), (3, "c")])

    @staticmethod
    def many_returning(connection):
        sets = ((number, "x") for number in range(4))
        connection.cursor().executemany(INSERT + " RETURNING id", sets, returning=True)

    @staticmethod
    def many_nothing(connection):
        connection.cursor().executemany(INSERT, [])

    @staticmethod
    def many_failed(connection):
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.cursor().executemany(INSERT, [(1, "a"), (1, "b"), (3, "c")])

    @staticmethod
    def failed(connection):
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT 1 FROM missing_table WHERE id = %s", (1,))

    @staticmethod
    def server_side(connection):
        with connection.transaction(), connection.cursor("c") as cursor:
            cursor.execute(NUMBERS, (250,))
            assert cursor.fetchone() == (1,)
            assert len(cursor.fetchmany(9)) == 9
            cursor.scroll(40)
            assert len(cursor.fetchall()) == 200

    @staticmethod
    def server_side_iterated(connection):
        with connection.transaction(), connection.cursor("c") as cursor:
            cursor.execute(NUMBERS, (250,))
            assert len(list(cursor)) == 250

    @staticmethod
    def server_side_again(connection):
        with connection.transaction(), connection.cursor("c") as cursor:
            cursor.execute(NUMBERS, (5,))
            cursor.fetchall()
            cursor.execute(NUMBERS, (3,))
            cursor.fetchall()

    @staticmethod
    def server_side_failed_late(connection):
        with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
            cursor = connection.cursor("c")
            cursor.execute("SELECT 1 / (n - 5) FROM generate_series(1, 9) AS numbers(n)")
            try:
                cursor.fetchall()
            finally:
                cursor.close()

    @staticmethod
    def streamed(connection):
        assert len(list(connection.cursor().stream(NUMBERS, (5,)))) == 5

    @staticmethod
    def streamed_nothing(connection):
        assert list(connection.cursor().stream(NUMBERS, (0,))) == []

    @staticmethod
    def streamed_failed(connection):
        with pytest.raises(psycopg.errors.UndefinedTable):
            list(connection.cursor().stream("SELECT 1 FROM missing_table"))

    @staticmethod
    def copied_in(connection):
        with connection.cursor().copy("COPY items FROM STDIN") as copy:
            for number in range(6):
                copy.write_row((number, "x"))

    @staticmethod
    def copied_out(connection):
        with connection.cursor().copy("COPY (SELECT generate_series(1, 4)) TO STDOUT") as copy:
            assert len(list(copy)) == 4

    @staticmethod
    def copied_failed(connection):
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):  # noqa: SIM117
            with connection.cursor().copy("COPY items FROM STDIN") as copy:
                copy.write("no number\tx\n")

    @staticmethod
    def piped(connection):
        with connection.pipeline():
            first = connection.execute(NUMBERS, (3,))
            connection.execute(INSERT, (1, "a"))
            assert len(first.fetchall()) == 3
            connection.cursor().executemany(INSERT, [(2, "b"), (3, "c")])

    @staticmethod
    def piped_failed(connection):
        with connection.pipeline() as pipeline:
            for text in FAILING:
                with suppress(psycopg.Error):  # each may meet the error: the server tells it at once
                    connection.execute(text)
            with suppress(psycopg.Error):
                pipeline.sync()


class Async:
    """What a task asks: the same."""

    connection = psycopg.AsyncConnection

    @staticmethod
    async def one(connection):
        await (await connection.execute("SELECT 1 UNION SELECT 2")).fetchall()

    @staticmethod
    async def parameters(connection):
        await (await connection.cursor().execute(NUMBERS, (7,))).fetchall()

    @staticmethod
    async def composed(connection):
        await connection.execute(sql.SQL("SELECT {}, 5").format(sql.Literal("x")))

    @staticmethod
    async def several(connection):
        await connection.execute("SELECT 1; SELECT 2")

    @staticmethod
    async def prepared(connection):
        for _ in range(3):
            await connection.execute(NUMBERS, (2,), prepare=True)

    @staticmethod
    async def many(connection):
        await connection.cursor().executemany(INSERT, [(1, "a"), (2, "b"), (3, "c")])

    @staticmethod
    async def many_returning(connection):
        sets = ((number, "x") for number in range(4))
        await connection.cursor().executemany(INSERT + " RETURNING id", sets, returning=True)

    @staticmethod
    async def many_nothing(connection):
        await connection.cursor().executemany(INSERT, [])

    @staticmethod
    async def many_failed(connection):
        with pytest.raises(psycopg.errors.UniqueViolation):
            await connection.cursor().executemany(INSERT, [(1, "a"), (1, "b"), (3, "c")])

    @staticmethod
    async def failed(connection):
        with pytest.raises(psycopg.errors.UndefinedTable):
            await connection.execute("SELECT 1 FROM missing_table WHERE id = %s", (1,))

    @staticmethod
    async def server_side(connection):
        async with connection.transaction(), connection.cursor("c") as cursor:
            await cursor.execute(NUMBERS, (250,))
            assert await cursor.fetchone() == (1,)
            assert len(await cursor.fetchmany(9)) == 9
            await cursor.scroll(40)
            assert len(await cursor.fetchall()) == 200

    @staticmethod
    async def server_side_iterated(connection):
        async with connection.transaction(), connection.cursor("c") as cursor:
            await cursor.execute(NUMBERS, (250,))
            assert len([row async for row in cursor]) == 250

    @staticmethod
    async def server_side_again(connection):
        async with connection.transaction(), connection.cursor("c") as cursor:
            await cursor.execute(NUMBERS, (5,))
            await cursor.fetchall()
            await cursor.execute(NUMBERS, (3,))
            await cursor.fetchall()

    @staticmethod
    async def server_side_failed_late(connection):
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with connection.transaction():
                cursor = connection.cursor("c")
                await cursor.execute("SELECT 1 / (n - 5) FROM generate_series(1, 9) AS numbers(n)")
                try:
                    await cursor.fetchall()
                finally:
                    await cursor.close()

    @staticmethod
    async def streamed(connection):
        assert len([row async for row in connection.cursor().stream(NUMBERS, (5,))]) == 5

    @staticmethod
    async def streamed_nothing(connection):
        assert [row async for row in connection.cursor().stream(NUMBERS, (0,))] == []

    @staticmethod
    async def streamed_failed(connection):
        with pytest.raises(psycopg.errors.UndefinedTable):
            [row async for row in connection.cursor().stream("SELECT 1 FROM missing_table")]

    @staticmethod
    async def copied_in(connection):
        async with connection.cursor().copy("COPY items FROM STDIN") as copy:
            for number in range(6):
                await copy.write_row((number, "x"))

    @staticmethod
    async def copied_out(connection):
        async with connection.cursor().copy("COPY (SELECT generate_series(1, 4)) TO STDOUT") as copy:
            assert len([row async for row in copy]) == 4

    @staticmethod
    async def copied_failed(connection):
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            async with connection.cursor().copy("COPY items FROM STDIN") as copy:
                await copy.write("no number\tx\n")

    @staticmethod
    async def piped(connection):
        async with connection.pipeline():
            first = await connection.execute(NUMBERS, (3,))
            await connection.execute(INSERT, (1, "a"))
            assert len(await first.fetchall()) == 3
            await connection.cursor().executemany(INSERT, [(2, "b"), (3, "c")])

    @staticmethod
    async def piped_failed(connection):
        async with connection.pipeline() as pipeline:
            for text in FAILING:
                with suppress(psycopg.Error):
                    await connection.execute(text)
            with suppress(psycopg.Error):
                await pipeline.sync()


MISSING, TWICE = "UndefinedTable 42P01", "UniqueViolation 23505"

#: Of each query in a cell: rows, many, wire and error.
CELLS = {
    "one": [(2, None, 1, None)],
    "parameters": [(7, None, 1, None)],
    "composed": [(1, None, 1, None)],
    "several": [(1, None, 1, None)],
    "prepared": [(2, None, 1, None)] * 3,
    "many": [(3, 3, 3, None)],
    "many_returning": [(4, 4, 4, None)],
    "many_nothing": [],
    "many_failed": [(None, 3, 2, TWICE)],
    "failed": [(None, None, 1, MISSING)],
    "server_side": [(210, None, 6, None)],
    "server_side_iterated": [(250, None, 5, None)],
    "server_side_again": [(5, None, 3, None), (3, None, 3, None)],
    "server_side_failed_late": [(None, None, 2, "DivisionByZero 22012")],
    "streamed": [(None, None, 1, None)],
    "streamed_nothing": [(0, None, 1, None)],
    "streamed_failed": [(None, None, 1, MISSING)],
    "copied_in": [(6, None, 1, None)],
    "copied_out": [(4, None, 1, None)],
    "copied_failed": [(None, None, 1, "InvalidTextRepresentation 22P02")],
    "piped": [(3, None, 1, None), (1, None, 1, None), (2, 2, 2, None)],
    "piped_failed": [(1, None, 1, None), (None, None, 1, MISSING), (None, None, 0, "PipelineAborted")],
}
FETCHED = {"server_side", "server_side_iterated", "server_side_again", "copied_in", "piped"}


def ask(kind, cell, url, record, **options):
    """Run a cell on a connection of its own; gives what was seen and the process that served it."""

    def sync():
        with psycopg.Connection.connect(url, autocommit=True, **options) as connection:
            connection.execute(TABLE)
            with record() as seen:
                getattr(Sync, cell)(connection)
            return seen, connection.info.backend_pid

    async def awaited():
        async with await psycopg.AsyncConnection.connect(url, autocommit=True, **options) as connection:
            await connection.execute(TABLE)
            with record() as seen:
                await getattr(Async, cell)(connection)
            return seen, connection.info.backend_pid

    return sync() if kind is Sync else asyncio.run(awaited())


@pytest.mark.parametrize("kind", [Sync, Async])
@pytest.mark.parametrize("cell", CELLS)
def test_each_statement_is_one_query_and_its_wire_is_what_the_server_logged(record, postgresql, kind, cell):
    seen, pid = ask(kind, cell, postgresql.url, record)
    sent = postgresql.sent(pid)
    assert sent[0] == TABLE
    assert facts(seen) == CELLS[cell]
    assert total_wire(seen) == len(sent) - 1
    assert {query.db for query in seen.queries} <= {postgresql.db}
    assert {query.system for query in seen.queries} <= {"postgresql"}
    lines = [line_of(query, __file__) for query in seen.queries]
    assert all(function.endswith(f".{cell}") for _, function in lines)
    assert all(
        "execute" in line or "stream" in line or "copy" in line
        for line, _ in [line_of(query, __file__) for query in seen.queries]
    )
    if cell != "piped_failed":  # whether results are waited for depends on when the error comes
        assert any(query.fetch_ms is not None for query in seen.queries) == (cell in FETCHED)
    assert not any(query.blocking for query in seen.queries)
    assert len(driver._extras) == 0


@pytest.mark.parametrize("cursor", [psycopg.ClientCursor, psycopg.RawCursor])
def test_cursors_of_other_kinds_are_seen_too(record, connect, postgresql, cursor):
    connection = connect(cursor_factory=cursor)
    before = len(postgresql.sent(connection.info.backend_pid))
    with record() as seen:
        connection.execute(NUMBERS.replace("%s", "$1") if cursor is psycopg.RawCursor else NUMBERS, (3,))
        connection.cursor().executemany("SELECT 1", [(), ()])
    assert facts(seen) == [(3, None, 1, None), (seen.queries[1].rows, 2, 2, None)]
    assert total_wire(seen) == len(postgresql.sent(connection.info.backend_pid)) - before


def test_a_subclass_s_own_execute_is_one_query(record, connect):
    class Mine(psycopg.Cursor):
        def execute(self, query, *args, **options):
            return super().execute(query, *args, **options)

    with record() as seen:
        connect(cursor_factory=Mine).execute("SELECT 1")
    assert len(seen.queries) == 2  # the table, too


def test_equal_parameters_have_equal_tokens_and_others_not(record, connect):
    connection = connect()
    with record() as seen:
        for number in (1, 2, 1):
            connection.execute(NUMBERS, (number,))
        connection.execute("SELECT 1")
        connection.cursor().executemany(INSERT, [(1, "a")])
    first, second, third, plain, many = [query.params_hash for query in seen.queries]
    assert first == third != second
    assert plain is not None
    assert many is None


# --------------------------------------------------------------------------------------------------- transactions


def test_the_first_statement_begins_one_that_commit_rollback_or_close_end(record, connect):
    connection = connect()
    connection.autocommit = False
    with record() as seen:
        connection.execute("SELECT 1")
        connection.execute("SELECT 2")
        connection.commit()
        connection.execute("SELECT 3")
        connection.rollback()
        connection.rollback()
        connection.execute("SELECT 4")
        connection.close()
    assert outcomes(seen) == ["commit", "rollback", "rollback"]
    assert [query.transaction for query in seen.queries] == [0, 0, 1, 2]
    for transaction in seen.transactions:
        assert 0 < transaction.busy_ms <= transaction.duration_ms + 0.01


def test_a_transaction_block_with_a_savepoint_is_one_transaction(record, postgresql):
    async def blocks():
        async with await psycopg.AsyncConnection.connect(postgresql.url, autocommit=True) as connection:
            with record() as seen:
                async with connection.transaction():
                    await connection.execute("SELECT 1")
                    async with connection.transaction(force_rollback=True):
                        await connection.execute("SELECT 2")
                    await connection.execute("SELECT 3")
                with pytest.raises(ZeroDivisionError):
                    async with connection.transaction():
                        raise ZeroDivisionError
                await connection.execute("SELECT 4")
            return seen

    seen = asyncio.run(blocks())
    assert outcomes(seen) == ["commit", "rollback"]
    assert [query.transaction for query in seen.queries] == [0, 0, 0, None]


def test_a_failed_statement_leaves_its_transaction_open_but_a_lost_connection_does_not(record, connect):
    connection, other = connect(), connect(table=False)
    with record() as seen:
        with pytest.raises(psycopg.errors.UndefinedTable), connection.transaction():
            connection.execute("SELECT 1 FROM missing_table")
        connection.autocommit = False
        connection.execute("SELECT 1")
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 2")
    assert outcomes(seen) == ["rollback", "rollback"]
    assert [query.transaction for query in seen.queries] == [0, 1, None, 1]
    assert seen.queries[-1].wire == 1


def test_in_a_pipeline_a_transaction_is_one_and_the_next_begins_another(record, connect):
    connection = connect()
    with record() as seen, connection.pipeline():
        with connection.transaction():
            connection.execute("SELECT 1")
        connection.execute("SELECT 2")
        with connection.transaction():
            connection.execute("SELECT 3")
    assert outcomes(seen) == ["commit", "commit"]
    assert [query.transaction for query in seen.queries] == [0, None, 1]


def test_two_phase_commit_ends_the_transaction(record, connect):
    connection = connect()
    connection.autocommit = False
    with record() as seen:
        connection.tpc_begin("secret")
        connection.execute("SELECT 1")
        connection.tpc_rollback()
    assert outcomes(seen) == ["rollback"]


def test_rows_that_still_come_begin_no_transaction_and_are_in_the_one_that_is_open(record, connect):
    connection = connect()

    def ask():
        list(connection.cursor().stream("SELECT id FROM items"))
        with connection.cursor().copy("COPY items TO STDOUT") as copy:
            list(copy)
        with connection.pipeline():
            connection.execute("SELECT id FROM items")

    with record() as seen:
        ask()
        with connection.transaction():
            ask()
    assert outcomes(seen) == ["commit"]
    assert [query.transaction for query in seen.queries] == [None] * 3 + [0] * 3


def test_the_time_a_transaction_takes_to_begin_is_not_its_first_query_s(record, connect):
    connection = connect()
    connection.autocommit = False
    with record() as seen:
        connection.execute("SELECT 1")
    assert seen.transactions[0].start_ms < seen.queries[0].start_ms


# ---------------------------------------------------------------------------------------- who asked, and for how long


def test_a_connection_opened_before_the_hooks_is_seen(connect, request):
    connection = connect()
    record = request.getfixturevalue("record")
    with record() as seen:
        connection.execute("SELECT 1")
    assert len(seen.queries) == 1


def test_the_password_is_nowhere(record, connect, postgresql):
    with record(capture_sql=1000) as seen:
        connect()
    assert seen.queries[0].db == postgresql.db
    assert postgresql.password not in str(seen.queries)


def test_a_statement_on_the_loop_s_thread_blocks_it_unless_it_is_awaited(record, postgresql):
    async def both():
        with psycopg.connect(postgresql.url) as connection:
            async with await psycopg.AsyncConnection.connect(postgresql.url) as awaited:
                with record() as seen:
                    seen.capture.on_loop(threading.get_ident())
                    connection.execute("SELECT 1")
                    await awaited.execute("SELECT 2")
                return seen

    assert [query.blocking for query in asyncio.run(both()).queries] == [True, False]


def test_200_tasks_do_not_cross(record, postgresql):
    async def task(pool, number):
        with record() as seen:
            async with pool.connection() as connection:
                for step in range(number % 5):
                    await connection.execute("SELECT %s, %s", (number, step))
        return len(seen.queries)

    async def all_tasks():
        async with psycopg_pool.AsyncConnectionPool(postgresql.url, min_size=8, max_size=8, open=False) as pool:
            return await asyncio.gather(*(task(pool, number) for number in range(200)))

    assert asyncio.run(all_tasks()) == [number % 5 for number in range(200)]


def test_threads_that_share_a_connection_do_not_cross(record, connect):
    connection, counts = connect(), {}

    def work(number):
        with record() as seen:
            for _ in range(number):
                connection.execute("SELECT %s", (number,))
                connection.cursor().execute("SELECT %s", (-number,))
        counts[number] = len(seen.queries)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {number: 2 * number for number in range(1, 9)}


# ------------------------------------------------------------------------------------------------------------- the pool


def test_waiting_for_a_connection_is_the_next_query_s_wait(record, postgresql):
    def give_back():
        while not pool.get_stats().get("requests_waiting"):
            pass
        waiting_ns.append(perf_counter_ns())
        spin()
        waiting_ns.append(perf_counter_ns())
        pool.putconn(taken)

    waiting_ns = []
    with psycopg_pool.ConnectionPool(postgresql.url, min_size=1, max_size=1) as pool:
        taken = pool.getconn()
        thread = threading.Thread(target=give_back)
        thread.start()
        with record() as seen, pool.connection() as connection:
            connection.execute("SELECT 1")
            connection.execute("SELECT 2")
        thread.join()
    first, second = seen.queries
    assert waiting_ns[1] - waiting_ns[0] <= seen.capture.waited_ns
    assert 0 < first.wait_ms <= seen.capture.waited_ns / 1e6 <= first.start_ms + 0.001
    assert second.wait_ms is None


def test_a_pool_s_tasks_wait_likewise(record, postgresql):
    async def give_back(pool, taken):
        while not pool.get_stats().get("requests_waiting"):  # noqa: ASYNC110 - the pool has no event for it
            await asyncio.sleep(0)
        start_ns = perf_counter_ns()
        spin()
        waited_ns = perf_counter_ns() - start_ns
        await pool.putconn(taken)
        return waited_ns

    async def asking():
        async with psycopg_pool.AsyncConnectionPool(postgresql.url, min_size=1, max_size=1, open=False) as pool:
            giving = asyncio.create_task(give_back(pool, await pool.getconn()))
            with record() as seen:
                async with pool.connection() as connection:
                    await connection.execute("SELECT 1")
            return seen, await giving

    seen, waited_ns = asyncio.run(asking())
    assert waited_ns <= seen.capture.waited_ns
    assert seen.queries[0].wait_ms >= waited_ns // 1000 / 1000


def test_opening_a_connection_is_no_wait(record, postgresql, monkeypatch):
    def slow(*args, **options):
        start_ns = perf_counter_ns()
        spin()
        connection = connect(*args, **options)
        opening_ns.append(perf_counter_ns() - start_ns)
        return connection

    connect, opening_ns = psycopg.Connection.connect, []
    with psycopg_pool.NullConnectionPool(postgresql.url, max_size=1) as pool:
        pool.wait()
        monkeypatch.setattr(psycopg.Connection, "connect", slow)
        with record() as seen:
            start_ns = perf_counter_ns()
            taken = pool.getconn()
            took_ns = perf_counter_ns() - start_ns
        pool.putconn(taken)
    assert seen.capture.waited_ns <= took_ns - opening_ns[0]


def test_a_pool_that_gives_up_is_a_wait_and_its_error_the_application_s(record, postgresql):
    with psycopg_pool.ConnectionPool(postgresql.url, min_size=1, max_size=1) as pool:
        taken = pool.getconn()
        with record() as seen, pytest.raises(psycopg_pool.PoolTimeout):
            pool.getconn(timeout=0.01)
        pool.putconn(taken)
    assert seen.queries == []
    assert seen.capture.waited_ns > 0


def test_a_hook_that_another_tool_covers_is_silent_once_uninstalled(record, connect):
    connection = connect()
    owner = driver._definer(psycopg.Cursor, "_execute_gen")
    ours = vars(owner)["_execute_gen"]
    owner._execute_gen = lambda *args, **options: ours(*args, **options)  # noqa: PLW0108 - it is another's
    try:
        collector.uninstall("psycopg")
        before = unattributed.count
        with record() as seen:
            connection.execute("SELECT 1")
        connection.execute("SELECT 1")
        assert (seen.queries, unattributed.count) == ([], before)
    finally:
        owner._execute_gen = ours.__wrapped__
        collector.install("psycopg")
