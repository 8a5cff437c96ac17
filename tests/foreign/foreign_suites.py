"""Run other projects' own tests twice, bare and with us on, and compare.

Their source archives come from PyPI, in exactly the versions that are installed here. Each run has an environment of
its own that borrows our packages; in the hooked one every process, also one that a test starts, imports
`inside/foreign_door.py` first. What broke is run once more, so that a test that fails now and then is told apart.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

INSIDE = Path(__file__).parent / "inside"
CACHE = Path(__file__).parents[2] / ".foreign"

TIMEOUT_S = 900.0
"""A suite takes a minute or two; one that hangs is ended."""

PASSED, FAILED = 0, 1
"""Exit codes of a run that went to its end."""

PYTEST = (
    "-m",
    "pytest",
    "-p",
    "foreign_outcomes",
    "-p",
    "pytest_timeout",
    "-p",
    "no:cacheprovider",
    "-q",
    "--timeout=60",
)


@dataclass
class Run:
    """How each test ended, and what we saw meanwhile."""

    outcomes: dict[str, str]
    seen: Counter
    faults: Counter


@dataclass(frozen=True)
class Suite:
    """Somebody's tests, in a folder, and the command that runs those it is given.

    Attributes:
        by_headers: Tests that compare all headers of a response, each with what it compares: ours are among them
            because they were asked for, so these are judged with `headers="off"`.
        exceptions: Tests that are not judged, each with the reason: what it asks is what we or this harness decided
            to do otherwise.
        faults: Faults of ours that the tests provoke, each with the reason.

    """

    name: str
    version: str
    folder: Path
    command: tuple[str, ...]
    blocks: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    by_headers: dict[str, str] = field(default_factory=dict)
    exceptions: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def run(self, tests, *, hooked=False, headers="full"):
        with tempfile.TemporaryDirectory(prefix="foreign-") as made:
            output = Path(made)
            done = subprocess.run(
                [_environment(output / "venv", hooked=hooked), *self.command, *tests],
                cwd=self.folder,
                env=self._variables(output, hooked=hooked, headers=headers),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
                text=True,
                errors="replace",
                check=False,
            )
            outcomes = _outcomes(output)
            finished = done.returncode in (PASSED, FAILED) and outcomes
            assert finished, f"{self.name} ended with code {done.returncode}:\n{_end_of(done.stdout)}"
            return Run(outcomes, *_seen(output))

    def _variables(self, output, *, hooked, headers):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON", "COV_"))}
        return {
            **kept,
            **self.environment,
            "FOREIGN_OUTPUT": str(output),
            "FOREIGN_HEADERS": headers,
            "FOREIGN_BLOCKS": "1" if hooked and self.blocks else "",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


@dataclass
class Verdict:
    """A line of the table."""

    suite: str
    version: str
    tests: int
    failing_bare: list[str]
    newly_failing: list[str]
    by_headers: dict[str, str]
    exceptions: dict[str, str]
    flaky: list[str]
    seen: dict[str, int]
    faults: dict[str, int]


def compare(suite, tests):
    """Run a suite bare and hooked, and look at what broke until it is known why."""
    bare, hooked = suite.run(tests), suite.run(tests, hooked=True)
    broken = _broken(bare.outcomes, hooked.outcomes)
    steady = _broken(suite.run(broken).outcomes, suite.run(broken, hooked=True).outcomes) if broken else []
    headed = [test for test in steady if test in suite.by_headers]
    silent = suite.run(headed, hooked=True, headers="off").outcomes if headed else {}
    by_headers = {test: suite.by_headers[test] for test in headed if silent.get(test) == "passed"}
    exceptions = {test: suite.exceptions[test] for test in steady if test in suite.exceptions}
    return Verdict(
        suite=suite.name,
        version=suite.version,
        tests=len(bare.outcomes),
        failing_bare=[test for test, outcome in bare.outcomes.items() if outcome == "failed"],
        newly_failing=[test for test in steady if test not in by_headers and test not in exceptions],
        by_headers=by_headers,
        exceptions=exceptions,
        flaky=[test for test in broken if test not in steady],
        seen=dict(hooked.seen),
        faults=dict(hooked.faults),
    )


def judge(suite, verdict, *, sees):
    """No test breaks, no fault of ours but the known ones, and we were on: a "request" or "query" was seen."""
    assert not verdict.newly_failing, f"{suite.name}, newly failing: {', '.join(verdict.newly_failing)}"
    faults = {name: count for name, count in verdict.faults.items() if name not in suite.faults}
    assert not faults, f"{suite.name}, faults of ours: {faults}"
    assert verdict.seen.get(sees, 0) > 0, f"{suite.name} ran without us: {verdict.seen}"


def _broken(bare, hooked):
    """What passed and does not, or fails and did not."""
    lost = [test for test, outcome in bare.items() if outcome == "passed" and hooked.get(test) != "passed"]
    return lost + [test for test, outcome in hooked.items() if outcome == "failed" and bare.get(test) == "skipped"]


def _environment(folder, *, hooked):
    """Make an environment that has our packages; gives its Python."""
    venv.create(folder, symlinks=True)
    lines = [f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})", str(INSIDE)]
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "foreign.pth").write_text("\n".join([*lines, *["import foreign_door"] * hooked]) + "\n")
    return str(python)


def _end_of(printed):
    """Where an interpreter crashed, or else the last words."""
    crash = printed.rfind("Fatal Python error")
    return printed[crash:][:3000] if crash >= 0 else printed[-3000:]


def _outcomes(output):
    """By test: failed when any part of it did."""
    file = output / "outcomes.jsonl"
    outcomes = {}
    for test, outcome in map(json.loads, file.read_text().splitlines() if file.exists() else ()):
        if outcomes.get(test) != "failed":
            outcomes[test] = outcome
    return outcomes


def _seen(output):
    seen, faults = Counter(), Counter()
    for file in output.glob("seen-*.json"):
        counts = json.loads(file.read_text())
        faults.update(counts.pop("faults"))
        seen.update(counts)
    return seen, faults


def _source(project):
    """The unpacked source archive of the version that is installed here."""
    folder = CACHE / f"{project}-{version(project)}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{project}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as made:
                _download(project, Path(made))
                next(path for path in Path(made).iterdir() if path.is_dir()).rename(folder)
    return folder


def _download(project, folder):
    wanted = ("--retries", "1", "--no-deps", "--no-binary", project, f"{project}=={version(project)}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        _missing(f"the source archive of {project} {version(project)} cannot be had: {done.stderr[-500:]}")
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")


def _missing(what):
    """What is not there skips the test on a laptop and fails it in CI."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def by_pytest(project, *options, name=None, **facts):
    """A project's tests that pytest runs."""
    return Suite(name or project, version(project), _source(project), (*PYTEST, *options), **facts)


def by_django(name, **facts):
    """Django's tests, which have a runner of their own."""
    command = ("runtests.py", "--settings=foreign_django", "--parallel=1", "--noinput", "--verbosity=0")
    return Suite(name, version("django"), _source("django") / "tests", command, **facts)


def by_cpython(name, **facts):
    """Tests that come with the interpreter: a package of them, or a module."""
    try:
        found = importlib.util.find_spec(f"test.{name}")
    except ModuleNotFoundError:
        found = None
    if found is None:
        _missing(f"this Python came without its own tests: no test.{name}. One built from source has them (pyenv)")
    return Suite(f"CPython {name}", platform.python_version(), Path(found.origin).parent, PYTEST, **facts)
