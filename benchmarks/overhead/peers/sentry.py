"""Sentry's WSGI middleware with every request traced. It sees no PyMySQL, but what goes through SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sentry_sdk
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from sentry_sdk.transport import Transport

from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable


class Dropping(Transport):
    last: Any = None

    def capture_envelope(self, envelope: Any) -> None:
        Dropping.last = envelope


def wrap(_: str, build: Callable[[], Any]) -> Tool:
    sentry_sdk.init(dsn="http://key@localhost/1", transport=Dropping, traces_sample_rate=1.0)
    return Tool(SentryWsgiMiddleware(build()), seen=_seen)


def _seen(_: object) -> int:
    spans = Dropping.last.get_transaction_event()["spans"]
    return sum((span.get("op") or "").startswith("db") for span in spans)
