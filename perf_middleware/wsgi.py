"""The WSGI door.

    app = PerfMiddleware(app, service="shop", store="redis://localhost")

Every behaviour of PEP 3333 stays legal: a list body is returned as it is, a `wsgi.file_wrapper` stays one, other
bodies stream through, and `close` is called once. The server's `start_response` is called when the application
returned a list, yielded its first item, or called `write`: so the headers tell the queries until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Unpack

from perf_middleware import frameworks
from perf_middleware.collector.context import Capture, current
from perf_middleware.headers import append
from perf_middleware.pipeline import Pipeline, configure
from perf_middleware.settings import Options, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextvars import Token

    StartResponse = Callable[..., Any]
    WSGIApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

#: The open profile's capture in the environ: what is wrapped twice, or calls itself with its environ, is profiled once.
_MARK = "perf_middleware.capture"


#: Status lines whose codes are remembered: an application has few of them, but may write anything into one.
MAX_CODES: Final = 64

_codes: dict[str, int] = {}

_IDS = {"HTTP_TRACEPARENT": "traceparent", "HTTP_X_REQUEST_ID": "x-request-id", "HTTP_X_PERF_ID": "x-perf-id"}


class PerfMiddleware:
    """Wraps a WSGI application; the options are those of `perf_middleware.settings.Settings`.

    Raises:
        OptionError: For an unknown option or a value that is not accepted.

    """

    def __init__(self, app: WSGIApp, **options: Unpack[Options]) -> None:
        self.app = app
        self.pipeline = configure(load(options))
        if self.pipeline is not None:
            frameworks.install()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        pipeline, outer = self.pipeline, environ.get(_MARK)
        if pipeline is None or (outer is not None and outer.open):
            return self.app(environ, start_response)
        headers_in = None if environ.keys().isdisjoint(_IDS) else _ids(environ)  # most requests have none
        capture = pipeline.begin("request", method=environ.get("REQUEST_METHOD", ""), headers_in=headers_in)
        if capture is None:
            return self.app(environ, start_response)
        environ[_MARK] = capture
        return _Request(pipeline, capture, environ, start_response).run(self.app)

    def close(self) -> None:
        """Send what is left to the store and unhook the drivers."""
        if self.pipeline is not None:
            self.pipeline.close()


class _Request:
    """The state of one request."""

    __slots__ = ("_capture", "_environ", "_file", "_held", "_ours", "_pipeline", "_server_start", "_started", "_status")

    def __init__(
        self, pipeline: Pipeline, capture: Capture, environ: dict[str, Any], start_response: StartResponse
    ) -> None:
        self._pipeline = pipeline
        self._capture = capture
        self._environ = environ
        self._server_start = start_response
        self._started: Callable[[bytes], Any] | None = None
        self._held: tuple[Any, ...] | None = None
        self._ours: list[tuple[str, str]] = []
        self._status: int | None = None
        self._file: Any = None

    def run(self, app: WSGIApp) -> Iterable[bytes]:
        """Call the application and pass its body on, finishing now if it is complete."""
        wrapper = self._environ.get("wsgi.file_wrapper")
        if wrapper is not None and not isinstance(wrapper, type):
            self._watch(wrapper)
        token = current.set(self._capture)
        try:
            body = app(self._environ, self._start_response)
            complete = isinstance(body, (list, tuple))
            is_file = not complete and self._is_file(body)
            if complete or is_file:
                self.send_headers()
        except BaseException as error:
            self.finish(error)
            raise
        finally:
            current.reset(token)
        if complete:
            self._pipeline.finish(self._capture, status=self._status)
        elif is_file:
            self._finish_on_close(body)
        else:
            return _Body(self, body)
        return body

    def resume(self) -> Token[Capture | None]:
        """Make the profile current while the application's code runs; gives the token to pause with."""
        return current.set(self._capture)

    def send_headers(self) -> None:
        """Hand a held `start_response` to the server, with our headers."""
        if self._held is not None:
            held, self._held = self._held, None
            self._ours = self._pipeline.answer(self._capture, self._environ, self._status)
            self._hand_over(*held)

    def _hand_over(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> None:
        if self._ours:
            headers = append(headers, self._ours, separator=", ")
        self._started = self._server_start(status, headers, *exc_info)

    def check_overdue(self) -> None:
        """Give up on a body that streams for longer than `max_duration_s`; it goes on unprofiled."""
        if self._capture.open and self._pipeline.is_overdue(self._capture):
            self._pipeline.finish(self._capture, status=self._status, truncated=True)

    def finish(self, error: BaseException | None) -> None:
        """Finish once."""
        status = 500 if error is not None and self._capture.first_byte_ns is None else self._status
        self._pipeline.finish(self._capture, status=status, error=error)

    def abandon(self) -> None:
        """Leave the end to the next request."""
        self._pipeline.abandon(self._capture, status=self._status)

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Hold the application's call until its first byte; `exc_info` replaces what was said before."""
        held = (status, headers, exc_info) if exc_info else (status, headers)
        if self._capture.first_byte_ns is not None or (self._held is not None and not exc_info):
            self.send_headers()
            self._hand_over(*held)  # the server knows whether it is too late, and raises if so
        else:
            self._held = held
        self._status = _codes[status] if type(status) is str and status in _codes else _status_code(status)
        return self._write

    def _write(self, data: bytes) -> Any:
        self.send_headers()
        assert self._started is not None, "the server's start_response gave no write()"
        return self._started(data)

    def _watch(self, wrapper: Callable[..., Any]) -> None:
        """Where the server's file wrapper is a function, note what it returns: only identity tells such a body."""

        def file_wrapper(*args: Any) -> Any:
            self._file = wrapper(*args)
            return self._file

        self._environ["wsgi.file_wrapper"] = file_wrapper

    def _is_file(self, body: Any) -> bool:
        wrapper = self._environ.get("wsgi.file_wrapper")
        return isinstance(body, wrapper) if isinstance(wrapper, type) else body is self._file and body is not None

    def _finish_on_close(self, body: Any) -> None:
        """Finish when the server closes a file body, which stays the server's own object."""
        close = getattr(body, "close", None)

        def close_and_finish() -> None:
            self.close(close)

        try:
            body.close = close_and_finish
        except AttributeError:  # an object without a __dict__: what it takes to send it is not known
            self.finish(None)

    def close(self, close: Callable[[], object] | None) -> None:
        """Call the application's `close` with the profile current, and finish."""
        token = self.resume()
        try:
            if close is not None:
                close()
        except BaseException as error:
            self.finish(error)
            raise
        finally:
            current.reset(token)
        self.finish(None)


class _Body:
    """The application's iterable, with the profile current only while its code runs."""

    def __init__(self, request: _Request, body: Iterable[bytes]) -> None:
        self._request: _Request | None = request
        self._body = body
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        request = self._request
        if request is None:
            raise StopIteration
        token = request.resume()
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            item = next(self._iterator)
        except StopIteration:
            request.send_headers()
            raise
        except BaseException as error:
            request.finish(error)
            raise
        finally:
            current.reset(token)
        request.send_headers()
        request.check_overdue()
        return item

    def close(self) -> None:
        """Close the application's body, once, and finish."""
        request, self._request = self._request, None
        if request is not None:
            request.close(getattr(self._body, "close", None))

    def __del__(self) -> None:
        """A body dropped without `close` (against PEP 3333) still leaves its record."""
        if self._request is not None:
            self._request.abandon()


def _ids(environ: dict[str, Any]) -> dict[str, str]:
    """The request's own ids by header name."""
    return {name: environ[key] for key, name in _IDS.items() if key in environ}


def _status_code(status: Any) -> int | None:
    """200 of "200 OK"; None where the application broke the rules, which is the server's to say."""
    try:
        code = int(str(status)[:3])
    except ValueError:
        return None
    if type(status) is str and len(_codes) < MAX_CODES:
        _codes[status] = code
    return code
