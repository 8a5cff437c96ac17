"""One process, one other tool, one order: python scene.py PEER FRAMEWORK ORDER LEAVING. Prints JSON.

Phases, each a few requests through every protocol of the application:

    alone   the peer without us (only where it comes first)
    both    the peer and us
    left    the first of the two that LEAVING names is uninstalled; connections are those of before, then new ones
    end     the other one is uninstalled as well
"""

from __future__ import annotations

import asyncio
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
        self.app = None
        self.profiles = []
        self.phases = {}
        self.layers = {"wsgi": [], "asgi": []}
        self.middlewares = []

    def they_come(self):
        self.peer.install(self.framework)
        for protocol, layers in self.layers.items():
            layers.append(getattr(self.peer, protocol))

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
        if reopen:
            self.app.open()
        self.phases[phase] = []
        for protocol in self.app.protocols:
            serve = getattr(self.app, protocol)
            for layer in reversed(self.layers[protocol]):
                serve = layer(serve)
            call = through_wsgi if protocol == "wsgi" else through_asgi
            self.phases[phase] += [self.request(call, serve, path) for path in PATHS]

    def request(self, call, serve, path):
        sent, late, seen = self.app.sent(), unattributed.count, len(self.peer.queries)
        requests = self.peer.requests
        del self.profiles[:], self.app.errors[:]
        raised, queries = None, []
        try:
            call(serve, path)
        except Exception as error:
            raised = error
        late = unattributed.count - late
        now = self.app.sent()
        for profile in self.profiles:
            queries += profile.queries
        return {
            "path": path,
            "raised": raised is not None,
            "same": raised is None or raised is self.app.errors[-1],
            "sent": {name: now[name] - sent[name] for name in now},
            "ours": {
                name: sum(row.wire for row in queries if is_app(row) and (row.system == "sqlite") == (name == "sqlite"))
                for name in now
            },
            "profiles": len(self.profiles),
            "error": [profile.error for profile in self.profiles],
            "count": sum(profile.query_count for profile in self.profiles),
            "rows": len(queries),
            "unattributed": late,
            "theirs": sum("of_app" in text for text in self.peer.queries[seen:]),
            "their_requests": self.peer.requests - requests,
        }


def is_app(row):
    return "of_app" in row.fingerprint


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
    if order == "they_first":
        scene.they_come()
        scene.play("alone")
        scene.we_come()
    else:
        scene.we_come()
        scene.they_come()
    scene.play("both")
    leave = {"we": scene.we_leave, "they": scene.peer.uninstall}
    leave.pop(leaving)()
    scene.play("left", reopen=False)
    scene.play("left, new connections")
    for other in leave.values():
        other()
    scene.play("end")
    print(
        json.dumps(
            {
                "phases": scene.phases,
                "status": collector.status(),
                "not_restored": scene.not_restored,
                "faults": dict(faults),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
