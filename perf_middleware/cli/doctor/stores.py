"""The store: reachable, of the right version, writable by us, kept by nobody else, and on the same time.

What is written goes under keys, or into a transaction, that are taken back at once.
"""

from __future__ import annotations

import secrets
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.cli.doctor.checks import Check, named
from perf_middleware.doctor import without_credentials
from perf_middleware.errors import StoreError
from perf_middleware.stats.batch import Batch, Group
from perf_middleware.stats.row import Row
from perf_middleware.stats.window import ROUTE, TEXT, windows_at
from perf_middleware.stores import open_store
from perf_middleware.stores.redis import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf_middleware.cli.doctor.checks import Outcome
    from perf_middleware.stores import Store

AREA: Final = "store"

#: The oldest Redis that has what the script needs (docs/stats.md); every Valkey has it.
OLDEST_REDIS: Final = (6, 2)

#: Rows go into windows by each worker's own clock, and the finest window is this long (docs/stats.md).
MOST_SKEW_S: Final = 10.0

#: Keys that are looked at to tell ours from others'.
MOST_KEYS: Final = 20_000

#: How long another writer of the stats file is waited for, as the store does.
BUSY_TIMEOUT_S: Final = 5.0

SERVICE: Final = "doctor"


def check(url: str, prefix: str) -> list[Check]:
    """Everything there is to say about the store of this URL.

    Raises:
        OptionError: When it is not the URL of a store.

    """
    store = open_store(url, prefix=prefix)
    place = without_credentials(url)
    scheme = url.partition("://")[0]
    if scheme == "memory":
        detail = (
            "one process only: other workers, `report` and this command see nothing of it; "
            "give --store sqlite:///PATH (one host) or redis://HOST (a fleet)"
        )
        return [Check(AREA, place, "warning", detail)]
    if scheme == "sqlite":
        return [_file(Path(url.removeprefix("sqlite:///")).absolute(), place, store)]
    if scheme in {"redis", "rediss", "unix"}:
        return _server(url, prefix, place)
    try:
        found = store.services()
    except StoreError as error:
        return [Check(AREA, place, "failed", str(error))]
    finally:
        store.close()
    return [Check(AREA, place, "ok", f"can be read: {len(found)} services; nothing more is known of this kind")]


def _file(path: Path, place: str, store: Store) -> Check:
    """A stats file is read, and locked for writing; where there is none yet, its folder has to take one."""
    try:
        services = store.services()
    except StoreError as error:
        return Check(AREA, place, "failed", str(error))
    finally:
        store.close()
    folder = next(parent for parent in path.parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):  # SQLite needs room for its log beside the file
            pass
        if path.exists():
            _lock(path)
    except (OSError, sqlite3.Error) as error:
        return Check(AREA, place, "failed", f"{path} cannot be written: {named(error)}", {"path": str(path)})
    told = f"{len(services)} services" if path.exists() else "not there yet, its folder can be written"
    return Check(AREA, place, "ok", f"one host: {path}, {told}", {"path": str(path), "services": services})


def _lock(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _server(url: str, prefix: str, place: str) -> list[Check]:
    redis = import_module("redis")
    try:
        client = connect(redis, url)
    except StoreError as error:
        return [Check(AREA, place, "failed", str(error))]
    with closing(client):
        start_s = time.perf_counter()
        try:
            client.ping()
        except (redis.exceptions.RedisError, OSError) as error:
            return [Check(AREA, "reachable", "failed", f"{place}: {named(error)}", {"url": place})]
        rtt_ms = (time.perf_counter() - start_s) * 1e3
        reached = f"{place}, first answer after {rtt_ms:.1f} ms"
        questions: list[Callable[[], Check]] = [
            lambda: _version(client.info("server")),
            lambda: _eviction(client.info("memory")),
            lambda: _sharing(client, prefix),
            lambda: _rights(client, url, prefix),
            lambda: _skew(client),
        ]
        return [Check(AREA, "reachable", "ok", reached, {"url": place, "rtt_ms": rtt_ms})] + [
            _ask(redis, name, question)
            for name, question in zip(
                ("version", "eviction", "sharing", "rights", "clock skew"), questions, strict=True
            )
        ]


def _ask(redis: Any, name: str, question: Callable[[], Check]) -> Check:
    """The answer, or that the server does not give it to this user."""
    try:
        return question()
    except redis.exceptions.RedisError as error:
        return Check(AREA, name, "unknown", f"the server does not tell: {named(error)}")


def _version(info: dict[str, Any]) -> Check:
    name = info.get("server_name", "redis")
    version = str(info.get(f"{name}_version") or info["redis_version"])
    facts = {"server": name, "version": version}
    number = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if name == "redis" and number < OLDEST_REDIS:
        return Check(AREA, "version", "failed", f"{name} {version}; Redis 6.2 or later, or Valkey, is needed", facts)
    return Check(AREA, "version", "ok", f"{name} {version}", facts)


def _eviction(info: dict[str, Any]) -> Check:
    """Every key of ours expires, so that the volatile policies take ours first."""
    policy, most, used = str(info["maxmemory_policy"]), int(info["maxmemory"]), int(info["used_memory"])
    facts = {"policy": policy, "maxmemory_bytes": most, "used_bytes": used}
    room = f"{used / 2**20:,.1f} MiB used of {f'{most / 2**20:,.1f}' if most else 'no limit'}"
    if policy == "noeviction":
        return Check(AREA, "eviction", "ok", f"{policy}, {room}", facts)
    outcome: Outcome = "failed" if most else "warning"
    detail = f"{policy}, {room}: evicts windows when the memory is full; set maxmemory-policy noeviction"
    return Check(AREA, "eviction", outcome, detail, facts)


def _sharing(client: Any, prefix: str) -> Check:
    """Our keys and others', of those looked at."""
    keys = client.dbsize()
    looked = ours = cursor = 0
    while looked < MOST_KEYS:
        cursor, found = client.scan(cursor, count=1000)
        looked += len(found)
        ours += sum(key.startswith(f"{prefix}:".encode()) for key in found)
        if not cursor:
            break
    others = looked - ours
    facts = {"keys": keys, "looked_at": looked, "others": others}
    if others:
        shown = f"{others:,} of {looked:,} keys looked at are not ours ({prefix}:*), {keys:,} in all"
        return Check(AREA, "sharing", "warning", f"{shown}: use a database of its own", facts)
    return Check(AREA, "sharing", "ok", f"nobody else: {ours:,} keys looked at of {keys:,}, all {prefix}:*", facts)


def _rights(client: Any, url: str, prefix: str) -> Check:
    """Everything a worker and a reader ask of it is tried, beside their keys, and taken back."""
    aside = f"{prefix}:doctor-{secrets.token_hex(8)}"
    user = None
    with suppress(Exception):  # one who may not ask who he is may still write
        user = client.acl_whoami()
        user = user.decode() if isinstance(user, bytes) else user
    facts = {"user": user}
    store = open_store(url, prefix=aside)
    batch = _batch(int(time.time()))
    try:
        told = _try(store, batch)
    except StoreError as error:
        refused = str(error.__cause__)
        # What a server says of missing rights names user and command; of a script it names the line too.
        why = refused.partition(" script: on")[0] if "permission" in refused else str(error)
        return Check(AREA, "rights", "failed", f"as {user or 'this user'}: {why}", facts)
    finally:
        store.close()
        _forget(client, aside, batch)
    if told is not None:
        return Check(AREA, "rights", "failed", told, facts)
    return Check(
        AREA, "rights", "ok", f"as {user or 'this user'}: a batch sent twice was written once, read back, listed", facts
    )


def _batch(now_s: int) -> Batch:
    """One request of one route, as a worker sends it."""
    row = Row()
    row.add(duration_us=1000, max_us=1000, db_us=0, queries=0, wire=0, errors=0)
    group = Group(windows_at(ROUTE, now_s), 10, [row.named(SERVICE)])
    return Batch(SERVICE, secrets.token_hex(8), 1, 1, [group], [(windows_at(TEXT, now_s)[0], {"doctor": "doctor"})], 10)


def _try(store: Store, batch: Batch) -> str | None:
    """What went wrong with a batch that is sent twice; None when nothing did."""
    outcomes = [store.apply(batch, 0).outcome for _ in range(2)]
    if outcomes != ["applied", "duplicate"]:
        return f"a batch sent twice was {' and then '.join(outcomes)}"
    windows = batch.groups[0].windows
    if [list(rows) for rows in store.read(SERVICE, windows)] != [[SERVICE]] * len(windows):
        return "what was written is not what is read: the windows have other rows, or none"
    return None if SERVICE in store.services() else "the service that wrote is not listed"


def _forget(client: Any, aside: str, batch: Batch) -> None:
    """Take back what was tried; what we may not delete is made to expire. Keys are as in docs/stats.md."""
    windows = [*batch.groups[0].windows, *(window for window, _ in batch.texts)]
    names = [f"w:{batch.worker}", *(window.key for window in windows)]
    for key in [f"{aside}:services", *(f"{aside}:{{{SERVICE}:0}}:{name}" for name in names)]:
        for take_back in (client.unlink, lambda key: client.expire(key, 1)):
            with suppress(Exception):
                take_back(key)
                break


def _skew(client: Any) -> Check:
    """The server's clock and ours, told apart as far as the way there and back allows."""
    before_s, started = time.time(), time.perf_counter()
    second, microsecond = client.time()
    way_s = time.perf_counter() - started
    skew_s = second + microsecond / 1e6 - (before_s + way_s / 2)
    facts = {"skew_s": skew_s, "uncertain_s": way_s / 2}
    detail = f"{skew_s * 1e3:+,.1f} ms (± {way_s * 500:.1f}), theirs less ours"
    if abs(skew_s) - way_s / 2 > MOST_SKEW_S:
        return Check(AREA, "clock skew", "failed", f"{detail}: more than a window of {MOST_SKEW_S:g} s", facts)
    return Check(AREA, "clock skew", "ok", detail, facts)
