"""Recording the calls of drivers that are classes of Python: what they have in common.

A cursor's method is where a statement and its parameters are known; a connection's method is where each statement is
sent. The first is a `Call`, which is recorded; while it runs on a connection the second only counts for it, so that
`executemany` and `callproc` are one query each with their true number of statements. What is sent by itself is a call
of its own. A driver's file tells what differs, in a subclass of `Recorder`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from perf_middleware.collector.context import unattributed
from perf_middleware.collector.noting import counted, note_query, note_wait
from perf_middleware.collector.parameters import params_token
from perf_middleware.collector.rows import MAX_ROWS, Extra, Target
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType, TracebackType

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.rows import Token

    Get = Callable[[], Capture | None]
    Make = Callable[[Any, Get], FunctionType]
    Begin = Callable[[Capture | None, Any, list[Any], dict[str, Any]], "Step | None"]

SESSION: Final = "_perf_middleware_session"
_EXTRA: Final = "_perf_middleware_extra"

#: Numbers of the client library (CR_...), which the server never uses.
_OF_CLIENT: Final = range(2000, 3000)
_SERVER_LOST: Final = 2013  # while waiting for the answer
_FIRST_OF_SERVER: Final = 1000

#: With these a transaction is over: a deadlock, and a connection that was lost.
_ENDING: Final = {1213, 2006, _SERVER_LOST, 2055}

#: What a call sends on its way to what it was asked for.
_STEERING = re.compile(r"\s*(SET|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE)
_BEGINS = re.compile(r"\s*(BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
_ENDS = re.compile(r"\s*(COMMIT|ROLLBACK(?!\s+(WORK\s+)?TO))\b", re.IGNORECASE)
_HEAD_CHARS: Final = 80

#: Checkouts that are going on, by their tasks. (A context variable might be reset by the garbage collector, which
#: CPython 3.11 does not survive.)
_checkouts: dict[object, Checkout] = {}


class Session(Target):
    """A connection.

    Attributes:
        call: Which is running on it.
        begun: It is inside a transaction, for a driver where only the statements themselves tell.

    """

    __slots__ = ("begun", "call")

    def __init__(self, system: str, db: str | None, session: object = None, *, awaited: bool = False) -> None:
        super().__init__(system, db, session, serial=True, awaited=awaited)
        self.call: Call | None = None
        self.begun = False


class Step(ABC):
    """What a hook does around the driver's own method: `with step: step.result = original(...)`.

    Attributes:
        result: What the method returned.

    """

    __slots__ = ("recorder", "result", "start_ns")

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.result: Any = None
        self.start_ns = 0

    def __enter__(self) -> None:
        self.start_ns = perf_counter_ns()

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        end_ns = perf_counter_ns()
        try:
            self.end(end_ns, error)
        except Exception as ours:  # noqa: BLE001 - a fault of ours is not the application's
            fault(self.recorder.name, ours)

    @abstractmethod
    def end(self, end_ns: int, error: BaseException | None) -> None:
        """Take in how it went."""


class Call(Step):
    """A recorded call.

    Attributes:
        cursor: Whose method it is; None if it is the connection's own.
        session: The connection, seen from outside.
        text: The statement as it was given.
        parameters: Its parameters.
        many: How many sets of them, or what counts those taken so far.
        tried: Something was given to the connection to send.
        wire: Statements sent, and
        sent: the last one's text.
        apart: Its values are not in the text, but were sent apart from it.

    """

    __slots__ = (
        *("apart", "capture", "connection", "cursor", "many", "parameters", "sent", "session", "text", "tried", "wire"),
    )

    def __init__(self, recorder: Recorder, capture: Capture, connection: Any, cursor: Any, text: Any) -> None:
        self.recorder = recorder
        self.result: Any = None
        self.capture = capture
        self.connection = connection
        self.cursor = cursor
        self.session = recorder.session(connection)
        self.text = text
        self.parameters: Any = None
        self.many: Callable[[], int] | int | None = None
        self.wire = 0
        self.sent: Any = None
        self.apart = False
        self.tried = cursor is None

    def __enter__(self) -> None:
        self.session.call = self
        self.start_ns = perf_counter_ns()

    def end(self, end_ns: int, error: BaseException | None) -> None:
        """Note the query."""
        self.session.call = None
        recorder, capture, rows, extra = self.recorder, self.capture, None, None
        many = self.many() if callable(self.many) else self.many
        if self.cursor is None and error is not None and not recorder.was_sent(error):
            self.wire = 0
        if error is None and (not self.tried or many == 0):
            return  # no text, or no parameters: the driver did nothing
        if error is not None or many is not None or self.wire != 1:
            extra = Extra(many=many, wire=self.wire)
        if error is None:
            rows, extra = self._rows(extra)
        elif extra is not None:
            extra.error = recorder.describe(error)
        connection = self.connection
        ended = connection is None or not recorder.is_open(connection)
        ended = ended or (error is not None and recorder.errno(error) in _ENDING)
        inside = False if ended else recorder.inside(self)
        token = self._token() if capture.keep else None
        note_query(capture, self.session, self.text, token, self.start_ns, end_ns, rows, inside, extra)

    def _rows(self, extra: Extra | None) -> tuple[Any, Extra | None]:
        """How many; where they are still to come, the cursor's fetches will add theirs."""
        cursor = self.cursor
        if cursor is None:
            return self.recorder.rows(self.result), extra
        rows = cursor.rowcount
        if not self.recorder.is_streaming(cursor, rows):
            return rows, extra
        extra = kept_with(cursor)[_EXTRA] = extra or Extra()
        return None, extra

    def _token(self) -> Token:
        """Of the text as it was sent; of the parameters where these were sent apart, or the text has a comment."""
        if self.many is not None:
            return None
        if not self.apart and type(self.text) is str and type(self.sent) in {str, bytes} and "/*" not in self.text:
            return hash(self.sent)
        return None if self.parameters is None else params_token(self.parameters)


class Sending(Step):
    """A statement on its way to the server for a running call; one that never left is not counted.

    Without a text it is one that was prepared before. What only steers is counted where it is all that is sent.
    """

    __slots__ = ("call", "counts")

    def __init__(self, recorder: Recorder, call: Call, text: Any) -> None:
        self.recorder = recorder
        self.call = call
        first = not call.wire and not call.apart
        self.counts = first or text is None or not _STEERING.match(plain(text))
        call.wire += self.counts
        call.sent, call.tried = text, True
        if text is None:
            call.apart = True

    def __enter__(self) -> None:
        """Take no time: the call itself is timed."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is not None:
            super().__exit__(kind, error, traceback)

    def end(self, end_ns: int, error: BaseException | None) -> None:  # noqa: ARG002 - see above
        """Take it back if it never left."""
        if error is not None and not self.recorder.was_sent(error):
            self.call.wire -= self.counts


class Fetch(Step):
    """Many rows on their way from the server."""

    __slots__ = ("cursor", "extra")

    def __init__(self, recorder: Recorder, cursor: Any, extra: Extra) -> None:
        super().__init__(recorder)
        self.cursor = cursor
        self.extra = extra
        kept_with(cursor)[_EXTRA] = None  # the method may call others that are hooked

    def end(self, end_ns: int, error: BaseException | None) -> None:
        """Add time and rows to the query's."""
        kept_with(self.cursor)[_EXTRA] = self.extra
        if error is None:
            self.extra.fetched(end_ns - self.start_ns, len(self.result))


class Checkout(Step):
    """A connection on its way out of a pool; what it takes to open one is no wait."""

    __slots__ = ("capture", "opening_ns", "task")

    def __init__(self, recorder: Recorder, capture: Capture) -> None:
        super().__init__(recorder)
        self.capture = capture
        self.opening_ns = 0
        self.task = _task() if recorder.awaits else None
        if self.task is not None:
            _checkouts[self.task] = self

    def end(self, end_ns: int, error: BaseException | None) -> None:
        """Note the wait."""
        _checkouts.pop(self.task, None)
        if error is None:
            session = self.recorder.session(self.recorder.checked_out(self.result))
            note_wait(self.capture, session, self.start_ns, end_ns - self.opening_ns)


class Opening(Step):
    """Connections being opened during a checkout."""

    __slots__ = ("checkout",)

    def __init__(self, recorder: Recorder, checkout: Checkout) -> None:
        super().__init__(recorder)
        self.checkout = checkout

    def end(self, end_ns: int, error: BaseException | None) -> None:  # noqa: ARG002 - it took as long
        """Have it taken from the checkout's time."""
        self.checkout.opening_ns += end_ns - self.start_ns


class Selection(Step):
    """Another database being chosen on a connection."""

    __slots__ = ("connection", "db")

    def __init__(self, recorder: Recorder, connection: Any, db: str) -> None:
        super().__init__(recorder)
        self.connection = connection
        self.db = db

    def end(self, end_ns: int, error: BaseException | None) -> None:  # noqa: ARG002 - it is no query
        """Have the next queries say so; those noted keep what they have."""
        if error is None:
            old = self.recorder.session(self.connection)
            where = (old.db or "").rpartition("/")[0]
            kept_with(self.connection)[SESSION] = Session(
                old.system, f"{where}/{self.db}", old.session, awaited=old.awaited
            )


class Recorder:
    """What one driver's hooks are made from: `patches.replace(Cursor, "execute", recorder.execute)`.

    Attributes:
        name: The driver's.
        system: What it is for, while a connection cannot tell.
        awaits: Its methods are coroutine functions.
        through_query: What cursors are given goes through a method of the connection, hooked with `query`, and is
            counted there. Otherwise each call counts as one statement.
        statement: What the first argument of `execute` and `executemany` is called,
        parameters: the second of `execute`, and
        sets: the second of `executemany`.
        error: Base class of the driver's errors; what others carry is no number of the server's.

    """

    name = ""
    system = "mysql"
    awaits = False
    through_query = True
    statement = "query"
    parameters = "args"
    sets = "args"

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    # ------------------------------------------------------------------------------------------ what a driver tells

    def connection(self, cursor: Any) -> Any:
        """Of a cursor; None if it is closed."""
        return cursor.connection

    def checked_out(self, result: Any) -> Any:
        """The connection in what a pool gave."""
        return result

    def identify(self, connection: Any) -> tuple[str, str | None]:  # noqa: ARG002 - most drivers know
        """System and database, without credentials; what it raises says that there is nothing to tell yet."""
        return self.system, None

    def inside(self, call: Call) -> bool | None:
        """Whether a transaction is open after a call; None if that cannot be told."""
        return bool(begun(call))

    def is_open(self, connection: Any) -> bool:  # noqa: ARG002 - most drivers know
        """Whether the connection still is one, as far as is known without asking the server."""
        return True

    def is_streaming(self, cursor: Any, rows: Any) -> bool:
        """Whether the rows of the statement that was executed are still to come."""
        return not (type(rows) is int and 0 <= rows < MAX_ROWS) and cursor.description is not None

    def rows(self, result: Any) -> Any:
        """How many, of what a connection's own method returned; anything else than a number is unknown."""
        return result

    def errno(self, error: BaseException) -> int | None:
        """The number of one of the driver's errors: the server's, or its client library's."""
        number = error.args[0] if error.args and isinstance(error, self.error) else None
        return number if type(number) is int else None

    # --------------------------------------------------------------------------------------------- a driver's methods

    def execute(self, original: Any, get: Get) -> FunctionType:
        """Hook `Cursor.execute(statement, parameters)`."""
        return self._around(self._execute, original, get)

    def executemany(self, original: Any, get: Get) -> FunctionType:
        """Hook `Cursor.executemany(statement, sets)`."""
        return self._around(self._executemany, original, get)

    def callproc(self, original: Any, get: Get) -> FunctionType:
        """Hook `Cursor.callproc(procname, args)`."""
        return self._around(self._callproc, original, get)

    def query(self, original: Any, get: Get) -> FunctionType:
        """Hook a connection's method that sends the statement it is given."""
        return self._around(self._query, original, get)

    def execution(self, *, awaits: bool | None = None) -> Make:
        """Hook a connection's method that sends for a cursor what is no text: the number of a prepared statement."""

        def make(original: Any, get: Get) -> FunctionType:
            return self._around(self._execution, original, get, awaits=awaits)

        return make

    def command(self, text: str, *, awaits: bool | None = None) -> Make:
        """Hook a connection's method that sends a fixed statement by a way of its own."""

        def begin(capture: Capture | None, connection: Any, *_: object) -> Step | None:
            return self._sending(capture, connection, text)

        def make(original: Any, get: Get) -> FunctionType:
            return self._around(begin, original, get, awaits=awaits)

        return make

    def fetch(self, original: Any, get: Get) -> FunctionType:
        """Hook a cursor's method that takes many rows from the server."""
        return self._around(self._fetch, original, get)

    def checkout(self, original: Any, get: Get) -> FunctionType:
        """Hook a pool's method that gives a connection."""
        return self._around(self._checkout, original, get)

    def opening(self, original: Any, get: Get) -> FunctionType:
        """Hook a pool's method that opens connections for a checkout."""
        return self._around(self._opening, original, get)

    def select_db(self, original: Any, get: Get) -> FunctionType:
        """Hook a connection's method that turns to another database."""
        return self._around(self._select_db, original, get)

    # -------------------------------------------------------------------------------------------------------- and how

    def session(self, connection: Any) -> Session:
        """The connection, seen from outside; kept on it once it is known."""
        try:
            session: Session = kept_with(connection)[SESSION]
        except KeyError:
            try:
                session = kept_with(connection)[SESSION] = Session(*self.identify(connection), awaited=self.awaits)
            except Exception:  # noqa: BLE001 - a closed cursor has no connection; the driver is about to say so
                return Session(self.system, None, awaited=self.awaits)
        return session

    def was_sent(self, error: BaseException) -> bool:
        """Whether a statement left before it failed: what comes while its answer is awaited or read says so."""
        if isinstance(error, self.error):
            number = self.errno(error) or 0
            return number == _SERVER_LOST or (number >= _FIRST_OF_SERVER and number not in _OF_CLIENT)
        return isinstance(error, (UnicodeDecodeError, TimeoutError)) or not isinstance(error, Exception)

    def describe(self, error: BaseException) -> str:
        """Class and number; the message quotes values, and so may another class's first argument."""
        number, name = self.errno(error), type(error).__name__
        return f"{name} {number}" if number is not None and number > 0 else name

    def _execute(self, capture: Capture | None, cursor: Any, args: list[Any], kwargs: dict[str, Any]) -> Step | None:
        call = self._call(capture, cursor, _argument(args, kwargs, 0, self.statement))
        if call is not None:
            call.parameters = _argument(args, kwargs, 1, self.parameters)
        return call

    def _executemany(
        self, capture: Capture | None, cursor: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> Step | None:
        call = self._call(capture, cursor, _argument(args, kwargs, 0, self.statement))
        if call is not None:
            sets = _argument(args, kwargs, 1, self.sets)
            call.many = size(sets)
            if call.many is None and hasattr(sets, "__next__"):
                sets, call.many = counted(sets)
                if len(args) > 1:
                    args[1] = sets
                else:
                    kwargs[self.sets] = sets
        return call

    def _callproc(self, capture: Capture | None, cursor: Any, args: list[Any], kwargs: dict[str, Any]) -> Step | None:
        name = _argument(args, kwargs, 0, "procname")
        parameters = _argument(args, kwargs, 1, "args")
        text = f"CALL `{name}`({', '.join('?' * (size(parameters) or 0))})" if type(name) is str else name
        call = self._call(capture, cursor, text)
        if call is not None:
            call.parameters, call.apart = parameters or (), True
        return call

    def _query(self, capture: Capture | None, connection: Any, args: list[Any], kwargs: dict[str, Any]) -> Step | None:
        step = self._sending(capture, connection, args[0] if args else next(iter(kwargs.values()), None))
        if step is None:
            unattributed.add()
        return step

    def _execution(self, capture: Capture | None, connection: Any, *_: object) -> Step | None:
        running = self.session(connection).call
        if running is not None:
            return Sending(self, running, None)
        if capture is None:
            unattributed.add()
        return None

    def _fetch(self, capture: Capture | None, cursor: Any, *_: object) -> Step | None:
        extra = kept_with(cursor).get(_EXTRA)
        return None if extra is None or capture is None else Fetch(self, cursor, extra)

    def _checkout(self, capture: Capture | None, *_: object) -> Step | None:
        return None if capture is None else Checkout(self, capture)

    def _opening(self, *_: object) -> Step | None:
        checkout = _checkouts.get(_task()) if _checkouts else None
        return None if checkout is None else Opening(self, checkout)

    def _select_db(
        self, capture: Capture | None, connection: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> Step | None:
        if capture is None:
            return None
        return Selection(self, connection, plain(args[0] if args else next(iter(kwargs.values()), None)))

    def _call(self, capture: Capture | None, cursor: Any, text: Any) -> Call | None:
        """A call of a cursor; None for one that another makes, or that nobody collects."""
        if capture is None:
            if not self.through_query:
                unattributed.add()
            return None
        call = Call(self, capture, self.connection(cursor), cursor, text)
        if call.session.call is not None:
            return None
        if not self.through_query:
            call.wire, call.apart, call.tried = 1, True, True
        kept = kept_with(cursor)
        if _EXTRA in kept:
            kept[_EXTRA] = None
        return call

    def _sending(self, capture: Capture | None, connection: Any, text: Any) -> Step | None:
        """A statement of the running call, or a call of its own; None where nobody collects."""
        running = self.session(connection).call
        if running is not None:
            return Sending(self, running, text)
        if capture is None:
            return None
        call = Call(self, capture, connection, None, text)
        call.wire, call.sent = 1, text
        return call

    def _around(self, begin: Begin, original: Any, get: Get, *, awaits: bool | None = None) -> FunctionType:
        """Put a method around the original one, for what `begin` makes of its arguments."""
        if self.awaits if awaits is None else awaits:

            async def awaited(owner: Any, /, *given: Any, **kwargs: Any) -> Any:
                args, step = list(given), None
                try:
                    step = begin(get(), owner, args, kwargs)
                except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
                    fault(self.name, error)
                if step is None:
                    return await original(owner, *args, **kwargs)
                with step:
                    step.result = await original(owner, *args, **kwargs)
                    return step.result

            return awaited  # type: ignore[return-value]

        def called(owner: Any, /, *given: Any, **kwargs: Any) -> Any:
            args, step = list(given), None
            try:
                step = begin(get(), owner, args, kwargs)
            except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
                fault(self.name, error)
            if step is None:
                return original(owner, *args, **kwargs)
            with step:
                step.result = original(owner, *args, **kwargs)
                return step.result

        return called  # type: ignore[return-value]


#: What is kept with objects that have no place for it.
_beside: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


def kept_with(thing: Any) -> dict[str, Any]:
    """What hooks keep with one of the driver's objects: in its attributes, or beside it where it has none."""
    try:
        attributes: dict[str, Any] = vars(thing)
    except TypeError:
        try:
            return _beside.setdefault(thing, {})
        except TypeError:  # nothing can be kept with it
            return {}
    return attributes


def begun(call: Call, ends: re.Pattern[str] = _ENDS) -> bool | None:
    """Whether a transaction was begun, where only the statements tell; None after what matches `ends`."""
    session, head = call.session, plain(call.text)[:_HEAD_CHARS]
    if _BEGINS.match(head):
        session.begun = True
    elif ends.match(head):
        session.begun = False
        return None
    return session.begun


def _task() -> object:
    from asyncio import current_task  # noqa: PLC0415 - who awaits has imported it

    return current_task()


def _argument(args: list[Any], kwargs: dict[str, Any], position: int, name: str) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


def size(sets: Any) -> int | None:
    """How many; None where asking does not tell."""
    try:
        return len(sets)
    except Exception:  # noqa: BLE001 - it has no length, or one that cannot be told
        return None


def plain(text: Any) -> str:
    """A statement, or a name, as text; of a long one only the beginning is looked at where it has to be decoded."""
    if isinstance(text, str):
        return text
    return bytes(text[:_HEAD_CHARS]).decode("utf-8", "replace") if isinstance(text, (bytes, bytearray)) else ""
