"""A token that is equal when a statement's parameters are equal; the parameters themselves are never kept."""

from __future__ import annotations

import marshal
from typing import Any, Final

#: Beyond this many bytes of parameters the token is unknown: hashing them would cost what it saves.
MAX_BYTES: Final = 4096


def params_token(parameters: Any) -> tuple[int] | None:
    """Hash of exact builtin scalars (and lists, tuples and dicts of them); None for anything else, or for much.

    `marshal` writes exact builtin types only, at C speed, without calling any method of a value, and tells 1
    from 1.0 and -1 from -2, which `hash` does not. Version 2 writes equal values alike however they are shared.
    """
    try:
        data = marshal.dumps(parameters, 2)
    except ValueError:
        return None
    return (hash(data),) if len(data) <= MAX_BYTES else None
