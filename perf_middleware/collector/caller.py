"""Which line of the application asked: a walk over code objects, with line numbers worked out at the end.

No `traceback`, no `linecache`, no `repr` of anything: see PITFALLS in docs/collector.md for what those cost.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType

#: Frames looked at before giving up: deeper stacks have no application frame that explains the query.
MAX_FRAMES: Final = 200

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH120, PTH100 - no pathlib on import
_DEMO = os.path.join(_PACKAGE, "cli", "demo", "")  # noqa: PTH118
_LIBRARY_FOLDERS = ("/site-packages/", "/dist-packages/")


def _libraries() -> tuple[str, ...]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths.update(site.getsitepackages())
    return (*(path.rstrip(os.sep) + os.sep for path in paths if path), _PACKAGE)


_LIBRARIES = _libraries()
_is_application: dict[str, bool] = {}


def find_caller(depth: int = 2) -> tuple[CodeType | None, int]:
    """The code and last instruction of the nearest frame that is the application's own, or (None, 0)."""
    frame = sys._getframe(depth)  # noqa: SLF001 - the documented way to look at the stack without building one
    for _ in range(MAX_FRAMES):
        code = frame.f_code
        verdict = _is_application.get(code.co_filename)
        if verdict is None:
            verdict = _judge(code.co_filename)
        if verdict:
            return code, frame.f_lasti
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None, 0


def _judge(filename: str) -> bool:
    if filename.startswith("<"):  # generated code: no file to point at, and names without an end
        return False
    path = os.path.abspath(filename)  # noqa: PTH100
    ours = path.startswith(_DEMO)  # the demo's shop stands in for an application
    library = path.startswith(_LIBRARIES) or any(folder in path.replace(os.sep, "/") for folder in _LIBRARY_FOLDERS)
    verdict = _is_application[filename] = ours or not library
    return verdict


@lru_cache(maxsize=4096)
def describe(code: CodeType, lasti: int) -> str:
    """Text such as "shop/views.py:42 in order_list" for a code object and an instruction in it."""
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= lasti < end and number is not None:
            line = number
    function = code.co_qualname.rpartition("<locals>.")[2]
    return f"{_short(code.co_filename)}:{line} in {function}"


def _short(filename: str) -> str:
    """The path below the longest import root (or the current folder) that holds it, with forward slashes."""
    path = os.path.abspath(filename)  # noqa: PTH100
    roots = [os.path.abspath(root or ".") for root in (*sys.path, os.curdir)]  # noqa: PTH100
    inside = [root for root in roots if path.startswith(root.rstrip(os.sep) + os.sep)]
    if inside:
        path = os.path.relpath(path, max(inside, key=len))
    return path.replace(os.sep, "/")
