"""The one typed table of options: keywords and `PERF_MIDDLEWARE_<OPTION>` both end here.

A keyword wins over the environment. An option that does not exist, or a value that is not accepted, is an
error when the middleware is constructed: it names option, value, what is accepted and the nearest name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, TypeVar

import msgspec

from perf_middleware.errors import OptionError
from perf_middleware.record import Profile

T = TypeVar("T")

MAX_NAME_CHARS = 128

ENVIRONMENT_PREFIX = "PERF_MIDDLEWARE_"

#: A sink is any callable that takes a finished profile.
Sink = Callable[[Profile], object]

#: How much a response may tell: "off", "timing", "full", or a function of the request (WSGI environ or
#: ASGI scope) that returns one of the three.
HeadersOption = str | Callable[[Mapping[str, Any]], str]


class RejectedError(Exception):
    """Raised by a parser with what it accepts."""


def _text(value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value
    raise RejectedError("a non-empty printable text")


def _name(value: object) -> str:
    if isinstance(value, str) and len(value) <= MAX_NAME_CHARS:
        return _text(value)
    raise RejectedError(f"a printable text of 1 to {MAX_NAME_CHARS} characters")


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise RejectedError("true or false (also 1/0, yes/no, on/off)")


_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _number(value: object, low: float, high: float, accepted: str) -> float:
    if isinstance(value, bool):
        raise RejectedError(accepted)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise RejectedError(accepted) from None
    if not low <= number <= high:
        raise RejectedError(accepted)
    return number


def _rate(value: object) -> float:
    return _number(value, 0.0, 1.0, "a number from 0 to 1")


def _seconds(value: object) -> float:
    return _number(value, 0.01, 86_400.0, "seconds, from 0.01 to 86400")


def _interval(value: object) -> float:
    return _number(value, 0.01, 60.0, "seconds, from 0.01 to 60")


def _milliseconds(value: object) -> float:
    return _number(value, 0.0, 86_400_000.0, "milliseconds, from 0 to 86400000")


def _percent(value: object) -> float:
    return _number(value, 0.0, 10_000.0, "a percentage from 0 (never) to 10000")


def _count(value: object) -> int:
    number = _number(value, 1, 10_000_000, "a whole number from 1 to 10000000")
    if number != int(number):
        raise RejectedError("a whole number from 1 to 10000000")
    return int(number)


def _names(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return tuple(name.strip() for name in value.strip("[]").split(",") if name.strip())
    if isinstance(value, Sequence) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise RejectedError("a list of names (comma-separated in the environment); an empty one switches them off")


def _thresholds(value: object) -> Mapping[str, float] | None:
    if value is None:
        return None
    accepted = 'numbers by finding kind, such as {"n_plus_one": 5, "slow_query": 500} (JSON in the environment)'
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (ValueError, RecursionError):
            raise RejectedError(accepted) from None
    if not isinstance(value, Mapping):
        raise RejectedError(accepted)
    return {str(kind): _number(number, 0, float("inf"), accepted) for kind, number in value.items()}


def _headers(value: object) -> HeadersOption:
    if callable(value):
        return value
    if isinstance(value, str):
        value = _BOOLEANS.get(value.lower(), value)
    if isinstance(value, bool):
        return "timing" if value else "off"
    if value in HEADER_LEVELS:
        return str(value)
    raise RejectedError(f"{', '.join(HEADER_LEVELS)}, a boolean, or a function of the request that returns one of them")


HEADER_LEVELS = ("off", "timing", "full")
DEFAULT_HEADERS: HeadersOption = "timing"


def _log_names(value: object) -> str:
    if value in ("perf", "otel"):
        return str(value)
    raise RejectedError("perf or otel")


def _sinks(value: object) -> tuple[Sink, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str) and all(callable(sink) for sink in value):
        return tuple(value)
    raise RejectedError("a list of callables that take a profile")


def _prefix(value: object) -> str:
    if isinstance(value, str) and value and len(value) <= 64 and all(c.isalnum() or c in "._-" for c in value):  # noqa: PLR2004
        return value
    raise RejectedError("1 to 64 letters, digits, dots, underscores or dashes")


class Option(NamedTuple):
    """One row of the table."""

    default: Any
    parse: Callable[[Any], Any]
    meaning: str


_rows: list[Option] = []


def option(default: T, parse: Callable[[Any], T], meaning: str) -> T:
    """Add a row to the table."""
    _rows.append(Option(default, parse, meaning))
    return default


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every option, with its default and its meaning; the README's table is tested equal to this one."""

    service: str = option("app", _name, "Name the stats and log lines are kept under.")
    store: str = option(
        "memory://", _text, "Where rolling stats go: `memory://` (this process only), `sqlite:///PATH`, `redis://HOST`."
    )
    headers: HeadersOption = option(
        DEFAULT_HEADERS, _headers, "What a response tells: `off`, `timing`, `full`, or a function of the request."
    )
    log: bool = option(True, _boolean, "Write one structlog event a request.")
    log_names: str = option("perf", _log_names, "Names of the log's keys: `perf` as in the record, or `otel`.")
    log_sample_rate: float = option(
        1.0, _rate, "Share of healthy requests logged; slow, failed and finding ones always are."
    )
    jsonl: str | None = option(None, _optional_text, "File that every profile is appended to, one JSON object a line.")
    sinks: tuple[Sink, ...] = option((), _sinks, "Further sinks: callables that take a finished profile.")
    detectors: tuple[str, ...] | None = option(None, _names, "Detectors to run; all when absent, `[]` for none.")
    thresholds: Mapping[str, float] | None = option(
        None, _thresholds, "Thresholds by finding kind, where a detector's default does not fit."
    )
    drivers: tuple[str, ...] | None = option(None, _names, "Database drivers to hook; all known when absent.")
    sample_rate: float = option(
        1.0, _rate, "Share of requests whose query rows are kept; counts and times are exact for all."
    )
    max_overhead_percent: float = option(
        2.0,
        _percent,
        "Own cost, in percent of the application's time, above which callers, then rows are shed; 0: never.",
    )
    slow_request_ms: float = option(
        1000.0, _milliseconds, "From this duration on a request is always logged, sampled or not."
    )
    capture_callers: bool = option(True, _boolean, "Note the application's file and line for each query.")
    capture_sql: bool = option(False, _boolean, "Write statements with their literals into the record.")
    max_queries: int = option(2000, _count, "Queries kept in detail per profile; beyond it exact counters are.")
    max_sql_chars: int = option(10_000, _count, "Characters of a statement kept with `capture_sql`.")
    max_routes: int = option(1000, _count, "Names a process reports; beyond it `(other)`.")
    max_duration_s: float = option(300.0, _seconds, "A response that streams longer is finished as truncated.")
    flush_interval_s: float = option(5.0, _interval, "How often a process sends its stats to the store.")
    redis_prefix: str = option("pm1", _prefix, "Prefix of every Redis key.")
    enabled: bool = option(True, _boolean, "`False` patches nothing and costs nothing.")


# PEP 692 needs the names spelled once more for type checkers; a test holds the two equal.
class Options(TypedDict, total=False):
    """The keywords of `PerfMiddleware`."""

    service: str | None
    store: str
    headers: HeadersOption | bool
    log: bool
    log_names: str
    log_sample_rate: float
    jsonl: str | None
    sinks: Sequence[Sink]
    detectors: Sequence[str] | None
    thresholds: Mapping[str, float] | None
    drivers: Sequence[str] | None
    sample_rate: float
    max_overhead_percent: float
    slow_request_ms: float
    capture_callers: bool
    capture_sql: bool
    max_queries: int
    max_sql_chars: int
    max_routes: int
    max_duration_s: float
    flush_interval_s: float
    redis_prefix: str
    enabled: bool


FIELDS = dict(zip(Settings.__struct_fields__, _rows, strict=True))


def load(options: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from keywords over the environment over the defaults.

    Raises:
        OptionError: For an unknown option or a value that is not accepted.

    """
    environ = os.environ if environ is None else environ
    options = {name: value for name, value in options.items() if not (name == "service" and value is None)}
    given: dict[str, Any] = {}
    for name, value in environ.items():
        key = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name.startswith(ENVIRONMENT_PREFIX) and key not in options:
            given[key] = _parse(key, value, shown=name)
    for name, value in options.items():
        given[name] = _parse(name, value, shown=name)
    return Settings(**given)


def check_names(option_name: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a detector, driver or other plug-in that nobody has.

    Raises:
        OptionError: Naming the option, the name, those known and the nearest.

    """
    for name in names:
        if name not in known:
            raise OptionError(f"{option_name}: unknown name {name!r}{_nearest(name, known)}; known: {', '.join(known)}")


def _parse(name: str, value: object, *, shown: str) -> object:
    field = FIELDS.get(name)
    if field is None:
        raise OptionError(f"unknown option {shown!r}{_nearest(name, list(FIELDS))}; accepted: {', '.join(FIELDS)}")
    try:
        return field.parse(value)
    except RejectedError as rejected:
        shown_value = "a URL" if name == "store" else f"{value!r:.80}"
        raise OptionError(f"{shown}: {shown_value} is not accepted; accepted: {rejected}") from None


def _nearest(name: str, known: Sequence[str]) -> str:
    import difflib  # noqa: PLC0415 - only for a mistake

    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""
