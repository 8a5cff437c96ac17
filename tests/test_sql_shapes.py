"""What was read of one text may be said of another only if reading the other would have said the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from perf_middleware import fingerprint as reading
from perf_middleware import sql

SYSTEMS = ["mysql", "postgresql", "sqlite", "mssql", None]
CORPUS = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "statements.jsonl").read_text(encoding="utf-8").splitlines()
]

any_system = st.sampled_from(SYSTEMS)
any_case = st.sampled_from(CORPUS)
digits = st.text(alphabet="0123456789", min_size=1, max_size=4)
insides = st.text(alphabet="ab1 -#/*()$%;:?@\"`[]\n\\'\0é", max_size=6)

PIECES = [
    *sorted(
        reading._words("""
            SELECT FROM WHERE IN VALUES NULL IS NOT LIMIT AND a t1 x2y events_00 2fa ( ) , ; . * + - / % = ? [ ]
            5 12 -5 1.5 .5 1. 1e5 1E-5 1e5x 0x1F 1x1F 0b1 0b2 0o7 1_000 ?1 :1 $1 @p1 @1 %s %(a1)s $$ $t1$ $1$
            # -- /* */
        """)
    ),
    *["'v'", "'1'", "''", "'it''s'", "'a' 'b'", "N'x1'", "E'x1'", "x'1F'", "_utf8'x'", "U&'1'", "'"],
    *['"w1"', '"it\'s 1"', "`r1`", "`it's`", "[s 1]", "[it's]", "array[1]", "%(a = 'x')s", "%(", "/*!50000 1 */"],
    *[
        "-- it's 1\n",
        "/* it's 1 */",
        "/* 1 */",
        "/*'1'*/",
        "#'1'\n",
        "$$1$$",
        "$$'1'$$",
        "$a$ 'x' $a$",
        "\\",
        "\n",
        "é1",
    ],
]
texts = st.lists(st.sampled_from(PIECES), max_size=12).flatmap(
    lambda pieces: st.sampled_from([" ", ""]).map(lambda gap: gap.join(pieces))
)


def read_token_by_token(text, system):
    return sql._Reader(*sql._READERS[system].dialects)._read_tokens(text)[0]


def rewritten(data, text):
    """The text with other digits, and other insides where quotes may mean strings."""
    numbers = re.sub(r"[0-9]+", lambda run: data.draw(st.just(run[0]) | digits), text)
    if not data.draw(st.booleans()):
        return numbers
    return re.sub(r"'[^']*'", lambda quoted: data.draw(st.just(quoted[0]) | insides.map(lambda s: f"'{s}'")), numbers)


def readings(monkeypatch):
    """How often a text was read token by token since."""
    read = []
    monkeypatch.setattr(sql, "read", lambda text, dialect: read.append(text) or reading.read(text, dialect))
    return read


# What must not happen: one text taken for another.


@settings(max_examples=1500, deadline=None)
@given(texts, any_system, st.data())
def test_a_text_like_one_before_is_read_as_if_there_had_been_none(text, system, data):
    reader = sql._Reader(*sql._READERS[system].dialects)
    for other in (text, *(rewritten(data, text) for _ in range(4))):
        assert reader.read(other) == read_token_by_token(other, system)
        assert reader.read(other) == read_token_by_token(other, system)


@settings(max_examples=300, deadline=None)
@given(any_case, st.data())
def test_a_statement_like_one_before_is_read_as_if_there_had_been_none(case, data):
    text, system = case["sql"], case["system"]
    reader = sql._Reader(*sql._READERS[system].dialects)
    for other in (text, *(rewritten(data, text) for _ in range(4))):
        assert reader.read(other) == read_token_by_token(other, system)


@settings(max_examples=500, deadline=None)
@given(texts, any_system, st.lists(insides, max_size=3))
@example("a -", None, ["x"])
@example("#", "mysql", ["\n"])
@example("SELECT 1 /* /* 2 */", "postgresql", ["*/"])
@example(" ", None, ["*/"])
@example("a /", None, [""])
@example("SELECT %(", None, [" )s "])
@example("SELECT E'a\\', b = ''''", "sqlite", ["'d'"])
@example("SELECT 'a\\', 1", None, [" it's "])
def test_a_text_with_comments_at_its_end_is_read_as_if_it_had_been_the_first(text, system, comments):
    reader = sql._Reader(*sql._READERS[system].dialects)
    reader.read(text)
    for end in (" ", "", "\n"):
        other = text + "".join(f"{end}/*{comment}*/" for comment in comments)
        assert reader.read(other) == read_token_by_token(other, system)


@settings(max_examples=500, deadline=None)
@given(texts, any_system, st.lists(insides, max_size=3))
@example("SELECT 1", None, ["\\"])
@example("SELECT 1", "postgresql", ["/*"])
@example("SELECT _utf8'a'", None, ["\\"])
def test_a_text_with_comments_before_it_is_read_as_if_it_had_been_the_first(text, system, comments):
    reader = sql._Reader(*sql._READERS[system].dialects)
    reader.read(text)
    for begin, end in (("/*", "*/"), ("-- ", "\n"), ("#", "\n")):
        other = "".join(f"{begin}{comment}{end}" for comment in comments) + text
        assert reader.read(other) == read_token_by_token(other, system)


def test_where_dollar_tags_have_digits_no_text_is_taken_for_another():
    reader = sql._Reader(reading.POSTGRESQL)
    for text in (
        "SELECT $a1$ 5 $a2$ 6 $a1$ 7 $a2$ 8 $a2$",
        "SELECT $a1$ 5 $a1$ 6 $a2$ 7 $a1$ 8 $a2$",
        "SELECT $a1$ 5 $a2$ 9 $a6$ 1 $a2$ 8 $a2$",
    ):
        assert reader.read(text) == read_token_by_token(text, "postgresql")


def test_caches_that_other_threads_empty_change_no_reading(monkeypatch):
    monkeypatch.setattr(sql, "_CACHED", 3)
    reader = sql._Reader(reading.MYSQL)
    read = [
        f"SELECT t{n % 3}.a FROM t AS t{n % 3} WHERE b = {n % 7} AND c = '{n % 2}' LIMIT {limit} /* {n} */"
        for n in range(200)
        for limit in ("1", "%s")
    ]
    expected = {text: read_token_by_token(text, "mysql") for text in read}
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            readings = list(pool.map(reader.read, read * 4))
    finally:
        sys.setswitchinterval(interval_s)
    assert readings == [expected[text] for text in read * 4]


LIKE_EACH_OTHER = [
    ("SELECT a FROM events_00 WHERE b = 1", "SELECT a FROM events_01 WHERE b = 1"),
    ("SELECT t1.a FROM t t1 WHERE b = 1", "SELECT t2.a FROM t t2 WHERE b = 1"),
    ("SELECT a1 FROM t WHERE b = 'x'", "SELECT a2 FROM t WHERE b = 'x'"),
    ("SELECT 1, `a 1`", "SELECT 1, `a 2`"),
    ("SELECT a AS x FROM t WHERE b = 'v'", "SELECT a AS x1 FROM t WHERE b = 'v'"),
    ("SELECT 0x1 FROM t WHERE b = 1", "SELECT 1x1 FROM t WHERE b = 1"),
    ("SELECT 'a' FROM t", "SELECT 'a' 'b' FROM t AS 'c'"),
    ("SELECT 1", "1SELECT "),
    ("SELECT 1, 5\N{ARABIC-INDIC DIGIT THREE}", "SELECT 1, 5"),
    ("SELECT a FROM t WHERE b = 5", "SELECT a FROM t WHERE b ="),
]


@pytest.mark.parametrize(("one", "other"), LIKE_EACH_OTHER)
@pytest.mark.parametrize("system", ["mysql", None])
def test_names_with_digits_stay_apart_in_any_order(one, other, system):
    for first, second in ((one, other), (other, one)):
        reader = sql._Reader(*sql._READERS[system].dialects)
        assert reader.read(first).fingerprint != reader.read(second).fingerprint
        assert reader.read(first) == read_token_by_token(first, system)


@settings(max_examples=300, deadline=None)
@given(st.data(), any_system)
def test_literals_are_equal_exactly_if_their_hashes_are(data, system):
    literal = st.integers(0, 200).map(str) | st.sampled_from(
        ["1.5", "15", "1e5", "-5", "+5", "- 5", "''", "'5'", "'a'", "'b'", "'a''b'", "NULL", "TRUE", "N'a'", "X'1F'"]
    )
    one, other = (data.draw(st.lists(literal, min_size=2, max_size=3)) for _ in range(2))
    spaced = "SELECT a  FROM t WHERE b IN({}) -- c", "select a from t where b in ({})"
    first, second = (
        sql.parse(text.format(", ".join(literals)), system) for text, literals in zip(spaced, (one, other), strict=True)
    )
    assume(first.fingerprint.lower() == second.fingerprint.lower())
    same = [text.replace(" ", "") for text in one] == [text.replace(" ", "") for text in other]
    assert (first.literals == second.literals) == same


# What must not happen: memory that grows.


def test_what_is_remembered_is_bounded_whatever_comes(monkeypatch):
    monkeypatch.setattr(sql, "_CACHED", 50)
    reader = sql._Reader(reading.MYSQL)
    for n in range(200):
        for text in (
            f"SELECT a FROM t WHERE b{n} = {10 ** (n % 60)} AND c = '{'x' * n}'",
            f"SELECT a FROM t{n} WHERE b = {n} AND c = %s",
            f"SELECT a FROM t{n}",
            f"SELECT a FROM t WHERE b = 'it\\'s {n}'",
            f"SELECT a FROM t{n} WHERE b IN ({', '.join(['%s'] * 2000)})",
        ):
            for _ in range(3):
                reader.read(text)
    for kept in (reader.texts, reader.masks, reader.shapes, reader.seen):
        assert 0 < len(kept) <= 50


def test_strings_that_never_come_again_leave_no_masks():
    reader = sql._Reader(reading.MYSQL)
    for n in range(500):
        reader.read(f"SELECT a FROM t WHERE b = '{'x' * n}'")
    assert not reader.masks
    assert len(reader.shapes) == 1
    assert not reader.texts


def test_a_mask_has_few_numbers_and_characters(monkeypatch):
    reader = sql._Reader(reading.MYSQL)
    monkeypatch.setattr(sql, "_taking", None)
    for n in range(1000, 1003):
        reader.read(f"SELECT a FROM t WHERE b IN ({', '.join([str(n)] * (sql._MAX_MASKED_NUMBERS + 1))})")
        reader.read(f"SELECT a FROM t WHERE b = {n} AND c = '{'x' * sql._MAX_CACHED_CHARS}'")
    assert not reader.masks
    assert len(reader.shapes) == 2


def test_a_text_with_only_literals_is_not_kept():
    reader = sql._Reader(reading.POSTGRESQL)
    for n in range(3):
        reader.read(f"SELECT a FROM t WHERE b = {n} AND c = 'x' /* {n} */")
    assert not reader.texts


# What must happen: each shape is read once.


@pytest.mark.parametrize(
    "template",
    [
        "SELECT a FROM t WHERE b = {n}",
        "SELECT a FROM t WHERE b = {n} AND c = 'it''s {n}' AND d > {n}.5 LIMIT 10",
        "SELECT t1.a FROM t AS t1 WHERE t1.address2 = '{n}' AND t1.b = {n}",
        "SELECT a FROM `t-1` WHERE b = '{word}'",
        "INSERT INTO t (a, b) VALUES ({n}, '{word}'), (-{n}, N'{word} {n}')",
        "SELECT a /* 1 */ FROM t WHERE b = {n} -- the end",
        "SELECT a FROM t WHERE b = %s AND c = {n} AND d IS NOT NULL",
        "SELECT a FROM t WHERE b = %s /*traceparent='00-{n}-{word}-01'*/",
        "SELECT a FROM é WHERE b = 'ü{n}'",
        "/* {word} {n} */ SELECT a FROM t WHERE b = {n}",
        "-- {word} {n}\nSELECT a FROM t WHERE b = {n} /* {word} */;",
        "SELECT a FROM t WHERE b IN (" + "{n}, " * 2000 + "'{word}')",
    ],
)
@pytest.mark.parametrize("system", SYSTEMS)
def test_texts_that_differ_in_their_literals_only_are_read_token_by_token_once(template, system, monkeypatch):
    reader = sql._Reader(*sql._READERS[system].dialects)
    read = readings(monkeypatch)
    statements = [reader.read(template.format(n=n * n, word="x" * n + "é$(")) for n in range(100)]
    assert len(read) == 1
    assert len({statement.fingerprint for statement in statements}) == 1
    assert len({statement.literals for statement in statements}) == (1 if "traceparent" in template else 100)


def test_masks_come_back_after_they_were_forgotten(monkeypatch):
    reader = sql._Reader(reading.MYSQL)
    read = readings(monkeypatch)
    for _ in range(100):
        reader.masks.clear()
        for n in (12, 34):
            reader.read(f"SELECT a FROM t WHERE b = {n}")
        assert reader.masks
    assert len(read) == 1


def test_each_length_of_a_list_is_read_once(monkeypatch):
    reader = sql._Reader(reading.MYSQL)
    read = readings(monkeypatch)
    for n in range(100):
        length = n % 5 + 1
        text = f"SELECT a FROM t WHERE b IN ({', '.join(str(n ** (place + 1)) for place in range(length))})"
        assert reader.read(text).list_size == length
    assert len(read) == 5


def test_only_dialects_that_are_used_are_compiled():
    code = (
        "from perf_middleware import sql; compiled = lambda: [dialect for reader in sql._READERS.values()"
        " for dialect in reader.dialects if 'token' in vars(dialect)];"
        "assert compiled() == []; sql.parse('SELECT 1', 'mysql'); assert set(compiled()) == {sql.MYSQL}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=300, deadline=None)
@given(st.lists(any_case | texts.map(lambda text: {"sql": text, "system": "mysql"}), max_size=6), st.data())
def test_texts_read_together_are_read_as_if_each_were_alone_but_for_their_literals(cases, data):
    together = [other for case in cases for other in (case["sql"], rewritten(data, case["sql"]))]
    for system in {case["system"] for case in cases}:
        alone = [but_for_literals(sql.parse(text, system)) for text in together]
        assert [but_for_literals(statement) for statement in sql.like_each(together, system)] == alone
        assert [but_for_literals(sql.like(text, system)) for text in together] == alone


def but_for_literals(statement):
    return msgspec.structs.replace(statement, literals=None)
