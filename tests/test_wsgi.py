"""The WSGI door: every behaviour PEP 3333 allows stays as it was, and leaves exactly one record."""

from __future__ import annotations

import gc
import io
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from perf_middleware.collector import unattributed
from perf_middleware.errors import faults
from perf_middleware.wsgi import PerfMiddleware

OURS = {"server-timing", "x-perf-id", "x-perf-queries", "x-perf-query-time", "x-perf-findings"}


class Server:
    """A server that follows PEP 3333 and remembers what it was told."""

    def __init__(self):
        self.starts = []
        self.sent = []
        self.headers_sent = False

    def start_response(self, status, headers, exc_info=None):
        assert type(headers) is list
        if exc_info and self.headers_sent:
            raise exc_info[1]
        if self.starts and not exc_info:
            raise AssertionError("start_response was called again without exc_info")
        self.starts.append((status, headers))
        return self.write

    def write(self, data):
        assert self.starts, "write before start_response"
        self.headers_sent = self.headers_sent or bool(data)
        self.sent.append(data)

    def serve(self, app, environ=None):
        body = app(request() if environ is None else environ, self.start_response)
        try:
            for data in body:
                self.write(data)
        finally:
            if hasattr(body, "close"):
                body.close()
        return b"".join(self.sent)

    @property
    def headers(self):
        return {name.lower(): value for name, value in self.starts[-1][1]}


def request(**more):
    environ = {}
    setup_testing_defaults(environ)
    return {**environ, **more}


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


class Body:
    """An iterable that counts how often it was closed."""

    def __init__(self, items, *, closing=None):
        self.items = items
        self.closed = 0
        self.closing = closing

    def __iter__(self):
        return iter(self.items)

    def close(self):
        self.closed += 1
        if self.closing:
            self.closing()


def fail(error):
    raise error


# What must not happen


@pytest.mark.parametrize("body", [[b"hello"], (b"he", b"llo"), []])
def test_a_list_or_tuple_is_returned_as_the_same_object(profiled, body):
    def app(environ, start_response):
        start_response("200 OK", [])
        return body

    server = Server()
    assert profiled(PerfMiddleware, app)(request(), server.start_response) is body
    assert len(server.starts) == 1
    assert len(profiled.profiles) == 1


def test_switched_off_it_calls_the_application_with_the_servers_own_objects(profiled):
    seen = []
    environ, server = request(), Server()
    body = profiled(PerfMiddleware, lambda *args: seen.append(args) or [b""], enabled=False)(
        environ, server.start_response
    )
    assert body == [b""]
    assert seen[0][0] is environ
    assert seen[0][1] == server.start_response
    assert profiled.profiles == []
    assert environ.keys() == request().keys()


def test_nothing_is_asked_of_the_body_before_the_server_asks(profiled):
    asked = []

    def app(environ, start_response):
        start_response("200 OK", [])
        return (asked.append(1) or b"x" for _ in range(2))

    server = Server()
    body = profiled(PerfMiddleware, app)(request(), server.start_response)
    assert asked == []
    assert server.starts == []
    next(body)
    assert asked == [1]
    body.close()


def test_the_applications_own_header_list_is_not_changed(profiled):
    own = [("Server-Timing", "cache;dur=1"), ("Vary", "Cookie")]

    def app(environ, start_response):
        start_response("200 OK", own)
        return []

    server = Server()
    server.serve(profiled(PerfMiddleware, app))
    assert own == [("Server-Timing", "cache;dur=1"), ("Vary", "Cookie")]
    timings = [value for name, value in server.starts[0][1] if name.lower() == "server-timing"]
    assert len(timings) == 1
    assert timings[0].startswith("cache;dur=1, total;dur=")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
def test_the_response_is_byte_equal_apart_from_our_headers(profiled, method, status):
    def app(environ, start_response):
        start_response(status, [("ETag", '"x"'), ("X-Odd", "caf\xe9"), ("Content-Type", "text/plain")])
        return [b""] if method == "HEAD" or status[0] != "2" else [b"body"]

    def through(wrapped):
        handler = SimpleHandler(io.BytesIO(), out := io.BytesIO(), io.StringIO(), request(REQUEST_METHOD=method))
        handler.run(wrapped)
        lines = out.getvalue().split(b"\r\n")
        return [line for line in lines if line.partition(b":")[0].decode("latin-1").lower() not in {*OURS, "date"}]

    assert through(profiled(PerfMiddleware, app)) == through(app)
    assert b'ETag: "x"' in through(app)


@pytest.mark.parametrize("sent_before", [True, False])
@pytest.mark.parametrize("place", ["before", "after", "body", "close"])
def test_the_applications_exception_is_the_same_object_and_leaves_one_record(profiled, place, sent_before):
    error = ZeroDivisionError("x")

    def items():
        if sent_before:
            yield b"x"
        if place == "body":
            raise error

    def app(environ, start_response):
        if place == "before":
            raise error
        start_response("200 OK", [])
        if place == "after":
            raise error
        return Body(items(), closing=(lambda: fail(error)) if place == "close" else None)

    with pytest.raises(ZeroDivisionError) as raised:
        Server().serve(profiled(PerfMiddleware, app))
    assert raised.value is error
    (profile,) = profiled.profiles
    assert profile.error == "ZeroDivisionError"
    streaming = place in ("body", "close")
    began = streaming and (sent_before or place == "close")
    assert profile.status == (200 if began else 500)


@pytest.mark.parametrize("how", ["to the end", "never iterated", "client gone", "raises"])
def test_close_is_called_exactly_once(profiled, how):
    body = Body([b"a", b"b"] if how != "raises" else (1 / 0 for _ in "x"))

    def app(environ, start_response):
        start_response("200 OK", [])
        return body

    wrapped = profiled(PerfMiddleware, app)(request(), Server().start_response)
    if how == "to the end":
        assert list(wrapped) == [b"a", b"b"]
    elif how == "client gone":
        next(wrapped)
    elif how == "raises":
        with pytest.raises(ZeroDivisionError):
            next(wrapped)
    assert body.closed == 0
    wrapped.close()
    wrapped.close()
    assert body.closed == 1
    (profile,) = profiled.profiles
    assert profile.error == ("ZeroDivisionError" if how == "raises" else None)
    assert list(wrapped) == []


def test_a_client_that_hangs_up_is_no_error_of_the_application(profiled, query):
    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            while True:
                query()
                yield b"x"
        finally:
            query()

    body = profiled(PerfMiddleware, app)(request(), Server().start_response)
    next(body)
    body.close()
    (profile,) = profiled.profiles
    assert (profile.error, profile.status, profile.query_count) == (None, 200, 2)
    assert not profile.truncated


def dropped(body):
    """As a client that leaves leaves it: in a cycle that only the garbage collector finds."""
    next(body)
    body.itself = body


def test_a_body_found_by_the_garbage_collector_runs_nothing_of_ours_in_what_was_interrupted(profiled):
    theirs = ContextVar("theirs", default=None)
    app = profiled(PerfMiddleware, yielding(b"x"), sinks=[theirs.set, profiled.profiles.append])
    dropped(app(request(), Server().start_response))
    before = copy_context()
    gc.collect()
    assert dict(copy_context()) == dict(before)
    assert profiled.profiles == []


def test_a_body_dropped_without_close_still_leaves_its_record_with_the_next_request(profiled):
    app = profiled(PerfMiddleware, yielding(b"x"))
    dropped(app(request(), Server().start_response))
    gc.collect()
    app(request(), Server().start_response).close()
    assert [profile.status for profile in profiled.profiles] == [200, None]


def test_a_body_dropped_without_close_still_leaves_its_record_when_no_request_follows(profiled):
    app = profiled(PerfMiddleware, yielding(b"x"))
    dropped(app(request(), Server().start_response))
    gc.collect()
    app.close()
    assert len(profiled.profiles) == 1


def yielding(item):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield item

    return app


# start_response


def test_a_generator_may_start_late(profiled):
    def app(environ, start_response):
        start_response("201 Created", [])
        yield b"x"

    server = Server()
    assert server.serve(profiled(PerfMiddleware, app)) == b"x"
    assert server.starts[0][0] == "201 Created"
    assert profiled.profiles[0].status == 201


def test_headers_go_with_the_first_item_even_an_empty_one_and_tell_the_queries_until_then(profiled, query):
    def app(environ, start_response):
        start_response("200 OK", [])
        query(3)
        yield b""
        query(4)
        yield b"x"

    server = Server()
    body = profiled(PerfMiddleware, app)(request(), server.start_response)
    assert next(body) == b""
    assert server.headers["x-perf-queries"] == "3"
    assert list(body) == [b"x"]
    body.close()
    (profile,) = profiled.profiles
    assert profile.query_count == 7
    assert [row.phase for row in profile.queries] == ["before"] * 3 + ["stream"] * 4


def test_a_missing_start_response_is_the_servers_to_refuse(profiled):
    with pytest.raises(AssertionError, match="write before start_response"):
        Server().serve(profiled(PerfMiddleware, lambda environ, start_response: iter([b"x"])))
    assert profiled.profiles[0].status is None


def test_a_second_call_without_exc_info_is_the_servers_to_refuse(profiled):
    def app(environ, start_response):
        start_response("200 OK", [])
        start_response("201 Created", [])
        return []

    with pytest.raises(AssertionError, match="again without exc_info"):
        Server().serve(profiled(PerfMiddleware, app))
    assert profiled.profiles[0].error == "AssertionError"


@pytest.mark.parametrize("keyword", [True, False])
def test_exc_info_replaces_a_response_that_was_not_sent(profiled, keyword):
    def app(environ, start_response):
        start_response("200 OK", [("X-Old", "1")])
        info = (ValueError, ValueError("x"), None)
        if keyword:
            start_response("503 Busy", [("X-New", "1")], exc_info=info)
        else:
            start_response("503 Busy", [("X-New", "1")], info)
        return [b"sorry"]

    server = Server()
    assert server.serve(profiled(PerfMiddleware, app)) == b"sorry"
    assert "x-old" not in server.headers
    assert server.headers["x-new"] == "1"
    assert server.headers["x-perf-id"] == profiled.profiles[0].id
    assert profiled.profiles[0].status == 503


def test_exc_info_after_an_empty_first_item_still_replaces(profiled):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b""
        start_response("500 Oh", [], (ValueError, ValueError("x"), None))
        yield b"sorry"

    server = Server()
    server.serve(profiled(PerfMiddleware, app))
    assert [status for status, _ in server.starts] == ["200 OK", "500 Oh"]
    assert server.headers["x-perf-id"] == profiled.profiles[0].id
    assert profiled.profiles[0].status == 500


def test_exc_info_after_bytes_were_sent_raises_the_error_and_the_status_stays(profiled):
    error = ValueError("x")

    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"x"
        start_response("500 Oh", [], (ValueError, error, None))

    with pytest.raises(ValueError, match="x") as raised:
        Server().serve(profiled(PerfMiddleware, app))
    assert raised.value is error
    assert (profiled.profiles[0].status, profiled.profiles[0].error) == (200, "ValueError")


@pytest.mark.parametrize("returns", [[], [b"end"]])
def test_write_sends_the_headers_first(profiled, query, returns):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        query(2)
        write(b"a")
        query()
        write(b"b")
        return returns

    server = Server()
    assert server.serve(profiled(PerfMiddleware, app)) == b"ab" + b"".join(returns)
    assert len(server.starts) == 1
    assert server.headers["x-perf-queries"] == "2"
    assert profiled.profiles[0].query_count == 3


def test_a_server_that_refuses_the_headers_is_heard(profiled):
    def refuse(*args):
        raise ValueError("bad header")

    with pytest.raises(ValueError, match="bad header"):
        profiled(PerfMiddleware, hello)(request(), refuse)
    assert len(profiled.profiles) == 1


# Files


@pytest.mark.parametrize("kind", ["class", "function"])
def test_a_file_body_stays_the_servers_own_and_finishes_on_close(profiled, query, kind):
    made = []

    def function(file, size=8192):
        made.append(FileWrapper(file, size))
        return made[-1]

    class File(io.BytesIO):
        def close(self):
            query()
            super().close()

    file = File(b"data")

    def app(environ, start_response):
        start_response("200 OK", [])
        query()
        body = environ["wsgi.file_wrapper"](file)
        made.append(body)
        return body

    server = Server()
    environ = request(**{"wsgi.file_wrapper": FileWrapper if kind == "class" else function})
    body = profiled(PerfMiddleware, app)(environ, server.start_response)
    assert body is made[0]
    assert server.headers["x-perf-queries"] == "1"
    assert profiled.profiles == []
    body.close()
    assert file.closed
    assert profiled.profiles[0].query_count == 2


def test_a_file_body_that_takes_no_attributes_is_returned_as_it_is(profiled):
    class Sealed:
        __slots__ = ()

        def __init__(self, file):
            pass

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](None)

    body = profiled(PerfMiddleware, app)(request(**{"wsgi.file_wrapper": Sealed}), Server().start_response)
    assert type(body) is Sealed
    assert len(profiled.profiles) == 1


# Rules of both sides


@pytest.mark.parametrize("kind", ["list", "generator", "write", "closing", "late"])
def test_the_validator_is_content_on_both_sides(profiled, kind):
    def app(environ, start_response):
        if kind == "late":
            return late(start_response)
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        if kind == "write":
            write(b"hello")
            return []
        return {"list": [b"hello"], "generator": (item for item in (b"hel", b"lo")), "closing": Body([b"hello"])}[kind]

    def late(start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"hello"

    environ = request(QUERY_STRING="", REQUEST_METHOD="GET")
    handler = SimpleHandler(io.BytesIO(), out := io.BytesIO(), errors := io.StringIO(), environ)
    handler.run(validator(profiled(PerfMiddleware, validator(app))))
    assert errors.getvalue() == ""
    assert out.getvalue().endswith(b"hello")
    assert len(profiled.profiles) == 1


def test_wrapped_twice_it_profiles_once(profiled, query):
    def app(environ, start_response):
        query(2)
        return hello(environ, start_response)

    server = Server()
    server.serve(profiled(PerfMiddleware, profiled(PerfMiddleware, app)))
    assert [profile.query_count for profile in profiled.profiles] == [2]
    assert [name.lower() for name, _ in server.starts[0][1]].count("x-perf-id") == 1


def test_an_environ_that_is_used_again_is_profiled_again(profiled):
    wrapped, environ = profiled(PerfMiddleware, hello), request()
    Server().serve(wrapped, environ)
    Server().serve(wrapped, environ)
    assert len(profiled.profiles) == 2


def test_a_request_inside_a_request_is_its_child_and_its_queries_count_in_both(profiled, query):
    def inner(environ, start_response):
        query(3)
        return hello(environ, start_response)

    wrapped_inner = profiled(PerfMiddleware, inner)

    def outer(environ, start_response):
        query(1)
        Server().serve(wrapped_inner)
        query(1)
        return hello(environ, start_response)

    Server().serve(profiled(PerfMiddleware, outer))
    child, parent = profiled.profiles
    assert (child.query_count, parent.query_count) == (3, 5)
    assert child.parent_id == parent.id
    assert parent.parent_id is None


def test_an_endless_body_is_finished_as_truncated_and_goes_on(profiled, query, monkeypatch):
    clock = [0]
    monkeypatch.setattr("perf_middleware.pipeline.perf_counter_ns", lambda: clock[0])
    monkeypatch.setattr("perf_middleware.collector.context.perf_counter_ns", lambda: clock[0])

    def app(environ, start_response):
        start_response("200 OK", [])
        while True:
            query()
            yield b"x"

    body = profiled(PerfMiddleware, app, max_duration_s=10)(request(), Server().start_response)
    next(body)
    clock[0] = 10_000_000_000
    next(body)
    assert profiled.profiles == []
    clock[0] += 1
    next(body)
    (profile,) = profiled.profiles
    assert (profile.truncated, profile.query_count, profile.status, profile.error) == (True, 3, 200, None)
    assert next(body) == b"x"
    body.close()
    assert len(profiled.profiles) == 1


# Whose query it is


def test_200_requests_in_threads_get_their_own_counts(profiled, query):
    def app(environ, start_response):
        query(int(environ["PATH_INFO"][1:]) % 7)
        start_response("200 OK", [])
        query(2)
        yield b""
        query(1)

    wrapped = profiled(PerfMiddleware, app)
    with ThreadPoolExecutor(8) as pool:
        for number in range(200):
            pool.submit(Server().serve, wrapped, request(PATH_INFO=f"/{number}", HTTP_X_PERF_ID=f"r{number}"))
    assert {profile.id: profile.query_count for profile in profiled.profiles} == {
        f"r{number}": number % 7 + 3 for number in range(200)
    }


def test_between_items_the_server_is_not_in_the_request(profiled, query):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"a"
        query()
        yield b"b"

    body = profiled(PerfMiddleware, app)(request(), Server().start_response)
    for _ in body:
        query(5)
    body.close()
    assert profiled.profiles[0].query_count == 1


def test_two_streams_by_turns_on_one_thread_do_not_mix(profiled, query):
    def app(environ, start_response):
        start_response("200 OK", [])
        for _ in range(3):
            query(int(environ["HTTP_X_PERF_ID"]))
            yield b"x"

    wrapped = profiled(PerfMiddleware, app)
    bodies = [wrapped(request(HTTP_X_PERF_ID=str(number)), Server().start_response) for number in (1, 2)]
    for _ in range(3):
        for body in bodies:
            next(body)
    for body in bodies:
        body.close()
    assert [profile.query_count for profile in profiled.profiles] == [3, 6]


def test_what_a_finished_request_left_behind_is_nobodys(profiled, query):
    kept = []

    def app(environ, start_response):
        kept.append(copy_context())
        return hello(environ, start_response)

    wrapped = profiled(PerfMiddleware, app)
    Server().serve(wrapped)
    before = unattributed.count
    thread = threading.Thread(target=kept[0].run, args=(query, 4))
    thread.start()
    thread.join()
    assert unattributed.count == before + 4
    assert profiled.profiles[0].query_count == 0


def test_nothing_keeps_a_finished_profile_alive(profiled):
    dead = []
    environ = request()
    wrapped = profiled(PerfMiddleware, hello, sinks=[lambda profile: dead.append(weakref.ref(profile))])
    Server().serve(wrapped, environ)
    assert dead[0]() is None


# The request's own


@pytest.mark.parametrize("place", ["HTTP_X_PERF_ID", "HTTP_X_REQUEST_ID"])
@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a" * 65, "caf\xe9", "\xff\xfe", "a b", "", "a\n", "é"])
def test_a_hostile_id_is_never_echoed(profiled, place, value):
    server = Server()
    server.serve(profiled(PerfMiddleware, hello), request(**{place: value}))
    assert server.headers["x-perf-id"] == profiled.profiles[0].id
    assert len(profiled.profiles[0].id) == 16
    assert value == "" or value not in repr(server.starts)


def test_an_acceptable_id_is_the_profiles(profiled):
    server = Server()
    server.serve(profiled(PerfMiddleware, hello), request(HTTP_X_REQUEST_ID="a.B_c-9" * 9))
    assert server.headers["x-perf-id"] == profiled.profiles[0].id == "a.B_c-9" * 9


def test_the_method_is_one_of_a_known_set(profiled):
    wrapped = profiled(PerfMiddleware, hello)
    for method in ("POST", "get", "HACK", ""):
        Server().serve(wrapped, request(REQUEST_METHOD=method))
    Server().serve(wrapped, {})
    assert [profile.name for profile in profiled.profiles] == ["POST (unmatched)"] + ["_OTHER (unmatched)"] * 4


def test_a_fault_of_ours_leaves_the_response_as_the_application_made_it(profiled, monkeypatch):
    middleware = profiled(PerfMiddleware, hello)
    monkeypatch.setattr(middleware.pipeline, "_begin", lambda *args: fail(RuntimeError("ours")))
    before = faults["begin: RuntimeError"]
    server = Server()
    assert server.serve(middleware) == b"hello"
    assert server.starts == [("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])]
    assert faults["begin: RuntimeError"] == before + 1
