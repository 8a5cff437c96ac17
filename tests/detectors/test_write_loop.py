from __future__ import annotations

import pytest

INSERT = "INSERT INTO lines (order_id, sku) VALUES (?, ?)"
UPDATE = "UPDATE products SET price = ? WHERE id = ?"
DELETE = "DELETE FROM carts WHERE id = ?"


def found(scenario, **thresholds):
    return scenario.findings("write_loop", **thresholds)


# ---------------------------------------------------------------------------------------------- what must not fire


def test_nothing_ran(scenario):
    assert found(scenario) == []


@pytest.mark.parametrize("turns", [1, 2, 4])
def test_fewer_turns_than_the_threshold(scenario, turns):
    for row in range(turns):
        scenario.run(UPDATE, 1, row)
    assert found(scenario) == []


def test_reads(scenario):
    for row in range(9):
        scenario.run("SELECT price FROM products WHERE id = ? FOR UPDATE", row)
    assert found(scenario) == []


def test_inserts_of_several_rows(scenario):
    for batch in range(9):
        scenario.run(f"INSERT INTO lines (order_id, sku) VALUES {', '.join(['(?, ?)'] * 100)}", batch)
    scenario.run(INSERT, 1, 1)
    assert found(scenario) == []


def test_batches_of_which_some_have_one_row(scenario):
    for batch in range(12):
        rows = 1 if batch < 5 else 50
        scenario.run(f"INSERT INTO lines (order_id, sku) VALUES {', '.join(['(?, ?)'] * rows)}", batch)
    assert found(scenario) == []


@pytest.mark.parametrize("sql", [INSERT, UPDATE, DELETE])
def test_executemany(scenario, sql):
    for batch in range(9):
        scenario.run(sql, batch, batch, many=100)
    assert found(scenario) == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE products SET price = 1 WHERE id IN (?, ?, ?)",
        "UPDATE products SET price = CASE id WHEN 1 THEN 2 WHEN 2 THEN 3 END WHERE id IN (1, 2)",
        "UPDATE products SET price = 1 WHERE id = ANY(?)",
        "UPDATE products SET price = 1 WHERE id BETWEEN ? AND ?",
        "UPDATE products SET price = 1 WHERE shop_id = ? AND changed_at < ?",
        "UPDATE products SET price = 1 WHERE shop_id = ? LIMIT 500",
        "UPDATE products SET price = price * ?",
        "DELETE FROM carts WHERE id IN (?, ?, ?)",
        "DELETE FROM carts WHERE id IN (SELECT id FROM carts WHERE state = ? LIMIT 500)",
        "DELETE FROM carts WHERE changed_at < ?",
        "DELETE FROM carts",
        "INSERT INTO archive (id) SELECT id FROM orders WHERE shop_id = ?",
        "INSERT INTO archive (id, name) SELECT * FROM UNNEST(?, ?)",
        "MERGE INTO stocks USING arrivals ON stocks.sku = arrivals.sku WHEN MATCHED THEN UPDATE SET qty = ?",
        "UPDATE jobs SET state = ? WHERE id = (SELECT id FROM jobs LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id",
    ],
)
def test_batches_of_rows(scenario, sql):
    for turn in range(9):
        scenario.run(sql, turn)
    assert found(scenario) == []


def test_rows_tell_a_batch_where_the_text_does_not(scenario):
    for shop in range(9):
        scenario.run("UPDATE products SET price = 1 WHERE shop_id = ?", shop, rows=40)
        scenario.run("INSERT INTO archive (id) SELECT id FROM orders WHERE shop_id = ?", shop, rows=40)
    assert found(scenario) == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE hibernate_sequence SET next_val = ? WHERE next_val = ?",
        "UPDATE numbers SET value = LAST_INSERT_ID(value + 1) WHERE name = ?",
        "CREATE TABLE t (a int)",
        "DELETE FROM sqlite_sequence WHERE name = ?",
        "SAVEPOINT s",
        "SET autocommit = 1",
    ],
)
def test_what_changes_no_data_of_the_application(scenario, sql):
    for turn in range(9):
        scenario.run(sql, turn)
    assert found(scenario) == []


def test_other_columns_are_another_statement(scenario):
    for columns in ["a", "a, b", "b", "c", "a, c", "b, c"]:
        changes = ", ".join(f"{column} = ?" for column in columns.split(", "))
        scenario.run(f"UPDATE users SET {changes} WHERE id = ?", columns)
    assert found(scenario) == []


def test_other_tables_are_other_statements(scenario):
    for shard in range(9):
        scenario.run(f"INSERT INTO events_{shard:02} (id) VALUES (?)", shard)
    assert found(scenario) == []


def test_several_databases(scenario):
    for shard in range(9):
        scenario.run(INSERT, 1, 1, db=f"shard{shard}")
    assert found(scenario) == []


def test_lines_that_write_once_each(scenario):
    for line in range(6):
        scenario.run("INSERT INTO options (name, value) VALUES (?, ?)", line, caller=f"shop/setup.py:{line} in setup")
    assert found(scenario) == []


def test_a_heartbeat(scenario):
    for _ in range(9):
        scenario.run("UPDATE workers SET seen_at = now() WHERE id = ?", 7)
    assert found(scenario) == []


def test_writes_that_failed_and_were_tried_again(scenario):
    for _ in range(8):
        scenario.run(UPDATE, 1, 1, error="OperationalError 1213")
    scenario.run(UPDATE, 1, 1)
    assert found(scenario) == []


def test_a_block_of_work_tried_again_after_failures(scenario):
    for _ in range(8):
        scenario.run(INSERT, 1, 1)
        scenario.run(UPDATE, 1, 1, error="OperationalError 1213")
    assert found(scenario) == []


# ---------------------------------------------------------------------------------------------------- what must fire


def test_the_fifth_turn(scenario):
    for row in range(5):
        scenario.run(UPDATE, 1, row, duration_ms=3.0 if row == 0 else 1.0)
    [finding] = found(scenario)
    assert finding.title == "5 times UPDATE of one products row at shop/views.py:42 in order_list"
    assert finding.threshold == "write_loop: 5 >= 5"
    assert (finding.count, finding.evidence, finding.tables) == (5, list(range(5)), ["products"])
    assert finding.total_ms == pytest.approx(7.0)
    assert finding.wasted_ms == pytest.approx(4.0)
    assert "bulk_update" in finding.recommendation
    assert scenario.kinds() == ["write_loop"]


@pytest.mark.parametrize(
    ("sql", "advice"),
    [
        (INSERT, "bulk_create"),
        ("INSERT INTO users (name) VALUES (?) RETURNING id", "bulk_create"),
        ("INSERT INTO stocks (sku, qty) VALUES (?, 1) ON CONFLICT (sku) DO UPDATE SET qty = stocks.qty + 1", "upsert"),
        ("INSERT INTO stocks (sku, qty) VALUES (?, 1) ON DUPLICATE KEY UPDATE qty = VALUES(qty)", "upsert"),
        ("INSERT IGNORE INTO tags (name) VALUES (?)", "bulk_create"),
        ("INSERT OR REPLACE INTO tags (name) VALUES (?)", "bulk_create"),
        ("INSERT INTO tags SET name = ?", "bulk_create"),
        ("INSERT INTO tags (name) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM tags WHERE name = ?)", "bulk_create"),
        ("INSERT INTO lines (order_id) VALUES ((SELECT id FROM orders WHERE code = ? LIMIT 1))", "bulk_create"),
        ("REPLACE INTO tags (name) VALUES (?)", "bulk_create"),
        ("WITH i AS (INSERT INTO users (name) VALUES (?) RETURNING id) SELECT id FROM i", "bulk_create"),
        (UPDATE, "bulk_update"),
        ("UPDATE accounts SET balance = balance - 1 WHERE id = ? AND version < ?", "bulk_update"),
        (DELETE, "WHERE id IN"),
        ("DELETE FROM carts WHERE id IN (?)", "WHERE id IN"),
    ],
)
def test_one_row_a_turn(scenario, sql, advice):
    for row in range(6):
        scenario.run(sql, row)
    [finding] = found(scenario)
    assert (finding.count, finding.confidence) == (6, "high")
    assert advice in finding.recommendation


def test_values_in_the_text(scenario):
    for row in range(6):
        scenario.run(f"UPDATE products SET price = {row}.5e0 WHERE id = {row}", system="mysql")
    assert len(found(scenario)) == 1


def test_unknown_values(scenario):
    for _ in range(6):
        scenario.run(UPDATE, scenario.UNKNOWN)
    assert len(found(scenario)) == 1


def test_rows_tell_a_single_row_beside_a_list_of_states(scenario):
    for row in range(6):
        scenario.run("UPDATE tasks SET state = 'run' WHERE id = ? AND state IN ('new', 'queued')", row, rows=1)
    assert len(found(scenario)) == 1


def test_an_upsert_that_counts_an_updated_row_twice(scenario):
    for row in range(6):
        scenario.run("INSERT INTO s (k) VALUES (?) ON DUPLICATE KEY UPDATE n = n + 1", row, rows=2, system="mysql")
    assert len(found(scenario)) == 1


def test_savepoints_and_reads_between(scenario):
    for row in range(6):
        scenario.run("SAVEPOINT s1")
        scenario.run("SELECT id FROM users WHERE mail = ?", row)
        scenario.run("INSERT INTO users (mail) VALUES (?)", row)
        scenario.run("RELEASE SAVEPOINT s1")
    assert sorted(scenario.kinds()) == ["n_plus_one", "write_loop"]


def test_only_the_turns_of_one_row_count(scenario):
    for row in range(10):
        rows = 3 if row in (2, 5) else 1
        scenario.run(f"INSERT INTO lines (sku) VALUES {', '.join(['(?)'] * rows)}", row)
    [finding] = found(scenario)
    assert (finding.count, finding.evidence) == (8, [0, 1, 3, 4, 6, 7, 8, 9])


def test_failures_among_the_turns_are_not_counted(scenario):
    for row in range(8):
        scenario.run(INSERT, row, row, error="IntegrityError 1062" if row % 4 == 0 else None)
    [finding] = found(scenario)
    assert finding.count == 6


def test_rows_beyond_the_kept_ones_count(scenario):
    for row in range(4):
        scenario.run(INSERT, row, row)
    scenario.fold(INSERT, 40)
    [finding] = found(scenario)
    assert finding.count == 44


def test_a_threshold_of_its_own(scenario):
    for row in range(6):
        scenario.run(UPDATE, 1, row)
    assert found(scenario, write_loop=7) == []
    assert len(found(scenario, write_loop=6)) == 1
