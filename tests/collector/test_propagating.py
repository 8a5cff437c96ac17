"""Jobs of executors: whose queries they run, and who asked for them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from types import SimpleNamespace

import pytest

from perf_middleware.collector import propagating
from perf_middleware.collector.context import unattributed
from perf_middleware.collector.propagating import carried, propagate
from perf_middleware.errors import faults

HERE = "tests/collector/test_propagating.py"
OTHER = ContextVar("other", default="untouched")


def select(text="SELECT 1"):
    connection = sqlite3.connect(":memory:")
    connection.execute(text)
    connection.close()


@pytest.fixture
def database(hooked):
    """A connection for one other thread at a time."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    yield connection
    connection.close()


@pytest.fixture
def every_executor():
    """`ThreadPoolExecutor` itself propagates; afterwards it is as it was."""
    bare = vars(ThreadPoolExecutor)["submit"]
    yield propagate(ThreadPoolExecutor)
    assert ThreadPoolExecutor.submit.__wrapped__ is bare
    ThreadPoolExecutor.submit = bare


# ---------------------------------------------------------------------------------------------- what must not happen


def test_processes_are_refused():
    with ProcessPoolExecutor(1) as executor, pytest.raises(TypeError, match="executor of threads"):
        propagate(executor)
    with pytest.raises(TypeError, match="executor of threads"):
        propagate(ProcessPoolExecutor)


def test_importing_us_patches_no_executor():
    code = (
        "from concurrent.futures import ThreadPoolExecutor as E; bare = E.submit\n"
        "from perf_middleware.asgi import PerfMiddleware; PerfMiddleware(None, log=False); print(E.submit is bare)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_an_executor_that_pickles_its_jobs_gets_them_as_they_are(every_executor, monkeypatch, record):
    """Python 3.14 has one that is a `ThreadPoolExecutor`, and whose jobs go to another interpreter."""

    class Pickling(every_executor):
        pass

    ThreadPoolExecutor.submit = ThreadPoolExecutor.submit.__wrapped__
    monkeypatch.setattr(concurrent.futures, "InterpreterPoolExecutor", Pickling, raising=False)
    propagate(ThreadPoolExecutor)
    before = unattributed.count
    with Pickling(1) as executor, record() as seen:
        executor.submit(select).result()
    assert (seen.query_count, unattributed.count - before) == (0, 1)
    with pytest.raises(TypeError, match="executor of threads"):
        propagate(Pickling(1))


def test_the_application_s_own_context_stays_where_it_was(record):
    with propagate(ThreadPoolExecutor(1)) as executor, record():
        token = OTHER.set("the request's")
        assert executor.submit(OTHER.get).result() == "untouched"
        OTHER.reset(token)


def test_a_thread_is_nobody_s_again_after_the_job(record):
    with propagate(ThreadPoolExecutor(1)) as executor:
        with record() as seen:
            executor.submit(select).result()
        before = unattributed.count
        executor.submit(select).result()
    assert (seen.query_count, unattributed.count - before) == (1, 1)


def test_a_job_that_outlives_its_request_is_nobody_s(record):
    with propagate(ThreadPoolExecutor(1)) as executor:
        gate = concurrent.futures.Future()
        with record() as seen:
            executor.submit(gate.result)
            late = executor.submit(select)
        before = unattributed.count
        gate.set_result(None)
        late.result()
    assert (seen.query_count, unattributed.count - before) == (0, 1)


def test_without_a_profile_a_job_is_handed_on_as_it_is():
    assert carried(select) is select


def test_a_job_s_exception_is_the_one_it_raised(record):
    def fail():
        raise error

    error = KeyError("x")
    with propagate(ThreadPoolExecutor(1)) as executor, record():
        assert executor.submit(fail).exception() is error


def test_a_job_that_cannot_be_told_from_where_it_came_runs_all_the_same(record, monkeypatch):
    def broken(depth):
        raise RuntimeError

    monkeypatch.setattr(propagating, "find_caller", broken)
    with propagate(ThreadPoolExecutor(1)) as executor, record() as seen:
        executor.submit(select).result()
    assert seen.query_count == 1
    assert list(faults) == ["propagate: RuntimeError"]
    faults.clear()


# ---------------------------------------------------------------------------------------------------- what must


def test_jobs_count_to_the_profile_they_were_submitted_in_and_a_second_call_does_nothing(record):
    with ThreadPoolExecutor(2) as executor:
        assert propagate(propagate(executor)) is executor
        submit = executor.submit
        assert propagate(executor).submit is submit
        with record() as seen:
            executor.submit(select).result()
            list(executor.map(select, ["SELECT 1", "SELECT 2"]))
    assert len(seen.queries) == 3


def test_every_executor_s_jobs_count_where_the_class_propagates(record, every_executor):
    """As for an application whose executor cannot be got at: Datasette makes one of its own."""

    async def request():
        loop = asyncio.get_running_loop()
        with record() as seen, ThreadPoolExecutor(1) as executor:
            await loop.run_in_executor(executor, select)
            await loop.run_in_executor(None, select)
            await asyncio.to_thread(select)
        return seen

    assert asyncio.run(request()).query_count == 3
    with ThreadPoolExecutor(1) as executor:
        assert propagate(executor) is executor
        assert "submit" not in vars(executor)
    assert propagate(ThreadPoolExecutor).submit is ThreadPoolExecutor.submit


def test_two_requests_jobs_in_one_executor_do_not_cross(record):
    def job(owner):
        connection = sqlite3.connect(":memory:")
        for _ in range(3):
            connection.execute(f"SELECT 1 AS of_{owner}")
        connection.close()

    async def request(owner):
        loop = asyncio.get_running_loop()
        with record() as seen:
            await asyncio.gather(*(loop.run_in_executor(executor, job, owner) for _ in range(5)))
        return owner, seen

    async def main():
        return await asyncio.gather(*(request(owner) for owner in range(40)))

    with propagate(ThreadPoolExecutor(8)) as executor:
        for owner, seen in asyncio.run(main()):
            assert [query.fingerprint for query in seen.queries] == [f"SELECT ? AS of_{owner}"] * 15


def test_the_caller_is_the_line_in_the_thread_where_that_is_the_application_s(record):
    with propagate(ThreadPoolExecutor(1)) as executor, record() as seen:
        executor.submit(select).result()
    assert seen.queries[0].caller == f"{HERE}:{select.__code__.co_firstlineno + 2} in select"


def test_the_caller_is_who_submitted_where_the_job_is_a_library_s(record, database):
    with propagate(ThreadPoolExecutor(1)) as executor, record() as seen:
        executor.submit(database.execute, "SELECT 1").result()
        line = sys._getframe().f_lineno - 1
    assert [query.caller.split(" in ")[0] for query in seen.queries] == [f"{HERE}:{line}"]


def test_the_caller_is_who_submitted_through_the_event_loop_too(record, database):
    async def request():
        with propagate(ThreadPoolExecutor(1)) as executor, record() as seen:
            await asyncio.get_running_loop().run_in_executor(executor, database.execute, "SELECT 1")
            return seen, sys._getframe().f_lineno - 1

    seen, line = asyncio.run(request())
    assert seen.queries[0].caller == f"{HERE}:{line} in {request.__qualname__.rpartition('.')[2]}"


@pytest.fixture
def installed():
    """Functions of an application that is installed: one that submits, and its job."""
    desk = {}
    exec(compile("def job(ask): ask('SELECT 1')", "/env/site-packages/desk/db.py", "exec"), desk)
    exec(compile("def view(e, job, a): e.submit(job, a).result()", "/env/site-packages/desk/app.py", "exec"), desk)
    return SimpleNamespace(**desk)


def test_where_all_of_it_is_installed_the_caller_is_the_line_in_the_thread(record, database, installed):
    with propagate(ThreadPoolExecutor(1)) as executor, record() as seen:
        view = copy_context().run, installed.view, executor, installed.job, database.execute
        thread = threading.Thread(target=view[0], args=view[1:])  # whose stack has nothing of this file
        thread.start()
        thread.join()
    assert [query.caller for query in seen.queries] == ["/env/site-packages/desk/db.py:1 in job"]


def test_the_application_that_submitted_an_installed_job_is_nearer_than_the_job(record, database, installed):
    with propagate(ThreadPoolExecutor(1)) as executor, record() as seen:
        executor.submit(installed.job, database.execute).result()
    assert [query.caller.split(":")[0] for query in seen.queries] == [HERE]
