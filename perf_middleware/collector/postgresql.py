"""What the drivers of PostgreSQL have in common: how a session is named, an error told and a row noted."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from perf_middleware.collector.noting import note_query, note_wait
from perf_middleware.collector.parameters import params_token
from perf_middleware.collector.rows import Extra, Target

if TYPE_CHECKING:
    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.rows import Token

#: Whether a transaction is open, by libpq's status: idle, active, in transaction, in a failed one, unknown. While a
#: statement is running it does not tell.
INSIDE: Final = (False, None, True, True, False)

#: Of a statement that was given no parameters.
NO_PARAMETERS: Final = params_token(())

_SQLSTATE_CHARS: Final = 5


class Session(Target):
    """A connection to PostgreSQL.

    Attributes:
        inside: Whether a transaction was open when that could be told last.
        opening_ns: When opening it began, if a pool did; then waiting for it was over.
        since_ns: The statement that runs did not begin before.

    """

    __slots__ = ("inside", "opening_ns", "since_ns")

    def __init__(self, db: str | None, *, awaited: bool = False) -> None:
        super().__init__("postgresql", db, serial=True, awaited=awaited)
        self.inside: bool | None = False
        self.opening_ns = 0
        self.since_ns = 0


def database(host: object, port: object, name: object) -> str:
    """Which database, without credentials."""
    return f"{host}:{port}/{name}"


def error_name(error: BaseException, sqlstate: object) -> str:
    """Class and SQLSTATE; never the message, which quotes values."""
    name = type(error).__name__
    return f"{name} {sqlstate}" if type(sqlstate) is str and len(sqlstate) == _SQLSTATE_CHARS else name


def text_of(query: Any, context: Any) -> Any:
    """The text of a composed statement; any other object stays what it is."""
    as_string = getattr(query, "as_string", None)
    return query if as_string is None else as_string(context)


def note(  # noqa: PLR0917 - a row's facts, in its order
    capture: Capture,
    session: Session,
    query: Any,
    token: Token,
    start_ns: int,
    end_ns: int,
    rows: int | None,
    extra: Extra | None,
) -> None:
    """Append one row."""
    note_query(capture, session, query, token, start_ns, end_ns, rows, session.inside, extra)


def note_checkout(capture: Capture, session: Session | None, start_ns: int) -> None:
    """Note how long a pool let somebody wait until now; for no session if it gave up."""
    end_ns = perf_counter_ns()
    if session is None:
        session = Session(None)
    elif session.opening_ns > start_ns:
        end_ns = session.opening_ns
    note_wait(capture, session, start_ns, end_ns)
