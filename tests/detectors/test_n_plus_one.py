from __future__ import annotations

import pytest

LOOKUP = "SELECT name FROM authors WHERE id = ?"


def found(scenario, **thresholds):
    return scenario.findings("n_plus_one", **thresholds)


# ---------------------------------------------------------------------------------------------- what must not fire


def test_nothing_ran(scenario):
    assert found(scenario) == []


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_fewer_turns_than_the_threshold(scenario, turns):
    for author in range(turns):
        scenario.run(LOOKUP, author)
    assert found(scenario) == []


@pytest.mark.parametrize("authors", [[7] * 9, [7, 8] * 8])
def test_one_or_two_values_are_no_loop_over_values(scenario, authors):
    for author in authors:
        scenario.run(LOOKUP, author)
    assert found(scenario) == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE authors SET seen = 1 WHERE id = ?",
        "DELETE FROM authors WHERE id = ?",
        "INSERT INTO authors (name) VALUES (?) RETURNING id",
        "INSERT INTO authors (name) VALUES (?) ON CONFLICT (name) DO UPDATE SET seen = 1",
        "REPLACE INTO authors (id) VALUES (?)",
        "WITH gone AS (DELETE FROM authors WHERE id = ? RETURNING id) SELECT id FROM gone",
        "WITH old AS (SELECT id FROM authors WHERE id = ?) UPDATE books SET sold = 1 WHERE id IN (SELECT id FROM old)",
    ],
)
def test_writes_are_not_reads(scenario, sql):
    for author in range(9):
        scenario.run(sql, author)
    assert found(scenario) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT GET_LOCK(?, 10)",
        "SELECT RELEASE_LOCK(?)",
        "SELECT pg_advisory_xact_lock(?)",
        "SELECT pg_catalog.pg_try_advisory_lock(?)",
        "SELECT nextval(?)",
        "SELECT last_insert_rowid()",
        "SELECT CAST(SCOPE_IDENTITY() AS bigint)",
        "SELECT next_val AS id_val FROM hibernate_sequence FOR UPDATE",
        "SELECT NEXT VALUE FOR order_seq",
        "SELECT pg_advisory_lock(id) FROM accounts WHERE id = ?",
        "SELECT version()",
        "SELECT set_config('app.user', ?, false)",
        "SELECT column_name FROM information_schema.columns WHERE table_name = ?",
        "SELECT relname FROM pg_catalog.pg_class WHERE oid = ?",
        "SELECT sql FROM sqlite_master WHERE name = ?",
        "PRAGMA table_info(?)",
        "SET @x = ?",
        "SHOW TABLES LIKE ?",
        "FETCH ? FROM orders_cursor",
        "EXPLAIN SELECT name FROM authors WHERE id = ?",
        "SELECT ?",
    ],
)
def test_the_session_locks_sequences_cursors_and_the_catalogue(scenario, sql):
    for value in range(9):
        scenario.run(sql, value)
    assert found(scenario) == []


def test_a_statement_that_reads_nothing_stored(scenario):
    for value in range(10):
        scenario.run("SELECT ? FROM (SELECT 1 AS id) WHERE id = ?", value, rows=1)
    assert found(scenario) == []


def test_a_claim_from_a_queue(scenario):
    for job in range(9):
        scenario.run("SELECT id FROM jobs WHERE run_at < ? ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED", job)
    assert found(scenario) == []


def test_only_a_limit_varies(scenario):
    for limit in range(9):
        scenario.run("SELECT id, name FROM authors LIMIT ?", limit, rows=limit)
    assert found(scenario) == []


@pytest.mark.parametrize("last", [100, 70, 1])
def test_chunks_of_one_long_list(scenario, last):
    for start in [0, 100, 200, 300, 400]:
        size = last if start == 400 else 100
        scenario.run(f"SELECT id FROM orders WHERE id IN ({', '.join('?' * size)})", start)
    assert found(scenario) == []


def test_lists_of_20_or_more_on_average(scenario):
    for size in [10, 25, 40, 12, 15]:
        scenario.run(f"SELECT id FROM orders WHERE id IN ({', '.join('?' * size)})", size)
    assert found(scenario) == []


def test_long_lists_written_with_or(scenario):
    for start in range(6):
        scenario.run("SELECT id FROM orders WHERE " + " OR ".join(["id = ?"] * 50), start)
    assert found(scenario) == []


def test_long_lists_in_an_array(scenario):
    for start in range(6):
        scenario.run("SELECT id FROM orders WHERE id = ANY($1)", start, rows=100)
    assert found(scenario) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id, total FROM orders ORDER BY id LIMIT ? OFFSET ?",
        "SELECT id, total FROM orders ORDER BY id LIMIT ?, ?",
        "SELECT id, total FROM orders WHERE id > ? ORDER BY id LIMIT ?",
        "SELECT id, total FROM orders WHERE (placed_at, id) > (?, ?) ORDER BY placed_at, id LIMIT 50",
        "SELECT id FROM orders WHERE placed_at < ? OR (placed_at = ? AND id < ?) ORDER BY placed_at, id LIMIT 50",
        "SELECT id FROM orders ORDER BY id OFFSET ? ROWS FETCH NEXT 50 ROWS ONLY",
        "SELECT id, total FROM orders WHERE id BETWEEN ? AND ?",
        "SELECT id, total FROM orders WHERE id >= ? AND id < ?",
        "SELECT id, total FROM orders WHERE status <> 'gone' AND id > ? ORDER BY id LIMIT 50",
    ],
)
@pytest.mark.parametrize("rows", [[50] * 6, [50, 50, 50, 50, 50, 0], [None] * 6])
def test_a_table_read_page_by_page(scenario, sql, rows):
    for page, count in enumerate(rows):
        scenario.run(sql, page, rows=count)
    assert found(scenario) == []


@pytest.mark.parametrize("rows", [[10, 10, 10, 10, 10, 4], [50] * 6])
def test_pages_of_one_parent(scenario, rows):
    for page, count in enumerate(rows):
        scenario.run("SELECT id FROM orders WHERE shop_id = ? AND id > ? ORDER BY id LIMIT 50", page, rows=count)
    assert found(scenario) == []


def test_pages_with_a_constant_in_the_code(saved):
    for page in range(6):
        saved.run("SELECT id FROM orders WHERE status = 'open' AND id > ? ORDER BY id LIMIT 7", page, rows=7)
    assert found(saved) == []


def test_a_short_prefetch_for_each_page(scenario):
    for page in range(6):
        scenario.run("SELECT id FROM orders WHERE id > ? ORDER BY id LIMIT 10", page, rows=10)
        scenario.run(f"SELECT name FROM authors WHERE id IN ({', '.join('?' * (3 + page % 3))})", page, rows=3)
    assert found(scenario) == []


def test_straight_line_code(scenario):
    for line in range(8):
        scenario.run(LOOKUP, line, caller=f"shop/views.py:{line} in dashboard")
    assert found(scenario) == []


def test_retries_after_failures(scenario):
    for value in range(8):
        scenario.run("SELECT id FROM seats WHERE number = ? FOR UPDATE NOWAIT", value, error="OperationalError 3572")
    scenario.run("SELECT id FROM seats WHERE number = ? FOR UPDATE NOWAIT", 8)
    assert found(scenario) == []


def test_a_block_of_work_tried_again_after_failures(scenario):
    for _ in range(8):
        scenario.run("SELECT qty FROM stocks WHERE product_id = ?", scenario.UNKNOWN)
        scenario.run("UPDATE stocks SET qty = ? WHERE product_id = ?", scenario.UNKNOWN, error="OperationalError 1213")
    assert found(scenario) == []


def test_polling_of_unknown_values_with_pauses(scenario):
    for pause_ms in [20.1, 20.3, 23.5, 20.2, 20.1, 20.4, 20.2]:
        scenario.run("SELECT state FROM jobs WHERE id = ?", scenario.UNKNOWN, pause_ms=pause_ms)
    assert found(scenario) == []


def test_several_databases_are_not_one(scenario):
    for author in range(8):
        scenario.run(LOOKUP, author, db=f"shard{author % 2}")
    assert found(scenario) == []


def test_other_tables_columns_and_conditions_are_other_statements(scenario):
    for number in range(8):
        scenario.run(f"SELECT id FROM events_{number:02} WHERE user_id = ?", number)
        scenario.run(f"SELECT c{number} FROM events WHERE user_id = ?", number)
        scenario.run(f"SELECT id FROM events WHERE c{number} = ?", number)
    assert found(scenario) == []


def test_a_threshold_of_its_own(scenario):
    for author in range(9):
        scenario.run(LOOKUP, author)
    assert found(scenario, n_plus_one=10) == []
    assert found(scenario, n_plus_one=9)


# ---------------------------------------------------------------------------------------------------- what must fire


def test_a_lookup_per_row(scenario):
    scenario.run("SELECT id, author_id FROM books LIMIT 27", rows=27)
    for author in range(27):
        scenario.run(LOOKUP, author, duration_ms=2.0 if author == 3 else 1.0)
    [finding] = found(scenario)
    assert finding.title == "27 times authors by id at shop/views.py:42 in order_list"
    assert finding.threshold == "n_plus_one: 27 >= 5"
    assert finding.fingerprint == LOOKUP
    assert finding.tables == ["authors"]
    assert finding.caller == scenario.CALLER
    assert finding.confidence == "high"
    assert finding.count == 27
    assert finding.evidence == list(range(1, 28))
    assert finding.total_ms == pytest.approx(28.0)
    assert finding.wasted_ms == pytest.approx(26.0)
    assert "SELECT ... FROM authors WHERE id IN (...)" in finding.recommendation
    assert "shop/views.py:42" in finding.recommendation


@pytest.mark.parametrize(
    ("sql", "column"),
    [
        ("SELECT COUNT(*) FROM comments WHERE post_id = %s", "post_id"),
        ("SELECT 1 FROM permissions WHERE user_id = ? AND object_id = ? AND perm = 'read' LIMIT 1", "object_id"),
        ("SELECT id FROM comments WHERE post_id = $1 ORDER BY created_at DESC LIMIT 1", "post_id"),
        ('SELECT "users"."id" FROM "users" WHERE "users"."id" = %s LIMIT 21', "id"),
        ("SELECT dogs.breed FROM dogs WHERE ? = dogs.id", "id"),
        ("SELECT id FROM products WHERE name LIKE ? ORDER BY name LIMIT 5", "name"),
        ("SELECT id FROM products WHERE LOWER(sku) = LOWER(?)", "sku"),
        ("WITH r AS (SELECT total FROM orders WHERE customer_id = ? LIMIT 3) SELECT SUM(total) FROM r", "customer_id"),
        ("SELECT id FROM seats WHERE number = ? FOR UPDATE", "number"),
        ("SELECT now(), name FROM authors WHERE id = ?", "id"),
        ("SELECT user AS login FROM authors WHERE id = ?", "id"),
        ("SELECT id FROM articles WHERE MATCH(title) AGAINST(?) AND shop_id = ?", "shop_id"),
        ("SELECT EXISTS(SELECT 1 FROM imports WHERE sku = ?)", "sku"),
    ],
)
def test_every_kind_of_lookup_per_row(scenario, sql, column):
    for value in range(6):
        scenario.run(sql, value)
    [finding] = found(scenario)
    assert f" by {column} at" in finding.title


def test_a_stored_function_per_row(scenario):
    for product in range(6):
        scenario.run("SELECT price_of(?)", product)
    assert [finding.title for finding in found(scenario)] == ["6 times price_of at shop/views.py:42 in order_list"]


def test_turns_that_overlap_waste_no_more_than_the_time_they_took(scenario):
    for turn in range(6):
        scenario.run(LOOKUP, turn, duration_ms=10.0)
        scenario.at_ms = turn + 1.0
    [finding] = found(scenario)
    assert finding.total_ms == pytest.approx(60.0)
    assert finding.wasted_ms == pytest.approx(5.0)  # 15 ms from the first start to the last end, less the slowest


def test_values_in_the_text(scenario):
    for value in range(6):
        scenario.run(f"SELECT name FROM authors WHERE id = {value} AND score >= 0.{value}e0 AND tag = 'a{value}'")
    assert [finding.confidence for finding in found(scenario)] == ["high"]


def test_comments_and_case_and_spacing_do_not_split_a_loop(scenario):
    for value in range(3):
        scenario.run(f"/* call={value} */ SELECT name FROM authors WHERE id = ?", value)
        scenario.run("select  name\nfrom authors where id = ? -- again", value + 10)
    assert [finding.count for finding in found(scenario)] == [6]


def test_unknown_values_are_taken_for_different_with_less_confidence(scenario):
    for _ in range(6):
        scenario.run(LOOKUP, scenario.UNKNOWN)
    assert [finding.confidence for finding in found(scenario)] == ["medium"]


def test_irregular_pauses_are_work_not_polling(scenario):
    for turn in range(8):
        scenario.run(LOOKUP, scenario.UNKNOWN, pause_ms=10 if turn % 2 else 140)
    assert len(found(scenario)) == 1


def test_branches_of_one_loop_on_several_lines_are_one_finding(scenario):
    for turn in range(12):
        scenario.run(LOOKUP, turn, caller=f"shop/views.py:{turn % 4} in order_list")
    assert [finding.count for finding in found(scenario)] == [12]


def test_one_call_site_per_line_but_nobody_knows_the_lines(scenario):
    for turn in range(6):
        scenario.run(LOOKUP, turn, caller=None)
    [finding] = found(scenario)
    assert finding.title == "6 times authors by id"


def test_interleaved_and_overlapping_turns(scenario):
    for turn in range(6):
        scenario.run(LOOKUP, turn)
        scenario.run("SELECT qty FROM stocks WHERE product_id = ?", turn)
        scenario.run("INSERT INTO audit_log (target) VALUES (?)", turn)
        scenario.at_ms = 0.0
    assert {finding.tables[0] for finding in found(scenario)} == {"authors", "stocks"}


def test_a_loop_in_which_every_turn_fails_once_and_goes_on(scenario):
    for turn in range(6):
        scenario.run(LOOKUP, turn, error="OperationalError 1205")
        scenario.run(LOOKUP, turn)
    assert [finding.count for finding in found(scenario)] == [6]


@pytest.mark.parametrize("size", [2, 4, 10])
def test_short_lists_once_per_parent(scenario, size):
    for parent in range(6):
        scenario.run(f"SELECT name FROM tags WHERE id IN ({', '.join('?' * size)})", parent)
    assert len(found(scenario)) == 1


def test_short_lists_of_different_length_are_different_values_even_if_unknown(scenario):
    for size in [1, 2, 3, 4, 5, 6]:
        scenario.run(f"SELECT name FROM tags WHERE id IN ({', '.join('?' * size)})", scenario.UNKNOWN)
    assert [finding.confidence for finding in found(scenario)] == ["high"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM orders WHERE customer_id = ? AND id > ? ORDER BY id LIMIT 3",
        "SELECT id FROM orders WHERE customer_id = ? ORDER BY id LIMIT ? OFFSET ?",
        "SELECT id FROM orders WHERE customer_id = ? AND placed_at BETWEEN ? AND ?",
    ],
)
@pytest.mark.parametrize("rows", [[3] * 6, [3, 1, 0, 3, 2, 3], [None] * 6])
def test_paging_shapes_with_an_equality_on_a_parent(scenario, sql, rows):
    for customer, count in enumerate(rows):
        scenario.run(sql, customer, rows=count)
    assert len(found(scenario)) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM orders WHERE id > ? ORDER BY id LIMIT 1",
        "SELECT id FROM orders ORDER BY id LIMIT 1 OFFSET ?",
        "SELECT rate FROM rates WHERE starts_on <= ? AND ends_on > ?",
    ],
)
def test_paging_shapes_with_one_row_per_turn(scenario, sql):
    for turn in range(6):
        scenario.run(sql, turn, rows=1)
    assert len(found(scenario)) == 1


def test_a_lookup_per_row_inside_pages(scenario):
    for page in range(6):
        scenario.run("SELECT id FROM orders WHERE id > ? ORDER BY id LIMIT 10", page, rows=10)
        for row in range(10):
            scenario.run(LOOKUP, page * 10 + row)
    assert [finding.tables for finding in found(scenario)] == [["authors"]]


def test_several_values_and_one_of_them_often(scenario):
    for value in [1, 1, 1, 1, 1, 1, 2, 3]:
        scenario.run(LOOKUP, value)
    assert scenario.kinds() == ["n_plus_one"]


def test_rows_beyond_the_kept_ones_count(scenario):
    for author in range(6):
        scenario.run(LOOKUP, author)
    scenario.fold(LOOKUP, 1000, errors=10)
    [finding] = found(scenario)
    assert finding.count == 996
    assert finding.total_ms == pytest.approx(1006.0)
    assert finding.wasted_ms == pytest.approx(1004.0)
    assert finding.evidence == list(range(6))


def test_a_loop_of_which_only_counters_were_kept(scenario):
    scenario.fold(LOOKUP, 1000)
    [finding] = found(scenario)
    assert (finding.count, finding.confidence, finding.caller, finding.evidence) == (1000, "low", None, [])


def test_the_id_survives_another_line_count_and_value(scenario):
    for author in range(6):
        scenario.run(LOOKUP, author)
    [before] = found(scenario)
    scenario.queries.clear()
    for author in range(60, 90):
        scenario.run(LOOKUP, author, caller="shop/views.py:57 in order_list")
    [after] = found(scenario)
    scenario.queries.clear()
    for author in range(6):
        scenario.run(LOOKUP, author, caller="shop/views.py:42 in invoice_list")
    [elsewhere] = found(scenario)
    assert before.finding_id == after.finding_id != elsewhere.finding_id


@pytest.mark.parametrize(
    ("sql", "advice"),
    [
        (
            "SELECT COUNT(*) FROM comments WHERE post_id = ?",
            "SELECT post_id, ... FROM comments WHERE post_id IN (...) GROUP BY",
        ),
        ("SELECT id FROM comments WHERE post_id = ? ORDER BY id DESC LIMIT 1", "PARTITION BY post_id"),
        ("SELECT id FROM products WHERE name LIKE ?", "name LIKE ... OR name LIKE ..."),
        ("SELECT rate FROM rates WHERE starts_on <= ? AND ends_on > ?", "Read all of rates"),
    ],
)
def test_the_advice_fits_the_statement(scenario, sql, advice):
    for value in range(6):
        scenario.run(sql, value, rows=1)
    assert advice in found(scenario)[0].recommendation


def test_the_relation_that_is_loaded_is_named_where_a_layer_told(scenario):
    for number in range(5):
        scenario.run("SELECT name FROM customers WHERE id = ?", number, relation="Order.customer")
    (finding,) = scenario.findings("n_plus_one")
    assert "Order.customer is loaded lazily, row by row." in finding.recommendation


def test_no_relation_is_named_where_nobody_told(scenario):
    for number in range(5):
        scenario.run("SELECT name FROM customers WHERE id = ?", number)
    (finding,) = scenario.findings("n_plus_one")
    assert "lazily" not in finding.recommendation
