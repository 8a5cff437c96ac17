"""Which line of the application asked."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import perf_middleware
from perf_middleware.collector import caller
from perf_middleware.collector.caller import describe, find_caller

HERE = "tests/collector/test_caller.py"


def here():
    """The line of the call and where the caller is said to be."""
    said = describe(*find_caller(2))
    return sys._getframe(1).f_lineno, said


def load(path, text, name="loaded"):
    module = types.ModuleType(name)
    module.find = lambda: find_caller(2)
    exec(compile(text, str(path), "exec"), vars(module))
    return module


# ------------------------------------------------------------------------------------------- what must not happen


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_installed_packages_are_skipped(tmp_path, folder):
    library = load(tmp_path / folder / "orm" / "query.py", "def run(): return find()")
    code, lasti = library.run()
    assert describe(code, lasti).endswith("in test_installed_packages_are_skipped")


def test_the_standard_library_is_skipped():
    found = []
    json.dumps([object()], default=lambda _: found.append(find_caller(2)))
    assert describe(*found[0]).startswith(HERE)


def test_code_made_at_run_time_is_skipped():
    made = load("<string>", "def run(): return find()")
    code, _ = made.run()
    assert code.co_name == "test_code_made_at_run_time_is_skipped"


def test_a_stack_without_an_application_has_no_caller():
    done = subprocess.run(
        [sys.executable, "-c", "from perf_middleware.collector.caller import find_caller; print(find_caller(1))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "(None, 0)\n"


def test_nothing_is_looked_at_but_code_objects(record_property):
    class Sly:
        def __repr__(self):
            raise AssertionError("asked for its repr")

    sly = Sly()
    assert find_caller(1)[0] is sys._getframe().f_code
    assert sly is not None


def test_file_names_without_an_end_are_forgotten(monkeypatch):
    monkeypatch.setattr(caller, "MAX_FILENAMES", 50)
    for number in range(200):
        load(f"/made/up/{number}.py", "found = find()")
    assert len(caller._verdicts) <= 50


def test_a_current_folder_that_is_gone_is_no_fault(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    before = Path.cwd()
    os.chdir(gone)
    try:
        gone.rmdir()
        module = load("relative.py", "def run(): return find()")
        caller._described.clear()
        assert describe(*module.run()) == "relative.py:1 in run"
    finally:
        os.chdir(before)


# ---------------------------------------------------------------------------------------------------- what must


def test_file_and_line_of_a_plain_call():
    line, said = here()
    assert said == f"{HERE}:{line} in test_file_and_line_of_a_plain_call"


def test_a_call_over_several_lines_is_where_python_says():
    line, said = (
        types.SimpleNamespace(here=here)
        .here(
            # a comment
        )
    )  # fmt: skip
    assert said.startswith(f"{HERE}:{line} in")


def test_a_comprehension_belongs_to_its_function():
    ((line, said),) = [here() for _ in range(1)]
    assert said == f"{HERE}:{line} in test_a_comprehension_belongs_to_its_function"
    ((line, said),) = list(here() for _ in range(1))  # noqa: C400
    assert said == f"{HERE}:{line} in test_a_comprehension_belongs_to_its_function"
    (((line, said),),) = [[here() for _ in range(1)] for _ in range(1)]
    assert said == f"{HERE}:{line} in test_a_comprehension_belongs_to_its_function"


def test_a_generator_a_lambda_and_a_method():
    def generator():
        yield here()

    class Shop:
        def orders(self):
            return here()

    asks = lambda: (here(), 0)[0]  # noqa: E731
    assert next(generator())[1].endswith(" in generator")
    assert asks()[1].endswith(" in test_a_generator_a_lambda_and_a_method.<lambda>")
    assert Shop().orders()[1].endswith(" in Shop.orders")


def test_a_decorated_function_is_itself():
    def decorator(function):
        return lambda: function()  # noqa: PLW0108 - a decorator that wraps

    @decorator
    def view():
        return here()

    assert view()[1].endswith(" in view")


@pytest.mark.parametrize(
    ("source", "line", "function"),
    [
        ("ask = lambda: find()\nask()", 1, "<lambda>"),
        (
            "class Shop:\n  def orders(self):\n    return [\n      (lambda: find())() for _ in '1']\nShop().orders()",
            4,
            "Shop.orders.<lambda>",
        ),
        ("def view():\n  return (lambda: (lambda:\n    find())())()\nview()", 3, "view.<lambda>.<lambda>"),
        (
            "def view():\n  def inner():\n    return {number: find() for number in '1'}\n  inner()\nview()",
            3,
            "inner",
        ),
        ("def view():\n  yield find()\nlist(view())", 2, "view"),
        ("from functools import *\n@cache\ndef view():\n  find()\npartial(view)()", 4, "view"),
        (
            "from contextlib import *\n@contextmanager\ndef opened():\n  find()\n  yield\nwith opened(): pass",
            4,
            "opened",
        ),
        (
            (
                "from contextlib import *\nclass C(ContextDecorator):\n"
                "  __enter__ = __exit__ = lambda *_: None\n@C()\ndef view():\n  find()\nview()"
            ),
            6,
            "view",
        ),
        ("def twice(f):\n  return lambda: f()\n@twice\ndef view():\n  find()\nview()", 5, "view"),
        ("class Shop:\n  @property\n  def orders(self):\n    find()\nShop().orders", 4, "Shop.orders"),
        (
            (
                "from asyncio import run\nasync def view():\n  return [find() async for _ in rows()]\n"
                "async def rows():\n  yield 1\nrun(view())"
            ),
            3,
            "view",
        ),
        (
            (
                "from asyncio import run, gather\nasync def row():\n  find()\nasync def view():\n"
                "  await gather(row())\nrun(view())"
            ),
            3,
            "row",
        ),
        ("query = 1\nfind(\n  query,\n)", 2, "<module>"),
    ],
)
def test_the_line_and_the_function_that_a_developer_would_name(source, line, function):
    found = []
    exec(compile(source, "/srv/shop.py", "exec"), {"find": lambda *_: found.append(find_caller(2)), "__name__": "shop"})
    assert [describe(*place) for place in found] == [f"/srv/shop.py:{line} in {function}"]


def test_a_symlinked_application_is_shown_below_its_import_root(tmp_path, monkeypatch):
    real = tmp_path / "releases" / "1" / "shop"
    real.mkdir(parents=True)
    (tmp_path / "current").symlink_to(tmp_path / "releases" / "1")
    monkeypatch.syspath_prepend(str(tmp_path / "current"))
    module = load(tmp_path / "current" / "shop" / "views.py", "\n\ndef orders(): return find()")
    assert describe(*module.orders()) == "shop/views.py:3 in orders"


def test_a_query_has_the_line_that_ran_it(record):
    import sqlite3  # noqa: PLC0415

    with record() as seen:
        connection = sqlite3.connect(":memory:")
        connection.execute("SELECT 1")
        line = sys._getframe().f_lineno - 1
        connection.close()
    assert seen.queries[0].caller == f"{HERE}:{line} in test_a_query_has_the_line_that_ran_it"


def test_callers_can_be_switched_off(record):
    import sqlite3  # noqa: PLC0415

    with record(callers=False) as seen:
        sqlite3.connect(":memory:").close()
        connection = sqlite3.connect(":memory:")
        connection.execute("SELECT 1")
        connection.close()
    assert seen.queries[0].caller is None


# ------------------------------------------------------------------------------- where every frame is a library's

INSTALLED = "/env/lib/python3/site-packages"
DOOR = str(Path(perf_middleware.__file__).with_name("asgi.py"))
LOOP = str(Path(asyncio.__file__).with_name("events.py"))
SESSIONS = f"{INSTALLED}/django/contrib/sessions/backends/db.py"
ORM = f"{INSTALLED}/sqlalchemy/orm/session.py"


def asked(*paths, find=lambda: find_caller(3)):
    """What is found where these files call one another, the first in a thread of its own, and the last one asks."""
    found = []
    call = lambda: found.append(find())  # noqa: E731
    for path in reversed(paths):
        layer = {"call": call}
        exec(compile("def run(): call()", path, "exec"), layer)
        call = layer["run"]
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["/srv/shop/views.py", f"{INSTALLED}/desk/models.py", ORM], "/srv/shop/views.py"),
        ([f"{INSTALLED}/desk/app.py", f"{INSTALLED}/desk/models.py", ORM], f"{INSTALLED}/desk/models.py"),
        ([f"{INSTALLED}/desk/app.py", f"{INSTALLED}/flask/app.py", ORM], f"{INSTALLED}/desk/app.py"),
        ([f"{INSTALLED}/django/core/handlers/base.py", SESSIONS, f"{INSTALLED}/django/db/models/query.py"], SESSIONS),
        ([f"{INSTALLED}/desk.py", f"{INSTALLED}/peewee.py"], f"{INSTALLED}/desk.py"),
        ([ORM, f"{INSTALLED}/pymysql/cursors.py"], None),
        (["/srv/serve.py", f"{INSTALLED}/desk/app.py", DOOR, ORM], None),
        (["/env/bin/daphne", f"{INSTALLED}/daphne/server.py", LOOP, ORM], None),
        (["/env/bin/uvicorn", f"{INSTALLED}/uvicorn/server.py", ORM], None),
    ],
)
def test_who_asked_by_the_files_on_the_stack(paths, said):
    assert describe(*asked(*paths)) == (said and f"{said}:1 in run")


def test_what_sqlalchemy_runs_for_those_who_await_has_the_awaiting_line():
    """Its own code runs in a greenlet whose stack has none of the application's frames; the other one waits."""
    found = []
    library = {"find": lambda: found.append(find_caller(2))}
    exec(compile("def listen(*_): find()", f"{INSTALLED}/tool/events.py", "exec"), library)

    async def main():
        engine = create_async_engine("sqlite+aiosqlite://")
        async with engine.connect() as connection:
            sa.event.listen(engine.sync_engine, "before_cursor_execute", library["listen"])
            await connection.execute(sa.text("SELECT 1"))
            line = sys._getframe().f_lineno - 1
        await engine.dispose()
        return line

    line = asyncio.run(main())
    assert [describe(*place) for place in found] == [f"{HERE}:{line} in main"]


def test_the_code_that_is_found_for_a_library_is_no_frame_s_code():
    """A hook remembers code whose frames are the application's: a library's may be called by the application next."""
    frames = []
    code, lasti = asked(f"{INSTALLED}/desk/app.py", find=lambda: (frames.append(sys._getframe(2)), find_caller(3))[1])
    assert frames[0].f_code is not code
    assert describe(code, lasti) == describe(frames[0].f_code, lasti)


def test_copies_of_code_without_an_end_are_forgotten(monkeypatch):
    monkeypatch.setattr(caller, "MAX_DESCRIBED", 20)
    for number in range(50):
        asked(f"{INSTALLED}/desk/{number}.py")
    assert len(caller._copies) <= 20


def test_an_application_in_site_packages_has_its_own_line_and_not_its_client_s(tmp_path):
    package = tmp_path / "site-packages" / "desk"
    package.mkdir(parents=True)
    package.joinpath("app.py").write_text(APP, encoding="utf-8")
    script = tmp_path / "client.py"
    script.write_text(CLIENT, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site-packages")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stdout == "1 desk/app.py:2 in app\n", ended.stderr


APP = """def app(environ, start_response):
    environ["connection"].execute("SELECT 1")
    start_response("200 OK", [])
    return []
"""
CLIENT = """
import sqlite3
from desk.app import app
from perf_middleware.wsgi import PerfMiddleware

kept = []
door = PerfMiddleware(app, log=False, sinks=[kept.append])
door({"REQUEST_METHOD": "GET", "connection": sqlite3.connect(":memory:")}, lambda *_: None)
print(kept[0].query_count, kept[0].queries[0].caller)
"""
