"""The one table of options: bad input is refused at construction, in words that say what would do."""

from __future__ import annotations

import pytest

from perf_middleware.errors import OptionError
from perf_middleware.settings import FIELDS, Options, Settings, check_names, load

REFUSED = {
    "service": ["", "  ", 7, "a\nb"],
    "store": ["", None, 7],
    "headers": ["loud", None, 7, ["off"]],
    "log": ["perhaps", None, 2],
    "log_names": ["OTEL", None],
    "log_sample_rate": [-0.1, 1.1, "a", None, True, float("nan")],
    "jsonl": ["", 7],
    "sinks": ["stdout", [7], None, print],
    "detectors": [7, [7]],
    "thresholds": ["5", "[1]", {"slow_query": "fast"}, {"slow_query": -1}, 7],
    "drivers": [7],
    "sample_rate": [-0.1, 1.1, "", None],
    "max_overhead_percent": [-1, 10_001, "2%", "off", None, True, float("nan")],
    "slow_request_ms": [-1, "slow"],
    "capture_callers": ["perhaps"],
    "capture_sql": [None],
    "max_queries": [0, 1.5, "many", True],
    "max_sql_chars": [0],
    "max_routes": [-1],
    "max_duration_s": [0, float("inf")],
    "flush_interval_s": [0],
    "redis_prefix": ["", "a b", "{x}", "a" * 65],
    "enabled": [None, "perhaps"],
}


def test_every_option_is_refused_something():
    assert REFUSED.keys() == FIELDS.keys()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_a_bad_value_is_refused_with_name_and_what_is_accepted(name, value):
    with pytest.raises(OptionError) as raised:
        load({name: value}, {})
    assert str(raised.value).startswith(f"{name}: ") or name == "service"
    assert "accepted: " in str(raised.value)


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(OptionError, match=r"unknown option 'sample_raet' \(did you mean 'sample_rate'\?\); accepted: "):
        load({"sample_raet": 1}, {})


def test_an_unknown_name_in_the_environment_is_told_as_it_was_written():
    with pytest.raises(OptionError, match=r"unknown option 'PERF_MIDDLEWARE_STOER'.*'store'"):
        load({}, {"PERF_MIDDLEWARE_STOER": "memory://"})


def test_a_stores_password_is_not_told():
    with pytest.raises(OptionError) as raised:
        load({"store": "redis://:secret@h/\n"}, {})
    assert "secret" not in str(raised.value)


def test_an_error_is_a_value_error_too():
    with pytest.raises(ValueError, match="sample_rate"):
        load({"sample_rate": 7}, {})


def test_settings_do_not_change():
    with pytest.raises(AttributeError, match="immutable"):
        load({}, {}).service = "other"


def test_the_typed_keywords_are_the_table():
    assert Options.__annotations__.keys() == FIELDS.keys()


def test_defaults_are_accepted_themselves():
    assert load({name: getattr(Settings(), name) for name in FIELDS}, {}) == Settings() == load({}, {})


def test_keywords_win_over_the_environment_and_other_names_are_not_ours():
    environ = {"PERF_MIDDLEWARE_SERVICE": "env", "PERF_MIDDLEWARE_SAMPLE_RATE": "0.5", "PERF_CONFIG": "x", "PATH": "/"}
    settings = load({"service": "keyword"}, environ)
    assert (settings.service, settings.sample_rate) == ("keyword", 0.5)
    assert load({"service": None}, environ).service == "env"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("log", "off", False),
        ("log", "YES", True),
        ("detectors", "n_plus_one, slow_query", ("n_plus_one", "slow_query")),
        ("detectors", "", ()),
        ("thresholds", '{"slow_query": 500}', {"slow_query": 500.0}),
        ("max_queries", "10", 10),
        ("headers", "full", "full"),
        ("max_duration_s", "1.5", 1.5),
    ],
)
def test_the_environment_says_everything_as_text(name, text, value):
    assert getattr(load({}, {f"PERF_MIDDLEWARE_{name.upper()}": text}), name) == value


@pytest.mark.parametrize(("given", "level"), [(True, "timing"), (False, "off")])
def test_headers_take_a_boolean(given, level):
    assert load({"headers": given}, {}).headers == level


def test_names_nobody_has_are_refused():
    with pytest.raises(
        OptionError, match=r"drivers: unknown name 'pymsql' \(did you mean 'pymysql'\?\); known: pymysql"
    ):
        check_names("drivers", ["pymsql"], ["pymysql"])


def test_a_bad_value_in_the_environment_does_not_matter_where_a_keyword_says_it():
    assert load({"sample_rate": 0.5}, {"PERF_MIDDLEWARE_SAMPLE_RATE": "bad"}).sample_rate == 0.5


@pytest.mark.parametrize(("text", "level"), [("true", "timing"), ("0", "off"), ("Off", "off"), ("full", "full")])
def test_headers_of_the_environment_may_be_booleans(text, level):
    assert load({}, {"PERF_MIDDLEWARE_HEADERS": text}).headers == level


def test_an_empty_list_in_the_environment_switches_detectors_off():
    assert load({}, {"PERF_MIDDLEWARE_DETECTORS": "[]"}).detectors == ()


def test_a_service_s_name_is_bounded():
    with pytest.raises(OptionError, match="128"):
        load({"service": "x" * 129}, {})
