"""The ASGI door: nothing is held back, nothing is mixed up, and every request leaves one record."""

from __future__ import annotations

import asyncio
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from perf_middleware import propagate
from perf_middleware.asgi import PerfMiddleware
from perf_middleware.collector import unattributed


def http(path="/", *, headers=(), **more):
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    return {**scope, **more}


async def serve(app, scope=None):
    """Run one request on the event loop at hand; gives the messages sent."""
    sent = []
    disconnected = anyio.Event()

    async def receive():
        if not disconnected.is_set():
            disconnected.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message):
        sent.append(message)

    await app(http() if scope is None else scope, receive, send)
    return sent


def told(sent):
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in sent[0]["headers"]}


@pytest.fixture(params=["asyncio", "trio"])
def run(request):
    """Run an async function to its end, on either event loop."""
    return lambda function, *args: anyio.run(function, *args, backend=request.param)


START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"x"}


async def hello(scope, receive, send):
    await send(START)
    await send(END)


# What must not happen


@pytest.mark.parametrize("kind", ["lifespan", "websocket", "http.future", None])
def test_other_scopes_pass_untouched(profiled, run, kind):
    seen = []
    scope = {"type": kind} if kind else {}

    async def app(*args):
        seen.append(args)

    given = (scope, object(), object())
    run(profiled(PerfMiddleware, app), *given)
    assert all(mine is theirs for mine, theirs in zip(seen[0], given, strict=True))
    assert scope == ({"type": kind} if kind else {})
    assert profiled.profiles == []


def test_switched_off_it_passes_on_the_servers_own_objects(profiled, run):
    seen = []

    async def app(*args):
        seen.append(args)

    given = (http(), object(), object())
    run(profiled(PerfMiddleware, app, enabled=False), *given)
    assert all(mine is theirs for mine, theirs in zip(seen[0], given, strict=True))
    assert given[0] == http()


def test_every_message_but_the_start_is_the_applications_own_object_and_is_sent_at_once(profiled, run):
    kinds = ("http.response.body", "http.response.trailers", "http.response.pathsend", "http.response.push", "x")
    messages = [{"type": kind, "more_body": True} for kind in kinds]
    arrived = []

    async def app(scope, receive, send):
        await send(START)
        for message in messages:
            await send(message)
            assert arrived[-1] is message

    async def send(message):
        arrived.append(message)

    run(profiled(PerfMiddleware, app), http(), None, send)
    assert len(arrived) == 1 + len(messages)


def test_receive_is_the_servers_own_object(profiled, run):
    async def app(scope, receive, send):
        assert receive is print

    run(profiled(PerfMiddleware, app), http(), print, print)
    assert len(profiled.profiles) == 1


def test_the_applications_own_headers_are_not_changed_and_any_byte_survives(profiled, run):
    own = [(b"X-\xc0", bytes(range(128, 256))), [b"Server-Timing", b"caf\xe9;dur=1"], (b"vary", b"")]
    start = {"type": "http.response.start", "status": 200, "headers": own}

    async def app(scope, receive, send):
        await send(start)
        await send(END)

    sent = run(serve, profiled(PerfMiddleware, app))
    assert own == [(b"X-\xc0", bytes(range(128, 256))), [b"Server-Timing", b"caf\xe9;dur=1"], (b"vary", b"")]
    assert start["headers"] is own
    headers = sent[0]["headers"]
    assert (headers[0], headers[2]) == (own[0], own[2])
    assert headers[1][0] == b"Server-Timing"
    assert headers[1][1].startswith(b"caf\xe9;dur=1, total;dur=")
    assert [name for name, _ in headers].count(b"server-timing") == 0
    assert {b"x-perf-id", b"x-perf-queries", b"x-perf-query-time"} <= {name for name, _ in headers}


@pytest.mark.parametrize("headers", ["off", False])
def test_without_headers_the_start_is_the_applications_own_object(profiled, run, headers):
    sent = run(serve, profiled(PerfMiddleware, hello, headers=headers))
    assert sent[0] is START


@pytest.mark.parametrize("missing", ["method", "headers", "root_path", "path"])
def test_a_scope_that_lacks_something_is_served(profiled, run, missing):
    scope = http()
    del scope[missing]
    assert run(serve, profiled(PerfMiddleware, hello), scope)[-1] is END
    assert len(profiled.profiles) == 1


@pytest.mark.parametrize("headers", [None, 7, [b"x"], [("x-perf-id", "text")], [(b"x-perf-id", 7)]])
def test_broken_request_headers_are_the_applications_to_refuse(profiled, run, headers):
    assert run(serve, profiled(PerfMiddleware, hello), {**http(), "headers": headers})[-1] is END
    assert len(profiled.profiles) == 1


def test_a_broken_route_is_no_reason_to_fail(profiled, run):
    class Broken:
        @property
        def path(self):
            raise RuntimeError("ours would be the fault")

    assert run(serve, profiled(PerfMiddleware, hello), http(route=Broken()))[-1] is END
    assert profiled.profiles[0].name == "GET (unmatched)"


@pytest.mark.parametrize("began", [True, False])
def test_the_applications_exception_is_the_same_object_and_leaves_one_record(profiled, run, began):
    error = ZeroDivisionError("x")

    async def app(scope, receive, send):
        if began:
            await send(START)
        raise error

    with pytest.raises(ZeroDivisionError) as raised:
        run(serve, profiled(PerfMiddleware, app))
    assert raised.value is error
    (profile,) = profiled.profiles
    assert (profile.error, profile.status) == ("ZeroDivisionError", 200 if began else 500)


def test_a_send_that_fails_is_heard_by_the_application(profiled, run):
    heard = []

    async def app(scope, receive, send):
        try:
            await send(START)
        except OSError as error:
            heard.append(error)

    async def send(message):
        raise OSError("gone")

    run(profiled(PerfMiddleware, app), http(), None, send)
    assert len(heard) == 1
    assert len(profiled.profiles) == 1


# One record, whatever happens


@pytest.mark.parametrize("when", ["before", "after"])
def test_cancellation_leaves_one_record(profiled, run, when):
    async def app(scope, receive, send):
        if when == "after":
            await send(START)
        started.set()
        await anyio.sleep_forever()

    async def main():
        nonlocal started
        started = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(serve, wrapped)
            await started.wait()
            group.cancel_scope.cancel()

    started = None
    wrapped = profiled(PerfMiddleware, app)
    run(main)
    (profile,) = profiled.profiles
    assert profile.error in ("CancelledError", "Cancelled")
    assert profile.status == (200 if when == "after" else None)


def test_a_task_found_by_the_garbage_collector_leaves_one_record_with_the_next_request(profiled):
    """It is closed in whatever context was interrupted: not the one it began in."""

    class Never:
        def __await__(self):
            yield

    async def app(scope, receive, send):
        await Never()

    wrapped = profiled(PerfMiddleware, app)
    task = wrapped(http(), None, None)
    Context().run(task.send, None)
    del task
    gc.collect()
    assert profiled.profiles == []
    wrapped.close()
    (profile,) = profiled.profiles
    assert profile.error == "GeneratorExit"


def test_a_disconnect_leaves_one_record(profiled, run):
    async def chunks():
        while True:
            yield b"x"
            await anyio.lowlevel.checkpoint()

    async def main():
        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            await anyio.lowlevel.checkpoint()

        await wrapped(http(asgi={"spec_version": "2.0"}), receive, send)

    wrapped = profiled(PerfMiddleware, Starlette(routes=[Route("/", lambda request: StreamingResponse(chunks()))]))
    run(main)
    (profile,) = profiled.profiles
    assert (profile.status, profile.error, profile.name) == (200, None, "GET /")


def test_wrapped_twice_it_profiles_once(profiled, run, query):
    async def app(scope, receive, send):
        query(2)
        await hello(scope, receive, send)

    sent = run(serve, profiled(PerfMiddleware, profiled(PerfMiddleware, app)))
    assert [profile.query_count for profile in profiled.profiles] == [2]
    assert [name for name, _ in sent[0]["headers"]].count(b"x-perf-id") == 1


def test_a_scope_that_is_used_again_is_profiled_again(profiled, run):
    wrapped, scope = profiled(PerfMiddleware, hello), http()
    run(serve, wrapped, scope)
    run(serve, wrapped, scope)
    assert len(profiled.profiles) == 2


def test_a_request_inside_a_request_is_its_child_and_its_queries_count_in_both(profiled, run, query):
    async def inner(scope, receive, send):
        query(3)
        await hello(scope, receive, send)

    async def outer(scope, receive, send):
        query()
        await serve(wrapped_inner)
        await hello(scope, receive, send)

    wrapped_inner = profiled(PerfMiddleware, inner)
    run(
        serve,
        profiled(PerfMiddleware, outer),
        http(headers=[(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")]),
    )
    child, parent = profiled.profiles
    assert (child.query_count, parent.query_count) == (3, 4)
    assert (child.parent_id, child.trace_id) == (parent.id, "a" * 32)


def test_an_endless_stream_is_finished_as_truncated_under_its_route(profiled, run, query, monkeypatch):
    clock = [0]
    monkeypatch.setattr("perf_middleware.pipeline.perf_counter_ns", lambda: clock[0])
    monkeypatch.setattr("perf_middleware.collector.context.perf_counter_ns", lambda: clock[0])

    async def chunks():
        for _ in range(5):
            query()
            clock[0] += 4_000_000_000
            yield b"x"

    app = Starlette(routes=[Route("/events/{id}", lambda request: StreamingResponse(chunks()))])
    sent = run(serve, profiled(PerfMiddleware, app, max_duration_s=10), http("/events/7"))
    assert b"".join(message.get("body", b"") for message in sent) == b"xxxxx"
    (profile,) = profiled.profiles
    assert (profile.name, profile.truncated, profile.query_count) == ("GET /events/{id}", True, 3)


# Phases


def test_phases_are_told_apart_and_background_is_not_in_the_response_time(profiled, run, query, monkeypatch):
    clock = [0]
    for module in ("asgi", "pipeline", "collector.context"):
        monkeypatch.setattr(f"perf_middleware.{module}.perf_counter_ns", lambda: clock[0])
    monkeypatch.setattr("perf_middleware.collector.drivers.sqlite3.perf_counter_ns", lambda: clock[0], raising=False)

    async def endpoint(request):
        clock[0] += 1_000_000
        query(1)
        return StreamingResponse(chunks(), background=BackgroundTask(later))

    async def chunks():
        clock[0] += 1_000_000
        query(2)
        yield b"x"

    def later():
        clock[0] += 5_000_000_000
        query(3)

    run(serve, profiled(PerfMiddleware, Starlette(routes=[Route("/", endpoint)])))
    (profile,) = profiled.profiles
    assert profile.query_count == 6
    assert profile.duration_ms == 2.0
    assert profile.first_byte_ms == 1.0


@pytest.mark.parametrize("last", ["http.response.body", "http.response.pathsend", "http.response.trailers"])
def test_the_last_byte_ends_the_response(profiled, run, query, last):
    async def app(scope, receive, send):
        query()
        await send(START)
        query()
        if last != "http.response.pathsend":
            await send({"type": "http.response.body", "body": b"", "more_body": last == "http.response.body"})
        if last != "http.response.body":
            query()
        await send({"type": last})
        query()

    run(serve, profiled(PerfMiddleware, app))
    (profile,) = profiled.profiles
    phases = [row.phase for row in profile.queries]
    assert phases == ["before", "stream", *(["stream"] if last != "http.response.body" else []), "background"]


def test_the_last_of_several_trailers_ends_the_response(profiled, run, query):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.trailers", "more_trailers": True})
        query()
        await send({"type": "http.response.trailers"})
        query()

    run(serve, profiled(PerfMiddleware, app))
    assert [row.phase for row in profiled.profiles[0].queries] == ["stream", "background"]


# Whose query it is


def test_200_requests_at_once_get_their_own_counts(profiled, run, query):
    async def app(scope, receive, send):
        for _ in range(int(scope["path"][1:]) % 7):
            query()
            await anyio.lowlevel.checkpoint()
        await send(START)
        query()
        await anyio.lowlevel.checkpoint()
        await send(END)

    async def main():
        async with anyio.create_task_group() as group:
            for number in range(200):
                scope = http(f"/{number}", headers=[(b"x-perf-id", f"r{number}".encode())])
                group.start_soon(serve, wrapped, scope)

    wrapped = profiled(PerfMiddleware, app)
    run(main)
    assert {profile.id: profile.query_count for profile in profiled.profiles} == {
        f"r{number}": number % 7 + 1 for number in range(200)
    }


def test_gather_to_thread_and_starlettes_thread_pool_count_to_the_request(profiled, query):
    async def view(request):
        async def one():
            await asyncio.sleep(0)
            query()

        await asyncio.gather(*(one() for _ in range(50)))
        await asyncio.to_thread(query, 3)
        await anyio.to_thread.run_sync(query, 2)
        return PlainTextResponse("x")

    def threaded(request):
        query(4)
        return PlainTextResponse("x")

    wrapped = profiled(PerfMiddleware, Starlette(routes=[Route("/a", view), Route("/t", threaded)]))
    anyio.run(serve, wrapped, http("/a"))
    anyio.run(serve, wrapped, http("/t"))
    gathered, pooled = profiled.profiles
    assert (gathered.query_count, pooled.query_count) == (55, 4)
    assert [row.blocking for row in gathered.queries].count(True) == 50
    assert not any(row.blocking for row in pooled.queries)


def test_a_plain_executor_counts_only_with_propagate(profiled, query):
    async def app(scope, receive, send):
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(plain, query, 5)
        await loop.run_in_executor(propagating, query, 3)
        await hello(scope, receive, send)

    wrapped = profiled(PerfMiddleware, app)
    before = unattributed.count
    with ThreadPoolExecutor(1) as plain, propagate(ThreadPoolExecutor(1)) as propagating:
        asyncio.run(serve(wrapped))
    assert profiled.profiles[0].query_count == 3
    assert unattributed.count == before + 5


def test_what_a_finished_request_left_behind_is_nobodys(profiled, query):
    async def main():
        async def late():
            await gate.wait()
            query(4)

        async def app(scope, receive, send):
            left.append(asyncio.ensure_future(late()))
            await hello(scope, receive, send)

        gate, left = asyncio.Event(), []
        await serve(profiled(PerfMiddleware, app))
        query()
        gate.set()
        await left[0]

    before = unattributed.count
    asyncio.run(main())
    assert profiled.profiles[0].query_count == 0
    assert unattributed.count == before + 5


def test_a_base_http_middleware_between_changes_nothing(profiled, run, query):
    class Between(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            query()
            return await call_next(request)

    def later():
        query(4)

    async def view(request):
        query(2)
        return PlainTextResponse("x", background=BackgroundTask(later))

    app = Starlette(routes=[Route("/v/{id}", view)], middleware=[Middleware(Between)])
    sent = run(serve, profiled(PerfMiddleware, app), http("/v/1"))
    assert told(sent)["x-perf-queries"] == "3"
    (profile,) = profiled.profiles
    assert (profile.query_count, profile.name) == (7, "GET /v/{id}")
    assert [row.phase for row in profile.queries].count("before") == 3


def test_nothing_keeps_a_finished_profile_alive(profiled):
    dead = []
    wrapped = profiled(PerfMiddleware, hello, sinks=[lambda profile: dead.append(weakref.ref(profile))])
    scope = http()
    asyncio.run(serve(wrapped, scope))
    assert dead[0]() is None


# The request's own


@pytest.mark.parametrize("name", [b"x-perf-id", b"x-request-id"])
@pytest.mark.parametrize("value", [b"a\r\nset-cookie: x", b"a" * 65, "é".encode(), b"\xff\xfe", b"a b", b""])
def test_a_hostile_id_is_never_echoed(profiled, run, name, value):
    sent = run(serve, profiled(PerfMiddleware, hello), http(headers=[(name, value)]))
    assert told(sent)["x-perf-id"] == profiled.profiles[0].id
    assert len(profiled.profiles[0].id) == 16


def test_traceparent_is_read(profiled, run):
    header = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    run(serve, profiled(PerfMiddleware, hello), http(headers=[header]))
    (profile,) = profiled.profiles
    assert profile.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert profile.span_id == "b7ad6b7169203331"
