"""Which line of the application asked: a walk over code objects, with line numbers worked out at the end.

No `traceback`, no `linecache`, no `repr` of anything, which may run queries of its own.
"""

from __future__ import annotations

import os
import re
import site
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType, FrameType

#: Frames looked at before giving up: deeper stacks have no application frame that explains the query.
MAX_FRAMES: Final = 200

#: File names judged before starting over: code made at run time may have names without an end.
MAX_FILENAMES: Final = 10_000

#: Positions described before starting over.
MAX_DESCRIBED: Final = 4096

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH120, PTH100 - no pathlib on import
_DEMO = os.path.join(_PACKAGE, "cli", "demo", "")  # noqa: PTH118
_LIBRARY_FOLDERS = ("/site-packages/", "/dist-packages/")


def _libraries() -> tuple[str, ...]:
    paths = {os.path.dirname(os.__file__), *site.getsitepackages()}  # noqa: PTH120
    paths.update([os.path.realpath(path) for path in paths])
    return (*(path.rstrip(os.sep) + os.sep for path in paths), _PACKAGE)


#: A comprehension is part of the function it stands in, as Python 3.12 has it.
_COMPREHENSION = re.compile(r"(\.<locals>)?\.<(listcomp|setcomp|dictcomp|genexpr)>(?=\.|$)")

_LIBRARIES = _libraries()
#: Beyond its own door a stack belongs to whoever called the application: a test client, another application.
_DOORS = (f"{_PACKAGE}wsgi.py", f"{_PACKAGE}asgi.py")
_DOOR: Final = object()

#: By a code object's id and an instruction in it: that object, and the text.
_described: dict[tuple[int, int], tuple[CodeType, str]] = {}

#: By file name: whether its frames are the application's, or a door's.
_is_application: dict[str, object] = {}


def find_caller(depth: int = 2, frame: FrameType | None = None) -> tuple[CodeType | None, int]:
    """The code and last instruction of the nearest frame that is the application's own, or (None, 0).

    Looks from `frame` on, of a stack that is not the current one, where it is given.
    """
    if frame is None:
        frame = sys._getframe(depth)  # noqa: SLF001 - the documented way to look at the stack without building one
    for _ in range(MAX_FRAMES):
        code = frame.f_code
        verdict = _is_application.get(code.co_filename)
        if verdict is None:
            verdict = _judge(code.co_filename)
        if verdict:
            return (None, 0) if verdict is _DOOR else (code, frame.f_lasti)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None, 0


def _judge(filename: str) -> object:
    path = _absolute(filename)
    ours = path.startswith(_DEMO)  # the demo's shop stands in for an application
    library = path.startswith(_LIBRARIES) or any(folder in path.replace(os.sep, "/") for folder in _LIBRARY_FOLDERS)
    generated = filename.startswith("<")  # no file to point at
    if len(_is_application) >= MAX_FILENAMES:
        _is_application.clear()
    is_application = not generated and (ours or not library)
    verdict = _is_application[filename] = _DOOR if path in _DOORS else is_application
    return verdict


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)  # noqa: PTH100
    except OSError:  # the current folder is gone
        return path


def describe(code: CodeType | None, lasti: int) -> str | None:
    """Text such as "shop/views.py:42 in order_list" for a code object and an instruction in it; None for no code."""
    key = (id(code), lasti)  # hashing a code object reads all of it; the table keeps it, so that its id stays its own
    known = _described.get(key)
    if known is not None:
        return known[1]
    if code is None:
        return None
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= lasti < end and number is not None:
            line = number
    function = _COMPREHENSION.sub("", code.co_qualname).rpartition("<locals>.")[2]
    text = f"{_short(code.co_filename)}:{line} in {function}"
    if len(_described) >= MAX_DESCRIBED:
        _described.clear()
    _described[key] = (code, text)
    return text


def _short(filename: str) -> str:
    """The path below the longest import root (or the current folder) that holds it, with forward slashes."""
    path = _absolute(filename)
    roots = [_absolute(root or os.curdir) for root in (*sys.path, os.curdir) if isinstance(root, str)]
    inside = [root for root in roots if path.startswith(root.rstrip(os.sep) + os.sep)]
    if inside:
        path = os.path.relpath(path, max(inside, key=len))
    return path.replace(os.sep, "/")
