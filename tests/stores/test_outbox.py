from __future__ import annotations

import pytest

from perf_middleware.errors import StoreError
from perf_middleware.stats.batch import Reply
from perf_middleware.stats.row import unpack
from perf_middleware.stats.window import ROUTE, windows_at
from perf_middleware.stores import StoreUnavailable
from perf_middleware.stores.memory import MemoryStore
from perf_middleware.stores.outbox import ACKNOWLEDGED_KEPT_S, LONGEST_PAUSE_S, MAX_ACKNOWLEDGED, MAX_PENDING, Outbox

SECOND = 4_000_000_000


class Flaky:
    """A memory store that can be away, lose its answers, or come back from an older dump."""

    def __init__(self):
        self.inner = MemoryStore()
        self.away = False
        self.lose_answers = 0
        self.refuse = None
        self.calls = []

    def apply(self, batch, after):
        self.calls.append((batch.seq, after))
        if self.away:
            raise StoreUnavailable("away")
        if self.refuse == batch.seq:
            raise StoreError("never")
        reply = self.inner.apply(batch, after)
        if self.lose_answers:
            self.lose_answers -= 1
            raise StoreUnavailable("answer lost")
        return reply

    def dump(self):
        return {key: rows.copy() for key, rows in self.inner._windows.items()}, self.inner._last.copy()

    def restore(self, dump):
        self.inner._windows, self.inner._last = {key: rows.copy() for key, rows in dump[0].items()}, dump[1].copy()

    def n(self):
        (rows,) = self.inner.read("shop", windows_at(ROUTE, SECOND)[:1])
        return unpack(rows["a"]).n if rows else 0


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def store():
    return Flaky()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outbox(store, clock):
    return Outbox(store, clock)


@pytest.fixture
def put(outbox, make_batch):
    def put(count):
        for _ in range(count):
            outbox.put(make_batch(0, "a", second=SECOND))

    return put


def test_nothing_to_send_asks_nothing(outbox, store):
    assert outbox.send()
    assert store.calls == []


def test_batches_arrive_in_order_and_once(outbox, store, put):
    put(3)
    assert outbox.send()
    assert store.calls == [(1, 0), (2, 1), (3, 2)]
    assert (store.n(), outbox.flushed, len(outbox)) == (3, 3, 0)


def test_while_the_store_is_away_it_is_asked_ever_more_rarely(outbox, store, clock, put):
    store.away = True
    put(1)
    for _ in range(3600):
        assert not outbox.send()
        clock.now_s += 1
    assert 3600 / LONGEST_PAUSE_S <= len(store.calls) <= 3 * 3600 / LONGEST_PAUSE_S
    assert (outbox.failures, outbox.last_error) == (len(store.calls), "StoreUnavailable")


def test_a_flush_that_is_asked_for_does_not_wait_for_the_pause(outbox, store, put):
    store.away = True
    put(1)
    outbox.send()
    store.away = False
    assert not outbox.send()
    assert outbox.send(now=True)
    assert store.n() == 1


def test_too_many_waiting_batches_drop_the_oldest_and_count_exactly(outbox, store, put):
    store.away = True
    put(MAX_PENDING + 7)
    assert (len(outbox), outbox.dropped, outbox.dropped_batches) == (MAX_PENDING, 7, 7)
    store.away = False
    assert outbox.send()
    assert (store.n(), outbox.flushed, outbox.lost) == (MAX_PENDING, MAX_PENDING, 0)


def test_the_batch_whose_answer_is_open_is_never_dropped(outbox, store, put):
    store.lose_answers = 1
    put(1)
    assert not outbox.send()
    put(MAX_PENDING + 4)
    assert outbox.dropped == 5
    assert outbox.send(now=True)
    assert (store.n(), outbox.flushed, outbox.duplicates) == (MAX_PENDING, MAX_PENDING, 1)


def test_a_lost_answer_counts_nothing_twice(outbox, store, put):
    for _ in range(10):
        put(2)
        store.lose_answers = 1
        assert not outbox.send(now=True)
        assert outbox.send(now=True)
    assert (store.n(), outbox.flushed, outbox.duplicates) == (20, 20, 10)


def test_a_batch_the_store_can_never_take_is_dropped_and_the_next_ones_arrive(outbox, store, put):
    store.refuse = 2
    put(4)
    assert outbox.send()
    assert (store.n(), outbox.flushed, outbox.dropped) == (3, 3, 1)


def test_a_store_that_comes_back_older_gets_the_missing_batches_again(outbox, store, put):
    put(10)
    outbox.send()
    dump = store.dump()
    put(15)
    outbox.send()
    store.restore(dump)
    put(1)
    assert outbox.send()
    assert (store.n(), outbox.flushed, outbox.lost, outbox.duplicates) == (26, 26, 0, 0)


def test_healing_that_is_interrupted_goes_on_where_it_was(outbox, store, put):
    dump = store.dump()
    put(5)
    outbox.send()
    store.restore(dump)
    put(1)
    store.lose_answers = 2
    outbox.send()
    assert not outbox.send(now=True)
    assert outbox.send(now=True)
    assert (store.n(), outbox.flushed, outbox.lost) == (6, 6, 0)


def test_what_was_acknowledged_too_long_ago_is_counted_as_lost(outbox, store, put):
    dump = store.dump()
    for _ in range(MAX_ACKNOWLEDGED + 5):
        put(1)
        outbox.send()
    store.restore(dump)
    put(1)
    assert outbox.send()
    assert (store.n(), outbox.lost) == (MAX_ACKNOWLEDGED + 1, 5)
    put(1)
    assert outbox.send()
    assert (store.n(), outbox.lost) == (MAX_ACKNOWLEDGED + 2, 5)


def test_a_store_that_forgot_the_number_of_an_idle_worker_gets_nothing_twice(outbox, store, clock, put):
    put(3)
    outbox.send()
    clock.now_s += ACKNOWLEDGED_KEPT_S + 1
    store.inner._last.clear()
    put(1)
    assert outbox.send()
    assert store.n() == 4


def test_a_store_that_loses_data_while_it_is_healed_is_healed_again(outbox, store, put):
    dump = store.dump()
    put(4)
    outbox.send()
    store.restore(dump)
    put(1)
    inner, replies = store.apply, iter([Reply("gap", 0)])

    def apply(batch, after):
        if batch.seq == 5 and after == 4 and (reply := next(replies, None)):
            store.restore(dump)
            return reply
        return inner(batch, after)

    store.apply = apply
    assert outbox.send()
    assert (store.n(), outbox.flushed, outbox.lost) == (5, 5, 0)
