"""Whose query it is: threads, tasks, nested profiles, and what comes after the end."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from time import perf_counter_ns

import pytest

from perf_middleware.collector.context import FOLD_EVERY, Capture, current, unattributed
from perf_middleware.collector.rows import MAX_FOLDED, WIDTH, Target
from perf_middleware.record import Profile

TARGET = Target("sqlite", "x")


def row(start_ns=0, end_ns=1, text="SELECT 1", *, target=TARGET, inside=False):
    return (text, start_ns / 1e9, end_ns / 1e9, (end_ns - start_ns) / 1e9, target, None, None, 0, None, inside, None)


def capture(**options):
    return Capture(Profile(), **{"keep": 2000, "callers": False, **options})


def select(text="SELECT 1"):
    connection = sqlite3.connect(":memory:")
    connection.execute(text).fetchall()
    connection.close()


# ------------------------------------------------------------------------------------------- what must not happen


def test_a_plain_executor_s_queries_are_unattributed_and_never_another_profile_s(record):
    before = unattributed.count
    with ThreadPoolExecutor(1) as executor:
        with record() as first:
            executor.submit(select).result()
        with record() as second:
            executor.submit(select).result()
    assert (first.queries, second.queries) == ([], [])
    assert unattributed.count - before == 2


def test_a_query_after_the_end_is_unattributed_and_keeps_nothing_alive(record):
    before = unattributed.count
    with record() as seen:
        select()
        late = copy_context()
    late.run(select)
    assert len(seen.queries) == 1
    assert unattributed.count - before == 1


def test_a_task_that_outlives_its_profile_does_not_keep_it_or_its_rows():
    slot = capture()
    profile = weakref.ref(slot.profile)
    gc.disable()
    try:
        slot.note(row())
        assert slot.close().query_count == 1
        slot.note(row())
        assert profile() is None
        assert not slot.open
        assert (slot.read().query_count, slot.read().queries(slot)) == (0, [])
    finally:
        gc.enable()


def test_two_hundred_concurrent_requests_keep_their_own_counts(record):
    async def request(number):
        with record() as seen:
            for _ in range(number % 7):
                await asyncio.sleep(0)
                select()
        return len(seen.queries), number % 7

    async def all_of_them():
        return await asyncio.gather(*(request(number) for number in range(200)))

    for counted, wanted in asyncio.run(all_of_them()):
        assert counted == wanted


# ---------------------------------------------------------------------------------------------------- what must


def test_gather_and_to_thread_count_to_their_request(record):
    async def request():
        with record() as seen:
            await asyncio.gather(*(asyncio.to_thread(select) for _ in range(50)))
        return seen

    assert len(asyncio.run(request()).queries) == 50


def test_a_nested_profile_s_queries_count_in_the_one_around_it_too(record):
    with record() as outer:
        select()
        with record() as inner:
            select()
            with record() as innermost:
                select()
        select()
    assert [len(seen.queries) for seen in (outer, inner, innermost)] == [4, 2, 1]


def test_a_child_that_outlives_its_parent_still_counts():
    parent = capture()
    child = capture(parent=parent)
    parent.close()
    child.note(row())
    assert child.close().query_count == 1


def test_unattributed_is_exact_over_threads():
    before = unattributed.count
    threads = [threading.Thread(target=lambda: [unattributed.add() for _ in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unattributed.count - before == 20_000
    assert unattributed.count - before == 20_000


# ----------------------------------------------------------------------------------------------------------- bounds


def test_a_million_notes_keep_memory_flat_and_counts_exact():
    slot = capture(keep=100)
    facts = [row(10 * n, 10 * n + 5, f"SELECT a{n % 3} FROM t") for n in range(3000)]
    biggest = 0
    for turn in range(334):
        for fact in facts:
            slot.note(fact)
        biggest = max(biggest, len(slot.facts) // WIDTH)
        assert turn < 0 or biggest <= 100 + FOLD_EVERY
    reading = slot.close()
    assert reading.query_count == 334 * 3000
    assert len(reading.queries(slot)) == 100
    assert sum(entry.count for entry in reading.folded.values()) == 334 * 3000 - 100
    assert sum(entry.wire for entry in reading.folded.values()) == 334 * 3000 - 100
    assert len(reading.folded) == 3


def test_fingerprints_and_transactions_without_an_end_are_bounded_and_counts_stay_exact():
    slot = capture(keep=10)
    for number in range(5000):
        slot.note(row(text="BEGIN", inside=True))
        slot.note(row(text=f"SELECT a FROM t{number}", inside=True))
        slot.note(row(text="COMMIT", inside=False))
    reading = slot.close()
    assert reading.query_count == 5000
    assert len(reading.folded) == MAX_FOLDED + 1
    assert sum(entry.count for entry in reading.folded.values()) + len(reading.queries(slot)) == 5000
    assert len(reading.transactions(0)) <= 10


def test_what_is_folded_has_its_own_times_and_not_those_of_the_rows_kept():
    slot = capture(keep=3)
    for number in range(5):
        slot.note(row(number * 100, number * 100 + 10**number))
    reading = slot.close()
    (kept,), (folded,) = reading.runs.values(), reading.folded.values()
    assert (kept.totals()[0], kept.total_s * 1e9) == (3, pytest.approx(1 + 10 + 100))
    assert (folded.count, folded.duration_ms, folded.max_ms) == (2, pytest.approx(11e-3), pytest.approx(10e-3))
    assert reading.db_sum_s * 1e9 == pytest.approx(11_111)


def test_folding_is_exact_while_many_threads_note():
    slot = capture(keep=50)
    each = 20_000

    def work():
        for number in range(each):
            slot.note(row(number, number + 1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        slot.read()
    for thread in threads:
        thread.join()
    reading = slot.close()
    assert reading.query_count == 4 * each
    assert sum(entry.count for entry in reading.folded.values()) == 4 * each - 50
    assert reading.db_sum_s * 1e9 == pytest.approx(4 * each)


def test_an_unsampled_profile_keeps_count_and_time_but_no_rows():
    slot = capture(keep=0)
    for number in range(10):
        slot.note(row(number * 10, number * 10 + 4, inside=True))
    reading = slot.close()
    assert (reading.query_count, reading.db_s * 1e9) == (10, pytest.approx(40))
    assert (reading.queries(slot), reading.transactions(0)) == ([], [])


def test_own_start_is_before_the_first_query(record):
    before = perf_counter_ns()
    with record() as seen:
        select()
    assert before <= seen.capture.start_ns
    assert seen.queries[0].start_ms >= 0
    assert current.get() is None
