"""Which line of the application asked: a walk over code objects, with line numbers worked out at the end.

No `traceback`, no `linecache`, no `repr` of anything, which may run queries of its own.
"""

from __future__ import annotations

import os
import re
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perf_middleware.collector.templates import DJANGO_NODES, django_line, is_jinja, jinja_line
from perf_middleware.collector.whose import APPLICATION, INSTALLED, MAX_FILENAMES, NOBODY, STDLIB, absolute, whose

if TYPE_CHECKING:
    from types import CodeType, FrameType

#: A code object and the last instruction of it that ran; or one that stands for a template's line.
Place: TypeAlias = "tuple[CodeType | None, int]"

#: Frames looked at before giving up: deeper stacks have no application frame that explains the query.
MAX_FRAMES: Final = 200

#: Positions described before starting over.
MAX_DESCRIBED: Final = 4096

NOWHERE: Final = (None, 0)

_HERE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH120, PTH100 - no pathlib on import

#: Beyond its own door a stack belongs to whoever called the application (a test client, another application), and
#: beyond an event loop to whoever started that.
_ENDS: Final = (
    *(os.path.join(_HERE, door) for door in ("wsgi.py", "asgi.py")),  # noqa: PTH118
    *(os.path.join(folder, "asyncio", part) for folder in STDLIB for part in ("events.py", "runners.py")),  # noqa: PTH118
)
_LOOPS: Final = ("/trio/_core/_run.py", "/uvicorn/server.py")  # uvloop, under uvicorn, has no frames of its own
_END: Final = object()

#: Where SQLAlchemy runs what is synchronous for those who await it, by version.
_GREENLET_SPAWN: Final = ("/sqlalchemy/util/concurrency.py", "/sqlalchemy/util/_concurrency_py3k.py")

#: A comprehension is part of the function it stands in, as Python 3.12 has it; so is the name of a lambda.
_COMPREHENSION: Final = re.compile(r"(\.<locals>)?\.<(listcomp|setcomp|dictcomp|genexpr)>(?=\.|$)")
_LAMBDA: Final = re.compile(r"\.<locals>(?=\.<lambda>)")

#: By a code object's id and an instruction in it: that object, and the text.
_described: dict[tuple[int, int], tuple[CodeType, str]] = {}

#: By file name: whether its frames are the application's; `_END`; or a function that knows more of its frames.
_verdicts: dict[str, Any] = {}

#: By a code object's id: that object, and a copy of it.
_copies: dict[int, tuple[CodeType, CodeType]] = {}

#: Who had this run elsewhere, in a thread whose own stack tells nothing of it.
asked_by: ContextVar[Place | None] = ContextVar("perf_middleware_asked_by", default=None)


def find_caller(depth: int = 2, frame: FrameType | None = None) -> Place:
    """The code and last instruction of the nearest frame that is the application's own.

    Where the stack has none: of who had this run in another thread, or of the nearest installed package that asks for
    something itself; else (None, 0). Looks from `frame` on, of a stack that is not the current one, where it is given.
    """
    if frame is None:
        frame = sys._getframe(depth)  # noqa: SLF001 - the documented way to look at the stack without building one
    code = frame.f_code
    if _verdicts.get(code.co_filename) is True:  # as it is for most
        return code, frame.f_lasti
    return _nearest(frame) or _next_best(frame)


def _nearest(frame: FrameType) -> Place | None:
    """The application's nearest frame, or line of a template."""
    for _ in range(MAX_FRAMES):
        code = frame.f_code
        verdict = _verdicts.get(code.co_filename)
        if verdict is None:
            verdict = _judge(frame)
        if verdict:
            if verdict is True:
                return code, frame.f_lasti
            if verdict is _END:
                return None
            place: Place | None = verdict(frame)
            if place is not None and place[0] is not None and whose(place[0].co_filename) == APPLICATION:
                return place
        back = frame.f_back
        if back is None:
            break
        frame = back
    return None


def _judge(frame: FrameType) -> Any:
    filename = frame.f_code.co_filename
    path = absolute(filename).replace(os.sep, "/")
    verdict: Any = whose(filename) == APPLICATION
    if path.endswith(_LOOPS) or absolute(filename) in _ENDS:
        verdict = _END
    elif path.endswith(f"/{DJANGO_NODES}"):
        verdict = django_line
    elif path.endswith(_GREENLET_SPAWN):
        verdict = _in_greenlet
    elif is_jinja(frame):
        verdict = jinja_line
    if len(_verdicts) >= MAX_FILENAMES:
        _verdicts.clear()
    _verdicts[filename] = verdict
    return verdict


def _in_greenlet(frame: FrameType) -> Place | None:
    """The application's nearest frame in the greenlet that waits for what this one awaits."""
    if frame.f_code.co_name != "greenlet_spawn":
        return None
    waiting = getattr(frame.f_locals.get("context"), "gr_frame", None)
    return None if waiting is None else _nearest(waiting)


def _next_best(frame: FrameType) -> Place:
    """Where libraries alone asked: the best that is known of who made them."""
    return max(_nearest_installed(frame), asked_by.get() or NOWHERE, _in_parent_greenlet() or NOWHERE, key=_rank)


def _rank(place: Place) -> int:
    return NOBODY if place[0] is None else whose(place[0].co_filename)


def _nearest_installed(frame: FrameType) -> Place:
    """The nearest frame of an installed package, of a framework where there is none of another.

    Its code is a copy: hooks may remember an application's code, whose frames are the answer wherever they are met.
    """
    best: Place = NOWHERE
    best_rank = NOBODY
    for _ in range(MAX_FRAMES):
        verdict = _verdicts.get(frame.f_code.co_filename)
        if verdict is _END:
            break
        place = (verdict and verdict(frame)) or (frame.f_code, frame.f_lasti)
        rank = _rank(place)
        if rank > best_rank:
            best, best_rank = place, rank
        back = frame.f_back
        if back is None or rank == INSTALLED:
            break
        frame = back
    code, lasti = best
    return best if code is None else (_copy(code), lasti)


def _copy(code: CodeType) -> CodeType:
    known = _copies.get(id(code))
    if known is None:
        if len(_copies) >= MAX_DESCRIBED:
            _copies.clear()
        known = _copies[id(code)] = (code, code.replace())
    return known[1]


def _in_parent_greenlet() -> Place | None:
    """The application's nearest frame in the greenlet that waits for this one."""
    greenlet = sys.modules.get("greenlet")
    parent = greenlet.getcurrent().parent if greenlet is not None else None
    waiting = getattr(parent, "gr_frame", None)
    return None if waiting is None else _nearest(waiting)


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
    function = _LAMBDA.sub("", _COMPREHENSION.sub("", code.co_qualname)).rpartition("<locals>.")[2]
    text = f"{_short(code.co_filename)}:{line} in {function}"
    if len(_described) >= MAX_DESCRIBED:
        _described.clear()
    _described[key] = (code, text)
    return text


def _short(filename: str) -> str:
    """The path below the longest import root (or the current folder) that holds it, with forward slashes."""
    path = absolute(filename)
    roots = [absolute(root or os.curdir) for root in (*sys.path, os.curdir) if isinstance(root, str)]
    inside = [root for root in roots if path.startswith(root.rstrip(os.sep) + os.sep)]
    if inside:
        path = os.path.relpath(path, max(inside, key=len))
    return path.replace(os.sep, "/")
