"""The one file that knows the order: collect, detect, sink.

Doors call `begin`, `answer` (at the first byte) and `finish`. Nothing raised here reaches the application.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from contextvars import copy_context
from datetime import UTC, datetime
from functools import lru_cache
from random import Random
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from perf_middleware import collector, detectors, headers
from perf_middleware.collector.context import NOTHING, SUPPRESSED, Capture, current
from perf_middleware.collector.rows import Live
from perf_middleware.errors import OptionError, fault
from perf_middleware.guard import Guard
from perf_middleware.record import Profile
from perf_middleware.settings import HEADER_LEVELS, Settings, check_names, load
from perf_middleware.sinks.log import Log, is_unusual
from perf_middleware.sinks.rolling import Rolling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perf_middleware.collector.rows import Reading
    from perf_middleware.record import Shed

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"))
UNMATCHED = "(unmatched)"
OTHER = "(other)"

#: Our own generator, so that seeding or reading the application's is never disturbed.
_chance = Random()  # noqa: S311

#: Ids for the next profiles: made many at a time they cost less. A child of a fork makes its own.
_ids: list[str] = []
IDS_AT_ONCE = 64


def _after_fork() -> None:
    _chance.seed()
    _ids.clear()


os.register_at_fork(after_in_child=_after_fork)

#: What `configure` made last, in a tuple: None within it when that was switched off.
_chosen: tuple[Pipeline | None] | None = None
_choosing = threading.Lock()


class Pipeline:
    """What one configuration does with every profile.

    Raises:
        OptionError: When constructed with names of detectors or drivers that nobody has, or a bad store URL.

    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._plan = detectors.plan(settings.detectors, settings.thresholds)
        check_names("drivers", settings.drivers or (), collector.known())
        self.rolling = Rolling(
            settings.store,
            service=settings.service,
            flush_interval_s=settings.flush_interval_s,
            max_routes=settings.max_routes,
            prefix=settings.redis_prefix,
        )
        self.sinks = list(settings.sinks)
        self._wants_rows = bool(self.sinks) or settings.jsonl is not None or detectors.want_rows(settings.detectors)
        if settings.jsonl is not None:
            from perf_middleware.sinks.jsonl import Jsonl  # noqa: PLC0415 - it brings pathlib and urllib

            self.sinks.insert(0, Jsonl(settings.jsonl))
        if settings.log:
            log = Log(names=settings.log_names, sample_rate=settings.log_sample_rate, slow_ms=settings.slow_request_ms)
            self.sinks.insert(0, log)
        self.guard = Guard(
            settings.max_overhead_percent, service=settings.service, can_shed=_can_shed(settings), chance=_chance
        )
        self._level = None if callable(settings.headers) else settings.headers
        self._names: set[str] = set()
        self._abandoned: deque[Capture] = deque()
        _pipelines.add(self)
        self._drivers = collector.known() if settings.drivers is None else settings.drivers
        if self._drivers:
            collector.install(*self._drivers)

    def close(self) -> None:
        """Send what is left to the store and unhook the drivers."""
        self.finish_abandoned()
        self.rolling.close()
        if self._drivers:
            collector.uninstall(*self._drivers)
            self._drivers = ()
        global _chosen  # noqa: PLW0603
        if _chosen == (self,):
            _chosen = None

    def begin(
        self,
        kind: str,
        *,
        name: str = "",
        method: str | None = None,
        headers_in: Mapping[str, str | None] | None = None,
    ) -> Capture | None:
        """Open a profile; None when that failed, and for what a sink does.

        `headers_in` are the request's own ids by lower-case header name.
        """
        if self._abandoned:
            self.finish_abandoned()
        try:
            return self._begin(kind, name, method, headers_in or {})
        except Exception as error:  # noqa: BLE001 - never the application's problem
            fault("begin", error)
            return None

    def answer(self, capture: Capture, request: Mapping[str, Any], status: int | None) -> list[tuple[str, str]]:
        """Mark the first byte, and give the headers that tell what is known by then."""
        now_ns = perf_counter_ns()
        try:
            profile = capture.profile
            if profile is None or capture.first_byte_ns is not None:
                return []
            profile.status = status
            level = self._level or self._asked_level(request)
            if level == "off":
                return []
            reading = capture.read()
            if reading is not NOTHING:
                self._count(profile, reading, capture)
            if level == "full" and (reading is not NOTHING or self._wants_rows):
                profile.duration_ms = (now_ns - capture.start_ns) / 1e6  # until now: a finding's share of it counts
                self._detect(capture, profile, reading)
            read_ns = perf_counter_ns()
            capture.own_ns += read_ns - now_ns
            profile.own_ms = capture.own_ns / 1e6
            pairs = headers.render(profile, level, (now_ns - capture.start_ns) / 1e6)
            if capture.watcher is not None:
                capture.headers_ns = perf_counter_ns() - read_ns
            return pairs  # noqa: TRY300 - one way through
        except Exception as error:  # noqa: BLE001
            fault("answer", error)
            return []
        finally:
            capture.first_byte_ns = capture.first_byte_ns or now_ns

    def finish(
        self,
        capture: Capture,
        *,
        status: int | None = None,
        error: BaseException | None = None,
        truncated: bool = False,
    ) -> None:
        """Close the profile, detect, and hand it to the sinks; a second call does nothing."""
        if self._abandoned:
            self.finish_abandoned()
        try:
            self._finish(capture, status, error, truncated=truncated)
        except Exception as ours:  # noqa: BLE001
            fault("finish", ours)

    def abandon(self, capture: Capture, *, status: int | None = None, error: BaseException | None = None) -> None:
        """End a profile that nobody closed; the next one to begin or to end finishes it.

        The garbage collector may be calling, which comes in the middle of anything: under a lock of ours or of a
        sink's, or (up to CPython 3.11) while a context variable of this very context is being set.
        """
        profile = capture.profile
        if profile is not None:
            capture.last_byte_ns = capture.last_byte_ns or perf_counter_ns()
            profile.status = status if status is not None else profile.status
            profile.error = None if error is None else type(error).__name__
            self._abandoned.append(capture)

    def finish_abandoned(self) -> None:
        """Finish what was abandoned until now."""
        while self._abandoned:
            try:
                capture = self._abandoned.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                self._finish(capture, None, None, truncated=False)
            except Exception as ours:  # noqa: BLE001
                fault("finish", ours)

    def is_overdue(self, capture: Capture) -> bool:
        """Whether an open profile has lasted longer than `max_duration_s`."""
        return perf_counter_ns() - capture.start_ns > self.settings.max_duration_s * 1e9

    def _asked_level(self, request: Mapping[str, Any]) -> str:
        """How much this response may tell, as a function of the user's says; it is checked like the option."""
        function: Any = self.settings.headers
        level = function(request)
        if isinstance(level, bool):
            level = "timing" if level else "off"
        if level not in HEADER_LEVELS:
            raise OptionError(f"headers: the function returned {type(level).__name__}, not one of {HEADER_LEVELS}")
        return str(level)

    def _begin(self, kind: str, name: str, method: str | None, headers_in: Mapping[str, str | None]) -> Capture | None:
        start_ns = perf_counter_ns()
        settings = self.settings
        parent = current.get()
        if parent is SUPPRESSED:
            return None
        around = parent.profile if parent is not None else None
        guard, watched, callers = self.guard, False, settings.capture_callers
        if parent is None or around is None:
            parent = None
            sampled = settings.sample_rate >= 1.0 or _chance.random() < settings.sample_rate
            weight = 1.0 / settings.sample_rate if sampled else 1.0
            guard.until_watched -= 1
            watched = guard.until_watched <= 0
            shed = guard.begin(start_ns) if watched else guard.shed
            detailed, callers = sampled and shed != "rows", callers and shed is None
        else:
            shed, sampled, weight = around.shed, True, around.weight
            detailed, callers = parent.detailed, callers and parent.callers
        try:
            id_ = _ids.pop()
        except IndexError:
            id_ = _new_id()
        profile = Profile(
            id=id_,
            kind=kind,
            name=name,
            service=settings.service,
            method=None if method is None else method if method in METHODS else "_OTHER",
            weight=weight,
            shed=shed if sampled else None,
        )
        if headers_in:
            profile.trace_id, profile.span_id = headers.traceparent(headers_in.get("traceparent"))
            given = headers.client_id(headers_in.get("x-perf-id")) or headers.client_id(headers_in.get("x-request-id"))
            profile.id = given or profile.id
        if kind != "request" or self.sinks or self._wants_rows:
            profile.started_at = _rfc3339(time.time())
        if around is not None:
            profile.parent_id = around.id
            profile.trace_id = profile.trace_id or around.trace_id
        capture = Capture(
            profile,
            keep=settings.max_queries if detailed else 0,
            callers=callers,
            capture_sql=settings.max_sql_chars if settings.capture_sql else 0,
            parent=parent,
            owner=self,
            start_ns=start_ns,
        )
        if watched:
            guard.watch(capture, shed)
        capture.own_ns = perf_counter_ns() - start_ns
        return capture

    @staticmethod
    def _count(profile: Profile, reading: Reading, capture: Capture) -> None:
        profile.query_count = reading.query_count
        profile.db_ms = reading.db_s * 1e3
        profile.db_sum_ms = reading.db_sum_s * 1e3
        if not reading.plain:
            profile.fetch_ms = reading.fetch_ms
        if capture.waited_ns is not None:
            profile.wait_ms = capture.waited_ns / 1e6

    def _detect(self, capture: Capture, profile: Profile, reading: Reading) -> None:
        """Look for findings; again only if queries were added."""
        profile.__dict__["by_fingerprint"] = reading.runs
        if reading.folded:
            profile.folded = list(reading.folded.values())
        if self._wants_rows:
            profile.queries = reading.queries(capture)
        if not capture.keep or capture.detected == reading.query_count:
            return
        capture.detected = reading.query_count
        profile.__dict__["live"] = Live(reading, capture, profile.duration_ms)
        try:
            profile.findings = detectors.find(profile, self._plan)
        except Exception as error:  # noqa: BLE001 - what was measured is still told
            fault("analyze", error)
        del profile.__dict__["live"]

    def _finish(  # noqa: C901 - each part would be a call more of every request
        self, capture: Capture, status: int | None, error: BaseException | None, *, truncated: bool
    ) -> None:
        profile = capture.profile
        if profile is None:
            return
        end_ns = perf_counter_ns()
        profile.duration_ms = ((capture.last_byte_ns or end_ns) - capture.start_ns) / 1e6
        if capture.first_byte_ns is not None:
            profile.first_byte_ms = (capture.first_byte_ns - capture.start_ns) / 1e6
        if status is not None and status != profile.status:
            profile.status = status
        if error is not None:
            profile.error = type(error).__name__
        if profile.kind == "request":
            route = capture.route
            if route is not None:
                profile.route = route
            name = f"{profile.method} {route or UNMATCHED}"
            profile.name = name if name in self._names else self._bounded(name)
        parent, reading = capture.parent, capture.close()
        if reading is not NOTHING or self._wants_rows:  # our own detectors ask about queries only
            self._count(profile, reading, capture)
            self._detect(capture, profile, reading)
        if self._wants_rows or profile.kind != "request":
            profile.queries = reading.queries(capture)
            profile.transactions = reading.transactions(end_ns / 1e9)
            profile.by_verb, profile.by_table = reading.by_verb_and_table()
        if truncated or (profile.folded and capture.keep):
            profile.truncated = True
        profile.own_ms = (capture.own_ns + perf_counter_ns() - end_ns) / 1e6
        self.rolling.record(profile)
        if self.sinks:
            self._emit(capture, profile)
        if parent is not None:
            parent.own_ns += capture.own_ns + perf_counter_ns() - end_ns
        elif capture.watcher is not None:
            now_ns = perf_counter_ns()
            self.guard.observe(capture, profile, capture.own_ns + capture.headers_ns + now_ns - end_ns, now_ns)

    def _emit(self, capture: Capture, profile: Profile) -> None:
        """Stats have seen every profile; the other sinks those that sampling kept, and all slow or failed ones.

        What was shed of a profile is missing from it, and the profile is handed over all the same.
        """
        unusual = is_unusual(profile, self.settings.slow_request_ms)
        if unusual:
            profile.weight = 1.0
        if unusual or capture.keep or profile.shed:
            copy_context().run(self._hand_over, profile)

    def _hand_over(self, profile: Profile) -> None:
        current.set(SUPPRESSED)  # queries of a sink are nobody's, and its blocks no profiles
        for sink in self.sinks:
            self._sink(sink, profile)

    @staticmethod
    def _sink(sink: Any, profile: Profile) -> None:
        try:
            sink(profile)
        except Exception as error:  # noqa: BLE001
            fault(f"sink {getattr(sink, '__name__', type(sink).__name__)}", error)

    def _bounded(self, name: str) -> str:
        """A name that is new, while there is room for it."""
        if len(self._names) >= self.settings.max_routes:
            return OTHER
        self._names.add(name)
        return name


def _can_shed(settings: Settings) -> tuple[Shed, ...]:
    """What these options leave to be shed."""
    if not settings.sample_rate:
        return ()
    return ("callers", "rows") if settings.capture_callers else ("rows",)


def _new_id() -> str:
    """One more id of 16 hexadecimal digits, with others for later."""
    digits = _chance.randbytes(8 * IDS_AT_ONCE).hex()
    ids = [digits[at : at + 16] for at in range(0, len(digits), 16)]
    first = ids.pop()
    _ids.extend(ids)
    return first


#: Those of this process, for its end and for `doctor`.
_pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()


def pipelines() -> list[Pipeline]:
    """Those of this process, also closed ones that something still refers to."""
    return list(_pipelines)


@atexit.register  # before the stores flush, which have registered themselves before
def _finish_all_abandoned() -> None:
    for pipeline in pipelines():
        pipeline.finish_abandoned()


def _rfc3339(at_s: float) -> str:
    second, ms = divmod(int(at_s * 1000), 1000)
    return f"{_to_the_second(second)}.{ms:03d}Z"


@lru_cache(maxsize=2)
def _to_the_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def configure(settings: Settings) -> Pipeline | None:
    """The pipeline of a door, None when it is switched off; from now on blocks report to it too."""
    global _chosen  # noqa: PLW0603 - a block has no other way to the options of the application it runs in
    pipeline = Pipeline(settings) if settings.enabled else None
    _chosen = (pipeline,)
    return pipeline


def default() -> Pipeline | None:
    """The pipeline a block reports to: of the profile around it, else the one configured last, else the environment's.

    Raises:
        OptionError: When nothing was configured and the environment's options are not accepted.

    """
    around = current.get()
    if around is not None and around.open:
        pipeline: Pipeline = around.owner
        return pipeline
    if _chosen is None:
        with _choosing:
            return configure(load({})) if _chosen is None else _chosen[0]
    return _chosen[0]
