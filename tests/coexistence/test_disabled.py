"""`enabled=False`: nothing is patched, imported, made or kept."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import gc, json, sys, threading, tracemalloc
from perf_middleware import asgi, collector, wsgi

calls, body = [], [b"x"]
finders, modules = list(sys.meta_path), set(sys.modules)

def app(environ, start_response):
    calls[:] = [environ, start_response]
    return body

async def asgi_app(scope, receive, send):
    calls[:] = [scope, receive, send]

served = wsgi.PerfMiddleware(app, enabled=False)
served_async = asgi.PerfMiddleware(asgi_app, enabled=False)

def one():
    environ, start_response, send = {"PATH_INFO": "/"}, object(), object()
    assert served(environ, start_response) is body
    assert calls[0] is environ and calls[1] is start_response
    assert environ == {"PATH_INFO": "/"}
    scope = {"type": "http"}
    try:
        served_async(scope, start_response, send).send(None)
    except StopIteration:
        pass
    assert calls[0] is scope and calls[1] is start_response and calls[2] is send
    assert scope == {"type": "http"}

def kept():
    gc.collect()
    return len(gc.get_objects()), tracemalloc.get_traced_memory()[0]

tracemalloc.start()
for _ in range(3):  # what measuring itself keeps is there before
    one()
    before = kept()
for _ in range(REQUESTS):
    one()
after = kept()
print(json.dumps({
    "objects": after[0] - before[0],
    "bytes": after[1] - before[1],
    "drivers": [name for name in sys.modules if name.partition(".")[0] in ("sqlite3", "pymysql", "redis", "structlog")],
    "ours": [name for name in sys.modules if name.startswith("perf_middleware.collector.drivers")],
    "imported": sorted(set(sys.modules) - modules),
    "finders": sys.meta_path == finders,
    "status": collector.status(),
    "threads": threading.active_count(),
}))
"""


def test_switched_off_100000_requests_leave_nothing_behind():
    program = PROGRAM.replace("REQUESTS", "50_000")  # through each door
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found == {
        "objects": 0,
        "bytes": found["bytes"],
        "drivers": [],
        "ours": [],
        "imported": [],
        "finders": True,
        "status": {},
        "threads": 1,
    }
    assert found["bytes"] < 1024  # of 100,000 requests: what the measurement keeps of itself
