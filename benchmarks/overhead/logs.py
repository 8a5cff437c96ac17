"""The price of a log line: a structlog pipeline as an application has one, called by us and called directly."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from benchmarks.overhead import ours
from benchmarks.overhead.doors import server
from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable


def wrap(door: str, build: Callable[[], Any]) -> Tool:
    """Ours with its log on."""
    configure()
    return ours.wrap(door, build, log=True)


def direct(door: str, build: Callable[[], Any]) -> Tool:
    """The bare application, which makes one call itself: with the keys that ours would log."""
    event = _event(door, build)
    configure()
    inner = build()
    log = structlog.get_logger()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        body = inner(environ, start_response)
        log.info("perf.request", **event)
        return body

    return Tool(app)


def configure() -> None:
    """Context variables, level, ISO time, JSON by msgspec, bytes to the null device."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        logger_factory=structlog.BytesLoggerFactory(open(os.devnull, "wb")),  # noqa: PTH123, SIM115 - open until the end
        cache_logger_on_first_use=True,
    )


def _encode(event: dict[str, Any], **_: Any) -> bytes:
    return msgspec.json.encode(event)


def _event(door: str, build: Callable[[], Any]) -> dict[str, Any]:
    """The event that ours logs for one request."""
    events: list[dict[str, Any]] = []

    def keep(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        events.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    watched = ours.wrap(door, build, log=True)
    server(door, watched.app)(1)
    watched.app.close()
    event = events[0]
    del event["event"]
    return event
