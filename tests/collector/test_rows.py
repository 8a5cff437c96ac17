"""From noted facts to rows: intervals, tokens, transactions."""

from __future__ import annotations

import datetime as dt
import decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf_middleware.collector.context import Capture
from perf_middleware.collector.noting import note_query, note_relation, note_wait
from perf_middleware.collector.parameters import MAX_BYTES, params_token
from perf_middleware.collector.rows import Extra, Target
from perf_middleware.record import Profile


def note_all(facts, *, reads=()):
    """Note (text, start, end, inside, error, target) facts, reading after those at the places in `reads`."""
    slot = Capture(Profile(), keep=2000, callers=False)
    slot.start_ns = 0
    for number, fact in enumerate(facts):
        text, start_ns, end_ns, inside, error, target = (*fact, *(False, None, TARGET)[len(fact) - 3 :])
        extra = Extra(error=error) if error else None
        slot.note(
            (text, start_ns / 1e9, end_ns / 1e9, (end_ns - start_ns) / 1e9, target, None, None, 0, None, inside, extra)
        )
        if number in reads:
            slot.read()
    reading = slot.close()
    return SimpleNamespace(
        transactions=reading.transactions(0),
        queries=reading.queries(slot),
        db_ns=pytest.approx(reading.db_s * 1e9),
        db_sum_ns=pytest.approx(reading.db_sum_s * 1e9),
        query_count=reading.query_count,
    )


TARGET = Target("mysql", "x")
MS = 1_000_000


def union(intervals):
    return len({tick for start, end in intervals for tick in range(start, end)})


# ----------------------------------------------------------------------------------------------------------- tokens


class Text(str):
    __slots__ = ()


class Sly:
    def __getattribute__(self, name):
        raise AssertionError(f"asked for {name}")


@pytest.mark.parametrize(
    "value",
    [
        dt.date(2026, 1, 1),
        decimal.Decimal(1),
        Text("a"),
        object,
        "x" * (MAX_BYTES + 1),
        ["x"] * MAX_BYTES,
    ],
)
def test_other_types_and_much_have_no_token(value):
    assert params_token((value,)) is None


def test_no_method_of_a_value_is_called():
    assert params_token((Sly(),)) is None
    assert params_token({"a": [Sly()]}) is None


def test_a_list_that_holds_itself_has_no_token():
    endless = []
    endless.append(endless)
    assert params_token(endless) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (-1, -2),
        (1, 1.0),
        (1, True),
        (0, False),
        (2**61 - 1, 0),
        (0.0, -0.0),
        ("1", 1),
        ("1", b"1"),
        (None, 0),
        ((1, 2), (2, 1)),
        ("ab", "a"),
    ],
)
def test_different_values_have_different_tokens(one, other):
    assert params_token((one,)) != params_token((other,))
    assert params_token(one) != params_token(other)


def test_equal_values_have_equal_tokens_however_they_were_made():
    shared = str(1000)
    assert params_token((shared, shared)) == params_token((str(1000), "1000")) is not None
    assert params_token({"a": [1, 2.5, None, b"x"]}) == params_token({"a": [1, 2.5, None, b"x"]}) is not None


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()


@given(st.lists(scalars, max_size=4), st.lists(scalars, max_size=4))
def test_tokens_are_equal_exactly_when_values_and_types_are(one, other):
    same = repr(one) == repr(other)
    assert (params_token(one) == params_token(other)) == same


# -------------------------------------------------------------------------------------------------------- intervals

intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=30)


@given(intervals, st.sets(st.integers(0, 29)))
def test_db_ms_is_the_union_of_the_intervals_whenever_it_is_read(drawn, reads):
    spans = [(start, start + length) for start, length in drawn]
    reading = note_all([("SELECT 1", start, end) for start, end in spans], reads=reads)
    assert reading.db_ns == union(spans)
    assert reading.db_sum_ns == sum(end - start for start, end in spans)
    assert reading.query_count == len(spans)


def test_statements_that_steer_are_in_no_sum():
    reading = note_all([("SELECT 1", 0, 5), ("SET x = 1", 5, 50), ("COMMIT", 50, 60)])
    assert (reading.query_count, reading.db_ns, reading.db_sum_ns) == (1, 5, 5)


# ----------------------------------------------------------------------------------------------------- transactions


def outcomes(reading):
    return [transaction.outcome for transaction in reading.transactions]


def test_a_transaction_lasts_from_its_first_to_its_last_statement_and_is_busy_inside_them():
    reading = note_all(
        [
            ("BEGIN", 0, 1 * MS, True),
            ("SELECT 1", 5 * MS, 7 * MS, True),
            ("COMMIT", 9 * MS, 10 * MS),
            ("SELECT 1", 20 * MS, 21 * MS),
        ]
    )
    (transaction,) = reading.transactions
    assert (transaction.duration_ms, transaction.busy_ms, transaction.outcome) == (10, 4, "commit")
    assert [query.transaction for query in reading.queries] == [0, None]


def test_two_connections_have_their_own_transactions():
    other = Target("mysql", "y")
    reading = note_all(
        [
            ("BEGIN", 0, 1, True),
            ("BEGIN", 1, 2, True, None, other),
            ("ROLLBACK", 2, 3),
            ("COMMIT", 3, 4, False, None, other),
        ]
    )
    assert [(t.db, t.outcome) for t in reading.transactions] == [("x", "rollback"), ("y", "commit")]


def test_a_deadlock_rolls_back_and_a_commit_that_fails_does_not_commit():
    reading = note_all(
        [
            ("BEGIN", 0, 1, True),
            ("UPDATE t SET a = 1", 1, 2, False, "OperationalError 1213"),
            ("BEGIN", 2, 3, True),
            ("COMMIT", 3, 4, True, "OperationalError 1205"),
            ("ROLLBACK", 4, 5),
        ]
    )
    assert outcomes(reading) == ["rollback", "rollback"]


def test_without_a_status_the_tables_tell_whether_autocommit_off_began_one():
    reading = note_all([("SELECT 1", 0, 1, None), ("SELECT a FROM t", 1, 2, None), ("COMMIT", 2, 3)])
    assert [query.transaction for query in reading.queries] == [None, 0]
    assert outcomes(reading) == ["commit"]


# ------------------------------------------------------------------------------------------------ waits and relations


def note(slot, text, start_ns, end_ns, target=TARGET):
    note_query(slot, target, text, 0, start_ns, end_ns, None, 0, None)


def test_a_wait_is_no_query_and_none_of_its_time_is_the_databases():
    slot = Capture(Profile(), keep=2000, callers=False, start_ns=0)
    note_wait(slot, TARGET, 0, 5 * MS)
    note(slot, "SELECT 1", 5 * MS, 7 * MS)
    reading = slot.close()
    assert (reading.query_count, reading.db_s, reading.db_sum_s) == (1, pytest.approx(2e-3), pytest.approx(2e-3))
    assert reading.transactions(0) == []
    assert slot.waited_ns == 5 * MS


def test_a_wait_is_told_by_the_next_query_of_its_connection():
    other = Target("mysql", "y")
    slot = Capture(Profile(), keep=2000, callers=False, start_ns=0)
    note_wait(slot, other, 0, 5 * MS)
    note(slot, "SELECT 1", 5 * MS, 7 * MS)
    note(slot, "SELECT 2", 7 * MS, 8 * MS, other)
    note(slot, "SELECT 3", 8 * MS, 9 * MS, other)
    assert [query.wait_ms for query in slot.close().queries(slot)] == [None, 5.0, None]


def test_a_wait_without_a_query_is_counted_and_leaves_no_row():
    slot = Capture(Profile(), keep=2000, callers=False, start_ns=0)
    note_wait(slot, TARGET, 0, 5 * MS)
    reading = slot.close()
    assert (reading.query_count, reading.queries(slot), slot.waited_ns) == (0, [], 5 * MS)


def test_waits_of_an_unsampled_profile_are_counted():
    slot = Capture(Profile(), keep=0, callers=False, start_ns=0)
    note_wait(slot, TARGET, 0, 5 * MS)
    note(slot, "SELECT 1", 5 * MS, 7 * MS)
    reading = slot.close()
    assert (reading.query_count, reading.db_s, slot.waited_ns) == (1, pytest.approx(2e-3), 5 * MS)


def test_a_wait_inside_a_block_is_its_requests_too():
    outer = Capture(Profile(), keep=2000, callers=False, start_ns=0)
    inner = Capture(Profile(), keep=2000, callers=False, start_ns=0, parent=outer)
    note_wait(inner, TARGET, 0, 5 * MS)
    note(inner, "SELECT 1", 5 * MS, 7 * MS)
    inner.close()
    assert (inner.waited_ns, outer.waited_ns) == (5 * MS, 5 * MS)
    assert [query.wait_ms for query in outer.close().queries(outer)] == [5.0]


def test_a_relation_is_of_the_query_noted_last_and_of_its_runs():
    slot = Capture(Profile(), keep=2000, callers=False, start_ns=0)
    note(slot, "BEGIN", 0, 1)
    note(slot, "SELECT 1 FROM a", 1, 2)
    note(slot, "SELECT 1 FROM b", 2, 3)
    note_relation(slot, "Order.customer")
    reading = slot.close()
    assert [query.relation for query in reading.queries(slot)] == [None, "Order.customer"]
    assert [runs.relation for runs in reading.runs.values()] == [None, "Order.customer"]


def test_a_relation_of_a_query_beyond_those_kept_is_forgotten():
    slot = Capture(Profile(), keep=1, callers=False, start_ns=0)
    for number in range(3):
        note(slot, "SELECT 1", number, number + 1)
        note_relation(slot, f"Order.{number}")
    assert [query.relation for query in slot.close().queries(slot)] == ["Order.0"]
    assert slot.relations == {0: "Order.0"}


def test_a_wait_and_a_relation_after_the_end_are_nobodys():
    slot = Capture(Profile(), keep=2000, callers=False, start_ns=0)
    note(slot, "SELECT 1", 0, 1)
    slot.close()
    note_wait(slot, TARGET, 0, 1)
    note_relation(slot, "Order.customer")
    assert (slot.waited_ns, slot.relations) == (None, None)
