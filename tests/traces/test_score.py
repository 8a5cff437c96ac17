"""The labelled traces that live beside the checkout, where they are there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import perf_middleware

TRACES = Path(perf_middleware.__file__).parents[2] / "shared" / "traces"
COMMAND = f"{sys.executable} -m perf_middleware"


@pytest.mark.skipif(not TRACES.is_dir(), reason="no labelled traces beside this checkout")
@pytest.mark.parametrize("strict", [[], ["--strict-params"]], ids=["", "strict"])
@pytest.mark.parametrize("name", ["dev", "sentry"])
def test_the_labelled_traces(tmp_path, name, strict):
    numbers = tmp_path / "numbers.json"
    traces = str(TRACES / f"{name}.jsonl")
    score = [sys.executable, str(TRACES / "score.py"), COMMAND, "--traces", traces, "--json", str(numbers), *strict]
    ran = subprocess.run(score, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    kinds = json.loads(numbers.read_text())["kinds"]
    for kind in ("duplicate_query", "write_loop"):
        assert kinds[kind]["precision"] is None or kinds[kind]["precision"] >= 0.99, kind
        assert (kinds[kind]["fn"], kinds[kind]["split"]) == (0, 0), kind
    assert {kind for kind, counts in kinds.items() if counts["fn"] or counts["fp"] > 1} == set()
    clean, without = re.search(r"(\d+) clean of which (\d+) without a false finding", ran.stdout).groups()
    assert clean == without
