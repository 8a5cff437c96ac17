from __future__ import annotations

import json

import pytest

from perf_middleware.cli import main
from perf_middleware.record import Finding, Profile, Query
from perf_middleware.sinks.rolling import Rolling

FINDING = Finding(
    finding_id="id",
    kind="n_plus_one",
    severity="high",
    confidence="high",
    threshold="n_plus_one: 27 >= 5",
    title="27 queries of one shape",
    fingerprint="select ?",
    caller="shop/views.py:42 in orders",
    count=27,
    total_ms=40.0,
    wasted_ms=39.0,
    recommendation="Load them at once.",
)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/stats.sqlite3"


@pytest.fixture
def record(url):
    sinks = []

    def record(*profiles, service="shop"):
        sink = Rolling(url, service=service)
        sinks.append(sink)
        for profile in profiles:
            sink(profile)
        assert sink.flush(10)

    yield record
    for sink in sinks:
        sink.close()


@pytest.fixture
def orders():
    query = Query(fingerprint="select ? from users", duration_ms=1.5, caller="shop/views.py:42 in orders")
    return Profile(
        name="GET /orders/{id}", duration_ms=50.0, db_ms=40.5, query_count=27, queries=[query] * 27, findings=[FINDING]
    )


def test_a_missing_file_is_the_users_mistake_and_is_not_made(url, tmp_path, capsys):
    assert main(["report", "--store", url]) == 2
    assert "no stats file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_default_is_the_file_of_run_in_this_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERF_MIDDLEWARE_STORE", raising=False)
    assert main(["report"]) == 2
    assert "no stats file .perf-middleware/stats.sqlite3" in capsys.readouterr().err


@pytest.mark.parametrize("store", ["memory://", "mysql://host", "redis://127.0.0.1:1"])
def test_a_store_that_cannot_be_read_is_one_line_on_stderr(store, capsys):
    assert main(["report", "--store", store]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("span", ["", "0s", "1", "h", "-1h", "1w", "9999d", "1.5h"])
def test_a_span_that_is_none_is_refused_with_what_is_accepted(span, capsys):
    assert main(["report", f"--window={span}"]) == 2
    assert "90s, 15m, 1h or 7d" in capsys.readouterr().err


def test_a_window_without_requests_says_so(url, record, capsys):
    record(Profile(name="GET /x"))
    assert main(["report", "--store", url, "--service", "nobody"]) == 0
    out = capsys.readouterr().out
    assert "no requests in this window" in out
    assert "shop" in out


def test_few_requests_have_no_percentiles(url, record, orders, capsys):
    record(orders)
    assert main(["report", "--store", url]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "n<20 n<100 n<500" in out
    assert "n too small" in out
    assert "50.0" not in out.partition("Findings")[0]


def test_the_screen_tells_route_finding_line_fix_and_query(url, record, orders, capsys):
    record(*[orders] * 100, Profile(name="nightly", kind="job", duration_ms=5.0))
    assert main(["report", "--store", url, "--window", "15m"]) == 0
    out = capsys.readouterr().out
    told = " ".join(out.split())
    for piece in (
        "shop: 101 profiles from",
        "GET /orders/{id} 100",
        "81%",
        "nightly (job) 1",
        "high n_plus_one: 27 queries of one shape shop/views.py:42 in orders Load them at once.",
        "in 100 of 100, 2,700 queries concerned, 4,000.0 ms in all",
        "4,050.0 ms 2,700 times select ? from users shop/views.py:42 in orders",
    ):
        assert piece in told
    assert max(map(len, out.splitlines())) <= 80


def test_control_characters_of_a_store_do_not_reach_the_terminal(url, record, capsys):
    record(Profile(name="GET /\x1b[31m", queries=[Query(fingerprint="\x1b]0;x\x07")]))
    main(["report", "--store", url])
    assert "\x1b" not in capsys.readouterr().out


def test_json_is_one_object_with_every_route(url, record, orders, capsys):
    record(orders, *(Profile(name=f"GET /{number}") for number in range(30)))
    assert main(["report", "--store", url, "--format", "json", "--limit", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1
    assert told["n"] == 31
    assert len(told["routes"]) == 31
    (route,) = (route for route in told["routes"] if route["findings"])
    assert route["p50_ms"] is None
    assert route["findings"][0]["caller"] == "shop/views.py:42 in orders"
    assert told["to_s"] - told["from_s"] >= told["window_s"] == 3600


@pytest.mark.parametrize(("severity", "code"), [("low", 1), ("high", 1), ("critical", 0)])
def test_fail_on_decides_by_severity_alone(url, record, orders, severity, code):
    record(orders)
    for form in ("text", "json"):
        assert main(["report", "--store", url, "--format", form, "--fail-on", severity]) == code


def test_a_password_is_not_printed(valkey_url, capsys):
    assert main(["report", "--store", valkey_url.replace("redis://", "redis://default@"), "--service", "nobody"]) == 0
    assert "default" not in capsys.readouterr().out


def test_several_services_are_named(url, record, capsys):
    record(Profile(name="GET /x"))
    record(Profile(name="GET /x"), service="admin")
    main(["report", "--store", url])
    out = capsys.readouterr().out
    assert "admin: GET /x" in out
    assert "shop: GET /x" in out
