"""Which hooks are installed, and in which order, is a parameter: `@hooks("sqlalchemy", "sqlite3")` and its like."""

from __future__ import annotations

import sys

import pytest

from perf_middleware import collector


@pytest.fixture
def hooked(request):
    """The hooks named by the parameter, in its order; all of the test's own layer and the drivers otherwise."""
    names = getattr(request, "param", ("pymysql", "sqlite3", request.module.LAYER))
    collector.install(*names)
    yield names
    collector.uninstall(*names)


@pytest.fixture
def here():
    """`here(n)` is the caller of a statement n lines below."""

    def place(offset=0):
        frame = sys._getframe(1)
        return frame.f_lineno + offset

    return place
