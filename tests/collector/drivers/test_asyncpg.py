"""Every statement asyncpg sends, against a real server and its log."""

from __future__ import annotations

import asyncio
import inspect
import io
import threading
from contextlib import asynccontextmanager
from time import perf_counter_ns

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionProxy
from seen_by import facts, line_of, outcomes, spin, total_wire

from perf_middleware import collector
from perf_middleware.collector.context import unattributed
from perf_middleware.collector.drivers import asyncpg as driver

TABLE = "CREATE TEMP TABLE items (id int PRIMARY KEY, v text)"
NUMBERS = "SELECT n FROM generate_series(1, $1) AS numbers(n)"
INSERT = "INSERT INTO items VALUES ($1, $2)"
MISSING, TWICE = "UndefinedTableError 42P01", "UniqueViolationError 23505"


@pytest.fixture
def hooked():
    collector.install("asyncpg")
    yield
    collector.uninstall("asyncpg")


@pytest.fixture
def connect(postgresql):
    """`async with connect() as connection`, which has a table."""

    @asynccontextmanager
    async def connecting(**options):
        connection = await asyncpg.connect(postgresql.url, **options)
        await connection.execute(TABLE)
        try:
            yield connection
        finally:
            await connection.close()

    return connecting


@pytest.fixture
def sent(postgresql):
    """What the server was sent since the table was made."""

    def statements(connection):
        texts = postgresql.sent(connection.get_server_pid())
        return texts[texts.index(TABLE) + 1 :]

    return statements


# ------------------------------------------------------------------------------------------- what must not happen


def test_what_steers_is_no_query_and_neither_is_what_a_pool_sends_by_itself(record, postgresql):
    async def steering():
        async with asyncpg.create_pool(postgresql.url, min_size=1, max_size=1) as pool:
            with record() as seen:
                async with pool.acquire() as connection:
                    pid = connection.get_server_pid()
                    async with connection.transaction(), connection.transaction():
                        await connection.execute("SET LOCAL search_path TO public")
                    await connection.prepare("SELECT 1")
            return seen, pid

    seen, pid = asyncio.run(steering())
    assert seen.queries == []
    assert [text[:23] for text in postgresql.sent(pid)] == ["SELECT pg_advisory_unlo"]


def test_nothing_is_noted_without_a_profile_and_each_statement_is_unattributed_once(hooked, connect):
    async def unseen():
        async with connect() as connection:
            before = unattributed.count
            await connection.execute("SELECT 1")
            await connection.execute("SELECT $1::int", 1)
            await connection.fetchval("SELECT 1")
            await connection.executemany(INSERT, [(1, "a"), (2, "b")])
            await (await connection.prepare("SELECT 1")).fetch()
            await connection.copy_to_table("items", source=io.BytesIO(b"3\tx\n"))
            await connection.copy_records_to_table("items", records=[(4, "x")])
            return unattributed.count - before

    assert asyncio.run(unseen()) == 7


def test_what_goes_on_after_its_profile_is_nobody_s(record, connect):
    async def later():
        async with connect() as connection, connection.transaction():
            with record() as seen:
                cursor = await connection.cursor(NUMBERS, 3)
            assert len(await cursor.fetch(5)) == 3
            return seen

    assert facts(asyncio.run(later())) == [(None, None, 0, None)]


def test_the_application_s_errors_are_its_own_and_no_value_is_in_the_record(record, connect, sent):
    stopped = KeyError("secret")

    async def failing():
        yield b"1\tsecret\n"
        raise stopped

    async def errors():
        async with connect() as connection:
            with record() as seen:
                with pytest.raises(asyncpg.InvalidTextRepresentationError):
                    await connection.execute("SELECT 'secret'::int")
                with pytest.raises(KeyError) as raised:
                    await connection.copy_to_table("items", source=failing())
                assert raised.value is stopped
            await connection.execute("SET search_path TO public")  # when the server is done with it
            return seen, len(sent(connection))

    seen, logged = asyncio.run(errors())
    assert [query.error for query in seen.queries] == ["InvalidTextRepresentationError 22P02", "KeyError"]
    assert total_wire(seen) == logged
    assert "secret" not in str(seen.queries)


def test_a_wrong_call_fails_as_it_does_without_us_and_sends_nothing(record, connect, sent):
    async def mistakes():
        async with connect() as connection, connect() as closed:
            await closed.close()
            outcome = []
            for call in (
                lambda: connection.fetch("SELECT $1::int"),
                lambda: connection.fetch("SELECT $1::int", "x"),
                lambda: connection.fetch("SELECT $1::int", 1, 2),
                lambda: connection.fetch(5),
                lambda: closed.execute("SELECT 1"),
                lambda: closed.execute("SELECT $1::int", 1),
                lambda: closed.fetchval("SELECT 1"),
                lambda: connection.executemany(INSERT, [("x", "x")]),
                lambda: connection.copy_from_table("items", output=5),
                lambda: connection.fetch("SELECT 1", nothing=1),
                connection.fetch,
                lambda: connection.execute(5),
            ):
                try:
                    await call()
                except Exception as error:  # noqa: BLE001
                    outcome.append((type(error), str(error).partition("()")[-1]))
                else:
                    outcome.append(None)
            assert sent(connection) == []
            return outcome

    with record() as seen:
        hooked = asyncio.run(mistakes())
    collector.uninstall("asyncpg")
    bare = asyncio.run(mistakes())
    collector.install("asyncpg")
    assert [kind for kind, _ in hooked] == [kind for kind, _ in bare]
    made = [query for query in seen.queries if not query.fingerprint.startswith("CREATE")]
    assert [query.wire for query in made] == [0] * 11
    assert all(query.error for query in made)


def test_uninstalling_gives_back_every_attribute():
    owners = (
        asyncpg.Connection,
        asyncpg.Pool,
        asyncpg.prepared_stmt.PreparedStatement,
        asyncpg.cursor.BaseCursor,
        asyncpg.cursor.Cursor,
    )
    before = {(owner, name): value for owner in owners for name, value in vars(owner).items()}
    kinds = {place: inspect.iscoroutinefunction(value) for place, value in before.items()}
    collector.install("asyncpg")
    after = {(owner, name): value for owner in owners for name, value in vars(owner).items()}
    assert sum(after[place] is not value for place, value in before.items()) == 21
    assert {place: inspect.iscoroutinefunction(value) for place, value in after.items()} == kinds
    collector.uninstall("asyncpg")
    assert all(vars(owner)[name] is value for (owner, name), value in before.items())


# ------------------------------------------------------------------------------------------------ each way of asking


class Cells:
    """Each is one, beside what is to be seen of it."""

    @staticmethod
    async def fetch(connection):
        assert len(await connection.fetch(NUMBERS, 7)) == 7

    @staticmethod
    async def fetch_no_row(connection):
        assert await connection.fetchrow("SELECT 1 WHERE false") is None
        assert await connection.fetchval("SELECT 1 WHERE false") is None

    @staticmethod
    async def fetch_a_row(connection):
        assert (await connection.fetchrow(NUMBERS, 3))["n"] == 1
        assert await connection.fetchval("SELECT NULL") is None

    @staticmethod
    async def execute(connection):
        await connection.execute("INSERT INTO items VALUES (1, 'a'), (2, 'b')")
        await connection.execute("SELECT 1 UNION SELECT 2")
        await connection.execute("CREATE TEMP TABLE others (id int)")

    @staticmethod
    async def execute_parameters(connection):
        await connection.execute(INSERT, 1, "a")

    @staticmethod
    async def execute_several(connection):
        await connection.execute("SELECT 1; SELECT 2 UNION SELECT 3")

    @staticmethod
    async def executemany(connection):
        await connection.executemany(INSERT, [(1, "a"), (2, "b"), (3, "c")])

    @staticmethod
    async def executemany_generated(connection):
        await connection.executemany(INSERT, ((number, "x") for number in range(4)))

    @staticmethod
    async def executemany_nothing(connection):
        await connection.executemany(INSERT, [])

    @staticmethod
    async def executemany_failed_first(connection):
        await connection.execute(INSERT, 1, "a")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.executemany(INSERT, [(1, "b")])

    @staticmethod
    async def executemany_unfit(connection):
        with pytest.raises(asyncpg.DataError):
            await connection.executemany(INSERT, [(1, "a"), ("x", "b"), (3, "c")])

    @staticmethod
    async def fetchmany(connection):
        assert len(await connection.fetchmany(INSERT + " RETURNING id", [(1, "a"), (2, "b")])) == 2  # execute

    @staticmethod
    async def failed(connection):
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.fetch("SELECT 1 FROM missing_table")
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.execute("SELECT 1 FROM missing_table")
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await connection.execute("SELEC $1", 1)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetchval("SELECT 1 / $1::int", 0)

    @staticmethod
    async def types_unknown(connection):
        await connection.execute("CREATE TYPE pg_temp.pair AS (a int, b int)")
        assert await connection.fetchval("SELECT (1, 2)::pg_temp.pair") == (1, 2)
        assert await connection.fetchval("SELECT (3, 4)::pg_temp.pair") == (3, 4)

    @staticmethod
    async def prepared(connection):
        statement = await connection.prepare(NUMBERS)
        assert len(await statement.fetch(4)) == 4  # execute
        assert await statement.fetchval(2) == 1  # execute
        assert (await statement.fetchrow(2))["n"] == 1  # execute
        assert await statement.fetch(0) == []  # execute

    @staticmethod
    async def prepared_change(connection):
        for text in ("INSERT INTO items VALUES (1, 'a'), (2, 'b')", "CREATE TEMP TABLE others (id int)"):
            await (await connection.prepare(text)).fetch()  # execute

    @staticmethod
    async def prepared_many(connection):
        statement = await connection.prepare(INSERT + " RETURNING id")
        await statement.executemany([(1, "a"), (2, "b")])
        assert len(await statement.fetchmany([(3, "a"), (4, "b"), (5, "c")])) == 3  # execute

    @staticmethod
    async def prepared_failed(connection):
        statement = await connection.prepare("SELECT 1 / $1::int")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await statement.fetch(0)  # execute

    @staticmethod
    async def cursor(connection):
        async with connection.transaction():
            cursor = await connection.cursor(NUMBERS, 250)
            assert (await cursor.fetchrow())["n"] == 1
            assert len(await cursor.fetch(9)) == 9
            assert await cursor.forward(40) == 40
            assert len(await cursor.fetch(500)) == 200

    @staticmethod
    async def cursor_iterated(connection):
        async with connection.transaction():
            assert len([row async for row in connection.cursor(NUMBERS, 120)]) == 120

    @staticmethod
    async def cursor_of_prepared(connection):
        statement = await connection.prepare(NUMBERS)
        async with connection.transaction():
            assert len([row async for row in statement.cursor(5, prefetch=2)]) == 5

    @staticmethod
    async def cursor_failed_late(connection):
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with connection.transaction():
                text = "SELECT 1 / (n - 60) FROM generate_series(1, 90) AS numbers(n)"
                [row async for row in connection.cursor(text)]

    @staticmethod
    async def cursor_outside(connection):
        with pytest.raises(asyncpg.NoActiveSQLTransactionError):
            await connection.cursor(NUMBERS, 5)

    @staticmethod
    async def copied_in(connection):
        await connection.copy_to_table("items", source=io.BytesIO(b"1\ta\n2\tb\n"))
        await connection.copy_records_to_table("items", records=[(3, "x"), (4, "y"), (5, "z")], columns=["id", "v"])

    @staticmethod
    async def copied_out(connection):
        await connection.copy_from_query("SELECT generate_series(1, 4)", output=io.BytesIO())
        await connection.copy_from_table("items", output=io.BytesIO())

    @staticmethod
    async def copied_failed(connection):
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await connection.copy_to_table("items", source=io.BytesIO(b"no number\tx\n"))
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.copy_from_table("missing_table", output=io.BytesIO())

    @staticmethod
    async def copied_wrong(connection):
        with pytest.raises(TypeError):
            await connection.copy_to_table("items", source=5)
        await connection.execute("SET search_path TO public")  # when the server is done with it

    @staticmethod
    async def timed_out(connection):
        with pytest.raises(TimeoutError):
            await connection.execute("SELECT pg_sleep(5)", timeout=0.01)

    @staticmethod
    async def cancelled(connection):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connection.execute("SELECT pg_sleep(5)")


ONE = (1, None, 1, None)

#: Of each query in a cell: rows, many, wire and error.
CELLS = {
    "fetch": [(7, None, 1, None)],
    "fetch_no_row": [(0, None, 1, None)] * 2,
    "fetch_a_row": [ONE, ONE],
    "execute": [(2, None, 1, None), (2, None, 1, None), (None, None, 1, None)],
    "execute_parameters": [ONE],
    "execute_several": [(2, None, 1, None)],
    "executemany": [(None, 3, 3, None)],
    "executemany_generated": [(None, 4, 4, None)],
    "executemany_nothing": [],
    "executemany_failed_first": [ONE, (None, 1, 1, TWICE)],
    "executemany_unfit": [(None, 3, 0, "DataError")],
    "fetchmany": [(2, 2, 2, None)],
    "failed": [
        (None, None, 1, MISSING),
        (None, None, 1, MISSING),
        (None, None, 1, "PostgresSyntaxError 42601"),
        (None, None, 1, "DivisionByZeroError 22012"),
    ],
    "types_unknown": [(None, None, 1, None), (1, None, 4, None), (1, None, 1, None)],
    "prepared": [(4, None, 1, None), ONE, ONE, (0, None, 1, None)],
    "prepared_change": [(2, None, 1, None), (None, None, 1, None)],
    "prepared_many": [(None, 2, 2, None), (3, 3, 3, None)],
    "prepared_failed": [(None, None, 1, "DivisionByZeroError 22012")],
    "cursor": [(210, None, 4, None)],
    "cursor_iterated": [(120, None, 3, None)],
    "cursor_of_prepared": [(5, None, 3, None)],
    "cursor_failed_late": [(None, None, 2, "DivisionByZeroError 22012")],
    "cursor_outside": [],
    "copied_in": [(2, None, 1, None), (3, None, 1, None)],
    "copied_out": [(4, None, 1, None), (0, None, 1, None)],
    "copied_failed": [(None, None, 1, "InvalidTextRepresentationError 22P02"), (None, None, 1, MISSING)],
    "copied_wrong": [(None, None, 1, "TypeError")],
    "timed_out": [(None, None, 1, "TimeoutError")],
    "cancelled": [(None, None, 1, "CancelledError")],
}
FETCHED = {"cursor", "cursor_iterated", "cursor_of_prepared"}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("pooled", [False, True], ids=["connection", "pool"])
def test_each_statement_is_one_query_and_its_wire_is_what_the_server_logged(record, postgresql, sent, cell, pooled):
    async def asking():
        async with asyncpg.create_pool(postgresql.url, min_size=1, max_size=1) as pool, pool.acquire() as proxy:
            connection = proxy if pooled else await asyncpg.connect(postgresql.url)
            assert isinstance(connection, PoolConnectionProxy) == pooled
            await connection.execute(TABLE)
            with record() as seen:
                seen.capture.on_loop(threading.get_ident())
                await getattr(Cells, cell)(connection)
            texts = sent(connection)
            if not pooled:
                await connection.close()
            return seen, texts

    seen, texts = asyncio.run(asking())
    assert facts(seen) == CELLS[cell]
    assert total_wire(seen) == len(texts)
    assert {query.db for query in seen.queries} <= {postgresql.db}
    assert {query.system for query in seen.queries} <= {"postgresql"}
    lines = [line_of(query, __file__) for query in seen.queries]
    assert all(function.endswith(f".{cell}") for _, function in lines)
    words = ("execute", "fetch", "copy", "cursor")
    assert all(any(word in line for word in words) for line, _ in lines)
    assert any(query.fetch_ms is not None for query in seen.queries) == (cell in FETCHED)
    assert not any(query.blocking for query in seen.queries)


def test_of_a_failed_executemany_all_that_was_sent_counts_also_what_the_server_skipped(record, connect, sent):
    async def failing():
        async with connect() as connection:
            with record() as seen, pytest.raises(asyncpg.UniqueViolationError):
                await connection.executemany(INSERT, [(1, "a"), (1, "b"), (3, "c")])
            return seen, len(sent(connection))

    seen, logged = asyncio.run(failing())
    assert facts(seen) == [(None, 3, 3, TWICE)]
    assert logged == 2


def test_a_subclass_s_own_methods_are_one_query(record, connect):
    class Mine(asyncpg.Connection):
        async def fetch(self, query, *args, **options):
            return await super().fetch(query, *args, **options)

    async def asking():
        async with connect(connection_class=Mine) as connection:
            with record() as seen:
                await connection.fetch("SELECT 1")
            return seen

    assert len(asyncio.run(asking()).queries) == 1


def test_equal_parameters_have_equal_tokens_and_others_not(record, connect):
    async def asking():
        async with connect() as connection:
            with record() as seen:
                for number in (1, 2, 1):
                    await connection.fetch(NUMBERS, number)
                await connection.fetch("SELECT 1")
                await connection.executemany(INSERT, [(1, "a")])
            return seen

    first, second, third, plain, many = [query.params_hash for query in asyncio.run(asking()).queries]
    assert first == third != second
    assert plain is not None
    assert many is None


# --------------------------------------------------------------------------------------------------- transactions


def test_each_way_of_beginning_and_ending_is_a_transaction_with_its_outcome(record, connect):
    async def blocks():
        async with connect() as connection:
            with record() as seen:
                async with connection.transaction():
                    await connection.fetch("SELECT 1")
                    with pytest.raises(ZeroDivisionError):
                        async with connection.transaction():
                            raise ZeroDivisionError
                    await connection.fetch("SELECT 2")
                with pytest.raises(asyncpg.UndefinedTableError):
                    async with connection.transaction():
                        await connection.fetch("SELECT 1 FROM missing_table")
                await connection.fetch("SELECT 3")
                await connection.execute("BEGIN")
                await connection.fetch("SELECT 4")
                await connection.close()
            return seen

    seen = asyncio.run(blocks())
    assert outcomes(seen) == ["commit", "rollback", "rollback"]
    assert [query.transaction for query in seen.queries] == [0, 0, 1, None, 2]
    for transaction in seen.transactions:
        assert 0 < transaction.busy_ms <= transaction.duration_ms + 0.01


def test_what_a_pool_rolls_back_is_rolled_back(record, postgresql):
    async def asking():
        async with asyncpg.create_pool(postgresql.url, min_size=1, max_size=1) as pool:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # which the pool tells of it
            with record() as seen:
                async with pool.acquire() as connection:
                    await connection.execute("BEGIN")
                    await connection.fetch("SELECT 1")
            return seen

    seen = asyncio.run(asking())
    assert outcomes(seen) == ["rollback"]
    assert len(seen.queries) == 1


def test_a_lost_connection_rolls_back(record, connect):
    async def losing():
        async with connect() as connection, connect() as other:
            with record() as seen:
                await connection.execute("BEGIN")
                await connection.fetch("SELECT 1")
                await other.fetchval("SELECT pg_terminate_backend($1, 5000)", connection.get_server_pid())
                with pytest.raises(
                    (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError)
                ):
                    await connection.fetch("SELECT 2")
            return seen

    assert outcomes(asyncio.run(losing())) == ["rollback"]


def test_cursors_that_are_over_are_forgotten(record, connect):
    async def asking():
        async with connect() as connection:
            with record():
                async with connection.transaction():
                    await connection.cursor(NUMBERS, 3)
                    assert len(driver.session_of(connection).portals) == 1
                assert not driver.session_of(connection).portals

    asyncio.run(asking())


# ---------------------------------------------------------------------------------------- who asked, and for whom


def test_a_connection_opened_before_the_hooks_is_seen(connect, request):
    async def asking():
        async with connect() as connection:
            record = request.getfixturevalue("record")
            with record() as seen:
                await connection.fetch("SELECT 1")
            return seen

    assert len(asyncio.run(asking()).queries) == 1


def test_a_unix_socket_is_named_and_the_password_is_not(record, postgresql):
    async def asking():
        connection = await asyncpg.connect(
            host=str(postgresql.folder),
            port=postgresql.port,
            user="perf",
            database="perf",
            password=postgresql.password,
        )
        with record(capture_sql=1000) as seen:
            await connection.fetch("SELECT 1")
        await connection.close()
        return seen

    (query,) = asyncio.run(asking()).queries
    assert query.db == f"{postgresql.folder}/.s.PGSQL.{postgresql.port}/perf"
    assert postgresql.password not in str(query)


def test_200_tasks_do_not_cross(record, postgresql):
    async def task(pool, number):
        with record() as seen:
            for step in range(number % 5):
                await pool.fetch("SELECT $1::int, $2::int", number, step)
        return len(seen.queries)

    async def all_tasks():
        async with asyncpg.create_pool(postgresql.url, min_size=8, max_size=8) as pool:
            return await asyncio.gather(*(task(pool, number) for number in range(200)))

    assert asyncio.run(all_tasks()) == [number % 5 for number in range(200)]


# ------------------------------------------------------------------------------------------------------------- the pool


def test_waiting_for_a_connection_is_the_next_query_s_wait(record, postgresql):
    async def asking():
        async with asyncpg.create_pool(postgresql.url, min_size=1, max_size=1) as pool:
            taken = await pool.acquire()

            async def give_back():
                spin()
                await pool.release(taken)

            giving = asyncio.create_task(give_back())
            with record() as seen:
                async with pool.acquire() as connection:
                    await connection.fetch("SELECT 1")
                    await connection.fetch("SELECT 2")
            await giving
            return seen

    seen = asyncio.run(asking())
    first, second = seen.queries
    assert seen.capture.waited_ns >= 5_000_000
    assert 5 <= first.wait_ms <= first.start_ms + 0.001
    assert second.wait_ms is None


def test_opening_a_connection_is_no_wait(record, postgresql):
    async def slow(*args, **options):
        start_ns = perf_counter_ns()
        spin()
        connection = await asyncpg.connect(*args, **options)
        opening_ns.append(perf_counter_ns() - start_ns)
        return connection

    async def asking():
        async with asyncpg.create_pool(postgresql.url, min_size=0, max_size=1, connect=slow) as pool:
            with record() as seen:
                start_ns = perf_counter_ns()
                async with pool.acquire():
                    took_ns = perf_counter_ns() - start_ns
            return seen, took_ns

    opening_ns = []
    seen, took_ns = asyncio.run(asking())
    assert seen.capture.waited_ns <= took_ns - opening_ns[0]


def test_a_pool_that_gives_up_is_a_wait_and_its_error_the_application_s(record, postgresql):
    async def asking():
        async with asyncpg.create_pool(postgresql.url, min_size=1, max_size=1) as pool, pool.acquire():
            with record() as seen, pytest.raises(TimeoutError):
                await pool.acquire(timeout=0.01)
            return seen

    seen = asyncio.run(asking())
    assert seen.queries == []
    assert seen.capture.waited_ns > 0
