"""Replacing attributes of other people's classes, and giving them back exactly as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf_middleware.collector.context import Capture, current
from perf_middleware.record import Profile

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType

_ABSENT = object()


class _Nobody(Capture):
    """Takes what a hook notes after its uninstalling, and forgets it."""

    def late(self) -> None:
        """Forget."""


#: What a silenced hook's `get` answers with.
NOBODY = _Nobody(Profile(), keep=0, callers=False)
NOBODY.close()


class Patches:
    """The attributes one driver's hooks replaced.

    Attributes:
        active: False once undone; hooks that live on in objects handed out before look here.
        covered: Places where another tool has patched on top of us, found when uninstalling.

    """

    def __init__(self) -> None:
        self.active = True
        self.covered: list[str] = []
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        self._undoing: list[Callable[[], object]] = []

    def on_undo(self, callback: Callable[[], object]) -> None:
        """Have what is no attribute (a listener, a factory that was registered) taken back by `callback()`."""
        self._undoing.append(callback)

    def replace(self, owner: Any, name: str, make: Callable[[Any, Callable[[], Capture | None]], FunctionType]) -> None:
        """Put `make(original, get)` in the place of `owner.name`; `get` gives the open profile's capture."""
        own = vars(owner).get(name, _ABSENT)
        original = getattr(owner, name)
        wrapper = make(original, current.get)
        for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(wrapper, attribute, getattr(original, attribute, None))
        wrapper.__dict__["__wrapped__"] = original
        setattr(owner, name, wrapper)
        self._replaced.append((owner, name, own, wrapper))

    def places(self) -> list[tuple[str, Any]]:
        """Where each attribute is ("Cursor.execute"), and what stands there now: ours, or another tool's on top."""
        return [(_place(owner, name), vars(owner).get(name)) for owner, name, _, _ in self._replaced]

    def undo(self) -> None:
        """Restore every attribute (`is` the one it was); where another tool has patched on top, ours falls silent."""
        self.active = False
        while self._undoing:
            self._undoing.pop()()
        for owner, name, own, wrapper in reversed(self._replaced):
            if vars(owner).get(name) is not wrapper:
                _silence(wrapper)
                self.covered.append(_place(owner, name))
            elif own is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, own)
        self._replaced = []


def _place(owner: Any, name: str) -> str:
    return f"{getattr(owner, '__name__', owner)}.{name}"


def _silence(wrapper: Any) -> None:
    """Make a hook a pass-through at no cost to the others: its `get` answers with a capture that forgets."""
    for name, cell in zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True):
        if name == "get":
            cell.cell_contents = lambda: NOBODY
