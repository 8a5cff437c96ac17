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

import newrelic.agent  # noqa: E402 - it reads the environment when it is imported
from newrelic.core.application import Application  # noqa: E402

from benchmarks.overhead.tool import Tool  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable


def wrap(_: str, build: Callable[[], Any]) -> Tool:
    newrelic.agent.initialize()
    newrelic.agent.register_application(timeout=60.0)
    queries = [0]
    record = Application.record_transaction

    def record_transaction(self: Any, data: Any) -> Any:
        queries[0] = _queries(data.root)
        return record(self, data)

    def seen(_: object) -> int:
        return queries[0]

    if os.environ.get("OVERHEAD_SEES"):
        Application.record_transaction = record_transaction
    return Tool(newrelic.agent.WSGIApplicationWrapper(build()), seen=seen)


def _queries(node: Any) -> int:
    return hasattr(node, "sql_format") + sum(_queries(child) for child in getattr(node, "children", ()))
