"""The comparison of two runs tells what we broke from what was broken, and does not take our absence for peace."""

from __future__ import annotations

import foreign_suites
import pytest

TESTS = """
import sqlite3
from os import environ
from pathlib import Path

import pytest
import werkzeug.test


def ask():
    with sqlite3.connect(":memory:") as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def answer(environ, start_response):
    start_response("200 OK", [])
    return [b""]


def headers():
    return werkzeug.test.run_wsgi_app(answer, werkzeug.test.create_environ())[2].to_wsgi_list()


def test_asks():
    ask()


def test_asks_for_the_type():
    assert type(sqlite3.connect(":memory:")) is sqlite3.Connection


def test_asks_for_the_type_too():
    assert type(sqlite3.connect(":memory:")) is sqlite3.Connection


def test_compares_headers():
    assert headers() == []


def test_compares_headers_too():
    assert headers() == []


def test_always_fails():
    raise AssertionError


def test_fails_once_the_second_time():
    file = Path("times")
    times = len(file.read_text()) if file.exists() else 0
    file.write_text("." * (times + 1))
    assert times != 1


@pytest.mark.skipif("perf_middleware.wsgi" not in __import__("sys").modules, reason="only with us on")
def test_fails_where_it_was_skipped():
    raise AssertionError
"""


@pytest.fixture
def suite(tmp_path):
    """`suite(text, **facts)` is one file of tests, `test_it.py`."""

    def make(text, **facts):
        (tmp_path / "test_it.py").write_text(text)
        return foreign_suites.Suite("made up", "1", tmp_path, foreign_suites.PYTEST, **facts)

    return make


def test_what_breaks_with_us_on_is_newly_failing_unless_it_is_named_with_a_reason(suite):
    made = suite(
        TESTS,
        blocks=True,
        by_headers={
            "test_it.py::test_compares_headers": "ours",
            "test_it.py::test_asks_for_the_type": "not about headers",
        },
        exceptions={"test_it.py::test_asks_for_the_type_too": "subclass", "test_it.py::test_asks": "needs none"},
    )
    verdict = foreign_suites.compare(made, ["."])

    assert verdict.newly_failing == [
        "test_it.py::test_asks_for_the_type",
        "test_it.py::test_compares_headers_too",
        "test_it.py::test_fails_where_it_was_skipped",
    ]
    assert verdict.by_headers == {"test_it.py::test_compares_headers": "ours"}
    assert verdict.exceptions == {"test_it.py::test_asks_for_the_type_too": "subclass"}
    assert verdict.failing_bare == ["test_it.py::test_always_fails"]
    assert verdict.flaky == ["test_it.py::test_fails_once_the_second_time"]
    assert verdict.tests == 8

    with pytest.raises(AssertionError, match="made up, newly failing: test_it"):
        foreign_suites.judge(made, verdict, sees="query")


def test_what_was_seen_is_counted(suite):
    text = TESTS.partition("def test_asks")[0]
    few = foreign_suites.compare(suite(f"{text}\ndef test_it():\n    ask()\n    headers()\n", blocks=True), ["."])
    more = foreign_suites.compare(
        suite(f"{text}\ndef test_it():\n    ask(); ask()\n    headers(); headers()\n", blocks=True), ["."]
    )

    assert (few.seen["query"], few.seen["request"], few.seen["block"]) == (1, 1, 1)
    assert (more.seen["query"], more.seen["request"], more.seen["block"]) == (2, 2, 1)


def test_a_suite_that_we_saw_nothing_of_proves_nothing(suite):
    idle = suite("def test_it(): pass", blocks=True)
    verdict = foreign_suites.compare(idle, ["."])

    assert verdict.newly_failing == []
    for sees in ("request", "query"):
        with pytest.raises(AssertionError, match="made up ran without us"):
            foreign_suites.judge(idle, verdict, sees=sees)


def test_a_fault_of_ours_is_allowed_where_it_is_named(suite):
    text = """
import sqlite3


def test_it():
    with sqlite3.connect(":memory:", factory=lambda *args, **kwargs: sqlite3.Connection(*args, **kwargs)): pass
    with sqlite3.connect(":memory:") as connection: connection.execute("SELECT 1")
"""
    faulty = suite(text, blocks=True)
    verdict = foreign_suites.compare(faulty, ["."])
    (fault,) = verdict.faults

    with pytest.raises(AssertionError, match="made up, faults of ours: "):
        foreign_suites.judge(faulty, verdict, sees="query")
    foreign_suites.judge(suite(text, faults={fault: "a function"}), verdict, sees="query")


def test_a_crash_is_no_verdict_and_is_quoted(suite):
    with pytest.raises(AssertionError, match=r"(?s)made up ended with code -6:\nFatal Python error.*in test_it"):
        suite("import os\ndef test_it(): os.abort()").run(["."])


def test_no_test_at_all_is_no_verdict(suite):
    with pytest.raises(AssertionError, match="made up ended with code 5"):
        suite("").run(["."])


@pytest.mark.parametrize(
    ("variables", "ends"),
    [({}, pytest.skip.Exception), ({"CI": "true"}, pytest.fail.Exception)],
    ids=["skips on a laptop", "fails in CI"],
)
def test_without_a_network_a_suite(variables, ends, monkeypatch, tmp_path):
    for name in ("CI", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_CONFIG_FILE": "/dev/null", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(foreign_suites, "CACHE", tmp_path)

    with pytest.raises(ends, match="the source archive of flask"):
        foreign_suites.by_pytest("flask")
