"""What a check says."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

#: "unknown": could not be told, the detail says why; "skipped": was not asked for, or is not installed. Only "failed"
#: makes the exit code 1.
Outcome = Literal["ok", "warning", "failed", "unknown", "skipped"]


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        area: "drivers", "process", "store" or "privacy".
        detail: For a person: what was found, and what to do about it.
        facts: The same for a program.

    """

    area: str
    name: str
    outcome: Outcome
    detail: str
    facts: dict[str, Any] = {}


def named(error: BaseException) -> str:
    """An error's class and number; never its message, which may quote values and credentials."""
    number = error.args[0] if error.args else None
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or number
    return (
        f"{type(error).__name__} {code}" if code and (type(code) is int or code is not number) else type(error).__name__
    )
