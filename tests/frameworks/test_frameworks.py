"""Frameworks of third parties: found by entry point, hooked like ours, and never a reason to fail."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from perf_middleware import frameworks
from perf_middleware.errors import faults
from perf_middleware.wsgi import PerfMiddleware


@pytest.fixture
def register(monkeypatch):
    """Register a third party's framework for the test's time."""

    def registered(name, load):
        point = SimpleNamespace(name=name, load=load)
        monkeypatch.setattr(frameworks, "extensions", lambda kind: [point] if kind == "frameworks" else [])

    frameworks.uninstall()
    yield registered
    frameworks.uninstall()


def test_one_that_cannot_be_imported_is_counted_and_the_others_are_hooked(register, profiled):
    def load():
        raise ImportError

    register("theirs", load)
    before = faults["framework theirs: ImportError"]
    profiled(PerfMiddleware, None)
    assert faults["framework theirs: ImportError"] == before + 1
    assert {"werkzeug", "django"} <= frameworks._hooks.keys()


def test_one_that_is_registered_names_routes(register, profiled, monkeypatch):
    module = ModuleType("theirs")
    module.Router = type("Router", (), {"find": lambda self, path: "/template/{id}"})
    monkeypatch.setitem(sys.modules, "theirs", module)

    def hook(module, patches):
        def make(original, get):
            def find(self, path):
                get().route = original(self, path)

            return find

        patches.replace(module.Router, "find", make)

    register("theirs", lambda: SimpleNamespace(MODULE="theirs", hook=hook))
    original = module.Router.find

    def app(environ, start_response):
        module.Router().find(environ["PATH_INFO"])
        start_response("200 OK", [])
        return []

    profiled(PerfMiddleware, app)({"REQUEST_METHOD": "GET", "PATH_INFO": "/template/7"}, lambda *args: None)
    assert profiled.profiles[0].name == "GET /template/{id}"
    frameworks.uninstall()
    assert module.Router.find is original
