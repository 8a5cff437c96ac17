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
        seen: How many queries the tool noticed in the last request, from its own records; None when it has none.

    """

    app: Any
    settle: Callable[[], object] = nothing
    seen: Callable[[], int] | None = None
