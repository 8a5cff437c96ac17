"""One suite for every store: what a batch does, and above all what it may never do."""

from __future__ import annotations

import multiprocessing
import sys
from calendar import timegm
from types import SimpleNamespace

import pytest

from perf_middleware import stores
from perf_middleware.errors import OptionError
from perf_middleware.stats.batch import Batch
from perf_middleware.stats.row import OTHER, unpack
from perf_middleware.stats.window import ROUTE, TEXT, Window, number_at, windows_at
from perf_middleware.stores import StoreUnavailable, open_store

SECOND = timegm((2100, 3, 4, 5, 6, 7))
TIERS = windows_at(ROUTE, SECOND)


def totals(store, service="shop", windows=TIERS):
    """{name: n} of each window; they must all be equal."""
    counted = [{name: unpack(row).n for name, row in rows.items()} for rows in store.read(service, windows)]
    assert all(one == counted[0] for one in counted)
    return counted[0]


def test_reading_what_nobody_wrote_is_empty_and_makes_nothing(store, tmp_path):
    assert store.read("shop", TIERS) == [{}] * len(TIERS)
    assert store.services() == []
    assert list(tmp_path.iterdir()) == []


def test_a_batch_reaches_every_tier(store, make_batch):
    assert store.apply(make_batch(1, "a", "b", "a"), 0).outcome == "applied"
    assert totals(store) == {"a": 2, "b": 1}
    assert store.services() == ["shop"]


def test_a_batch_sent_twice_is_applied_once(store, make_batch):
    batch = make_batch(1, "a")
    store.apply(batch, 0)
    assert store.apply(batch, 0) == ("duplicate", 1)
    assert totals(store) == {"a": 1}


def test_a_batch_that_does_not_follow_is_refused_before_anything_is_written(store, make_batch):
    store.apply(make_batch(1, "a"), 0)
    assert store.apply(make_batch(3, "a"), 2) == ("gap", 1)
    assert totals(store) == {"a": 1}
    assert store.apply(make_batch(2, "a"), 1).outcome == "applied"
    assert store.apply(make_batch(3, "a"), 2).outcome == "applied"
    assert totals(store) == {"a": 3}


def test_a_gap_is_accepted_by_saying_what_the_batch_follows(store, make_batch):
    store.apply(make_batch(1, "a"), 0)
    assert store.apply(make_batch(9, "a"), 1) == ("applied", 1)


def test_workers_and_services_are_numbered_apart(store, make_batch):
    for worker, service in (("1" * 16, "shop"), ("2" * 16, "shop"), ("1" * 16, "{shop}"), ("1" * 16, "läden")):
        assert store.apply(make_batch(1, "a", worker=worker, service=service), 0).outcome == "applied"
    assert totals(store) == {"a": 2}
    assert totals(store, "{shop}") == {"a": 1}
    assert store.services() == ["läden", "shop", "{shop}"]


def test_names_beyond_the_bound_are_added_to_other_and_totals_stay_exact(store, make_batch):
    names = [f"route {number}" for number in range(12)]
    for seq in range(1, 4):
        store.apply(make_batch(seq, *names, max_names=10), seq - 1)
    counted = totals(store)
    assert len(counted) == 11
    assert counted[OTHER] == 6
    assert sum(counted.values()) == 36


def test_other_takes_no_room_from_the_names(store, make_batch):
    store.apply(make_batch(1, OTHER, "a", max_names=2), 0)
    store.apply(make_batch(2, "b", max_names=2), 1)
    assert totals(store) == {OTHER: 1, "a": 1, "b": 1}
    store.apply(make_batch(3, "a", "c", max_names=2), 2)
    assert totals(store) == {OTHER: 2, "a": 2, "b": 1}


def test_windows_do_not_mix(store, make_batch):
    border = SECOND - SECOND % 3600
    store.apply(make_batch(1, "a", second=border - 1), 0)
    store.apply(make_batch(2, "a", second=border), 1)
    hours = [Window(ROUTE, "1h", number_at("1h", border) + step) for step in (-1, 0, 1)]
    assert [len(rows) for rows in store.read("shop", hours)] == [1, 1, 0]
    (day,) = store.read("shop", [Window(ROUTE, "1d", number_at("1d", border))])
    assert unpack(day["a"]).n == 2


def test_texts_are_replaced_and_bounded(store, make_batch):
    window = Window(TEXT, "1mo", number_at("1mo", SECOND))
    store.apply(make_batch(1, texts=[(window, {"a": "old", "b": "é"})], max_texts=3), 0)
    store.apply(make_batch(2, texts=[(window, {"c": "3", "d": "4", "a": "new"})], max_texts=3), 1)
    assert store.read("shop", [window]) == [{"a": b"new", "b": "é".encode(), "c": b"3"}]


def test_a_window_that_has_expired_leaves_nothing(store, make_batch):
    store.apply(make_batch(1, "a", second=1_000_000_000), 0)
    assert store.read("shop", windows_at(ROUTE, 1_000_000_000)) == [{}] * len(TIERS)


def test_what_one_handle_wrote_another_reads(store, store_url, prefix, make_batch):
    store.apply(make_batch(1, "a"), 0)
    store.close()
    other = open_store(store_url, prefix=prefix)
    assert totals(other) == {"a": 1}
    other.close()
    assert store.apply(make_batch(1, "a"), 0).outcome == "duplicate"


def test_an_empty_batch_is_fine(store):
    assert store.apply(Batch("shop", "w" * 16, 1, 0, [], [], 10), 0).outcome == "applied"


def _send(url, prefix, batches):
    store = open_store(url, prefix=prefix)
    for batch in batches:
        for _ in range(50):
            try:
                store.apply(batch, batch.seq - 1)
                break
            except StoreUnavailable:
                continue
        else:
            sys.exit(1)
    store.close()


@pytest.mark.parametrize("store_url", ["sqlite", "redis"], indirect=True)
def test_four_processes_at_once_lose_nothing_and_count_nothing_twice(store, store_url, prefix, make_batch):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(
            target=_send,
            args=(store_url, prefix, [make_batch(seq, "a", "b", worker=str(w) * 16) for seq in range(1, 16)] * 2),
        )
        for w in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert totals(store) == {"a": 60, "b": 60}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "mysql://host",
        "redis://",
        "redis://host:port",
        "redis://host/name",
        "unix://",
        "sqlite://",
        "sqlite:///",
        "sqlite://a/b",
    ],
)
def test_a_url_of_no_store_is_an_error_that_says_what_is_accepted_and_not_what_was_given(url):
    with pytest.raises(OptionError, match=r"accepted: .*(redis|sqlite)://"):
        open_store(url)


def test_the_error_does_not_repeat_a_password():
    with pytest.raises(OptionError) as raised:
        open_store("redis://user:secret@host:port")
    assert "secret" not in str(raised.value)


def test_a_store_of_someone_else_is_found_by_its_scheme(monkeypatch):
    found = SimpleNamespace(name="theirs", load=lambda: lambda url, prefix: (url, prefix))
    monkeypatch.setattr(stores, "extensions", lambda kind: [found] if kind == "stores" else [])
    assert open_store("theirs://host", prefix="p") == ("theirs://host", "p")
    with pytest.raises(OptionError, match="no store has the scheme 'others'"):
        open_store("others://host")
