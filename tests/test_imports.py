"""The floor plan: which room may import which; and what of other libraries comes in by a door, and what may not."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import perf_middleware

PACKAGE = Path(perf_middleware.__file__).parent
WAIST = ("record", "errors")
STORED = (*WAIST, "stats", "stores")
PUBLIC = (*STORED, "sql", "settings", "collector", "detectors", "sinks", "wsgi", "asgi", "block")

# A room is a module or a folder; beside each, what it may import (a room, or a part of one) apart from itself.
# "" stands for the package's own names: `from perf_middleware import profile`.
MAY_IMPORT = {
    "errors": (),
    "extensions": (),
    "record": ("errors",),
    "fingerprint": (),
    "sql": ("fingerprint",),
    "settings": WAIST,
    "headers": (*WAIST, "settings"),
    "collector": (*WAIST, "extensions", "sql"),
    "detectors": (*WAIST, "extensions", "sql", "settings"),
    "stats": WAIST,
    "stores": (*WAIST, "extensions", "stats"),
    "sinks": (*STORED, "sql"),
    "guard": (*WAIST, "collector.context"),
    "pipeline": (*WAIST, "guard", "collector", "detectors", "sinks", "settings", "headers"),
    "wsgi": (*WAIST, "pipeline", "settings", "headers", "collector.context", "frameworks"),
    "asgi": (*WAIST, "pipeline", "settings", "headers", "collector.context", "frameworks"),
    "block": (*WAIST, "pipeline", "settings", "headers", "collector.context"),
    "doctor": ("", *WAIST, "collector", "pipeline"),
    "frameworks": (*WAIST, "extensions", "headers", "collector.context", "collector.hooking", "collector.patching"),
    "jobs": (*WAIST, "pipeline", "settings", "headers", "collector.context", "block"),
    "evidence": STORED,
    "web": (*STORED, "evidence"),
    "cli": ("", *PUBLIC, "doctor", "evidence", "web"),
    "pytest_plugin": ("", *PUBLIC, "evidence"),
    "__main__": ("cli",),
    "": (*WAIST, "collector", "detectors", "block"),
}


def imports(source: str, module: str) -> list[str]:
    """What of ours a module imports, dotted and without the package's name; under TYPE_CHECKING too."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively, in line {node.lineno}: spell the package's name"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [
        name.removeprefix("perf_middleware").lstrip(".") for name in names if name.split(".")[0] == "perf_middleware"
    ]


def room(name: str) -> str:
    """The first part where it is a room, else the package itself."""
    first = name.partition(".")[0]
    return first if first in MAY_IMPORT else ""


def forbidden(source: str, module: str) -> list[str]:
    """The edges that the floor plan does not have."""
    home = room(module)
    return [
        f"{module} may not import {name}"
        for name in imports(source, module)
        if room(name) != home
        and not any(allowed == room(name) or f"{name}.".startswith(f"{allowed}.") for allowed in MAY_IMPORT[home])
    ]


MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").strip("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_the_floor_plan_gives_it(module):
    assert forbidden(MODULES[module].read_text(), module) == []


def test_every_module_has_a_room():
    assert [module for module in MODULES if module and not room(module)] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("wsgi", "from perf_middleware.evidence.compare import compare"),
        ("wsgi", "from perf_middleware import collector"),
        ("asgi", "if TYPE_CHECKING:\n    from perf_middleware.web import app"),
        ("evidence.health", "def late():\n    import perf_middleware.wsgi"),
        ("detectors.n_plus_one", "from perf_middleware.collector.context import current"),
        ("stats.window", "from perf_middleware import profile"),
        ("record", "from perf_middleware.sql import fingerprint"),
    ],
)
def test_an_edge_that_is_not_in_the_plan_is_named(module, source):
    assert [edge.split(" may not import ")[0] for edge in forbidden(source, module)] == [module]


#: What is slow to import, or the application's alone to import.
HEAVY = {
    *(
        "asyncio",
        "concurrent",
        "difflib",
        "email",
        "hashlib",
        "importlib.metadata",
        "json",
        "logging",
        "multiprocessing",
    ),
    *("pathlib", "socket", "ssl", "statistics", "subprocess", "sysconfig", "tempfile", "urllib", "zipfile"),
    *("redis", "rich", "structlog", "wrapt", "django", "flask", "pymysql", "sqlite3", "starlette", "werkzeug"),
}

DOOR = "from perf_middleware.wsgi import PerfMiddleware\n"
REQUEST = """
def app(environ, start_response):
    start_response("200 OK", [])
    return []
door = PerfMiddleware(app, log=False)
door({"REQUEST_METHOD": "GET"}, lambda *args: None)
assert door.pipeline.rolling.flush(60)
"""


def imported_by(code):
    """The modules that a fresh Python has after the code, and had not before."""
    program = f"import sys; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        DOOR,
        DOOR + "PerfMiddleware(None, log=False)",
        DOOR + REQUEST,
        "from perf_middleware.asgi import PerfMiddleware\nPerfMiddleware(None, log=False)",
    ],
    ids=["imported", "constructed", "first request and flush", "asgi"],
)
def test_a_door_brings_nothing_that_is_slow_to_import_and_no_driver_or_framework(code):
    imported = imported_by(code)
    assert "msgspec" in imported
    assert HEAVY & imported == set()


def test_what_is_asked_for_is_imported_when_the_door_is_constructed():
    assert "structlog" in imported_by(DOOR + "PerfMiddleware(None, log=True)")


def test_switched_off_a_door_imports_nothing_more_than_itself():
    assert imported_by(DOOR + "PerfMiddleware(None, enabled=False)") == imported_by(DOOR)
