"""`profile("name")`: with, async with and decorator; nests, counts in its parents, lasts as long as the code does."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from contextvars import copy_context

import pytest

from perf_middleware import profile
from perf_middleware.collector import unattributed
from perf_middleware.collector.context import current
from perf_middleware.wsgi import PerfMiddleware


@pytest.fixture
def blocks(profiled):
    """What the sinks were given; the blocks report to a middleware's pipeline."""
    profiled(PerfMiddleware, None)
    yield profiled.profiles
    assert current.get() is None


def counts(profiles):
    return [(p.name, p.query_count) for p in profiles]


@pytest.mark.parametrize("name", ["", None, 7, len])
def test_a_name_that_is_no_text_is_refused(name):
    with pytest.raises(TypeError, match="non-empty text"):
        profile(name)


def test_it_is_not_entered_twice_at_once_but_again(blocks):
    block = profile("a")
    with block, pytest.raises(RuntimeError, match="is open already"):
        block.__enter__()
    with block:
        pass
    assert counts(blocks) == [("a", 0), ("a", 0)]


def test_it_gives_the_finished_profile(blocks, query):
    with profile("import") as p:
        assert p.set("items", 3) is None
        query(3)
    assert blocks == [p]
    assert (p.kind, p.query_count, p.tags) == ("block", 3, {"items": 3})
    assert (p.by_verb, p.by_table) == ({"SELECT": 3}, {"item": 3})
    assert 0 < p.db_ms <= p.duration_ms
    assert len(p.slowest(2)) == 2
    assert p.slowest(1)[0].duration_ms == max(row.duration_ms for row in p.queries)
    assert p.error is None


def test_an_n_plus_one_inside_is_found(blocks, query):
    with profile("loop") as p:
        query(12)
    assert [finding.kind for finding in p.findings] == ["n_plus_one"]


def test_it_is_kept_when_the_body_raises_and_the_error_is_the_same_object(blocks, query):
    error = KeyError("x")

    def body():
        with profile("a"):
            query()
            raise error

    with pytest.raises(KeyError) as raised:
        body()
    assert raised.value is error
    assert [(p.query_count, p.error) for p in blocks] == [(1, "KeyError")]


def test_children_count_in_their_parents(blocks, query):
    with profile("parent") as parent:
        query(1)
        with profile("child") as child:
            query(2)
            with profile("grandchild") as grandchild:
                query(3)
        query(1)
    assert counts(blocks) == [("grandchild", 3), ("child", 5), ("parent", 7)]
    assert (grandchild.parent_id, child.parent_id, parent.parent_id) == (child.id, parent.id, None)


def test_after_the_block_queries_are_nobodys(blocks, query):
    context = []
    with profile("a"):
        context.append(copy_context())
    before = unattributed.count
    context[0].run(query, 2)
    query(1)
    assert blocks[0].query_count == 0
    assert unattributed.count == before + 3


def test_nothing_keeps_a_finished_profile_alive(profiled):
    profiled(PerfMiddleware, None, sinks=[])
    with profile("a") as p:
        pass
    dead = weakref.ref(p)
    context = copy_context()
    del p
    assert dead() is None
    del context


def test_left_in_another_context_than_entered_the_other_is_not_disturbed(blocks, query):
    with profile("around"):
        block = profile("a")
        context = copy_context()
        context.run(block.__enter__)
        context.run(query, 1)
        with profile("other"):
            block.__exit__(None, None, None)
            query(2)
    assert counts(blocks) == [("a", 1), ("other", 2), ("around", 3)]


# async


def test_async_with_knows_the_event_loops_thread(blocks, query):
    async def main():
        async with profile("a"):
            query(1)
            await asyncio.to_thread(query, 2)

    asyncio.run(main())
    assert [row.blocking for row in blocks[0].queries] == [True, False, False]


def test_blocks_nested_inside_gather_do_not_mix(blocks, query):
    async def one(number):
        async with profile(f"task {number}"):
            for _ in range(number):
                query()
                await asyncio.sleep(0)
            async with profile(f"inner {number}"):
                await asyncio.sleep(0)
                query()

    async def main():
        async with profile("all") as around:
            await asyncio.gather(*(one(number) for number in range(20)))
        return around

    around = asyncio.run(main())
    got = dict(counts(blocks))
    assert got.pop("all") == sum(range(20)) + 20
    assert got == {f"task {n}": n + 1 for n in range(20)} | {f"inner {n}": 1 for n in range(20)}
    parents = {p.name: p.parent_id for p in blocks}
    ids = {p.name: p.id for p in blocks}
    assert all(parents[f"task {n}"] == around.id for n in range(20))
    assert all(parents[f"inner {n}"] == ids[f"task {n}"] for n in range(20))


def test_a_cancelled_block_is_kept(blocks, query):
    async def waiting():
        async with profile("a"):
            query()
            await asyncio.Event().wait()

    async def main():
        task = asyncio.ensure_future(waiting())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert [(p.query_count, p.error) for p in blocks] == [(1, "CancelledError")]


# Decorators


def test_a_function_stays_a_function_and_each_call_is_a_profile(blocks, query):
    @profile("f")
    def function(count, *, factor=1):
        """What it does."""
        query(count * factor)
        return count

    assert (function.__name__, function.__doc__) == ("function", "What it does.")
    assert [function(1), function(2, factor=2)] == [1, 2]
    assert counts(blocks) == [("f", 1), ("f", 4)]


def test_a_function_may_call_itself(blocks, query):
    @profile("f")
    def function(depth):
        query()
        return depth and function(depth - 1)

    function(2)
    assert counts(blocks) == [("f", 1), ("f", 2), ("f", 3)]


def test_a_coroutine_stays_one(blocks, query):
    @profile("c")
    async def coroutine(count):
        await asyncio.sleep(0)
        query(count)
        return count

    assert inspect.iscoroutinefunction(coroutine)

    async def main():
        return await asyncio.gather(coroutine(1), coroutine(2))

    assert asyncio.run(main()) == [1, 2]
    assert sorted(counts(blocks)) == [("c", 1), ("c", 2)]


def test_a_generator_stays_one_and_its_consumer_is_not_in_it(blocks, query):
    @profile("g")
    def generator():
        query()
        got = yield 1
        query()
        try:
            yield got
        except KeyError:
            query()
            yield "caught"
        return "end"

    assert inspect.isgeneratorfunction(generator)
    running = generator()
    assert blocks == []
    assert next(running) == 1
    query(5)
    assert running.send("sent") == "sent"
    assert current.get() is None
    assert running.throw(KeyError("x")) == "caught"
    with pytest.raises(StopIteration) as stopped:
        next(running)
    assert stopped.value.value == "end"
    assert counts(blocks) == [("g", 3)]
    assert blocks[0].error is None


def test_a_generator_that_is_closed_cleans_up_inside(blocks, query):
    @profile("g")
    def generator():
        try:
            yield 1
        finally:
            query()

    running = generator()
    next(running)
    running.close()
    running.close()
    with profile("next"):  # closing may be the garbage collector's doing, so another profile finishes it
        pass
    assert counts(blocks) == [("g", 1), ("next", 0)]
    assert blocks[0].error is None


def test_a_generator_that_raises_raises_the_same_object(blocks):
    error = KeyError("x")

    @profile("g")
    def generator():
        yield 1
        raise error

    running = generator()
    next(running)
    with pytest.raises(KeyError) as raised:
        next(running)
    assert raised.value is error
    assert blocks[0].error == "KeyError"
    assert list(running) == []


def test_a_generator_never_started_leaves_no_profile(blocks):
    @profile("g")
    def generator():
        yield 1

    generator().close()
    assert blocks == []


def test_two_generators_by_turns_do_not_mix(blocks, query):
    @profile("g")
    def generator(count):
        for _ in range(2):
            query(count)
            yield

    assert len(list(zip(generator(1), generator(2), strict=True))) == 2
    assert sorted(counts(blocks)) == [("g", 2), ("g", 4)]


def test_an_async_generator_stays_one(blocks, query):
    @profile("a")
    async def generator():
        query()
        got = yield 1
        try:
            yield got
        except KeyError:
            query()
            yield "caught"

    async def main():
        running = generator()
        assert await anext(running) == 1
        query(5)
        assert await running.asend("sent") == "sent"
        assert current.get() is None
        assert await running.athrow(KeyError("x")) == "caught"
        assert [item async for item in running] == []

    assert inspect.isasyncgenfunction(generator)
    asyncio.run(main())
    assert counts(blocks) == [("a", 2)]
    assert all(row.blocking for row in blocks[0].queries)


def test_an_async_generator_that_is_closed_cleans_up_inside(blocks, query):
    @profile("a")
    async def generator():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            query()

    async def main():
        running = generator()
        await anext(running)
        await running.aclose()

    asyncio.run(main())
    assert counts(blocks) == [("a", 1)]
    assert blocks[0].error is None


def test_an_async_generator_that_raises_raises_the_same_object(blocks):
    error = KeyError("x")

    @profile("a")
    async def generator():
        yield 1
        raise error

    async def main():
        with pytest.raises(KeyError) as raised:
            [item async for item in generator()]
        assert raised.value is error

    asyncio.run(main())
    assert blocks[0].error == "KeyError"


def test_a_block_reports_where_the_request_around_it_does_not_where_the_last_application_does(profiled):
    def app(environ, start_response):
        start_response("200 OK", [])
        with profile("inside"):
            pass
        return []

    first, second = [], []
    door = profiled(PerfMiddleware, app, sinks=[first.append])
    profiled(PerfMiddleware, app, sinks=[second.append])

    door({"REQUEST_METHOD": "GET"}, lambda *_: None)
    with profile("outside"):
        pass

    assert [p.kind for p in first] == ["block", "request"]
    assert [p.name for p in second] == ["outside"]
