"""`perf-middleware run MODULE:APP`: serve an application with every request measured, nothing to change in its code."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import closing, suppress
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from perf_middleware import collector
from perf_middleware.errors import PerfMiddlewareError
from perf_middleware.stores import DEFAULT_FILE_URL

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from perf_middleware.record import Finding, Profile
    from perf_middleware.settings import Options

Interface = Literal["WSGI", "ASGI"]

#: Names an application usually has, tried in turn when only a module was given.
USUAL_NAMES: Final = ("app", "application")

MAX_PORT: Final = 65535

#: Positional arguments of `app(environ, start_response)` and of `app(scope, receive, send)`.
_BY_ARGUMENTS: Final[dict[int | None, Interface]] = {2: "WSGI", 3: "ASGI"}


class RunError(PerfMiddlewareError):
    """Raised when the application cannot be found, imported or served; the message is for its developer."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb's arguments."""
    parser = subparsers.add_parser(
        "run",
        help="serve an application with every request measured",
        description="Serve a WSGI application by werkzeug or an ASGI one by uvicorn, every request measured.",
    )
    parser.add_argument("app", metavar="MODULE:APP", help="shop.views:app, shop:create_app(), or just shop")
    parser.add_argument("--dev", action="store_true", help="print each new finding once, with its line and its fix")
    parser.add_argument("--store", metavar="URL", help=f"where the stats go (default: {DEFAULT_FILE_URL})")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, then send what is left to the store.

    Raises:
        RunError: When the application cannot be found, imported or served.
        OptionError: When the store's URL is not accepted.

    """
    collector.install()  # before their imports, so that what connects while being imported is seen too
    try:
        _run(args)
    finally:
        collector.uninstall()
    return 0


def find_app(target: str) -> Any:
    """The application that `MODULE:APP` names, looked for in the current folder first.

    Raises:
        RunError: When there is none, or its code raises; then with the developer's own traceback.

    """
    module_name, _, name = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    module = _theirs(
        partial(importlib.import_module, module_name), f"{module_name} could not be imported, in {Path.cwd()}"
    )
    if not name:
        name = next((usual for usual in USUAL_NAMES if hasattr(module, usual)), USUAL_NAMES[0])
    try:
        found = attrgetter(name.removesuffix("()"))(module)
    except AttributeError:
        raise RunError(
            f"{module_name} has no {name.removesuffix('()')!r}: name the application as MODULE:APP"
        ) from None
    return _theirs(found, f"{target} failed") if name.endswith("()") else found


def interface_of(app: Any, target: str = "the application") -> Interface:
    """Whether an application is WSGI or ASGI: told by what it takes, and by whether it is a coroutine.

    Raises:
        RunError: When it is neither, or does not tell.

    """
    if not callable(app):
        raise RunError(f"{target} is a {type(app).__name__}, which cannot be called: name the application itself")
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None)):  # noqa: B004
        return "ASGI"
    required = _required_arguments(app)
    if required not in _BY_ARGUMENTS:
        raise RunError(
            f"{target} is neither WSGI, app(environ, start_response), nor ASGI, app(scope, receive, send). "
            "A function that makes the application is called with brackets: MODULE:create_app()"
        )
    return _BY_ARGUMENTS[required]


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        RunError: When the address cannot be had.

    """
    if not 0 <= port <= MAX_PORT:
        raise RunError(f"cannot listen on {host} port {port}: ports are numbers from 0 (takes any) to {MAX_PORT}")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"cannot listen on {host} port {port}: {reason}; try another --port (0 takes any)") from None


def make_folder(folder: Path) -> None:
    """Make the folder of the default store, which keeps itself out of version control.

    Raises:
        RunError: When it cannot be made.

    """
    try:
        folder.mkdir(exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
    except OSError as error:
        raise RunError(f"cannot keep stats in {folder}: {error.strerror}; name another place with --store") from None


class Announcer:
    """The sink of `--dev`: prints each finding the first time it is seen."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - an extra

        self._console = Console(highlight=False, soft_wrap=True)
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, profile: Profile) -> None:
        """Print what is new in this profile."""
        with self._lock:
            for finding in profile.findings:
                if finding.finding_id not in self._seen:
                    self._seen.add(finding.finding_id)
                    self._print(profile, finding)

    def _print(self, profile: Profile, finding: Finding) -> None:
        from rich.text import Text  # noqa: PLC0415

        style = {"low": "cyan", "medium": "yellow"}.get(finding.severity, "bold red")
        head = Text.assemble((f"{finding.kind} ({finding.severity})", style), f" {finding.title} [{profile.name}]")
        self._console.print(head)
        if finding.caller and finding.caller not in finding.title:
            self._console.print(Text(f"  {finding.caller}", "bold"))
        self._console.print(Text(f"  {finding.recommendation}"))


def _run(args: argparse.Namespace) -> None:
    app = find_app(args.app)
    kind = interface_of(app, args.app)
    serve = _serve_wsgi if kind == "WSGI" else _serve_asgi
    store = args.store or os.environ.get("PERF_MIDDLEWARE_STORE") or DEFAULT_FILE_URL
    if store == DEFAULT_FILE_URL:
        make_folder(Path(_shown(store)).parent)
    options: Options = {"store": store, "headers": "full"}
    if args.dev:
        options |= {"log": False, "sinks": [Announcer()]}
    with listen(args.host, args.port) as listener:
        host, port = f"[{args.host}]" if ":" in args.host else args.host, listener.getsockname()[1]
        greeting = f"Serving {args.app} ({kind}) on http://{host}:{port}\nStats are kept in {_shown(store)}"
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            serve(app, listener, options, greeting)


def _serve_wsgi(app: Any, listener: socket.socket, options: Options, greeting: str) -> None:
    from werkzeug.serving import make_server  # noqa: PLC0415 - an extra

    from perf_middleware.wsgi import PerfMiddleware  # noqa: PLC0415 - as late as the server

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the log sink has a line for each request
    with closing(PerfMiddleware(app, **options)) as middleware:
        host, port = listener.getsockname()[:2]
        print(greeting, flush=True)  # noqa: T201
        make_server(host, port, middleware, threaded=True, fd=listener.fileno()).serve_forever()


def _serve_asgi(app: Any, listener: socket.socket, options: Options, greeting: str) -> None:
    import uvicorn  # noqa: PLC0415 - an extra

    from perf_middleware.asgi import PerfMiddleware  # noqa: PLC0415 - as late as the server

    with closing(PerfMiddleware(app, **options)) as middleware:
        server = uvicorn.Server(uvicorn.Config(middleware, log_level="warning"))
        print(greeting, flush=True)  # noqa: T201
        with suppress(SystemExit):  # how newer releases end when the startup failed
            server.run(sockets=[listener])
        if not server.started:
            raise RunError("the application's startup failed; see the lines above")


def _theirs(call: Callable[[], Any], what: str) -> Any:
    """Run the developer's code; what it raises is shown with its own frames only."""
    try:
        return call()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever their code does
        frames = error.__traceback__
        while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
            frames = frames.tb_next
        shown = "".join(traceback.format_exception(error.with_traceback(frames))).rstrip()
        raise RunError(f"{what}\n{shown}") from None


def _is_ours(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")


def _required_arguments(app: Any) -> int | None:
    """How many positional arguments a call must have; None where the signature does not tell."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds and parameter.default is parameter.empty for parameter in parameters)


def _shown(store: str) -> str:
    """A store's URL without its credentials; the path, where it is a file."""
    url = urlsplit(store)
    if url.scheme == "sqlite":
        return store.removeprefix("sqlite:///")
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
