"""Installing and uninstalling: counted, in any order, and nothing is left behind."""

from __future__ import annotations

import importlib
import sqlite3
import subprocess
import sys
import types
from importlib.metadata import EntryPoint

import pymysql
import pytest

from perf_middleware import collector
from perf_middleware.collector.hooking import Hook
from perf_middleware.collector.patching import Patches
from perf_middleware.errors import OptionError, faults


def touched():
    """Every attribute of the drivers, so that a new patch cannot be forgotten here."""
    owners = [sqlite3, sqlite3.dbapi2, pymysql, pymysql.connections.Connection]
    owners += [getattr(pymysql.cursors, name) for name in ("Cursor", "SSCursor", "DictCursor", "SSDictCursor")]
    return {(owner, name): value for owner in owners for name, value in vars(owner).items() if name[:2] != "__"}


def same(one, other):
    return one.keys() == other.keys() and all(one[key] is other[key] for key in one)


# ------------------------------------------------------------------------------------------- what must not happen


def test_an_unknown_driver_is_refused_with_those_known():
    with pytest.raises(OptionError, match=r"unknown name 'oracle'; known: .*pymysql, .*sqlite3"):
        collector.install("oracle")


def test_a_module_is_not_imported_by_us():
    code = "import sys; from perf_middleware import collector; collector.install(); print('pymysql' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_version_without_an_attribute_stays_unhooked_with_one_fault_and_works():
    code = """
import logging; logging.disable()
import pymysql
del pymysql.connections.Connection.select_db
whole = dict(vars(pymysql.cursors.Cursor))
from perf_middleware import collector
from perf_middleware.errors import faults
collector.install("pymysql")
assert all(vars(pymysql.cursors.Cursor)[name] is value for name, value in whole.items())
print(dict(faults), collector.status())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'hook pymysql: AttributeError': 1} {'pymysql': 'not hooked'}\n"


# ---------------------------------------------------------------------------------------------------- what must


def test_uninstalling_restores_the_identity_of_everything():
    before = touched()
    collector.install("pymysql", "sqlite3")
    assert not same(touched(), before)
    collector.uninstall("sqlite3")
    collector.uninstall("pymysql")
    assert same(touched(), before)


def test_installing_is_counted_and_uninstalling_too_often_is_harmless():
    before = touched()
    collector.install("sqlite3")
    hooked = touched()
    collector.install("sqlite3")
    assert same(touched(), hooked)
    collector.uninstall("sqlite3")
    assert same(touched(), hooked)
    collector.uninstall("sqlite3")
    collector.uninstall("sqlite3")
    assert same(touched(), before)
    assert collector.status()["sqlite3"] == "uninstalled"
    collector.install("sqlite3")
    assert collector.status()["sqlite3"] == "hooked"
    collector.uninstall("sqlite3")


def test_below_another_tool_ours_falls_silent_and_says_so():
    hook = Hook(collector._load("sqlite3"))
    plain = sqlite3.connect
    hook.install()
    ours = sqlite3.connect
    calls = []

    def another(*args, **kwargs):
        calls.append(args)
        return ours(*args, **kwargs)

    sqlite3.connect = another
    hook.uninstall()
    try:
        assert hook.covered == ["sqlite3.connect"]
        assert hook.status() == "uninstalled (silent below another tool: sqlite3.connect)"
        assert sqlite3.dbapi2.connect is plain
        connection = sqlite3.connect(":memory:")
        connection.close()
        assert type(connection) is sqlite3.Connection
        hook.install()  # again, on top of the other tool
        connection = sqlite3.connect(":memory:")
        connection.close()
        assert type(connection) is not sqlite3.Connection
        hook.uninstall()
        assert sqlite3.connect is another
        assert calls == [(":memory:",), (":memory:",)]
    finally:
        sqlite3.connect = plain


def test_below_another_tool_pymysql_s_hook_falls_silent(connect, request):
    cursors, hook = pymysql.cursors.Cursor, Hook(collector._load("pymysql"))
    plain = cursors.execute
    hook.install()
    ours = cursors.execute
    cursors.execute = lambda self, query, args=None: ours(self, query, args)
    hook.uninstall()
    try:
        assert hook.covered == ["Cursor.execute"]
        collector.install("pymysql")
        record = request.getfixturevalue("record")
        with record() as seen, connect().cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.executemany("DO %s", [(1,), (2,)])
        assert [(query.many, query.wire) for query in seen.queries] == [(None, 1), (2, 2)]
    finally:
        for _ in range(2):
            collector.uninstall("pymysql")
        cursors.execute = plain
        collector.install("pymysql")  # which the fixture takes back


def test_what_a_class_inherited_is_inherited_again():
    class Base:
        def method(self):
            return 1

    class Child(Base):
        pass

    patches = Patches()
    patches.replace(Child, "method", lambda original, get: lambda self: original(self) + 1)
    assert Child().method() == 2
    assert Child.method.__name__ == "method"
    assert Child.method.__wrapped__ is Base.method
    patches.undo()
    assert "method" not in vars(Child)


def test_a_driver_imported_after_installing_is_hooked_then_and_not_after_uninstalling():
    code = """
from perf_middleware import collector
collector.install("pymysql")
print(collector.status())
{between}
import pymysql
print(collector.status(), hasattr(pymysql.cursors.Cursor.execute, "__wrapped__"))
collector.install("pymysql")
print(collector.status())
"""

    def lines(between):
        run = [sys.executable, "-c", code.format(between=between)]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()

    waiting, hooked = "{'pymysql': 'waiting for import'}", "{'pymysql': 'hooked'}"
    assert lines("") == [waiting, f"{hooked} True", hooked]
    assert lines("collector.uninstall('pymysql')") == [waiting, "{'pymysql': 'uninstalled'} False", hooked]


def test_a_third_party_s_driver_is_found_by_its_entry_point(monkeypatch):
    module = types.ModuleType("third_party_database")
    module.query = lambda text: text
    driver = types.ModuleType("third_party_driver")
    driver.MODULE = module.__name__
    driver.hook = lambda target, patches: patches.replace(target, "query", lambda original, get: lambda text: text * 2)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, driver.__name__, driver)
    points = [
        EntryPoint("third", driver.__name__, "perf_middleware.drivers"),
        EntryPoint("third", driver.__name__, "perf_middleware.drivers"),
        EntryPoint("broken", "no_such_module_at_all", "perf_middleware.drivers"),
    ]
    monkeypatch.setattr(collector, "extensions", lambda kind: points if kind == "drivers" else [])
    monkeypatch.setattr(collector, "_hooks", {})
    assert collector.known() == (*collector._OURS, "third", "broken")
    collector.install("third")
    assert module.query("a") == "aa"
    collector.uninstall("third")
    assert module.query("a") == "a"
    with pytest.raises(OptionError, match=r"'broken' cannot be loaded from no_such_module_at_all"):
        collector.install("broken")
    assert not faults


@pytest.mark.parametrize("name", collector._OURS)
def test_a_driver_s_file_waits_for_the_module_that_the_table_says(name):
    file = collector._OURS[name]
    assert importlib.import_module(f"perf_middleware.collector.{file._path}").MODULE == file.MODULE
