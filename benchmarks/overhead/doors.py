"""The doors an application can have, each with the way to send it requests in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.overhead.workload import Workload

    App = Any
    Serve = Callable[[int], list[tuple[Any, Any]]]

_HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "2")]


def build(door: str, workload: Workload) -> App:
    """The application of a door, not wrapped yet."""
    return _BUILD[door](workload)


def server(door: str, app: App) -> Serve:
    """A function that sends so many requests, one after the other, and gives the headers of the last response."""
    return _asgi_server(app) if door in ("asgi", "starlette") else _wsgi_server(app)


def _wsgi(workload: Workload) -> App:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = [workload.view()]
        start_response("200 OK", list(_HEADERS))
        return body

    return app


def _asgi(workload: Workload) -> App:
    headers = [(name.lower().encode(), value.encode()) for name, value in _HEADERS]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = workload.view()
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    return app


def _flask(workload: Workload) -> App:
    from flask import Flask

    app = Flask("shop")
    app.add_url_rule("/orders", "orders", workload.view)
    return app


def _starlette(workload: Workload) -> App:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def orders(_: Any) -> PlainTextResponse:
        return PlainTextResponse(workload.view())

    return Starlette(routes=[Route("/orders", orders)])


def _django(workload: Workload) -> App:
    from benchmarks.overhead.django_site import application

    return application(workload)


_BUILD = {"wsgi": _wsgi, "asgi": _asgi, "flask": _flask, "starlette": _starlette, "django": _django}


def _wsgi_server(app: App) -> Serve:
    environ: dict[str, Any] = {}
    last: list[Any] = [[]]
    setup_testing_defaults(environ)
    environ |= {"PATH_INFO": "/orders", "REMOTE_ADDR": "192.0.2.1", "HTTP_USER_AGENT": "overhead"}

    def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
        """Take what a server would send."""
        if status != "200 OK":
            raise RuntimeError(f"the application answered {status}")
        last[0] = headers

    def serve(requests: int) -> list[tuple[str, str]]:
        for _ in range(requests):
            body = app(environ.copy(), start_response)
            for _ in body:
                pass
            close = getattr(body, "close", None)
            if close is not None:
                close()
        return last[0]

    return serve


def _asgi_server(app: App) -> Serve:
    import asyncio

    loop = asyncio.new_event_loop()
    last: list[Any] = [[]]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/orders",
        "raw_path": b"/orders",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"shop.example"), (b"user-agent", b"overhead")],
        "client": ("192.0.2.1", 40000),
        "server": ("shop.example", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            if message["status"] != 200:
                raise RuntimeError(f"the application answered {message['status']}")
            last[0] = message["headers"]

    async def serve_all(requests: int) -> None:
        for _ in range(requests):
            await app(scope.copy(), receive, send)

    def serve(requests: int) -> list[tuple[bytes, bytes]]:
        loop.run_until_complete(serve_all(requests))
        return last[0]

    return serve
