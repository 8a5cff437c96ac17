from __future__ import annotations

from calendar import timegm
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.stats.window import (
    DAY_S,
    FINDING,
    KEPT_S,
    QUERY,
    ROUTE,
    TEXT,
    Window,
    cover,
    number_at,
    windows_at,
)

NOON = timegm((2026, 11, 24, 12, 0, 0))
KINDS = (ROUTE, QUERY, FINDING)

moments = st.floats(NOON - 400 * DAY_S, NOON + 400 * DAY_S)
spans = st.one_of(st.floats(1, 3600), st.floats(1, 40 * DAY_S), st.floats(1, 700 * DAY_S))


@pytest.mark.parametrize("kind", KEPT_S)
@pytest.mark.parametrize("second", [NOON - 1, NOON, NOON + 0.5])
def test_a_border_belongs_to_the_window_that_begins_there(kind, second):
    for window in windows_at(kind, second):
        assert window.start_s <= second < window.end_s


def test_months_and_years_follow_the_calendar():
    new_year = timegm((2027, 1, 1, 0, 0, 0))
    before = {window.tier: window for window in windows_at(ROUTE, new_year - 0.001)}
    after = {window.tier: window for window in windows_at(ROUTE, new_year)}
    assert before["1y"].number == 2026
    assert after["1y"].number == 2027
    assert before["1mo"].end_s == after["1mo"].start_s == new_year
    assert before["1mo"].start_s == timegm((2026, 12, 1, 0, 0, 0))


@given(moments, spans, st.sampled_from([(ROUTE,), (QUERY,), KINDS]))
def test_a_cover_tiles_without_gap_or_overlap_and_every_window_is_still_kept(now_s, span_s, kinds):
    start_s, tiles = cover(now_s, span_s, kinds)
    for kind, windows in tiles.items():
        assert windows[0].start_s == start_s
        for window, following in pairwise(windows):
            assert window.end_s == following.start_s
        assert windows[-1].start_s <= now_s < windows[-1].end_s
        assert all(window.expires_s > now_s for window in windows)
        assert all(window.kind == kind and window.tier != "1y" for window in windows)


@given(moments, spans)
def test_a_cover_begins_no_later_than_asked_as_long_as_that_is_kept(now_s, span_s):
    start_s, _ = cover(now_s, span_s, KINDS)
    assert start_s <= now_s - span_s


@pytest.mark.parametrize(
    ("span_s", "most_windows", "most_extra"),
    [(60, 6, 0.17), (900, 20, 0.012), (3600, 60, 0.017), (DAY_S, 9, 0.042), (30 * DAY_S, 33, 0.01)],
)
def test_routes_need_few_windows_and_little_more_than_was_asked_for(span_s, most_windows, most_extra):
    for offset in range(0, 2 * DAY_S, 1009):
        start_s, tiles = cover(NOON + offset, span_s, (ROUTE,))
        assert len(tiles[ROUTE]) <= most_windows + 1
        assert NOON + offset - start_s <= span_s * (1 + most_extra) + 10


def test_a_span_longer_than_anything_kept_begins_with_the_oldest_month():
    start_s, tiles = cover(NOON, 10_000 * DAY_S, KINDS)
    assert tiles[QUERY][0].tier == "1mo"
    assert 740 * DAY_S < NOON - start_s <= 25 * 31 * DAY_S


def test_every_window_expires():
    for kind, tiers in KEPT_S.items():
        for tier, kept_s in tiers.items():
            window = Window(kind, tier, number_at(tier, NOON))
            assert window.expires_s == window.end_s + kept_s
    assert set(KEPT_S[TEXT]) == {"1mo"}
