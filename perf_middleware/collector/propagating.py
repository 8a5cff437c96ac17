"""Work handed to another thread, counted to the profile that was open when it was handed over.

Nothing but our own two variables goes along, and only while the work runs: another library's context (a decimal
precision, a logger's bound values) stays as it would be without us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from perf_middleware.collector.caller import asked_by, find_caller
from perf_middleware.collector.context import current
from perf_middleware.errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    Pool = TypeVar("Pool", bound="Executor | type[Executor]")

P = ParamSpec("P")
R = TypeVar("R")


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """The function, counting to the profile that is open now wherever it is called; itself where none is open.

    A query in it that no line of the application's is seen to ask has the line that called us.
    """
    capture = current.get()
    if capture is None:
        return function
    place = None
    if capture.callers and capture.open:
        try:
            place = find_caller(2)
        except Exception as error:  # noqa: BLE001 - a fault of ours is not the application's
            fault("propagate", error)

    def carry(*args: P.args, **kwargs: P.kwargs) -> R:
        slot, asked = current.set(capture), asked_by.set(place)
        try:
            return function(*args, **kwargs)
        finally:
            asked_by.reset(asked)
            current.reset(slot)

    return carry


def propagate(executor: Pool) -> Pool:
    """Make a plain executor's jobs count to the profile that was open when they were submitted.

    Without it such jobs have no context and count as unattributed. Given a class, such as `ThreadPoolExecutor`, it
    does so for all its executors, those of libraries among them. Returns what it was given; a second call does nothing.

    Raises:
        TypeError: For an executor of processes: a context stays in its process.

    """
    elsewhere = _elsewhere()
    if issubclass(executor if isinstance(executor, type) else type(executor), elsewhere):
        raise TypeError("propagate() wants an executor of threads: the jobs of processes cannot be told apart here")
    submit: Any = executor.submit
    if getattr(submit, "propagates", False):
        return executor

    def submit_method(self: Executor, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> Any:
        return submit(self, function if isinstance(self, elsewhere) else carried(function), *args, **kwargs)

    def submit_in_context(function: Callable[..., R], /, *args: Any, **kwargs: Any) -> Any:
        return submit(carried(function), *args, **kwargs)

    propagating: Any = submit_method if isinstance(executor, type) else submit_in_context
    propagating.propagates = True
    propagating.__wrapped__ = submit
    setter: Any = executor
    setter.submit = propagating
    return executor


def _elsewhere() -> tuple[type, ...]:
    """Classes of executors whose jobs leave this interpreter."""
    from concurrent import futures  # noqa: PLC0415 - it brings multiprocessing

    return (futures.ProcessPoolExecutor, *filter(None, [getattr(futures, "InterpreterPoolExecutor", None)]))
