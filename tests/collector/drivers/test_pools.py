"""Pools of the MySQL family: how long somebody waited, apart from how long it took to open a connection."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from time import perf_counter_ns

import aiomysql
import asyncmy
import pytest
from mysql.connector.pooling import MySQLConnectionPool

from perf_middleware import collector

HELD_MS = 40


@pytest.fixture
def hooked():
    collector.install()
    yield
    collector.uninstall()


@pytest.fixture(params=[aiomysql, asyncmy], ids=["aiomysql", "asyncmy"])
def pool(request, mariadb):
    """`async with pool(maxsize=...) as pool:`."""

    @asynccontextmanager
    async def opening(**options):
        database = {"db": mariadb.database} if request.param is aiomysql else {"database": mariadb.database}
        given = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
        made = await request.param.create_pool(**given, **database, autocommit=True, **options)
        try:
            yield made
        finally:
            made.close()
            await made.wait_closed()

    return opening


async def ask(connection):
    cursor = connection.cursor()
    cursor = await cursor if hasattr(cursor, "__await__") else cursor
    await cursor.execute("SELECT 1")
    await cursor.close()


def test_nobody_has_waited_for_a_connection_that_was_only_being_opened(record, pool):
    async def scenario():
        async with pool(minsize=0, maxsize=2) as made:
            with record() as seen:
                start_ns = perf_counter_ns()
                connection = await made.acquire()
                acquiring_ms = (perf_counter_ns() - start_ns) / 1e6
                await ask(connection)
                await made.release(connection)
        return seen, acquiring_ms

    seen, acquiring_ms = asyncio.run(scenario())
    (query,) = seen.queries
    assert 0 <= query.wait_ms < acquiring_ms / 2


def test_a_wait_for_another_s_connection_is_told_by_the_next_query_only(record, pool):
    async def scenario():
        async with pool(minsize=1, maxsize=1) as made:
            held = await made.acquire()

            async def wait():
                with record() as seen:
                    async with made.acquire() as connection:
                        await ask(connection)
                        await ask(connection)
                return seen

            waiting = asyncio.create_task(wait())
            async with held.cursor() as cursor:
                await cursor.execute(f"SELECT SLEEP({HELD_MS / 1000})")
            await made.release(held)
            return await waiting

    first, second = asyncio.run(scenario()).queries
    assert first.wait_ms > HELD_MS / 2
    assert second.wait_ms is None


def test_connector_s_checkout_is_a_wait(record, mariadb):
    given = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
    given |= {"charset": "utf8mb4", "collation": "utf8mb4_general_ci", "use_pure": True, "ssl_disabled": True}
    made = MySQLConnectionPool(pool_name="checkout", pool_size=1, pool_reset_session=False, **given)
    try:
        with record() as seen:
            connection = made.get_connection()
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                cursor.fetchall()
            connection.close()
    finally:
        made._remove_connections()
    (query,) = seen.queries
    assert query.wait_ms > 0
