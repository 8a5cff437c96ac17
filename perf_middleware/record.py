"""The record: one profile of a request, job or block, and the rows it holds.

Everything else in this package makes, reads or stores these four structures. "Profile JSONL" is one
`Profile` a line; the same line is written by the `jsonl` sink, read by `perf-middleware analyze`, and
used by the tests. All durations are milliseconds on a monotonic clock, counted from the profile's start.
"""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from functools import cached_property
from operator import add, le
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import msgspec

from perf_middleware.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

SCHEMA = 1

Severity = Literal["low", "medium", "high", "critical"]
Confidence = Literal["low", "medium", "high"]
Shed = Literal["callers", "rows"]

SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")


class Query(msgspec.Struct, gc=False):
    """One statement the application gave to a driver.

    Attributes:
        sql: Text as given to the driver; written only with `capture_sql`.
        fingerprint: The text without its literals (see `perf_middleware.sql`).
        start_ms: From the profile's start.
        duration_ms: Time inside the driver's execute.
        fetch_ms: Time fetching rows after execute; None where only a per-row hook could tell.
        wait_ms: Time waiting for a connection from a pool; None where there is no pool hook.
        rows: Rows returned or affected; None where the driver does not say.
        many: Parameter sets of an `executemany`.
        wire: Statements really sent to the server; 0 when it failed before anything was sent.
        params_hash: Opaque token: equal tokens mean equal parameters within this fingerprint, in this record.
        list_size: Values in its longest IN list, or rows in its VALUES list; the fingerprint collapses both.
        db: Which database or connection target, without credentials.
        system: OpenTelemetry's `db.system.name`: mysql, mariadb, postgresql, sqlite, ...
        caller: First frame of the application, "shop/views.py:42 in order_list".
        relation: What of the object-relational mapper's it loads, "Order.customer"; None where no layer told.
        error: Exception class and errno or SQLSTATE; never the driver's message.
        transaction: Ordinal into the profile's transactions.
        phase: "before" the first byte, while the body did "stream", or "background" after the last byte.
        blocking: Ran on an event loop's thread.

    """

    sql: str | None = None
    fingerprint: str | None = None
    start_ms: float = 0.0
    duration_ms: float = 0.0
    fetch_ms: float | None = None
    wait_ms: float | None = None
    rows: int | None = None
    many: int | None = None
    wire: int = 1
    params_hash: str | None = None
    list_size: int | None = None
    db: str | None = None
    system: str | None = None
    caller: str | None = None
    relation: str | None = None
    error: str | None = None
    transaction: int | None = None
    phase: str = "before"
    blocking: bool = False


class Transaction(msgspec.Struct, gc=False):
    """A database transaction that was open during the profile.

    Attributes:
        start_ms: When its first statement began.
        duration_ms: Until it ended, or until the profile did.
        busy_ms: Time inside statements.
        db: As on the query.
        outcome: How it ended; "open" when it outlived the profile.

    """

    start_ms: float = 0.0
    duration_ms: float = 0.0
    busy_ms: float = 0.0
    db: str | None = None
    outcome: Literal["commit", "rollback", "open"] = "open"


class Finding(msgspec.Struct):
    """Something worth changing, with the evidence for it.

    Attributes:
        finding_id: Stable over runs: made of kind, fingerprint, file and function; no line and no count.
        kind: The detector's name.
        severity: From the table in docs/findings.md.
        confidence: high when the values are known to differ (or to be equal), lower when inferred.
        threshold: Which threshold fired, and at what value: "n_plus_one: 27 >= 5".
        title: One sentence.
        fingerprint: Of the statement concerned.
        tables: It reads or writes.
        caller: Where the most of it came from.
        count: Statements concerned.
        total_ms: Their summed duration.
        wasted_ms: Measured upper bound of what a fix can save; formula in docs/findings.md.
        evidence: Indices into the profile's queries.
        recommendation: What to change: table, column, caller and the fix.

    """

    finding_id: str
    kind: str
    severity: Severity
    confidence: Confidence
    threshold: str
    title: str
    fingerprint: str
    tables: list[str] = []
    caller: str | None = None
    count: int = 0
    total_ms: float = 0.0
    wasted_ms: float = 0.0
    evidence: list[int] = []
    recommendation: str = ""


class Folded(msgspec.Struct, gc=False):
    """Exact counters of the queries of one fingerprint that were not kept as rows.

    Attributes:
        fingerprint: None where the rows of an unsampled profile were counted without looking at the text.
        count: Queries.
        wire: Statements really sent.
        errors: Queries that failed.
        duration_ms: Summed.
        max_ms: The longest.

    """

    fingerprint: str | None = None
    db: str | None = None
    system: str | None = None
    count: int = 0
    wire: int = 0
    errors: int = 0
    duration_ms: float = 0.0
    max_ms: float = 0.0


#: count, wire, errors, total_ms, max_ms
Totals: TypeAlias = tuple[int, int, int, float, float]


class Runs(Protocol):
    """The queries of one fingerprint on one database, in order; each fact of theirs is a column.

    A record has them from its rows (`QueryRuns`). Of a profile under way the collector has them without there being
    any rows: what nobody asks for is not made.
    """

    fingerprint: str | None
    db: str | None
    system: str | None

    def totals(self) -> Totals:
        """Their number, statements sent, failures, summed and longest duration."""
        ...

    @property
    def caller(self) -> str | None:
        """Where the first of them came from."""
        ...

    @property
    def relation(self) -> str | None:
        """As `Query.relation` of the first of them."""
        ...

    def indices(self) -> list[int]:
        """Their places among the profile's queries."""
        ...

    def wall_ms(self) -> float:
        """Time with at least one of them running: below the summed one where they overlap."""
        ...

    def starts_ms(self) -> list[float]:
        """When they began, from the profile's start."""
        ...

    def durations_ms(self) -> list[float]:
        """Time inside execute."""
        ...

    def errors(self) -> list[str | None]:
        """As `Query.error`."""
        ...

    def varied(self, least: int) -> bool:
        """Whether all their values are known, and at least so many differ; False may also mean that it was not seen."""
        ...

    def values(self) -> list[Hashable]:
        """Stands for their values: equal where those are equal, None where they are unknown."""
        ...

    def callers(self) -> list[str | None]:
        """As `Query.caller`."""
        ...

    def rows(self) -> list[int | None]:
        """As `Query.rows`."""
        ...

    def list_sizes(self) -> list[int | None]:
        """As `Query.list_size`; no column at all where none of them has a list."""
        ...

    def many(self) -> list[int | None]:
        """As `Query.many`; no column at all where none of them has several parameter sets."""
        ...

    def blocking_ms(self) -> float:
        """Summed duration of those that ran on an event loop's thread."""
        ...

    def texts(self) -> list[str | None]:
        """As `Query.sql`; no column at all where none of them is kept."""
        ...


class Rows(Protocol):
    """What a record holds beside its sums; a `Profile` that was read from a file is one itself."""

    @property
    def queries(self) -> list[Query]:
        """All that are kept."""
        ...

    @property
    def transactions(self) -> list[Transaction]:
        """All that were seen."""
        ...


def union_ms(starts_ms: list[float], durations_ms: list[float]) -> float:
    """Time with at least one of some runs running: the union of their intervals."""
    ends_ms = list(map(add, starts_ms, durations_ms))
    if all(map(le, ends_ms, starts_ms[1:])):  # one after the other
        return sum(durations_ms)
    covered_until_ms, covered_ms = -math.inf, 0.0
    for start_ms, end_ms in sorted(zip(starts_ms, ends_ms, strict=True)):
        if end_ms > covered_until_ms:
            covered_ms += end_ms - max(start_ms, covered_until_ms)
            covered_until_ms = end_ms
    return covered_ms


class QueryRuns:
    """`Runs` of a record's rows."""

    def __init__(self, queries: list[Query], indices: list[int]) -> None:
        self._indices = indices
        self._queries = [queries[index] for index in indices]
        first = self._queries[0] if indices else Query()
        self.fingerprint, self.db, self.system, self.caller = first.fingerprint, first.db, first.system, first.caller
        self.relation = first.relation

    def totals(self) -> Totals:
        """As in `Runs`."""
        durations_ms = self.durations_ms()
        wire = sum(query.wire for query in self._queries)
        errors = sum(query.error is not None for query in self._queries)
        return len(durations_ms), wire, errors, sum(durations_ms), max(durations_ms, default=0.0)

    def indices(self) -> list[int]:
        """Their places among the profile's queries."""
        return self._indices

    def wall_ms(self) -> float:
        """As in `Runs`."""
        return union_ms(self.starts_ms(), self.durations_ms())

    def starts_ms(self) -> list[float]:
        """When they began."""
        return [query.start_ms for query in self._queries]

    def durations_ms(self) -> list[float]:
        """Time inside execute."""
        return [query.duration_ms for query in self._queries]

    def errors(self) -> list[str | None]:
        """Class and code of those that failed."""
        return [query.error for query in self._queries]

    def varied(self, least: int) -> bool:  # noqa: ARG002 - as in `Runs`
        """Not seen without looking at all of them."""
        return False

    def values(self) -> list[Hashable]:
        """Tokens of their values."""
        return [query.params_hash for query in self._queries]

    def callers(self) -> list[str | None]:
        """Where they came from."""
        return [query.caller for query in self._queries]

    def rows(self) -> list[int | None]:
        """Rows read or changed."""
        return [query.rows for query in self._queries]

    def list_sizes(self) -> list[int | None]:
        """Values in their longest list."""
        return [query.list_size for query in self._queries]

    def many(self) -> list[int | None]:
        """Parameter sets of an `executemany`."""
        return [query.many for query in self._queries]

    def blocking_ms(self) -> float:
        """As in `Runs`."""
        return sum([query.duration_ms for query in self._queries if query.blocking])

    def texts(self) -> list[str | None]:
        """What was given to the driver."""
        return [query.sql for query in self._queries]


class Profile(msgspec.Struct, dict=True, weakref=True):
    """One request, job or `profile("name")` block.

    Attributes:
        kind: "request", "job" or "block".
        id: Of this profile; the client's own where it sent an acceptable one.
        name: Low-cardinality: "GET /orders/{id}", or the block's name.
        route: The framework's template; None if unknown; never the raw path.
        error: Class of the exception that left the application.
        started_at: UTC, RFC 3339; the only wall-clock value in the record.
        duration_ms: Until the last byte (or the end of the block).
        first_byte_ms: Until the response began.
        query_count: Exact, also when rows were not kept.
        db_ms: Wall time with at least one query running (union of the intervals).
        db_sum_ms: Sum of the queries' durations; above db_ms when they overlap.
        fetch_ms: Sum over the queries; None where no query told.
        wait_ms: Likewise.
        trace_id: From the caller's `traceparent`, as is `span_id`.
        parent_id: The enclosing profile's id.
        weight: 1/p of what sampling kept.
        truncated: Finished early by `max_duration_s`, or rows were folded into counters.
        own_ms: What this package took inside the profile, timed at its beginning and end.
        shed: What the overhead guard left out, which would be there otherwise: "callers", or "rows" and all that comes
            of them.
        folded: Counters of the queries beyond `max_queries` (or of all, when not sampled).
        by_verb: Queries by verb ("SELECT": 12), and
        by_table: by table read or written; filled for blocks and jobs.
        tags: What the application set with `set`; only numbers and booleans are ever written.

    """

    schema: int = SCHEMA
    id: str = ""
    kind: str = "request"
    name: str = ""
    service: str | None = None
    method: str | None = None
    route: str | None = None
    status: int | None = None
    error: str | None = None
    started_at: str | None = None
    duration_ms: float = 0.0
    first_byte_ms: float | None = None
    query_count: int = 0
    db_ms: float = 0.0
    db_sum_ms: float = 0.0
    fetch_ms: float | None = None
    wait_ms: float | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_id: str | None = None
    weight: float = 1.0
    truncated: bool = False
    own_ms: float | None = None
    shed: Shed | None = None
    queries: list[Query] = []
    folded: list[Folded] = []
    transactions: list[Transaction] = []
    findings: list[Finding] = []
    by_verb: dict[str, int] = {}
    by_table: dict[str, int] = {}
    tags: dict[str, Any] = {}

    def set(self, name: str, value: float | str | bool | None) -> None:  # noqa: FBT001 - a tag may be one
        """Tag the profile: `set("items", 120)` lets a reader see the queries per item."""
        self.tags[name] = value

    def written_tags(self) -> dict[str, Any]:
        """The tags that may leave the process: finite numbers and booleans; texts may be anybody's name."""
        return {
            name: value
            for name, value in self.tags.items()
            if isinstance(value, (bool, int, float)) and math.isfinite(value)
        }

    def slowest(self, count: int = 5) -> list[Query]:
        """The longest queries, longest first."""
        return sorted(self.queries, key=lambda query: query.duration_ms, reverse=True)[:count]

    @cached_property
    def by_fingerprint(self) -> dict[tuple[str | None, str | None], Runs]:
        """The queries grouped by (fingerprint, db), in order of first appearance.

        Made once, when the rows are complete: the detectors and the rolling stats both need it.
        """
        groups: dict[tuple[str | None, str | None], list[int]] = {}
        for index, query in enumerate(self.queries):
            groups.setdefault((query.fingerprint, query.db), []).append(index)
        return {key: QueryRuns(self.queries, indices) for key, indices in groups.items()}

    @property
    def rows(self) -> Rows:
        """The queries and transactions: while a live profile is looked at they are made by asking, each time."""
        rows: Rows = self.__dict__.get("live", self)
        return rows


def to_json(profile: Profile) -> bytes:
    """One line of profile JSONL, without its newline; text tags stay in the process."""
    if profile.tags:
        profile = msgspec.structs.replace(profile, tags=profile.written_tags())
    return msgspec.json.encode(profile)


def from_json(line: bytes | str) -> Profile:
    """Read one line of profile JSONL: null and absent mean the same, unknown keys are ignored.

    Raises:
        RecordError: When the line is not JSON, or not a profile; the message says where and what is accepted.

    """
    try:
        profile = msgspec.convert(_without_nulls(msgspec.json.decode(line)), Profile, strict=False)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise RecordError(str(error)) from None
    if profile.schema != SCHEMA:
        raise RecordError(f"schema {profile.schema} is not one this version reads; it reads schema {SCHEMA}")
    return profile


def read_jsonl(lines: Iterable[bytes]) -> Iterator[tuple[int, Profile | RecordError]]:
    """Each line that is not blank as (its number from 1, the profile or the error that says what is wrong)."""
    for number, text in enumerate(lines, 1):
        line = text.removeprefix(BOM_UTF8) if number == 1 else text
        if not line.strip():
            continue
        try:
            yield number, from_json(line)
        except RecordError as error:
            yield number, error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
