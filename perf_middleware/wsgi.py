"""The WSGI door.

    app = PerfMiddleware(app, service="shop", store="redis://localhost")

Every behaviour of PEP 3333 stays legal: a list body is returned as it is, a `wsgi.file_wrapper` stays one, other
bodies stream through, and `close` is called once. The server's `start_response` is called when the application
returned a list, yielded its first item, or called `write`: so the headers tell the queries until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from perf_middleware import frameworks
from perf_middleware.collector.context import Capture, current
from perf_middleware.headers import append
from perf_middleware.pipeline import Pipeline
from perf_middleware.settings import Options, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    StartResponse = Callable[..., Any]
    WSGIApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

_MARK = "perf_middleware.profiled"


class PerfMiddleware:
    """Wraps a WSGI application; the options are those of `perf_middleware.settings.Settings`.

    Raises:
        OptionError: For an unknown option or a value that is not accepted.

    """

    def __init__(self, app: WSGIApp, **options: Unpack[Options]) -> None:
        self.app = app
        settings = load(options)
        self.pipeline = Pipeline(settings) if settings.enabled else None
        if self.pipeline is not None:
            frameworks.install()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        pipeline = self.pipeline
        if pipeline is None or _MARK in environ:
            return self.app(environ, start_response)
        capture = pipeline.begin(
            "request",
            method=environ.get("REQUEST_METHOD", ""),
            headers_in={
                "traceparent": environ.get("HTTP_TRACEPARENT"),
                "x-request-id": environ.get("HTTP_X_REQUEST_ID"),
                "x-perf-id": environ.get("HTTP_X_PERF_ID"),
            },
        )
        if capture is None:
            return self.app(environ, start_response)
        environ[_MARK] = True
        capture.root_path = environ.get("SCRIPT_NAME", "")
        return _Request(pipeline, capture, environ, start_response).run(self.app)

    def close(self) -> None:
        """Send what is left to the store and unhook the drivers."""
        if self.pipeline is not None:
            self.pipeline.close()


class _Request:
    """The state of one request."""

    __slots__ = ("_capture", "_environ", "_held", "_pipeline", "_server_start", "_server_write", "_status")

    def __init__(
        self, pipeline: Pipeline, capture: Capture, environ: dict[str, Any], start_response: StartResponse
    ) -> None:
        self._pipeline = pipeline
        self._capture = capture
        self._environ = environ
        self._server_start = start_response
        self._server_write: Callable[[bytes], Any] | None = None
        self._held: tuple[Any, ...] | None = None
        self._status: int | None = None

    def run(self, app: WSGIApp) -> Iterable[bytes]:
        """Call the application and pass its body on, finishing now if it is complete."""
        token = current.set(self._capture)
        try:
            body = app(self._environ, self._start_response)
        except BaseException as error:
            self.finish(error)
            raise
        finally:
            current.reset(token)
        if isinstance(body, (list, tuple)):
            try:
                self.send_headers()
            finally:
                self.finish(None)
            return body
        if self._is_file(body):
            try:
                self.send_headers()
            finally:
                self._finish_on_close(body)
            return body
        return _Body(self, body)

    def resume(self) -> Any:
        """Make the profile current while the application's code runs; gives the token to pause with."""
        return current.set(self._capture)

    def send_headers(self) -> None:
        """Hand a held `start_response` to the server, with our headers."""
        if self._held is None:
            return
        (status, headers, *exc_info), self._held = self._held, None
        ours = self._pipeline.answer(self._capture, self._environ, self._status)
        self._server_write = self._server_start(status, append(headers, ours), *exc_info)

    def check_overdue(self) -> None:
        """Give up on a body that streams for longer than `max_duration_s`; it goes on unprofiled."""
        if self._capture.open and self._pipeline.is_overdue(self._capture):
            self._pipeline.finish(self._capture, status=self._status, truncated=True)

    def finish(self, error: BaseException | None) -> None:
        """Finish once; a client that hung up (`GeneratorExit`) is no error of the application."""
        failed = error is not None and not isinstance(error, GeneratorExit)
        status = 500 if failed and self._capture.first_byte_ns is None else self._status
        self._pipeline.finish(self._capture, status=status, error=error if failed else None)

    def _start_response(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], Any]:
        given = bool(exc_info) and exc_info[0] is not None
        if self._server_write is not None or (self._held is not None and not given):
            self.send_headers()  # a second call without exc_info is a mistake, and the server's to refuse
            self._server_write = self._server_start(status, headers, *exc_info)
            return self._server_write
        self._held = (status, headers, *exc_info)
        self._status = _status_code(status)
        return self._write

    def _write(self, data: bytes) -> Any:
        self.send_headers()
        assert self._server_write is not None
        return self._server_write(data)

    def _is_file(self, body: Any) -> bool:
        wrapper = self._environ.get("wsgi.file_wrapper")
        return isinstance(wrapper, type) and isinstance(body, wrapper)

    def _finish_on_close(self, body: Any) -> None:
        """Finish when the server closes a file body, which stays the server's own object."""
        inner = getattr(body, "close", None)

        def close() -> None:
            try:
                if inner is not None:
                    inner()
            finally:
                self.finish(None)

        try:
            body.close = close
        except AttributeError:
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
            current.reset(token)
            request.send_headers()
            raise
        except BaseException as error:
            current.reset(token)
            request.finish(error)
            raise
        current.reset(token)
        request.send_headers()
        request.check_overdue()
        return item

    def close(self) -> None:
        """Close the application's body, once, and finish."""
        request, self._request = self._request, None
        if request is None:
            return
        token = request.resume()
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            current.reset(token)
            request.finish(None)

    def __del__(self) -> None:
        """A body dropped without `close` (against PEP 3333) still leaves its record."""
        if self._request is not None:
            self._request.finish(None)


def _status_code(status: Any) -> int | None:
    """200 of "200 OK"; None where the application broke the rules, which is the server's to say."""
    try:
        return int(str(status)[:3])
    except ValueError:
        return None
