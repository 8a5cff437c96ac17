"""Telling when a module has been imported, for those who may not import it themselves.

A finder in front of the others lets them find the module, and gives it a loader that calls back when the module is
there. By hand, because `wrapt`, which has such a hook too, takes 25 ms and 5 MiB: asyncio, email, zipfile.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Callback = Callable[[ModuleType], object]


def when_imported(name: str, callback: Callback) -> None:
    """Have `callback(module)` called once, when the module of that name has been imported. It must not raise."""
    _finder.callbacks.setdefault(name, []).append(callback)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


class _Finder:
    """Stays where it is once it is there: taking it out would let an import in another thread skip its neighbour."""

    def __init__(self) -> None:
        self.callbacks: dict[str, list[Callback]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the finders behind this one find, with our loader; None for modules that nobody waits for."""
        if name not in self.callbacks:
            return None
        spec = self._find_behind(name, path, target)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self.callbacks)  # type: ignore[assignment] # it has all that one has
        return spec

    def _find_behind(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        finders = list(sys.meta_path)
        if self not in finders:  # another tool asks those that were there once
            return None
        for finder in finders[finders.index(self) + 1 :]:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find and find(name, path, target)
            if spec is not None:
                return spec
        return None


class _Loader:
    """Another loader, up to the moment when the module is executed; from then on the module has its own again."""

    def __init__(self, loader: Any, callbacks: dict[str, list[Callback]]) -> None:
        self._loader = loader
        self._callbacks = callbacks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, and tell those who wait; an import that fails may be tried again."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        for callback in self._callbacks.pop(module.__name__, ()):
            callback(module)


_finder = _Finder()
