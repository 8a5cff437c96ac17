"""`perf-middleware run`: what the developer got wrong is said in their terms; what is served is measured."""

from __future__ import annotations

import functools
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest

from perf_middleware.cli import main
from perf_middleware.cli.run import Announcer, RunError, find_app, interface_of, listen, make_folder
from perf_middleware.record import Finding, Profile

WSGI_SHOP = """
import sqlite3

database = sqlite3.connect(":memory:", check_same_thread=False)
database.execute("CREATE TABLE settings (id INTEGER PRIMARY KEY)")

def app(environ, start_response):
    if environ["PATH_INFO"] == "/settings":
        for number in range(20):
            database.cursor().execute("SELECT * FROM settings WHERE id = ?", (number,)).fetchall()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello from WSGI"]
"""

ASGI_SHOP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello from ASGI"})
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Write a module named `shop` into an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    yield (tmp_path / "shop.py").write_text
    sys.modules.pop("shop", None)


@contextmanager
def serving(*arguments):
    """The verb in a process of its own, as (process, URL, the line that says where the stats are kept)."""
    command = [sys.executable, "-m", "perf_middleware", "run", *arguments, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            greeting = process.stdout.readline()
            assert greeting.startswith("Serving"), greeting + process.stderr.read()
            yield process, greeting.split()[-1], process.stdout.readline()
        finally:
            process.kill()


def get(url):
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=20) as response:
        return response.headers, response.read()


class TestFindingTheApplication:
    def test_a_missing_module_is_the_users_mistake_and_says_where_it_was_looked_for(self, shop, tmp_path, capsys):
        assert main(["run", "nowhere:app"]) == 2
        said = capsys.readouterr().err
        assert "nowhere" in said
        assert str(tmp_path) in said
        assert "Traceback" not in said

    def test_an_exception_in_their_module_is_shown_with_their_frames_and_none_of_ours(self, shop, tmp_path, capsys):
        shop("def price():\n    return 1 / 0\n\nprice()\n")
        assert main(["run", "shop:app"]) == 2
        said = capsys.readouterr().err
        assert "ZeroDivisionError: division by zero" in said
        assert f'File "{tmp_path / "shop.py"}", line 2, in price' in said
        assert "perf_middleware" not in said.replace("perf-middleware", "")
        assert "importlib" not in said

    def test_a_syntax_error_keeps_its_line(self, shop, capsys):
        shop("x = (\n")
        assert main(["run", "shop"]) == 2
        assert 'shop.py", line 1' in capsys.readouterr().err

    def test_a_library_that_their_module_misses_is_not_taken_for_one_of_ours(self, shop, capsys):
        shop("import not_installed_anywhere\n")
        assert main(["run", "shop:app"]) == 2
        said = capsys.readouterr().err
        assert "No module named 'not_installed_anywhere'" in said
        assert "pip install" not in said

    def test_a_module_that_ends_the_process_is_an_error_too(self, shop):
        shop("import sys\nsys.exit(0)\n")
        with pytest.raises(RunError, match="SystemExit"):
            find_app("shop:app")

    def test_a_missing_attribute_is_named(self, shop):
        shop("application = print\n")
        with pytest.raises(RunError, match="shop has no 'aplication'"):
            find_app("shop:aplication")

    def test_app_is_tried_before_application(self, shop):
        shop("application, app = 'second', 'first'\n")
        assert find_app("shop") == "first"

    def test_application_is_tried_when_there_is_no_app(self, shop):
        shop("application = 'second'\n")
        assert find_app("shop") == "second"

    def test_a_module_with_neither_says_how_to_name_it(self, shop):
        shop("")
        with pytest.raises(RunError, match="shop has no 'app': name the application as MODULE:APP"):
            find_app("shop")

    def test_brackets_call_a_factory(self, shop):
        shop("def create_app():\n    return 'made'\n")
        assert find_app("shop:create_app()") == "made"

    def test_a_factory_that_raises_shows_its_line(self, shop):
        shop("def create_app():\n    raise LookupError('no settings')\n")
        with pytest.raises(RunError, match=r"(?s)shop:create_app\(\) failed.*line 2, in create_app.*no settings"):
            find_app("shop:create_app()")


class TestMissingExtras:
    @pytest.mark.parametrize(("library", "extra"), [("werkzeug", "wsgi"), ("uvicorn", "asgi"), ("rich", "cli")])
    def test_the_exact_installation_is_named(self, shop, monkeypatch, capsys, library, extra):
        shop(ASGI_SHOP if library == "uvicorn" else WSGI_SHOP)
        for module in [name for name in sys.modules if name.partition(".")[0] == library]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, library, None)
        assert main(["run", "shop:app", "--port", "0", *(["--dev"] if library == "rich" else [])]) == 2
        assert f'pip install "perf-middleware[{extra}]"' in capsys.readouterr().err


def wsgi_function(environ, start_response): ...


def wsgi_with_options(environ, start_response, *, debug=False): ...


async def asgi_function(scope, receive, send): ...


def asgi_sync_function(scope, receive, send): ...


class WsgiObject:
    def __call__(self, environ, start_response): ...


class WsgiClass:
    def __init__(self, environ, start_response): ...


class AsgiObject:
    async def __call__(self, scope, receive, send): ...


@functools.wraps(asgi_function)
def asgi_wrapped(*args): ...


def library_apps():
    django = pytest.importorskip("django.core.handlers.wsgi")
    flask, starlette, fastapi = map(pytest.importorskip, ("flask", "starlette.applications", "fastapi"))
    return {
        "WSGI": [flask.Flask("shop"), django.WSGIHandler.__new__(django.WSGIHandler)],
        "ASGI": [starlette.Starlette(), fastapi.FastAPI()],
    }


class TestInterface:
    @pytest.mark.parametrize(
        "app", [lambda: None, lambda one: None, lambda *args: None, lambda a, b, c, d: None, 42, None, "app"]
    )
    def test_what_is_neither_is_refused_and_never_guessed(self, app):
        with pytest.raises(RunError, match="shop:app is"):
            interface_of(app, "shop:app")

    @pytest.mark.parametrize("app", [wsgi_function, wsgi_with_options, WsgiObject(), WsgiClass])
    def test_wsgi(self, app):
        assert interface_of(app) == "WSGI"

    @pytest.mark.parametrize(
        "app",
        [asgi_function, asgi_sync_function, AsgiObject(), asgi_wrapped, functools.partial(asgi_function)],
    )
    def test_asgi(self, app):
        assert interface_of(app) == "ASGI"

    @pytest.mark.parametrize("kind", ["WSGI", "ASGI"])
    def test_applications_of_the_frameworks(self, kind):
        assert [interface_of(app) for app in library_apps()[kind]] == [kind, kind]


class TestListening:
    def test_a_port_in_use_is_the_users_mistake_before_anything_is_served(self, shop, capsys):
        shop(WSGI_SHOP)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert main(["run", "shop:app", "--port", port]) == 2
        said = capsys.readouterr().err
        assert f"cannot listen on 127.0.0.1 port {port}" in said
        assert "--port" in said

    @pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("192.0.2.1", 0)])
    def test_an_address_that_cannot_be_had_is_named(self, host, port):
        with pytest.raises(RunError, match=f"cannot listen on {host} port {port}"):
            listen(host, port)

    def test_a_folder_that_cannot_be_made_says_what_to_do(self, tmp_path):
        (tmp_path / "kept").write_text("a file is in the way")
        with pytest.raises(RunError, match=r"cannot keep stats in .*kept: .*--store"):
            make_folder(tmp_path / "kept")

    def test_the_folder_of_the_default_store_keeps_itself_out_of_git(self, tmp_path):
        make_folder(tmp_path / "kept")
        make_folder(tmp_path / "kept")
        assert (tmp_path / "kept" / ".gitignore").read_text() == "*\n"


def finding(finding_id, **fields):
    return Finding(
        finding_id=finding_id,
        kind="n_plus_one",
        severity="high",
        confidence="high",
        threshold="n_plus_one: 27 >= 5",
        title="27 queries where one would do",
        fingerprint="SELECT ?",
        **fields,
    )


class TestAnnouncer:
    def test_a_healthy_profile_prints_nothing(self, capsys):
        Announcer()(Profile(name="GET /"))
        assert capsys.readouterr().out == ""

    def test_a_finding_is_printed_once_however_often_it_is_seen(self, capsys):
        announce = Announcer()
        for count in (5, 6, 7):
            announce(Profile(findings=[finding("a", count=count)]))
        assert capsys.readouterr().out.count("n_plus_one") == 1

    def test_place_and_fix_are_whole_and_unstyled_when_no_terminal_listens(self, capsys):
        fix = "Join customers: " + "a long sentence " * 20
        Announcer()(Profile(name="GET /[b]", findings=[finding("a", caller="shop.py:4 in page", recommendation=fix)]))
        said = capsys.readouterr().out
        assert "\n  shop.py:4 in page\n" in said
        assert fix.strip() in said
        assert "GET /[b]" in said
        assert "\x1b" not in said


class TestServing:
    @pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize(("source", "kind"), [(WSGI_SHOP, "WSGI"), (ASGI_SHOP, "ASGI")])
    def test_what_was_served_is_in_the_store_after_a_signal_and_the_exit_is_clean(
        self, shop, capsys, source, kind, signal_number
    ):
        shop(source)
        with serving("shop:app") as (process, url, kept):
            headers, body = get(url)
            process.send_signal(signal_number)
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 0, errors
        assert body == f"hello from {kind}".encode()
        assert headers["X-Perf-Queries"] == "0"
        assert kept == "Stats are kept in .perf-middleware/stats.sqlite3\n"
        assert '"perf.request"' in errors
        assert main(["report", "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["n"] == 1

    def test_an_application_that_fails_to_start_up_is_the_users_mistake(self, shop):
        shop(
            "async def app(scope, receive, send):\n"
            "    await receive()\n"
            "    await send({'type': 'lifespan.startup.failed', 'message': 'no settings'})\n"
        )
        with serving("shop:app") as (process, _, _):
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 2
        assert "no settings" in errors
        assert "the application's startup failed" in errors
        assert "Traceback" not in errors

    def test_dev_prints_a_new_finding_once_with_its_line(self, shop):
        shop(WSGI_SHOP)
        with serving("shop:app", "--dev") as (process, url, _):
            for _ in range(3):
                headers, _ = get(f"{url}/settings")
            process.terminate()
            printed, errors = process.communicate(timeout=30)
        assert "n_plus_one" in headers["X-Perf-Findings"]
        assert printed.count("n_plus_one (") == 1, errors
        assert "settings by id at shop.py:10 in app" in printed

    def test_the_password_of_a_store_is_not_printed(self, shop):
        shop(WSGI_SHOP)
        with serving("shop:app", "--store", "redis://me:secret@127.0.0.1:1/0") as (_, _, kept):
            assert kept == "Stats are kept in redis://127.0.0.1:1/0\n"
