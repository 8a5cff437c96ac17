"""asyncmy, whose cursors are compiled: what is a subclass, what is not, and prepared statements."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import asynccontextmanager

import asyncmy
import pytest
from asyncmy.cursors import Cursor, DictCursor, SSCursor

from perf_middleware import collector
from perf_middleware.errors import faults


@pytest.fixture
def hooked():
    collector.install("asyncmy", "pymysql")
    yield
    collector.uninstall("asyncmy", "pymysql")


@pytest.fixture
def opened(mariadb):
    @asynccontextmanager
    async def opening(**options):
        given = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
        connection = await asyncmy.connect(**given, database=mariadb.database, autocommit=True, **options)
        try:
            yield connection
        finally:
            await connection.ensure_closed()

    return opening


# ------------------------------------------------------------------------------------------- what must not happen


def test_without_a_profile_cursors_are_asyncmy_s_own(hooked, opened):
    async def scenario():
        async with opened() as connection:
            return type(connection.cursor()), type(connection.cursor(DictCursor))

    assert asyncio.run(scenario()) == (Cursor, DictCursor)


def test_its_unbuffered_cursor_stays_what_it_is_and_its_statements_are_seen_as_they_are_sent(record, opened):
    async def scenario():
        async with opened() as connection:
            with record() as seen:
                cursor = connection.cursor(SSCursor)
                await cursor.execute("SELECT seq FROM seq_1_to_10 WHERE seq > %s", (3,))
                assert len(await cursor.fetchall()) == 7
                await cursor.close()
        return seen, type(cursor)

    seen, kind = asyncio.run(scenario())
    assert kind is SSCursor
    (query,) = seen.queries
    assert (query.fingerprint, query.rows, query.fetch_ms) == ("SELECT seq FROM seq_1_to_10 WHERE seq > ?", None, None)


def test_a_class_that_refuses_subclasses_is_seen_as_it_sends_and_reported(record, opened):
    class Final(Cursor):
        def __init_subclass__(cls):
            raise RuntimeError("no subclasses")

    async def scenario():
        async with opened() as connection:
            with record() as seen:
                cursor = connection.cursor(Final)
                await cursor.execute("SELECT %s", (1,))
        return seen, type(cursor)

    seen, kind = asyncio.run(scenario())
    assert kind is Final
    assert [query.fingerprint for query in seen.queries] == ["SELECT ?"]
    assert list(faults) == ["asyncmy: a cursor's class that cannot be subclassed: RuntimeError"]
    faults.clear()


def test_a_cursor_of_ours_works_on_after_uninstalling(record, opened):
    async def scenario():
        async with opened() as connection:
            with record() as seen:
                cursor = connection.cursor()
                collector.uninstall("asyncmy")
                try:
                    await cursor.execute("SELECT 1")
                finally:
                    collector.install("asyncmy")
                assert await cursor.fetchall() == ((1,),)
        return seen

    assert asyncio.run(scenario()).queries == []


# ---------------------------------------------------------------------------------------------- what must be seen


def test_ours_is_a_subclass_that_is_called_like_the_class(record, opened):
    class Mine(DictCursor):
        async def execute(self, query, args=None):
            return await super().execute(query.replace("?", "%s"), args)

    async def scenario():
        async with opened(cursor_cls=Mine) as connection:
            with record() as seen:
                async with connection.cursor() as cursor:
                    await cursor.execute("SELECT ? AS a", (1,))
                    assert await cursor.fetchall() == [{"a": 1}]
        return seen, type(cursor)

    seen, kind = asyncio.run(scenario())
    assert issubclass(kind, Mine)
    assert kind.__name__ == "Mine"
    assert inspect.iscoroutinefunction(kind.execute)
    assert [query.rows for query in seen.queries] == [1]


def test_prepared_statements_are_queries_with_their_parameters(record, opened):
    async def scenario():
        async with opened() as connection:
            with record() as seen:
                prepared = await connection.prepare("SELECT seq FROM seq_1_to_9 WHERE seq > ?")
                for value in (4, 7, 7):
                    await prepared.execute((value,))
                await prepared.close()
        return seen

    seen = asyncio.run(scenario())
    assert [(query.rows, query.wire) for query in seen.queries] == [(5, 1), (2, 1), (2, 1)]
    assert {query.fingerprint for query in seen.queries} == {"SELECT seq FROM seq_1_to_9 WHERE seq > ?"}
    first, second, third = (query.params_hash for query in seen.queries)
    assert first != second == third


def test_a_bulk_execute_is_one_query_of_many_sets(record, opened):
    async def scenario():
        async with opened() as connection:
            await connection.query("CREATE OR REPLACE TABLE bulk_asyncmy (a INT)")
            prepared = await connection.prepare("INSERT INTO bulk_asyncmy VALUES (?)")
            with record() as seen:
                await prepared.execute_bulk([(1,), (2,), (3,)])
        return seen

    (query,) = asyncio.run(scenario()).queries
    assert (query.many, query.wire, query.rows) == (3, 1, 3)
