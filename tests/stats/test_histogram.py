from __future__ import annotations

import random
from math import ceil, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.stats.histogram import (
    EXACT_COUNTS,
    LAST_LANE,
    LEAST_N,
    Histogram,
    count_lane,
    duration_lane,
    lane_count,
    lane_duration_us,
)

#: Scale 6: half a lane either way, in relative terms.
BOUND = (2 ** (1 / 64) - 1) / (2 ** (1 / 64) + 1)

sparse = st.dictionaries(st.integers(0, LAST_LANE), st.integers(1, 2**40), max_size=12)


def histogram(lanes):
    return Histogram.from_pairs([number for pair in sorted(lanes.items()) for number in pair])


def contents(histogram):
    return {histogram.lo + i: count for i, count in enumerate(histogram.counts()) if count}


@pytest.mark.parametrize("share", LEAST_N)
def test_too_few_values_give_no_percentile(share):
    assert Histogram().percentile_lane(share) is None
    assert histogram({7: LEAST_N[share] - 1}).percentile_lane(share) is None
    assert histogram({7: LEAST_N[share]}).percentile_lane(share) == 7


def test_what_cannot_be_a_duration_lands_in_the_outer_lanes():
    assert duration_lane(0) == duration_lane(-5) == 0
    assert duration_lane(10**18) == LAST_LANE


def test_the_bound_is_the_published_one():
    assert pytest.approx(0.00542, abs=1e-5) == BOUND


@given(st.integers(1, 65_000_000_000))
def test_a_duration_read_back_is_within_the_bound(duration_us):
    assert abs(lane_duration_us(duration_lane(duration_us)) - duration_us) <= duration_us * BOUND * 1.000001


@given(st.integers(0, 10**9))
def test_a_count_read_back_is_exact_when_small_and_within_the_bound_otherwise(count):
    read = lane_count(count_lane(count))
    assert abs(read - count) <= (0 if count < EXACT_COUNTS else max(0.5, count * BOUND * 1.000001) + 0.5)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_lanes_keep_the_order(one, other):
    one, other = sorted((one, other))
    assert duration_lane(one) <= duration_lane(other)
    assert count_lane(one) <= count_lane(other)


@given(st.lists(sparse, max_size=5), st.randoms(use_true_random=False))
def test_merging_adds_in_any_order(parts, shuffle):
    expected = {}
    for part in parts:
        for lane, count in part.items():
            expected[lane] = expected.get(lane, 0) + count
    shuffle.shuffle(parts)
    merged = Histogram()
    for part in parts:
        merged.merge(histogram(part))
    assert contents(merged) == expected


@given(sparse)
def test_lanes_survive_their_packed_form(lanes):
    written = histogram(lanes)
    width = written.width()
    read = Histogram.from_bytes(written.lo, width, written.to_bytes(width))
    assert contents(read) == lanes


@pytest.mark.parametrize(("largest", "width"), [(0, 1), (255, 1), (256, 2), (65_535, 2), (65_536, 4), (2**32, 8)])
def test_a_lane_is_as_wide_as_its_largest_count_needs(largest, width):
    assert Histogram(3, largest).width() == width


DISTRIBUTIONS = {
    "lognormal": lambda rng: rng.lognormvariate(-4, 0.6),
    "wide lognormal": lambda rng: rng.lognormvariate(-4, 1.5),
    "bimodal": lambda rng: rng.gauss(0.005, 0.0005) if rng.random() < 0.8 else rng.gauss(0.9, 0.05),
    "pareto": lambda rng: 0.001 * rng.paretovariate(1.2),
    "uniform": lambda rng: rng.uniform(0.0001, 2),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_percentiles_of_200_merged_parts_are_within_0_55_percent_of_the_nearest_rank(name):
    rng = random.Random(name)
    values = [max(1, round(DISTRIBUTIONS[name](rng) * 1e6)) for _ in range(20_000)]
    merged = Histogram()
    for start in range(0, len(values), 100):
        part = {}
        for value in values[start : start + 100]:
            part[duration_lane(value)] = part.get(duration_lane(value), 0) + 1
        merged.merge(histogram(part))
    values.sort()
    for share in LEAST_N:
        exact = values[ceil(share * len(values)) - 1]
        assert lane_duration_us(merged.percentile_lane(share)) == pytest.approx(exact, rel=0.0055)


def test_the_lane_stands_for_both_its_borders_equally():
    low, high = 2 ** (5 / 64), 2 ** (6 / 64)
    middle = lane_duration_us(duration_lane(round(1e6 * sqrt(low * high)))) / 1e6
    assert (middle - low) / low == pytest.approx((high - middle) / high)
