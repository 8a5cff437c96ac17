"""Python ends with profiles open: it neither hangs nor complains."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEFORE = """
import os
os.environ["PERF_MIDDLEWARE_LOG"] = "0"
from perf_middleware import profile
from perf_middleware.wsgi import PerfMiddleware

with profile("before"):
    pass
"""

GENERATOR = """
@profile("generator")
def numbers():
    yield 1
    yield 2

kept = numbers()
next(kept)
"""

BODY = """
def app(environ, start_response):
    start_response("200 OK", [])
    yield b"1"
    yield b"2"

kept = PerfMiddleware(app)({"REQUEST_METHOD": "GET"}, lambda *_: None)
next(kept)
"""

BLOCK = """
kept = profile("block")
kept.__enter__()
"""


@pytest.mark.parametrize("left_open", [GENERATOR, BODY, BLOCK], ids=["generator", "body", "block"])
def test_what_was_left_open_does_not_keep_python_from_ending(left_open):
    ended = subprocess.run(
        [sys.executable, "-c", BEFORE + left_open], capture_output=True, text=True, timeout=30, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_public_names_are_there_without_importing_anything_else_first():
    code = (
        "import perf_middleware as p; p.collector.install(); p.collector.uninstall(); p.profile, p.analyze, p.propagate"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_connections_opened_before_the_hook_are_told_of_once():
    code = """
import sqlite3
early = sqlite3.connect(":memory:")
from perf_middleware import collector
collector.install("sqlite3")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)

    assert ended.stderr.count("1 connections were opened before") == 1
    assert "collector.install()" in ended.stderr
