"""No literal leaves the process by default: canaries planted wherever one could hide, looked for wherever one could go.

And no memory is taken: a gigabyte streams through either door without staying.
"""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import subprocess
import sys
from wsgiref.util import setup_testing_defaults

import anyio
import pytest
import redis

from perf_middleware import profile
from perf_middleware.asgi import PerfMiddleware as AsgiMiddleware
from perf_middleware.cli import main
from perf_middleware.record import to_json
from perf_middleware.wsgi import PerfMiddleware as WsgiMiddleware

CANARY = "c4nary"
NUMBER = 7_310_664_829


class DriverError(Exception):
    """Says the value that was wrong, as drivers do."""


def work():
    """A request's worth of statements with a canary in every place a statement has."""
    connection = sqlite3.connect(":memory:")
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
    cursor.execute(f"INSERT INTO person (name) VALUES ('{CANARY}-text')")
    cursor.execute("INSERT INTO person (name) VALUES (?)", (f"{CANARY}-parameter",))
    cursor.executemany("INSERT INTO person (name) VALUES (?)", [(f"{CANARY}-many-{n}",) for n in range(3)])
    for number in range(12):
        cursor.execute(f"SELECT name FROM person WHERE id = {NUMBER + number} /* {CANARY}-comment */ -- {CANARY}-end")
    for statement in (
        f"INSERT INTO person (name) VALUES ('{CANARY}-text')",
        f"SELECT '{CANARY}-open",
        f"SELECT x'{CANARY.encode().hex()}'",
        f"SELEKT {CANARY!r}",
    ):
        with contextlib.suppress(sqlite3.Error):
            cursor.execute(statement)
    connection.close()


def application(environ, start_response):
    with profile("block") as block:
        block.set("customer", f"{CANARY}-tag")
        work()
    start_response("500 Oh", [("Content-Type", "text/plain")])
    yield b"x"
    raise DriverError(f"{CANARY}-error")


HOSTILE = {
    "X-Perf-Id": f"{CANARY} id\r\nX-Evil: 1",
    "X-Request-ID": f"{CANARY}/id",
    "traceparent": f"00-{CANARY}",
    "tracestate": f"a={CANARY}",
    "Cookie": f"session={CANARY}",
    "Authorization": CANARY,
    "User-Agent": CANARY,
}


def through_wsgi(options):
    app = WsgiMiddleware(application, **options)
    told = []
    environ = {
        "PATH_INFO": f"/people/{CANARY}",
        "QUERY_STRING": f"q={CANARY}",
        "REQUEST_METHOD": CANARY.upper(),
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HOSTILE.items()},
    }
    setup_testing_defaults(environ)
    body = app(environ, lambda status, headers, *_: told.extend(headers))
    with pytest.raises(DriverError):
        list(body)
    body.close()
    return app, repr(told)


def through_asgi(options):
    async def served(scope, receive, send):
        body = application(None, lambda status, headers: None)
        next(body)
        await send({"type": "http.response.start", "status": 500, "headers": []})
        next(body)

    async def send(message):
        told.append(message)

    app = AsgiMiddleware(served, **options)
    told = []
    scope = {
        "type": "http",
        "method": CANARY,
        "path": f"/people/{CANARY}",
        "raw_path": f"/people/{CANARY}".encode(),
        "query_string": f"q={CANARY}".encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in HOSTILE.items()],
    }
    with pytest.raises(DriverError):
        anyio.run(app, scope, None, send)
    return app, repr(told)


def clean(text):
    """The canaries that are found in it."""
    text = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    hidden = (CANARY, CANARY.upper(), CANARY.encode().hex(), str(NUMBER))
    return not [canary for canary in hidden if canary in text]


@pytest.mark.parametrize("door", [through_wsgi, through_asgi])
@pytest.mark.parametrize("log_names", ["perf", "otel"])
def test_no_literal_is_told_logged_or_saved(door, log_names, tmp_path, monkeypatch, capsys):
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    saved, kept = tmp_path / "p.jsonl", []
    app, told = door(
        {"headers": "full", "log_names": log_names, "jsonl": str(saved), "sinks": [kept.append], "store": "memory://"}
    )
    app.close()
    block, request = kept
    assert block.query_count == request.query_count >= 18
    assert [finding.kind for finding in request.findings].count("n_plus_one") == 1
    assert request.error == "DriverError"
    assert "server-timing" in told.lower()
    assert "n_plus_one" in told
    assert stderr.getvalue().count("\n") == 2
    assert saved.read_bytes().count(b"\n") == 2
    for text in (told, stderr.getvalue(), saved.read_bytes(), to_json(request), repr(request)):
        assert clean(text)
    capsys.readouterr()
    for verb in (["analyze", str(saved)], ["analyze", str(saved), "--format", "json"]):
        assert main(verb) == 0
        out = capsys.readouterr().out
        assert "n_plus_one" in out
        assert clean(out)


def test_the_canaries_are_found_where_they_are_asked_for(tmp_path):
    kept = []
    app, _ = through_wsgi({"log": False, "capture_sql": True, "sinks": [kept.append]})
    app.close()
    assert not clean(to_json(kept[0]))
    assert f"{CANARY}-parameter" not in to_json(kept[0]).decode()
    assert f"{CANARY}-tag" not in to_json(kept[0]).decode()


def test_no_literal_reaches_an_sqlite_store_or_its_report(tmp_path, capsys):
    path = tmp_path / "stats.sqlite"
    for door in (through_wsgi, through_asgi):
        app, _ = door({"log": False, "store": f"sqlite:///{path}", "service": "shop"})
        app.close()
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"person" in stored
    assert clean(stored)
    for options in ([], ["--format", "json"]):
        assert main(["report", "--store", f"sqlite:///{path}", *options]) == 0
        out = capsys.readouterr().out
        assert "shop" in out
        assert clean(out)


def test_no_literal_reaches_a_redis_store(valkey_url):
    app, _ = through_wsgi({"log": False, "store": valkey_url, "service": "privacy", "redis_prefix": "privacy"})
    app.close()
    client = redis.Redis.from_url(valkey_url)
    keys = list(client.scan_iter("privacy*"))
    assert keys
    stored = (
        b"".join(key + (client.dump(key) or b"") for key in keys) + repr([_value(client, key) for key in keys]).encode()
    )
    client.close()
    assert b"person" in stored
    assert clean(stored)


def _value(client, key):
    kind = client.type(key)
    if kind == b"hash":
        return client.hgetall(key)
    if kind == b"zset":
        return client.zrange(key, 0, -1)
    if kind == b"set":
        return client.smembers(key)
    return client.get(key) if kind == b"string" else client.lrange(key, 0, -1)


STREAM = """
import asyncio, json, resource, sys
from perf_middleware.asgi import PerfMiddleware as Asgi
from perf_middleware.wsgi import PerfMiddleware as Wsgi

CHUNK, COUNT = bytes(1024 * 1024), 1024
sent = made = late = 0

def rss():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def chunks():
    global made
    for _ in range(COUNT):
        made += 1
        yield bytes(bytearray(CHUNK))

def wsgi():
    global sent, late
    def app(environ, start_response):
        start_response("200 OK", [])
        return chunks()
    body = Wsgi(app, log=False)({}, lambda *args: None)
    for chunk in body:
        sent += len(chunk)
        late = max(late, made - sent // len(CHUNK))
    body.close()

def asgi():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for chunk in chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    async def send(message):
        global sent, late
        sent += len(message.get("body", b""))
        late = max(late, made - sent // len(CHUNK))
    asyncio.run(Asgi(app, log=False)({"type": "http", "headers": []}, None, send))

run = {"wsgi": wsgi, "asgi": asgi}[sys.argv[1]]
COUNT = 4
run()
sent = made = 0
COUNT = 1024
before = rss()
run()
print(json.dumps([sent, late, (rss() - before) * 1024]))
"""


@pytest.mark.parametrize("door", ["wsgi", "asgi"])
def test_a_gigabyte_streams_through_and_nothing_is_held_back(door):
    done = subprocess.run([sys.executable, "-c", STREAM, door], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    sent, late, grown_bytes = json.loads(done.stdout)
    assert sent == 2**30
    assert late <= 1
    assert grown_bytes < 10 * 2**20
