"""What a statement asks for: which columns it pins to a value, which it bounds, whether it pages.

Read from a fingerprint, or from a text with its literals: a single pass over the tokens that looks for
`column operator value`. It is not a parser and need not be: what it does not recognise, it leaves out.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec

#: Of a longer text only the beginning is read.
MAX_CHARS: Final = 20_000

_TOKEN: Final = re.compile(
    r"""
    (?P<skip>\s+|/\*.*?\*/|--[^\n]*)
    |(?P<text>'(?:[^'\\]|\\.|'')*')
    |(?P<name>(?:%(name)s\s*\.\s*)*%(name)s)
    |(?P<value>\.\.\.|…|\?\d*|%s|%\(\w+\)s|\$\d+|:[A-Za-z_]\w*|@p?\w+|\d[\w.]*(?:[eE][+-]?\d+)?)
    |(?P<sign><=>|<=|>=|<>|!=|::|->>|->|[=<>(),;]|.)
    """.replace("%(name)s", r'(?:"[^"]*"|`[^`]*`|\[[A-Za-z_][^\]]*\]|[^\W\d][\w$]*)'),
    re.VERBOSE | re.DOTALL,
)


def words(text: str) -> frozenset[str]:
    """The words of a text, for tables that read as one."""
    return frozenset(text.split())


_COMPARISONS: Final = {"=": "equal", "<=>": "equal", "<": "range", ">": "range", "<=": "range", ">=": "range"}
_LIKE: Final = words("LIKE ILIKE GLOB REGEXP RLIKE MATCH SIMILAR")
_ARRAY: Final = words("ANY SOME UNNEST JSON_EACH JSON_TABLE STRING_SPLIT OPENJSON")
_AGGREGATES: Final = words("COUNT SUM AVG MIN MAX TOTAL")
_PAGING: Final = words("LIMIT OFFSET FETCH NEXT FIRST TOP")
#: Where several values or a part of the rows may be asked for.
_SEVERAL: Final = _ARRAY | _PAGING | words("IN VALUES ... …")
#: Words that look like a column to the left of a value but are not.
_NO_COLUMN: Final = words("""
    SELECT WHERE AND OR NOT ON HAVING WHEN THEN ELSE END CASE IN IS LIKE BETWEEN LIMIT OFFSET FETCH NEXT FIRST TOP
    ROWS ROW ONLY VALUES FROM JOIN BY AS NULL TRUE FALSE EXISTS ANY ALL SOME INTERVAL DISTINCT UNION
""")


class Condition(msgspec.Struct, frozen=True, gc=False):
    """A column held against a value.

    Attributes:
        column: Its last name, unquoted.
        test: "equal", "list" (IN and arrays), "like" or "range".
        value: The literal as written, or None for a placeholder.

    """

    column: str
    test: str
    value: str | None


class Shape(msgspec.Struct, frozen=True, gc=False):
    """What the conditions and clauses of a statement amount to.

    Attributes:
        conditions: In order.
        limit: It has LIMIT, FETCH FIRST or TOP.
        offset: It has OFFSET, or MySQL's LIMIT with a comma.
        array: It takes a list as one value: `= ANY(?)`, `json_each(?)`.
        aggregate: Its first expression is COUNT, SUM, ... and there is no GROUP BY: one row whatever it reads.
        sorted: It has ORDER BY.
        queue: FOR UPDATE SKIP LOCKED: it takes the next job.
        selective: Some value stands elsewhere than in LIMIT and OFFSET.
        bounded: Columns with a range test.
        pinned: Columns with an equality (or a list, or LIKE) that are not also bounded, as a compound keyset has them.
        single: Nothing in it takes a list, a range or a page: each run asks for one value, whatever the runs tell.
        alternatives: How often the most repeated equality stands in the text: `id = ? OR id = ?` is a list too.

    """

    conditions: tuple[Condition, ...]
    limit: bool
    offset: bool
    array: bool
    aggregate: bool
    sorted: bool
    queue: bool
    selective: bool
    bounded: frozenset[str]
    pinned: tuple[str, ...]
    alternatives: int
    single: bool


@lru_cache(maxsize=4096)
def shape(fingerprint: str) -> Shape:
    """Read the shape of a statement; never raises."""
    tokens, upper = _tokens(fingerprint)
    present = set(upper)
    found = tuple(_conditions(tokens, upper))
    bounded = frozenset(condition.column for condition in found if condition.test == "range")
    others = [condition.column for condition in found if condition.test != "range"]
    equal = [condition.column for condition in found if condition.test == "equal"]
    alternatives = max((equal.count(column) for column in set(equal)), default=0)
    return Shape(
        conditions=found,
        limit=bool({"LIMIT", "FETCH", "TOP"} & present),
        offset="OFFSET" in present or _has_comma_limit(upper),
        array=_has_array(tokens, upper),
        aggregate=_is_aggregate(upper),
        sorted="ORDER" in present,
        queue="SKIP" in present and "LOCKED" in present,
        selective=_is_selective(tokens, upper),
        bounded=bounded,
        pinned=tuple(dict.fromkeys(column for column in others if column not in bounded)),
        alternatives=alternatives,
        single=alternatives <= 1 and not bounded and present.isdisjoint(_SEVERAL),
    )


def conditions(sql: str) -> list[Condition]:
    """The conditions of a text with its literals, which is not remembered."""
    return _conditions(*_tokens(sql))


def _tokens(text: str) -> tuple[list[tuple[str, str]], list[str]]:
    """The tokens as (kind, text), and beside them the names in upper case."""
    matches = _TOKEN.finditer(text, 0, MAX_CHARS)
    tokens = [(match.lastgroup or "", match[0]) for match in matches if match.lastgroup != "skip"]
    return tokens, [token.upper() if kind == "name" else token for kind, token in tokens]


def _conditions(tokens: list[tuple[str, str]], upper: list[str]) -> list[Condition]:
    found = []
    cases = 0
    for at, word in enumerate(upper):
        if word == "CASE":
            cases += 1
        elif word == "END" and cases:
            cases -= 1
        if cases:
            continue
        test = _test(upper, at)
        if test is None:
            continue
        column, value = _column_before(tokens, upper, at), _value_after(tokens, at)
        if value is None and word in _COMPARISONS:  # `? = comments.post_id`
            column, value = _column_after(tokens, upper, at), _value_before(tokens, at)
        if column is not None and value is not None:
            found.append(Condition(column, test, value if _is_literal(value) else None))
    return found


def _test(upper: list[str], at: int) -> str | None:
    word = upper[at]
    before = upper[at - 1] if at else ""
    if word in _COMPARISONS:
        after = upper[at + 1] if at + 1 < len(upper) else ""
        return "list" if after in ("ANY", "SOME") else _COMPARISONS[word]
    if before == "NOT":
        return None
    if word == "IN":
        return "list"
    if word == "BETWEEN":
        return "range"
    return "like" if word in _LIKE else None


def _column_before(tokens: list[tuple[str, str]], upper: list[str], at: int) -> str | None:
    """The name to the left, also inside `LOWER(name)` and `(created_at, id)`."""
    index = at - 1
    while index >= 0 and upper[index] == ")":
        index -= 1
    return _column(tokens, upper, index)


def _column_after(tokens: list[tuple[str, str]], upper: list[str], at: int) -> str | None:
    index = at + 1
    while index < len(upper) and upper[index] == "(":
        index += 1
    return _column(tokens, upper, index)


def _column(tokens: list[tuple[str, str]], upper: list[str], index: int) -> str | None:
    if not 0 <= index < len(tokens) or tokens[index][0] != "name" or upper[index] in _NO_COLUMN:
        return None
    return bare(tokens[index][1])


def _value_after(tokens: list[tuple[str, str]], at: int) -> str | None:
    """The value to the right, also inside `LOWER(?)`, `(?, ?)` and `ANY(?)`."""
    index = at + 1
    while index < len(tokens):
        kind, text = tokens[index]
        if kind in ("value", "text"):
            return text
        opens = text == "(" or (kind == "name" and index + 1 < len(tokens) and tokens[index + 1][1] == "(")
        if not opens and text not in ("-", "+"):
            return None
        index += 1
    return None


def _value_before(tokens: list[tuple[str, str]], at: int) -> str | None:
    kind, token = tokens[at - 1] if at else ("", "")
    return token if kind in ("value", "text") else None


def _is_literal(value: str) -> bool:
    return value[0] == "'" or value[0].isdigit()


def _has_comma_limit(upper: list[str]) -> bool:
    return any(word == "LIMIT" and upper[at + 2 : at + 3] == [","] for at, word in enumerate(upper))


def _has_array(tokens: list[tuple[str, str]], upper: list[str]) -> bool:
    return any(
        word in _ARRAY and upper[at + 1 : at + 2] == ["("] and at + 2 < len(tokens) and tokens[at + 2][0] == "value"
        for at, word in enumerate(upper)
    )


def _is_aggregate(upper: list[str]) -> bool:
    first = upper.index("SELECT") + 1 if "SELECT" in upper else len(upper)
    return upper[first : first + 1] != [] and upper[first] in _AGGREGATES and "GROUP" not in upper


def _is_selective(tokens: list[tuple[str, str]], upper: list[str]) -> bool:
    paging = False
    for (kind, _), word in zip(tokens, upper, strict=True):
        if kind == "name":
            paging = word in _PAGING or (paging and word in ("ROWS", "ROW"))
        elif kind in ("value", "text") and not paging:
            return True
    return False


def bare(name: str) -> str:
    """The last part of a dotted name, without quotes."""
    return re.split(r"\s*\.\s*(?=[^.]*$)", name)[-1].strip('"`[]')
