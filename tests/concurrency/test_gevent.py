"""gevent, by its own server and by gunicorn's worker: a greenlet for each request, a socket's wait lets others run."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from perf_middleware.cli.demo import servers
from perf_middleware.record import read_jsonl

HERE = Path(__file__).parent
CLIENTS = 16  # as many as the application's barrier waits for
SERVERS = {
    "pywsgi": (str(HERE / "gevent_app.py"), "{port}"),
    "gunicorn": ("-m", "gunicorn", "-k", "gevent", "--log-level=error", "--bind=127.0.0.1:{port}", "gevent_app:app"),
}


@pytest.fixture(params=SERVERS)
def served(request, mariadb, tmp_path):
    """`served(requests)` sends (kind, owner, count)s from as many clients at once and gives the profiles by id."""
    database = {name: getattr(mariadb, name) for name in ("host", "port", "user", "password", "database")}
    jsonl, output = tmp_path / "profiles.jsonl", tmp_path / "output"
    env = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "GEVENT_DATABASE": json.dumps({**database, "ssl_disabled": True}),
        "PERF_MIDDLEWARE_JSONL": str(jsonl),
        "PERF_MIDDLEWARE_LOG": "false",
    }

    def command(port):
        return [sys.executable, *(part.format(port=port) for part in SERVERS[request.param])]

    def send(client, requests):
        for kind, owner, count in requests:
            client.request("GET", f"/{kind}/{owner}/{count}", headers={"X-Perf-Id": f"r{owner}"})
            response = client.getresponse()
            response.read()
            assert response.status == 200, output.read_text()[-2000:]
            told[f"r{owner}"] = (int(response.headers["X-Perf-Queries"]), int(response.headers["X-Unattributed"]))

    def serving(requests, clients=CLIENTS):
        with servers.listening(request.param, command, ready=answers, output=output, env=env) as port:
            connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(clients)]
            with ThreadPoolExecutor(clients) as threads:
                list(threads.map(send, connections, [requests[first::clients] for first in range(clients)]))
            for connection in connections:
                connection.close()
        with jsonl.open("rb") as lines:
            return {profile.id: profile for _, profile in read_jsonl(lines)}

    told = serving.told = {}
    return serving


def answers(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def strangers(profiles):
    return [
        (key, query.fingerprint)
        for key, profile in profiles.items()
        for query in profile.queries
        if not query.fingerprint.endswith(f"of_{key[1:]}")
    ]


def test_no_query_of_greenlets_goes_to_another_request(served):
    requests = [("ask", owner, owner % 7) for owner in range(25 * CLIENTS)]
    profiles = served(requests)
    wanted = {f"r{owner}": 2 * count for _, owner, count in requests}
    assert {key: profile.query_count for key, profile in profiles.items()} == wanted
    assert {key: count for key, (count, _) in served.told.items()} == wanted
    assert strangers(profiles) == []
    assert {late for _, late in served.told.values()} == {0}


def test_a_spawned_greenlet_is_nobodys_unless_it_was_given_the_context(served):
    """gevent copies no context into what it spawns; `copy_context().run` does."""
    kinds = ("spawn", "context")
    requests = [(kinds[owner // CLIENTS % 2], owner, 3) for owner in range(4 * CLIENTS)]
    profiles = served(requests)
    spawned = {f"r{owner}" for kind, owner, _ in requests if kind == "spawn"}
    assert {key: profile.query_count for key, profile in profiles.items()} == {
        f"r{owner}": 0 if kind == "spawn" else 6 for kind, owner, _ in requests
    }
    assert strangers(profiles) == []
    assert max(late for _, late in served.told.values()) == len(spawned) * 6


def test_a_greenlet_that_outlives_its_request_is_nobodys_while_another_request_is_open(served):
    profiles = served([("late", 1, 0), ("release", 2, 0)], clients=1)
    assert {key: profile.query_count for key, profile in profiles.items()} == {"r1": 0, "r2": 4}
    assert strangers(profiles) == []
    assert served.told["r2"][1] == 3


SPAWNED = """
from gevent import monkey; monkey.patch_all()
import json, sqlite3, threading
from concurrent.futures import ThreadPoolExecutor
import gevent
from gevent.pool import Pool
from perf_middleware import collector, profile, propagate

collector.install("sqlite3")

def ask():
    connection = sqlite3.connect(":memory:")
    connection.execute("SELECT 1")
    connection.close()

def in_thread():
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()

def in_executor():
    with propagate(ThreadPoolExecutor(2)) as executor:
        executor.submit(ask).result()

ways = {
    "pool": lambda: Pool(2).spawn(ask).get(),
    "threadpool": lambda: gevent.get_hub().threadpool.spawn(ask).get(),
    "thread": in_thread,
    "propagate": in_executor,
}
counts = {}
for name, way in ways.items():
    before = collector.unattributed.count
    with profile(name) as p:
        way()
    counts[name] = [p.query_count, collector.unattributed.count - before]
print(json.dumps(counts))
"""


def test_what_gevent_runs_elsewhere_is_nobodys_but_for_an_executor_that_propagates():
    env = {**os.environ, "PERF_MIDDLEWARE_LOG": "false"}
    done = subprocess.run([sys.executable, "-c", SPAWNED], env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"pool": [0, 1], "threadpool": [0, 1], "thread": [0, 1], "propagate": [1, 0]}


LIBRARY = """
import gevent
from perf_middleware.collector.caller import describe, find_caller

found = []
library = {"find": lambda: found.append(describe(*find_caller(2)))}
exec(compile("def run(): find()", "/env/site-packages/sqlalchemy/orm/session.py", "exec"), library)
def view():
    library["run"]()
gevent.joinall([gevent.spawn(library["run"]), gevent.spawn(view)])
print(found)
"""


def test_the_greenlet_that_waits_for_all_others_is_no_caller(tmp_path):
    script = tmp_path / "shop.py"
    script.write_text(LIBRARY, encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "[None, 'shop.py:9 in view']\n"
