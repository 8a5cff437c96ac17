"""Two hundred requests at once on one event loop, each with its own number of queries: none goes to another."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from perf_middleware.asgi import PerfMiddleware
from perf_middleware.collector import propagate, unattributed

REQUESTS = 200
THREADS = 40  # what Starlette's pool runs at once


class Databases:
    """`ask(owner)` runs one statement that names its owner, on SQLite or on PyMySQL by turns; `sent` counts them."""

    def __init__(self, stub):
        self.mysql = stub()
        self.sqlite = sqlite3.connect(":memory:", check_same_thread=False)
        self.sent = Counter()
        self.lock = threading.Lock()

    def ask(self, owner, number=0):
        text = f"SELECT 1 AS of_{owner}"
        with self.lock:  # a connection is one thread's at a time
            self.sent[f"r{owner}"] += 1
            if number % 2:
                self.sqlite.execute(text).fetchall()
            else:
                with self.mysql.cursor() as cursor:
                    cursor.execute(text)
                    cursor.fetchall()


@pytest.fixture
def databases(stub, profiled):
    """Opened when the drivers are hooked."""
    opened = []

    def opening():
        opened.append(Databases(stub))
        return opened[-1]

    yield opening
    for one in opened:
        one.sqlite.close()


def scope(path, name):
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"x-perf-id", name.encode())],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
    }


async def serve(app, path, name):
    """One request; its own headers."""
    headers = {}

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        headers.update((key.decode(), value.decode()) for key, value in message.get("headers", ()))

    await app(scope(path, name), receive, send)
    return headers


async def serve_all(app, paths):
    """All at once; the headers of each by its id."""
    names = [f"r{number}" for number in range(len(paths))]
    told = await asyncio.gather(*(serve(app, path, name) for path, name in zip(paths, names, strict=True)))
    return dict(zip(names, told, strict=True))


def each_has_its_own(profiles, sent, told):
    """Count, rows and headers of every request are its own, by what the databases were sent."""
    assert {profile.id: profile.query_count for profile in profiles} == {name: sent[name] for name in told}
    assert {name: int(headers["x-perf-queries"]) for name, headers in told.items()} == {n: sent[n] for n in told}
    strangers = [
        (profile.id, row.fingerprint)
        for profile in profiles
        for row in profile.queries
        if not row.fingerprint.endswith(f"of_{profile.id[1:]}")
    ]
    assert strangers == []


def test_no_query_of_200_async_requests_goes_to_another(profiled, databases):
    async def app(scope, receive, send):
        owner = int(scope["path"][1:])
        await everybody.wait()
        for number in range(owner % 23):
            db.ask(owner, number)
            await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main():
        nonlocal everybody
        everybody = asyncio.Barrier(REQUESTS)
        return await serve_all(wrapped, [f"/{number}" for number in range(REQUESTS)])

    everybody = None
    wrapped, before = profiled(PerfMiddleware, app), unattributed.count
    db = databases()
    told = asyncio.run(main())
    each_has_its_own(profiled.profiles, db.sent, told)
    assert sum(profile.query_count for profile in profiled.profiles) == sum(n % 23 for n in range(REQUESTS))
    assert unattributed.count == before


def test_no_query_of_starlette_s_async_and_threaded_endpoints_goes_to_another(profiled, databases):
    async def on_the_loop(request):
        owner = request.path_params["owner"]
        await everybody.wait()
        for number in range(owner % 7 + 1):
            db.ask(owner, number)
            await asyncio.sleep(0)
        return PlainTextResponse("x")

    def in_a_thread(request):
        owner = request.path_params["owner"]
        for number in range(owner % 5 + 1):
            threads.wait()
            db.ask(owner, number)
        for _ in range(4 - owner % 5):
            threads.wait()
        return PlainTextResponse("x")

    async def main():
        nonlocal everybody
        everybody = asyncio.Barrier(REQUESTS)
        loop = [f"/loop/{number}" for number in range(REQUESTS)]
        return await serve_all(wrapped, loop + [f"/thread/{number + REQUESTS}" for number in range(REQUESTS)])

    everybody, threads = None, threading.Barrier(THREADS, timeout=60)
    app = Starlette(routes=[Route("/loop/{owner:int}", on_the_loop), Route("/thread/{owner:int}", in_a_thread)])
    wrapped, before = profiled(PerfMiddleware, app), unattributed.count
    db = databases()
    told = asyncio.run(main())
    each_has_its_own(profiled.profiles, db.sent, told)
    assert {profile.name for profile in profiled.profiles} == {"GET /loop/{owner:int}", "GET /thread/{owner:int}"}
    assert all(row.blocking == ("loop" in p.name) for p in profiled.profiles for row in p.queries)
    assert unattributed.count == before


def test_nested_gathers_of_50_queries_stay_with_their_request(profiled, databases):
    async def app(scope, receive, send):
        owner = int(scope["path"][1:])

        async def one(number):
            await everybody.wait()
            db.ask(owner, number)

        async def ten(first):
            await asyncio.gather(*(one(first + number) for number in range(10)))

        await asyncio.gather(*(ten(10 * number) for number in range(5)))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main():
        nonlocal everybody
        everybody = asyncio.Barrier(20 * 50)
        return await serve_all(wrapped, [f"/{number}" for number in range(20)])

    everybody = None
    wrapped = profiled(PerfMiddleware, app)
    db = databases()
    told = asyncio.run(main())
    each_has_its_own(profiled.profiles, db.sent, told)
    assert {profile.query_count for profile in profiled.profiles} == {50}


def test_late_tasks_threads_and_jobs_are_unattributed_while_other_requests_are_open(profiled, databases):
    """What outlives its request runs when another one is in the middle of its own queries."""

    async def app(scope, receive, send):
        owner = int(scope["path"][1:])
        if owner == 0:
            late.append(asyncio.create_task(later()))
            late.append(asyncio.create_task(asyncio.to_thread(blocked)))
            late.append(asyncio.wrap_future(pool.submit(blocked)))
        else:
            db.ask(owner, 0)
            arrived.set()
            await finished.wait()
            db.ask(owner, 1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def later():
        await released.wait()
        db.ask(99)

    def blocked():
        gate.wait(60)
        db.ask(99)

    async def main():
        nonlocal arrived, finished, released
        arrived, finished, released = asyncio.Event(), asyncio.Event(), asyncio.Event()
        await serve(wrapped, "/0", "r0")
        other = asyncio.create_task(serve(wrapped, "/1", "r1"))
        await arrived.wait()
        gone.append(weakref.ref(profiled.profiles.pop()))
        gc.collect()
        gone.append(gone[0]())
        released.set()
        gate.set()
        await asyncio.gather(*late)
        finished.set()
        await other

    arrived = finished = released = None
    gate, late, gone = threading.Event(), [], []
    wrapped, before = profiled(PerfMiddleware, app), unattributed.count
    db = databases()
    with propagate(ThreadPoolExecutor(1)) as pool:
        asyncio.run(main())
    assert gone[1] is None, "a task, thread or job kept the finished profile alive"
    (profile,) = profiled.profiles
    assert (profile.id, profile.query_count) == ("r1", 2)
    assert all(row.fingerprint.endswith("of_1") for row in profile.queries)
    assert unattributed.count - before == db.sent["r99"] == 3


def test_background_tasks_stay_with_their_request_while_the_next_one_runs(profiled, databases):
    async def view(request):
        owner = request.path_params["owner"]
        db.ask(owner)
        return PlainTextResponse("x", background=BackgroundTask(background, owner))

    async def background(owner):
        await everybody.wait()
        for number in range(owner % 3 + 1):
            db.ask(owner, number)
            await asyncio.sleep(0)

    async def main():
        nonlocal everybody
        everybody = asyncio.Barrier(30)
        await serve_all(wrapped, [f"/{number}" for number in range(30)])

    everybody = None
    wrapped = profiled(PerfMiddleware, Starlette(routes=[Route("/{owner:int}", view)]))
    db = databases()
    asyncio.run(main())
    assert len(profiled.profiles) == 30
    for profile in profiled.profiles:
        owner = int(profile.id[1:])
        assert profile.query_count == db.sent[profile.id] == owner % 3 + 2
        assert [row.phase for row in profile.queries] == ["before"] + ["background"] * (owner % 3 + 1)
        assert all(row.fingerprint.endswith(f"of_{owner}") for row in profile.queries)
