from __future__ import annotations

import json
import re
import string
import time
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from perf_middleware import fingerprint as reading
from perf_middleware import sql
from perf_middleware.sql import Statement, fingerprint_id, parse

SYSTEMS = ["mysql", "mariadb", "postgresql", "sqlite", "mssql", None, "no such database"]
CORPUS = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "statements.jsonl").read_text(encoding="utf-8").splitlines()
]
UNPARSABLE = re.compile(r"unparsable:[0-9a-f]{16}")

any_system = st.sampled_from(SYSTEMS)
any_case = st.sampled_from(CORPUS)
names = st.from_regex(r"[a-z_][a-z0-9_]{2,12}", fullmatch=True).filter(
    lambda name: name.upper() not in reading._KEYWORDS | reading._FUNCTIONS | set(reading._KEYWORDS_AFTER)
)


def fingerprint(text, system=None):
    return parse(text, system).fingerprint


def facts(statement):
    """What is read from the fingerprint alone."""
    return without_literals(statement)[:5]


def without_literals(statement):
    return msgspec.structs.astuple(statement)[:7]


# What must not happen: raising, leaking, merging, growing.


@settings(max_examples=300, deadline=None)
@given(st.text() | st.binary() | st.text(alphabet="'\"`$[]()/*-#\\;,.?:%@ \nxE1"), any_system)
@example("\ud800", None)
@example("SELECT \ud800", "mysql")
@example("", None)
@example(";;", None)
@example(b"\xff\xfe", "mysql")
@example("[\n]a", None)
def test_no_text_raises_and_every_fingerprint_is_its_own(text, system):
    statement = parse(text, system)
    again = parse(statement.fingerprint, system)
    assert facts(again) == facts(statement)
    assert fingerprint_id(statement.fingerprint)
    statement.fingerprint.encode()


PIECES = sorted(
    reading._words("""
        SELECT FROM WHERE IN VALUES NULL TRUE IS NOT AS WITH UPDATE SET DELETE INTO ROW ARRAY DEFAULT BEGIN END COMMIT
        COUNT key DUPLICATE KEY FOR a b x `r` [s] 2fa_tokens ( ) , ; . * - + / % = < ? :: : @x $1 'v' "w" 5 -5 0.5e0 [ ]
        # -- /* */ $$ $t$ E'\\''
    """)
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            PIECES,
        ),
        max_size=25,
    ),
    any_system,
)
def test_pieces_of_statements_in_any_order_give_a_fingerprint_that_is_its_own(pieces, system):
    statement = parse(" ".join(pieces), system)
    assert facts(parse(statement.fingerprint, system)) == facts(statement)


@pytest.mark.parametrize("thing", [None, 5, 1.5, object(), ["SELECT 'canary'"], {"SELECT": "canary"}, print])
def test_what_is_no_text_is_unparsable_and_not_looked_at(thing):
    statement = parse(thing)
    assert UNPARSABLE.fullmatch(statement.fingerprint)
    assert facts(statement) == (statement.fingerprint, "", (), False, "")
    assert (statement.list_size, statement.placeholders, statement.literals) == (None, False, None)


def test_an_odd_system_or_a_str_subclass_is_no_trouble():
    class Odd(str):
        __slots__ = ()
        __hash__ = None

        def __str__(self):
            raise AssertionError

    class OddBytes(bytes):
        def __bytes__(self):
            raise AssertionError

    assert fingerprint(Odd("SELECT 1"), Odd("mysql")) == "SELECT ?"
    assert fingerprint(OddBytes(b"SELECT 1")) == "SELECT ?"
    assert fingerprint("SELECT 1", ["mysql"]) == "SELECT ?"


CANARY = "canaryx"
STRINGS = {
    "mysql": [
        "'canaryx'",
        '"canaryx"',
        "'it\\'s canaryx'",
        "'it''s canaryx'",
        '"a ""canaryx"" b"',
        "_utf8'canaryx'",
        "_utf8mb4 'canaryx'",
        "N'canaryx'",
        "'a' 'canaryx'",
        "'\\\\' 'canaryx'",
        "'\0canaryx'",
        "'-- canaryx'",
        "'/* canaryx'",
    ],
    "postgresql": [
        "'canaryx'",
        "'it''s canaryx'",
        "'canaryx\\'",
        "E'it\\'s canaryx'",
        "e'\\\\canaryx'",
        "$$canaryx 'x'$$",
        "$tag$canaryx $$ x$tag$",
        "U&'canaryx'",
        "B'canaryx'",
        "'a'\n'canaryx'",
    ],
    "sqlite": ["'canaryx'", "'it''s canaryx'", "'canaryx\\'", "x'canaryx'"],
    "mssql": ["'canaryx'", "N'canaryx'", "'it''s canaryx'", "'canaryx\\'"],
}
PLACES = [
    "SELECT * FROM t WHERE a = {}",
    "SELECT * FROM t WHERE a LIKE {} AND b = 'x'",
    "SELECT {} AS a, {} FROM t",
    "SELECT * FROM t WHERE a IN (1, {}, NULL)",
    "INSERT INTO t (a, b) VALUES ({}, 1), (2, {})",
    "UPDATE t SET a = {}, b = f({}) WHERE c <> {}",
    "SELECT CASE WHEN a = {} THEN {} ELSE {} END",
    "SELECT a /* canaryx */ FROM t -- canaryx\n WHERE b = {}",
    "CALL proc({}, -1)",
    "SELECT 1; DELETE FROM t WHERE a = {}",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("system", "quoted"), [(system, text) for system in STRINGS for text in STRINGS[system]])
def test_no_literal_survives_however_it_is_quoted(system, quoted, place):
    statement = parse(place.replace("{}", quoted), system)
    assert CANARY not in repr(statement)
    assert not UNPARSABLE.fullmatch(statement.fingerprint)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("quoted", [text for texts in STRINGS.values() for text in texts if text[0] != '"'])
def test_no_literal_survives_where_the_system_is_unknown(quoted, place):
    assert CANARY not in fingerprint(place.replace("{}", quoted))


@pytest.mark.parametrize("system", ["sqlite", None])
@pytest.mark.parametrize(
    "text",
    [
        'SELECT a FROM t WHERE b = "canaryx"',
        'SELECT a FROM t WHERE b LIKE "canaryx" AND c <> "canaryx"',
        'SELECT a FROM t WHERE b IN ("canaryx", 1, "canaryx")',
        'INSERT INTO t (a, b) VALUES ("canaryx", 1), (2, "canaryx")',
        'SELECT a FROM t WHERE b BETWEEN "canaryx" AND "canaryx"',
        'SELECT a FROM t WHERE t MATCH "canaryx" AND b glob "canaryx*"',
    ],
)
def test_no_literal_survives_in_double_quotes_where_they_may_be_a_string(system, text):
    assert CANARY not in fingerprint(text, system)


@settings(max_examples=200, deadline=None)
@given(any_case, any_system, st.data())
def test_no_literal_survives_in_a_text_that_is_cut_off(case, system, data):
    text = re.sub(r"'[^']+'", "'canaryx'", case["sql"])
    cut = data.draw(st.integers(0, len(text)))
    assert CANARY not in fingerprint(text[:cut], case["system"])


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("SELECT 'open canaryx", None),
        ("SELECT 'a', 'it's canaryx'", "postgresql"),
        ('SELECT "open canaryx', "mysql"),
        ("SELECT `open canaryx", "mysql"),
        ("SELECT [open canaryx", "sqlite"),
        ("SELECT $$ open canaryx", "postgresql"),
        ("SELECT $t$ open canaryx $$", "postgresql"),
        ("SELECT 1 /* open canaryx", None),
        ("SELECT /* /* canaryx */ 1", "postgresql"),
        ("SELECT E'it\\'s canaryx", "postgresql"),
        ("SELECT 'it\\'s canaryx # and'", None),  # the rest is a comment, or all of it a string
        ("SELECT 'it\\'s canaryx -- and'", None),
        ("SELECT \0 canaryx", None),
        ("SELECT \\ canaryx", None),
        (b"SELECT canaryx\xff", "mysql"),
        ("SELECT canaryx\udcff", "mysql"),
    ],
)
def test_what_cannot_be_tokenised_becomes_a_hash(text, system):
    statement = parse(text, system)
    assert UNPARSABLE.fullmatch(statement.fingerprint)
    assert statement == parse(statement.fingerprint, system)
    other = text.replace(b"canaryx", b"other") if isinstance(text, bytes) else text.replace("canaryx", "other")
    assert fingerprint(other, system) != statement.fingerprint


@pytest.mark.parametrize(
    ("one", "other", "system"),
    [
        ("SELECT * FROM events_00", "SELECT * FROM events_01", None),
        ("SELECT * FROM 2023_events", "SELECT * FROM 2024_events", "mysql"),
        ("SELECT * FROM 5\N{ARABIC-INDIC DIGIT THREE}", "SELECT * FROM 6\N{ARABIC-INDIC DIGIT THREE}", "mysql"),
        ("SELECT * FROM db.2023_events", "SELECT * FROM db.2024_events", "mysql"),
        ("SELECT a FROM t", "SELECT b FROM t", None),
        ("SELECT a, b FROM t", "SELECT a FROM t", None),
        ("SELECT `a b` FROM t", "SELECT `a c` FROM t", "mysql"),
        ('SELECT "a ""1""" FROM t', 'SELECT "a ""2""" FROM t', "postgresql"),
        ("SELECT [a ]]1] FROM t", "SELECT [a ]]2] FROM t", "mssql"),
        ("SELECT [a 1] FROM t", "SELECT [a 2] FROM t", "sqlite"),
        ("SELECT @a", "SELECT @b", "mysql"),
        ("SELECT @@a", "SELECT @@b", "mysql"),
        ("SELECT a FROM t WHERE b IS NULL", "SELECT a FROM t WHERE b IS NOT NULL", None),
        ("SELECT a FROM t WHERE b IS TRUE", "SELECT a FROM t WHERE b IS FALSE", None),
        ("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b <> 1", None),
        ("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 1 AND c = 1", None),
        ("SELECT a FROM t WHERE b IN (1)", "SELECT a FROM t WHERE b NOT IN (1)", None),
        ("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 1 OFFSET 2", None),
        ("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 1, 2", "mysql"),
        ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1, 2)", None),
        ("SELECT a::int FROM t", "SELECT a::text FROM t", "postgresql"),
        ("SELECT a - 1 FROM t", "SELECT a, -1 FROM t", None),
        ("SELECT data->'a' FROM t", "SELECT data->>'a' FROM t", "postgresql"),
        ("SELECT U0.a FROM t", "SELECT U1.a FROM t", None),
        ('SELECT a FROM t WHERE x."b" = 1', 'SELECT a FROM t WHERE x."c" = 1', "sqlite"),
        ('SELECT a FROM t WHERE x = "b"."c"', 'SELECT a FROM t WHERE x = "b"."d"', "sqlite"),
    ],
)
def test_different_shapes_stay_apart(one, other, system):
    assert fingerprint(one, system) != fingerprint(other, system)


PATHOLOGICAL = {
    "IN list": lambda n: "SELECT 1 FROM t WHERE x IN (" + ",".join(map(str, range(n // 7))) + ")",
    "rows": lambda n: "INSERT INTO t VALUES " + ",".join(f"({i},'abc')" for i in range(n // 14)),
    "quotes": lambda n: "'" * (n + 1),
    "double quotes": lambda n: '"' * (n + 1),
    "escaped quotes": lambda n: "'" + "\\'" * (n // 2),
    "parentheses": lambda n: "(" * n,
    "balanced parentheses": lambda n: "(" * (n // 2) + ")" * (n // 2),
    "nested IN lists": lambda n: "x IN (a, " * (n // 9),
    "closed IN lists": lambda n: "IN (((" * (n // 9) + ")))" * (n // 9),
    "open comments": lambda n: "/*" * (n // 2),
    "nested comments": lambda n: "/*" * (n // 4) + "*/" * (n // 4) + "1",
    "stars": lambda n: "/*" + "*" * n,
    "many comments": lambda n: "/* */" * (n // 5) + "/* /* */ */ '",
    "dollar tags": lambda n: "".join(f"$a{i}$ " for i in range(n // 7)),
    "dollar tags and comments": lambda n: "$a$/*" * (n // 5),
    "brackets": lambda n: "[" * n,
    "signs": lambda n: "- " * (n // 2),
    "percents": lambda n: "%(" * (n // 2),
    "semicolons": lambda n: "select 1;" * (n // 9),
    "blanks": lambda n: " \n" * (n // 2),
    "CTEs": lambda n: "WITH a AS (" * (n // 11),
    "dots": lambda n: "FROM a" + ".a" * (n // 2),
    "FROM lists": lambda n: "FROM " + ", ".join(f"t{i}" for i in range(n // 8)),
    "introducers": lambda n: "_a " * (n // 3),
    "digits": lambda n: "1" * n + "x",
    "subqueries": lambda n: "(select a from b " * (n // 17),
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_the_time_is_linear_in_the_length(name):
    def cost(size):
        text = PATHOLOGICAL[name](size)
        begin = time.process_time()
        for system in ("mysql", "postgresql", "sqlite", None):
            parse(text, system)
        return time.process_time() - begin

    small = cost(20_000)
    assert cost(80_000) < 12 * small + 0.1


def test_comments_are_taken_out_in_linear_time():
    def cost(size):
        text = "/* a */ " * (size // 8) + "'"
        begin = time.process_time()
        parse(text, "postgresql")
        return time.process_time() - begin

    assert cost(1_000_000) < 8 * cost(250_000)


def test_a_huge_statement_takes_little_memory():
    text = "INSERT INTO t VALUES " + ",".join(["(1,'x')"] * 300_000) + " ON DUPLICATE KEY UPDATE a = 'x'"
    parse("SELECT 1", "mysql")
    tracemalloc.start()
    try:
        parse(text, "mysql")
        assert tracemalloc.get_traced_memory()[1] < len(text)
    finally:
        tracemalloc.stop()


def test_a_huge_statement_is_parsed_and_not_kept():
    text = "INSERT INTO t VALUES " + ",".join(["(1,'x')"] * 100_000)
    statement = parse(text, "mysql")
    assert statement.fingerprint == "INSERT INTO t VALUES (?, ?)"
    assert statement.list_size > 500  # only the beginning is read
    assert statement.literals != parse(text[:-2] + "y')", "mysql").literals  # but all of it is hashed
    assert characters_kept("mysql") <= sql._MAX_CACHED_CHARS


def test_long_texts_are_remembered_without_being_kept():
    text = "SELECT a FROM t WHERE id IN (" + ", ".join(["%s"] * 2000) + ")"
    first = parse(text, "mysql")
    assert parse("".join(text), "mysql") is first
    assert characters_kept("mysql") <= sql._MAX_CACHED_CHARS


def characters_kept(system):
    """Of the longest text or mask that a reader holds."""
    reader = sql._READERS[system]
    return max(len(key) for key in (*reader.texts, *reader.masks))


# What must happen.


@settings(max_examples=150, deadline=None)
@given(any_case, st.data())
def test_another_number_or_string_never_changes_the_fingerprint(case, data):
    text, system = case["sql"], case["system"]
    assume(not re.search(r"[`\"\[]\w* \w|/\*|\$\$|\\|''|E'|$'", text))

    def another(match):
        if match[0][0] == "'":
            inside = data.draw(st.text(alphabet=string.ascii_letters + " %_;()-/*?:$", max_size=8))
            return f"'{inside}'"
        return str(data.draw(st.integers(0, 10**9) | st.floats(0, 1e9).map(repr)))

    changed = re.sub(r"(?<![\w$.:@?\"`'])'[^']*'|(?<![\w$.:@?\"`'])\d+(?:\.\d+)?(?![\w.'\"])", another, text)
    outside = re.sub(r"'[^']*'", "", text)
    assume(not re.search(r"[\"`]\S*\d", outside) or changed == text)
    assert fingerprint(changed, system) == fingerprint(text, system)


@settings(max_examples=150, deadline=None)
@given(
    names,
    names,
    st.sampled_from(
        [
            "SELECT {} FROM t WHERE a = 1",
            "SELECT a FROM {}",
            "SELECT a FROM s.{} AS x",
            "UPDATE {} SET a = 1",
            "UPDATE t SET {} = 1",
            "INSERT INTO {} (a) VALUES (1)",
            "INSERT INTO t ({}) VALUES (1)",
            "DELETE FROM {} WHERE a IN (1, 2)",
            "SELECT a FROM t ORDER BY {} DESC",
            "SELECT {}(a) FROM t",
        ]
    ),
    st.sampled_from(["", '"', "`", "["]),
)
def test_another_identifier_always_changes_the_fingerprint(one, other, template, quote):
    assume(one != other)
    end = {"[": "]"}.get(quote, quote)
    first, second = (template.replace("{}", f"{quote}{name}{end}") for name in (one, other))
    assert fingerprint(first, "sqlite") != fingerprint(second, "sqlite")
    assert fingerprint(first) != fingerprint(second)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["1", "-2.5", "'x'", "?", "NULL", "TRUE"]), min_size=1, max_size=40),
    st.lists(st.sampled_from(["%s", "0x1F", "'(, )'", ":p", "1e5"]), min_size=1, max_size=40),
    any_system,
)
def test_the_length_of_a_list_never_changes_the_fingerprint(one, other, system):
    for template in (
        "SELECT a FROM t WHERE b IN ({}) AND c NOT IN (1)",
        "SELECT a FROM t WHERE b = ANY(ARRAY[{}])",
        "SELECT a FROM t WHERE b IN (SELECT c FROM u WHERE d IN ({}))",
    ):
        if system in ("sqlite", "mssql") and "ARRAY" in template:
            continue
        first, second = (parse(template.replace("{}", ", ".join(values)), system) for values in (one, other))
        assert first.fingerprint == second.fingerprint
        assert (first.list_size, second.list_size) == (len(one), len(other))
    rows = [parse(f"INSERT INTO t VALUES {', '.join(f'({v}, 1)' for v in values)}", system) for values in (one, other)]
    assert rows[0].fingerprint == rows[1].fingerprint == "INSERT INTO t VALUES (?, ?)"
    assert [row.list_size for row in rows] == [len(one), len(other)]


comments = st.text(alphabet=string.ascii_letters + " '\"`;()?", max_size=10)
gaps = st.one_of(
    st.text(alphabet=" \t\r\n", min_size=1, max_size=3),
    comments.map(lambda text: f" /* {text} */ "),
    comments.map(lambda text: f" -- {text}\n"),
)


@settings(max_examples=150, deadline=None)
@given(any_case, st.data())
def test_comments_and_whitespace_and_the_case_of_keywords_never_change_the_fingerprint(case, data):
    text, system = case["sql"], case["system"]
    assume(not re.search(r"--|/\*|#", text))
    dialect = sql._READERS[system].dialects[0]
    tokens = list(dialect.tokens(text))

    def written(token):
        if token in reading._KEYWORDS:
            return data.draw(st.sampled_from([token, token.lower(), token.title()]))
        return token

    loosened = "".join(written(token) + data.draw(gaps) for token in tokens)
    assert without_literals(parse(loosened, system)) == without_literals(parse(text, system))


@pytest.mark.parametrize("value", ["5", "-5", "+5", "'x'", "?", "%s", "%(name)s", ":name", ":1", "NULL", "TRUE", ".5"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_values_of_any_kind_and_placeholders_of_any_style_look_alike(value, system):
    assert fingerprint(f"SELECT a FROM t WHERE id={value}", system) == "SELECT a FROM t WHERE id = ?"


@pytest.mark.parametrize(
    ("text", "system", "expected"),
    [
        ("select a from t where id=$1", "postgresql", "SELECT a FROM t WHERE id = ?"),
        ("select a from t where id=@p1", "mssql", "SELECT a FROM t WHERE id = ?"),
        ("select a from t where id=@p1", None, "SELECT a FROM t WHERE id = ?"),
        ("select a from t where id in (?1, @a, $b, :c)", "sqlite", "SELECT a FROM t WHERE id IN (?)"),
        ("select x'4D', 0xFF, b'01', 0.5e0, 1e5, 1.", "mysql", "SELECT ?, ?, ?, ?, ?, ?"),
        ("select 5--3", "mysql", "SELECT ? - ?"),
        ("select 1 # gone", "mysql", "SELECT ?"),
        ("select a#>>'{b}' from t", "postgresql", "SELECT a #>> ? FROM t"),
        ("select a from t where b=\"x\" and c='y'", "mysql", "SELECT a FROM t WHERE b = ? AND c = ?"),
        ("select a from t where d ? 'k' and e = ?", "postgresql", "SELECT a FROM t WHERE d ? ? AND e = ?"),
        ("select 10 %% 3", None, "SELECT ? % ?"),
        ("select a from t where b is not null and c = null", None, "SELECT a FROM t WHERE b IS NOT NULL AND c = ?"),
        ("select a from t join u on true where not true", None, "SELECT a FROM t JOIN u ON ? WHERE NOT ?"),
        ("create table t (a int not null default null)", None, "CREATE TABLE t(a int NOT NULL DEFAULT NULL)"),
        ("select a from t limit 10, 20", "mysql", "SELECT a FROM t LIMIT ?, ?"),
        ("select a from t limit 10 offset 20", None, "SELECT a FROM t LIMIT ? OFFSET ?"),
        ("SELECT 1;  SELECT 2 ; ", None, "SELECT ?; SELECT ?"),
        ("/*!40001 SELECT */ /*!99999 a */ /* no */ FROM t", "mysql", "SELECT a FROM t"),
        ("SELECT /*+ MAX_EXECUTION_TIME(5) */ a", "mysql", "SELECT a"),
        ("SELECT /* a /* b */ c */ 1", "postgresql", "SELECT ?"),
        ("SELECT /* a /* b */ 1", "mysql", "SELECT ?"),
        ("SELECT a LIKE'\\' /* a /* b */ */, 'c'", "mssql", "SELECT a LIKE ?, ?"),
        ("SELECT 'it\\'s'", None, "SELECT ?"),
        ("SELECT a LIKE '%' ESCAPE '\\'", None, "SELECT a LIKE ? ESCAPE ?"),
        ("SELECT COUNT (*), t.* FROM t", None, "SELECT COUNT(*), t.* FROM t"),
        ("select count(*), My_Func(1) from Users", None, "SELECT COUNT(*), My_Func(?) FROM Users"),
        ("select key, offset.order, t.select from t", None, "SELECT key, offset.order, t.select FROM t"),
        ("insert into t values (1,default),(2,now())", None, "INSERT INTO t VALUES (?, DEFAULT), (?, NOW())"),
        ("values row(1,2), row(3,4)", "mysql", "VALUES ROW (?, ?)"),
        ("where (a, b) in ((1,2),(3,4))", None, "WHERE (a, b) IN ((?, ?))"),
        ("select a where b in (1::int, 2::int)", "postgresql", "SELECT a WHERE b IN (?::int)"),
        ("select a where b in ($1, lower($2), lower($3))", "postgresql", "SELECT a WHERE b IN (?, LOWER(?))"),
        ("set @x = 5", "mysql", "SET @x = ?"),
        (b"SELECT '\xff'", "mysql", "SELECT ?"),
        (bytearray(b"SELECT 1"), None, "SELECT ?"),
    ],
)
def test_fingerprints(text, system, expected):
    assert fingerprint(text, system) == expected
    assert fingerprint(expected, system) == expected


def test_only_the_values_list_of_an_insert_counts_and_not_what_follows_it():
    text = "INSERT INTO t (a) VALUES (1), (2), (3) ON DUPLICATE KEY UPDATE a = VALUES(a), b = f(a), c = f(a)"
    statement = parse(text, "mysql")
    assert statement.list_size == 3
    assert statement.fingerprint.endswith("VALUES (?) ON DUPLICATE KEY UPDATE a = VALUES (a), b = f(a), c = f(a)")


@pytest.mark.parametrize("text", ["SELECT 1", "SELECT a IN (SELECT 1, 2)", "SELECT f(1, 2, 3)"])
def test_there_is_no_list_size_without_a_list(text):
    assert parse(text).list_size is None


def test_the_longest_list_counts():
    assert parse("SELECT a IN (1, 2), b IN (1, 2, 3), c IN (1)").list_size == 3
    assert parse("SELECT a IN ()").list_size == 0


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("SELECT 1", "SELECT"),
        ("(SELECT 1) UNION (SELECT 2)", "SELECT"),
        ("/* c */ with x as (select 1) update t set a = 1", "UPDATE"),
        ("WITH x AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM x", "INSERT"),
        ("replace into t values (1)", "REPLACE"),
        ("CALL p(1)", "CALL"),
        ("EXPLAIN SELECT 1", "EXPLAIN"),
        ("SHOW TABLES", "SHOW"),
        ("BEGIN; SELECT 1; COMMIT", "SELECT"),
        ("SET STATEMENT max_statement_time=1 FOR SELECT 1", "SELECT"),
        ("blah blah", ""),
        ("", ""),
    ],
)
def test_verbs(text, verb):
    assert parse(text).verb == verb


@pytest.mark.parametrize(
    ("text", "control", "transaction"),
    [
        ("BEGIN", True, "begin"),
        ("begin immediate", True, "begin"),
        ("START TRANSACTION READ ONLY", True, "begin"),
        ("COMMIT", True, "commit"),
        ("END", True, "commit"),
        ("commit and chain;", True, "commit"),
        ("ROLLBACK", True, "rollback"),
        ("ROLLBACK TO SAVEPOINT s1", True, ""),
        ("ROLLBACK TO s1", True, ""),
        ("SAVEPOINT s1", True, ""),
        ("RELEASE SAVEPOINT s1", True, ""),
        ("SET autocommit = 0", True, ""),
        ("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", True, ""),
        ("PRAGMA foreign_keys = ON", True, ""),
        ("BEGIN; SET LOCAL x = 1", True, "begin"),
        ("BEGIN; UPDATE t SET a = 1", False, "begin"),
        ("SHOW TABLES", False, ""),
        ("USE db", False, ""),
        ("EXPLAIN SELECT 1", False, ""),
        ("CREATE TABLE t (a int)", False, ""),
        ("CREATE PROCEDURE p() BEGIN SELECT 1; END", False, ""),
        ("SET STATEMENT max_statement_time=1 FOR SELECT 1", False, ""),
        ("UPDATE t SET a = 1", False, ""),
        ("nonsense", False, ""),
        ("", False, ""),
    ],
)
def test_what_steers_a_transaction_is_no_query(text, control, transaction):
    statement = parse(text)
    assert (statement.control, statement.transaction) == (control, transaction)


@pytest.mark.parametrize(
    ("text", "system", "tables"),
    [
        ("SELECT 1", None, ()),
        ("SELECT a FROM t AS x", None, ("t",)),
        ("SELECT a FROM t, `u v` w JOIN s.x ON 1=1 WHERE b IN (SELECT c FROM y)", "mysql", ("t", "u v", "s.x", "y")),
        ('SELECT a FROM "S"."a ""b"""', "postgresql", ('S.a "b"',)),
        ("SELECT a FROM [dbo].[x y] WITH (NOLOCK), db..z", "mssql", ("dbo.x y", "db.z")),
        ("WITH x(a) AS (SELECT a FROM t) SELECT a FROM x JOIN u USING (a), v", None, ("t", "u", "v")),
        ("WITH t AS (SELECT a FROM t) SELECT a FROM T", None, ("t",)),
        (
            "WITH RECURSIVE x AS (SELECT 1 UNION SELECT a FROM x), y AS MATERIALIZED (SELECT 2) SELECT a FROM y",
            None,
            (),
        ),
        ("SELECT EXTRACT(YEAR FROM d), TRIM(BOTH ' ' FROM e) FROM t", None, ("t",)),
        ("SELECT a IS DISTINCT FROM b FROM t", None, ("t",)),
        ("SELECT a FROM generate_series(1, 2) g, LATERAL f(g) JOIN t ON true", None, ("t",)),
        ("SELECT a FROM (SELECT b FROM t) x, ((u JOIN v ON 1=1) JOIN w ON 1=1)", None, ("t", "u", "v", "w")),
        ("SELECT a FROM t FOR UPDATE OF x SKIP LOCKED", None, ("t",)),
        ("SELECT a FROM transaction", None, ("transaction",)),
        ("INSERT INTO t(a) SELECT b FROM u ON CONFLICT DO UPDATE SET a = 1, b = 2", None, ("t", "u")),
        ("INSERT IGNORE t VALUES (1)", None, ("t",)),
        ("INSERT OR REPLACE INTO t VALUES (1)", None, ("t",)),
        ("INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 1, b = 2", None, ("t",)),
        ("UPDATE LOW_PRIORITY a, b SET a.x = 1, b.y = 2", None, ("a", "b")),
        ("UPDATE ONLY t SET a = 1 FROM u", None, ("t", "u")),
        ("UPDATE u SET a = 1 FROM users u", "mssql", ("users",)),
        ("DELETE a, b FROM t1 a JOIN t2 b ON 1=1", None, ("t1", "t2")),
        ("DELETE FROM t USING u WHERE t.a = u.a", None, ("t", "u")),
        ("MERGE INTO s USING d ON 1=1 WHEN MATCHED THEN UPDATE SET a = 1", None, ("s", "d")),
        ("TRUNCATE t", None, ("t",)),
        ("DROP TABLE IF EXISTS a, b", None, ("a", "b")),
        ("CREATE INDEX i ON t (a, b)", None, ("t",)),
        ("ALTER TABLE t ADD a int, ADD b int", None, ("t",)),
        ("SHOW COLUMNS FROM t FROM db", None, ("t",)),
        ("SHOW TABLES FROM db", None, ()),
        ("FETCH 10 FROM cur", None, ()),
        ("PRAGMA table_info(t)", None, ()),
        ("SELECT 1 FROM a; SELECT 2 FROM b, a", None, ("a", "b")),
    ],
)
def test_tables(text, system, tables):
    assert parse(text, system).tables == tables


def test_equal_literals_have_equal_hashes_and_others_have_others():
    base = parse("SELECT a FROM t WHERE b = 5 AND c = 'x'")
    assert base.literals == parse("select a from t  where b=5 and c='x' -- again").literals
    others = ["b = 6 AND c = 'x'", "b = -5 AND c = 'x'", "b = 5 AND c = 'y'", "b = 'x' AND c = 5", "b = 5 AND c = NULL"]
    hashes = {base.literals, *(parse(f"SELECT a FROM t WHERE {where}").literals for where in others)}
    assert len(hashes) == len(others) + 1


def test_placeholders_are_no_literals():
    def values(text):
        statement = parse(text)
        return statement.placeholders, statement.literals

    assert values("SELECT a FROM t WHERE b = %s") == (True, None)
    assert values("SELECT a FROM t WHERE b IS NULL") == (False, None)
    mixed = parse("SELECT a FROM t WHERE b = %s AND c = 1")
    assert mixed.placeholders
    assert mixed.literals is not None


@pytest.mark.parametrize(
    "text", ["SELECT a FROM only_here", "SELECT a FROM only_here WHERE b = 'x' AND c = %s LIMIT 1"]
)
def test_the_same_text_is_read_once(text):
    assert parse(text, "mysql") is parse(text, "mysql")
    assert isinstance(parse(text, "mysql"), Statement)


def test_an_id_of_a_fingerprint_is_16_hex_digits_and_always_the_same():
    assert fingerprint_id("SELECT ?") == "c148796e1220075a"
    assert fingerprint_id("SELECT a") != fingerprint_id("SELECT b")
