"""Response headers: bounded, ASCII, cut at entry borders; ids of clients only where they are harmless."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.headers import MAX_BYTES, append, client_id, render, traceparent
from perf_middleware.record import Finding, Profile

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TEXTS = st.text(max_size=80) | st.sampled_from(["\r\nSet-Cookie: x", "é", "\x00", "a" * 600])


def finding(kind="n_plus_one", severity="high", count=27):
    return Finding(
        finding_id="f",
        kind=kind,
        severity=severity,
        confidence="high",
        threshold="",
        title="",
        fingerprint="",
        count=count,
    )


def size(pairs):
    return sum(len(name) + len(value) + len(": \r\n") for name, value in pairs)


@pytest.mark.parametrize("value", ["", "a b", "a\n", "a\r\nb", "a" * 65, "é", "\xff", "a/b", "a;b", "<b>", None])
def test_an_id_that_could_harm_is_none(value):
    assert client_id(value) is None


@pytest.mark.parametrize("value", ["a", "a" * 64, "A-b_c.9"])
def test_an_id_that_cannot_is_taken(value):
    assert client_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f"01-{TRACE}-{SPAN}-01more",
    ],
)
def test_a_traceparent_against_the_rules_is_none(value):
    assert traceparent(value) == (None, None)


@pytest.mark.parametrize("value", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"01-{TRACE}-{SPAN}-01-more"])
def test_a_traceparent_gives_trace_and_span(value):
    assert traceparent(value) == (TRACE, SPAN)


def test_off_tells_nothing():
    assert render(Profile(id="i", findings=[finding()]), "off", 1.0) == []


def test_timing_tells_counts_and_times_but_no_findings():
    profile = Profile(id="i", query_count=12, db_ms=45.625, own_ms=0.25, findings=[finding()])
    assert render(profile, "timing", 123.4) == [
        ("Server-Timing", 'total;dur=123.4, db;dur=45.6;desc="12 queries", app;dur=77.8, perf;dur=0.250'),
        ("X-Perf-Id", "i"),
        ("X-Perf-Queries", "12"),
        ("X-Perf-Query-Time", "45.625"),
    ]


def test_full_adds_the_findings():
    profile = Profile(id="i", query_count=1, findings=[finding(), finding("slow_query", "low", 1)])
    pairs = dict(render(profile, "full", 1.0))
    assert 'desc="1 query"' in pairs["Server-Timing"]
    assert pairs["X-Perf-Findings"] == "n_plus_one;severity=high;count=27, slow_query;severity=low;count=1"


def test_findings_are_cut_at_an_entry_border():
    profile = Profile(id="a" * 64, findings=[finding(count=number) for number in range(100)])
    pairs = render(profile, "full", 1.0)
    assert size(pairs) <= MAX_BYTES
    entries = pairs[-1][1].split(", ")
    assert 3 < len(entries) < 100
    assert entries == [f"n_plus_one;severity=high;count={number}" for number in range(len(entries))]


@given(
    texts=st.lists(TEXTS, max_size=12),
    route=TEXTS,
    count=st.integers(0, 10**9),
    elapsed_ms=st.floats(0, 1e9),
    db_ms=st.floats(0, 1e9),
)
def test_no_route_and_no_finding_breaks_the_bounds(texts, route, count, elapsed_ms, db_ms):
    found = [finding(kind=text, severity=text) for text in texts]
    profile = Profile(id="a" * 64, route=route, name=route, query_count=count, db_ms=db_ms, findings=found)
    pairs = render(profile, "full", elapsed_ms)
    assert size(pairs) <= MAX_BYTES
    for name, value in pairs:
        assert (name + value).isascii()
        assert (name + value).isprintable()


OURS = [("Server-Timing", "total;dur=1"), ("X-Perf-Id", "i")]


def test_without_one_of_the_applications_ours_is_added():
    assert append([("Vary", "a")], OURS, separator=", ") == [("Vary", "a"), *OURS]


@pytest.mark.parametrize("name", ["Server-Timing", "server-timing", "SERVER-TIMING"])
def test_ours_goes_to_the_end_of_the_applications_first_one(name):
    theirs = [(name, "a;dur=1"), ("server-timing", "b")]
    assert append(theirs, OURS, separator=", ") == [(name, "a;dur=1, total;dur=1"), ("server-timing", "b"), OURS[1]]
    assert theirs[0] == (name, "a;dur=1")


def test_an_empty_one_is_replaced():
    assert append([("Server-Timing", " ")], OURS, separator=", ") == OURS


@given(st.lists(st.tuples(st.binary(), st.binary())))
def test_the_applications_bytes_stay_as_they_are(theirs):
    ours = [(b"server-timing", b"total;dur=1")]
    assert append([(b"x" + name, value) for name, value in theirs], ours, separator=b", ") == [
        *((b"x" + name, value) for name, value in theirs),
        *ours,
    ]


def test_fetching_and_waiting_are_told_only_above_zero():
    assert "db-fetch" not in render(Profile(query_count=1, fetch_ms=0.0, wait_ms=None), "timing", 1.0)[0][1]
    timing = render(Profile(query_count=1, fetch_ms=0.25, wait_ms=3.5), "timing", 9.0)[0][1]
    assert timing.endswith(", db-fetch;dur=0.250, db-wait;dur=3.500")
