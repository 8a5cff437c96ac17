"""`perf-middleware doctor`: what is wrong must not be told as right, and what was looked at stays as it was."""

from __future__ import annotations

import json
import os
import pathlib
import secrets
import sqlite3
import subprocess
import sys
from types import SimpleNamespace

import pymysql
import pytest
import redis

from perf_middleware.cli import main
from perf_middleware.cli.doctor import clock, drivers, privacy, screen, stores
from perf_middleware.cli.doctor.sessions import WAYS
from perf_middleware.doctor import ClockState

#: Drivers that need a server, by the scheme of its URL.
SERVED = {
    "mysql": ["pymysql", "aiomysql", "asyncmy", "mysql_connector", "mysql_connector_aio"],
    "postgresql": ["asyncpg", "psycopg", "psycopg (async)", "psycopg2"],
}
IN_MEMORY = ["aiosqlite", "sqlalchemy", "sqlite3"]


def doctor(*arguments, before="", **environ):
    """The verb in a process of its own: exit code, document (None where none was printed), all it printed."""
    program = f"import sys\n{before}\nfrom perf_middleware.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "doctor", "--format", "json", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PERF_MIDDLEWARE_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**clean, **environ})
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stdout + done.stderr


def told(document, area, name):
    (check,) = (check for check in document["checks"] if (check["area"], check["name"]) == (area, name))
    return check


def mysql_url(mariadb):
    return f"mysql://{mariadb.user}:{mariadb.password}@{mariadb.host}:{mariadb.port}/{mariadb.database}"


@pytest.fixture
def client(valkey_url):
    with redis.Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture
def prefix():
    """Of keys that no other test has: the server is shared."""
    return f"doctor{secrets.token_hex(4)}"


def checked(url, prefix="pm1"):
    return {check.name: check for check in stores.check(url, prefix)}


# Drivers


def test_a_driver_whose_hooks_fail_is_a_failure_and_a_fault_with_its_version():
    before = (
        "from perf_middleware.collector.drivers import sqlite3 as driver\n"
        "def hook(module, patches): raise AttributeError('no such method')\n"
        "driver.hook = hook"
    )
    code, document, _ = doctor(before=before)
    check = told(document, "drivers", "sqlite3")
    assert code == 1
    assert document["failed"]
    assert check["outcome"] == "failed"
    assert check["facts"]["status"] == "not hooked"
    assert check["facts"]["version"] == sqlite3.sqlite_version
    assert check["facts"]["counted"] is None
    assert told(document, "process", "faults")["outcome"] == "failed"
    assert list(document["process"]["faults"]) == ["hook sqlite3: AttributeError"]


@pytest.mark.parametrize(("times", "counted"), [(0, 5), (1, 8), (2, 11)])
def test_a_count_that_differs_from_what_was_sent_fails_with_both(times, counted):
    (way,) = (way for way in WAYS if way.title == "sqlite3")

    async def opened(url):
        session = await way.open(url)
        execute = session.execute

        async def several(text, *values):
            for _ in range(times if text.startswith("SELECT name") else 1):
                await execute(text, *values)

        session.execute = several
        return session

    drivers.collector.install("sqlite3")
    try:
        with drivers.recording():
            check = drivers._compare("sqlite3", way._replace(open=opened), None, {})
    finally:
        drivers.collector.uninstall("sqlite3")
    assert check.facts["sent"]["queries"] == 8
    assert check.facts["counted"]["queries"] == counted
    assert check.outcome == ("ok" if times == 1 else "failed")


def test_what_uninstalling_leaves_behind_is_named():
    before = "from perf_middleware.collector.patching import Patches\nPatches.undo = lambda self: None"
    code, document, _ = doctor(before=before)
    check = told(document, "process", "uninstall")
    assert code == 1
    assert check["outcome"] == "failed"
    assert {"sqlite3.connect", "sqlite3.dbapi2.connect"} <= set(check["facts"]["left"])


def test_a_server_that_cannot_be_reached_is_a_failure_without_the_password():
    code, document, printed = doctor("--database", "mysql://someone:s3cr3t@127.0.0.1:1/shop")
    check = told(document, "drivers", "pymysql")
    assert code == 1
    assert check["outcome"] == "failed"
    assert "mysql://127.0.0.1:1/shop: OperationalError 2003" in check["detail"]
    assert "s3cr3t" not in printed
    assert "someone" not in printed


def test_each_driver_counts_what_was_sent_on_real_servers_and_leaves_no_table(mariadb, postgresql):
    url = mysql_url(mariadb)
    code, document, printed = doctor("--database", url, "--database", postgresql.url)
    assert code == 0, printed
    for name in (*IN_MEMORY, *SERVED["mysql"], *SERVED["postgresql"]):
        check = told(document, "drivers", name)
        assert check["outcome"] == "ok"
        assert check["facts"]["counted"] == check["facts"]["sent"]
        assert check["facts"]["sent"] == {"queries": 8, "failed": 1, "sets": 3, "transactions": 1}
        assert check["facts"]["version"]
    skipped = {check["detail"] for check in document["checks"] if check["outcome"] == "skipped"}
    assert skipped <= {"not installed"}
    assert told(document, "drivers", "psycopg_pool")["facts"]["status"] == "hooked"
    assert told(document, "process", "uninstall")["facts"]["touched"] > 100
    assert told(document, "process", "faults")["outcome"] == "ok"
    assert not {mariadb.password, postgresql.password} & set(printed.replace("@", ":").split(":"))
    connection = pymysql.connect(
        host=mariadb.host, port=mariadb.port, user=mariadb.user, password=mariadb.password, database=mariadb.database
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("SHOW TABLES LIKE 'perf_middleware%'")
        assert cursor.fetchall() == ()


def test_without_a_database_the_drivers_of_servers_are_listed_with_what_it_takes():
    code, document, _ = doctor()
    assert code == 0
    for name in IN_MEMORY:
        assert told(document, "drivers", name)["outcome"] == "ok"
    for system, names in SERVED.items():
        for name in {name.partition(" ")[0] for name in names}:
            check = told(document, "drivers", name)
            assert check["outcome"] == "skipped"
            assert check["facts"]["status"] == "hooked"
            assert check["facts"]["version"]
            assert f"--database {system}://" in check["detail"]


def test_a_driver_that_is_not_installed_is_no_failure():
    before = (
        "from importlib.abc import MetaPathFinder\n"
        "class Gone(MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'aiosqlite': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Gone())"
    )
    code, document, _ = doctor(before=before)
    check = told(document, "drivers", "aiosqlite")
    assert code == 0
    assert (check["outcome"], check["detail"]) == ("skipped", "not installed")


def test_another_tool_on_the_same_methods_is_named_and_the_counts_stay():
    before = (
        "from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor\n"
        "import sqlite3\n"
        "SQLite3Instrumentor().instrument()"
    )
    code, document, _ = doctor(before=before)
    assert code == 0
    assert told(document, "drivers", "sqlite3")["outcome"] == "ok"
    others = told(document, "process", "patched")["facts"]["others"]
    assert others["sqlite3.connect"] == ["opentelemetry.instrumentation.dbapi"]
    assert set(others) == {"sqlite3.connect", "sqlite3.dbapi2.connect"}


def test_without_another_tool_nobody_is_named():
    _, document, _ = doctor()
    assert told(document, "process", "patched")["facts"]["others"] == {}


@pytest.mark.parametrize(
    "url",
    ["shop", "oracle://u:s3cr3t@h/d", "sqlite:///x", "mysql://u:s3cr3t@h", "mysql:///d", "mysql://u:s3cr3t@h:x/d"],
)
def test_a_database_that_is_none_is_the_users_mistake_without_the_password(url, capsys):
    assert main(["doctor", "--database", url]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "s3cr3t" not in captured.err


# The clock


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "ok"),
        ({"step_ns": 1000}, "ok"),
        ({"step_ns": 1001}, "warning"),
        ({"step_ns": None}, "failed"),
        ({"steps_back": 1}, "failed"),
        ({"monotonic": False}, "failed"),
    ],
)
def test_a_clock_is_judged_by_what_it_did(changes, outcome, monkeypatch):
    state = {"implementation": "x", "resolution_ns": 1, "monotonic": True, "reads": 9, "step_ns": 40, "steps_back": 0}
    monkeypatch.setattr(clock, "read_clock", lambda: ClockState(**{**state, **changes}))
    assert clock.check().outcome == outcome


# The store


def test_memory_says_loudly_that_it_is_one_process():
    (check,) = stores.check("memory://", "pm1")
    assert check.outcome == "warning"
    assert "one process only" in check.detail


@pytest.mark.parametrize("url", ["mysql://host/x", "nothing", "redis://", "sqlite://"])
def test_the_url_of_no_store_is_the_users_mistake(url, capsys):
    for verb in (["doctor"], ["doctor", "--privacy"]):
        assert main([*verb, "--store", url]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_stats_file_that_is_not_there_is_not_made(tmp_path):
    (check,) = stores.check(f"sqlite:///{tmp_path}/deep/stats.sqlite3", "pm1")
    assert check.outcome == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_stats_file_is_as_it_was(tmp_path):
    path = tmp_path / "stats.sqlite3"
    store = stores.open_store(f"sqlite:///{path}")
    store.apply(stores._batch(1_900_000_000), 0)
    store.close()
    before = path.read_bytes()
    (check,) = stores.check(f"sqlite:///{path}", "pm1")
    assert check.outcome == "ok"
    assert check.facts["services"] == ["doctor"]
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written_or_is_another_s_fails(tmp_path):
    (tmp_path / "text").write_text("not a database, and longer than nothing" * 10)
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE shop (id)")
    other.close()
    for path in (tmp_path / "text", tmp_path / "other", tmp_path / "text" / "below", pathlib.Path(os.devnull) / "x"):
        (check,) = stores.check(f"sqlite:///{path}", "pm1")
        assert check.outcome == "failed", path


def test_a_locked_stats_file_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "stats.sqlite3"
    store = stores.open_store(f"sqlite:///{path}")
    store.apply(stores._batch(1_900_000_000), 0)
    store.close()
    monkeypatch.setattr(stores, "BUSY_TIMEOUT_S", 0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    (check,) = stores.check(f"sqlite:///{path}", "pm1")
    other.close()
    assert check.outcome == "failed"


def test_a_server_that_is_not_there_fails_without_the_password():
    (check,) = stores.check("redis://someone:s3cr3t@127.0.0.1:1/0", "pm1")
    assert check.outcome == "failed"
    assert check.detail.startswith("redis://127.0.0.1:1/0: ")
    assert "s3cr3t" not in repr(check)


def test_a_wrong_password_is_a_failure_and_is_not_told(valkey_url):
    (check,) = stores.check(_as("nobody", valkey_url), "pm1")
    assert check.outcome == "failed"
    assert "s3cr3t" not in repr(check)


def _as(user, url):
    return url.replace("redis://", f"redis://{user}:s3cr3t@")


def test_a_server_as_it_should_be_keeps_no_key_of_ours(valkey_url, client, prefix):
    found = checked(valkey_url, prefix)
    assert [found[name].outcome for name in ("reachable", "version", "eviction", "rights", "clock skew")] == ["ok"] * 5
    assert found["version"].facts["server"] == "valkey"
    assert found["rights"].facts["user"] == "default"
    assert list(client.scan_iter(f"{prefix}*")) == []


def test_keys_of_others_are_told(valkey_url, client, prefix):
    stranger = f"stranger-{prefix}"
    before = checked(valkey_url, prefix)["sharing"].facts["others"]
    client.set(stranger, 1, ex=60)
    client.set(f"{prefix}:ours", 1, ex=60)
    check = checked(valkey_url, prefix)["sharing"]
    client.delete(stranger, f"{prefix}:ours")
    assert check.outcome == "warning"
    assert check.facts["others"] == before + 1
    assert check.facts["looked_at"] == check.facts["keys"]


@pytest.mark.parametrize(
    ("policy", "maxmemory", "outcome"),
    [
        ("noeviction", 0, "ok"),
        ("noeviction", 2**30, "ok"),
        ("allkeys-lru", 2**30, "failed"),
        ("volatile-ttl", 2**30, "failed"),
        ("volatile-ttl", 0, "warning"),
    ],
)
def test_a_policy_that_evicts_is_told(policy, maxmemory, outcome, valkey_url, client):
    client.config_set("maxmemory-policy", policy)
    client.config_set("maxmemory", maxmemory)
    try:
        assert checked(valkey_url)["eviction"].outcome == outcome
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize(
    ("info", "outcome"),
    [
        ({"redis_version": "6.0.16"}, "failed"),
        ({"redis_version": "6.2.0"}, "ok"),
        ({"redis_version": "10.0.1"}, "ok"),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.0.1"}, "ok"),
    ],
)
def test_a_version_without_what_the_script_needs_fails(info, outcome):
    assert stores._version(info).outcome == outcome


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        (["~{prefix}:*", "+@all"], "ok"),
        (["~{prefix}:*", "+@all", "-@dangerous", "-unlink"], "ok"),
        (["~{prefix}:*", "+@all", "-eval", "-evalsha"], "failed"),
        (["~{prefix}:*", "+@all", "-hset"], "failed"),
        (["~{prefix}:*", "+@all", "-zadd"], "failed"),
        (["~other:*", "+@all"], "failed"),
    ],
)
def test_a_right_that_is_missing_is_named(rules, outcome, valkey_url, client, prefix):
    user = f"user{prefix}"
    client.execute_command("ACL", "SETUSER", user, "on", ">s3cr3t", *(rule.format(prefix=prefix) for rule in rules))
    try:
        check = checked(_as(user, valkey_url), prefix)["rights"]
    finally:
        client.execute_command("ACL", "DELUSER", user)
    assert check.outcome == outcome
    assert check.facts["user"] == user
    assert "s3cr3t" not in check.detail
    if outcome == "failed":
        assert "permission" in check.detail


def test_what_a_user_may_not_ask_is_unknown_and_no_failure(valkey_url, client, prefix):
    user = f"user{prefix}"
    client.execute_command("ACL", "SETUSER", user, "on", ">s3cr3t", f"~{prefix}:*", "+@all", "-info", "-time")
    try:
        found = checked(_as(user, valkey_url), prefix)
    finally:
        client.execute_command("ACL", "DELUSER", user)
    assert [found[name].outcome for name in ("version", "eviction", "clock skew")] == ["unknown"] * 3
    assert found["rights"].outcome == "ok"


@pytest.mark.parametrize(("skew_s", "outcome"), [(0, "ok"), (9, "ok"), (-9, "ok"), (11, "failed"), (-3600, "failed")])
def test_a_server_on_another_time_fails(skew_s, outcome):
    def server_time():
        now_s = stores.time.time() + skew_s
        return int(now_s), int(now_s % 1 * 1e6)

    check = stores._skew(SimpleNamespace(time=server_time))
    assert check.outcome == outcome
    assert check.facts["skew_s"] == pytest.approx(skew_s, abs=1)


# Privacy


def places(document, word):
    """Where this word stands: {(place, output)}."""
    return {
        (check["name"], output)
        for check in document["checks"]
        for output, found in check["facts"]["outputs"].items()
        if found == word
    }


def test_nothing_leaks_by_default_and_something_was_written():
    code, document, _ = doctor("--privacy")
    outputs = {f"{door} {name}" for door in ("WSGI", "ASGI") for name in ("headers", "log", "jsonl", "store")}
    assert code == 0
    assert places(document, "clean") == {(place, output) for place in privacy.PLACES for output in outputs}


def test_a_setting_that_leaks_is_told_with_the_places_and_the_output():
    code, document, _ = doctor("--privacy", PERF_MIDDLEWARE_CAPTURE_SQL="1")
    leaked = places(document, "LEAKED")
    assert code == 1
    assert {output for _, output in leaked} == {"WSGI jsonl", "ASGI jsonl"}
    assert {"literal", "number", "comment", "hex literal"} < {place for place, _ in leaked}
    assert not {"parameter", "tag", "path", "header", "application's error"} & {place for place, _ in leaked}


def test_an_output_without_a_word_of_the_requests_is_not_called_clean():
    canaries = privacy.Canaries({"path": "pmc00aa"})
    (path, looked) = privacy._told(canaries, {"WSGI log": b"", "WSGI headers": b"x n_plus_one"}, [])
    assert path.outcome == looked.outcome == "failed"
    assert path.facts["outputs"] == {"WSGI log": "empty", "WSGI headers": "clean"}


@pytest.mark.parametrize(
    "form", [b"a pmc00aa b", b"PMC00AA", b"706d633030616141", "pässword".encode(), b"p%C3%A4ssword"]
)
def test_a_canary_is_found_in_each_form(form):
    canaries = privacy.Canaries({"path": "pmc00aa", "password": "pässword"})
    assert len(canaries.found_in(form)) == 1
    assert canaries.found_in(b"pmc00ab") == set()


def test_nothing_leaks_from_other_databases_into_a_shared_store_where_no_key_stays(
    mariadb, postgresql, valkey_url, client
):
    urls = (mysql_url(mariadb), postgresql.url)
    code, document, printed = doctor("--privacy", "--store", valkey_url, *(f"--database={url}" for url in urls))
    assert code == 0, printed
    assert places(document, "LEAKED") == places(document, "empty") == set()
    assert {"password of mysql://", "password of postgresql://"} <= {place for place, _ in places(document, "clean")}
    assert mariadb.password not in printed
    assert list(client.scan_iter("pmc-*")) == []


def test_a_database_that_could_not_be_asked_is_a_failure():
    code, document, printed = doctor("--privacy", "--database", "postgresql://u:s3cr3tt@127.0.0.1:1/d")
    assert code == 1
    assert any("psycopg could not be used" in check["detail"] for check in document["checks"])
    assert "s3cr3tt" not in printed


# The screen


def test_the_screen_has_a_line_for_each_check_and_no_control_character(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    facts = {
        "version": "1",
        "sent": dict.fromkeys(screen.COUNTED, 8),
        "counted": dict.fromkeys(screen.COUNTED, 7),
    }
    hostile = {**facts, "sent": None}
    screen.show(
        [
            drivers.Check("drivers", "pymysql", "failed", "sent more", facts),
            drivers.Check("drivers", "odd\x1b[31m", "skipped", "not \x1b[31m", hostile),
            drivers.Check("process", "clock", "ok", "fine"),
            drivers.Check("store", "memory://", "warning", "one process only"),
            drivers.Check("privacy", "path", "failed", "LEAKED into WSGI log", {"outputs": {"WSGI log": "LEAKED"}}),
        ]
    )
    out = capsys.readouterr().out
    lines = " ".join(out.split())
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80
    for piece in (
        "pymysql 1 failed 7 of 8 7 of 8",
        "clock ok fine",
        "memory:// warning one process only",
        "LEAKED into",
    ):
        assert piece in lines
    assert "4 checks: 2 failed, 1 to look at; 1 skipped" in lines
