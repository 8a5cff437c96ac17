from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import perf_middleware
from perf_middleware.detectors.severity import TABLE, severity, severity_in
from perf_middleware.record import SEVERITIES, Profile

DOCS = Path(perf_middleware.__file__).parents[1] / "docs" / "findings.md"
LEVELS = list(SEVERITIES)


def test_nothing_measured_is_low():
    assert severity(0, 0, 0) == "low"


@pytest.mark.parametrize(
    ("inside", "outside", "level", "below"),
    [
        ((1000, 1, 0.5), (999.99, 1, 0.5), "critical", "high"),
        ((1000, 1, 0.5), (1000, 1, 0.4999), "critical", "high"),
        ((500, 100, 0.5), (499.99, 100, 0.5), "critical", "high"),
        ((500, 100, 0.5), (500, 99, 0.5), "critical", "high"),
        ((500, 100, 0.5), (500, 100, 0.4999), "critical", "high"),
        ((1000, 1, 0.1), (999.99, 1, 0.1), "high", "medium"),
        ((1000, 1, 0.1), (1000, 1, 0.0999), "high", "medium"),
        ((250, 1, 0.25), (249.99, 1, 0.25), "high", "medium"),
        ((250, 1, 0.25), (250, 1, 0.2499), "high", "medium"),
        ((100, 50, 0.25), (99.99, 50, 0.25), "high", "medium"),
        ((100, 50, 0.25), (100, 49, 0.25), "high", "medium"),
        ((100, 50, 0.25), (100, 50, 0.2499), "high", "medium"),
        ((500, 1, 0), (499.99, 1, 0), "medium", "low"),
        ((50, 1, 0.1), (49.99, 1, 0.1), "medium", "low"),
        ((50, 1, 0.1), (50, 1, 0.0999), "medium", "low"),
        ((10, 20, 0.1), (9.99, 20, 0.1), "medium", "low"),
        ((10, 20, 0.1), (10, 19, 0.1), "medium", "low"),
        ((10, 20, 0.1), (10, 20, 0.0999), "medium", "low"),
        ((0, 100, 0), (0, 99, 0), "medium", "low"),
    ],
)
def test_every_border_from_both_sides(inside, outside, level, below):
    assert severity(*inside) == level
    assert severity(*outside) == below


TIMES = st.floats(0, 5000) | st.sampled_from([row[1] for row in TABLE])
COUNTS = st.integers(0, 500) | st.sampled_from([row[2] for row in TABLE])
SHARES = st.floats(0, 2) | st.sampled_from([row[3] for row in TABLE])


MEASURES = st.tuples(TIMES, COUNTS, SHARES)


@given(MEASURES, MEASURES)
def test_more_never_lowers_it(one, other):
    more = tuple(max(pair) for pair in zip(one, other, strict=True))
    assert LEVELS.index(severity(*more)) >= LEVELS.index(severity(*one))


def test_the_table_in_the_docs_is_the_table_in_the_code():
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| (\d+) \| ([\d.]+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    documented = [(level, float(time_ms), int(count), float(share)) for level, time_ms, count, share in rows]
    assert documented == [*TABLE, ("low", 0, 0, 0)]


def test_the_short_way_to_low_never_hides_a_level_of_the_table():
    times_ms = sorted({time_ms + step for _, time_ms, _, _ in TABLE for step in (-0.1, 0, 0.1)})
    counts = sorted({count + step for _, _, count, _ in TABLE for step in (-1, 0, 1)})
    profile = Profile(duration_ms=20)
    for time_ms, count in product(times_ms, counts):
        assert severity_in(profile, time_ms, count) == severity(time_ms, count, time_ms / 20)
