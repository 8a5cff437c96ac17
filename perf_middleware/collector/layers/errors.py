"""What a database error may tell of itself: its class and the server's own number or state, never the message."""

from __future__ import annotations

import re
from typing import Any, Final

#: SQLSTATE, of five characters; and names such as "SQLITE_CONSTRAINT_UNIQUE" or "ORA-00942".
_STATE: Final = re.compile(r"[0-9A-Z]{5}|SQLITE_[A-Z_]+|[A-Z]{3}-\d{4,5}")

#: Where drivers keep them: psycopg and asyncpg, psycopg2, sqlite3, oracledb.
_ATTRIBUTES: Final = ("sqlstate", "pgcode", "sqlite_errorname", "full_code")


def error_text(error: BaseException, base: Any) -> str:
    """`IntegrityError 1062` for an error of the driver's, whose errors are `base`; the class alone for any other."""
    name = type(error).__name__
    if not isinstance(base, type) or not isinstance(error, base):
        return name
    first = error.args[0] if error.args else None
    if type(first) is int and first:
        return f"{name} {first}"
    for source in (error, first):
        for attribute in _ATTRIBUTES:
            code = getattr(source, attribute, None)
            if isinstance(code, str) and _STATE.fullmatch(code):
                return f"{name} {code}"
    return f"{name} {first}" if isinstance(first, str) and _STATE.fullmatch(first) else name
