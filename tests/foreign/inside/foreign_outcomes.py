"""Note how each test ended, in a pytest run (as its plugin) or a unittest one (as the result class).

With FOREIGN_BLOCKS, each test runs inside a `perf_middleware.profile` block: so what it asks of a database is noted
row by row, as in a request.
"""

from __future__ import annotations

import json
import os
import unittest
from contextlib import nullcontext
from pathlib import Path

import _pytest.monkeypatch
import pytest

# Flask 3.1's tests import this private name, which pytest 9 no longer has.
_pytest.monkeypatch.notset = _pytest.monkeypatch.MonkeyPatch.notset = _pytest.monkeypatch.NOTSET


# Read now: the tests change their environment.
OUTCOMES = Path(os.environ["FOREIGN_OUTPUT"]) / "outcomes.jsonl"
BLOCKS = os.environ["FOREIGN_BLOCKS"] == "1"


def note(test, outcome):
    with OUTCOMES.open("a") as file:
        file.write(json.dumps([test, outcome]) + "\n")


def block(test):
    if not BLOCKS:
        return nullcontext()
    from perf_middleware import profile  # noqa: PLC0415 - the bare run goes without

    return profile(test)


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        note(report.nodeid, report.outcome)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    with block(item.name):
        return (yield)


class Result(unittest.TextTestResult):
    """Django's runner is given this one."""

    def addSuccess(self, test):
        super().addSuccess(test)
        note(test.id(), "passed")

    def addExpectedFailure(self, test, error):
        super().addExpectedFailure(test, error)
        note(test.id(), "skipped")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        note(test.id(), "failed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        note(test.id(), "skipped")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        note(test.id(), "failed")

    def addError(self, test, error):
        super().addError(test, error)
        note(test.id(), "failed")

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            note(test.id(), "failed")
