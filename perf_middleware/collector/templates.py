"""The line of the template that is being rendered, as its engine's frames tell it.

Only strings and numbers are read; no method of an engine or an application is called.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import CodeType, FrameType

#: Lines of templates that are remembered.
MAX_LINES: Final = 4096

#: What Jinja names the code of a template that has no file.
JINJA_NO_FILE: Final = "<template>"

#: Where Django's nodes are rendered, below the folder that packages are installed into.
DJANGO_NODES: Final = "django/template/base.py"

_BLANK: Final = compile("", "", "exec")

#: Of no instruction: the line is the first one of the code.
NO_INSTRUCTION: Final = -1


def is_jinja(frame: FrameType) -> bool:
    """Whether the code was compiled from a template."""
    return frame.f_code.co_filename == JINJA_NO_FILE or "__jinja_template__" in frame.f_globals


def jinja_line(frame: FrameType) -> tuple[CodeType, int] | None:
    """Jinja compiles a template to Python, and leaves in the module's globals which line became which."""
    names = frame.f_globals
    name, lines, code_line = names.get("name"), names.get("debug_info"), frame.f_lineno
    if type(name) is not str or type(lines) is not str or code_line is None:  # a template without a name has no file
        return None
    path = frame.f_code.co_filename
    if path == JINJA_NO_FILE or path.endswith(".py"):  # made from no file, or compiled beforehand
        path = name
    try:
        line = _template_line(lines, code_line)
    except ValueError:  # another library's, that only looks like it
        return None
    return _line(path, line, name), NO_INSTRUCTION


def django_line(frame: FrameType) -> tuple[CodeType, int] | None:
    """Django walks over the nodes of a template; each knows the token it was made of and where that stood."""
    if frame.f_code.co_name != "render_annotated":
        return None
    try:
        node: dict[str, Any] = vars(frame.f_locals["self"])
        line, origin = vars(node["token"])["lineno"], vars(node["origin"])
        path, name = origin["name"], origin["template_name"]
    except (KeyError, TypeError):  # a node made by hand
        return None
    if type(path) is not str or type(line) is not int:
        return None
    # The name may be one that Django marks as safe; by its type, since `isinstance` would wake a lazy one.
    return _line(path, line, str.__str__(name) if issubclass(type(name), str) else path), NO_INSTRUCTION


@lru_cache(maxsize=MAX_LINES)
def _template_line(lines: str, code_line: int) -> int:
    """From pairs "template line=code line", in order, that of the last one which is not behind the code's line."""
    line = 1
    for pair in filter(None, lines.split("&")):
        template_line, _, begins = pair.partition("=")
        if int(begins) > code_line:
            break
        line = int(template_line)
    return line


@lru_cache(maxsize=MAX_LINES)
def _line(path: str, line: int, name: str) -> CodeType:
    """Code that stands for a line: of that file, beginning there, named like the template.

    Two of them are equal only where all three are: the names of files are no part of what makes code equal.
    """
    return _BLANK.replace(co_filename=path, co_firstlineno=line, co_qualname=name, co_name=f"{path}:{line}")
