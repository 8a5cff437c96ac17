from __future__ import annotations

import os

from perf_middleware.stats.window import ROUTE, windows_at
from perf_middleware.stores import open_store
from perf_middleware.stores.memory import MemoryStore

NOW = 4_000_000_000


def test_one_url_is_one_store_in_a_process_and_another_name_is_another(make_batch):
    open_store("memory://one-name").apply(make_batch(1, "a"), 0)
    assert open_store("memory://one-name").services() == ["shop"]
    assert open_store("memory://another-name").services() == []


def test_a_forked_child_begins_with_an_empty_store(make_batch):
    open_store("memory://forked").apply(make_batch(1, "a"), 0)
    child = os.fork()
    if child == 0:
        os._exit(len(open_store("memory://forked").services()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert open_store("memory://forked").services() == ["shop"]


def test_memory_is_given_back_when_windows_expire(make_batch):
    now_s = [NOW]
    store = MemoryStore(clock=lambda: now_s[0])
    for step in range(200):
        now_s[0] = NOW + step * 86_400
        store.apply(make_batch(1, "a", worker=f"{step:016}", service=f"s{step}", second=now_s[0]), 0)
    assert len(store._last) <= 4
    kept = {window for step in range(200) for window in windows_at(ROUTE, NOW + step * 86_400)}
    assert {window for _, window in store._windows} == {window for window in kept if window.expires_s > now_s[0]}


def test_what_a_reader_was_given_does_not_change_under_it(make_batch):
    store = MemoryStore()
    store.apply(make_batch(1, "a"), 0)
    window = windows_at(ROUTE, 4_107_560_767)[:1]
    (rows,) = store.read("shop", window)
    rows["mine"] = b""
    assert "mine" not in store.read("shop", window)[0]
