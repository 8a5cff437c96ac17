"""The ASGI door: raw ASGI, nothing held back.

    app = PerfMiddleware(app, service="shop", store="redis://localhost")

`lifespan`, `websocket` and unknown scopes pass through untouched. What runs after the last body byte (background
tasks) is told apart as `phase: background` and is not in the response time.
"""

from __future__ import annotations

from threading import get_ident
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Unpack

from perf_middleware import frameworks
from perf_middleware.collector.context import Capture, current
from perf_middleware.frameworks import starlette
from perf_middleware.headers import append
from perf_middleware.pipeline import Pipeline
from perf_middleware.settings import Options, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_MARK = "perf_middleware.profiled"
_READ = (b"traceparent", b"x-request-id", b"x-perf-id")


class PerfMiddleware:
    """Wraps an ASGI application; the options are those of `perf_middleware.settings.Settings`.

    Raises:
        OptionError: For an unknown option or a value that is not accepted.

    """

    def __init__(self, app: ASGIApp, **options: Unpack[Options]) -> None:
        self.app = app
        settings = load(options)
        self.pipeline = Pipeline(settings) if settings.enabled else None
        if self.pipeline is not None:
            frameworks.install()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        pipeline = self.pipeline
        if pipeline is None or scope.get("type") != "http" or _MARK in scope:
            await self.app(scope, receive, send)
            return
        capture = pipeline.begin("request", method=scope.get("method", ""), headers_in=_ids(scope))
        if capture is None:
            await self.app(scope, receive, send)
            return
        scope[_MARK] = True
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
        self._root_path = capture.root_path = scope.get("root_path", "")
        capture.loop_thread = get_ident()

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        """Call the application; its exceptions pass through as they are."""
        token = current.set(self._capture)
        try:
            await app(self._scope, receive, self._send)
        except BaseException as error:
            current.reset(token)
            self._finish(app, error)
            raise
        current.reset(token)
        self._finish(app, None)

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            message = self._started(message)
        await self._server_send(message)
        if kind == "http.response.body":
            if not message.get("more_body", False):
                self._capture.last_byte_ns = perf_counter_ns()
            elif self._capture.open and self._pipeline.is_overdue(self._capture):
                self._pipeline.finish(self._capture, status=self._status, truncated=True)

    def _started(self, message: Message) -> Message:
        """The message with our headers: a new one, since applications reuse theirs."""
        self._status = message.get("status")
        ours = self._pipeline.answer(self._capture, self._scope, self._status)
        if not ours:
            return message
        theirs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
        merged = append(theirs, ours)
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in merged]
        return {**message, "headers": pairs}

    def _finish(self, app: ASGIApp, error: BaseException | None) -> None:
        if self._capture.route is None:
            self._capture.route = starlette.route_of(self._scope, self._holder or app, self._root_path)
        failed = isinstance(error, Exception) and self._capture.first_byte_ns is None
        self._pipeline.finish(self._capture, status=500 if failed else self._status, error=error)


def _ids(scope: Scope) -> dict[str, str | None]:
    """The request's own ids, from its raw headers."""
    return {
        name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ()) if name in _READ
    }
