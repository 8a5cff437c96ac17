"""`redis://`, `rediss://`, `unix://`: the rows in a Redis (6.2 or later) or Valkey, for a fleet.

One hash a window, one script call a batch (`merge.lua`); every key expires. The connection is our own, and
redis-py is imported when it is first needed, in the sink's thread. Keys, after the prefix:

    :{SERVICE:0}:KIND:TIER:NUMBER   a window: name -> packed row, or key -> text
    :{SERVICE:0}:w:WORKER           last seq of a worker
    :services                       sorted set: service -> unix time of its last batch
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - `import redis` needs it, and it refuses to be imported at exit
import time
from contextlib import contextmanager
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from perf_middleware.errors import OptionError, StoreError
from perf_middleware.stats.batch import Batch, Reply
from perf_middleware.stats.window import MINUTE_S, MONTHS_KEPT_S
from perf_middleware.stores import MAX_SERVICES, SEQ_KEPT_S, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perf_middleware.stats.window import Window

#: For connecting and for each answer. Nothing is retried inside the client: it could count twice.
SOCKET_TIMEOUT_S: Final = 1.0

_OUTCOMES: Final = {1: "applied", 0: "duplicate", -1: "gap"}

#: Refusals that pass by themselves or once someone mends the server: by class, where redis-py has one (not every
#: version has all, so by name), else by the first word of the reply.
_PASSING_CLASSES: Final = frozenset(
    {
        "AskError",
        "ClusterDownError",
        "MasterDownError",
        "MovedError",
        "NoPermissionError",
        "OutOfMemoryError",
        "ReadOnlyError",
        "TryAgainError",
    }
)
_PASSING_WORDS: Final = (
    "ACL",
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOPERM",
    "NOREPLICAS",
    "OOM",
)


class RedisStore:
    """Windows in hashes."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._prefix = prefix
        self._client: Any = None
        self._script = (files("perf_middleware.stores") / "merge.lua").read_bytes()
        self._sha = sha1(self._script, usedforsecurity=False).hexdigest()
        self._seen_s: dict[str, float] = {}

    def apply(self, batch: Batch, after: int) -> Reply:
        """See `Store.apply`; one call of the script."""
        keys, payload = self._call(batch)
        arguments = (len(keys), *keys, batch.seq, after, SEQ_KEPT_S, payload)
        with self._connected() as client:
            outcome, last = self._evaluate(client, arguments)
            self._see(client, batch.service)
        return Reply(_OUTCOMES[outcome], last)

    def read(self, service: str, windows: Sequence[Window]) -> list[dict[str, bytes]]:
        """See `Store.read`; one round trip."""
        with self._connected() as client:
            pipeline = client.pipeline(transaction=False)
            for window in windows:
                pipeline.hgetall(f"{self._tag(service)}:{window.key}")
            return [{name.decode(): row for name, row in rows.items()} for rows in pipeline.execute()]

    def services(self) -> list[str]:
        """See `Store.services`."""
        with self._connected() as client:
            return sorted(service.decode() for service in client.zrange(f"{self._prefix}:services", 0, -1))

    def close(self) -> None:
        """See `Store.close`."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _call(self, batch: Batch) -> tuple[list[str], bytes]:
        """Keys and payload of the script."""
        tag = self._tag(batch.service)
        keys = [f"{tag}:w:{batch.worker}"]

        def number(window: Window) -> int:
            keys.append(f"{tag}:{window.key}")
            return len(keys)

        groups = [
            (
                [number(window) for window in group.windows],
                [window.expires_s for window in group.windows],
                group.max_names,
                group.rows,
            )
            for group in batch.groups
        ]
        texts = [
            (number(window), window.expires_s, batch.max_texts, [word for item in items.items() for word in item])
            for window, items in batch.texts
        ]
        return keys, msgspec.msgpack.encode((groups, texts))

    def _evaluate(self, client: Any, arguments: tuple[Any, ...]) -> list[int]:
        from redis.exceptions import NoScriptError  # noqa: PLC0415 - imported late, like the client

        try:
            reply: list[int] = client.execute_command("EVALSHA", self._sha, *arguments)
        except NoScriptError:
            reply = client.execute_command("EVAL", self._script, *arguments)
        return reply

    def _see(self, client: Any, service: str) -> None:
        """Once a minute, note that the service is alive; safe to repeat."""
        now_s = time.time()
        if now_s - self._seen_s.get(service, 0.0) < MINUTE_S:
            return
        key = f"{self._prefix}:services"
        pipeline = client.pipeline(transaction=False)
        pipeline.zadd(key, {service: now_s})
        pipeline.zremrangebyscore(key, "-inf", now_s - MONTHS_KEPT_S)
        pipeline.zremrangebyrank(key, 0, -MAX_SERVICES - 1)
        pipeline.expire(key, MONTHS_KEPT_S)
        pipeline.execute()
        self._seen_s[service] = now_s

    def _tag(self, service: str) -> str:
        """Beginning of a service's keys; the braces keep them on one node of a cluster."""
        return f"{self._prefix}:{{{service.replace('{', '(').replace('}', ')')}:0}}"

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        import redis  # noqa: PLC0415 - takes up to 0.4 s: paid by the sink's thread, not at start-up

        try:
            if self._client is None:
                self._client = connect(redis, self._url)
            yield self._client
        except redis.exceptions.ResponseError as error:
            if type(error).__name__ in _PASSING_CLASSES or str(error).startswith(_PASSING_WORDS):
                raise StoreUnavailable(f"Redis refuses for now: {type(error).__name__}") from error
            raise StoreError(f"Redis refuses: {type(error).__name__}") from error
        except redis.exceptions.RedisError as error:
            raise StoreUnavailable(f"Redis cannot be reached: {type(error).__name__}") from error
        except OSError as error:
            raise StoreUnavailable(f"Redis cannot be reached: {type(error).__name__}") from error


def open(url: str, prefix: str) -> RedisStore:  # noqa: A001 - every store module has this verb
    """The store at this address; nothing is contacted yet.

    Raises:
        OptionError: When the URL has no host, or no path of a socket, or an odd port.

    """
    try:
        parts = urlsplit(url)
        place = parts.path if parts.scheme == "unix" else parts.hostname
        _ = parts.port
        database = parts.path.strip("/") if parts.scheme != "unix" else ""
    except ValueError:
        place = database = None
    if not place or not (database or "0").isdecimal():
        raise OptionError(
            "store: this is not the URL of a Redis; accepted: redis://HOST[:PORT][/DB], rediss://..., unix:///path"
        )
    return RedisStore(url, prefix)


def connect(redis: Any, url: str) -> Any:
    """A client with the store's time-outs, which retries nothing; nothing is contacted yet.

    Raises:
        StoreError: When the client refuses an option in the URL.

    """
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    try:
        options = {"socket_timeout": SOCKET_TIMEOUT_S, "retry": Retry(NoBackoff(), 0)}
        if not url.startswith("unix"):
            options["socket_connect_timeout"] = SOCKET_TIMEOUT_S
        client = redis.Redis.from_url(url, **options)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # the URL's own options are looked at only here
    except (ValueError, TypeError) as error:
        raise StoreError(f"the Redis client refuses an option in the URL: {type(error).__name__}") from error
    return client
