"""The statements of a profile that ran again and again, with what is known of their values.

The ground on which `n_plus_one` and `duplicate_query` stand, so that both count the same runs: successful ones,
per fingerprint and database, over the whole profile and in any order. A run that only repeats a piece of work
after a failure is not counted, and statements that are no question about data never are.
"""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from perf_middleware.detectors.shape import Shape, bare, shape, words
from perf_middleware.sql import Statement, fingerprint_id, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf_middleware.record import Folded, Profile, Query

#: Schemas and tables in which a database describes itself.
_CATALOGUE: Final = re.compile(
    r"(information_schema|performance_schema|pg_catalog|mysql|sys)\b.+|pg_\w+|sqlite_\w+|sys(objects|columns|indexes)"
    r"|(all|user|dba)_(tables|tab_columns|constraints|cons_columns|indexes|ind_columns|objects|views|sequences)|dual",
    re.IGNORECASE,
)

#: A SELECT that begins so works on sequences, locks or the last write, whatever table stands behind it.
_HOUSEKEEPING: Final = re.compile(
    r"""SELECT\s+(?:(?:CAST|COALESCE|IFNULL)\s*\(\s*)?(?:\w+\s*\.\s*)?(?:next_val\b|(?:
        nextval|currval|setval|lastval
        |last_insert_id|last_insert_rowid|scope_identity|changes|total_changes|row_count|found_rows
        |get_lock|release_lock|release_all_locks|is_free_lock|is_used_lock|pg_(?:try_)?advisory_\w+
        )\s*\()""",
    re.IGNORECASE | re.VERBOSE,
)

#: Without a table: the session, the clock, chance.
_SESSION: Final = re.compile(
    r"""SELECT\s+(?:\w+\s*\.\s*)?(?:
        version|sqlite_version|database|schema|current_\w+|session_user|user|system_user|connection_id|set_config
        |now|sysdate|getdate|\w+_timestamp|localtime\w*|uuid\w*|newid|gen_random_uuid|random|rand|sleep|pg_\w+|txid_\w+
        )\s*\(""",
    re.IGNORECASE | re.VERBOSE,
)

_NO_FUNCTION: Final = "SELECT|FROM|JOIN|ON|USING|WHERE|AND|OR|NOT|EXISTS|IN|ANY|ALL|AS|OVER|UNION|CAST|COALESCE|VALUES"
_CALL: Final = re.compile(rf"\b(?!(?:{_NO_FUNCTION})\b)(\w+)\s*\(", re.IGNORECASE)
_WRITE: Final = re.compile(r"\b(?:INSERT\s+INTO|DELETE\s+FROM|UPDATE\s+[^\s(]+\s+SET|MERGE\s+INTO)\b", re.IGNORECASE)
#: Verbs that never make a finding: cursors, schema changes, locks, and what describes or maintains the database.
_SERVICE_VERBS: Final = words("""
    ALTER ANALYZE ATTACH CHECKPOINT CLOSE COMMENT CREATE DEALLOCATE DECLARE DESC DESCRIBE DETACH DISCARD DROP EXPLAIN
    FETCH FLUSH GRANT KILL LISTEN LOCK MOVE NOTIFY OPEN OPTIMIZE PREPARE REINDEX RENAME REVOKE SHOW TRUNCATE UNLISTEN
    UNLOCK USE VACUUM
""")
_READS: Final = words("SELECT WITH VALUES TABLE")


@dataclass(frozen=True, slots=True)
class Repeat:
    """One fingerprint on one database, run several times.

    Attributes:
        statement: As parsed from the fingerprint.
        shape: What it asks for.
        evidence: Indices of the runs that are kept as rows.
        runs: Those rows.
        count: Runs, with those folded into counters.
        total_ms: Their summed duration, likewise.
        wall_ms: Time with at least one of them running: below `total_ms` where they overlap.
        max_ms: The longest.
        values: How often each value (a token, see `complete`) was asked for, where known.
        unknown: Runs whose values are not known, folded ones among them.

    """

    statement: Statement
    shape: Shape
    evidence: list[int]
    runs: list[Query]
    count: int
    total_ms: float
    wall_ms: float
    max_ms: float
    values: Counter[str]
    unknown: int

    @property
    def caller(self) -> str | None:
        """Where most of the runs came from; the first of them where several are equal."""
        return most_common_caller(self.runs)


def complete(profile: Profile) -> None:
    """Give every query of a saved trace what a live row has: fingerprint, list size, and a token of its values.

    A query with a fingerprint is complete already. For the others the values are the literals in the text and the
    given `params_hash` together, numbered in order of appearance within this record: equal tokens mean equal
    values, and nothing can be read from them. Where the text has placeholders and no `params_hash` came with it,
    the values stay unknown.
    """
    numbers: dict[object, int] = {}
    completed = False
    for query in profile.queries:
        if query.fingerprint is not None or query.sql is None:
            continue
        completed = True
        statement = parse(query.sql, query.system)
        query.fingerprint = statement.fingerprint
        if query.list_size is None:
            query.list_size = statement.list_size
        if query.params_hash is not None or not statement.placeholders:
            values = (statement.literals, query.params_hash)
            query.params_hash = f"values-{numbers.setdefault(values, len(numbers))}"
    if completed:
        profile.__dict__.pop("by_fingerprint", None)


def repeats(profile: Profile, threshold: float) -> Iterator[Repeat]:
    """Every read that ran successfully at least `threshold` times; `profile` must be `complete`."""
    folded = folded_counters(profile)
    failures = [index for index, query in enumerate(profile.queries) if query.error is not None]
    groups = profile.by_fingerprint
    for key in dict.fromkeys((*groups, *folded)):
        indices, beyond = groups.get(key, []), folded.get(key)
        if key[0] is None or len(indices) + (beyond.count if beyond else 0) < threshold:
            continue
        system = profile.queries[indices[0]].system if indices else beyond.system if beyond else None
        statement = parse(key[0], system)
        if not is_question(statement):
            continue
        repeat = _repeat(profile, statement, _without_retries(profile, indices, failures), beyond)
        if repeat.count >= threshold:
            yield repeat


def folded_counters(profile: Profile) -> dict[tuple[str | None, str | None], Folded]:
    """The counters of rows that were not kept, under the same key as `by_fingerprint`."""
    return {(folded.fingerprint, folded.db): folded for folded in profile.folded if folded.fingerprint is not None}


def is_question(statement: Statement) -> bool:
    """Whether it reads data: no write, and none of the statements that are never a finding."""
    fingerprint = statement.fingerprint
    if statement.verb not in _READS or not is_work(statement) or _WRITE.search(fingerprint):
        return False
    return bool(statement.tables) or _CALL.search(fingerprint) is not None


def is_work(statement: Statement) -> bool:
    """Whether a finding may concern it: no session, cursor, lock, sequence, clock, schema change or catalogue."""
    if statement.control or statement.verb in _SERVICE_VERBS or _HOUSEKEEPING.match(statement.fingerprint):
        return False
    if not statement.tables:
        return not _SESSION.match(statement.fingerprint)
    return not all(_CATALOGUE.fullmatch(table.replace('"', "")) for table in statement.tables)


def finding_id(kind: str, fingerprint: str, caller: str | None) -> str:
    """The same over runs, however the line or the count changes."""
    place, _, function = (caller or "").partition(" in ")
    return fingerprint_id("\n".join((kind, fingerprint, place.rpartition(":")[0] or place, function)))


def share(profile: Profile, time_ms: float) -> float:
    """How much of the profile's duration that is; before its end is known, of the time until its last query's end."""
    duration_ms = profile.duration_ms
    if duration_ms <= 0 and profile.queries:
        duration_ms = profile.queries[-1].start_ms + profile.queries[-1].duration_ms
    return time_ms / duration_ms if duration_ms > 0 else 0.0


def wall_ms(runs: list[Query]) -> float:
    """Time with at least one of them running: the union of their intervals."""
    covered_until_ms, union_ms = -math.inf, 0.0
    for start_ms, duration_ms in sorted((query.start_ms, query.duration_ms) for query in runs):
        end_ms = start_ms + duration_ms
        if end_ms > covered_until_ms:
            union_ms += min(duration_ms, end_ms - covered_until_ms)
            covered_until_ms = end_ms
    return union_ms


def most_common_caller(runs: list[Query]) -> str | None:
    """Where most of them came from; None when nobody knows."""
    callers = Counter(query.caller for query in runs if query.caller is not None)
    return max(callers, key=callers.__getitem__, default=None)


def at(caller: str | None) -> str:
    """The end of a sentence that says where."""
    return f" at {caller}" if caller else ""


def table(statement: Statement) -> str:
    """What it is about, for a title: its first table, or the function it calls."""
    if statement.tables:
        return bare(statement.tables[0])
    called = _CALL.search(statement.fingerprint)
    return called[1] if called else statement.verb


def _repeat(profile: Profile, statement: Statement, evidence: list[int], beyond: Folded | None) -> Repeat:
    runs = [profile.queries[index] for index in evidence]
    values = Counter(query.params_hash for query in runs if query.params_hash is not None)
    unknown = len(runs) - values.total()
    if unknown and "?" not in statement.fingerprint:  # a text without any value has one: itself
        values[""] += unknown
        unknown = 0
    beyond_ms = beyond.duration_ms if beyond else 0.0
    beyond_count = max(beyond.count - beyond.errors, 0) if beyond else 0
    return Repeat(
        statement=statement,
        shape=shape(statement.fingerprint),
        evidence=evidence,
        runs=runs,
        count=len(runs) + beyond_count,
        total_ms=sum(query.duration_ms for query in runs) + beyond_ms,
        wall_ms=wall_ms(runs) + beyond_ms,
        max_ms=max([query.duration_ms for query in runs] + ([beyond.max_ms] if beyond else []), default=0.0),
        values=values,
        unknown=unknown + beyond_count,
    )


def _without_retries(profile: Profile, indices: list[int], failures: list[int]) -> list[int]:
    """Leave out failed runs, and runs that a failure since the last one (of this or any statement) made necessary.

    A block of work that is tried again asks the same questions again, with the same values; other values show
    that it went on instead.
    """
    if not failures:
        return indices
    kept: list[int] = []
    for index in indices:
        query = profile.queries[index]
        if query.error is not None:
            continue
        if kept and bisect(failures, index) != bisect(failures, kept[-1]):
            before = profile.queries[kept[-1]].params_hash
            if before is None or query.params_hash is None or before == query.params_hash:
                kept[-1] = index
                continue
        kept.append(index)
    return kept
