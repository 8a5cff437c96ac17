"""Our tokenizer against a real parser: over the corpus they agree on tables, verb and number of values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import sqlglot
from sqlglot import exp

from perf_middleware import fingerprint as reading
from perf_middleware import sql

CORPUS = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "statements.jsonl").read_text(encoding="utf-8").splitlines()
]
DIALECTS = {"mysql": "mysql", "postgresql": "postgres", "sqlite": "sqlite", "mssql": "tsql"}
LITERALS = (exp.Literal, exp.HexString, exp.BitString, exp.National, exp.ByteString, exp.RawString, exp.JSONPath)
VALUES = (*LITERALS, exp.Placeholder, exp.Parameter)

# Statements on which the two differ, by what is in them, and why ours is the reading we want.
DIFFERENCES = {
    "SHOW CREATE TABLE": "sqlglot keeps the name as a plain text",
    "INDEXED BY": "sqlglot takes the index for a table",
    "@@sql_mode": "sqlglot counts a server variable as a value",
    "DATE_TRUNC('day'": "sqlglot makes the unit, a string in the text, a name",
    "data ? 'k'": "the operator ? looks like a value once it is in the fingerprint",
}

# A literal under one of these is read as something else: another one would be another statement.
NOT_FREE = (exp.Parameter, exp.Placeholder, exp.Interval, exp.DataTypeParam, exp.JSONPath)


class Reading(NamedTuple):
    tables: set[str]
    verb: str
    values: int


def read_by_us(text, system, monkeypatch):
    statement = sql.parse(text, system)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "_MAX_LIST_NESTING", 0)  # so that every value of a list is counted
        fingerprint = sql._READERS[system]._read_tokens(text)[0].fingerprint
    tokens = sql._READERS[system].dialects[0].tokens(fingerprint)
    return Reading(set(statement.tables), statement.verb, sum(token == "?" for token in tokens))


def read_by_sqlglot(text, system):
    tree = parsed(text, system)
    if tree is None:
        return None
    return Reading(tables(tree), verb(tree, text), sum(is_value(node) for node in tree.walk()))


def parsed(text, system):
    """None where sqlglot cannot parse the statement, or keeps it as a text."""
    text = re.sub(r"%(\(\w+\))?s", "?", text).replace("%%", "%")  # it does not know these paramstyles
    try:
        tree = sqlglot.parse_one(text, read=DIALECTS[system])
    except sqlglot.errors.SqlglotError:
        return None
    return None if isinstance(tree, exp.Command) else tree


def tables(tree):
    targets = {id(table) for delete in tree.find_all(exp.Delete) for table in delete.args.get("tables") or ()}
    return {
        ".".join(part.name for part in table.parts)
        for table in tree.find_all(exp.Table)
        if isinstance(table.this, exp.Identifier) and id(table) not in targets and not is_cte(table)
    }


def is_cte(table):
    """A name hides a table only once its CTE is there: `WITH users AS (SELECT * FROM users)` reads a table."""
    if table.db:
        return False
    inside = table.find_ancestor(exp.CTE)
    while inside and inside.alias.lower() != table.name.lower():
        inside = inside.find_ancestor(exp.CTE)
    if inside and not inside.parent.args.get("recursive"):
        return False
    return any(cte.alias.lower() == table.name.lower() for cte in table.root().find_all(exp.CTE))


def verb(tree, text):
    while isinstance(tree, exp.SetOperation | exp.Subquery):
        tree = tree.this
    name = type(tree).__name__.upper().removesuffix("TABLE")
    if name == "TRANSACTION":
        return text.split()[0]
    return "REPLACE" if name == "INSERT" and text.upper().startswith("REPLACE") else name


def is_value(node):
    if isinstance(node, exp.Boolean | exp.Null):
        return not isinstance(node.parent, exp.Is | exp.NotNullColumnConstraint)
    return isinstance(node, VALUES) and not isinstance(node.parent, (*LITERALS, exp.Parameter, exp.Placeholder))


def difference(text):
    return next((piece for piece in DIFFERENCES if piece in text), None)


def test_sqlglot_reads_the_same_tables_verbs_and_values(monkeypatch):
    agreed, explained, unreadable, wrong = 0, set(), 0, []
    for case in CORPUS:
        text, system = case["sql"], case["system"]
        theirs, ours = read_by_sqlglot(text, system), read_by_us(text, system, monkeypatch)
        if theirs is None:
            unreadable += 1
        elif ours == theirs:
            agreed += 1
        elif piece := difference(text):
            explained.add(piece)
        else:
            wrong.append((text, ours, theirs))
    read = len(CORPUS) - unreadable
    print(f"{agreed} of {read} statements read alike ({agreed / read:.1%}); sqlglot cannot read {unreadable} more")  # noqa: T201 - the measured share
    assert wrong == []
    assert explained == set(DIFFERENCES), "an explanation that explains nothing any more should go"
    assert agreed / read >= 0.98
    assert unreadable / len(CORPUS) <= 0.05


def test_what_sqlglot_calls_a_literal_may_change_and_what_it_calls_a_name_may_not():
    checked = 0
    for case in CORPUS:
        text, system = case["sql"], case["system"]
        tree = parsed(text, system)
        if tree is None or difference(text):
            continue
        written = tree.sql(dialect=DIALECTS[system])
        for changed, same in ((with_other_literals(tree), True), (with_another_name(tree), False)):
            rewritten = changed.sql(dialect=DIALECTS[system])
            if rewritten == written:
                continue
            checked += 1
            alike = sql.parse(rewritten, system).fingerprint == sql.parse(written, system).fingerprint
            assert alike == same, (written, rewritten)
    assert checked > len(CORPUS)


def with_other_literals(tree):
    def other(node):
        if isinstance(node, exp.Literal) and not isinstance(node.parent, NOT_FREE):
            return exp.Literal.string(f"{node.name}-o'ther") if node.is_string else exp.Literal.number("98765")
        return node

    return tree.copy().transform(other)


def with_another_name(tree):
    changed = tree.copy()
    name = next((node for node in changed.find_all(exp.Identifier) if node.find_ancestor(exp.Table)), None)
    if name:
        name.set("this", f"{name.name}_00")
    return changed


def test_every_fingerprint_of_the_corpus_is_its_own():
    for case in CORPUS:
        first = sql.parse(case["sql"], case["system"])
        again = sql.parse(first.fingerprint, case["system"])
        assert (again.fingerprint, again.verb, again.tables) == (first.fingerprint, first.verb, first.tables)
        assert (again.control, again.transaction) == (first.control, first.transaction)
