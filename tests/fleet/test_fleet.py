"""The issue's own measure of truth: what each request is said to have sent is what the server's general log has.

Real servers (gunicorn, uvicorn, MariaDB, Valkey), a connection for each request, many at a time. The requests are
small, so that thousands of them show a query that went to somebody else.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pymysql
import pytest

from perf_middleware.cli.demo import servers
from perf_middleware.record import read_jsonl
from perf_middleware.stats.read import routes
from perf_middleware.stores import open_store

HERE = Path(__file__).parent
LOGGED = re.compile(
    r"^(?:\d{6} [ \d:]+)?\t{1,2} *(\d+) Query\t(?!(?:SET|BEGIN|COMMIT|ROLLBACK|SAVEPOINT)\b)", re.MULTILINE
)
GUNICORN = ("gunicorn", "--log-level=error", "--bind=127.0.0.1:{port}")
UVICORN = ("uvicorn", "--log-level=error", "--host=127.0.0.1", "--port={port}", "starlette_app:app")
KINDS = ("read", "write", "many", "procedure", "failing", "stream")


class Fleet:
    """One server and what was sent to it: its log of profiles, its part of the store."""

    def __init__(self, name, command, paths, *, database, store, folder):
        self.name, self.command, self.paths, self.store = name, command, paths, store
        self.jsonl = folder / f"{name}.jsonl"
        self.output = folder / f"{name}.output"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(HERE),
            "FLEET_DATABASE": json.dumps(database),
            "PERF_MIDDLEWARE_SERVICE": name,
            "PERF_MIDDLEWARE_STORE": store,
            "PERF_MIDDLEWARE_JSONL": str(self.jsonl),
            "PERF_MIDDLEWARE_LOG": "false",
            "PERF_MIDDLEWARE_MAX_OVERHEAD_PERCENT": "0",  # the rows of all are compared
            "PERF_MIDDLEWARE_FLUSH_INTERVAL_S": "0.5",
        }
        self.sent = {}

    def run(self, requests, concurrency):
        """Serve and send all requests; afterwards the server has ended and told the store everything."""

        def command(port):
            return [sys.executable, "-m", *(part.format(port=port) for part in self.command)]

        with (
            servers.listening(self.name, command, ready=answers, output=self.output, env=self.environment) as port,
            ThreadPoolExecutor(concurrency) as clients,
        ):
            shares = [range(first, requests, concurrency) for first in range(concurrency)]
            for sent in clients.map(lambda numbers: self.send(port, numbers), shares):
                self.sent.update(sent)

    def send(self, port, numbers):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        sent = {}
        for number in numbers:
            path = self.paths[number % len(self.paths)].format(number * 7 % 5)
            client.request("GET", path, headers={"X-Perf-Id": f"r{number}"})
            response = client.getresponse()
            response.read()
            assert response.status == 200, (path, self.output.read_text()[-2000:])
            sent[f"r{number}"] = (path, int(response.headers["X-Connection"]), int(response.headers["X-Perf-Queries"]))
        client.close()
        return sent

    def check(self, logged):
        """Each request, and the sum of all in the store, against the server's log of statements by connection."""
        with self.jsonl.open("rb") as lines:
            read = [profile for _, profile in read_jsonl(lines)]
        profiles = {profile.id: profile for profile in read}
        assert len(read) == len(profiles) == len(self.sent)
        wrong = []
        for key, (path, connection, told) in self.sent.items():
            profile = profiles[key]
            wire = sum(query.wire for query in profile.queries)
            kind = path.split("/")[-2]
            if wire != logged[connection]:
                wrong.append((path, wire, logged[connection]))
            if kind not in ("many", "stream", "background") and told != logged[connection]:
                wrong.append((path, "header", told, logged[connection]))
            mark = "of_read" if kind == "background" else f"of_{kind}"
            wrong += [(path, query.fingerprint) for query in profile.queries if mark not in query.fingerprint]
        assert wrong == []
        stats = routes(open_store(self.store), self.name, window_s=3600)
        assert stats.n == len(self.sent)
        assert stats.queries == sum(profile.query_count for profile in read)


def answers(port):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        client.connect()
    except OSError:
        return False
    finally:
        client.close()
    return True


@pytest.fixture
def fleet(mariadb, valkey_url, tmp_path):
    """Make a fleet; `logged()` gives the number of statements by connection from the server's general log."""
    database = {
        "host": mariadb.host,
        "port": mariadb.port,
        "user": mariadb.user,
        "password": mariadb.password,
        "database": mariadb.database,
        "autocommit": True,
        "ssl_disabled": True,  # loading the certificates would take 25 ms a connection
    }
    connection = pymysql.connect(**database)
    with connection.cursor() as cursor:
        cursor.execute("SET GLOBAL general_log = 1")
        cursor.execute("CREATE OR REPLACE TABLE fleet (of_write INT, of_many INT) ENGINE=InnoDB")
        cursor.execute("CREATE OR REPLACE PROCEDURE fleet_of_procedure(IN a INT) BEGIN DO a; END")

    def make(name, command, paths):
        return Fleet(name, command, paths, database=database, store=valkey_url, folder=tmp_path)

    make.logged = lambda: Counter(map(int, LOGGED.findall(mariadb.general_log.read_text(errors="replace"))))
    yield make
    connection.close()


def test_five_thousand_requests_of_two_servers_are_told_as_the_database_saw_them(fleet):
    threads = fleet(
        "threads",
        (*GUNICORN, "--workers=2", "--threads=4", "flask_app:app"),
        [f"/{kind}/{{}}" for kind in KINDS],
    )
    loop = fleet(
        "loop",
        UVICORN,
        [f"/{where}/{kind}/{{}}" for kind in (*KINDS, "background") for where in ("loop", "thread")],
    )
    with ThreadPoolExecutor(2) as both:
        for done in [both.submit(each.run, 2500, 8) for each in (threads, loop)]:
            done.result()
    logged = fleet.logged()
    threads.check(logged)
    loop.check(logged)


@pytest.mark.parametrize(
    ("name", "options"),
    [("sync", ("--worker-class=sync", "--workers=2")), ("preload", ("--preload", "--workers=2", "--threads=2"))],
)
def test_other_ways_to_serve_tell_the_same(fleet, name, options):
    server = fleet(name, (*GUNICORN, *options, "flask_app:app"), [f"/{kind}/{{}}" for kind in KINDS])
    server.run(120, 4)
    server.check(fleet.logged())
