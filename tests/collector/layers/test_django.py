"""Django's database layer above drivers that are hooked and drivers that are not, against the servers' own logs."""

from __future__ import annotations

import asyncio
import re
import sys
from importlib import import_module
from types import SimpleNamespace

import django
import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.contenttypes", "django_shop"],
    LOGGING_CONFIG=None,
    USE_TZ=True,
)
django.setup()

from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorDebugWrapper, CursorWrapper
from django.db.models import prefetch_related_objects, sql
from django.db.models.fields import related_descriptors
from django.db.models.query_utils import DeferredAttribute
from django.db.transaction import TransactionManagementError
from django_shop.models import MODELS, Card, Customer, Order, Remark, Tag

from perf_middleware import collector
from perf_middleware.collector.context import unattributed
from perf_middleware.collector.layers import django as layer
from perf_middleware.errors import faults

LAYER = "django"

ALONE = pytest.mark.parametrize("hooked", [("django",)], ids=["alone"], indirect=True)
EVERY_ORDER = pytest.mark.parametrize(
    "hooked",
    [("django",), ("django", "pymysql", "sqlite3"), ("pymysql", "sqlite3", "django")],
    ids=["alone", "layer first", "driver first"],
    indirect=True,
)
ON_MARIADB = pytest.mark.parametrize("site", ["mariadb"], indirect=True)
ON_BOTH = pytest.mark.parametrize("site", ["sqlite", "mariadb"], indirect=True)

STEERS = re.compile(r"BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET|PRAGMA")


def use(**database):
    """Have the default database be this one, in this thread."""
    connections.settings["default"] = {**connections.settings["default"], "OPTIONS": {}, **database}
    forget()


def forget():
    if hasattr(connections._connections, "default"):
        connections["default"].close()
        del connections["default"]


@pytest.fixture(scope="session")
def mysqldb():
    """Django's MySQL backend on PyMySQL, whose modules are called MySQLdb for no longer than the import takes."""
    import_module("pymysql.converters")
    ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "pymysql"}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[0] == "MySQLdb"]:
            patch.delitem(sys.modules, name)
        for name, module in ours.items():
            patch.setitem(sys.modules, name.replace("pymysql", "MySQLdb"), module)
        import_module("django.db.backends.mysql.base")


@pytest.fixture
def site(request, hooked, tmp_path):
    """An empty shop on the database the parameter names, and what its own log says was sent to it."""
    if getattr(request, "param", "sqlite") == "sqlite":
        use(ENGINE="django.db.backends.sqlite3", NAME=str(tmp_path / "shop.sqlite3"))
        log = []

        def sent():
            connection.connection.set_trace_callback(log.append)
            return [text for text in log if not STEERS.match(text)]
    else:
        request.getfixturevalue("mysqldb")
        server = request.getfixturevalue("mariadb")
        logged = request.getfixturevalue("sent")
        use(
            ENGINE="django.db.backends.mysql",
            NAME=server.database,
            USER=server.user,
            PASSWORD=server.password,
            HOST=server.host,
            PORT=server.port,
            OPTIONS={"ssl_disabled": True},
        )

        def sent():
            return logged(SimpleNamespace(thread_id=connection.connection.thread_id))

    with connection.schema_editor() as editor:
        for model in (ContentType, *MODELS):
            editor.create_model(model)
    ContentType.objects.clear_cache()
    yield SimpleNamespace(sent=sent)
    with connection.schema_editor() as editor:
        for model in (*MODELS[::-1], ContentType):
            editor.delete_model(model)
    forget()


@pytest.fixture
def shop(site):
    """Two orders of one customer, with a card, two tags and a remark."""
    ada = Customer.objects.create(name="ada")
    orders = [Order.objects.create(customer=ada, notes=notes) for notes in "ab"]
    orders[0].tags.set([Tag.objects.create(word=word) for word in "xy"])
    Card.objects.create(customer=ada)
    Remark.objects.create(about=ada)
    return site


def relations(seen):
    return [query.relation for query in seen.queries]


def outcomes(seen):
    return [each.outcome for each in seen.transactions]


# ------------------------------------------------------------------------------------------- what must not happen


@ON_BOTH
@EVERY_ORDER
def test_no_statement_is_noted_twice_and_none_is_missed(record, shop):
    before = len(shop.sent())
    with record() as seen:
        with transaction.atomic():
            Customer.objects.create(name="bob")
            with connection.cursor() as cursor:
                cursor.executemany("UPDATE django_shop_order SET notes = %s WHERE id = %s", [("c", 1), ("d", 2)])
        assert list(Order.objects.values_list("notes", flat=True)) == ["c", "d"]
        assert len(list(Order.objects.iterator(chunk_size=1))) == 2
        with pytest.raises(IntegrityError), transaction.atomic():  # noqa: PT012 - the transaction is the subject
            Tag.objects.create(word="z")
            Customer.objects.create(name="ada")
    sent = shop.sent()[before:]
    assert sum(query.wire for query in seen.queries) == len(sent) == 7
    assert [(query.many, query.transaction) for query in seen.queries] == [
        *((None, 0), (2, 0), (None, None), (None, None), (None, 1), (None, 1))
    ]
    failed = seen.queries[-1].error
    assert failed in ("IntegrityError 1062", "IntegrityError SQLITE_CONSTRAINT_UNIQUE")
    assert outcomes(seen) == ["commit", "rollback"]
    assert {re.sub(r":\d+", "", query.caller) for query in seen.queries} == {
        "tests/collector/layers/test_django.py in test_no_statement_is_noted_twice_and_none_is_missed"
    }
    assert len({(query.db, query.system) for query in seen.queries}) == 1


@ON_BOTH
def test_a_layer_says_the_database_as_the_driver_does(record, shop):
    found = []
    for names in (("django",), ("pymysql", "sqlite3")):
        collector.uninstall("pymysql", "sqlite3", "django")
        collector.install(*names)
        forget()
        try:
            with record() as seen:
                Tag.objects.first()
        finally:
            collector.uninstall(*names)
            collector.install("pymysql", "sqlite3", "django")
            forget()
        found.append((seen.queries[-1].db, seen.queries[-1].system))
    assert found[0] == found[1]


@EVERY_ORDER
def test_what_django_does_not_hand_down_is_no_query(record, shop):
    with record() as seen, pytest.raises(TransactionManagementError), transaction.atomic():  # noqa: PT012 - likewise
        transaction.set_rollback(True)
        Customer.objects.first()
    assert seen.queries == []


@EVERY_ORDER
def test_the_application_s_errors_stay_what_they_are_and_their_messages_are_not_told(record, shop):
    with record() as seen, pytest.raises(IntegrityError) as failed:
        Customer.objects.create(name="ada")
    assert type(failed.value.__cause__).__module__ == "sqlite3"
    assert "ada" not in repr(seen.queries)


@EVERY_ORDER
def test_a_statement_outside_every_profile_is_unattributed_once(record, shop):
    with record():
        Tag.objects.first()  # until then a layer cannot know whether it is alone
    before = unattributed.count
    Tag.objects.first()
    assert unattributed.count - before == 1


def test_uninstalling_restores_every_method_those_of_managers_too(record, shop):
    places = [
        *((CursorWrapper, name) for name in ("_execute", "_executemany", "callproc")),
        *((BaseDatabaseWrapper, name) for name in layer._ENDS),
        (related_descriptors.ForwardManyToOneDescriptor, "get_object"),
        (related_descriptors.ReverseOneToOneDescriptor, "__get__"),
        (related_descriptors.ReverseManyToOneDescriptor, "__get__"),
        (DeferredAttribute, "__get__"),
        (sql.compiler.SQLCompiler, "execute_sql"),
        (SyncToAsync, "__call__"),
        (Customer.orders.related_manager_cls, "_apply_rel_filters"),
    ]
    with record() as seen:
        Customer.objects.get().orders.count()
    wrapped = [vars(owner)[name].__wrapped__ for owner, name in places]
    collector.uninstall("django")
    try:
        assert [vars(owner)[name] for owner, name in places] == wrapped
        assert Customer.objects.get().orders.count() == 2
    finally:
        collector.install("django")
    with record() as again:
        Customer.objects.get().orders.count()
    assert relations(seen) == relations(again) == [None, "Customer.orders"]


@EVERY_ORDER
def test_wrappers_and_the_debug_cursor_of_the_application_still_wrap(record, shop, monkeypatch):
    texts = []

    def wrapper(execute, sql, params, many, context):
        texts.append(sql)
        return execute(f"{sql} -- theirs", params, many, context)

    monkeypatch.setattr(connections["default"], "force_debug_cursor", True)
    with record() as seen, connection.execute_wrapper(wrapper), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert isinstance(cursor, CursorDebugWrapper)
    assert connection.execute_wrappers == []
    assert (texts, len(seen.queries)) == (["SELECT 1"], 1)


@EVERY_ORDER
@pytest.mark.parametrize("keep", [0, 5])
def test_statements_beyond_those_kept_are_counted_once(record, shop, keep):
    with record(keep=keep) as seen, connection.cursor() as cursor:
        for number in range(2500):
            cursor.execute(f"SELECT {number}")
    assert (seen.query_count, len(seen.queries)) == (2500, keep)


# --------------------------------------------------------------------------------------------------------- statements


@ALONE
def test_a_connection_opened_before_the_hooks_is_seen(record, shop):
    collector.uninstall("django")
    Tag.objects.first()
    collector.install("django")
    with record() as seen:
        Tag.objects.first()
    assert len(seen.queries) == 1


@EVERY_ORDER
@pytest.mark.parametrize("make", [list, iter])
def test_executemany_counts_its_sets_however_they_come(record, shop, make):
    with record() as seen, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO django_shop_tag (word) VALUES (%s)", make([("a",), ("b",), ("c",)]))
        cursor.executemany("INSERT INTO django_shop_tag (word) VALUES (%s)", make([]))
    assert [(query.many, query.wire, query.rows) for query in seen.queries] == [(3, 3, 3)]
    assert Tag.objects.count() == 5


@ON_MARIADB
@EVERY_ORDER
def test_a_stored_procedure_is_one_query(record, shop):
    with connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE PROCEDURE twice(IN a INT) BEGIN SELECT a; END")
        with record() as seen:
            cursor.callproc("twice", (3,))
            assert cursor.fetchall() == ((3,),)
    assert [query.fingerprint for query in seen.queries] == ["CALL `twice`(?)"]


@ALONE
def test_parameters_are_told_apart_and_never_kept(record, shop):
    with record() as seen:
        for name in ("secret", "secret", "other"):
            Customer.objects.filter(name=name).first()
    first, second, third = (query.params_hash for query in seen.queries)
    assert first == second != third
    assert "secret" not in repr(seen.queries)


@ALONE
def test_a_commit_that_fails_leaves_the_transaction_to_the_rollback(record, shop, monkeypatch):
    def failing():
        raise DatabaseError

    with record() as seen, pytest.raises(DatabaseError), transaction.atomic():  # noqa: PT012 - likewise
        Tag.objects.create(word="z")
        monkeypatch.setattr(connections["default"], "_commit", failing)
    assert outcomes(seen) == ["rollback"]


@ALONE
def test_closing_rolls_back_what_is_open(record, shop):
    with record() as seen:
        transaction.set_autocommit(False)
        Tag.objects.create(word="z")
        connection.close()
    assert outcomes(seen) == ["rollback"]
    assert Tag.objects.count() == 2


# ---------------------------------------------------------------------------------------------------------- relations


@EVERY_ORDER
def test_eager_loads_and_plain_statements_load_no_relation_lazily(record, shop):
    with record() as seen:
        for order in Order.objects.select_related("customer").prefetch_related("tags"):
            assert order.customer.name == "ada"
            assert len(order.tags.all()) in (0, 2)
        customers = list(Customer.objects.prefetch_related("orders", "remarks"))
        prefetch_related_objects(customers, "card")
        assert customers[0].card.customer.name == "ada"
        Order.objects.filter(customer__name="ada").count()
    assert len(seen.queries) == 7
    assert set(relations(seen)) == {None}


@ON_BOTH
@EVERY_ORDER
def test_lazy_loads_are_known_by_their_relation(record, shop):
    order, customer = Order.objects.first(), Customer.objects.get()
    with record() as seen:
        assert order.customer.name == "ada"
        assert customer.card.pk
        assert Card.objects.get().customer.name == "ada"
        assert customer.orders.count() == 2
        assert customer.orders.filter(notes="a").exists()
        assert len(order.tags.all()) == 2
        assert Tag.objects.first().tagged.get() == order
        assert customer.remarks.get().object_id == customer.pk
        assert Order.objects.first().pk
    assert [relation for relation in relations(seen) if relation] == [
        *("Order.customer", "Customer.card", "Card.customer", "Customer.orders", "Customer.orders"),
        *("Order.tags", "Tag.tagged", "Customer.remarks"),
    ]
    assert relations(seen)[-1] is None


@EVERY_ORDER
def test_deferred_columns_are_known_by_their_field(record, shop):
    order = Order.objects.only("id").first()
    with record() as seen:
        assert order.notes == order.notes == "a"
        assert order.customer_id
    assert relations(seen) == ["Order.notes", "Order.customer_id"]


@EVERY_ORDER
def test_a_block_inside_another_tells_the_relation_to_both(record, shop):
    order = Order.objects.first()
    with record() as outer, record() as inner:
        assert order.customer.name == "ada"
    assert relations(outer) == relations(inner) == ["Order.customer"]
    assert outer.query_count == inner.query_count == 1


@EVERY_ORDER
def test_what_a_load_sets_off_is_not_the_load(record, shop):
    from django.db.models.signals import post_init  # noqa: PLC0415 - beside what it is for

    def more(**kwargs):
        Tag.objects.first()

    order = Order.objects.first()
    post_init.connect(more, sender=Customer)
    try:
        with record() as seen:
            assert order.customer.name == "ada"
    finally:
        post_init.disconnect(more, sender=Customer)
    assert relations(seen) == ["Order.customer", None]


# -------------------------------------------------------------------------------------------------------------- async


def run(main):
    """As Django does it: its statements in one thread, whose connection is closed at the end."""

    async def running():
        try:
            return await main()
        finally:
            await sync_to_async(forget)()

    return asyncio.run(running())


@EVERY_ORDER
def test_async_statements_have_the_line_that_awaits(record, shop):
    async def main():
        await Tag.objects.acount()
        with record() as seen:
            await Order.objects.afirst()
            async for order in Order.objects.select_related("customer"):
                assert order.customer.name == "ada"
            await sync_to_async(inside)()
        return seen

    def inside():
        return Tag.objects.count()

    seen = run(main)
    assert [re.sub(r".*:(\d+) in ", "", query.caller) for query in seen.queries] == ["main", "main", "inside"]
    first, second, _ = (int(re.search(r":(\d+) in", query.caller)[1]) for query in seen.queries)
    assert second == first + 1


@EVERY_ORDER
def test_200_tasks_at_once_have_each_their_own_statements_and_callers(record, shop):
    async def one(number):
        with record() as seen:
            for _ in range(number % 3):
                await Tag.objects.acount()
            order = await Order.objects.afirst()
            await sync_to_async(lambda: order.customer)()
        return seen

    async def main():
        await Tag.objects.acount()
        return await asyncio.gather(*[one(number) for number in range(200)])

    for number, seen in enumerate(run(main)):
        assert relations(seen) == [None] * (number % 3 + 1) + ["Order.customer"]
        assert all(query.caller.startswith("tests/collector/layers/test_django.py") for query in seen.queries)


def test_a_bridge_to_threads_stays_a_coroutine_function(hooked):
    from inspect import iscoroutinefunction  # noqa: PLC0415 - beside what it is for

    assert iscoroutinefunction(SyncToAsync.__call__)


# ------------------------------------------------------------------------------------------------------ our own faults


def test_a_fault_of_ours_reaches_nobody(record, shop, monkeypatch):
    monkeypatch.setattr(layer, "_target", lambda connection: 1 / 0)
    with record() as seen:
        assert Tag.objects.count() == 2
    assert len(seen.queries) == 1  # the driver's
    assert list(faults) == ["django: ZeroDivisionError"]
    faults.clear()


def test_a_version_without_what_is_hooked_stays_unhooked(monkeypatch):
    monkeypatch.delattr(CursorWrapper, "_execute")
    collector.install("django")
    assert collector.status()["django"] == "not hooked"
    collector.uninstall("django")
    assert list(faults) == ["hook django.db.models: AttributeError"]
    faults.clear()
