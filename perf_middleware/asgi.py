"""The ASGI door: raw ASGI, nothing held back.

    app = PerfMiddleware(app, service="shop", store="redis://localhost")

`lifespan`, `websocket` and unknown scopes pass through untouched. What runs after the last body byte (background
tasks) is told apart as `phase: background` and is not in the response time.
"""

from __future__ import annotations

from contextlib import suppress
from threading import get_ident
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Unpack

from perf_middleware import frameworks
from perf_middleware.collector.context import Capture, current
from perf_middleware.errors import fault
from perf_middleware.frameworks import starlette
from perf_middleware.headers import append
from perf_middleware.pipeline import Pipeline, configure
from perf_middleware.settings import Options, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: The open profile's capture in the scope: what is wrapped twice is profiled once. The scope itself is passed on,
#: not a copy, so that a middleware around us still finds in it what the framework leaves there.
_MARK = "perf_middleware.capture"

_READ = (b"traceparent", b"x-request-id", b"x-perf-id")

#: What may end a response, the last of them does.
_LAST = frozenset(
    ("http.response.body", "http.response.pathsend", "http.response.zerocopysend", "http.response.trailers")
)


class PerfMiddleware:
    """Wraps an ASGI application; the options are those of `perf_middleware.settings.Settings`.

    Raises:
        OptionError: For an unknown option or a value that is not accepted.

    """

    def __init__(self, app: ASGIApp, **options: Unpack[Options]) -> None:
        self.app = app
        self.pipeline = configure(load(options))
        if self.pipeline is not None:
            frameworks.install()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        pipeline = self.pipeline
        if pipeline is None or scope.get("type") != "http" or _is_open(scope.get(_MARK)):
            await self.app(scope, receive, send)
            if pipeline is not None and scope.get("type") == "lifespan":
                pipeline.rolling.flush()  # uvicorn ends by the signal it was stopped with: nothing runs at its exit
            return
        capture = pipeline.begin("request", method=scope.get("method", ""), headers_in=_ids(scope))
        if capture is None:
            await self.app(scope, receive, send)
            return
        scope[_MARK] = capture
        await _Request(pipeline, capture, scope, send).run(self.app, receive)

    def close(self) -> None:
        """Send what is left to the store and unhook the drivers."""
        if self.pipeline is not None:
            self.pipeline.close()


class _Request:
    """The state of one request."""

    __slots__ = ("_capture", "_holder", "_pipeline", "_root_path", "_scope", "_server_send", "_status")

    def __init__(self, pipeline: Pipeline, capture: Capture, scope: Scope, send: Send) -> None:
        self._pipeline = pipeline
        self._capture = capture
        self._scope = scope
        self._server_send = send
        self._status: int | None = None
        self._holder = scope.get("app")
        self._root_path = scope.get("root_path", "")
        capture.on_loop(get_ident())

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        """Call the application; its exceptions pass through as they are."""
        self._holder = self._holder or app
        token = current.set(self._capture)
        try:
            await app(self._scope, receive, self._send)
        except GeneratorExit as error:  # a task that nobody waited for was collected, in whatever context
            with suppress(ValueError):
                current.reset(token)
            self._find_route()
            self._pipeline.abandon(self._capture, status=self._status, error=error)
            raise
        except BaseException as error:
            current.reset(token)
            failed = isinstance(error, Exception) and self._capture.first_byte_ns is None
            self._finish(500 if failed else self._status, error=error)
            raise
        current.reset(token)
        self._finish(self._status)

    async def _send(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "http.response.start":
            message = self._started(message)
        await self._server_send(message)
        if kind not in _LAST:
            return
        if not message.get("more_body"):
            self._capture.last_byte_ns = perf_counter_ns()
        elif self._capture.open and self._pipeline.is_overdue(self._capture):
            self._finish(self._status, truncated=True)

    def _started(self, message: Message) -> Message:
        """The message with our headers: a new one, since applications reuse theirs."""
        self._status = message.get("status")
        ours = self._pipeline.answer(self._capture, self._scope, self._status)
        if not ours:
            return message
        pairs = [(name.lower().encode(), value.encode()) for name, value in ours]
        return {**message, "headers": append(message.get("headers", ()), pairs, separator=b", ")}

    def _finish(self, status: int | None, *, error: BaseException | None = None, truncated: bool = False) -> None:
        """Finish once, under the name of the route that is known by now."""
        if self._capture.open:
            self._find_route()
        self._pipeline.finish(self._capture, status=status, error=error, truncated=truncated)

    def _find_route(self) -> None:
        if self._capture.route is None:
            try:
                self._capture.route = starlette.route_of(self._scope, self._holder, self._root_path)
            except Exception as ours:  # noqa: BLE001 - never the application's problem
                fault("starlette", ours)


def _is_open(outer: Capture | None) -> bool:
    return outer is not None and outer.open


def _ids(scope: Scope) -> dict[str, str | None]:
    """The request's own ids, from its raw headers."""
    try:
        return {name.decode(): value.decode("latin-1") for name, value in scope.get("headers", ()) if name in _READ}
    except Exception as error:  # noqa: BLE001 - a scope against the specification is the application's to refuse
        fault("scope", error)
        return {}
