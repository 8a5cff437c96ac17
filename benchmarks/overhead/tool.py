"""A tool under test, once it is wrapped around an application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def nothing() -> None:
    """What a tool without work in the background has to settle."""


@dataclass
class Tool:
    """An application being watched.

    Attributes:
        app: The application, wrapped.
        settle: Does now, and waits for, what the tool would do in the background later on.
        seen: How many queries the tool noticed since it was last asked, from its own records or from the headers of the
            last response (by lower-case name); None when it notices none as such.

    """

    app: Any
    settle: Callable[[], object] = nothing
    seen: Callable[[dict[str, str]], int] | None = None
