"""aiosqlite, whose statements run in a thread of each connection; SQLite's own trace says what it was sent."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sqlite3
import sys
import types
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import pairwise

import aiosqlite
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from perf_middleware import collector
from perf_middleware.asgi import PerfMiddleware
from perf_middleware.collector.context import unattributed
from perf_middleware.collector.drivers import aiosqlite as driver
from perf_middleware.collector.patching import Patches

HERE = "tests/collector/drivers/test_aiosqlite.py"
STEERING = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA")
OTHER = ContextVar("other", default="untouched")


@pytest.fixture(autouse=True)
def hooks(hooked):
    collector.install("aiosqlite")
    yield
    collector.uninstall("aiosqlite")


@asynccontextmanager
async def database(path=":memory:", rows=5, **options):
    """A connection to a table of that many rows, and what SQLite was sent since it was filled."""
    async with aiosqlite.connect(path, **options) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS t (a INTEGER UNIQUE)")
        await connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(rows)])
        await connection.commit()
        sent = []
        await connection.set_trace_callback(lambda text: text.startswith(STEERING) or sent.append(text))
        yield connection, sent


def line():
    return sys._getframe(1).f_lineno


# ---------------------------------------------------------------------------------------------- what must not happen


def test_what_is_run_for_no_request_is_unattributed_while_another_is_open(record):
    async def other():
        before = unattributed.count
        await opened.wait()
        await connection.execute("SELECT 2")
        asked.set()
        return unattributed.count - before

    async def main():
        nonlocal connection, opened, asked
        opened, asked = asyncio.Event(), asyncio.Event()
        async with database() as (connection, _):
            task = asyncio.create_task(other())
            await asyncio.sleep(0)
            with record() as seen:
                await connection.execute("SELECT 1")
                opened.set()
                await asked.wait()
            assert await task == 1
            return seen

    connection = opened = asked = None
    (query,) = asyncio.run(main()).queries
    assert query.fingerprint == "SELECT ?"


def test_the_application_s_own_context_is_not_carried_into_the_thread(record):
    async def main():
        async with database() as (connection, _):
            await connection.create_function("other", 0, OTHER.get)
            with record():
                OTHER.set("the request's")
                async with connection.execute("SELECT other()") as cursor:
                    return await cursor.fetchone()

    assert asyncio.run(main()) == ("untouched",)


def test_an_exception_is_the_one_that_was_raised(record):
    def fail():
        raise error

    async def main():
        async with database() as (connection, _):
            with record() as seen, pytest.raises(ZeroDivisionError) as raised:
                await connection._execute(fail)
            with record() as seen, pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
                await connection.execute("SELECT * FROM nowhere")
            assert raised.value is error
            return seen

    error = ZeroDivisionError()
    (query,) = asyncio.run(main()).queries
    assert (query.error, query.wire) == ("OperationalError SQLITE_ERROR", 1)


def test_a_cancelled_statement_is_still_one_query_and_the_connection_goes_on(record):
    async def main():
        async with database() as (connection, sent):
            gate = asyncio.Event()
            await connection.create_function("hold", 0, lambda: loop.call_soon_threadsafe(gate.set) and 1)
            loop = asyncio.get_running_loop()
            with record() as seen:
                task = asyncio.create_task(connection.execute_fetchall("SELECT hold() FROM t"))
                await gate.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert list(await connection.execute_fetchall("SELECT 1")) == [(1,)]
            assert len(sent) == 2
            return seen

    assert [query.fingerprint for query in asyncio.run(main()).queries] == ["SELECT hold() FROM t", "SELECT ?"]


def test_after_uninstalling_the_method_is_the_one_it_was():
    hooked = aiosqlite.Connection._execute
    assert inspect.iscoroutinefunction(hooked)
    collector.uninstall("aiosqlite")
    bare = aiosqlite.Connection._execute
    collector.install("aiosqlite")
    assert hooked.__wrapped__ is bare
    assert not hasattr(bare, "__wrapped__")


def test_a_version_that_hands_over_otherwise_stays_unhooked():
    unknown = types.SimpleNamespace(Connection=type("Connection", (), {"_execute": lambda self: None}))
    with pytest.raises(TypeError, match="no coroutine function"):
        driver.hook(unknown, Patches())


def test_a_debug_log_of_aiosqlite_tells_nothing_of_the_profile(record, caplog):
    """It logs each function with its arguments, so that what we need must not be among these."""

    async def main():
        async with database() as (connection, _):
            with record(), caplog.at_level(logging.DEBUG, "aiosqlite"):
                await connection.execute("SELECT 1")

    asyncio.run(main())
    assert any("carry" in message for message in caplog.messages)
    assert "Capture(" not in caplog.text
    assert "Profile(" not in caplog.text


# ------------------------------------------------------------------------------------------------------------ a matrix


async def by_connection(connection, sql, values):
    async with connection.execute(sql, values) as cursor:
        return await cursor.fetchall()


async def by_cursor(connection, sql, values):
    async with connection.cursor() as cursor:
        await cursor.execute(sql, values)
        return await cursor.fetchall()


async def at_once(connection, sql, values):
    return await connection.execute_fetchall(sql, values)


async def streamed(connection, sql, values):
    async with connection.execute(sql, values) as cursor:
        return [row async for row in cursor]


async def one_by_one(connection, sql, values):
    cursor = await connection.execute(sql, values)
    rows = []
    while (row := await cursor.fetchone()) is not None:
        rows.append(row)
    return rows


@pytest.mark.parametrize("ask", [by_connection, by_cursor, at_once, streamed, one_by_one])
@pytest.mark.parametrize(
    ("sql", "values", "rows"), [("SELECT a FROM t", None, 5), ("SELECT a FROM t WHERE a < ?", (3,), 3)]
)
def test_a_select_is_one_query_by_whatever_way_its_rows_are_taken(record, ask, sql, values, rows):
    async def main():
        async with database() as (connection, sent):
            with record() as seen:
                taken = await ask(connection, sql, values)
            return seen, sent, taken

    seen, sent, taken = asyncio.run(main())
    (query,) = seen.queries
    assert len(taken) == rows
    assert query.wire == len(sent) == 1
    assert query.caller.endswith(f" in {ask.__name__}")
    assert (query.rows, query.fetch_ms is None) == ((None, True) if ask is one_by_one else (rows, False))
    assert (query.error, query.blocking, query.system) == (None, False, "sqlite")


@pytest.mark.parametrize("by", ["connection", "cursor"])
def test_writes_are_one_query_each_and_as_many_statements_as_were_sent(record, by):
    async def main():
        async with database(rows=1) as (connection, sent):
            on = connection if by == "connection" else await connection.cursor()
            with record() as seen:
                await on.execute("INSERT INTO t VALUES (?)", (10,))
                await on.executemany("INSERT INTO t VALUES (?)", ((number,) for number in range(11, 15)))
                await on.execute("UPDATE t SET a = a + 100")
                with pytest.raises(sqlite3.IntegrityError):
                    await on.executemany("INSERT INTO t VALUES (?)", [(20,), (20,), (21,)])
                await connection.rollback()
            return seen, sent

    seen, sent = asyncio.run(main())
    assert [(query.many, query.wire, query.rows) for query in seen.queries] == [
        (None, 1, 1),
        (4, 4, 4),
        (None, 1, 6),
        (2, 2, None),
    ]
    assert sum(query.wire for query in seen.queries) == len(sent)
    assert seen.queries[3].error == "IntegrityError SQLITE_CONSTRAINT_UNIQUE"
    assert len({query.caller for query in seen.queries}) == 4
    assert [(transaction.outcome, transaction.db[:8]) for transaction in seen.transactions] == [
        ("rollback", ":memory:")
    ]


def test_an_insert_that_asks_for_its_row_is_two_statements_and_two_queries(record):
    async def main():
        async with database() as (connection, sent):
            with record() as seen:
                assert await connection.execute_insert("INSERT INTO t VALUES (?)", (10,)) == (6,)
                await connection.commit()
            return seen, sent

    seen, sent = asyncio.run(main())
    assert [query.fingerprint.split()[0] for query in seen.queries] == ["INSERT", "SELECT"]
    assert len(sent) == 2
    assert [transaction.outcome for transaction in seen.transactions] == ["commit"]


def test_a_script_is_one_query(record):
    async def main():
        async with database() as (connection, _):
            with record() as seen:
                await connection.executescript("SELECT 1; SELECT 2;")
            return seen

    (query,) = asyncio.run(main()).queries
    assert query.wire == 1


def test_the_wait_for_the_thread_is_in_no_duration(record):
    """Twenty statements wait for one thread; each takes what SQLite takes, so that together they take no more."""

    async def main():
        async with database() as (connection, _):
            with record() as seen:
                await asyncio.gather(*(connection.execute_fetchall("SELECT a FROM t") for _ in range(20)))
            return seen

    seen = asyncio.run(main())
    ends = [(query.start_ms, query.start_ms + query.duration_ms) for query in seen.queries]
    assert len(ends) == 20
    assert all(end <= start + 0.002 for (_, end), (start, _) in pairwise(ends))  # ends are rounded


# --------------------------------------------------------------------------------------------- whose query, which line


def test_the_caller_is_the_line_that_awaits(record):
    async def main():
        async with database() as (connection, _):
            with record() as seen:
                await connection.execute("SELECT 1")
                at.append(line() - 1)
                cursor = await connection.cursor()
                await cursor.execute("SELECT 2")
                at.append(line() - 1)
            return seen

    at = []
    seen = asyncio.run(main())
    assert [query.caller for query in seen.queries] == [f"{HERE}:{number} in main" for number in at]


def test_a_task_of_the_library_s_own_has_no_caller_rather_than_the_server_s(record):
    """`gather` makes tasks of coroutines: none of their frames is the application's, nor is who runs the loop."""

    async def main():
        async with database() as (connection, _):
            with record() as seen:
                await asyncio.create_task(connection._execute(connection._conn.execute, "SELECT 1"))
            return seen

    (query,) = asyncio.run(main()).queries
    assert query.caller is None


def test_a_function_of_the_application_s_in_the_thread_is_the_caller(record):
    async def main():
        async with database() as (connection, _):

            def in_the_thread():
                connection._conn.execute("SELECT 1")

            with record() as seen:
                await connection._execute(in_the_thread)
            return seen

    (query,) = asyncio.run(main()).queries
    assert query.caller.endswith(" in in_the_thread")


def test_without_callers_none_is_looked_for(record):
    async def main():
        async with database() as (connection, _):
            with record(callers=False) as seen:
                await connection.execute("SELECT 1")
            return seen

    (query,) = asyncio.run(main()).queries
    assert query.caller is None


def test_behind_sqlalchemy_the_caller_is_the_application_s_line(record, tmp_path):
    """SQLAlchemy awaits in one greenlet what another, with the application's own function in it, waits for."""

    def in_run_sync(session):
        at.append(line() + 1)
        session.execute(sa.text("SELECT 2"))

    async def main():
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'x.sqlite'}")
        async with AsyncSession(engine) as session:
            with record() as seen:
                await session.execute(sa.text("SELECT 1"))
                at.append(line() - 1)
                await session.run_sync(in_run_sync)
                result = await session.stream(sa.text("SELECT 3"))
                at.append(line() - 1)
                assert [row async for row in result] == [(3,)]
        await engine.dispose()
        return seen

    at = []
    seen = asyncio.run(main())
    names = ("main", "in_run_sync", "main")
    assert [query.caller for query in seen.queries] == [f"{HERE}:{n} in {f}" for n, f in zip(at, names, strict=True)]


def test_200_requests_on_shared_connections_have_their_own_queries(profiled):
    async def app(scope, receive, send):
        owner = int(scope["path"][1:])
        await everybody.wait()
        for number in range(owner % 5 + 1):
            await connections[(owner + number) % 4].execute_fetchall(f"SELECT {number} AS of_{owner}")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main():
        nonlocal everybody
        everybody = asyncio.Barrier(200)
        for _ in range(4):
            connections.append(await aiosqlite.connect(":memory:"))
            await connections[-1].set_trace_callback(sent.append)
        await asyncio.gather(*(door(scope(number), None, ignore) for number in range(200)))
        for connection in connections:
            await connection.close()

    everybody, connections, sent = None, [], []
    door, before = profiled(PerfMiddleware, app), unattributed.count
    asyncio.run(main())
    assert unattributed.count == before
    assert len(profiled.profiles) == 200
    for profile in profiled.profiles:
        owner = int(profile.id[1:])
        assert profile.query_count == owner % 5 + 1
        assert all(query.fingerprint.endswith(f"of_{owner}") and not query.blocking for query in profile.queries)
    assert sum(profile.query_count for profile in profiled.profiles) == len(sent)


async def ignore(message):
    pass


def scope(owner):
    return {"type": "http", "method": "GET", "path": f"/{owner}", "headers": [(b"x-perf-id", b"r%d" % owner)]}


def test_a_second_hook_on_top_leaves_ours_silent_after_uninstalling(record):
    """As another tool does it: it replaces the method by one that calls ours."""
    collector.uninstall("aiosqlite")
    bare = aiosqlite.Connection._execute
    patches = Patches()
    driver.hook(aiosqlite, patches)
    ours = aiosqlite.Connection._execute

    async def theirs(self, fn, *args, **kwargs):
        return await ours(self, fn, *args, **kwargs)

    async def main():
        before = unattributed.count
        async with aiosqlite.connect(":memory:") as connection:
            with record() as seen:
                await connection.execute("SELECT 1")
        return seen.query_count, unattributed.count - before

    aiosqlite.Connection._execute = theirs
    try:
        patches.undo()
        assert asyncio.run(main()) == (0, 1)
    finally:
        aiosqlite.Connection._execute = bare
        collector.install("aiosqlite")
    assert patches.covered == ["Connection._execute"]
