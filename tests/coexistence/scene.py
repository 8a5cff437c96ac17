"""One process, one other tool, one order: python scene.py PEER FRAMEWORK ORDER LEAVING. Writes JSON.

ORDER is they_first, we_first or alone (the peer without us); LEAVING is we or they. Phases, each a few requests
through every protocol of the application:

    both    the peer and us
    left    the one that LEAVING names is uninstalled; the connections are those of before
    new     the same on connections opened afterwards
    end     the other one is uninstalled as well
"""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import sys
from wsgiref.util import setup_testing_defaults

import pymysql
from apps import APPS
from peers import PEERS

from perf_middleware import asgi, collector, wsgi
from perf_middleware.collector import unattributed
from perf_middleware.errors import faults

PATHS = ("/0", "/1", "/7", "/raise", "/driver")
PATCHED = (
    (sqlite3, "connect"),
    (sqlite3.dbapi2, "connect"),
    *((pymysql.cursors.Cursor, name) for name in ("execute", "executemany", "callproc")),
    *((pymysql.connections.Connection, name) for name in ("query", "close", "commit", "select_db")),
)


class Scene:
    """The application, the doors around it, and what came of each request."""

    def __init__(self, peer, framework):
        self.peer = PEERS[peer]()
        self.framework = framework
        APPS[framework].prepare(self.peer)
        self.app = None
        self.profiles = []
        self.phases = {}
        self.layers = {"wsgi": [], "asgi": []}
        self.middlewares = []
        self.not_restored = []

    def they_come(self):
        self.peer.install(self.framework)
        for protocol, layers in self.layers.items():
            layers.append(getattr(self.peer, protocol))

    def they_leave(self):
        self.peer.uninstall()

    def we_come(self):
        self.before = touched()
        for protocol, module in (("wsgi", wsgi), ("asgi", asgi)):
            middleware = module.PerfMiddleware(None, log=False, sinks=[self.profiles.append])
            self.middlewares.append(middleware)

            def ours(app, middleware=middleware):
                middleware.app = app
                return middleware

            self.layers[protocol].append(ours)

    def we_leave(self):
        for middleware in self.middlewares:
            middleware.close()
        found = zip(PATCHED, self.before, touched(), strict=True)
        self.not_restored = [f"{owner.__name__}.{name}" for (owner, name), before, now in found if now is not before]

    def play(self, phase, *, reopen=True):
        """Serve all requests through all doors; the tool that came first is the outermost."""
        if self.app is None:
            self.app = APPS[self.framework]()
            self.peer.watch()
        if reopen:
            self.app.open()
        self.phases[phase] = []
        for protocol in self.app.protocols:
            serve = {"wsgi": self.app.wsgi, "asgi": function(self.app.asgi)}[protocol]
            for layer in reversed(self.layers[protocol]):
                serve = layer(serve)
            call = through_wsgi if protocol == "wsgi" else through_asgi
            self.phases[phase] += [self.request(call, serve, path) for path in PATHS]

    def request(self, call, serve, path):
        del self.profiles[:], self.app.errors[:]
        gc.collect()  # some tools end a failed request's span when the error goes
        sent, late = self.app.sent(), unattributed.count
        seen, requests = len(self.peer.queries), self.peer.requests
        raised, queries = None, []
        try:
            call(serve, path)
        except Exception as error:
            if not self.app.errors:
                raise  # the scene itself is broken
            raised = error
        late = unattributed.count - late
        now = self.app.sent()
        for profile in self.profiles:  # less what SQLite's trace does not tell
            queries += [row for row in profile.queries if not row.fingerprint.startswith("EXPLAIN")]
        return {
            "path": path,
            "raised": raised is not None,
            "same": raised is None or raised is self.app.errors[-1],
            "sent": {name: now[name] - sent[name] for name in now},
            "ours": {
                name: sum(row.wire for row in queries if (row.system == "sqlite") == (name == "sqlite")) for name in now
            },
            "profiles": len(self.profiles),
            "error": [profile.error for profile in self.profiles],
            "unattributed": late,
            "theirs": sum("of_app" in text for text in self.peer.queries[seen:]),
            "their_requests": self.peer.requests - requests,
        }


def function(method):
    """An ASGI application as a plain function: Sentry does not recognise a bound method."""

    async def asgi(scope, receive, send):
        await method(scope, receive, send)

    return asgi


def touched():
    return [vars(owner).get(name) for owner, name in PATCHED]


def through_wsgi(app, path):
    environ = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    body = app(environ, lambda *args: lambda data: None)
    try:
        for _ in body:
            pass
    finally:
        if hasattr(body, "close"):
            body.close()


def through_asgi(app, path):
    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        pass

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http"}
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": []}
    scope |= {"server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1)}
    asyncio.run(app(scope, receive, send))


def main(peer, framework, order, leaving):
    scene = Scene(peer, framework)
    for come in {"they_first": "tw", "we_first": "wt", "alone": "t"}[order]:
        (scene.they_come if come == "t" else scene.we_come)()
    scene.play("both")
    if order != "alone":
        leave = [scene.we_leave, scene.they_leave]
        if leaving == "they":
            leave.reverse()
        leave[0]()
        scene.play("left", reopen=False)
        scene.play("new")
        leave[1]()
        scene.play("end")
    told = {"status": collector.status(), "not_restored": scene.not_restored, "faults": dict(faults)}
    sys.stdout.write(json.dumps({**scene.phases, **told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
