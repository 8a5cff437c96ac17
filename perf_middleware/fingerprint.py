"""From the text of a statement to its fingerprint, its verb and its tables: reading, token by token.

One regular expression per dialect cuts the text into tokens; one pass over the tokens writes the fingerprint.
Everything else (verb, tables, control) is read from the fingerprint, so it cannot depend on a literal, and texts
that share a fingerprint share that work. Nothing is remembered here: see `perf_middleware.sql`.

What is decided here:

- Values (strings, numbers, TRUE, FALSE, NULL, placeholders of every paramstyle) become `?`, with their sign.
  NULL, TRUE and FALSE stay where they are shape: `IS NOT NULL`, `DEFAULT NULL`, `SET NULL`, `a int NULL`.
- `IN (...)` and `ARRAY[...]` keep one of each different item: `IN (?)`. `VALUES` keeps one of each different row shape:
  `VALUES (?, ?)`.
- Comments go. The content of MySQL's `/*! ... */` is executed by the server, so it stays, without the comment.
- Keywords fold to upper case, and so do common functions before a parenthesis. Identifiers stay as written,
  quotes included.
- MySQL strings know backslashes and double quotes (`ANSI_QUOTES` is not known). Elsewhere `"x"` is an identifier;
  SQLite takes it for a string when there is no such column, so there, and where the system is unknown, a lone `"x"`
  that is compared with, or stands in an IN or VALUES list, is a value: better one shape too few than a leak.
- Where the system is unknown, backslashes are tried as ordinary characters and as escapes. The wrong reading mostly
  leaves an open quote or a bare backslash; if it does not, the text counts as one that cannot be tokenised.
- What cannot be tokenised (open quote or comment, NUL, undecodable bytes) becomes a hash: nothing literal leaks.
"""

from __future__ import annotations

import re
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of a longer text only the beginning is read, and the rest only hashed: a statement of 10 MB must not cost seconds.
_MAX_TOKENS: Final = 5_000

# Of texts up to this length the tokens are found at once, of longer ones one by one.
_AT_ONCE_CHARS: Final = 4096

# IN lists nested deeper than this stay as they are, so that the cost stays linear.
_MAX_LIST_NESTING: Final = 4


# --------------------------------------------------------------------------------------------------------------------
# Words


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Folded wherever they are neither quoted nor beside a dot.
_KEYWORDS: Final = _words("""
    ABORT ALL ALTER ANALYZE AND ANY ARRAY AS ASC BEGIN BETWEEN BY CALL CASCADE CASE CAST CHECK COLLATE COMMIT CONFLICT
    CONSTRAINT COPY CREATE CROSS DECLARE DEFAULT DELETE DESC DESCRIBE DISTINCT DIV DO DROP DUPLICATE ELSE END ESCAPE
    EXCEPT EXEC EXECUTE EXISTS EXPLAIN FALSE FETCH FOLLOWING FOR FOREIGN FROM FULL GRANT GROUP HAVING IF IGNORE ILIKE
    IMMEDIATE IN INDEX INNER INSERT INTERSECT INTERVAL INTO IS JOIN LATERAL LEFT LIKE LIMIT LISTEN LOAD LOCK LOCKED
    MATCHED MATERIALIZED MERGE MOD NATURAL NOT NOTHING NOTIFY NOWAIT NULL NULLS OFFSET ON OR ORDER OUTER OUTFILE OVER
    PARTITION PRAGMA PRECEDING PRIMARY RECURSIVE REFERENCES REGEXP RELEASE REPLACE RESET RETURNING REVOKE RIGHT RLIKE
    ROLLBACK SAVE SAVEPOINT SELECT SET SHOW SIMILAR SKIP SOME START STRAIGHT_JOIN TABLE TEMPORARY THEN TO TRANSACTION
    TRUE TRUNCATE UNBOUNDED UNION UNIQUE UNLOCK UPDATE USE USING VACUUM VALUES VIEW WHEN WHERE WINDOW WITH XOR
""")

# Folded only after one of these: elsewhere they are likely to be columns.
_KEYWORDS_AFTER: Final = {
    "CONCURRENTLY": _words("INDEX VIEW"),
    "CURRENT": _words("BETWEEN AND ROWS RANGE GROUPS"),
    "FIRST": _words("NULLS FETCH"),
    "GROUPS": _words("BY"),
    "KEY": _words("DUPLICATE PRIMARY FOREIGN NO UNIQUE FOR"),
    "LAST": _words("NULLS FETCH"),
    "NEXT": _words("FETCH"),
    "NO": _words("FOR"),
    "ONLY": _words("FROM UPDATE ROWS ROW"),
    "ROW": _words("CURRENT VALUES"),
    "SHARE": _words("FOR KEY"),
    "TABLES": _words("SHOW LOCK UNLOCK"),
    "WORK": _words("BEGIN COMMIT ROLLBACK"),
}

# After FROM, JOIN and INTO any other word is a name.
_TABLE_POSITION: Final = _words("IGNORE LATERAL ONLY OUTFILE SELECT TABLE VALUES")

# Folded before a parenthesis.
_FUNCTIONS: Final = _words("""
    ABS AVG CEIL CEILING CHAR_LENGTH COALESCE CONCAT CONCAT_WS COUNT CURDATE DATE DATE_ADD DATE_FORMAT DATE_SUB
    DATE_TRUNC DENSE_RANK EXTRACT FIRST_VALUE FLOOR GREATEST GROUP_CONCAT HEX IFNULL INSTR JSON_EXTRACT LAG
    LAST_INSERT_ID LAST_VALUE LEAD LEAST LENGTH LOWER LTRIM MAX MD5 MIN MONTH NOW NTILE NULLIF POSITION RAND RANDOM RANK
    ROUND ROW_NUMBER RTRIM STRFTIME STRING_AGG SUBSTR SUBSTRING SUM TRIM UNIX_TIMESTAMP UNNEST UPPER YEAR
""")

# Keywords that end an operand: a sign or a PostgreSQL `?` after them stands between two operands.
_OPERANDS: Final = _words("END FALSE INDEX KEY NULL OFFSET START TRUE VIEW")

_CONSTANTS: Final = _words("FALSE NULL TRUE")
_SHAPE_BEFORE_NULL: Final = _words("DEFAULT IS NOT SET")

_COMPARISONS: Final = _words("= == < > <= >= <> != <=> LIKE ILIKE REGEXP RLIKE GLOB MATCH BETWEEN")
_VERBS: Final = _words("""
    ABORT ALTER ANALYZE BEGIN CALL COMMENT COMMIT COPY CREATE DEALLOCATE DECLARE DELETE DESC DESCRIBE DISCARD DO DROP
    END EXEC EXECUTE EXPLAIN FETCH GRANT INSERT KILL LISTEN LOAD LOCK MERGE NOTIFY OPTIMIZE PRAGMA PREPARE REFRESH
    RELEASE REPLACE RESET REVOKE ROLLBACK SAVE SAVEPOINT SELECT SET SHOW START TABLE TRUNCATE UNLISTEN UNLOCK UPDATE
    USE VACUUM VALUES ATTACH DETACH REINDEX CLOSE FLUSH CHECK RENAME CLUSTER MOVE
""")
# Not tables where a table is expected: what may stand before one, and what begins something else.
_MODIFIERS: Final = _words("""
    ABORT CONCURRENTLY DELAYED EXISTS FAIL HIGH_PRIORITY IF IGNORE INTO LATERAL LOW_PRIORITY NOT ONLY OR QUICK RECURSIVE
    REPLACE ROLLBACK TABLE TABLES TEMPORARY
""")
_NOT_A_TABLE: Final = _MODIFIERS | _words("FROM OUTFILE SELECT SET VALUES WITH")
_ENDS_TABLES: Final = _words("""
    CONFLICT DELETE DUPLICATE EXCEPT FETCH FOR GROUP HAVING INSERT INTERSECT LIMIT MERGE OFFSET ORDER REPLACE RETURNING
    SELECT SET UNION UPDATE VALUES WHERE WINDOW
""")
_BEFORE_STATEMENT: Final = ("", "(", ")", "ANALYZE", "AS", "BEGIN", "EXPLAIN", "PLAN")
_FROM_OTHER_THINGS: Final = ("", "COPY", "FETCH", "GRANT", "MOVE", "REVOKE", "SHOW")
_SHOWN_FROM_TABLE: Final = _words("COLUMNS FIELDS INDEX INDEXES KEYS")

_AFTER_WITH: Final = _words("SELECT INSERT UPDATE DELETE MERGE REPLACE VALUES")
_CONTROL: Final = _words("ABORT BEGIN COMMIT END PRAGMA RELEASE RESET ROLLBACK SAVE SAVEPOINT SET START")
_TRANSACTIONS: Final = {
    "ABORT": "rollback",
    "BEGIN": "begin",
    "COMMIT": "commit",
    "END": "commit",
    "ROLLBACK": "rollback",
    "START": "begin",
}


# --------------------------------------------------------------------------------------------------------------------
# Tokens


class Dialect:
    """How one family of databases writes its tokens.

    Its expressions are compiled when they are first used; every repetition in them is possessive, so no input makes
    them slow.
    """

    def __init__(
        self,
        *,
        backslashes: bool = False,
        introducers: bool = False,
        double_quotes: str = "name",
        brackets: str = "",
        strict_brackets: bool = False,
        hash_comments: str = "",
        dollar_strings: bool = False,
        at_sign_values: str = "",
        question_operator: bool = False,
        digit_separators: bool = True,
        nested_comments: bool = False,
        executed_comments: bool = False,
        dash_comment: str = "--",
    ) -> None:
        self.double_quotes = double_quotes
        self.question_operator = question_operator
        self.nested_comments = nested_comments
        self.executed_comments = executed_comments
        self.brackets = brackets
        self._strict_brackets = strict_brackets
        self._backslashes = backslashes
        self._introducers = introducers
        self._dollar_strings = dollar_strings
        self._hash_comments = hash_comments
        self._at_sign_values = at_sign_values
        self._line_comments = rf"{dash_comment}[^\r\n]*+" + (rf"|{hash_comments}[^\r\n]*+" if hash_comments else "")
        self._space = rf"(?:\s++|{self._line_comments}|/\*(?![!M])(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/)*+"
        digits = "0-9_" if digit_separators else "0-9"
        self._number = (
            rf"0[xX][{digits}a-fA-F]++|0[bB][01_]++|0[oO][0-7_]++"
            rf"|(?:[0-9][{digits}]*+(?:\.[{digits}]*+)?+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+"
        )

    @cached_property
    def leading(self) -> re.Pattern[str]:
        """What may stand before the first token; matches the empty string too."""
        return re.compile(self._space)

    @cached_property
    def token(self) -> re.Pattern[str]:
        """A token in group 1, and the space after it.

        What no token matches swallows the rest of the text and leaves the group empty.
        """
        prefixed, quoted = self._quoted
        tokens = [
            *prefixed,
            rf"(?![eE]')[^\W\d]\w*+(?:[{'$' if self._hash_comments else '$#'}]\w++)*+",
            r"[(),;]",
            r"\.(?![0-9])",
            rf"(?:{self._number})(?![\w$])",
            r"[0-9][\w$]*+",
            *quoted,
            r"\?[0-9]*+",
            r"%(?:[sbt](?!\w)|\([^()'*]*+\)[a-zA-Z]|%)",
            r"::|:=|:\w++",
            r"\$\w++(?!\$)",
            r"@@?+[\w$]++(?:\.[\w$]++)*+",
            *([] if self._hash_comments == "#" else [r"#{1,2}\w++" if self._strict_brackets else r"#>>?|#-"]),
            r"->>?|<=>|[<>!=]=|<>|\|\||&&|@@|@>|<@|=>|!?~~?\*?|/(?!\*)",
            r"[-+*%<>=!&|^~#@:{}.?]" if self._strict_brackets else r"[-+*%<>=!&|^~#@:\[\]{}.?]",
        ]
        return re.compile(rf"(?:({'|'.join(tokens)})|[\s\S]++){self._space}")

    @cached_property
    def number(self) -> re.Pattern[str]:
        """A number of any kind, where a token begins with a digit."""
        return re.compile(self._number)

    @cached_property
    def at_sign(self) -> re.Pattern[str] | None:
        """A placeholder that begins with an at sign."""
        return re.compile(self._at_sign_values) if self._at_sign_values else None

    @cached_property
    def outside(self) -> re.Pattern[str]:
        """What a block comment cannot begin in, or where one begins or ends, or a quote that is not closed."""
        opener = re.escape("'\"`[" if self._strict_brackets else "'\"`")
        edges = rf"(?P<edge>/\*(?:M?![0-9]*+)?+|\*/)|(?P<open>[{opener}]|\$\w*+\$)"
        prefixed, quoted = self._quoted
        begun = rf"(?<![\w$])(?:{'|'.join(prefixed)})"
        return re.compile(rf"{'|'.join([begun, *quoted])}|{self._line_comments}|{edges}")

    @cached_property
    def _quoted(self) -> tuple[list[str], list[str]]:
        """Expressions of what is quoted: with a prefix that would be a word by itself, and without."""
        escaped = r"'(?:[^'\\]++|''|\\[\s\S])*+'"
        single = escaped if self._backslashes else r"'(?:[^']++|'')*+'"
        double = r'"(?:[^"\\]++|""|\\[\s\S])*+"' if self.double_quotes == "value" else r'"(?:[^"]++|"")*+"'
        prefixed = [rf"[eE]{escaped}", rf"(?:[bBnNxX]|[uU]&){single}"]
        if self._introducers:
            prefixed.append(rf"_[a-zA-Z0-9]++\s*+(?:{single}|{double})")
        quoted = [single, double, r"`(?:[^`]++|``)*+`"]
        if self._dollar_strings:
            quoted.append(r"\$(?P<tag>(?:[^\W\d]\w*+)?+)\$(?s:.*?)\$(?P=tag)\$")
        if self.brackets:
            quoted.append(self.brackets)
        return prefixed, quoted

    def tokens(self, text: str) -> Iterator[str] | list[str]:
        """The tokens; the last is empty if the text cannot be tokenised to its end."""
        start = self.leading.match(text).end()  # type: ignore[union-attr] # matches the empty string too
        if len(text) <= _AT_ONCE_CHARS:
            found = self.token.findall(text, start)
            return [token for token, _ in found] if self.token.groups > 1 else found
        return (match[1] or "" for match in self.token.finditer(text, start))


MYSQL: Final = Dialect(
    backslashes=True,
    introducers=True,
    double_quotes="value",
    hash_comments="#",
    digit_separators=False,
    executed_comments=True,
    dash_comment=r"--(?=\s|\Z)",
)
POSTGRESQL: Final = Dialect(dollar_strings=True, question_operator=True, nested_comments=True)
SQLITE: Final = Dialect(double_quotes="either", brackets=r"\[[^\]]*+\]", strict_brackets=True, at_sign_values=r"@\w++")
MSSQL: Final = Dialect(
    brackets=r"\[(?:[^\]]++|\]\])*+\]", strict_brackets=True, at_sign_values=r"@\w++", nested_comments=True
)
UNION: Final = tuple(
    Dialect(
        backslashes=backslashes,
        double_quotes="either",
        brackets=r"(?<!(?i:array))\[[^\W\d][\w ]*+\]",
        hash_comments=r"#(?![>-])",
        dollar_strings=True,
        at_sign_values=r"@[pP]?[0-9]++",
        nested_comments=True,
    )
    for backslashes in (False, True)
)


_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")


def _without_comments(text: str, dialect: Dialect) -> str | None:
    """The text without block comments that the token expression cannot read; None if one is not closed."""
    kept: list[str] = []
    position = executed = 0
    while edge := dialect.outside.search(text, position):
        if edge["open"]:
            return None
        if edge["edge"] is None:
            kept.append(text[position : edge.end()])
            position = edge.end()
            continue
        kept.append(text[position : edge.start()])
        kept.append(" ")
        position = edge.end()
        if edge["edge"] == "*/":
            if not executed:
                return None
            executed -= 1
        elif dialect.executed_comments and "!" in edge["edge"]:
            executed += 1
        else:
            position = _comment_end(text, edge.start() + 2, nested=dialect.nested_comments)
            if not position:
                return None
    return None if executed else "".join(kept) + text[position:]


def bare(text: str, dialect: Dialect) -> str:
    """The text without comments at either end, which tracing tools put there and which are never the same.

    It may end within what a quote or comment opened: then it cannot be tokenised, and the whole text has to be read.
    A last comment of several lines stays: what begins it may stand in a comment that ends with the line.
    """
    if text[:1].isalpha() and text[-1] not in "/; \t\r\n":
        return text
    start = dialect.leading.match(text).end()  # type: ignore[union-attr] # matches the empty string too
    end = cut = len(text)
    while True:
        while end > start and text[end - 1] in "; \t\r\n":
            end -= 1
        begin = text.rfind("/*", start, end) if text.endswith("*/", start, end) else start
        closes_at_end = text.find("*/", begin + 2, end) == end - 2
        if begin <= start or not closes_at_end or not text[begin - 1].isspace() or text[begin + 2] in "!M":
            break
        if "\n" in text[begin:end] or "\r" in text[begin:end]:
            break
        end = cut = begin
    return text[start:] if cut == len(text) else text[start:end]


def _comment_end(text: str, start: int, *, nested: bool) -> int:
    """Where the comment's body that begins at `start` has ended; 0 if it does not."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(text, start):
        if edge[0] == "*/":
            depth -= 1
        elif nested:
            depth += 1
        if not depth:
            return edge.end()
    return 0


# --------------------------------------------------------------------------------------------------------------------
# The fingerprint


class _List:
    """An IN, ARRAY or VALUES list that is being read: where the item at hand begins, and which were there before."""

    __slots__ = ("count", "depth", "rows", "seen", "start")

    def __init__(self, depth: int, start: int, *, rows: bool) -> None:
        self.depth = depth
        self.start = start
        self.rows = rows
        self.count = 0
        self.seen: set[tuple[str, ...]] = set()

    def end_item(self, pieces: list[str]) -> None:
        """Count the item; take it back, with the comma before it, if there was one like it."""
        item = tuple(pieces[self.start + self.rows :])  # how a row begins ("(" or "ROW") depends on what is before it
        if not item:
            return
        self.count += 1
        if item in self.seen:
            del pieces[self.start - 1 :]
        else:
            self.seen.add(item)


_WORD, _DIGIT, _POINT, _STRING, _DOUBLE, _QUOTED, _SIGIL, _COLON, _PERCENT, _QUESTION, _OTHER = range(11)
_KINDS: Final = {
    **dict.fromkeys("()[],;", _POINT),
    **dict.fromkeys("0123456789", _DIGIT),
    **dict.fromkeys("`", _QUOTED),
    **dict.fromkeys("$@", _SIGIL),
    **dict.fromkeys("-+*/<>=!&|^~#{}", _OTHER),
    ".": _POINT,
    "'": _STRING,
    '"': _DOUBLE,
    ":": _COLON,
    "%": _PERCENT,
    "?": _QUESTION,
}
_POINTS: Final = frozenset("()[],;.")
_NO_SPACE_AFTER: Final = frozenset(("", "(", "[", ".", ",", ";", "::"))
_NO_NAME: Final = frozenset(("?", ")", "]"))
_BEFORE_TABLE: Final = frozenset(("FROM", "INTO", "JOIN"))


def _normalise(text: str, dialect: Dialect) -> tuple[str, int | None, bool, list[str]] | None:  # noqa: C901, PLR0912, PLR0915 - one pass, for speed
    """The fingerprint, list size, whether there are placeholders, and the literals; None if the dialect is another."""
    pieces: list[str] = []  # of the fingerprint, each with the space before it
    lists: list[_List] = []
    depth = signs = 0  # signs: pieces at the end that are unary
    list_size: int | None = None
    placeholders = in_string = operand = False  # operand: the last piece ends one
    literals: list[str] = []  # as written, each after its signs
    last = written = before_signs = ""  # the last piece without its space, and the lexeme it was

    tokens = iter(dialect.tokens(text))
    for lexeme in islice(tokens, _MAX_TOKENS):
        if not lexeme:
            return None
        kind = _KINDS.get(lexeme[0], _WORD)
        piece = lexeme
        was_string, in_string = in_string, False
        after_operand, operand = operand, True
        value = 0  # 1: a placeholder, 2: a literal

        if kind == _WORD:
            if lexeme[-1] in "'\"":
                value = 2
                in_string = True
            elif last != ".":
                upper = lexeme.upper()
                if upper in _KEYWORDS:
                    known = last not in _BEFORE_TABLE or upper in _TABLE_POSITION
                else:
                    known = upper in _KEYWORDS_AFTER and last in _KEYWORDS_AFTER[upper]
                if known and lexeme.isascii():
                    piece = upper
                    operand = upper in _OPERANDS
                    if upper in _CONSTANTS:
                        value = 0 if after_operand or _is_shape(upper, last, pieces) else 2
                    elif lists and upper in _AFTER_WITH and lists[-1].start == len(pieces):
                        lists.pop()  # a subquery, not a list
        elif kind == _POINT:
            if lexeme == ",":
                operand = False
                if lists and lists[-1].depth == depth:
                    if not lists[-1].rows:
                        lists[-1].end_item(pieces)
                    lists[-1].start = len(pieces) + 1
                pieces.append(", ")
            elif lexeme in ("(", "["):
                if lexeme == "[":
                    glued = after_operand or last == "ARRAY"
                else:
                    glued = after_operand and last not in _KEYWORDS and last not in _NO_NAME
                    if glued and last.upper() in _FUNCTIONS and last.isascii() and pieces[-2:-1] != ["."]:
                        pieces[-1] = pieces[-1].upper()
                pieces.append(lexeme if glued or last in _NO_SPACE_AFTER else " " + lexeme)
                operand = False
                depth += 1
                if len(lists) < _MAX_LIST_NESTING:
                    if last in ("IN", "ARRAY"):
                        lists.append(_List(depth, len(pieces), rows=False))
                    elif last == "VALUES" or (last == "ROW" and "VALUES" in "".join(pieces[-3:-2])):
                        lists.append(_List(depth - 1, len(pieces) - (1 if last == "VALUES" else 2), rows=True))
            elif lexeme in (")", "]"):
                while lists and lists[-1].depth >= depth:
                    items = lists.pop()
                    if not items.rows:
                        items.end_item(pieces)
                    list_size = max(list_size or 0, items.count)
                depth -= 1
                pieces.append(lexeme)
                if lists and lists[-1].rows and lists[-1].depth == depth:
                    lists[-1].end_item(pieces)
                    list_size = max(list_size or 0, lists[-1].count)
            elif lexeme == ";":
                if pieces and last != ";":
                    pieces.append("; ")
                operand = False
                depth = 0
                lists.clear()
            elif lexeme == ".":
                if written != last and (last != "?" or _is_name(written, dialect)):
                    pieces[-1] = pieces[-1][: -len(last)] + written  # what looked like a keyword, or a value
                pieces.append(".")
                operand = False
            elif lexeme[0] == ".":
                value = 2  # ".5"
            if lexeme in _POINTS:
                last = written = lexeme
                signs = 0
                continue
        elif kind == _OTHER:
            operand = lexeme[-1].isalnum()  # only "#temporary" is no operator
            if not after_operand and lexeme in ("-", "+"):
                if not signs:
                    before_signs = last
                signs += 1
                pieces.append(lexeme if last in _NO_SPACE_AFTER else " " + lexeme)
                last = written = lexeme
                continue
        elif kind == _STRING:
            value = 2
            in_string = True
        elif kind == _DIGIT:
            if (lexeme.isdigit() and lexeme.isascii()) or dialect.number.fullmatch(lexeme):
                value = 2
        elif kind == _QUESTION:
            if not (dialect.question_operator and after_operand):  # `data ? 'key'`, or `date ?` in a fingerprint
                value = 1
        elif kind == _PERCENT:
            operand = lexeme not in ("%", "%%")
            value = 1 if operand else 0
            piece = "%"
        elif kind == _COLON:
            operand = lexeme not in (":", "::", ":=")
            value = 1 if operand else 0
        elif kind == _SIGIL:
            if lexeme[0] == "$":
                value = 2 if lexeme[-1] == "$" else 1
            elif dialect.at_sign and dialect.at_sign.fullmatch(lexeme):
                value = 1
            else:
                operand = lexeme not in ("@", "@@", "@>")
        elif kind == _DOUBLE:
            in_string = dialect.double_quotes == "value"
            listed = lists and lists[-1].depth + lists[-1].rows == depth and last in ("(", ",")
            compared = last.upper() in _COMPARISONS or (last == "AND" and pieces[-3:-2] == [" BETWEEN"])
            if in_string or (dialect.double_quotes == "either" and (listed or compared)):
                value = 2

        if lists and lists[-1].rows and lists[-1].depth == depth:
            if piece.upper() == "ROW":  # MySQL: VALUES ROW(1, 2), ROW(3, 4)
                piece = "ROW"
                operand = False
            else:
                lists.pop()  # the VALUES list is over
        if value:
            if value == 1:
                placeholders = True
            else:
                if signs:
                    literals += [sign.strip() for sign in pieces[-signs:]]
                literals.append(piece)
                if was_string and in_string:
                    continue  # 'one string' 'in two'
            piece = "?"
            if signs:
                del pieces[-signs:]
                last = before_signs
        signs = 0
        glued = last in _NO_SPACE_AFTER or (piece == "::" and after_operand)
        pieces.append(
            piece if glued and not (last == "[" and kind == _WORD and not value and dialect.brackets) else " " + piece
        )
        last = piece
        written = lexeme
    if next(tokens, None) is not None:
        literals.append(f"{hash(text)} is the hash of the whole")
        if lists and lists[0].count:  # end the list before the item that was cut
            list_size = max(list_size or 0, lists[0].count)
            del pieces[lists[0].start - 1 :]
            pieces.append("" if lists[0].rows else ")")
    return "".join(pieces).removesuffix("; "), list_size, placeholders, literals


def _is_shape(constant: str, last: str, pieces: list[str]) -> bool:
    """Whether NULL, TRUE or FALSE belongs to the statement's shape where it stands: `IS NOT TRUE`, `SET NULL`."""
    if constant == "NULL":
        return last in _SHAPE_BEFORE_NULL
    return last == "IS" or (last == "NOT" and pieces[-2:-1] == [" IS"])


def _is_name(written: str, dialect: Dialect) -> bool:
    return written[0] == '"' and dialect.double_quotes == "either"


class Read(NamedTuple):
    """A text as one dialect has it.

    Attributes:
        fingerprint: See `perf_middleware.sql.Statement`, also for the next two.
        list_size: As there.
        placeholders: As there.
        literals: As written, in their order, each after its signs.
        as_written: It was read as it is, without taking comments out first.

    """

    fingerprint: str
    list_size: int | None
    placeholders: bool
    literals: list[str]
    as_written: bool


def read(text: str, dialect: Dialect) -> Read | None:
    """Read a text token by token; None if it is none of this dialect."""
    normal = _normalise(text, dialect)
    as_written = normal is not None
    if normal is None and "/*" in text:
        uncommented = _without_comments(text, dialect)
        normal = None if uncommented is None else _normalise(uncommented, dialect)
    return Read(*normal, as_written) if normal is not None and _is_encodable(normal[0]) else None


def _is_encodable(text: str) -> bool:
    """Whether no undecodable byte (as a lone surrogate) is left in it, as there is in a name that is none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --------------------------------------------------------------------------------------------------------------------
# What the fingerprint tells


#: The first fields of a Statement, up to `transaction`.
Facts: TypeAlias = "tuple[str, str, tuple[str, ...], bool, str]"


def facts(fingerprint: str, dialect: Dialect) -> Facts:
    """What the fingerprint tells."""
    statements: list[list[str]] = [[]]
    for lexeme in dialect.tokens(fingerprint):
        if lexeme == ";":
            statements.append([])
        else:
            statements[-1].append(lexeme)
    verbs = [_verb(tokens) for tokens in statements]
    queries = [verb for verb in verbs if verb not in _CONTROL]
    verb = (queries or verbs)[0]
    tables = dict.fromkeys(
        table for tokens, verb in zip(statements, verbs, strict=True) for table in _Tables(tokens, verb).found
    )
    transaction = ""
    if verb not in ("CREATE", "ALTER", "DO"):  # whose text may be a procedure's
        for tokens, own_verb in zip(statements, verbs, strict=True):
            transaction = _transaction(tokens, own_verb) or transaction
    return fingerprint, verb, tuple(tables), not queries, transaction


def _verb(tokens: list[str]) -> str:
    verb = next((lexeme.upper() for lexeme in tokens if lexeme not in ("(", "{", "?", "=")), "")
    if verb == "WITH":
        return _after(tokens, _AFTER_WITH)
    if verb == "SET" and [lexeme.upper() for lexeme in tokens[1:2]] == ["STATEMENT"]:  # MariaDB: SET STATEMENT ... FOR
        return _verb(tokens[tokens.index("FOR") + 1 :]) if "FOR" in tokens else verb
    return verb if verb in _VERBS else ""


def _after(tokens: list[str], words: frozenset[str]) -> str:
    """The first of `words` outside of all parentheses."""
    depth = 0
    for lexeme in tokens:
        if lexeme == "(":
            depth += 1
        elif lexeme == ")":
            depth -= 1
        elif not depth and lexeme in words:
            return lexeme
    return ""


def _transaction(tokens: list[str], verb: str) -> str:
    if verb == "ROLLBACK" and "TO" in tokens:
        return ""  # to a savepoint
    if verb == "START" and "TRANSACTION" not in tokens:
        return ""
    return _TRANSACTIONS.get(verb, "")


class _Level:
    """One level of parentheses, as far as tables are concerned."""

    __slots__ = ("comma", "cte", "query")

    def __init__(self, comma: str = "", *, cte: str = "", query: bool = False) -> None:
        self.comma = comma  # what a comma leads to: "table", "cte" or ""
        self.cte = cte  # the name of the CTE this is the body of
        self.query = query  # FROM means tables here, unlike in EXTRACT(YEAR FROM x)


class _Tables:
    """A walk over the tokens of one statement that collects its tables in `found`."""

    def __init__(self, tokens: list[str], verb: str) -> None:
        self.found: list[str] = []
        self._verb = verb
        self._tokens = tokens
        self._levels = [_Level(query=verb not in _FROM_OTHER_THINGS)]
        self._expected = ""  # "table", "new" (it may have a column list), "cte" or ""
        self._ctes: set[str] = set()
        self._cte = ""  # named, but its body has not begun
        self._recursive = False
        self._target = ""  # of an UPDATE: it may turn out to be an alias
        if verb not in _CONTROL:
            self._walk()

    def _walk(self) -> None:
        tokens = self._tokens
        index = 0
        last = ""
        while index < len(tokens):
            lexeme = tokens[index]
            if lexeme == "(":
                self._open(last)
            elif lexeme == ")":
                self._close()
            elif lexeme == ",":
                self._expected = self._levels[-1].comma
            elif self._expected and _names(lexeme) and lexeme.upper() not in _NOT_A_TABLE:
                index = self._name(index)
                last = "name"
                continue
            elif lexeme in _KEYWORDS and last != ".":
                self._keyword(lexeme, last, tokens[index + 1] if index + 1 < len(tokens) else "")
            elif lexeme.upper() not in _MODIFIERS:
                self._expected = ""
            last = lexeme
            index += 1

    def _open(self, last: str) -> None:
        if self._cte and last in ("AS", "MATERIALIZED"):
            self._levels.append(_Level(cte=self._cte))
            if self._recursive:
                self._ctes.add(self._cte)
            self._cte = ""
        elif self._expected == "table":
            self._levels.append(_Level("table"))  # a join in parentheses, or a subquery: SELECT will tell
            return
        else:
            self._levels.append(_Level())
        self._expected = ""

    def _close(self) -> None:
        self._expected = ""
        if len(self._levels) > 1:
            level = self._levels.pop()
            if level.cte:
                self._ctes.add(level.cte)

    def _name(self, index: int) -> int:
        """Take the name that begins at `index`; return where it has ended."""
        tokens = self._tokens
        parts = [_unquoted(tokens[index])]
        index += 1
        while tokens[index : index + 1] == ["."]:
            if tokens[index + 1 : index + 2] != ["."]:  # SQL Server's database..table
                parts.append(_unquoted("".join(tokens[index + 1 : index + 2])))
            index += 2 if tokens[index + 1 : index + 2] != ["."] else 1
        name = ".".join(parts)
        expected, self._expected = self._expected, ""
        if expected == "cte":
            self._cte = name.lower()
            return index
        if name.lower() in self._ctes or (expected == "table" and tokens[index : index + 1] == ["("]):
            return index
        self.found.append(name)
        if self._target:
            alias = tokens[index + 1 : index + 2] if tokens[index : index + 1] == ["AS"] else tokens[index : index + 1]
            if self._target == "?":
                self._target = name
            elif alias == [self._target] and self._target in self.found:
                self.found.remove(self._target)
        return index

    def _keyword(self, keyword: str, last: str, following: str) -> None:  # noqa: C901, PLR0912 - a table of cases
        level = self._levels[-1]
        verb = self._verb
        begins = last in _BEFORE_STATEMENT
        if self._expected and keyword in _MODIFIERS:
            self._recursive = self._recursive or keyword == "RECURSIVE"
            return
        self._expected = ""
        if keyword not in ("AS", "NOT", "MATERIALIZED"):
            self._cte = ""
        if keyword in _ENDS_TABLES:
            level.comma = ""
        if keyword in ("SELECT", "DELETE") and (keyword == "SELECT" or begins):
            level.query = True
        elif keyword == "FROM":
            if (level.query and last != "DISTINCT") or (verb == "SHOW" and last.upper() in _SHOWN_FROM_TABLE):
                self._expected = level.comma = "table"
        elif keyword in ("JOIN", "STRAIGHT_JOIN"):
            self._expected = "table"
        elif keyword == "USING":
            if verb in ("DELETE", "MERGE") and following != "(":
                self._expected = level.comma = "table"
        elif keyword == "UPDATE":
            if begins:
                self._expected = level.comma = "table"
                self._target = "?"
        elif keyword in ("INSERT", "REPLACE", "MERGE"):
            self._expected = "new" if begins else ""
        elif keyword in ("INTO", "REFERENCES") or (
            keyword == "ON" and verb == "CREATE" and "INDEX" in self._tokens[:4]
        ):
            self._expected = "new"
        elif keyword == "TABLE" or (keyword in ("COPY", "DESC", "DESCRIBE", "LOCK", "TRUNCATE") and not last):
            self._expected = "table" if verb in ("DROP", "LOCK", "TRUNCATE") else "new"
            level.comma = "table" if verb in ("DROP", "LOCK", "TRUNCATE") else ""
        elif keyword == "WITH" and following != "(" and level.comma != "table":
            self._expected = level.comma = "cte"


def _names(lexeme: str) -> bool:
    return _KINDS.get(lexeme[0], _WORD) in (_WORD, _DIGIT) or (len(lexeme) > 1 and lexeme[0] in '"`[#')


def _unquoted(name: str) -> str:
    if name[:1] == "[":
        return name[1:-1].replace("]]", "]")
    if name[:1] in ('"', "`"):
        return name[1:-1].replace(name[0] * 2, name[0])
    return name
