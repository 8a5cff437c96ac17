"""The MySQL family: every driver and kind of cursor, each statement against the server's general log.

What blocks and what awaits is tested by the same lines: `await done(...)` awaits what can be awaited.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import threading
import warnings
from contextlib import asynccontextmanager
from importlib import import_module
from types import MappingProxyType, SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from perf_middleware import collector
from perf_middleware.collector.context import unattributed

#: A connection's number and the statement it sent, less what steers sessions and transactions.
LOGGED = re.compile(
    r"^(?:\d{6} [ \d:]+)?\t{1,2} *(\d+) (?:Query|Execute|Bulk execute)\t"
    r"(?!(?:SET|BEGIN|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b)(.*)",
    re.MULTILINE | re.IGNORECASE,
)


async def done(value):
    return await value if inspect.isawaitable(value) else value


class Driver:
    """How one driver is called; `module` is what the application imports."""

    awaits = False
    user, database = "user", "database"
    plain_error = "ProgrammingError"
    procedures = True
    kinds = MappingProxyType(
        {"plain": "Cursor", "dict": "DictCursor", "streaming": "SSCursor", "streaming dict": "SSDictCursor"}
    )
    options = MappingProxyType({})

    def __init__(self, name, module, cursors, **changes):
        self.name, self.module, self.cursors = name, module, cursors
        vars(self).update(changes)

    def imported(self):
        try:
            return import_module(self.module)
        except ImportError:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"{self.module} is not installed")

    async def connect(self, server, **options):
        given = {"host": server.host, "port": server.port, "password": server.password, "autocommit": True}
        given |= {self.user: server.user, self.database: server.database, **self.options, **options}
        return await done(self.imported().connect(**given))

    async def cursor(self, connection, kind):
        return await done(connection.cursor(getattr(import_module(self.cursors), self.kinds[kind])))

    def thread_id(self, connection):
        return connection.thread_id()

    async def begin(self, connection):
        await done(connection.begin())

    def streams(self, kind):
        return kind.startswith("streaming")


class Connector(Driver):
    """Its cursors are chosen by options; those that do not buffer are streamed."""

    kinds = MappingProxyType(
        {
            "buffered": {"buffered": True},
            "buffered dict": {"buffered": True, "dictionary": True},
            "streaming": {},
            "streaming raw": {"raw": True},
            "streaming dict": {"dictionary": True},
            "streaming prepared": {"prepared": True},
            "streaming prepared dict": {"prepared": True, "dictionary": True},
        }
    )

    async def cursor(self, connection, kind):
        return await done(connection.cursor(**self.kinds[kind]))

    def thread_id(self, connection):
        return connection.connection_id

    async def begin(self, connection):
        await done(connection.cmd_query("START TRANSACTION"))


#: MariaDB has not the collation that the driver would choose.
COLLATED = {"charset": "utf8mb4", "collation": "utf8mb4_general_ci"}

DRIVERS = [
    Driver("mysqlclient", "MySQLdb", "MySQLdb.cursors"),
    Driver("aiomysql", "aiomysql", "aiomysql", awaits=True, database="db"),
    Driver("asyncmy", "asyncmy", "asyncmy.cursors", awaits=True),
    Driver("asyncmy", "asyncmy", "asyncmy.cursors", awaits=True, options={"stmt_cache_size": 10}),
    Connector("mysql_connector", "mysql.connector", "", options={"use_pure": True, **COLLATED}),
    Connector("mysql_connector", "mysql.connector", "", options={"use_pure": False, **COLLATED}),
    Connector(
        "mysql_connector_aio", "mysql.connector.aio", "", awaits=True, options={"ssl_disabled": True, **COLLATED}
    ),
]
NAMES = [
    *("mysqlclient", "aiomysql", "asyncmy", "asyncmy, statements cached"),
    *("connector in Python", "connector in C", "connector awaiting"),
]
#: asyncmy's own `SSCursor` is left as it is: see test_asyncmy.py.
CELLS = [
    pytest.param((driver, kind), id=f"{name}: {kind}")
    for driver, name in zip(DRIVERS, NAMES, strict=True)
    for kind in driver.kinds
    if (driver.name, kind) != ("asyncmy", "streaming")
]


@pytest.fixture(params=DRIVERS, ids=NAMES)
def driver(request):
    request.param.imported()
    return request.param


@pytest.fixture(params=CELLS)
def cell(request):
    request.param[0].imported()
    return request.param


@pytest.fixture
def hooked(request):
    """All of the family at once, PyMySQL among them: no statement may be seen by two."""
    collector.install()
    yield
    collector.uninstall()


@pytest.fixture
def opened(mariadb):
    """`async with opened(driver) as connection:`."""

    @asynccontextmanager
    async def opening(driver, **options):
        connection = await driver.connect(mariadb, **options)
        try:
            yield connection
        finally:
            await done(getattr(connection, "ensure_closed", connection.close)())

    return opening


@pytest.fixture
def sent(connect, mariadb):
    """`sent(driver, connection)`: what the server's log says it sent so far."""
    with connect().cursor() as cursor:
        cursor.execute("SET GLOBAL general_log = 1")

    def statements(driver, connection):
        log = mariadb.general_log.read_text(errors="replace")
        return [text for number, text in LOGGED.findall(log) if int(number) == driver.thread_id(connection)]

    return statements


@pytest.fixture
def run(cell, record, opened, sent):
    """`run(scenario)` gives what was seen of `await scenario(cursor, connection)`; the wire is the server's log."""
    driver, kind = cell

    def running(scenario, *, logged=True, **options):
        async def whole():
            async with opened(driver, **options) as connection:
                with record() as seen:
                    cursor = await driver.cursor(connection, kind)
                    await scenario(cursor, connection)
                    await done(cursor.close())
                seen.sent = sent(driver, connection)
            return seen

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the driver's own
            seen = asyncio.run(whole())
        assert not logged or sum(query.wire for query in seen.queries) == len(seen.sent), (seen.queries, seen.sent)
        return seen

    return running


async def prepare(cursor, name, rows=0):
    await done(cursor.execute(f"CREATE OR REPLACE TABLE {name} (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(40))"))
    if rows:
        await done(cursor.execute(f"INSERT INTO {name} (v) SELECT seq FROM seq_1_to_{rows}"))


def outcomes(seen):
    return [transaction.outcome for transaction in seen.transactions]


# ------------------------------------------------------------------------------------------- what must not happen


def test_session_and_transaction_statements_are_no_queries(cell, run):
    async def scenario(cursor, connection):
        await cell[0].begin(connection)
        for text in ("SAVEPOINT a", "SET @x = 1", "ROLLBACK TO SAVEPOINT a"):
            await done(cursor.execute(text))
        await done(connection.commit())

    seen = run(scenario)
    assert (seen.queries, seen.sent) == ([], [])


def test_nothing_is_noted_without_a_profile_and_each_statement_is_unattributed_once(cell, hooked, opened, sent):
    driver, kind = cell

    async def scenario():
        async with opened(driver) as connection:
            cursor = await driver.cursor(connection, kind)
            await prepare(cursor, "nobody_s", 1)
            await done(cursor.execute("SELECT %s", (1,)))  # for the first parameters some ask for the server's mode
            await done(cursor.fetchall())
            before = unattributed.count, len(sent(driver, connection))
            await done(cursor.execute("SELECT 1"))
            await done(cursor.fetchall())
            await done(cursor.executemany("INSERT INTO nobody_s (v) VALUES (%s)", [(1,), (2,)]))
            after = unattributed.count, len(sent(driver, connection))
            await done(cursor.close())
        return after[0] - before[0], after[1] - before[1]

    counted, logged = asyncio.run(scenario())
    assert counted == logged == (3 if "prepared" in kind else 2)


def test_a_failed_statement_has_its_number_and_never_its_message(cell, run):
    async def scenario(cursor, connection):
        with pytest.raises(Exception, match="missing_table") as failed:
            await done(cursor.execute("SELECT 'secret' FROM missing_table"))
        assert type(failed.value).__name__ == "ProgrammingError"

    (query,) = run(scenario).queries
    assert (query.error, query.rows) == ("ProgrammingError 1146", None)
    assert query.wire == (0 if "prepared" in cell[1] else 1)  # preparing it failed


def test_statements_that_never_reach_the_server_have_wire_0(run):
    async def scenario(cursor, connection):
        await done(cursor.execute("SELECT %s, %s", (1, 2)))
        await done(cursor.fetchall())
        with pytest.raises(Exception, match=r"."):
            await done(cursor.execute("SELECT %s, %s", (1,)))

    _, query = run(scenario).queries
    assert query.wire == 0
    assert query.error


def test_an_empty_executemany_is_no_query(run):
    async def scenario(cursor, connection):
        await done(cursor.executemany("DO %s", []))

    assert run(scenario).queries == []


# ------------------------------------------------------------------------------------------------- cursors and rows


def test_a_statement_is_one_query_with_its_rows_and_its_line(cell, run, mariadb):
    async def scenario(cursor, connection):
        waiting = cursor.execute("SELECT seq FROM seq_1_to_7")
        if inspect.isawaitable(waiting):
            await waiting
        assert len(await done(cursor.fetchall())) == 7

    (query,) = run(scenario).queries
    assert (query.fingerprint, query.rows, query.wire, query.error) == ("SELECT seq FROM seq_1_to_7", 7, 1, None)
    assert query.caller.endswith(" in scenario")
    line = scenario.__code__.co_firstlineno + (3 if cell[0].awaits else 1)
    assert query.caller.split(":")[1].startswith(f"{line} ")
    assert (query.system, query.db) == ("mariadb", f"{mariadb.host}:{mariadb.port}/perf")


def test_parameters_are_told_apart_and_never_kept(run):
    async def scenario(cursor, connection):
        for value in (4242, 4242, 5353):
            await done(cursor.execute("SELECT seq FROM seq_1_to_3 WHERE seq = %s", (value,)))
            await done(cursor.fetchall())

    seen = run(scenario)
    first, again, other = (query.params_hash for query in seen.queries)
    assert first == again != other
    assert first is not None
    assert "4242" not in str(seen.queries)


def test_named_parameters_are_parameters(run):
    async def scenario(cursor, connection):
        for value in (1, 2):
            await done(cursor.execute("SELECT seq FROM seq_1_to_3 WHERE seq = %(a)s", {"a": value}))
            await done(cursor.fetchall())

    first, second = run(scenario).queries
    assert first.fingerprint == second.fingerprint
    assert first.params_hash != second.params_hash


def test_bulk_fetches_are_timed_where_rows_still_come_from_the_server(cell, run):
    driver, kind = cell

    async def scenario(cursor, connection):
        await done(cursor.execute("SELECT seq, REPEAT('x', 100) FROM seq_1_to_3000"))
        rows = 0
        while batch := await done(cursor.fetchmany(1000)):
            rows += len(batch)
        assert rows == 3000

    (query,) = run(scenario).queries
    assert query.rows == 3000
    assert (query.fetch_ms is not None) == driver.streams(kind)


def test_a_cursor_used_again_does_not_add_to_the_query_before(run):
    async def scenario(cursor, connection):
        for rows in (5, 3):
            await done(cursor.execute(f"SELECT seq FROM seq_1_to_{rows}"))
            await done(cursor.fetchall())

    assert [query.rows for query in run(scenario).queries] == [5, 3]


# --------------------------------------------------------------------------------------- many statements in one call


@pytest.mark.parametrize("text", ["UPDATE {} SET v = %s", "INSERT INTO {} (v) VALUES (%s)"], ids=["loop", "bulk"])
def test_executemany_is_one_query_with_its_sets_and_statements(cell, run, text):
    driver, kind = cell
    table = f"many_{abs(hash((driver.module, str(driver.options), kind, text)))}"

    async def scenario(cursor, connection):
        await prepare(cursor, table, 1)
        await done(cursor.executemany(text.format(table), [("a",), ("b",), ("c",)]))

    # A set of rows is sent as one by asyncmy's prepared statements; the server logs each row.
    *_, query = run(scenario, logged="stmt_cache_size" not in driver.options).queries
    assert query.many == 3
    untold = driver.options.get("use_pure") is False and "prepared" in kind  # it says -3
    assert query.rows == (None if untold else 3)


def test_a_stored_procedure_is_one_query(cell, run):
    driver, kind = cell
    name = f"twice_{abs(hash((driver.module, str(driver.options), kind)))}"

    async def scenario(cursor, connection):
        other = await done(driver.cursor(connection, "buffered" if "buffered" in driver.kinds else "plain"))
        await done(other.execute(f"CREATE OR REPLACE PROCEDURE {name}(IN a INT) BEGIN SELECT a; SELECT a + 1; END"))
        await done(other.close())
        if "prepared" not in kind:
            await done(cursor.callproc(name, (3,)))

    _, *called = run(scenario).queries
    assert [query.fingerprint for query in called] == ([] if "prepared" in kind else [f"CALL `{name}`(?)"])
    assert all(query.params_hash for query in called)


def test_several_statements_in_one_text_are_one_query(cell, run):
    refused = "prepared" in cell[1]

    async def scenario(cursor, connection):
        if refused:
            with pytest.raises(Exception, match="syntax"):
                await done(cursor.execute("SELECT 1; SELECT 2"))
            return
        await done(cursor.execute("SELECT 1; SELECT 2"))
        await done(cursor.fetchall())
        assert await done(cursor.nextset())
        await done(cursor.fetchall())

    (query,) = run(scenario).queries
    assert (query.error is not None) == refused


# --------------------------------------------------------------------------------------------------- transactions


def test_each_way_of_beginning_and_ending_is_a_transaction_with_its_outcome(cell, run):
    driver, kind = cell
    table = f"ways_{abs(hash((driver.module, str(driver.options), kind)))}"

    async def select(cursor):
        await done(cursor.execute(f"SELECT COUNT(*) FROM {table}"))
        await done(cursor.fetchall())

    async def scenario(cursor, connection):
        await prepare(cursor, table, 3)
        await driver.begin(connection)
        await select(cursor)
        await done(connection.commit())
        await driver.begin(connection)
        await done(cursor.execute(f"UPDATE {table} SET v = 'x'"))
        await done(cursor.execute("ROLLBACK"))
        await select(cursor)
        await driver.begin(connection)
        await done(cursor.execute(f"UPDATE {table} SET v = 'x'"))
        await done(cursor.execute(f"TRUNCATE TABLE {table}"))  # commits
        await select(cursor)

    seen = run(scenario)
    assert outcomes(seen) == ["commit", "rollback", "commit"]
    assert [query.transaction for query in seen.queries][2:] == [0, 1, None, 2, 2, None]


def test_with_autocommit_off_the_first_statement_on_a_table_begins_it(cell, run):
    driver, kind = cell
    table = f"implicit_{abs(hash((driver.module, str(driver.options), kind)))}"

    async def scenario(cursor, connection):
        await prepare(cursor, table, 1)
        await done(connection.commit())
        for _ in range(2):
            await done(cursor.execute(f"SELECT v FROM {table}"))
            await done(cursor.fetchall())
        await done(connection.rollback())

    seen = run(scenario, autocommit=False)
    assert outcomes(seen)[-1] == "rollback"
    assert seen.queries[-1].transaction == seen.queries[-2].transaction == len(seen.transactions) - 1


# ---------------------------------------------------------------------------------------------------------- others


def test_a_connection_opened_before_the_hooks_is_seen(driver, opened, request):
    async def scenario():
        async with opened(driver) as connection:
            record = request.getfixturevalue("record")
            with record() as seen:
                cursor = await done(connection.cursor())
                await done(cursor.execute("SELECT 1"))
                await done(cursor.fetchall())
                await done(cursor.close())
        return seen

    assert len(asyncio.run(scenario()).queries) == 1


def test_only_a_driver_that_blocks_blocks_the_event_loop(driver, record, opened):
    async def scenario():
        async with opened(driver) as connection:
            with record() as seen:
                seen.capture.on_loop(threading.get_ident())
                cursor = await done(connection.cursor())
                await done(cursor.execute("SELECT 1"))
                await done(cursor.fetchall())
                await done(cursor.close())
        return seen

    blocking = {query.blocking for query in asyncio.run(scenario()).queries}
    assert blocking == {not driver.awaits}


def test_another_database_is_followed(driver, record, opened):
    async def scenario():
        async with opened(driver) as connection:
            with record() as seen:
                select = getattr(connection, "select_db", None) or connection.cmd_init_db
                await done(select("mysql"))
                cursor = await done(connection.cursor())
                await done(cursor.execute("SELECT 1"))
                await done(cursor.fetchall())
                await done(cursor.close())
        return seen

    (query,) = asyncio.run(scenario()).queries
    assert query.db.endswith("/mysql")


def test_what_close_leaves_open_is_rolled_back(driver, record, mariadb):
    async def scenario():
        connection = await driver.connect(mariadb)
        with record() as seen:
            await driver.begin(connection)
            cursor = await done(connection.cursor())
            await done(cursor.execute("SELECT 1"))
            await done(cursor.fetchall())
            await done(cursor.close())
            await done(connection.close())
        return seen

    seen = asyncio.run(scenario())
    assert outcomes(seen) == ["rollback"]
    assert len(seen.queries) == 1


def test_concurrent_work_counts_to_its_own_profile(driver, record, opened):
    count = 200 if driver.awaits else 8

    async def work(number, gate=None):
        async with opened(driver) as connection:
            with record() as seen:
                for _ in range(number % 5 + 1):
                    cursor = await done(connection.cursor())
                    await done(cursor.execute("SELECT %s", (number,)))
                    await done(cursor.fetchall())
                    await done(cursor.close())
        return seen.query_count == number % 5 + 1

    async def gathered():
        limit = asyncio.Semaphore(40)

        async def limited(number):
            async with limit:
                return await work(number)

        return await asyncio.gather(*map(limited, range(count)))

    if driver.awaits:
        results = asyncio.run(gathered())
    else:
        results = []
        threads = [
            threading.Thread(target=lambda number=number: results.append(asyncio.run(work(number))))
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [True] * count


@pytest.mark.parametrize("dialect", ["mysqldb", "mysqlconnector"])
def test_sqlalchemy_s_statements_are_one_query_each(record, mariadb, dialect):
    engine = sa.create_engine(url(mariadb, dialect), pool_pre_ping=True)
    with record() as seen:
        for _ in range(2):
            with engine.begin() as connection:
                connection.execute(sa.text("DO :a"), [{"a": 1}, {"a": 2}])
                assert connection.execute(sa.text("SELECT :a"), {"a": 2}).scalar() in {2, "2"}
    engine.dispose()
    assert [query.fingerprint for query in seen.queries][-2:] == ["DO ?", "SELECT ?"]
    assert [query.many for query in seen.queries if query.many] == [2, 2]


@pytest.mark.parametrize("dialect", ["aiomysql", "asyncmy"])
def test_sqlalchemy_s_awaited_statements_are_one_query_each(record, mariadb, dialect):
    async def scenario():
        engine = create_async_engine(url(mariadb, dialect))
        async with engine.begin() as connection:  # asks for the version and the like
            await connection.execute(sa.text("SELECT 1"))
        with record() as seen:
            async with engine.begin() as connection:
                await connection.execute(sa.text("DO :a"), [{"a": 1}, {"a": 2}])
                assert (await connection.execute(sa.text("SELECT :a"), {"a": 2})).scalar() in {2, "2"}
                async with connection.stream(sa.text("SELECT seq FROM seq_1_to_9")) as rows:
                    assert [row.seq async for row in rows] == list(range(1, 10))
        await engine.dispose()
        return seen

    seen = asyncio.run(scenario())
    assert [(query.many, query.wire) for query in seen.queries] == [(2, 2), (None, 1), (None, 1)]
    assert all(" in scenario" in query.caller for query in seen.queries)


def url(server, dialect):
    collated = "&collation=utf8mb4_general_ci" if dialect == "mysqlconnector" else ""
    where = f"{server.user}:{server.password}@{server.host}:{server.port}/{server.database}"
    return f"mysql+{dialect}://{where}?charset=utf8mb4{collated}"


def test_uninstalling_restores_the_identity_of_every_attribute(driver):
    module = driver.imported()
    modules = [module, *(value for value in vars(module).values() if inspect.ismodule(value))]
    owners = {value for one in modules for value in vars(one).values() if isinstance(value, type)}

    def touched():
        return {(owner, name): value for owner in owners for name, value in vars(owner).items()}

    before = touched()
    collector.install(driver.name)
    during = touched()
    collector.uninstall(driver.name)
    after = touched()
    assert {key for key in before if before[key] is not during.get(key)}
    assert before.keys() == after.keys()
    assert [key for key in before if before[key] is not after[key] and not key[1].startswith("__")] == []


def test_coroutine_functions_stay_coroutine_functions(driver, hooked):
    module = driver.imported()
    cursor = getattr(module, "Cursor", None) or getattr(module, "cursor", SimpleNamespace(MySQLCursor=None)).MySQLCursor
    if cursor is not None:
        assert inspect.iscoroutinefunction(cursor.execute) == driver.awaits
