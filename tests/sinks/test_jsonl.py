"""The jsonl sink: whole lines, two files at most, whoever else writes to them."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from perf_middleware.errors import OptionError, RecordError
from perf_middleware.record import Profile, Query, read_jsonl
from perf_middleware.sinks.jsonl import Jsonl


def read(path):
    with path.open("rb") as file:
        return [record for _, record in read_jsonl(file)]


def write_many(path, count, rotate_bytes):
    sink = Jsonl(path, rotate_bytes=rotate_bytes)
    for number in range(count):
        sink(Profile(id=f"{os.getpid()}-{number}", name="x" * 50))


@pytest.mark.parametrize("where", ["missing/p.jsonl", "."])
def test_a_place_that_is_no_file_is_refused_at_construction(tmp_path, where):
    with pytest.raises(OptionError, match="a file in a folder that exists"):
        Jsonl(str(tmp_path / where))


def test_constructing_makes_no_file(tmp_path):
    Jsonl(str(tmp_path / "p.jsonl"))
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_readable_for_its_owner_only(tmp_path):
    path = tmp_path / "p.jsonl"
    Jsonl(str(path))(Profile())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_relative_path_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sink = Jsonl("p.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    sink(Profile(id="a"))
    assert [profile.id for profile in read(tmp_path / "p.jsonl")] == ["a"]


def test_what_was_written_is_read_back_equal(tmp_path):
    path = tmp_path / "p.jsonl"
    profiles = [Profile(id="a", name='GET /"\n', queries=[Query(fingerprint="SELECT ?")]), Profile(id="b")]
    for profile in profiles:
        Jsonl(str(path))(profile)
    assert read(path) == profiles


def test_a_full_file_is_moved_away_before_it_grows_past_the_bound(tmp_path):
    path = tmp_path / "p.jsonl"
    write_many(str(path), 100, rotate_bytes=2000)
    kept, moved = read(path), read(tmp_path / "p.jsonl.1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.jsonl", "p.jsonl.1"]
    assert path.stat().st_size <= 2000
    assert 1500 <= (tmp_path / "p.jsonl.1").stat().st_size <= 2000
    numbers = [int(profile.id.partition("-")[2]) for profile in moved + kept]
    assert numbers == list(range(numbers[0], 100))


def test_a_line_longer_than_the_bound_is_written_whole(tmp_path):
    path = tmp_path / "p.jsonl"
    sink = Jsonl(str(path), rotate_bytes=10)
    sink(Profile(id="a"))
    sink(Profile(id="b"))
    assert [[p.id for p in read(file)] for file in (path, tmp_path / "p.jsonl.1")] == [["b"], ["a"]]


def test_a_file_that_another_process_just_moved_away_is_not_moved_over(tmp_path):
    path, moved = tmp_path / "p.jsonl", tmp_path / "p.jsonl.1"
    sink = Jsonl(str(path))
    sink(Profile(id="full"))
    descriptor = os.open(path, os.O_RDONLY)
    path.rename(moved)
    sink._rotate(descriptor)
    sink(Profile(id="new"))
    sink._rotate(descriptor)
    os.close(descriptor)
    assert [[p.id for p in read(file)] for file in (path, moved)] == [["new"], ["full"]]


@pytest.mark.parametrize("rotate_bytes", [10_000_000, 20_000])
def test_threads_and_processes_tear_no_line_and_lose_none_to_a_race(tmp_path, rotate_bytes):
    path = str(tmp_path / "p.jsonl")
    context = get_context("spawn")
    processes = [context.Process(target=_write_from_threads, args=(path, rotate_bytes)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    records = [record for file in sorted(tmp_path.iterdir()) for record in read(file)]
    assert not [record for record in records if isinstance(record, RecordError)]
    if rotate_bytes > 1_000_000:
        assert len({record.id for record in records}) == 2 * 4 * 50
    else:
        assert (tmp_path / "p.jsonl.1").stat().st_size > rotate_bytes * 0.9


def _write_from_threads(path, rotate_bytes):
    sink = Jsonl(path, rotate_bytes=rotate_bytes)
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(sink, Profile(id=f"{os.getpid()}-{number}", name="x" * 100)) for number in range(200)]
    for each in done:
        each.result()
