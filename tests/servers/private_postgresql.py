"""A private PostgreSQL for the tests, made like the servers of the demo; its log tells what each connection sent."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec

from perf_middleware.cli.demo import servers

#: Of a backend: its process, what kind of entry it is, and the text, whose further lines begin with a tab.
_ENTRY = re.compile(r"^(\d+) (LOG|ERROR|FATAL|STATEMENT):  (.*(?:\n\t.*)*)", re.MULTILINE)
_LOGGED = re.compile(r"(?:statement|execute [^:]*): ")
_STEERS = re.compile(r"(?:BEGIN|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET|RESET|DEALLOCATE)\b", re.IGNORECASE)


class PostgreSQL(msgspec.Struct, frozen=True):
    """How to reach a private PostgreSQL, whose user may do everything.

    Attributes:
        folder: Of its Unix socket.
        log: File the server writes every statement to, before it runs.

    """

    host: str
    port: int
    user: str
    password: str
    database: str
    folder: Path
    log: Path

    def __repr__(self):
        """Without the password: pytest prints fixtures."""
        return f"PostgreSQL({self.user}@{self.host}:{self.port}/{self.database})"

    @property
    def url(self):
        return f"postgresql://{self.user}:{quote(self.password)}@{self.host}:{self.port}/{self.database}"

    @property
    def db(self):
        """What a record calls it."""
        return f"{self.host}:{self.port}/{self.database}"

    def sent(self, pid):
        """The statements that a connection's backend was sent, less what steers sessions and transactions.

        A text that cannot be parsed, or whose tables are missing, is in the log with its error only.
        """
        statements, failed = [], False
        for number, kind, text in _ENTRY.findall(self.log.read_text(errors="replace")):
            if int(number) != pid:
                continue
            lines = text.replace("\n\t", "\n")
            if kind == "LOG" and (match := _LOGGED.match(lines)):
                statements.append(lines[match.end() :])
                failed = False
            elif kind == "STATEMENT" and (failed or statements[-1:] != [lines]):
                statements.append(lines)
            failed = failed or kind == "STATEMENT"
        return [text for text in statements if not _STEERS.match(text)]


@contextmanager
def postgresql():
    """Run a private PostgreSQL with one user and one empty database.

    Raises:
        ServerMissingError: When PostgreSQL is not installed.
        ServerError: When it does not start.

    """
    programs = _programs()
    with servers.temporary_folder() as folder:
        password, output, data = secrets.token_hex(16), folder / "output", folder / "data"
        (folder / "password").write_text(password)
        data.mkdir()
        for path in (folder, data, folder / "password"):
            _hand_over(path)
        _run(
            *(programs / "initdb", "--pgdata", data, "--username=perf", f"--pwfile={folder / 'password'}"),
            *("--auth-local=trust", "--auth-host=password", "--encoding=UTF8", "--locale=C", "--no-sync"),
        )

        def command(port):
            settings = {
                "listen_addresses": servers.HOST,
                "unix_socket_directories": folder,
                "max_connections": 250,
                "shared_buffers": "16MB",
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
                "log_statement": "all",
                "log_line_prefix": "%p ",
                "log_error_verbosity": "terse",
            }
            options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
            return [*_as_owner(), str(programs / "postgres"), "-D", str(data), "-p", str(port), *options]

        def ready(port):
            asked = [programs / "pg_isready", "--quiet", "--host", folder, "--port", str(port)]
            return subprocess.run(asked, check=False).returncode == 0

        with servers.listening("PostgreSQL", command, ready=ready, output=output) as port:
            _run(programs / "createdb", "--host", folder, "--port", str(port), "--username=perf", "perf")
            yield PostgreSQL(servers.HOST, port, "perf", password, "perf", folder, output)
            # Otherwise it would wait for connections that a failed test has left open.
            os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGINT)


def _programs():
    """The folder of the server's programs, which Debian has not on the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    path = shutil.which("initdb", path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders[-1:])]))
    if path is None:
        raise servers.ServerMissingError(
            "PostgreSQL's initdb is not installed. On Debian or Ubuntu: apt-get install postgresql"
        )
    return Path(path).resolve().parent


def _as_owner():
    """PostgreSQL refuses to run as root: the user of its package then owns it. `setpriv` keeps the process id."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


def _hand_over(path):
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")


def _run(*command):
    done = subprocess.run(
        [*_as_owner(), *map(str, command)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise servers.ServerError(f"{command[0].name} ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
