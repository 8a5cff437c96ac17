"""The fleet under uvicorn: routes on the loop and in threads, below a BaseHTTPMiddleware, and background tasks."""

from __future__ import annotations

import work
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from perf_middleware.asgi import PerfMiddleware


class Between(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["X-Between"] = "yes"
        return response


def answer(request):
    kind, count = request.path_params["kind"], request.path_params["count"]
    connection = work.connect()
    cursor = connection.cursor()
    headers = {work.CONNECTION: str(connection.thread_id())}
    if kind == "stream":
        return StreamingResponse(work.streamed(cursor, count), headers=headers)
    if kind == "background":
        work.read(cursor, 1)
        return PlainTextResponse("later", headers=headers, background=BackgroundTask(after, cursor, count))
    work.WORK[kind](cursor, count)
    connection.close()
    return PlainTextResponse("done", headers=headers)


def after(cursor, count):
    work.read(cursor, count)
    cursor.connection.close()


async def on_loop(request):
    return answer(request)


def in_thread(request):
    return answer(request)


app = PerfMiddleware(
    Starlette(
        routes=[Route("/loop/{kind}/{count:int}", on_loop), Route("/thread/{kind}/{count:int}", in_thread)],
        middleware=[Middleware(Between)],
    )
)
