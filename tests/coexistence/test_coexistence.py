"""Beside other tools that watch the same drivers, in both orders: one process for each scene, which patches globally.

What is counted is compared with the databases' own count (SQLite's trace, MariaDB's Com_ counters), and what the other
tool sees with what it sees without us.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCENE = Path(__file__).parent / "scene.py"
SQLITE = ["sqlite3.connect", "sqlite3.dbapi2.connect"]

#: The tools that replace `sqlite3.connect`, which is the one function that we replace as well.
REPLACE_CONNECT = {"opentelemetry", "ddtrace", "newrelic"}
BESIDE = [
    *((peer, "raw") for peer in ("opentelemetry", "ddtrace", "newrelic", "sentry")),
    *((peer, "flask") for peer in ("opentelemetry", "ddtrace", "newrelic", "sentry")),
    *((peer, "django") for peer in ("opentelemetry", "ddtrace", "newrelic", "sentry", "debug_toolbar", "silk")),
]


@pytest.fixture
def play(mariadb, tmp_path):
    """`play(peer, framework, order, leaving)` gives what came of each request, by phase."""
    database = {name: getattr(mariadb, name) for name in ("host", "port", "user", "password", "database")}

    def playing(*scene):
        folder = tmp_path / "-".join(scene)
        folder.mkdir()
        env = {**os.environ, "COEXISTENCE_DATABASE": json.dumps(database), "COEXISTENCE_FOLDER": str(folder)}
        command = [sys.executable, str(SCENE), *scene]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return playing


@pytest.fixture
def alone(play):
    """What the peer sees of each request without us."""

    def playing(peer, framework):
        if (peer, framework) not in _alone:
            _alone[peer, framework] = seen(play(peer, framework, "alone", "they")["both"])
        return _alone[peer, framework]

    return playing


_alone = {}


def seen(requests):
    return [(request["path"], request["theirs"], request["their_requests"]) for request in requests]


def counted(requests):
    return [(request["path"], request["ours"]) for request in requests]


def sent(requests):
    return [(request["path"], request["sent"]) for request in requests]


def none(requests):
    return [(request["path"], dict.fromkeys(request["sent"], 0)) for request in requests]


def errors_are_the_applications_own(scene):
    for phase in ("both", "left", "new", "end"):
        for request in scene[phase]:
            assert request["same"], (phase, request)
            assert request["raised"] == (request["path"] in ("/raise", "/driver")), (phase, request)
            assert [bool(error) for error in request["error"]] == [request["raised"]], (phase, request)
    assert scene["faults"] == {}


def nothing_is_counted_twice_lost_or_unattributed(requests):
    assert counted(requests) == sent(requests)
    assert min(min(request["sent"].values()) for request in requests) >= 3
    assert {request["unattributed"] for request in requests} == {0}
    assert {request["profiles"] for request in requests} == {1}


def we_are_silent(requests):
    assert counted(requests) == none(requests)
    assert {request["unattributed"] for request in requests} == {0}


@pytest.mark.parametrize("order", ["they_first", "we_first"])
@pytest.mark.parametrize(("peer", "framework"), BESIDE)
def test_nothing_is_counted_twice_errors_pass_the_peer_sees_the_same_and_we_leave_safely(
    play, alone, peer, framework, order
):
    scene = play(peer, framework, order, "we")
    errors_are_the_applications_own(scene)
    nothing_is_counted_twice_lost_or_unattributed(scene["both"])
    for phase in ("left", "new", "end"):
        we_are_silent(scene[phase])
    for phase in ("both", "left", "new"):
        assert seen(scene[phase]) == alone(peer, framework)
    assert any(queries for _, queries, _ in alone(peer, framework)) == ((peer, framework) != ("sentry", "raw"))
    below = order == "we_first" and peer in REPLACE_CONNECT
    assert scene["not_restored"] == (SQLITE if below else [])
    assert ("silent below another tool" in scene["status"]["sqlite3"]) == below
    assert scene["status"]["pymysql"] == "uninstalled"


@pytest.mark.parametrize(
    ("peer", "order"), [("opentelemetry", "they_first"), ("opentelemetry", "we_first"), ("ddtrace", "we_first")]
)
def test_a_peer_that_leaves_first_takes_nothing_of_ours_with_it(play, peer, order):
    scene = play(peer, "raw", order, "they")
    errors_are_the_applications_own(scene)
    for phase in ("both", "left", "new"):
        nothing_is_counted_twice_lost_or_unattributed(scene[phase])
    we_are_silent(scene["end"])
    assert scene["not_restored"] == []


def test_ddtrace_s_unpatch_takes_the_topmost_patch_of_sqlite3_which_is_ours_if_it_came_first(play):
    scene = play("ddtrace", "raw", "they_first", "they")
    errors_are_the_applications_own(scene)
    for phase in ("both", "left"):
        nothing_is_counted_twice_lost_or_unattributed(scene[phase])
    for request in scene["new"]:
        assert request["ours"] == {**request["sent"], "sqlite": 0}
    we_are_silent(scene["end"])
    assert scene["not_restored"] == []
