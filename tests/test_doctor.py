"""`diagnose()`: an application asks what this process knows about itself."""

from __future__ import annotations

import gc
import json
import sqlite3
import subprocess
import sys

import msgspec
import pytest

from perf_middleware import doctor, errors
from perf_middleware.wsgi import PerfMiddleware


def application(environ, start_response):
    start_response("200 OK", [])
    return []


@pytest.fixture
def door(profiled):
    gc.collect()  # the doors of other tests are listed until they are gone
    return profiled(PerfMiddleware, application, service="diagnosed", store="redis://me:s3cr3t@127.0.0.1:1/0")


def state(service="diagnosed"):
    (found,) = (pipeline for pipeline in doctor.diagnose().pipelines if pipeline.service == service)
    return found


def test_a_password_is_not_in_it(door):
    assert state().store == "redis://127.0.0.1:1/0"
    assert "s3cr3t" not in msgspec.json.encode(doctor.diagnose()).decode()


@pytest.mark.parametrize("requests", [1, 3])
def test_requests_are_counted_in_it(door, requests):
    for _ in range(requests):
        door({"REQUEST_METHOD": "GET"}, lambda *_: None)
    assert state().rolling["recorded"] == requests
    assert state().guard["shed"] is None


def test_faults_are_in_it(door):
    before = doctor.diagnose().faults.get("here: KeyError", 0)
    errors.fault("here", KeyError())
    assert doctor.diagnose().faults["here: KeyError"] == before + 1
    errors.faults.clear()


def test_who_has_patched_on_top_of_us_is_in_it(door, monkeypatch):
    wrapped = sqlite3.connect
    scope = {"wrapped": wrapped, "__name__": "somebody.tracing"}
    exec("def connect(*args, **kwargs):\n    return wrapped(*args, **kwargs)", scope)
    scope["connect"].__wrapped__ = wrapped
    (before,) = (driver for driver in doctor.diagnose().drivers if driver.name == "sqlite3")
    monkeypatch.setattr(sqlite3, "connect", scope["connect"])
    (after,) = (driver for driver in doctor.diagnose().drivers if driver.name == "sqlite3")
    assert (before.status, after.status) == ("hooked", "hooked")
    assert before.others == {}
    assert after.others == {"sqlite3.connect": ["somebody.tracing"]}
    assert after.patched == before.patched >= 2


def test_a_wrapper_that_wraps_itself_ends():
    def function():
        """Nothing."""

    function.__wrapped__ = function
    assert doctor.others_on(function, __name__) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@h:1/0?password=p", "redis://h:1/0"),
        ("sqlite:////var/x", "sqlite:////var/x"),
        ("unix:///s", "unix:///s"),
        ("redis://u:p@[h", "redis://..."),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url, shown):
    assert doctor.without_credentials(url) == shown


def test_asking_imports_no_driver_and_a_door_does_not_import_it():
    program = """
import json, sys
from perf_middleware.wsgi import PerfMiddleware
door = PerfMiddleware(None, log=False)
without = "perf_middleware.doctor" in sys.modules
import msgspec
from perf_middleware.doctor import diagnose
told = msgspec.to_builtins(diagnose())
drivers = [name for name in ("pymysql", "sqlite3", "psycopg", "django", "sqlalchemy", "rich") if name in sys.modules]
print(json.dumps([without, drivers, {driver["name"]: driver["status"] for driver in told["drivers"]}]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    without, drivers, states = json.loads(done.stdout)
    assert without is False
    assert drivers == []
    assert set(states.values()) == {"waiting for import"}
