"""Whatever runs a request's work (task groups, nurseries, threads and the ways between them) counts it to that request.

Fifty requests are open at once on a real database; each runs its statements in one of the ways an application has.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from wsgiref.util import setup_testing_defaults

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio
from asgiref.sync import async_to_sync, sync_to_async

from perf_middleware import asgi, wsgi
from perf_middleware.collector import propagate, unattributed

HERE = "tests/concurrency/test_tasks.py"
REQUESTS, EACH = 50, 4


@pytest.fixture
def ask(profiled):
    """`ask(owner)` runs a statement that names its owner, from any thread; `ask.sent` is what SQLite got."""

    def asking(owner):
        with lock:
            if not opened:
                opened.append(sqlite3.connect(":memory:", check_same_thread=False))
                opened[0].set_trace_callback(asking.sent.append)
            opened[0].execute(f"SELECT 1 AS of_{owner}").fetchall()

    lock, opened = threading.Lock(), []
    asking.sent = []
    yield asking
    for connection in opened:
        connection.close()


# ---------------------------------------------------------------------- the ways; each runs `one` EACH times, somewhere


async def asyncio_task_group(one):
    async def task():
        await asyncio.sleep(0)
        one()

    async with asyncio.TaskGroup() as group:
        for _ in range(EACH):
            group.create_task(task())


async def asyncio_threads(one):
    await asyncio.gather(*(asyncio.to_thread(one) for _ in range(EACH)))


async def asyncio_callbacks(one):
    def callback():
        one()
        done.release()

    done = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()
    for number in range(EACH):
        loop.call_later(0, callback) if number % 2 else loop.call_soon(callback)
    for _ in range(EACH):
        await done.acquire()


async def asyncio_executor(one):
    with propagate(ThreadPoolExecutor(2)) as executor:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(executor, one) for _ in range(EACH)))


async def anyio_task_group(one):
    async def task():
        await anyio.lowlevel.checkpoint()
        one()

    async with anyio.create_task_group() as group:
        for _ in range(EACH):
            group.start_soon(task)


async def anyio_threads(one):
    async with anyio.create_task_group() as group:
        for _ in range(EACH):
            group.start_soon(anyio.to_thread.run_sync, one)


async def anyio_back_from_a_thread(one):
    async def on_the_loop():
        one()

    def in_a_thread():
        one()
        anyio.from_thread.run(on_the_loop)
        anyio.from_thread.run_sync(one)
        one()

    await anyio.to_thread.run_sync(in_a_thread)


async def trio_nursery(one):
    async def task(task_status=trio.TASK_STATUS_IGNORED):
        one()
        task_status.started()
        await trio.lowlevel.checkpoint()
        one()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task)
        await nursery.start(task)


async def trio_threads(one):
    async with trio.open_nursery() as nursery:
        for _ in range(EACH):
            nursery.start_soon(trio.to_thread.run_sync, one)


async def trio_back_from_a_thread(one):
    async def on_the_loop():
        one()

    def in_a_thread():
        one()
        trio.from_thread.run(on_the_loop)
        trio.from_thread.run_sync(one)
        one()

    await trio.to_thread.run_sync(in_a_thread)


async def asgiref_one_thread(one):
    for _ in range(EACH):
        await sync_to_async(one)()


async def asgiref_threads(one):
    with ThreadPoolExecutor(2) as executor:
        ask_there = sync_to_async(one, thread_sensitive=False, executor=executor)
        await asyncio.gather(*(ask_there() for _ in range(EACH)))


async def asgiref_there_and_back(one):
    async def on_the_loop():
        await asyncio.sleep(0)
        one()
        await sync_to_async(one)()

    def in_a_thread():
        one()
        async_to_sync(on_the_loop)()
        one()

    await sync_to_async(in_a_thread)()


ON_ASYNCIO = [
    asyncio_task_group,
    asyncio_threads,
    asyncio_callbacks,
    asyncio_executor,
    anyio_task_group,
    anyio_threads,
    anyio_back_from_a_thread,
    asgiref_one_thread,
    asgiref_threads,
    asgiref_there_and_back,
]
ON_TRIO = [
    trio_nursery,
    trio_threads,
    trio_back_from_a_thread,
    anyio_task_group,
    anyio_threads,
    anyio_back_from_a_thread,
]
WAYS = [("asyncio", way) for way in ON_ASYNCIO] + [("trio", way) for way in ON_TRIO]


@pytest.mark.parametrize(("backend", "way"), WAYS, ids=[f"{backend}-{way.__name__}" for backend, way in WAYS])
def test_every_query_is_its_own_request_s(profiled, ask, backend, way):
    async def app(scope, receive, send):
        def one():
            ask(owner)

        owner = int(scope["path"][1:])
        arrived.append(owner)
        while len(arrived) < REQUESTS:
            await anyio.lowlevel.checkpoint()
        await way(one)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main():
        async with anyio.create_task_group() as group:
            for owner in range(REQUESTS):
                group.start_soon(door, scope(owner), None, ignore)

    arrived, before = [], unattributed.count
    door = profiled(asgi.PerfMiddleware, app)
    anyio.run(main, backend=backend)
    assert unattributed.count == before
    assert len(profiled.profiles) == REQUESTS
    assert len(ask.sent) == REQUESTS * EACH
    for profile in profiled.profiles:
        assert [query.fingerprint for query in profile.queries] == [f"SELECT ? AS of_{profile.id[1:]}"] * EACH
        assert {query.caller.partition(":")[0] for query in profile.queries} == {HERE}


def test_a_wsgi_view_s_asynchronous_part_is_the_request_s(profiled, ask):
    async def part():
        await asyncio.sleep(0)
        ask(1)
        await sync_to_async(ask)(1)

    def app(environ, start_response):
        async_to_sync(part)()
        start_response("200 OK", [])
        return []

    environ, before = {}, unattributed.count
    setup_testing_defaults(environ)
    profiled(wsgi.PerfMiddleware, app)(environ, lambda *_: None)
    (profile,) = profiled.profiles
    assert (profile.query_count, unattributed.count) == (2, before)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_a_request_leaves_in_the_server_s_task_group_is_nobody_s_when_it_has_ended(profiled, ask, backend):
    """The task copied the context of a request that is over; another one is open when it runs."""

    async def app(scope, receive, send):
        if scope["path"] == "/0":
            server.start_soon(late)
        else:
            released.set()
            await finished.wait()
            ask(1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def late():
        await released.wait()
        ask("nobody")
        finished.set()

    async def main():
        nonlocal server, released, finished
        released, finished = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as server:
            await door(scope(0), None, ignore)
            server.start_soon(door, scope(1), None, ignore)

    server = released = finished = None
    before = unattributed.count
    door = profiled(asgi.PerfMiddleware, app)
    anyio.run(main, backend=backend)
    assert {profile.id: profile.query_count for profile in profiled.profiles} == {"r0": 0, "r1": 1}
    assert unattributed.count == before + 1


def test_a_plain_executor_s_job_is_nobody_s_while_its_request_is_open(profiled, ask):
    async def app(scope, receive, send):
        await asyncio.get_running_loop().run_in_executor(executor, ask, "nobody")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    before = unattributed.count
    door = profiled(asgi.PerfMiddleware, app)
    with ThreadPoolExecutor(1) as executor:
        asyncio.run(door(scope(1), None, ignore))
    (profile,) = profiled.profiles
    assert (profile.query_count, unattributed.count - before) == (0, 1)


def scope(owner):
    return {"type": "http", "method": "GET", "path": f"/{owner}", "headers": [(b"x-perf-id", b"r%d" % owner)]}


async def ignore(message):
    pass
