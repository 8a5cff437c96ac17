from __future__ import annotations

import itertools
import os
from calendar import timegm

import pytest

from perf_middleware.stats.batch import Batch, Group
from perf_middleware.stats.row import Row
from perf_middleware.stats.window import ROUTE, windows_at
from perf_middleware.stores import open_store

#: Far enough ahead that a server with the real clock keeps every window.
SECOND = timegm((2100, 3, 4, 5, 6, 7))

_numbers = itertools.count()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store_url(request, tmp_path):
    """A store of each kind that nobody else uses (Redis: by `prefix`)."""
    if request.param == "memory":
        return f"memory://{os.getpid()}-{next(_numbers)}"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/folder/stats.sqlite3"
    return request.getfixturevalue("valkey_url")


@pytest.fixture
def prefix():
    return f"t{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def store(store_url, prefix):
    opened = open_store(store_url, prefix=prefix)
    yield opened
    opened.close()


@pytest.fixture
def make_batch():
    """A batch of route rows of one request each."""

    def make(seq, *names, worker="w" * 16, service="shop", second=SECOND, max_names=1000, texts=(), max_texts=100):
        rows = []
        for name in names:
            row = Row()
            row.add(duration_us=5000, max_us=5000, db_us=1000, queries=3, wire=4, errors=0)
            rows.append(row.named(name))
        groups = [Group(windows_at(ROUTE, second), max_names, rows)]
        return Batch(service, worker, seq, len(rows), groups, list(texts), max_texts)

    return make
