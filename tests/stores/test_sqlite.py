"""What only the file does: who may open it, and how it is kept small."""

from __future__ import annotations

import sqlite3

import pytest

from perf_middleware.errors import StoreError
from perf_middleware.stats.window import KEPT_S, ROUTE, windows_at
from perf_middleware.stores import SEQ_KEPT_S, StoreUnavailable, open_store
from perf_middleware.stores import sqlite as module
from perf_middleware.stores.sqlite import SqliteStore

NOW = 4_000_000_000


class Clock:
    now_s = NOW

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    opened = SqliteStore(tmp_path / "stats.sqlite3", clock)
    yield opened
    opened.close()


def count(store, table):
    return store._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, make_batch):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but longer than a hundred characters. " * 10)
    before = path.read_bytes()
    with pytest.raises(StoreError) as raised:
        open_store(f"sqlite:///{path}").apply(make_batch(1, "a"), 0)
    assert not isinstance(raised.value, StoreUnavailable)
    assert path.read_bytes() == before


def test_a_file_of_another_version_is_refused(tmp_path, make_batch):
    path = tmp_path / "later.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="version 99"):
        open_store(f"sqlite:///{path}").apply(make_batch(1, "a"), 0)


def test_a_database_of_the_application_is_refused_and_gets_no_tables(tmp_path, make_batch):
    path = tmp_path / "app.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE orders (id INTEGER)")
    with pytest.raises(StoreError, match="own"):
        open_store(f"sqlite:///{path}").apply(make_batch(1, "a"), 0)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("orders",)]
    connection.close()


def test_a_folder_that_cannot_be_made_is_an_outage(tmp_path, make_batch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        open_store(f"sqlite:///{tmp_path}/file/stats.sqlite3").apply(make_batch(1, "a"), 0)


def test_a_file_someone_else_writes_to_for_long_is_an_outage_and_nothing_is_half_written(
    store, tmp_path, make_batch, monkeypatch
):
    monkeypatch.setattr(module, "BUSY_TIMEOUT_S", 0.0)
    store.apply(make_batch(1, "a", second=NOW), 0)
    store.close()
    other = sqlite3.connect(tmp_path / "stats.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        store.apply(make_batch(2, "a", second=NOW), 1)
    other.execute("ROLLBACK")
    other.close()
    assert store.apply(make_batch(2, "a", second=NOW), 1).outcome == "applied"


def test_what_expired_is_deleted_at_a_flush(store, clock, make_batch):
    store.apply(make_batch(1, "a", "b", second=NOW), 0)
    assert (count(store, "windows"), count(store, "rows")) == (7, 14)
    clock.now_s += KEPT_S[ROUTE]["1d"] + 2 * 86_400
    store.apply(make_batch(1, "a", worker="2" * 16, second=clock.now_s), 0)
    kept = {window.key for second in (NOW, clock.now_s) for window in windows_at(ROUTE, second)} - {
        window.key for window in windows_at(ROUTE, NOW) if window.expires_s <= clock.now_s
    }
    assert {name for (name,) in store._connection.execute("SELECT name FROM windows")} == kept
    assert count(store, "rows") < 14 + 7
    assert count(store, "workers") == 1
    assert clock.now_s - NOW > SEQ_KEPT_S


def test_pruning_happens_at_most_once_a_minute(store, clock, make_batch):
    statements = []
    for seq in range(1, 121):
        store.apply(make_batch(seq, "a", second=NOW), seq - 1)
        store._connection.set_trace_callback(statements.append)
        clock.now_s += 1
    assert sum(statement.startswith("DELETE FROM workers") for statement in statements) == 1


def test_no_statement_scans_a_table(store, make_batch):
    statements = set()
    store.apply(make_batch(1, "a", second=NOW), 0)
    store._connection.set_trace_callback(statements.add)
    store._pruned_s = 0.0
    store.apply(make_batch(2, "a", "b", second=NOW), 1)
    store.read("shop", windows_at(ROUTE, NOW))
    store.services()
    store._connection.set_trace_callback(None)
    planned = [statement for statement in statements if statement.split()[0] not in ("BEGIN", "COMMIT")]
    assert len(planned) > 8
    for statement in planned:
        plan = store._connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        assert not [
            step for *_, step in plan if step.startswith("SCAN") and "found" not in step and "CONSTANT" not in step
        ]


def test_services_are_found_in_order_without_a_bound_on_windows(store, make_batch):
    for service in ("b", "c", "a"):
        store.apply(make_batch(1, "a", service=service, second=NOW), 0)
    assert store.services() == ["a", "b", "c"]


def test_a_relative_path_means_the_folder_of_the_moment_it_was_opened(tmp_path, monkeypatch, make_batch):
    monkeypatch.chdir(tmp_path)
    opened = open_store("sqlite:///here/stats.sqlite3")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    opened.apply(make_batch(1, "a", second=NOW), 0)
    opened.close()
    assert (tmp_path / "here" / "stats.sqlite3").exists()
