"""From the text of a statement to its fingerprint, its verb and its tables: what was read is remembered.

Reading token by token (`perf_middleware.fingerprint`) costs many times what looking up costs, so it is done once for
all texts that differ in their literals only. There are three ways to find what was read, each tried when the one
before has failed:

text    The same text.
mask    The text with a zero for every digit. Texts with one mask have all that is no digit in the same places.
shape   The text with nothing between its single quotes and one zero for every number. It costs more to make.

What was read of the first text of a shape holds for the next, because only this may differ between them:

- what is between single quotes, if all quotes of the first were those of strings and neither has a backslash: the
  tokens outside cannot tell;
- the digits of numbers as `_DECIMAL` has them. All others (in names, placeholders, hex numbers, comments) are compared.

Where a token begins and ends depends on none of these digits, but for dollar quotes (`$a1$...$a1$`): a text that has
them has no shape. So texts with one mask, or with nothing between their quotes and one zero for every number, all have
the digits to compare in the same places.
"""

from __future__ import annotations

import re
from array import array
from functools import lru_cache, partial
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import msgspec

from perf_middleware.fingerprint import MSSQL, MYSQL, POSTGRESQL, SQLITE, UNION, Dialect, Facts, bare, facts, read

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

__all__ = ["Statement", "fingerprint_id", "like", "like_each", "parse"]

_T = TypeVar("_T")


class Statement(msgspec.Struct, frozen=True, gc=False):
    """What is known of a statement from its text alone.

    Attributes:
        fingerprint: The text without its literals; "unparsable:" and 16 hex digits if it cannot be tokenised.
        verb: Upper case; what a WITH leads to; the first query of several; "" if unknown.
        tables: Read or written, in order of appearance, unquoted, with the schema where it is written; no names of
            CTEs, functions or aliases.
        control: It steers a transaction or the session (BEGIN, COMMIT, SAVEPOINT, SET, PRAGMA, ...): not a query.
        transaction: "begin", "commit", "rollback" or "".
        list_size: Values in its longest IN list, or rows in its VALUES list; None if it has neither.
            Of a text so long that only its beginning is read: as many as were.
        placeholders: The text holds placeholders.
        literals: Hash of the literal values in their order, equal only within this process; None if there are none.

    """

    fingerprint: str
    verb: str
    tables: tuple[str, ...]
    control: bool
    transaction: str
    list_size: int | None
    placeholders: bool
    literals: int | None


# Of each dialect in use, so many texts, masks and shapes are remembered.
_CACHED: Final = 2048

# Longer texts and masks are not kept; of the texts their hash is (64 bits and more: no two will meet).
_MAX_CACHED_CHARS: Final = 4096

# Still longer texts have no shape.
_MAX_SHAPED_CHARS: Final = 65_536

# Literals and compared numbers of a mask: a bound on memory. What has more hardly ever has the same mask again.
_MAX_MASKED_NUMBERS: Final = 256


def parse(text: str | bytes | bytearray, system: str | None = None) -> Statement:
    """Read a statement; never raises, whatever it is given.

    Args:
        text: As given to the driver.
        system: OpenTelemetry's `db.system.name`; a sensible union of the dialects is assumed if it is unknown.

    """
    if type(text) is not str:
        text = _plain(text)
    try:
        reader = _READERS[system]
    except (KeyError, TypeError):
        reader = _UNKNOWN
    return reader.texts.get(text) or reader.read(text)


def like(text: str, system: str | None = None) -> Statement:
    """As `parse`, but the literals may be those of another text like this one: what tells them all is one object."""
    reader = _READERS.get(system, _UNKNOWN)
    statement = reader.texts.get(text)
    if statement is None and len(text) <= _MAX_CACHED_CHARS and text.isascii():
        mask = reader.masks.get(text.encode().translate(_AS_ZEROS))
        if mask is not None and mask.compared is None:
            return mask.shape.first
    return statement or reader.read(text)


def like_each(texts: list[str], system: str | None = None) -> list[Statement]:
    """`like` for many texts, most of which are like others: their masks are made all at once."""
    masks = _READERS.get(system, _UNKNOWN).masks
    zeros = "\0".join(texts).encode("utf-8", "surrogatepass").translate(_AS_ZEROS).split(b"\0")
    if len(zeros) != len(texts):  # NUL is in one of them
        return [like(text, system) for text in texts]
    return [
        mask.shape.first if mask is not None and mask.compared is None else like(text, system)
        for mask, text in zip(map(masks.get, zeros), texts, strict=True)
    ]


@lru_cache(maxsize=_CACHED)
def fingerprint_id(fingerprint: str) -> str:
    """16 hex digits that stand for the fingerprint, the same in every process (BLAKE2b, 8 bytes)."""
    return _hex(fingerprint)


def _hex(text: str) -> str:
    from hashlib import blake2b  # noqa: PLC0415 - OpenSSL, which costs more to import than this file

    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _plain(text: object) -> str:
    if isinstance(text, str):
        return str.__str__(text)
    if isinstance(text, bytes):
        return bytes.decode(text, "utf-8", "surrogateescape")
    if isinstance(text, bytearray):
        return bytearray.decode(text, "utf-8", "surrogateescape")
    return f"\0{type(text).__qualname__}"  # not text at all, and NUL makes it unparsable


# --------------------------------------------------------------------------------------------------------------------
# What is remembered


_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
# Digits become space and space becomes digits, so that `split` takes out the numbers; or all but digits becomes space,
# so that it takes out all else.
_AS_SPACE: Final = bytes.maketrans(b"0123456789 \t\n\r\v\f", b"          012345")
_BETWEEN_AS_SPACE: Final = bytes(byte if byte in b"0123456789" else 32 for byte in range(256))
_DECIMAL: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_RUN: Final = re.compile(r"[0-9]++")
_VALUE: Final = re.compile(rb"['0-9](?:(?<=')[^']*+'|[0-9]*+)")
_QUOTE: Final = ord("'")

_Take: TypeAlias = "Callable[[bytes], tuple[bytes, ...]]"
_Span: TypeAlias = "tuple[int, int]"


class _Shape:
    """What was read of the first text of a shape.

    Attributes:
        first: That text's.
        statement: Makes a Statement of another hash of literals.
        placeholders: As there.
        form: Hash of what their literals have in common.
        order: Where the values of the literals are among the digits, and then the strings, of a text.
        compared: Where the digits to compare are.

    """

    __slots__ = ("compared", "first", "form", "order", "placeholders", "statement")

    def __init__(self, first: Statement, form: int, order: Iterable[int], compared: Iterable[int]) -> None:
        self.first = first
        self.statement: Callable[[int], Statement] = partial(Statement, *msgspec.structs.astuple(first)[:-1])
        self.placeholders = first.placeholders
        self.form = form
        self.order = array("H", order)
        self.compared = array("H", compared)


class _Mask:
    """A shape in which each value has its place.

    Attributes:
        values: Takes the values of the literals.
        compared: Takes the digits to compare; None if there are none.

    """

    __slots__ = ("compared", "shape", "values")

    def __init__(self, shape: _Shape, values: _Take, compared: _Take | None) -> None:
        self.shape = shape
        self.values = values
        self.compared = compared


class _Reader:
    """Reads statements of one family of databases, and remembers what it has read.

    Each cache may be emptied at any time, by another thread too: none relies on what another holds.

    Attributes:
        dialects: Tried in this order.
        texts: Those that have no shape, and those with placeholders, which are the likeliest to come again.
        masks: By mask (the latest of it), and by mask and the digits to compare.
        shapes: By hash likewise.
        seen: Hashes of masks seen once. Only what comes again is worth one.

    """

    def __init__(self, *dialects: Dialect) -> None:
        self.dialects = dialects
        self.texts: dict[Hashable, Statement] = {}
        self.masks: dict[Hashable, _Mask] = {}
        self.shapes: dict[int, _Shape] = {}
        self.seen: dict[int, None] = {}

    def read(self, text: str) -> Statement:
        """Read a text that is not among `texts`."""
        if len(text) > _MAX_CACHED_CHARS:
            return self.texts.get(_short(text)) or self._read_long(text)
        raw = text.encode() if text.isascii() else text.encode("utf-8", "surrogatepass")
        zeros = raw.translate(_AS_ZEROS)
        mask = self.masks.get(zeros)
        if mask is not None and mask.compared is not None:
            mask = self.masks.get((zeros, mask.compared(raw)))
        if mask is None:
            return self._read_shape(text, raw, zeros)
        shape = mask.shape
        statement = shape.statement(hash((shape.form, mask.values(raw))))
        return self._kept(text, statement) if shape.placeholders else statement

    def _read_long(self, text: str) -> Statement:
        if len(text) > _MAX_SHAPED_CHARS:
            return self._read_once(text)
        return self._read_shape(text, text.encode("utf-8", "surrogatepass"), None)

    def _read_shape(self, text: str, raw: bytes, zeros: bytes | None) -> Statement:
        """Read a text that has no mask yet; learn from it if it has no shape either."""
        escaped = "\\" in text
        uncommented = text if escaped and len(self.dialects) > 1 else bare(text, self.dialects[0])
        if uncommented != text:
            statement = self.texts.get(uncommented) or self.read(uncommented)
            if not statement.fingerprint.startswith("unparsable:"):
                return statement
        parts = raw.split(b"'")
        if len(parts) % 2 == 0 or escaped:
            return self._read_once(text)
        outside, strings = b"\n" + b"''".join(parts[::2]) + b"\n", parts[1::2]
        key = hash(b" ".join(outside.translate(_AS_SPACE).split()))
        runs = outside.translate(_BETWEEN_AS_SPACE).split()
        shape = self.shapes.get(key)
        if shape is not None and shape.compared:
            shape = self.shapes.get(hash((key, _at(runs, shape.compared))))
        if shape is None:
            statement, literals = self._read_tokens(text)
            compared = None if literals is None else _compared(outside, len(strings), literals, self.dialects[0])
            if literals is None or compared is None:
                return self._kept(text, statement)
            shape = _Shape(statement, literals.form, _places(raw, compared, len(runs))[2], compared)
            _keep(self.shapes, key, shape)
            if compared:
                _keep(self.shapes, hash((key, _at(runs, compared))), shape)
        if zeros is not None and len(shape.order) + len(shape.compared) <= _MAX_MASKED_NUMBERS:
            self._mask(raw, zeros, shape)
        statement = shape.statement(hash((shape.form, _at(runs + strings, shape.order))))
        return self._kept(text, statement) if shape.placeholders else statement

    def _mask(self, raw: bytes, zeros: bytes, shape: _Shape) -> None:
        """Remember the mask when it is seen for the second time."""
        if hash(zeros) not in self.seen:
            _keep(self.seen, hash(zeros), None)
            return
        values, others, _ = _places(raw, shape.compared, 0)
        compared = _taking(others, len(raw)) if others else None
        mask = _Mask(shape, _taking(values, len(raw)), compared)
        _keep(self.masks, zeros, mask)
        if compared is not None:
            _keep(self.masks, (zeros, compared(raw)), mask)

    def _read_once(self, text: str) -> Statement:
        return self._kept(text, self._read_tokens(text)[0])

    def _kept(self, text: str, statement: Statement) -> Statement:
        _keep(self.texts, text if len(text) <= _MAX_CACHED_CHARS else _short(text), statement)
        return statement

    def _read_tokens(self, text: str) -> tuple[Statement, _Literals | None]:
        """The statement, and its literals if it may have a shape."""
        if re.fullmatch("unparsable:[0-9a-f]{16}", text):
            return _opaque(text), None
        readings = [
            (one, dialect)
            for dialect in (self.dialects if "\\" in text else self.dialects[:1])
            if (one := read(text, dialect)) is not None
        ]
        if len({one.fingerprint for one, _ in readings}) != 1:
            return _opaque(f"unparsable:{_hex(text)}"), None
        one, dialect = readings[0]
        literals = _literals(one.literals) if one.literals else None
        token = None if literals is None else hash((literals.form, literals.values))
        statement = Statement(*_facts(one.fingerprint, dialect), one.list_size, one.placeholders, token)
        return statement, literals if one.as_written else None


_UNKNOWN: Final = _Reader(*UNION)
_READERS: Final[dict[str | None, _Reader]] = {
    **dict.fromkeys(("mysql", "mariadb"), _Reader(MYSQL)),
    **dict.fromkeys(("postgresql", "cockroachdb"), _Reader(POSTGRESQL)),
    **dict.fromkeys(("mssql", "microsoft.sql_server"), _Reader(MSSQL)),
    "sqlite": _Reader(SQLITE),
    None: _UNKNOWN,
}


def _keep(cache: dict[Any, Any], key: Hashable, value: object) -> None:
    """Remember; a full cache begins anew, which costs less than knowing what was used last."""
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = value


def _short(text: str) -> tuple[int, int]:
    return hash(text), len(text)


def _facts(fingerprint: str, dialect: Dialect) -> Facts:
    return (_cached_facts if len(fingerprint) <= _MAX_CACHED_CHARS else facts)(fingerprint, dialect)


_cached_facts: Final = lru_cache(maxsize=_CACHED)(facts)


class _Literals(msgspec.Struct, frozen=True, gc=False):
    """Literals apart: equal parts mean equal literals.

    Attributes:
        form: Hash of what those of a shape have in common.
        values: The digits of decimal numbers, and what is between single quotes.
        strings: How many of the values are of the second kind.

    """

    form: int
    values: tuple[bytes, ...]
    strings: int


def _literals(written: list[str]) -> _Literals | None:
    form: list[str] = []
    values: list[str] = []
    strings = 0
    for literal in written:
        if literal[-1] == "'" and "\\" not in literal:
            parts = literal.split("'")
            values += parts[1::2]
            form.append("''".join(parts[::2]))
            strings += len(parts) // 2
        elif _DECIMAL.fullmatch(literal):
            values += _RUN.findall(literal)
            form.append(_RUN.sub("0", literal))
        else:
            form.append(literal)
    return _Literals(hash(tuple(form)), tuple([value.encode("utf-8", "surrogatepass") for value in values]), strings)


def _compared(outside: bytes, strings: int, literals: _Literals, dialect: Dialect) -> list[int] | None:
    """Where the digits to compare are; None if the text cannot have a shape, or has nothing that may differ."""
    if literals.strings != strings or not literals.values:
        return None
    text = outside.decode("utf-8", "surrogatepass")
    free: set[int] = set()
    for token in dialect.token.finditer(text, dialect.leading.match(text).end()):  # type: ignore[union-attr] # matches the empty string too
        if token[1][0] in ".0123456789" and _DECIMAL.fullmatch(token[1]):
            free.update(token.start() + run.start() for run in _RUN.finditer(token[1]))
        elif token[1][0] == "$" == token[1][-1]:
            return None
    if len(free) + strings != len(literals.values):
        return None
    return [index for index, run in enumerate(_RUN.finditer(text)) if run.start() not in free]


def _places(raw: bytes, compared: Sequence[int], runs: int) -> tuple[list[_Span], list[_Span], list[int]]:
    """Where the values of the literals are, and the digits to compare, and the order of the values (see `_Shape`)."""
    others = frozenset(compared)
    values: list[_Span] = []
    digits: list[_Span] = []
    order: list[int] = []
    run = -1
    string = runs - 1
    for found in _VALUE.finditer(raw):
        start, end = found.span()
        if raw[start] == _QUOTE:
            string += 1
            values.append((start + 1, end - 1))
            order.append(string)
            continue
        run += 1
        if run in others:
            digits.append((start, end))
        else:
            values.append((start, end))
            order.append(run)
    return values, digits, order


def _at(items: list[_T], places: Iterable[int]) -> tuple[_T, ...]:
    return tuple([items[place] for place in places])


def _taking(spans: Iterable[_Span], size: int) -> _Take:
    """Takes these spans out of any bytes of this size."""
    layout = ""
    position = 0
    for start, end in spans:
        layout += f"{start - position}x{end - start}s"
        position = end
    return Struct(f"{layout}{size - position}x").unpack


def _opaque(fingerprint: str) -> Statement:
    return Statement(
        fingerprint, "", (), control=False, transaction="", list_size=None, placeholders=False, literals=None
    )
