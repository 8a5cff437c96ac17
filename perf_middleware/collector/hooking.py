"""Hooking a module when the application has imported it, or when it does; never by importing it ourselves."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from perf_middleware.collector.importing import when_imported
from perf_middleware.collector.patching import Patches
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from types import ModuleType


class Hookable(Protocol):
    """What the file of a driver or a framework provides.

    Attributes:
        MODULE: The module whose import is waited for.

    """

    MODULE: str

    def hook(self, module: ModuleType, patches: Patches) -> None:
        """Replace what has to be replaced, through `patches`."""
        ...


class Hook:
    """One installation, counted: the first `install` hooks, the last `uninstall` restores.

    Attributes:
        covered: Places where another tool had patched on top of us when we were uninstalled, so that ours stays
            below it, doing nothing.

    """

    def __init__(self, target: Hookable) -> None:
        self.target = target
        self.count = 0
        self.waiting = False
        self.patches: Patches | None = None
        self.covered: list[str] = []

    def install(self) -> None:
        """Hook now if the module is there, else when it is imported."""
        self.count += 1
        if self.count > 1:
            return
        module = sys.modules.get(self.target.MODULE)
        if module is not None:
            self.apply(module)
        elif not self.waiting:
            self.waiting = True
            when_imported(self.target.MODULE, self.apply)

    def apply(self, module: ModuleType) -> None:
        """Patch the imported module; a version we do not know stays unhooked and is counted as a fault."""
        if not self.count or self.patches is not None:
            return
        patches = Patches()
        try:
            self.target.hook(module, patches)
        except Exception as error:  # noqa: BLE001 - the application's import must not fail because of us
            fault(f"hook {self.target.MODULE}", error)
            patches.undo()
        else:
            self.patches = patches

    def uninstall(self) -> None:
        """Take back one `install`."""
        self.count = max(0, self.count - 1)
        if not self.count and self.patches is not None:
            self.patches.undo()
            self.covered += self.patches.covered
            self.patches = None

    def status(self) -> str:
        """One of "hooked", "uninstalled", "waiting for import" and "not hooked" (which is a fault of ours).

        After "uninstalled" it says where another tool has patched on top of us.
        """
        if self.patches is not None:
            return "hooked"
        if not self.count:
            return (
                f"uninstalled (silent below another tool: {', '.join(self.covered)})" if self.covered else "uninstalled"
            )
        return "not hooked" if self.target.MODULE in sys.modules else "waiting for import"
