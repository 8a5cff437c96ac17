"""Entry points of other distributions: none is missed, wherever a distribution may lie."""

from __future__ import annotations

import sys
import zipfile
from importlib.metadata import DistributionFinder, PathDistribution

import pytest

from perf_middleware.extensions import extensions

ENTRY_POINTS = "[console_scripts]\ntheirs = theirs:main\n\n[perf_middleware.drivers]\ntheirs = theirs.driver\n"


def lay(folder, metadata="theirs-1.0.dist-info", entry_points=ENTRY_POINTS):
    """A distribution as an installer leaves it."""
    (folder / metadata).mkdir(parents=True)
    (folder / metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (folder / metadata / "entry_points.txt").write_text(entry_points)
    return folder


def names(kind="drivers"):
    return [point.name for point in extensions(kind)]


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """Nothing but what the test lays there."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def test_a_distribution_without_a_group_of_ours_brings_none(path):
    lay(path, entry_points="[console_scripts]\nperf = perf_middleware.cli:main\n")
    assert names() == []


def test_what_is_on_the_path_and_no_folder_or_not_there_brings_none(path, monkeypatch):
    (path / "broken.dist-info").touch()
    (path / "bare.dist-info").mkdir()
    (path / "library.zip").touch()
    monkeypatch.setattr(sys, "path", [str(path), str(path / "none"), str(path / "library.zip"), ""])
    assert names() == []


def test_a_group_brings_its_own_kind_only(path):
    lay(path)
    assert names("drivers") == ["theirs"]
    assert names("stores") == []


@pytest.mark.parametrize("metadata", ["theirs.egg-info", "THEIRS-1.0.DIST-INFO"])
def test_every_kind_of_metadata_is_read(path, metadata):
    lay(path, metadata)
    assert names() == ["theirs"]


def test_eggs_and_archives_on_the_path_are_read(path, monkeypatch):
    egg = lay(path / "theirs-1.0.egg", "EGG-INFO")
    monkeypatch.setattr(sys, "path", [str(egg)])
    assert names() == ["theirs"]
    lay(path / "unpacked")
    archive = path / "theirs.whl"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("theirs-1.0.dist-info/entry_points.txt", ENTRY_POINTS)
        packed.writestr("theirs-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    monkeypatch.setattr(sys, "path", [str(archive)])
    assert names() == ["theirs"]


def test_a_path_that_grows_is_looked_at_again(path, monkeypatch):
    assert names() == []
    monkeypatch.setattr(sys, "path", [*sys.path, str(lay(path / "later"))])
    assert names() == ["theirs"]


def test_a_finder_with_distributions_of_its_own_is_asked(path, monkeypatch):
    class Finder(DistributionFinder):
        def find_distributions(self, context=DistributionFinder.Context()):  # noqa: B008 - as the base class has it
            return [PathDistribution(lay(path / "elsewhere") / "theirs-1.0.dist-info")]

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert names() == ["theirs"]
