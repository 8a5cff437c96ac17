"""Thousands of requests with fifty queries each: after the first ones nothing more is kept."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import gc, json, sqlite3, time, tracemalloc
time.time = lambda: 1_800_000_000.0  # the windows of the stats are those of the clock: bounded too, but not at once
from perf_middleware.stores.outbox import MAX_ACKNOWLEDGED
from perf_middleware.wsgi import PerfMiddleware

def app(environ, start_response):
    for number in range(50):
        cursor.execute("SELECT id FROM item WHERE id = ?", (number,)).fetchall()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x"]

def serve(batches):
    for _ in range(batches):
        for _ in range(10):
            served({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *args: None)
        served.pipeline.rolling.flush()

def kept():
    gc.collect()
    return len(gc.get_objects()), tracemalloc.get_traced_memory()[0]

served = PerfMiddleware(app, log=False, flush_interval_s=60, headers="full", max_overhead_percent=0, **OPTIONS)
connection = sqlite3.connect(":memory:")
cursor = connection.cursor()
cursor.execute("CREATE TABLE item (id INTEGER PRIMARY KEY)")
tracemalloc.start()
serve(MAX_ACKNOWLEDGED + 1)  # as many batches are kept for a store that may ask for them again
before = kept()
serve(REQUESTS // 10)
after = kept()
print(json.dumps([after[0] - before[0], after[1] - before[1]]))
"""


@pytest.mark.parametrize(
    ("requests", "options"), [(2000, {}), (1000, {"sample_rate": 0.5}), (1000, {"max_queries": 10})], ids=str
)
def test_thousands_of_requests_with_50_queries_keep_nothing_after_the_first_ones(requests, options):
    """What may still come are buckets of the histograms that no duration had met before."""
    program = PROGRAM.replace("OPTIONS", repr(options)).replace("REQUESTS", str(requests))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr == ""
    objects, size = json.loads(done.stdout)
    assert objects < 100
    assert size < requests * 32
