from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.stats.row import NamedRow, Row, merge, unpack

lanes = st.dictionaries(st.integers(0, 2303), st.integers(1, 70_000), max_size=6).map(
    lambda found: [number for pair in sorted(found.items()) for number in pair]
)
counter = st.integers(0, 2**40)
rows = st.builds(NamedRow, st.just("x"), counter, counter, counter, counter, counter, counter, counter, lanes, lanes)


def packed(rows):
    blob = None
    for row in rows:
        blob = merge(blob, row)
    return blob


def test_an_empty_row_is_packed_and_read():
    totals = unpack(packed([Row().named("x")]))
    assert totals.n == totals.max_us == totals.durations.total() == totals.counts.total() == 0


def test_a_row_counts_each_sample_once_in_both_histograms():
    row = Row()
    for queries in (3, 3, 500):
        row.add(duration_us=1000 * queries, max_us=9, db_us=2, queries=queries, wire=1, errors=0)
    totals = unpack(packed([row.named("x")]))
    assert (totals.n, totals.queries, totals.sum_us, totals.max_us, totals.db_us) == (3, 506, 506_000, 9, 6)
    assert totals.durations.total() == totals.counts.total() == 3


@given(st.lists(rows, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_packed_sum_is_the_same_bytes_in_any_order(rows, shuffle):
    expected = packed(rows)
    shuffle.shuffle(rows)
    assert packed(rows) == expected


@given(rows, rows)
def test_merging_read_rows_is_merging_packed_ones(one, other):
    totals = unpack(packed([one]))
    totals.merge(unpack(packed([other])))
    expected = unpack(packed([one, other]))
    assert (totals.n, totals.wire, totals.max_us) == (expected.n, expected.wire, expected.max_us)
    assert totals.durations.packed == expected.durations.packed
    assert totals.counts.lo == expected.counts.lo
