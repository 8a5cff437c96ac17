"""The error tree, and the one place where our own faults end."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import Final

FAULT_LOG_INTERVAL_S: Final = 60.0

#: How often each place failed since the process started, by "place: ExceptionClass". `doctor` shows it.
faults: Counter[str] = Counter()

_last_logged: float | None = None


class PerfMiddlewareError(Exception):
    """Base of every error this package raises on purpose."""


class OptionError(PerfMiddlewareError, ValueError):
    """Raised when an option is unknown or has a value that is not accepted."""


class RecordError(PerfMiddlewareError, ValueError):
    """Raised when a line is not a profile record."""


class StoreError(PerfMiddlewareError):
    """Raised when a store cannot be opened, read or written."""


def fault(place: str, error: Exception) -> None:
    """Count a failure of our own and log it at most once a minute; it never reaches the application.

    Only the class of the error is logged: the message of a driver's or a framework's error may quote values.
    """
    global _last_logged  # noqa: PLW0603 - one clock for the whole process is the point
    faults[f"{place}: {type(error).__name__}"] += 1
    now = time.monotonic()
    if _last_logged is not None and now - _last_logged < FAULT_LOG_INTERVAL_S:
        return
    _last_logged = now
    with suppress(Exception):  # a handler of the application's that raises has the last word nowhere
        warn("perf.fault place=%s error=%s total=%d", place, type(error).__name__, faults.total())


def warn(message: str, *values: object) -> None:
    """Log a warning of our own, under the name `perf_middleware`."""
    import logging  # noqa: PLC0415 - 0.4 MiB, in an application that logs nothing itself and where nothing goes wrong

    logging.getLogger("perf_middleware").warning(message, *values, stacklevel=2)
