"""Put perf_middleware on, in every process of a hooked environment: its `.pth` file imports this module.

The drivers are hooked, and each place where a test suite hands a request to an application hands it to our door
around that application instead. Everything is on. What was seen is written when the process ends.
"""

from __future__ import annotations

import atexit
import io
import json
import os
from collections import Counter
from copy import copy
from functools import partial, wraps
from pathlib import Path
from threading import Lock

import structlog
import wrapt

from perf_middleware import asgi, collector, errors, wsgi


class Seen:
    """A sink that counts."""

    def __init__(self):
        self._counts = Counter()
        self._lock = Lock()

    def __call__(self, profile):
        with self._lock:
            self._counts[profile.kind] += 1
            self._counts["query"] += profile.query_count
            self._counts["finding"] += len(profile.findings)

    def write(self, folder):
        counts = {**self._counts, "unattributed": collector.unattributed.count, "faults": dict(errors.faults)}
        (folder / f"seen-{os.getpid()}.json").write_text(json.dumps(counts))


seen = Seen()
output = Path(os.environ["FOREIGN_OUTPUT"])
options = {"service": "foreign", "headers": os.environ["FOREIGN_HEADERS"], "log": True, "sinks": [seen]}

# Their tests read stderr, where the log goes unless the application says otherwise. This one says memory: Starlette's
# tests forbid writing to a file on the event loop.
structlog.configure(logger_factory=structlog.WriteLoggerFactory(io.StringIO()))
collector.install("pymysql", "sqlite3")
doors = {door: door.PerfMiddleware(None, **options) for door in (wsgi, asgi)}
atexit.register(seen.write, output)


def wrapped(door, app):
    """A door around an application; all doors of a kind share one pipeline, as the requests of one service do."""
    middleware = copy(doors[door])
    middleware.app = app
    return middleware


def patch(module, path):
    """Replace `module.path` by `replacement(original)`, when the module is imported."""

    def decorate(replacement):
        def replace(imported):
            owner_path, _, name = path.rpartition(".")
            owner = getattr(imported, owner_path) if owner_path else imported
            original = getattr(owner, name)
            setattr(owner, name, wraps(original)(replacement(original)))

        wrapt.register_post_import_hook(replace, module)
        return replacement

    return decorate


@patch("starlette.testclient", "TestClient.__init__")
def _starlette(original):
    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.app = self._transport.app = wrapped(asgi, self.app)

    return __init__


@patch("wsgiref.handlers", "BaseHandler.run")
def _wsgiref(original):  # on which Django's server stands
    return lambda self, app: original(self, wrapped(wsgi, app))


@patch("werkzeug.test", "run_wsgi_app")
def _werkzeug(original):
    return lambda app, *args, **kwargs: original(wrapped(wsgi, app), *args, **kwargs)


@patch("werkzeug.serving", "BaseWSGIServer.__init__")
def _werkzeug_server(original):
    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.app = wrapped(wsgi, self.app)

    return __init__


@patch("django.core.wsgi", "get_wsgi_application")
def _django(original):
    return lambda: wrapped(wsgi, original())


@patch("django.core.handlers.asgi", "ASGIHandler.__call__")
def _django_async(original):
    async def __call__(self, *args):
        await wrapped(asgi, partial(original, self))(*args)

    return __call__


@patch("django.test.client", "ClientHandler.__call__")
def _django_client(original):
    """Django's test client asks for a response object and no body: the door has a request and a start to see."""

    def __call__(self, environ):
        answered = []

        def app(environ, start_response):
            answered.append(original(self, environ))
            start_response(f"{answered[0].status_code} {answered[0].reason_phrase}", list(answered[0].items()))
            return []

        wrapped(wsgi, app)(environ, lambda status, headers: None)
        return answered[0]

    return __call__


@patch("django.test.client", "AsyncClientHandler.__call__")
def _django_async_client(original):
    async def __call__(self, scope):
        answered = []

        async def app(scope, receive, send):
            answered.append(await original(self, scope))
            await send({"type": "http.response.start", "status": answered[0].status_code, "headers": []})
            await send({"type": "http.response.body"})

        async def send(message):
            pass

        await wrapped(asgi, app)(scope, None, send)
        return answered[0]

    return __call__
