"""aiomysql: what is its own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aiomysql
import pytest

from perf_middleware import collector


@pytest.fixture
def hooked():
    collector.install("aiomysql", "pymysql")
    yield
    collector.uninstall("aiomysql", "pymysql")


@pytest.fixture
def opened(mariadb):
    @asynccontextmanager
    async def opening(**options):
        given = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
        async with aiomysql.connect(**given, db=mariadb.database, autocommit=True, **options) as connection:
            yield connection

    return opening


def test_a_cancelled_statement_was_sent_and_its_connection_s_transaction_is_over(record, opened):
    async def scenario():
        async with opened() as connection:
            with record() as seen:
                await connection.begin()
                cursor = await connection.cursor()
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(cursor.execute("SELECT SLEEP(5)"), 0.05)
        return seen

    seen = asyncio.run(scenario())
    assert [(query.error, query.wire) for query in seen.queries] == [("CancelledError", 1)]
    assert [transaction.outcome for transaction in seen.transactions] == ["rollback"]


def test_a_warning_the_driver_asks_for_is_a_statement_of_its_query(record, opened):
    async def scenario():
        async with opened() as connection:
            cursor = await connection.cursor()
            with record() as seen, pytest.warns(aiomysql.Warning):
                await cursor.execute("DROP TABLE IF EXISTS never_there")
        return seen

    (query,) = asyncio.run(scenario()).queries
    assert query.wire == 2


def test_statements_given_to_the_connection_itself_are_queries(record, opened):
    async def scenario():
        async with opened() as connection:
            with record() as seen:
                assert await connection.query("SELECT 1 UNION SELECT 2") == 2
                await connection.show_warnings()
        return seen

    assert [(query.rows, query.wire) for query in asyncio.run(scenario()).queries] == [(2, 1), (None, 1)]


def test_tasks_that_share_a_pool_do_not_cross(record, mariadb):
    async def scenario():
        given = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
        async with aiomysql.create_pool(**given, db=mariadb.database, autocommit=True, maxsize=5) as pool:

            async def work(number):
                with record() as seen:
                    async with pool.acquire() as connection, connection.cursor() as cursor:
                        for _ in range(number % 4 + 1):
                            await cursor.execute("SELECT %s", (number,))
                return [query.fingerprint for query in seen.queries] == ["SELECT ?"] * (number % 4 + 1)

            return await asyncio.gather(*map(work, range(200)))

    assert asyncio.run(scenario()) == [True] * 200
