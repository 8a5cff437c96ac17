"""`doctor --privacy`: canaries planted wherever a request has a value, looked for in everything that was written.

A small application is served through both doors with everything on: full headers, log, jsonl, store. Options in the
environment hold here too, so that `PERF_MIDDLEWARE_CAPTURE_SQL=1` is seen to leak.
"""

from __future__ import annotations

import asyncio
import io
import secrets
import sqlite3
import tempfile
from contextlib import closing, redirect_stderr, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit
from wsgiref.util import setup_testing_defaults

import msgspec

from perf_middleware import asgi, collector, profile, wsgi
from perf_middleware.cli.doctor.checks import Check, named
from perf_middleware.cli.doctor.sessions import WAYS, system_of
from perf_middleware.errors import StoreError
from perf_middleware.stores import open_store
from perf_middleware.stores.redis import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perf_middleware.cli.doctor.checks import Outcome
    from perf_middleware.cli.doctor.sessions import Session, Way

AREA: Final = "privacy"

#: Where canaries are planted.
PLACES: Final = (
    "parameter",
    "parameter of executemany",
    "literal",
    "number",
    "hex literal",
    "literal that is not closed",
    "comment",
    "driver's error",
    "application's error",
    "path",
    "query string",
    "header",
    "request id",
    "tag",
    "database's URL",
)

#: What has to be in an output for its being clean to say anything: a finding, or the table that was asked.
TABLE: Final = "doctor_person"
MARKS: Final = {"headers": "n_plus_one", "log": "n_plus_one", "jsonl": TABLE, "store": TABLE}

#: A password shorter than this may stand anywhere by chance.
SHORTEST_PASSWORD: Final = 6

HEADERS: Final = ("Authorization", "Cookie", "User-Agent", "Referer", "X-Forwarded-For", "tracestate")


class ApplicationError(Exception):
    """Says the value that was wrong, as applications do."""


class Canaries(msgspec.Struct):
    """A text of its own for each place, in letters and digits so that it looks the same however it is quoted."""

    by_place: dict[str, str]

    def __getitem__(self, place: str) -> str:
        return self.by_place[place]

    def found_in(self, output: bytes) -> set[str]:
        """The places whose canary is there: as it is, or in hexadecimal."""
        output = output.lower()
        return {
            place
            for place, canary in self.by_place.items()
            if any(form.encode().lower() in output for form in (canary, canary.encode().hex(), quote(canary, safe="")))
        }


def check(databases: Sequence[str], store_url: str) -> list[Check]:
    """Serve requests, and look.

    Raises:
        DatabaseError: When a `--database` is not accepted.
        OptionError: When the store's URL, or an option in the environment, is not accepted.

    """
    open_store(store_url).close()  # a mistake in it is said before anything is written
    canaries = Canaries({place: f"pmc{number:02d}{secrets.token_hex(6)}" for number, place in enumerate(PLACES)})
    canaries.by_place["number"] = str(10**15 + secrets.randbelow(10**15))
    for url in (*databases, store_url):
        _add_password(canaries, url)
    outputs: dict[str, bytes] = {}
    troubles: list[str] = []
    with tempfile.TemporaryDirectory(prefix="perf-middleware-") as folder:
        for door, serve in (("WSGI", _wsgi), ("ASGI", _asgi)):
            written, trouble = _serve(serve, canaries, databases, store_url, Path(folder) / door)
            outputs |= {f"{door} {name}": output for name, output in written.items()}
            troubles += [text for text in trouble if text not in troubles]
    return _told(canaries, outputs, troubles)


def _add_password(canaries: Canaries, url: str) -> None:
    with suppress(ValueError):
        password = unquote(urlsplit(url).password or "")
        if len(password) >= SHORTEST_PASSWORD:
            canaries.by_place[f"password of {urlsplit(url).scheme}://"] = password


def _told(canaries: Canaries, outputs: dict[str, bytes], troubles: list[str]) -> list[Check]:
    found = {name: canaries.found_in(output) for name, output in outputs.items()}
    empty = {name for name, output in outputs.items() if MARKS[name.split()[1]].encode() not in output}
    checks = []
    for place in canaries.by_place:
        leaked = [name for name, places in found.items() if place in places]
        told = {name: "LEAKED" if name in leaked else "empty" if name in empty else "clean" for name in outputs}
        detail = f"LEAKED into {', '.join(leaked)}" if leaked else ""
        checks.append(Check(AREA, place, "failed" if leaked or empty else "ok", detail, {"outputs": told}))
    sizes = ", ".join(f"{name} {len(output):,} bytes" for name, output in outputs.items())
    detail = (
        f"nothing of the requests is in {', '.join(sorted(empty))}: that it is clean says nothing; " if empty else ""
    )
    outcome: Outcome = "failed" if empty else "ok"
    checks.append(Check(AREA, "looked through", outcome, f"{detail}{sizes}", {"outputs": {}}))
    checks += [Check(AREA, "database", "failed", trouble, {"outputs": {}}) for trouble in troubles]
    return checks


def _serve(
    serve: Callable[..., bytes], canaries: Canaries, databases: Sequence[str], store_url: str, folder: Path
) -> tuple[dict[str, bytes], list[str]]:
    """Each output of one request, and which databases could not be asked."""
    folder.mkdir()
    prefix = f"pmc-{secrets.token_hex(6)}"
    own = urlsplit(store_url).scheme not in {"redis", "rediss", "unix"}
    options = {
        "enabled": True,
        "service": "doctor",
        "store": f"sqlite:///{folder / 'stats.sqlite3'}" if own else store_url,
        "redis_prefix": prefix,
        "headers": "full",
        "log": True,
        "log_sample_rate": 1.0,
        "jsonl": str(folder / "profiles.jsonl"),
        "drivers": None,
        "detectors": None,
        "sample_rate": 1.0,
        "max_overhead_percent": 0,
    }
    troubles: list[str] = []
    with redirect_stderr(io.StringIO()) as log:
        headers = serve(options, canaries, lambda: _work(canaries, databases, troubles))
    written = {
        "headers": headers,
        "log": log.getvalue().encode(),
        "jsonl": b"".join(path.read_bytes() for path in folder.glob("profiles.jsonl*")),
        "store": b"".join(_file(folder)) if own else b"".join(_server(store_url, prefix, troubles)),
    }
    return written, troubles


def _wsgi(options: dict[str, Any], canaries: Canaries, work: Callable[[], Any]) -> bytes:
    def application(_environ: Any, start_response: Any) -> Iterator[bytes]:
        asyncio.run(work())
        start_response("500 Oh", [("Content-Type", "text/plain")])
        yield b"x"
        raise ApplicationError(canaries["application's error"])

    door = wsgi.PerfMiddleware(application, **options)
    told: list[Any] = []
    environ: dict[str, Any] = {
        "PATH_INFO": f"/people/{canaries['path']}",
        "QUERY_STRING": f"q={canaries['query string']}",
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in _headers(canaries).items()},
    }
    setup_testing_defaults(environ)
    body: Any = door(environ, lambda *given: told.append(given))
    with suppress(ApplicationError), closing(body):
        list(body)
    _close(door)
    return repr(told).encode()


def _asgi(options: dict[str, Any], canaries: Canaries, work: Callable[[], Any]) -> bytes:
    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await work()
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise ApplicationError(canaries["application's error"])

    door = asgi.PerfMiddleware(application, **options)
    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/people/{canaries['path']}",
        "raw_path": f"/people/{canaries['path']}".encode(),
        "query_string": f"q={canaries['query string']}".encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in _headers(canaries).items()],
    }
    with suppress(ApplicationError):
        asyncio.run(door(scope, receive, send))
    _close(door)
    return repr(told).encode()


def _headers(canaries: Canaries) -> dict[str, str]:
    """An id is echoed where it has the form of one; these have not."""
    names = dict.fromkeys(HEADERS, canaries["header"])
    return {**names, "X-Perf-Id": f"{canaries['request id']} x", "X-Request-Id": f"{canaries['request id']}/x"}


def _close(door: Any) -> None:
    if door.pipeline is not None:
        door.pipeline.close()


async def _work(canaries: Canaries, databases: Sequence[str], troubles: list[str]) -> None:
    with profile("block") as block:
        block.set("customer", canaries["tag"])
        _sqlite(canaries)
        for url in databases:
            system = system_of(url)
            for way in [way for way in WAYS if way.system == system and _is_there(way)]:
                await _elsewhere(way, url, canaries, troubles)


def _sqlite(canaries: Canaries) -> None:
    """Every place that a statement has for a value, in a database whose own name has one."""
    with closing(sqlite3.connect(f"file:doctor?mode=memory&{canaries[_URL]}=1", uri=True)) as connection:
        cursor = connection.cursor()
        cursor.execute(f"CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        for text, values in _statements(canaries, "?"):
            with suppress(sqlite3.Error):
                cursor.execute(text, values)
        cursor.executemany(
            f"INSERT INTO {TABLE} (name) VALUES (?)",  # noqa: S608 - our own table
            [(f"{canaries['parameter of executemany']}{number}",) for number in range(3)],
        )
        with suppress(sqlite3.Error):
            cursor.execute(f"ATTACH '/{canaries[_ERROR]}/none' AS other")


_URL: Final = "database's URL"
_ERROR: Final = "driver's error"


def _statements(canaries: Canaries, mark: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Texts and their values; some of them are refused, by an error that quotes what was wrong."""
    yield f"INSERT INTO {TABLE} (id, name) VALUES (70, {mark})", (canaries["parameter"],)  # noqa: S608
    yield f"INSERT INTO {TABLE} (id, name) VALUES (71, '{canaries['literal']}')", ()  # noqa: S608
    yield f"INSERT INTO {TABLE} (id, name) VALUES (72, '{canaries[_ERROR]}')", ()  # noqa: S608
    yield f"INSERT INTO {TABLE} (id, name) VALUES (73, '{canaries[_ERROR]}')", ()  # noqa: S608
    yield f"SELECT x'{canaries['hex literal'].encode().hex()}'", ()
    yield f"SELECT '{canaries['literal that is not closed']}", ()
    for number in range(12):
        where = f"id = {canaries['number']}{number}"
        yield f"SELECT name FROM {TABLE} WHERE {where} /* {canaries['comment']} */ -- {canaries['comment']}", ()  # noqa: S608


async def _elsewhere(way: Way, url: str, canaries: Canaries, troubles: list[str]) -> None:
    """The same by a driver of another database, in a temporary table."""
    try:
        session = await way.open(url)
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        troubles.append(f"{way.title} could not be used: {named(error)}")
        return
    try:
        await _ask(session, canaries, troubles, way)
    finally:
        with suppress(Exception):
            await session.close()


async def _ask(session: Session, canaries: Canaries, troubles: list[str], way: Way) -> None:
    try:
        await session.execute(f"CREATE TEMPORARY TABLE {TABLE} (id BIGINT PRIMARY KEY, name VARCHAR(99) UNIQUE)")
        await session.many(
            f"INSERT INTO {TABLE} (id, name) VALUES ({{0}}, {{1}})",  # noqa: S608
            [(number, f"{canaries['parameter of executemany']}{number}") for number in range(3)],
        )
    except Exception as error:  # noqa: BLE001
        troubles.append(f"{way.title} could not make its table: {named(error)}")
        return
    for text, values in _statements(canaries, "{0}"):
        with suppress(Exception):  # some of them are meant to be refused
            await session.execute(text, *values)


def _is_there(way: Way) -> bool:
    """Whether the driver can be imported; it is hooked when it is."""
    try:
        import_module(collector.hooks(way.driver)[way.driver].target.MODULE)
    except ImportError:
        return False
    return True


def _file(folder: Path) -> Iterator[bytes]:
    """The files as they are, and each cell: a long one lies in pieces."""
    path = folder / "stats.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608 - a name out of the file itself
                yield from (cell if isinstance(cell, bytes) else str(cell).encode() for cell in row)
    for part in folder.glob("stats.sqlite3*"):
        yield part.read_bytes()


def _server(url: str, prefix: str, troubles: list[str]) -> Iterator[bytes]:
    """Keys and what they hold; afterwards they are deleted."""
    redis = import_module("redis")
    try:
        with closing(connect(redis, url)) as client:
            for key in client.scan_iter(f"{prefix}:*", count=1000):
                yield key
                yield repr(_value(client, key)).encode()
                client.unlink(key)
    except (StoreError, redis.exceptions.RedisError, OSError) as error:
        troubles.append(f"the store could not be read: {named(error)}")


def _value(client: Any, key: bytes) -> Any:
    kind = client.type(key)
    if kind == b"hash":
        return client.hgetall(key)
    return client.zrange(key, 0, -1) if kind == b"zset" else client.get(key)
