"""Django, through both doors and its own database layer: the template that was resolved."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, json, sys, warnings
import django
from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path, re_path

settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", USE_TZ=True,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"], LOGGING_CONFIG=None,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)

def ask(count):
    from django.db import connection
    with connection.cursor() as cursor:
        for number in range(count):
            cursor.execute("SELECT %s", [number])

def order(request, id):
    ask(3)
    return HttpResponse("x")

async def slow(request):
    from asgiref.sync import sync_to_async
    await sync_to_async(ask)(2)
    return HttpResponse("x")

def broken(request):
    raise ZeroDivisionError

def stream(request):
    def rows():
        ask(2)
        yield b"x"
    return StreamingHttpResponse(rows())

urlpatterns = [
    path("orders/<int:id>/", order),
    path("shop/", include([path("<slug:tenant>/items/", broken), re_path(r"^old/(?P<id>\\d+)$", order, {})])),
    path("async/", slow),
    path("stream/", stream),
]
django.setup()
profiles = []
PATHS = ["/orders/7/", "/shop/ada/items/", "/async/", "/stream/", "/nothing", "/orders/x/"]

def wsgi():
    from wsgiref.util import setup_testing_defaults
    from django.core.wsgi import get_wsgi_application
    from perf_middleware.wsgi import PerfMiddleware
    app = PerfMiddleware(get_wsgi_application(), log=False, sinks=[profiles.append])
    for path_info in PATHS:
        environ = {"PATH_INFO": path_info}
        setup_testing_defaults(environ)
        body = app(environ, lambda *args: None)
        list(body)
        body.close()

def asgi():
    from django.core.asgi import get_asgi_application
    from perf_middleware.asgi import PerfMiddleware
    app = PerfMiddleware(get_asgi_application(), log=False, sinks=[profiles.append])
    async def main():
        for path_info in PATHS:
            first = [{"type": "http.request", "body": b""}]
            async def receive():
                return first.pop() if first else await asyncio.Event().wait()
            async def send(message):
                pass
            scope = {"type": "http", "method": "GET", "path": path_info, "query_string": b"",
                     "headers": [(b"host", b"h")], "root_path": "", "http_version": "1.1"}
            await app(scope, receive, send)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Django says that a sync stream under ASGI is read at once
        asyncio.run(main())

{"wsgi": wsgi, "asgi": asgi}[sys.argv[1]]()
# Django itself asks a new connection what it can do.
print(json.dumps([[p.name, p.status, sum("compileoption" not in q.fingerprint for q in p.queries)] for p in profiles]))
"""


@pytest.mark.parametrize("door", ["wsgi", "asgi"])
def test_django(door):
    done = subprocess.run([sys.executable, "-c", PROGRAM, door], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        ["GET /orders/<int:id>/", 200, 3],
        ["GET /shop/<slug:tenant>/items/", 500, 0],
        ["GET /async/", 200, 2],
        ["GET /stream/", 200, 2],
        ["GET (unmatched)", 404, 0],
        ["GET (unmatched)", 404, 0],
    ]
