"""The fleet under gunicorn."""

from __future__ import annotations

import work
from flask import Flask, Response

from perf_middleware.wsgi import PerfMiddleware

site = Flask("fleet")


@site.get("/<kind>/<int:count>")
def page(kind, count):
    connection = work.connect()
    cursor = connection.cursor()
    headers = {work.CONNECTION: str(connection.thread_id())}
    if kind == "stream":
        return Response(work.streamed(cursor, count), headers=headers)
    work.WORK[kind](cursor, count)
    connection.close()
    return Response("done", headers=headers)


app = PerfMiddleware(site)
