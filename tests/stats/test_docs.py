"""docs/stats.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from perf_middleware.stats import read
from perf_middleware.stats.fold import MAX_NAMES, MAX_TEXTS
from perf_middleware.stats.histogram import LEAST_N
from perf_middleware.stats.window import KEPT_S

DOCS = (Path(__file__).parents[2] / "docs" / "stats.md").read_text()
UNITS_S = {"min": 60, "h": 3600, "d": 86_400}


def _seconds(cell):
    number, unit = cell.split()
    return int(number) * UNITS_S[unit]


def test_the_table_of_windows_is_the_one_in_the_code():
    section = DOCS.partition("### Windows and how long")[2]
    table = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in re.findall(r"(?m)^\|.*$", section)]
    (_, *tiers), _, *lines = table[: 2 + len(KEPT_S)]
    told = {
        kind: {tier: _seconds(cell) for tier, cell in zip(tiers, cells, strict=True) if cell != "-"}
        for kind, *cells in lines
    }
    assert told == KEPT_S


def test_bounds_and_least_samples_are_told():
    assert f"| `q` | fingerprint in a route | {MAX_NAMES} |" in DOCS
    assert f"| {MAX_TEXTS:,} |" in DOCS
    for share, least in LEAST_N.items():
        assert re.search(rf"p{share * 100:.0f}\s+(is told )?from\s+n = {least}", DOCS)


def test_every_field_of_the_json_is_told():
    told = DOCS.partition("## `report --format json`")[2]
    for struct in (read.WindowStats, read.RouteStats, read.QueryStats, read.FindingStats):
        for field in struct.__struct_fields__:
            assert f"`{field}`" in told
