"""New Relic in its developer mode: everything is collected, and the agent plays its own collector."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

os.environ |= {
    "NEW_RELIC_DEVELOPER_MODE": "true",
    "NEW_RELIC_LICENSE_KEY": "0" * 40,
    "NEW_RELIC_APP_NAME": "shop",
    "NEW_RELIC_LOG": os.devnull,
}

import newrelic.agent
from newrelic.core.application import Application

from benchmarks.overhead.tool import Tool

if TYPE_CHECKING:
    from collections.abc import Callable


def wrap(_: str, build: Callable[[], Any]) -> Tool:
    newrelic.agent.initialize()
    for name in ("aws", "azure", "gcp", "pcf"):  # it asks the cloud that it may run in
        setattr(newrelic.agent.global_settings().utilization, f"detect_{name}", False)
    newrelic.agent.register_application(timeout=60.0)
    last: list[Any] = []
    record = Application.record_transaction

    def record_transaction(self: Any, data: Any) -> Any:
        last[:] = [data]
        return record(self, data)

    Application.record_transaction = record_transaction
    app = newrelic.agent.WSGIApplicationWrapper(build())
    return Tool(app, seen=lambda _: _queries(last[0].root))


def _queries(node: Any) -> int:
    return hasattr(node, "sql_format") + sum(_queries(child) for child in getattr(node, "children", ()))
