"""The log sink: one event a profile, through the user's structlog, by the schema that ships beside it."""

from __future__ import annotations

import io
import json
import random
import sqlite3
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import structlog

from perf_middleware import profile
from perf_middleware.collector import unattributed
from perf_middleware.errors import faults
from perf_middleware.record import SEVERITIES, Finding, Profile
from perf_middleware.sinks.log import LEVELS, OTEL_NAMES, Log, describe
from perf_middleware.wsgi import PerfMiddleware

SCHEMA = json.loads(files("perf_middleware.sinks").joinpath("log.schema.json").read_text())
VALID = jsonschema.Draft202012Validator(SCHEMA)
STARTED = "2026-01-01T00:00:00.000Z"


@pytest.fixture(autouse=True)
def _own_structlog():
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Stream(io.StringIO):
    """A stderr that lasts from the fixture into the test, where pytest puts its own into sys again."""

    stderr = property(lambda self: self)


@pytest.fixture
def stderr(monkeypatch):
    stream = Stream()
    monkeypatch.setattr("perf_middleware.sinks.log.sys", stream)
    return stream


def lines(stream):
    read = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in read:
        VALID.validate(line)
    return read


def finding(severity="high", caller="shop/views.py:4 in orders"):
    return Finding(
        finding_id="f1",
        kind="n_plus_one",
        severity=severity,
        confidence="high",
        threshold="",
        title="",
        fingerprint="SELECT ?",
        caller=caller,
        count=27,
    )


def done(**fields):
    given = {"id": "i", "name": "GET /a", "started_at": STARTED, "duration_ms": 2.0, "own_ms": 0.1, "status": 200}
    return Profile(**{**given, **fields})


def serve(app, **environ):
    body = app({"REQUEST_METHOD": "GET", **environ}, lambda *_: None)
    list(body)


def answer(status):
    def app(environ, start_response):
        start_response(status, [])
        return []

    return app


# What must not happen


def test_a_processor_that_raises_harms_nothing(profiled):
    def broken(logger, method, event):
        raise RuntimeError

    structlog.configure(processors=[broken])
    before = faults["sink Log: RuntimeError"]
    serve(profiled(PerfMiddleware, answer("200 OK"), log=True))
    assert len(profiled.profiles) == 1
    assert faults["sink Log: RuntimeError"] == before + 1


def test_a_processor_that_drops_is_no_fault(profiled):
    def drop(logger, method, event):
        raise structlog.DropEvent

    structlog.configure(processors=[drop])
    before = faults.total()
    serve(profiled(PerfMiddleware, answer("200 OK"), log=True))
    assert len(profiled.profiles) == 1
    assert faults.total() == before


def test_the_queries_of_a_processor_are_nobodys(profiled):
    connection = []

    def asks(logger, method, event):
        connection[0].cursor().execute("SELECT 1")
        seen.append(event["query_count"])
        raise structlog.DropEvent

    seen = []
    structlog.configure(processors=[asks])
    wrapped = profiled(PerfMiddleware, answer("200 OK"), log=True)
    connection.append(sqlite3.connect(":memory:"))
    before = unattributed.count
    serve(wrapped)
    connection[0].close()
    assert (seen, profiled.profiles[0].query_count) == ([0], 0)
    assert unattributed.count == before + 1


def test_a_closed_stderr_harms_nothing(profiled, stderr):
    stderr.close()
    serve(profiled(PerfMiddleware, answer("200 OK"), log=True))
    assert len(profiled.profiles) == 1


def test_switched_off_nothing_is_written(profiled, stderr):
    serve(profiled(PerfMiddleware, answer("200 OK"), log=False))
    assert stderr.getvalue() == ""


def test_the_applications_own_random_sequence_is_not_disturbed(stderr):
    random.seed(1)
    expected = random.random()
    random.seed(1)
    Log(sample_rate=0.5)(done())
    assert random.random() == expected


@pytest.mark.parametrize("cached", [False, True])
def test_what_the_application_configures_after_our_first_line_is_honoured(stderr, cached):
    def into(events):
        def keep(logger, method, event):
            events.append(event["event"])
            raise structlog.DropEvent

        return keep

    log, first, second = Log(), [], []
    log(done())
    structlog.configure(processors=[into(first)], cache_logger_on_first_use=cached)
    log(done())
    structlog.configure(processors=[*structlog.get_config()["processors"]])  # an equal list, and a new one
    log(done())
    structlog.get_config()["processors"].insert(0, lambda *given: given[2] | {"event": "changed in place"})
    log(done())
    structlog.configure(processors=[into(second)])
    log(done())
    with structlog.testing.capture_logs() as captured:
        log(done())
    structlog.reset_defaults()
    log(done())
    assert first == ["perf.request", "perf.request", "changed in place"]
    assert (len(second), len(captured), len(lines(stderr))) == (1, 1, 2)


def test_a_logger_is_not_kept_unless_the_application_asks_for_that():
    made = []

    def factory(*args):
        made.append(args)
        return structlog.ReturnLogger()

    log = Log()
    structlog.configure(logger_factory=factory, processors=[structlog.processors.JSONRenderer()])
    log(done())
    log(done())
    assert len(made) == 2
    structlog.configure(cache_logger_on_first_use=True)
    log(done())
    log(done())
    assert len(made) == 3


def test_texts_of_tags_are_not_written(stderr):
    tagged = done()
    tagged.set("items", 12)
    tagged.set("customer", "Ada")
    Log()(tagged)
    (line,) = lines(stderr)
    assert line["tag_items"] == 12
    assert "Ada" not in stderr.getvalue()


# Through the user's configuration, or as JSON


def test_unconfigured_it_is_one_json_object_a_line_on_stderr(profiled, stderr):
    wrapped = profiled(PerfMiddleware, answer("200 OK"), log=True, service="shop")
    serve(wrapped, HTTP_TRACEPARENT=f"00-{'a' * 32}-{'b' * 16}-01")
    serve(wrapped)
    first, second = lines(stderr)
    assert first["event"] == "perf.request"
    assert (first["level"], first["service"], first["name"]) == ("info", "shop", "GET (unmatched)")
    assert (first["trace_id"], first["span_id"]) == ("a" * 32, "b" * 16)
    assert "trace_id" not in second
    assert first["id"] != second["id"]


def test_by_default_a_request_validates_with_no_other_sink_asking(stderr):
    door = PerfMiddleware(answer("200 OK"))
    serve(door)
    door.close()
    (line,) = lines(stderr)
    assert line["event"] == "perf.request"


def test_the_stream_of_the_moment_is_written_to(monkeypatch):
    log = Log()
    for _ in range(2):
        monkeypatch.setattr("sys.stderr", stream := io.StringIO())
        log(done())
        assert len(lines(stream)) == 1


def test_the_users_configuration_and_contextvars_are_kept(profiled):
    seen = []

    def keep(logger, method, event):
        seen.append((method, dict(event)))
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])

    def app(environ, start_response):
        structlog.contextvars.bind_contextvars(tenant="t1", id="the user's")
        return answer("200 OK")(environ, start_response)

    serve(profiled(PerfMiddleware, app, log=True))
    ((method, event),) = seen
    assert method == "info"
    assert event["tenant"] == "t1"
    assert event["id"] == profiled.profiles[0].id
    assert structlog.contextvars.get_contextvars() == {"tenant": "t1", "id": "the user's"}
    VALID.validate(event)


def test_a_block_and_a_failed_request_are_events_too(profiled, stderr):
    def app(environ, start_response):
        with profile("inside"):
            pass
        raise KeyError("secret")

    with pytest.raises(KeyError):
        serve(profiled(PerfMiddleware, app, log=True))
    block, request = lines(stderr)
    assert (block["event"], block["name"], block["parent_id"]) == ("perf.block", "inside", request["id"])
    assert (request["event"], request["error"], request["status"], request["level"]) == (
        "perf.request",
        "KeyError",
        500,
        "error",
    )
    assert "secret" not in stderr.getvalue()


# Keys and levels


def test_opentelemetrys_names_replace_ours(stderr):
    Log(names="otel")(done(method="GET", route="/a", service="shop", error="KeyError", status=500))
    (line,) = lines(stderr)
    assert {line[name] for name in OTEL_NAMES.values()} == {"GET", "/a", "shop", "KeyError", 500}
    assert not OTEL_NAMES.keys() & line.keys()


@pytest.mark.parametrize("names", ["perf", "otel"])
def test_every_key_is_in_the_schema(stderr, names):
    full = done(
        service="shop",
        method="GET",
        route="/a",
        error="KeyError",
        first_byte_ms=1.0,
        fetch_ms=1.0,
        wait_ms=0.0,
        trace_id="a" * 32,
        span_id="b" * 16,
        parent_id="p",
        findings=[finding(), finding("low", caller=None)],
    )
    Log(names=names)(full)
    (line,) = lines(stderr)
    assert line.keys() <= SCHEMA["properties"].keys()
    assert line["severity"] == "high"
    assert line["findings"][0] == "n_plus_one;severity=high;count=27;id=f1;caller=shop/views.py:4 in orders"


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "perf.other"},
        {"id": "a b"},
        {"duration_ms": "2"},
        {"weight": 0},
        {"query_count": 1.5},
        {"tag_x": "text"},
        {"trace_id": "x"},
        {"severity": "high"},
    ],
)
def test_the_schema_refuses_what_is_wrong(wrong):
    line = {"event": "perf.request", **describe(done(), 1.0)}
    VALID.validate(line)
    assert not VALID.is_valid({**line, **wrong})


@pytest.mark.parametrize("key", SCHEMA["required"])
def test_the_schema_misses_what_is_missing(key):
    line = {"event": "perf.request", **describe(done(), 1.0)}
    del line[key]
    assert not VALID.is_valid(line)


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({}, "info"),
        ({"status": 499}, "info"),
        ({"status": 500}, "error"),
        ({"error": "KeyError"}, "error"),
        *(({"findings": [finding("low"), finding(severity)]}, LEVELS[severity]) for severity in SEVERITIES),
    ],
)
def test_the_level_is_by_the_worst_finding_and_failures_are_errors(stderr, fields, level):
    Log()(done(**fields))
    assert lines(stderr)[0]["level"] == level


# Thinning


@pytest.mark.parametrize(
    "fields", [{"duration_ms": 1000.0}, {"status": 500}, {"error": "KeyError"}, {"findings": [finding("low")]}]
)
def test_slow_failed_and_finding_ones_are_always_logged_with_weight_1(stderr, fields):
    Log(sample_rate=0.0)(done(**fields))
    assert lines(stderr)[0]["weight"] == 1.0


@pytest.mark.parametrize("fields", [{}, {"duration_ms": 999.9}, {"status": 499}])
def test_at_rate_0_healthy_ones_are_not_logged(stderr, fields):
    Log(sample_rate=0.0)(done(**fields))
    assert lines(stderr) == []


def test_the_weights_of_thinned_lines_add_up(stderr):
    log = Log(sample_rate=0.25)
    log._chance = random.Random(3)
    for _ in range(400):
        log(done(weight=2.0))
    weights = [line["weight"] for line in lines(stderr)]
    assert set(weights) == {8.0}
    assert 600 <= sum(weights) <= 1000


def test_the_page_about_the_log_has_every_key_and_a_line_that_validates():
    page = (Path(__file__).parents[2] / "docs" / "log.md").read_text()
    assert [key for key in (*SCHEMA["properties"], "tag_*") if f"`{key}`" not in page] == []
    VALID.validate(json.loads(page.partition("```json\n")[2].partition("\n```")[0]))


def test_the_standard_librarys_logging_takes_it_as_the_page_says(caplog):
    def rename(logger, method, event):
        event["perf_name"] = event.pop("name", None)
        return event

    structlog.configure(
        processors=[rename, structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    with caplog.at_level("INFO"):
        Log()(done())
    assert [(record.message, record.perf_name, record.query_count) for record in caplog.records] == [
        ("perf.request", "GET /a", 0)
    ]


def test_logging_that_refuses_our_key_name_still_gets_the_event(caplog):
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    with caplog.at_level("INFO"):
        Log()(Profile(id="a", name="GET /orders", started_at=STARTED))

    (line,) = [record for record in caplog.records if record.getMessage() == "perf.request"]
    assert line.profile_name == "GET /orders"
