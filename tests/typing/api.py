"""The public names as an application writes them: type-checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, assert_type

from perf_middleware import analyze, profile, propagate
from perf_middleware.asgi import PerfMiddleware as AsgiMiddleware
from perf_middleware.collector import install, uninstall
from perf_middleware.record import Finding, Profile, Query, from_json, to_json
from perf_middleware.wsgi import PerfMiddleware as WsgiMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from perf_middleware.errors import OptionError, PerfMiddlewareError


def wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return [b""]


async def asgi_app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None: ...


def level(request: Mapping[str, Any]) -> str:
    return "full"


def sink(done: Profile) -> None: ...


wsgi = WsgiMiddleware(wsgi_app, service="shop", store="memory://", headers=level, sinks=[sink], detectors=[])
wrapped: WSGIApplication = wsgi
wsgi.close()
asgi = AsgiMiddleware(asgi_app, headers=False, log=False, sample_rate=0.5, thresholds={"n_plus_one": 10})
again = AsgiMiddleware(asgi, drivers=["pymysql"], enabled=False)
WsgiMiddleware(wsgi_app, sample_raet=1)  # type: ignore[call-arg]
WsgiMiddleware(wsgi_app, service=7)  # type: ignore[arg-type]

with profile("block") as p:
    p.set("items", 3)
assert_type(p, Profile)
assert_type(p.query_count, int)
assert_type(p.slowest(2), list[Query])
assert_type(p.findings, list[Finding])
assert_type(analyze(from_json(to_json(p))), list[Finding])


async def block() -> None:
    async with profile("block") as p:
        assert_type(p, Profile)


@profile("f")
def function(number: int, *, text: str = "") -> float:
    return number / 2


@profile("c")
async def coroutine(number: int) -> str:
    return str(number)


@profile("g")
def generator() -> Iterator[int]:
    yield 1


@profile("a")
async def async_generator() -> AsyncIterator[int]:
    yield 1


assert_type(function(1, text="a"), float)
function("a")  # type: ignore[arg-type]
assert_type(generator(), Iterator[int])
assert_type(async_generator(), AsyncIterator[int])


async def awaits() -> None:
    assert_type(await coroutine(1), str)


assert_type(propagate(ThreadPoolExecutor()), ThreadPoolExecutor)
assert_type(propagate(ThreadPoolExecutor), type[ThreadPoolExecutor])
install("pymysql")
uninstall()


def errors(error: OptionError) -> tuple[PerfMiddlewareError, ValueError]:
    return error, error
