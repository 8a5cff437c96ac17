"""What only Redis does: the script, the keys' lifetimes, and errors that pass or do not."""

from __future__ import annotations

import socket
import threading
from calendar import timegm

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from perf_middleware.errors import StoreError
from perf_middleware.stats.batch import Batch, Group
from perf_middleware.stats.row import NamedRow, merge
from perf_middleware.stats.window import FINDING, QUERY, ROUTE, TEXT, windows_at
from perf_middleware.stores import StoreUnavailable, open_store

SECOND = timegm((2100, 3, 4, 5, 6, 7))
WINDOW = windows_at(ROUTE, SECOND)[0]

#: Borders of the lanes' widths among them.
counts = st.one_of(st.integers(1, 300), st.sampled_from([254, 255, 256, 65_534, 65_535, 65_536, 2**32 - 1, 2**32]))
lanes = st.dictionaries(st.one_of(st.integers(0, 20), st.integers(0, 2303)), counts, max_size=6).map(
    lambda found: [number for pair in sorted(found.items()) for number in pair]
)
counter = st.integers(0, 2**45)
rows = st.builds(NamedRow, st.just("x"), counter, counter, counter, counter, counter, counter, counter, lanes, lanes)


@pytest.fixture
def client(valkey_url):
    with redis.Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture
def store(valkey_url, prefix):
    opened = open_store(valkey_url, prefix=prefix)
    yield opened
    opened.close()


def row(number, durations=(), counts=()):
    return NamedRow("x", number, 0, 0, 0, 0, 0, number, list(durations), list(counts))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(rows, min_size=1, max_size=6))
@example([row(1, [5, 255]), row(2, [5, 1, 6, 1]), row(3, [4, 65_300, 5, 65_280])])
@example([row(1, [100, 1]), row(2), row(3, [0, 1, 2303, 1], [7, 2**32])])
@example([row(0)])
def test_the_script_merges_to_the_same_bytes_as_python(valkey_url, rows):
    store = open_store(valkey_url, prefix="hypothesis")
    worker = "0" * 16
    expected = None
    try:
        store._client = redis.Redis.from_url(valkey_url)
        store._client.delete(f"hypothesis:{{s:0}}:{WINDOW.key}", f"hypothesis:{{s:0}}:w:{worker}")
        for seq, row in enumerate(rows, 1):
            expected = merge(expected, row)
            assert store.apply(Batch("s", worker, seq, 0, [Group([WINDOW], 9, [row])], [], 9), seq - 1).last == seq - 1
        assert store.read("s", [WINDOW]) == [{"x": expected}]
    finally:
        store.close()


def test_every_key_expires(store, client, prefix, make_batch):
    batch = make_batch(1, "a", texts=[(windows_at(TEXT, SECOND)[0], {"k": "v"})])
    batch.groups += [Group(windows_at(kind, SECOND), 10, batch.groups[0].rows) for kind in (QUERY, FINDING)]
    store.apply(batch, 0)
    keys = list(client.scan_iter(f"{prefix}:*"))
    assert len(keys) == 1 + 1 + 1 + sum(len(windows_at(kind, SECOND)) for kind in (ROUTE, QUERY, FINDING))
    for key in keys:
        assert client.ttl(key) > 0
    for window in windows_at(ROUTE, SECOND):
        assert client.expiretime(f"{prefix}:{{shop:0}}:{window.key}") == window.expires_s


def test_a_late_batch_does_not_prolong_a_window(store, client, prefix, make_batch):
    store.apply(make_batch(1, "a"), 0)
    store.apply(make_batch(2, "a"), 1)
    assert client.expiretime(f"{prefix}:{{shop:0}}:{WINDOW.key}") == WINDOW.expires_s


def test_a_refused_batch_writes_nothing_at_all(store, client, prefix, make_batch):
    store.apply(make_batch(5, "a"), 4)
    assert list(client.scan_iter(f"{prefix}:{{*")) == []


def test_a_server_that_forgot_the_script_gets_it_again(store, client, make_batch):
    store.apply(make_batch(1, "a"), 0)
    client.script_flush()
    assert store.apply(make_batch(2, "a"), 1).outcome == "applied"
    assert client.script_exists(store._sha) == [True]


def test_all_keys_of_a_service_share_a_hash_tag(store, client, prefix, make_batch):
    store.apply(make_batch(1, "a", service="a{b}c"), 0)
    tagged = [key for key in client.scan_iter(f"{prefix}:*") if not key.endswith(b":services")]
    assert len({key.partition(b"{")[2].partition(b"}")[0] for key in tagged}) == 1
    assert store.services() == ["a{b}c"]


def test_a_key_of_another_type_loses_the_batch_and_only_it(store, client, prefix, make_batch):
    client.set(f"{prefix}:{{shop:0}}:{WINDOW.key}", "not ours", ex=60)
    with pytest.raises(StoreError) as raised:
        store.apply(make_batch(1, "a"), 0)
    assert not isinstance(raised.value, StoreUnavailable)
    assert store.apply(make_batch(2, "a", second=SECOND + 10), 1).outcome == "applied"


def test_a_full_server_refuses_before_anything_is_written(valkey_url, make_batch, prefix):
    store = open_store(valkey_url, prefix=prefix)
    with redis.Redis.from_url(valkey_url) as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreUnavailable):
                store.apply(make_batch(1, "a"), 0)
        finally:
            client.config_set("maxmemory", 0)
        assert list(client.scan_iter(f"{prefix}:*")) == []
    assert store.apply(make_batch(1, "a"), 0).outcome == "applied"
    store.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:///nowhere/redis.sock", "rediss://127.0.0.1:1"])
def test_a_server_that_is_not_there_is_unavailable(url, make_batch):
    with pytest.raises(StoreUnavailable):
        open_store(url).apply(make_batch(1, "a"), 0)


def test_a_wrong_password_can_be_mended_and_is_not_shown(valkey_url, make_batch):
    with pytest.raises(StoreUnavailable) as raised:
        open_store(valkey_url.replace("redis://", "redis://user:secret@")).apply(make_batch(1, "a"), 0)
    assert "secret" not in str(raised.value)


def test_an_odd_option_in_the_url_is_an_error_of_its_own(valkey_url):
    with pytest.raises(StoreError) as raised:
        open_store(f"{valkey_url}?nonsense=1").services()
    assert not isinstance(raised.value, StoreUnavailable)


def test_an_answer_that_got_lost_is_not_counted_twice(valkey_url, prefix, make_batch):
    """A proxy delivers the request and drops the reply: the client sends it again, the script refuses it."""
    with _Proxy(valkey_url) as proxy:
        through = open_store(f"redis://127.0.0.1:{proxy.port}/0", prefix=prefix)
        through.apply(make_batch(1, "a"), 0)
        proxy.drop_replies = True
        with pytest.raises(StoreUnavailable):
            through.apply(make_batch(2, "a"), 1)
        proxy.drop_replies = False
        assert through.apply(make_batch(2, "a"), 1).outcome == "duplicate"
        (window,) = through.read("shop", [WINDOW])
        assert window["a"] == merge(
            merge(None, make_batch(1, "a").groups[0].rows[0]), make_batch(1, "a").groups[0].rows[0]
        )
        through.close()


class _Proxy:
    """Passes bytes on; when told to, closes the connection instead of passing a reply back."""

    def __init__(self, url):
        self._server = int(url.rpartition(":")[2].partition("/")[0])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.drop_replies = False

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._server))
            threading.Thread(target=self._copy, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._copy, args=(far, near, True), daemon=True).start()

    def _copy(self, source, target, replies):
        with source, target:
            try:
                while data := source.recv(65_536):
                    if replies and self.drop_replies:
                        target.shutdown(socket.SHUT_RDWR)
                        return
                    target.sendall(data)
                target.shutdown(socket.SHUT_RDWR)
            except OSError:
                return
