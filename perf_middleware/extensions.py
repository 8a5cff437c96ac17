"""What other distributions add: the entry points under `perf_middleware.drivers`, `.detectors`, `.stores`, ...

Asking the standard library for entry points takes 20 ms and 3 MiB, in every process, for what hardly any installation
has. So the files are looked at first: only where one of them names us are they read by the book.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

_GROUP = "perf_middleware."
_METADATA = (".dist-info", ".egg-info", "egg-info")


def extensions(kind: str) -> Iterable[EntryPoint]:
    """Entry points of a kind: "drivers", "detectors", "stores" or "frameworks"."""
    if not _are_any(tuple(sys.path)) and not _are_found_elsewhere():
        return ()
    from importlib.metadata import entry_points  # noqa: PLC0415 - see above

    return entry_points(group=f"{_GROUP}{kind}")


def _are_found_elsewhere() -> bool:
    """Whether distributions may lie where no file can be opened, as in a program frozen into one."""
    return any(hasattr(finder, "find_distributions") for finder in sys.meta_path if finder is not PathFinder)


@lru_cache(maxsize=1)
def _are_any(path: tuple[str, ...]) -> bool:
    return any(_names_us(file) for folder in path for file in _entry_point_files(folder))


def _entry_point_files(folder: str) -> list[str]:
    """Of each distribution in a folder of `sys.path`; of an archive, the archive itself."""
    try:
        names = os.listdir(folder or os.curdir)  # noqa: PTH208 - no pathlib on import
    except NotADirectoryError:
        return [folder]
    except OSError:
        return []
    return [
        os.path.join(folder, name, "entry_points.txt")  # noqa: PTH118
        for name in names
        if name.lower().endswith(_METADATA)
    ]


def _names_us(file: str) -> bool:
    """Whether a file of entry points has a group of ours; an archive may have such a file."""
    if not file.endswith(".txt"):
        return True
    try:
        with open(file, "rb") as opened:  # noqa: PTH123
            return f"[{_GROUP}".encode() in opened.read()
    except OSError:  # most distributions have none
        return False
