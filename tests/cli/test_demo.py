"""The demo and its servers: they leave nothing running, and the demo fails when what it shows is not so."""

from __future__ import annotations

import http.server
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing

import pymysql
import pytest
import redis
from rich.console import Console

from perf_middleware.cli import demo
from perf_middleware.cli.demo import servers
from perf_middleware.cli.demo.visitors import Answer, VisitError, visit
from perf_middleware.stats.read import FindingStats, WindowStats

QUICK = 'demo.VISITS.update({path: 5 for path in demo.VISITS}); demo.VISITS.update({"/turnover": 1})'


def start_demo(*changes):
    """The demo in a process of its own, with some of it changed before it runs."""
    program = ["import sys", "from perf_middleware.cli import demo, main", *changes, 'sys.exit(main(["demo"]))']
    command = [sys.executable, "-c", "\n".join(program)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_demo(*changes):
    """Its exit code and what it printed."""
    with start_demo(QUICK, *changes) as process:
        printed, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors, errors
    return process.returncode, printed


def is_listening(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class TestDemo:
    pytestmark = pytest.mark.usefixtures("mariadb", "valkey_url")

    def test_on_sqlite_it_fails_when_the_n_plus_one_is_not_where_the_source_has_it(self):
        code, printed = run_demo(
            "def none(): raise demo.servers.ServerMissingError('none')",
            "demo.servers.mariadb = none",
            "demo.n_plus_one_lines = lambda source: (1, 1)",
        )
        assert code == 1
        assert "A shop on SQLite" in printed
        line = demo.n_plus_one_lines(demo.SHOP.read_text())[0]
        assert re.search(
            rf"FAILED: the N\+1 query is in shop.py:1, and was found at .*/shop.py:{line} in orders", printed
        )
        assert "equal" in printed

    def test_on_mariadb_it_finds_the_n_plus_one_on_its_line_and_every_reader_agrees(self):
        code, printed = run_demo()
        assert code == 0, printed
        assert "A shop on MariaDB" in printed
        line = demo.n_plus_one_lines(demo.SHOP.read_text())[0]
        assert f"cli/demo/shop.py:{line} in orders" in printed
        assert re.search(r"before +GET /orders +26\.0 queries", printed)
        assert re.search(r"after +GET /orders/fixed +1\.0 queries", printed)
        totals = "sent.* 44 requests .*this reader +44 requests .*second reader +44 requests .*equal"
        assert re.search(totals, printed, re.DOTALL)
        assert "\x1b" not in printed
        assert "EUR" not in printed

    @pytest.mark.parametrize("store", ["valkey", "nowhere"])
    def test_it_fails_when_the_second_reader_does_not_see_what_was_sent(self, valkey_url, tmp_path, store):
        url = valkey_url.replace("/0", "/9") if store == "valkey" else f"sqlite:///{tmp_path / 'missing'}"
        answers = [Answer("/", [("X-Perf-Queries", "3")])]
        stats = WindowStats(from_s=0, to_s=1, services=[], n=1, errors=0, queries=3, db_ms=1.0, routes=[])
        shop = demo.Shop(dict(os.environ), url, tmp_path, answers=answers)
        screen = Console(file=io.StringIO())
        assert not demo._show_totals(screen, shop, stats)
        assert "FAILED" in screen.file.getvalue()

    def test_its_servers_end_with_it(self):
        with start_demo() as process:
            assert process.stdout.readline().startswith("A shop on")
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert errors == ""


class TestTheLineOfTheNPlusOne:
    def test_it_moves_with_the_source(self):
        source = demo.SHOP.read_text()
        first, last = demo.n_plus_one_lines(source)
        assert demo.n_plus_one_lines("\n\n\n" + source) == (first + 3, last + 3)
        assert "FROM customers WHERE" in source.splitlines()[first - 1]

    @pytest.mark.parametrize(
        "caller",
        [None, "", "shop.py:9 in orders", "shop.py:12 in orders", "shop.py:10 in basket", "other.py:10 in orders"],
    )
    def test_another_place_is_not_it(self, caller):
        assert not demo.is_at(found_at(caller), 10, 11)

    @pytest.mark.parametrize("caller", ["shop.py:10 in orders", "deep/in/shop.py:11 in orders"])
    def test_the_place_itself(self, caller):
        assert demo.is_at(found_at(caller), 10, 11)


def found_at(caller):
    return FindingStats(
        finding_id="",
        kind="",
        severity="",
        title="",
        caller=caller,
        recommendation="",
        n=1,
        count=1,
        total_ms=1,
        wasted_ms=1,
    )


class NoPages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(500)

    def log_message(self, *args): ...


def test_a_visitor_who_gets_no_page_says_so():
    with http.server.HTTPServer(("127.0.0.1", 0), NoPages) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(VisitError, match="500 to GET /orders"):
            visit(server.server_port, "/orders")
        thread.join()


class TestServers:
    def test_a_program_that_ends_while_starting_is_quoted(self, tmp_path):
        output = tmp_path / "output"
        command = [sys.executable, "-c", "print('no room'); raise SystemExit(3)"]
        server = servers.listening("Clock", lambda port: command, ready=lambda port: False, output=output)
        with pytest.raises(servers.ServerError, match=r"(?s)Clock ended with code 3.*no room"), server:
            pass

    def test_a_program_that_is_never_ready_is_ended(self, tmp_path, monkeypatch):
        monkeypatch.setattr(servers, "START_TIMEOUT_S", 0.0)
        monkeypatch.setattr(servers, "ATTEMPTS", 1)
        command = [sys.executable, "-c", "import signal; signal.pause()"]
        server = servers.listening("Clock", lambda port: command, ready=lambda port: False, output=tmp_path / "output")
        with pytest.raises(servers.ServerError, match="Clock was not ready"), server:
            pass

    def test_a_taken_port_is_tried_again_with_another(self, tmp_path):
        asked = []
        ended, waits = "raise SystemExit(1)", "import signal; signal.pause()"

        def command(port):
            asked.append(port)
            return [sys.executable, "-c", ended if len(asked) == 1 else waits]

        output = tmp_path / "output"
        with servers.listening("Clock", command, ready=lambda port: len(asked) == 2, output=output) as port:
            assert port == asked[1]

    def test_a_missing_program_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setattr(servers.shutil, "which", lambda name, path: None)
        with pytest.raises(servers.ServerMissingError, match="apt-get install mariadb-server-core"), servers.mariadb():
            pass

    def test_nothing_listens_after_the_block(self, valkey_url):
        with servers.valkey() as url:
            port = int(url.rpartition(":")[2].partition("/")[0])
            assert is_listening(port)
        assert not is_listening(port)

    def test_valkey_keeps_nothing_on_disk(self, valkey_url):
        with closing(redis.Redis.from_url(valkey_url)) as client:
            assert client.config_get("save") == {"save": ""}
            assert client.config_get("appendonly") == {"appendonly": "no"}

    def test_the_password_of_mariadb_is_not_shown(self, mariadb):
        assert mariadb.password not in repr(mariadb)

    def test_the_general_log_holds_what_was_asked_only_while_it_is_on(self, mariadb):
        connection = pymysql.connect(
            host=mariadb.host,
            port=mariadb.port,
            user=mariadb.user,
            password=mariadb.password,
            database=mariadb.database,
        )
        with closing(connection), connection.cursor() as cursor:
            cursor.execute("SELECT 'before'")
            cursor.execute("SET GLOBAL general_log = 1")
            cursor.execute("SELECT 'during'")
            cursor.execute("SET GLOBAL general_log = 0")
            cursor.execute("SELECT 'after'")
        written = mariadb.general_log.read_text()
        assert "SELECT 'during'" in written
        assert "SELECT 'before'" not in written
        assert "SELECT 'after'" not in written
