"""psycopg 3: what its generators do, which drive a connection alike for threads and for asyncio.

Each is run while the connection's lock is held, so that no wait for another's statement is in a duration. What psycopg
sends by itself (BEGIN, COMMIT, SAVEPOINT, FETCH, CLOSE) goes through `Connection._exec_command`.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from perf_middleware.collector.context import unattributed
from perf_middleware.collector.noting import counted
from perf_middleware.collector.parameters import params_token
from perf_middleware.collector.postgresql import INSIDE, NO_PARAMETERS, Session, database, error_name, note, text_of
from perf_middleware.collector.rows import COUNTING, Extra
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FunctionType, ModuleType

    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.patching import Patches

    Get = Callable[[], Capture | None]
    Steps = Generator[Any, Any, Any]

MODULE = "psycopg"

_TARGET = "_perf_middleware_target"
_BAD = 1  # libpq's status of a connection that is lost or closed
_TUPLES_OK = 2  # its status of a result that has rows
_COPY_IN = 4  # and of one that wants rows
_ABORTED = "PipelineAborted"

#: Of queries that go on after they were noted, by cursor: server-side ones, COPY, `executemany`, pipelines.
_extras: WeakKeyDictionary[Any, Extra] = WeakKeyDictionary()


class Connection(Session):
    """A connection of psycopg's.

    Attributes:
        pending: By the identity of an entry in its pipeline's queue: facts of the query whose result that waits for.
        fetching_ns: Since when results of a pipeline are waited for; 0 when none are.
        stream: What `Cursor.stream` sent, until the first row is there.

    """

    __slots__ = ("fetching_ns", "pending", "stream")

    def __init__(self, db: str | None, *, awaited: bool = False) -> None:
        super().__init__(db, awaited=awaited)
        self.pending: dict[int, Extra] = {}
        self.fetching_ns = 0
        self.stream: Statement | None = None


def hook(module: ModuleType, patches: Patches) -> None:
    """Patch the methods of psycopg's base classes; connections opened before are seen too."""
    cursor, server_cursor, connection = module.Cursor, module.ServerCursor, module.Connection
    for owner, name, make in (
        (cursor, "_execute_gen", _execute),
        (cursor, "_maybe_prepare_gen", _maybe_prepare),
        (cursor, "_stream_send_gen", _stream_send),
        (cursor, "_stream_fetchone_gen", _stream_fetchone),
        (cursor, "_start_copy_gen", _start_copy),
        (cursor, "executemany", _executemany),
        (module.AsyncCursor, "executemany", _executemany_async),
        (server_cursor, "_declare_gen", _declare),
        (server_cursor, "_fetch_gen", _cursor_fetch),
        (server_cursor, "_scroll_gen", _cursor_command),
        (server_cursor, "_close_gen", _cursor_command),
        (module.Copy, "finish", _finish_copy),
        (module.AsyncCopy, "finish", _finish_copy_async),
        (module.Pipeline, "_fetch_gen", _pipeline_fetch),
        (module.Pipeline, "_process_results", _process_results),
        (connection, "_exec_command", _exec_command),
        (connection, "close", _close),
        (module.AsyncConnection, "close", _close_async),
    ):
        patches.replace(_definer(owner, name), name, make)


def _definer(owner: type, name: str) -> type:
    """The class that has the method for all who inherit it; which module that is in is not the same in each version."""
    for base in owner.__mro__:
        if name in vars(base):
            return base
    raise AttributeError(f"psycopg's {owner.__name__} has no {name}")


# ------------------------------------------------------------------------------------------------------- one statement


class Statement:
    """One that is being run: made before, noted after."""

    __slots__ = ("capture", "connection", "cursor", "extra", "params", "query", "session", "start_ns", "was_open")

    def __init__(self, capture: Capture, cursor: Any, query: Any, params: Any, extra: Extra | None = None) -> None:
        self.capture, self.cursor, self.query, self.params = capture, cursor, query, params
        self.extra = extra
        self.connection = cursor._conn  # noqa: SLF001 - what its methods use themselves
        self.session = target_of(self.connection)
        self.was_open = _is_open(self.connection)
        self.start_ns = perf_counter_ns()

    def failed(self, error: BaseException) -> None:
        """Take in what went wrong, and whether the statement had left before."""
        if self.extra is None:
            self.extra = Extra()
        self.extra.error = _error(error)
        if self.extra.many is None:
            lost = self.was_open and not _is_open(self.connection)
            self.extra.wire = int(_was_answered(error) or lost or not isinstance(error, Exception))

    def note(self, rows: int | None) -> None:
        """Note it, as ended now."""
        end_ns = perf_counter_ns()
        try:
            session = self.session
            session.inside = _inside(self.connection, session)
            query, extra, token = self.query, self.extra, None
            if not isinstance(query, (str, bytes)):
                query = text_of(query, self.cursor)
            if self.capture.keep and (extra is None or extra.many is None):
                token = NO_PARAMETERS if self.params is None else params_token(self.params)
            if extra is not None and extra.error is not None:
                rows = extra.rows = None
            note(self.capture, session, query, token, max(self.start_ns, session.since_ns), end_ns, rows, extra)
        except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
            fault("psycopg", error)


def _drive(run: Callable[[Statement, Steps], Steps], statement: Statement, steps: Steps) -> Steps:
    """Have the steps seen by `run`; on a closed connection none will be taken."""
    if statement.was_open:
        return run(statement, steps)
    try:
        statement.connection.fileno()  # as psycopg is about to do
    except Exception as error:  # noqa: BLE001 - which it will meet itself
        statement.failed(error)
        statement.note(None)
    return steps


def _run(statement: Statement, steps: Steps, *, rows: bool = True) -> Steps:
    try:
        result = yield from steps
    except BaseException as error:
        statement.failed(error)
        raise
    finally:
        statement.note(statement.cursor._rowcount if rows else None)  # noqa: SLF001
    return result


def _execute(original: Any, get: Get) -> FunctionType:
    def _execute_gen(self: Any, query: Any, params: Any = None, **options: Any) -> Steps:
        capture = get()
        steps: Steps = original(self, query, params, **options)
        if capture is None:
            unattributed.add()
            return steps
        statement = Statement(capture, self, query, params)
        run = _run if self._conn._pipeline is None else _run_piped  # noqa: SLF001
        return _drive(run, statement, steps)

    return _execute_gen  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------- several, and in a pipeline


def _run_piped(statement: Statement, steps: Steps) -> Steps:
    """What is sent now, and answered later: the extra's number of statements, rows and error come then."""
    extra = statement.extra = _extras[statement.cursor] = Extra(wire=0)
    try:
        return (yield from steps)
    except BaseException as error:
        if not extra.wire:  # otherwise it is another's that was sent before
            statement.failed(error)
        raise
    finally:
        _extras.pop(statement.cursor, None)
        statement.note(None)


def _maybe_prepare(original: Any, get: Get) -> FunctionType:
    def _maybe_prepare_gen(self: Any, pgq: Any, **options: Any) -> Steps:
        steps: Steps = original(self, pgq, **options)
        extra = _extras.get(self)
        return steps if extra is None or get() is None else _send(self, extra, steps)

    return _maybe_prepare_gen  # type: ignore[return-value]


def _send(cursor: Any, extra: Extra, steps: Steps) -> Steps:
    """Count one set of parameters, and know it again when its result comes."""
    connection = cursor._conn  # noqa: SLF001
    session = target_of(connection)
    if not extra.wire:
        session.since_ns = perf_counter_ns()  # the lock was waited for until now, and a transaction begun
    try:
        yield from steps
    except BaseException as error:
        extra.wire += _was_answered(error)
        raise
    extra.wire += 1
    pipeline = connection._pipeline  # noqa: SLF001
    if pipeline is not None and pipeline.result_queue:
        session.pending[id(pipeline.result_queue[-1])] = extra


def _process_results(original: Any, get: Get) -> FunctionType:
    def _process_results(self: Any, queued: Any, results: Any) -> Any:
        session = self._conn.__dict__.get(_TARGET)
        extra = None if session is None else session.pending.pop(id(queued), None)
        if extra is None or get() is None:
            return original(self, queued, results)
        try:
            original(self, queued, results)
        except BaseException as error:
            extra.error = extra.error or _error(error)
            extra.wire -= type(error).__name__ == _ABORTED  # the server has not looked at it
            extra.rows = None
            raise
        _answered(session, extra, queued, results)
        return None

    return _process_results  # type: ignore[return-value]


def _answered(session: Connection, extra: Extra, queued: Any, results: Any) -> None:
    try:
        rows = sum(result.ntuples if result.status == _TUPLES_OK else result.command_tuples or 0 for result in results)
        if session.fetching_ns and queued[0] not in _extras:
            now_ns = perf_counter_ns()
            extra.fetched(now_ns - session.fetching_ns, rows)
            session.fetching_ns = now_ns
        elif extra.error is None:
            extra.rows = (extra.rows or 0) + rows
    except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
        fault("psycopg", error)


def _pipeline_fetch(original: Any, get: Get) -> FunctionType:
    def _fetch_gen(self: Any, **options: Any) -> Steps:
        steps: Steps = original(self, **options)
        session = self._conn.__dict__.get(_TARGET)
        return steps if session is None or not session.pending or get() is None else _fetch_piped(session, steps)

    return _fetch_gen  # type: ignore[return-value]


def _fetch_piped(session: Connection, steps: Steps) -> Steps:
    session.fetching_ns = perf_counter_ns()
    try:
        return (yield from steps)
    finally:
        session.fetching_ns = 0


class _Many:
    """An `executemany`, with the pipeline that it opens and ends for itself."""

    def __init__(self, capture: Capture, cursor: Any, query: Any, sets: Any) -> None:
        self.size: Callable[[], int] = sets.__len__ if hasattr(sets, "__len__") else lambda: 0
        self.sets = sets
        if not hasattr(sets, "__len__") and hasattr(sets, "__iter__"):
            self.sets, self.size = counted(sets)
        self.extra = Extra(many=0, wire=0)
        self.statement = Statement(capture, cursor, query, None, self.extra)

    def __enter__(self) -> Any:
        _extras[self.statement.cursor] = self.extra
        return self.sets

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        _extras.pop(self.statement.cursor, None)
        self.extra.many = self.size()
        if error is not None:
            self.statement.failed(error)
        if self.extra.many or error is not None:
            self.statement.note(None)


def _executemany(original: Any, get: Get) -> FunctionType:
    def executemany(self: Any, query: Any, params_seq: Any, **options: Any) -> Any:
        capture = get()
        if capture is None:
            unattributed.add()
            return original(self, query, params_seq, **options)
        with _Many(capture, self, query, params_seq) as sets:
            return original(self, query, sets, **options)

    return executemany  # type: ignore[return-value]


def _executemany_async(original: Any, get: Get) -> FunctionType:
    async def executemany(self: Any, query: Any, params_seq: Any, **options: Any) -> Any:
        capture = get()
        if capture is None:
            unattributed.add()
            return await original(self, query, params_seq, **options)
        with _Many(capture, self, query, params_seq) as sets:
            return await original(self, query, sets, **options)

    return executemany  # type: ignore[return-value]


# -------------------------------------------------------------------------------- rows that come later: stream and COPY


def _stream_send(original: Any, get: Get) -> FunctionType:
    def _stream_send_gen(self: Any, query: Any, params: Any = None, **options: Any) -> Steps:
        capture = get()
        steps: Steps = original(self, query, params, **options)
        if capture is None:
            unattributed.add()
            return steps
        return _drive(_start_stream, Statement(capture, self, query, params), steps)

    return _stream_send_gen  # type: ignore[return-value]


def _start_stream(statement: Statement, steps: Steps) -> Steps:
    try:
        yield from steps
    except BaseException as error:
        statement.failed(error)
        statement.note(None)
        raise
    statement.session.stream = statement


def _stream_fetchone(original: Any, get: Get) -> FunctionType:
    def _stream_fetchone_gen(self: Any, first: Any) -> Steps:
        steps: Steps = original(self, first)
        if not first or get() is None:
            return steps
        session = target_of(self._conn)
        statement, session.stream = session.stream, None
        return steps if statement is None else _first_row(statement, steps)

    return _stream_fetchone_gen  # type: ignore[return-value]


def _first_row(statement: Statement, steps: Steps) -> Steps:
    rows = None
    try:
        result = yield from steps
        rows = 0 if result is None else None
    except BaseException as error:
        statement.failed(error)
        raise
    finally:
        statement.note(rows)
    return result


def _start_copy(original: Any, get: Get) -> FunctionType:
    def _start_copy_gen(self: Any, statement: Any, params: Any = None) -> Steps:
        capture = get()
        steps: Steps = original(self, statement, params)
        if capture is None:
            unattributed.add()
            return steps
        return _drive(_run_open, Statement(capture, self, statement, params, Extra()), steps)

    return _start_copy_gen  # type: ignore[return-value]


def _run_open(statement: Statement, steps: Steps) -> Steps:
    """What is noted now, and goes on as long as the cursor does."""
    result = yield from _run(statement, steps, rows=False)
    assert statement.extra is not None
    _extras[statement.cursor] = statement.extra
    return result


class _Finish:
    """The end of a COPY: the server has taken, or given, all rows."""

    def __init__(self, copy: Any, extra: Extra, aborted: BaseException | None) -> None:
        self.copy, self.extra, self.aborted = copy, extra, aborted
        self.start_ns = perf_counter_ns()

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        took_ns = perf_counter_ns() - self.start_ns
        try:
            cursor, extra = self.copy.cursor, self.extra
            writes = self.copy._direction == _COPY_IN  # noqa: SLF001
            error = error or (self.aborted if writes else None)
            if error is not None:
                extra.error = _error(error)
            elif writes:
                extra.fetched(took_ns, cursor._results[-1].command_tuples or 0)  # noqa: SLF001
            else:
                extra.rows = cursor._rowcount  # noqa: SLF001
        except Exception as ours:  # noqa: BLE001 - a fault of ours is not the application's
            fault("psycopg", ours)


def _finish_copy(original: Any, get: Get) -> FunctionType:
    def finish(self: Any, exc: Any) -> Any:
        extra = _extras.pop(self.cursor, None)
        if extra is None or get() is None:
            return original(self, exc)
        with _Finish(self, extra, exc):
            return original(self, exc)

    return finish  # type: ignore[return-value]


def _finish_copy_async(original: Any, get: Get) -> FunctionType:
    async def finish(self: Any, exc: Any) -> Any:
        extra = _extras.pop(self.cursor, None)
        if extra is None or get() is None:
            return await original(self, exc)
        with _Finish(self, extra, exc):
            return await original(self, exc)

    return finish  # type: ignore[return-value]


# -------------------------------------------------------------------------------------------------- server-side cursors


def _declare(original: Any, get: Get) -> FunctionType:
    def _declare_gen(self: Any, query: Any, params: Any = None, *options: Any) -> Steps:
        capture = get()
        steps: Steps = original(self, query, params, *options)
        if capture is None:
            unattributed.add()
            return steps
        return _drive(_run_open, Statement(capture, self, query, params, Extra()), steps)

    return _declare_gen  # type: ignore[return-value]


def _cursor_fetch(original: Any, get: Get) -> FunctionType:
    def _fetch_gen(self: Any, num: Any) -> Steps:
        steps: Steps = original(self, num)
        extra = _extras.get(self)
        return steps if extra is None or get() is None else _fetch(self, extra, steps)

    return _fetch_gen  # type: ignore[return-value]


def _fetch(cursor: Any, extra: Extra, steps: Steps) -> Steps:
    start_ns = perf_counter_ns()
    try:
        rows = yield from _count(cursor, extra, steps)
    except BaseException as error:
        extra.error = extra.error or _error(error)
        raise
    extra.fetched(perf_counter_ns() - start_ns, len(rows))
    return rows


def _cursor_command(original: Any, get: Get) -> FunctionType:
    def command(self: Any, *args: Any) -> Steps:
        steps: Steps = original(self, *args)
        extra = _extras.get(self)
        return steps if extra is None or get() is None else _count(self, extra, steps)

    return command  # type: ignore[return-value]


def _count(cursor: Any, extra: Extra, steps: Steps) -> Steps:
    """Count the statements (FETCH, MOVE, CLOSE) that psycopg sends for a cursor."""
    session = target_of(cursor._conn)  # noqa: SLF001
    session.busy, session.wire = COUNTING, 0
    try:
        return (yield from steps)
    finally:
        session.busy = False
        extra.wire += session.wire


# --------------------------------------------------------------------------------------------------------- transactions


def _exec_command(original: Any, get: Get) -> FunctionType:
    def _exec_command(self: Any, command: Any, *args: Any, **options: Any) -> Steps:
        steps: Steps = original(self, command, *args, **options)
        capture = get()
        if capture is None:
            return steps
        session = target_of(self)
        if session.busy:
            session.wire += 1
            return steps
        if type(command) is bytes and command.startswith(b"DEALLOCATE"):  # of what psycopg prepared by itself
            return steps
        return _steer(capture, self, session, command, steps)

    return _exec_command  # type: ignore[return-value]


def _steer(capture: Capture, connection: Any, session: Connection, command: Any, steps: Steps) -> Steps:
    extra = None
    start_ns = perf_counter_ns()
    try:
        return (yield from steps)
    except BaseException as error:
        extra = Extra(error=_error(error), wire=int(_was_answered(error)))
        raise
    finally:
        end_ns = perf_counter_ns()
        try:
            text = command.decode() if isinstance(command, bytes) else text_of(command, connection)
            session.inside = _inside(connection, session)
            if session.inside is None or connection._pipeline is not None:  # noqa: SLF001 - it is not answered yet
                session.inside = not text.startswith(("COMMIT", "ROLLBACK")) or text.startswith("ROLLBACK TO")
            if text.startswith("BEGIN"):
                session.since_ns = end_ns
            note(capture, session, text, NO_PARAMETERS, start_ns, end_ns, None, extra)
        except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
            fault("psycopg", error)


class _Closing:
    """The server rolls back what is left open."""

    def __init__(self, capture: Capture, connection: Any) -> None:
        self.capture, self.connection = capture, connection
        self.session = target_of(connection)
        self.inside = _inside(connection, self.session)
        self.start_ns = perf_counter_ns()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        if not self.inside or _is_open(self.connection):
            return
        try:
            self.session.inside = False
            end_ns = perf_counter_ns()
            note(self.capture, self.session, "ROLLBACK", NO_PARAMETERS, self.start_ns, end_ns, None, None)
        except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
            fault("psycopg", error)


def _close(original: Any, get: Get) -> FunctionType:
    def close(self: Any) -> Any:
        capture = get()
        if capture is None:
            return original(self)
        with _Closing(capture, self):
            return original(self)

    return close  # type: ignore[return-value]


def _close_async(original: Any, get: Get) -> FunctionType:
    async def close(self: Any) -> Any:
        capture = get()
        if capture is None:
            return await original(self)
        with _Closing(capture, self):
            return await original(self)

    return close  # type: ignore[return-value]


# --------------------------------------------------------------------------------------------------------------- facts


def target_of(connection: Any) -> Connection:
    """The connection, seen from outside."""
    try:
        target: Connection | None = connection.__dict__.get(_TARGET)
        if target is None:
            info = connection.info
            db = database(info.host, info.port, info.dbname)
            target = connection.__dict__[_TARGET] = Connection(db, awaited=hasattr(connection, "__aenter__"))
    except Exception:  # noqa: BLE001 - a lost connection has no address; psycopg is about to say so
        return Connection(None)
    return target


def _is_open(connection: Any) -> bool:
    return bool(connection.pgconn.status != _BAD)


def _inside(connection: Any, session: Connection) -> bool | None:
    inside = INSIDE[connection.pgconn.transaction_status]
    return session.inside if inside is None else inside


def _was_answered(error: BaseException) -> bool:
    return getattr(error, "sqlstate", None) is not None


def _error(error: BaseException) -> str:
    return error_name(error, getattr(error, "sqlstate", None))
