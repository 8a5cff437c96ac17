"""The record: what is written is read back, and a bad line says what is wrong with it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.errors import RecordError
from perf_middleware.record import Finding, Folded, Profile, Query, Transaction, from_json, read_jsonl, to_json

TEXT = st.none() | st.text(max_size=20)
MS = st.floats(0, 1e9)
QUERIES = st.builds(Query, sql=TEXT, fingerprint=TEXT, start_ms=MS, duration_ms=MS, many=st.none() | st.integers(0, 99))
PROFILES = st.builds(
    Profile,
    id=st.text(max_size=20),
    name=st.text(max_size=20),
    status=st.none() | st.integers(100, 599),
    duration_ms=MS,
    weight=st.floats(1, 1000),
    queries=st.lists(QUERIES, max_size=3),
    folded=st.lists(st.builds(Folded, fingerprint=TEXT, count=st.integers(0, 9)), max_size=2),
    transactions=st.lists(st.builds(Transaction, start_ms=MS), max_size=2),
    tags=st.dictionaries(st.text(max_size=5), st.booleans() | st.integers(-9, 9), max_size=2),
)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"7",
        b"[]",
        b'{"duration_ms": "long"}',
        b'{"queries": 7}',
        b'{"queries": [7]}',
        b'{"findings": [{}]}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_record_is_an_error_of_its_own(line):
    with pytest.raises(RecordError):
        from_json(line)


def test_an_error_says_where():
    with pytest.raises(RecordError, match=r"queries\[1\]\.start_ms"):
        from_json(b'{"queries": [{}, {"start_ms": []}]}')


@given(PROFILES)
def test_what_is_written_is_read_back_equal_on_one_line(profile):
    line = to_json(profile)
    assert b"\n" not in line
    assert from_json(line) == profile


def test_null_and_absent_are_the_same_and_unknown_keys_are_ignored():
    assert from_json(b'{"id": "a", "route": null, "queries": [{"sql": null, "new": 1}], "future": {}}') == Profile(
        id="a", queries=[Query()]
    )


def test_a_bad_line_has_its_number_and_the_others_are_read():
    read = list(read_jsonl([b'{"id": "a"}\n', b"\n", b"oops\n", b'{"id": "b"}']))
    assert [number for number, _ in read] == [1, 3, 4]
    assert [type(record) for _, record in read] == [Profile, RecordError, Profile]


def test_only_numbers_and_booleans_of_the_tags_leave_the_process():
    profile = Profile()
    for name, value in {"items": 3, "ok": True, "ratio": 0.5, "customer": "Ada", "nothing": None}.items():
        profile.set(name, value)
    assert json.loads(to_json(profile))["tags"] == {"items": 3, "ok": True, "ratio": 0.5}
    assert profile.tags["customer"] == "Ada"


def test_two_profiles_share_no_list():
    Profile().queries.append(Query())
    assert Profile().queries == []


def test_slowest_is_longest_first():
    profile = Profile(queries=[Query(duration_ms=number) for number in (1, 3, 2)])
    assert [query.duration_ms for query in profile.slowest(2)] == [3, 2]


def test_by_fingerprint_groups_in_order_of_appearance():
    rows = [("b", "x"), ("a", "x"), ("b", "x"), ("b", "y")]
    profile = Profile(queries=[Query(fingerprint=fingerprint, db=db) for fingerprint, db in rows])
    groups = {key: runs.indices() for key, runs in profile.by_fingerprint.items()}
    assert list(groups.items()) == [(("b", "x"), [0, 2]), (("a", "x"), [1]), (("b", "y"), [3])]


def test_a_finding_wants_its_parts():
    with pytest.raises(TypeError):
        Finding(kind="n_plus_one")


def test_a_later_schema_is_refused_and_not_read_as_ours():
    with pytest.raises(RecordError, match="schema 2"):
        from_json(b'{"schema": 2, "id": "a"}')


def test_a_byte_order_mark_is_no_part_of_the_first_line():
    (line,) = read_jsonl([b'\xef\xbb\xbf{"id": "a"}\n'])
    assert line[1].id == "a"
