"""SQLAlchemy above drivers that are hooked and drivers that are not, against the servers' own logs."""

from __future__ import annotations

import asyncio
import re
import threading
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, defer, selectinload
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import queue
from sqlalchemy_shop import Base, Customer, Gift, Order

from perf_middleware import collector
from perf_middleware.collector.context import unattributed
from perf_middleware.collector.layers import sqlalchemy as layer
from perf_middleware.errors import faults

LAYER = "sqlalchemy"

ALONE = pytest.mark.parametrize("hooked", [("sqlalchemy",)], ids=["alone"], indirect=True)
EVERY_ORDER = pytest.mark.parametrize(
    "hooked",
    [("sqlalchemy",), ("sqlalchemy", "pymysql", "sqlite3"), ("pymysql", "sqlite3", "sqlalchemy")],
    ids=["alone", "layer first", "driver first"],
    indirect=True,
)
FEWEST_ROWS = 5


def beside(*drivers):
    """Each of these dialects' drivers unhooked, hooked after the layer and hooked before it."""
    orders = [(d, names) for d in drivers for names in (("sqlalchemy",), ("sqlalchemy", d), (d, "sqlalchemy"))]
    return pytest.mark.parametrize(("driver", "hooked"), orders, ids=str, indirect=["hooked"])


def seen_as(seen, *names):
    return [tuple(getattr(query, name) for name in names) for query in seen.queries]


def outcomes(seen):
    return [transaction.outcome for transaction in seen.transactions]


@pytest.fixture
def lite(tmp_path):
    """An engine on a file, opened after the hooks were installed."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'shop.sqlite3'}")
    yield engine
    engine.dispose()


@pytest.fixture
def shop(hooked, lite):
    """The engine, with three orders of one customer in it; the last one is a gift."""
    Base.metadata.create_all(lite)
    with Session(lite) as session:
        session.add(Customer(name="ada", orders=[Order(notes="a"), Order(notes="b"), Gift(notes="c", card="x")]))
        session.commit()
    return lite


@pytest.fixture
def maria(hooked, mariadb):
    """An engine on the private server, with a connection that is open and a table that is empty."""
    made = []

    def engine(driver="pymysql", make=sa.create_engine, **options):
        where = f"{mariadb.user}:{mariadb.password}@{mariadb.host}:{mariadb.port}/{mariadb.database}"
        made.append(make(f"mysql+{driver}://{where}", **options))
        return made[-1]

    yield engine
    for each in made:
        getattr(each, "sync_engine", each).pool.dispose()


@pytest.fixture
def table(connect):
    with connect().cursor() as cursor:
        cursor.execute("CREATE OR REPLACE TABLE layered (id INT PRIMARY KEY, v VARCHAR(40)) ENGINE=InnoDB")


def server_side(connection):
    return SimpleNamespace(thread_id=lambda: connection.execute(sa.text("SELECT CONNECTION_ID()")).scalar())


# ------------------------------------------------------------------------------------------- what must not happen


@EVERY_ORDER
def test_no_statement_is_noted_twice_and_none_is_missed(record, maria, table, sent):
    engine = maria()
    with engine.connect() as connection:
        me = server_side(connection)
        number = me.thread_id()
        connection.rollback()
        before = len(sent(SimpleNamespace(thread_id=lambda: number)))
        with record() as seen:
            connection.execute(sa.text("INSERT INTO layered VALUES (1, 'a'), (2, 'b')"))
            connection.execute(sa.text("SELECT v FROM layered WHERE id = :id"), {"id": 1}).all()
            connection.execute(
                sa.text("UPDATE layered SET v = :v WHERE id = :id"), [{"v": "c", "id": n} for n in (1, 2)]
            )
            connection.commit()
            streamed = connection.execution_options(stream_results=True).execute(sa.text("SELECT * FROM layered"))
            assert len(streamed.all()) == 2
            connection.rollback()
            with pytest.raises(sa.exc.IntegrityError):
                connection.execute(sa.text("INSERT INTO layered VALUES (1, 'secret')"))
            connection.execute(sa.text("DELETE FROM layered"))
            connection.rollback()
        logged = len(sent(SimpleNamespace(thread_id=lambda: number))) - before
    assert sum(query.wire for query in seen.queries) == logged == 7
    assert seen_as(seen, "many", "wire", "error", "system") == [
        (None, 1, None, "mariadb"),
        (None, 1, None, "mariadb"),
        (2, 2, None, "mariadb"),
        (None, 1, None, "mariadb"),
        (None, 1, "IntegrityError 1062", "mariadb"),
        (None, 1, None, "mariadb"),
    ]
    assert [query.transaction for query in seen.queries if query.error is None] == [0, 0, 0, 1, 2]
    assert outcomes(seen) == ["commit", "rollback", "rollback"]
    assert {re.sub(r":\d+", "", query.caller) for query in seen.queries} == {
        "tests/collector/layers/test_sqlalchemy.py in test_no_statement_is_noted_twice_and_none_is_missed"
    }
    assert len({query.db for query in seen.queries}) == 1


def test_a_layer_says_the_database_as_the_driver_does(record, maria, table):
    engine = maria()
    found = []
    for names in (("sqlalchemy",), ("pymysql",)):
        collector.uninstall("pymysql", "sqlalchemy")
        collector.install(*names)
        try:
            with record() as seen, engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))
        finally:
            collector.uninstall(*names)
            collector.install("pymysql", "sqlalchemy")
        found += seen_as(seen, "db", "system")
    assert found[0] == found[1]


@EVERY_ORDER
def test_the_application_s_errors_are_the_driver_s_own_and_their_messages_are_not_told(record, shop):
    with record() as seen, shop.connect() as connection:
        with pytest.raises(sa.exc.IntegrityError) as failed:
            connection.execute(sa.text("INSERT INTO customer VALUES (1, 'ada')"))
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("SELECT 'secret' FROM missing"))
        with pytest.raises(sa.exc.StatementError):
            connection.execute(sa.insert(Customer), [{"name": "x"}, {"no": 1}])
    assert type(failed.value.orig).__name__ == "IntegrityError"
    assert [query.error for query in seen.queries] == [
        "IntegrityError SQLITE_CONSTRAINT_PRIMARYKEY",
        "OperationalError SQLITE_ERROR",
    ]


def test_uninstalling_restores_every_method_and_leaves_no_listener(shop):
    listeners = {
        "before_cursor_execute": layer._before_cursor_execute,
        "after_cursor_execute": layer._after_cursor_execute,
        "handle_error": layer._handle_error,
    }
    assert all(event.contains(Engine, name, listener) for name, listener in listeners.items())
    collector.uninstall("sqlalchemy")
    methods = [vars(Connection)[name] for name in layer._ENDS] + [queue.Queue.get, queue.AsyncAdaptedQueue.get]
    assert not any(event.contains(Engine, name, listener) for name, listener in listeners.items())
    assert not any(hasattr(method, "__wrapped__") for method in methods)
    collector.install("sqlalchemy")
    assert all(hasattr(vars(Connection)[name], "__wrapped__") for name in layer._ENDS)
    collector.uninstall("sqlalchemy")
    assert [vars(Connection)[name] for name in layer._ENDS] == methods[: len(layer._ENDS)]
    collector.install("sqlalchemy")


@EVERY_ORDER
def test_a_statement_outside_every_profile_is_unattributed_once(record, shop, hooked):
    with shop.connect() as connection:
        with record():
            connection.execute(sa.text("SELECT 1"))  # until then a layer cannot know whether it is alone
        before = unattributed.count
        connection.execute(sa.text("SELECT 2"))
        assert unattributed.count - before == 1


@ALONE
def test_uninstalled_nothing_is_noted_and_connections_go_on(record, shop):
    with record() as seen, shop.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        collector.uninstall("sqlalchemy")
        try:
            assert connection.execute(sa.text("SELECT 2")).scalar() == 2
            connection.commit()
        finally:
            collector.install("sqlalchemy")
        connection.execute(sa.text("SELECT 3"))
    assert len(seen.queries) == 2


@EVERY_ORDER
@pytest.mark.parametrize("keep", [0, FEWEST_ROWS])
def test_statements_beyond_those_kept_are_counted_once(record, shop, keep):
    with record(keep=keep) as seen, shop.connect() as connection:
        for number in range(2500):
            connection.exec_driver_sql(f"SELECT {number}")
    assert seen.query_count == 2500
    assert len(seen.queries) == keep


def test_threads_of_one_profile_do_not_take_each_other_s_relations(record, shop, tmp_path):
    from contextvars import copy_context  # noqa: PLC0415 - beside what it is for

    def load(name):
        with Session(shop) as session:
            for _ in range(20):
                for order in session.scalars(sa.select(Order)):
                    assert order.customer.name == "ada"
                session.expunge_all()

    with record() as seen:
        threads = [threading.Thread(target=copy_context().run, args=(load, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen.query_count == 4 * 20 * 2
    for query in seen.queries:
        assert query.relation in ({"Order.customer", None} if "FROM customer" in query.fingerprint else {None})


# --------------------------------------------------------------------------------------------------------- statements


@EVERY_ORDER
def test_rows_that_go_as_one_statement_are_no_executemany(record, shop):
    names = [{"name": name} for name in "bcd"]
    with record() as seen, shop.connect() as connection:
        assert len(connection.execute(sa.insert(Customer).returning(Customer.id), names).all()) == 3
    assert seen_as(seen, "many", "wire", "list_size") == [(None, 1, 3)]


@EVERY_ORDER
def test_the_text_is_the_one_that_was_sent_whoever_changed_it(record, shop):
    def comment(connection, cursor, statement, parameters, *rest):
        return statement.replace("SELECT", "SELECT DISTINCT"), parameters

    event.listen(shop, "before_cursor_execute", comment, retval=True)
    with record() as seen, shop.connect() as connection:
        connection.execute(sa.text("SELECT name FROM customer"))
    assert [query.fingerprint for query in seen.queries] == ["SELECT DISTINCT name FROM customer"]


@ALONE
def test_an_engine_made_and_connected_before_the_hooks_is_seen(record, shop):
    collector.uninstall("sqlalchemy")
    with shop.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        collector.install("sqlalchemy")
        with record() as seen:
            connection.execute(sa.text("SELECT 2"))
    assert len(seen.queries) == 1


@ALONE
def test_parameters_are_told_apart_and_never_kept(record, shop):
    with record() as seen, shop.connect() as connection:
        for name in ("secret", "secret", "other"):
            connection.execute(sa.select(Customer.id).where(Customer.name == name))
    first, second, third = (query.params_hash for query in seen.queries)
    assert first == second != third
    assert "secret" not in repr(seen.queries)


@ALONE
def test_autocommit_has_no_transactions(record, maria, table):
    engine = maria(isolation_level="AUTOCOMMIT")
    with record() as seen, engine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM layered"))
    assert (len(seen.queries), seen.transactions) == (1, [])
    with record() as seen, maria().connect() as connection:
        connection.execute(sa.text("SELECT * FROM layered"))
    assert (len(seen.queries), outcomes(seen)) == (1, ["rollback"])


@ALONE
def test_a_connection_lost_ends_its_transaction(record, maria, table, connect):
    engine = maria()
    with record() as seen, engine.connect() as connection:
        connection.execute(sa.text("INSERT INTO layered VALUES (1, 'a')"))
        with connect().cursor() as cursor:
            cursor.execute(f"KILL {connection.connection.driver_connection.thread_id()}")
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("INSERT INTO layered VALUES (2, 'b')"))
    assert [query.transaction for query in seen.queries] == [0, 0]
    assert outcomes(seen) == ["rollback"]


@pytest.mark.parametrize(
    ("dialect", "system"),
    [("mssql", "microsoft.sql_server"), ("oracle", "oracle.db"), ("postgresql", "postgresql"), ("sqlite", "sqlite")],
)
def test_systems_have_opentelemetry_s_names(dialect, system):
    assert layer._system(sa.dialects.registry.load(dialect)()) == system


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("sqlite://", ":memory:"),
        ("sqlite:////srv/a.db?key=secret", "/srv/a.db"),
        ("sqlite:///file:a.db?mode=ro&key=secret&uri=true", "file:a.db"),
        ("mysql+pymysql://ada:secret@db:3307/shop?ssl_key=secret", "db:3307/shop"),
        ("oracle+oracledb://ada:secret@db/?service_name=x", "db/"),
        ("postgresql:///shop", "/shop"),
    ],
)
def test_no_credentials_are_in_a_database_s_name(url, database):
    assert layer._database(sa.make_url(url)) == database


# ---------------------------------------------------------------------------------------------------------- relations


@EVERY_ORDER
def test_eager_loads_and_plain_statements_load_no_relation_lazily(record, shop):
    with record() as seen, Session(shop) as session:
        session.scalars(sa.select(Customer).options(selectinload(Customer.orders))).all()
        session.get(Order, 1)
        session.execute(sa.select(Customer.id, Order.id).join(Customer.orders)).all()
        session.execute(sa.update(Order).values(notes="")).rowcount  # noqa: B018 - the statement is the subject
    assert len(seen.queries) >= 4
    assert {query.relation for query in seen.queries} == {None}


@EVERY_ORDER
def test_lazy_loads_are_known_by_their_relationship(record, shop):
    with record() as seen, Session(shop) as session:
        customer = session.scalars(sa.select(Customer)).one()
        orders = list(customer.orders)
        session.expunge(customer)
        session.expire(orders[0], ["customer"])
        assert orders[0].customer.name == "ada"
    assert [query.relation for query in seen.queries if "WHERE" in query.fingerprint][:2] == [
        "Customer.orders",
        "Order.customer",
    ]
    assert seen.queries[0].relation is None


@EVERY_ORDER
def test_columns_loaded_late_are_known_by_their_attribute_or_by_their_class(record, shop):
    with Session(shop) as session:
        plain, _, gift = session.scalars(sa.select(Order).order_by(Order.id)).all()
        with record() as seen:
            assert plain.notes == "a"
            session.refresh(plain)
            assert gift.card == "x"
        with record() as rest:
            session.expire_all()
            assert plain.kind == "order"
        with record() as deferred:
            customer = session.scalars(sa.select(Customer).options(defer(Customer.name))).one()
            assert customer.name == "ada"
    assert [query.relation for query in seen.queries] == ["Order.notes", "Order", "Gift"]
    assert [query.relation for query in rest.queries] == ["Order"]
    assert deferred.queries[-1].relation == "Customer.name"


# ------------------------------------------------------------------------------------------------- pool


def wait_for_the_only_connection(engine):
    """One thread holds it until another is waiting for it."""
    waiting = threading.Event()

    class Telling(queue.Queue):
        def get(self, block=True, timeout=None):  # noqa: FBT002 - SQLAlchemy's own signature
            if block and not self.qsize():
                waiting.set()
            return super().get(block, timeout)

    engine.pool._pool.__class__ = Telling
    return waiting


@EVERY_ORDER
def test_waiting_for_a_connection_is_told_by_the_next_query_and_by_no_duration(record, tmp_path, hooked):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'one.sqlite3'}", pool_size=1, max_overflow=0)
    waiting = wait_for_the_only_connection(engine)
    with record():
        held = engine.connect()
        held.execute(sa.text("SELECT 0"))

    def give_back():
        waiting.wait(10)
        held.close()

    thread = threading.Thread(target=give_back)
    thread.start()
    with record() as seen, engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        connection.execute(sa.text("SELECT 2"))
    thread.join()
    first, second = seen.queries
    assert first.wait_ms > 0
    assert second.wait_ms is None
    assert seen.capture.waited_ns // 1000 / 1000 == first.wait_ms
    assert first.start_ms >= first.wait_ms
    engine.dispose()


@ALONE
def test_where_nobody_waits_the_wait_is_known_to_be_none(record, shop):
    with record() as seen:
        pass
    assert seen.capture.waited_ns is None
    with record() as seen, shop.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert (seen.capture.waited_ns, seen.queries[0].wait_ms) == (0, None)


def test_a_wait_that_ends_in_nothing_raises_what_it_raises_without_us(record, tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'a.sqlite3'}", pool_size=1, max_overflow=0, pool_timeout=0.01)
    with record(), engine.connect(), pytest.raises(sa.exc.TimeoutError):
        engine.connect()
    engine.dispose()


# -------------------------------------------------------------------------------------------------------------- async


def lazily(session):
    return session.scalars(sa.select(Order)).first().customer.name


@pytest.mark.parametrize(
    "hooked",
    [("sqlalchemy",), ("sqlite3", "sqlalchemy"), ("sqlalchemy", "aiosqlite", "sqlite3"), ("aiosqlite", "sqlalchemy")],
    ids=str,
    indirect=True,
)
@pytest.mark.parametrize("on_loop", [False, True], ids=["", "in a request"])
def test_async_statements_have_the_line_that_awaits_or_the_one_inside_run_sync(record, shop, tmp_path, on_loop):
    async def run():
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.sqlite3'}")
        async with AsyncSession(engine) as session:
            with record() as seen:
                if on_loop:
                    seen.capture.on_loop(threading.get_ident())
                await session.scalars(sa.select(Order))
                await session.run_sync(lazily)
                await session.commit()
        await engine.dispose()
        return seen

    seen = asyncio.run(run())
    assert [re.sub(r".*:\d+ in ", "", query.caller) for query in seen.queries] == ["run", "lazily", "lazily"]
    assert [query.relation for query in seen.queries] == [None, None, "Order.customer"]
    assert not any(query.blocking for query in seen.queries)


@beside("aiomysql", "asyncmy")
def test_async_statements_are_what_the_server_s_log_has(record, maria, table, sent, driver):
    async def run():
        engine = maria(driver, create_async_engine, connect_args={"ssl": None})
        async with engine.connect() as connection:
            number = (await connection.execute(sa.text("SELECT CONNECTION_ID()"))).scalar()
            await connection.rollback()
            me = SimpleNamespace(thread_id=lambda: number)
            before = len(sent(me))
            with record() as seen:
                await connection.execute(sa.text("INSERT INTO layered VALUES (1, 'a')"))
                await connection.execute(sa.text("UPDATE layered SET v = :v"), [{"v": "b"}, {"v": "c"}])
                await connection.commit()
                with pytest.raises(sa.exc.IntegrityError):
                    await connection.execute(sa.text("INSERT INTO layered VALUES (1, 'a')"))
                result = await connection.stream(sa.text("SELECT * FROM layered"))
                assert len(await result.all()) == 1
            logged = len(sent(me)) - before
        await engine.dispose()
        return seen, logged

    seen, logged = asyncio.run(run())
    assert sum(query.wire for query in seen.queries) == logged == 5
    assert seen_as(seen, "many", "error") == [(None, None), (2, None), (None, "IntegrityError 1062"), (None, None)]
    assert [query.transaction for query in seen.queries if query.error is None] == [0, 0, 1]
    assert outcomes(seen) == ["commit", "open"]


@beside("psycopg", "psycopg2")
def test_no_statement_of_postgresql_is_noted_twice_and_none_is_missed(record, postgresql, driver, hooked):
    engine = sa.create_engine(postgresql.url.replace("postgresql", f"postgresql+{driver}"))
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE TEMPORARY TABLE layered (id INT PRIMARY KEY, v TEXT)"))
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar()
        connection.commit()
        before = len(postgresql.sent(pid))
        with record() as seen:
            connection.execute(sa.text("INSERT INTO layered VALUES (1, 'a'), (2, 'b')"))
            connection.execute(
                sa.text("UPDATE layered SET v = :v WHERE id = :id"), [{"v": "c", "id": n} for n in (1, 2)]
            )
            connection.commit()
            assert len(connection.execute(sa.text("SELECT v FROM layered WHERE id < :id"), {"id": 9}).all()) == 2
            with pytest.raises(sa.exc.IntegrityError):
                connection.execute(sa.text("INSERT INTO layered VALUES (1, 'secret')"))
            connection.rollback()
        sent = postgresql.sent(pid)[before:]
    engine.dispose()
    assert sum(query.wire for query in seen.queries) == len(sent) == 5
    assert [(query.many, query.transaction) for query in seen.queries] == [(None, 0), (2, 0), (None, 1), (None, 1)]
    assert [query.error for query in seen.queries if query.error] == ["UniqueViolation 23505"]
    assert outcomes(seen) == ["commit", "rollback"]
    assert {(query.db, query.system) for query in seen.queries} == {(postgresql.db, "postgresql")}


@beside("asyncpg", "psycopg")
def test_no_async_statement_of_postgresql_is_noted_twice_and_none_is_missed(record, postgresql, driver, hooked):
    async def run():
        engine = create_async_engine(postgresql.url.replace("postgresql", f"postgresql+{driver}"))
        async with engine.connect() as connection:
            pid = (await connection.execute(sa.text("SELECT pg_backend_pid()"))).scalar()
            await connection.commit()
            before = len(postgresql.sent(pid))
            with record() as seen:
                seen.capture.on_loop(threading.get_ident())
                await connection.execute(sa.text("SELECT 1"))
                await connection.commit()
                await connection.run_sync(lambda sync: sync.execute(sa.text("SELECT 2")))
                with pytest.raises(sa.exc.ProgrammingError):
                    await connection.execute(sa.text("SELECT 1 / 0 AS secret WHERE nothing"))
                await connection.rollback()
            logged = len(postgresql.sent(pid)) - before
        await engine.dispose()
        return seen, logged

    seen, logged = asyncio.run(run())
    assert len(seen.queries) == logged == 3
    assert outcomes(seen) == ["commit", "rollback"]
    assert [query.caller.rpartition(" in ")[2] for query in seen.queries] == ["run", "run.<lambda>", "run"]
    assert seen.queries[2].error.endswith("42703")
    assert not any(query.blocking for query in seen.queries)


@EVERY_ORDER
def test_200_tasks_at_once_have_each_their_own_statements_and_waits(record, shop, tmp_path):
    async def one(engine, number):
        with record() as seen:
            async with AsyncSession(engine) as session:
                for _ in range(number % 3):
                    await session.execute(sa.text(f"SELECT {number} AS n{number}"))
                await session.run_sync(lazily)
        return seen

    async def run():
        url, pool = f"sqlite+aiosqlite:///{tmp_path / 'shop.sqlite3'}", AsyncAdaptedQueuePool
        engine = create_async_engine(url, poolclass=pool, pool_size=5, max_overflow=0)
        seen = await asyncio.gather(*[one(engine, number) for number in range(200)])
        await engine.dispose()
        return seen

    for number, seen in enumerate(asyncio.run(run())):
        own = [query for query in seen.queries if query.relation is None]
        assert len(seen.queries) == number % 3 + 2
        assert [query.fingerprint for query in own[:-1]] == [f"SELECT ? AS n{number}"] * (number % 3)
        assert seen.queries[-1].relation == "Order.customer"
        assert seen.capture.waited_ns is not None


# ------------------------------------------------------------------------------------------------------ our own faults


def test_a_fault_of_ours_reaches_nobody(record, shop, monkeypatch):
    monkeypatch.setattr(layer, "_target", lambda connection: 1 / 0)
    with record() as seen, shop.connect() as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar() == 1
    assert len(seen.queries) == 1  # the driver's
    assert list(faults) == ["sqlalchemy: ZeroDivisionError"]
    faults.clear()


def test_a_version_without_what_is_hooked_stays_unhooked(monkeypatch):
    monkeypatch.delattr(Connection, "_commit_impl")
    collector.install("sqlalchemy")
    assert collector.status()["sqlalchemy"] == "not hooked"
    collector.uninstall("sqlalchemy")
    assert list(faults) == ["hook sqlalchemy: AttributeError"]
    faults.clear()
