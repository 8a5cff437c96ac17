"""Whose a file is: the application's, an installed package's, a framework's, or nobody's who asks for anything.

An application may itself be installed (Datasette, Superset, Sentry). Its queries come from installed packages alone,
and the nearest of them that only passes nothing on is who asked.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Final

#: File names judged that are remembered: code made at run time may have names without an end.
MAX_FILENAMES: Final = 10_000

#: From the best answer to "who asked?" to none.
APPLICATION, INSTALLED, FRAMEWORK, NOBODY = 3, 2, 1, 0

_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH120, PTH100 - no pathlib on import
_DEMO: Final = os.path.join(_PACKAGE, "cli", "demo", "")  # noqa: PTH118
_FOLDERS: Final = ("/site-packages/", "/dist-packages/")

_STDLIB: Final = os.path.dirname(os.__file__)  # noqa: PTH120

#: The standard library's folder, as it is found and as it is behind links.
STDLIB: Final = tuple({folder + os.sep for folder in (_STDLIB, os.path.realpath(_STDLIB))})

#: They run what others ask.
# fmt: off
_PASS_ON: Final = frozenset((
    # database libraries
    "MySQLdb", "aiomysql", "aiosqlite", "asyncmy", "asyncpg", "databases", "django/db", "flask_sqlalchemy", "mysql",
    "peewee", "piccolo", "playhouse", "pony", "psycopg", "psycopg2", "psycopg_pool", "pymysql", "sqlalchemy",
    "sqlmodel", "tortoise",
    # event loops and threads
    "anyio", "asgiref", "eventlet", "gevent", "greenlet", "trio", "uvloop",
    # servers and launchers
    "_pytest", "cheroot", "click", "daphne", "granian", "gunicorn", "hypercorn", "pluggy", "uvicorn", "waitress",
    # what watches
    "ddtrace", "debug_toolbar", "elasticapm", "logfire", "newrelic", "opentelemetry", "queryspy", "sentry_sdk", "silk",
    "wrapt",
))

#: They call the application, and ask a little by themselves.
_FRAMEWORKS: Final = frozenset((
    "celery", "django", "dramatiq", "fastapi", "flask", "graphene", "graphql", "jinja2", "litestar", "mako", "pyramid",
    "quart", "rest_framework", "rq", "starlette", "strawberry", "werkzeug",
))
# fmt: on


@lru_cache(maxsize=MAX_FILENAMES)
def whose(filename: str) -> int:
    """APPLICATION, INSTALLED, FRAMEWORK or NOBODY, for the file name of a code object or a template."""
    if filename.startswith("<"):  # no file to point at
        return NOBODY
    path = absolute(filename)
    if path.startswith(_PACKAGE):
        return APPLICATION if path.startswith(_DEMO) else NOBODY  # the demo's shop stands in for an application
    inside = _inside_packages(path.replace(os.sep, "/"))
    if inside is None:
        return NOBODY if path.startswith(STDLIB) else APPLICATION
    names = inside.removesuffix(".py").split("/")
    if names[0] in _PASS_ON or "/".join(names[:2]) in _PASS_ON:
        return NOBODY
    return FRAMEWORK if names[0] in _FRAMEWORKS else INSTALLED


def _inside_packages(path: str) -> str | None:
    """The path below the folder that packages are installed into; None outside of one."""
    for folder in _FOLDERS:
        _, found, inside = path.rpartition(folder)
        if found:
            return inside
    return None


def absolute(path: str) -> str:
    """The path from the root; as it is where the current folder is gone."""
    try:
        return os.path.abspath(path)  # noqa: PTH100
    except OSError:
        return path
