from __future__ import annotations

import pytest

from perf_middleware.record import Profile, Query
from perf_middleware.stats.batch import BATCH_ROWS
from perf_middleware.stats.delta import delta
from perf_middleware.stats.fold import MAX_WINDOWS, Fold
from perf_middleware.stats.row import OTHER
from perf_middleware.stats.window import QUERY, ROUTE, TEXT, number_at

SECOND = 4_000_000_000


@pytest.fixture
def fold():
    return Fold("shop", max_routes=1000)


def at(second, name="GET /x", fingerprint="f", caller="a.py:1 in f"):
    query = Query(fingerprint=fingerprint, duration_ms=1.0, caller=caller)
    change = delta(Profile(name=name, duration_ms=1.0, query_count=1, queries=[query]))
    change.second = second
    return change


def texts(batches):
    return [key for batch in batches for _, items in batch.texts for key in items]


def test_nothing_folded_makes_no_batch(fold):
    assert list(fold.batches("w")) == []


def test_batches_take_everything_once(fold):
    fold.add(at(SECOND))
    assert sum(batch.records for batch in fold.batches("w")) == 1
    assert list(fold.batches("w")) == []


def test_a_batch_has_at_most_its_rows_and_every_record_is_in_exactly_one(fold):
    for number in range(3 * BATCH_ROWS):
        fold.add(at(SECOND, f"GET /{number}"))
    batches = list(fold.batches("w"))
    assert all(sum(len(group.rows) for group in batch.groups) <= BATCH_ROWS for batch in batches)
    assert len(batches) == 6
    assert sum(batch.records for batch in batches) == 3 * BATCH_ROWS
    assert len(texts(batches)) == 1 + 3 * BATCH_ROWS


def test_records_on_both_sides_of_a_border_go_to_their_own_windows(fold):
    border = SECOND - SECOND % 10
    fold.add(at(border - 0.001))
    fold.add(at(border))
    (batch,) = fold.batches("w")
    finest = [group.windows[0] for group in batch.groups if group.windows[0].kind == ROUTE]
    assert [window.number for window in finest] == [number_at("10s", border) - 1, number_at("10s", border)]


def test_a_text_is_sent_once_a_day_and_when_it_changes(fold):
    fold.add(at(SECOND))
    assert len(texts(fold.batches("w"))) == 2
    fold.add(at(SECOND + 10))
    assert texts(fold.batches("w")) == []
    fold.add(at(SECOND + 20, caller="a.py:2 in f"))
    assert [key[:2] for key in texts(fold.batches("w"))] == ["c:"]
    fold.add(at(SECOND + 86_400))
    assert len(texts(fold.batches("w"))) == 2


def test_a_text_that_was_lost_is_sent_again(fold):
    fold.add(at(SECOND))
    lost = texts(fold.batches("w"))
    fold.forget_texts()
    fold.add(at(SECOND + 10))
    assert texts(fold.batches("w")) == lost


def test_a_text_belongs_to_the_month_of_its_row(fold):
    fold.add(at(SECOND))
    (batch,) = fold.batches("w")
    ((window, _),) = batch.texts
    assert window == (TEXT, "1mo", number_at("1mo", SECOND))


def test_names_are_bounded_before_they_are_sent():
    fold = Fold("shop", max_routes=3)
    for number in range(10):
        fold.add(at(SECOND, f"GET /{number}", fingerprint=f"f{number}"))
    (batch,) = fold.batches("w")
    rows = {row.name: row.n for group in batch.groups if group.windows[0].kind == ROUTE for row in group.rows}
    assert len(rows) == 4
    assert rows[OTHER] == 7


def test_windows_that_are_never_sent_are_dropped_oldest_first_and_counted(fold):
    for number in range(MAX_WINDOWS):
        fold.add(at(SECOND + 10 * number))
    assert fold.folded == MAX_WINDOWS
    batches = list(fold.batches("w"))
    assert fold.dropped == MAX_WINDOWS // 2
    assert sum(batch.records for batch in batches) == fold.folded - fold.dropped
    kinds = {group.windows[0].kind for batch in batches for group in batch.groups}
    assert kinds == {ROUTE, QUERY}
