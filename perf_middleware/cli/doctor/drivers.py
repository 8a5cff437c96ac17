"""Drivers: known statements on a throw-away database, and whether what was counted is what was sent.

Each driver is hooked, used and unhooked by itself. What was sent is counted where it is sent; what stood in the classes
before, and afterwards, is looked at from outside, not asked of the hooks.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perf_middleware import collector, profile
from perf_middleware.cli.doctor.checks import Check, named
from perf_middleware.cli.doctor.sessions import WAYS, system_of
from perf_middleware.doctor import is_ours, others_on, version_of, without_credentials
from perf_middleware.errors import OptionError, faults
from perf_middleware.wsgi import PerfMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perf_middleware.cli.doctor.checks import Outcome
    from perf_middleware.cli.doctor.sessions import Session, Way
    from perf_middleware.record import Profile

AREA: Final = "drivers"

#: What a driver is used for at most, in seconds: a server that accepts and then says nothing is a failed check.
LONGEST_S: Final = 30.0

_HINTS: Final = {
    "mysql": "mysql://USER:PASSWORD@HOST/DATABASE",
    "postgresql": "postgresql://USER:PASSWORD@HOST/DATABASE",
}
_ABSENT: Final = object()

#: Which attribute: its owner's id and name, and its own name.
Key = tuple[int, str, str]
Attributes = dict[Key, Any]


class Counts(msgspec.Struct):
    """What was sent, or what was counted.

    Attributes:
        queries: Statements, without those that steer transactions; an `executemany` is one.
        failed: Those that the database refused.
        sets: Parameter sets of the `executemany`.
        transactions: Begun and ended.

    """

    queries: int = 0
    failed: int = 0
    sets: int = 0
    transactions: int = 0

    def __str__(self) -> str:
        return (
            f"{self.queries} queries, {self.failed} failed, {self.sets} parameter sets, "
            f"{self.transactions} transaction{'s' * (self.transactions != 1)}"
        )


class Visit(msgspec.Struct):
    """What came of hooking one driver, using it, and unhooking it.

    Attributes:
        touched: Places of the attributes that hooking replaced.
        left: Those of them that unhooking did not bring back, but for
        flags: what is true or false, and a library's own to set.
        others: Who else has wrapped these, by place.

    """

    checks: list[Check]
    touched: list[str]
    left: list[str]
    flags: list[str]
    others: dict[str, list[str]]


def visit_all(urls: Sequence[str]) -> list[Check]:
    """Look at every driver known.

    Raises:
        DatabaseError: When one of the URLs is not accepted.

    """
    for url in urls:
        system_of(url)
    before = dict(faults)
    visits = [_visit(name, urls) for name in collector.known()]
    return [
        *(check for visit in visits for check in visit.checks),
        _used(urls, visits),
        _uninstalled(visits),
        _patched(visits),
        _faults(before),
    ]


def _visit(name: str, urls: Sequence[str]) -> Visit:
    try:
        module = collector.hooks(name)[name].target.MODULE
    except OptionError as error:
        return _nothing(name, "failed", str(error))
    if not _is_installed(module):
        return _nothing(name, "skipped", "not installed", module=module)
    try:
        import_module(module)
    except Exception as error:  # noqa: BLE001 - another library's import
        return _nothing(name, "failed", f"{module} cannot be imported: {named(error)}", module=module)
    if collector.hooks(name)[name].patches is not None:
        return _nothing(name, "unknown", "hooked before: look at it in a process of its own", module=module)
    before = _attributes(module)
    ways = [way for way in WAYS if way.driver == name]
    beside = {other for way in ways for other in way.beside}
    collector.install(name, *beside)
    try:
        hooked = _attributes(module)
        checks = _checks(name, module, ways, urls)
    finally:
        collector.uninstall(name, *beside)
    after = _attributes(module)
    touched, left = _changed(before, hooked, after)
    connect = [key for key in before if key[1:] == (module, "connect")]
    others = {_place(key): others_on(before.get(key), module) for key in [*touched, *connect]}
    return Visit(
        checks=checks,
        touched=[_place(key) for key in touched],
        left=[_place(key) for key in left if type(after.get(key)) is not bool],
        flags=[_place(key) for key in left if type(after.get(key)) is bool],
        others={place: tools for place, tools in others.items() if tools},
    )


def _nothing(name: str, outcome: Outcome, detail: str, module: str | None = None) -> Visit:
    facts = {"module": module, "version": None, "status": None, "sent": None, "counted": None}
    return Visit([Check(AREA, name, outcome, detail, facts)], [], [], [], {})


def _is_installed(module: str) -> bool:
    try:
        return module in sys.modules or find_spec(module) is not None
    except (ImportError, ValueError):  # the package that it would be in is not there
        return False


def _checks(name: str, module: str, ways: list[Way], urls: Sequence[str]) -> list[Check]:
    status = collector.status()[name]
    facts = {"module": module, "version": version_of(module), "status": status, "sent": None, "counted": None}
    if status != "hooked":
        detail = f"not hooked: this version lacks what the hooks of {name} replace, so its queries are not seen"
        return [Check(AREA, name, "failed", detail, facts)]
    checks = []
    for way in ways:
        targets = [None] if way.system == "sqlite" else [url for url in urls if system_of(url) == way.system]
        for url in targets:
            title = way.title if url is None or len(targets) == 1 else f"{way.title} {without_credentials(url)}"
            checks.append(_compare(title, way, url, facts))
    if checks:
        return checks
    system = ways[0].system if ways else None
    detail = f"hooked, not used: --database {_HINTS[system]}" if system else "hooked; sends no statements of its own"
    return [Check(AREA, name, "skipped" if system else "ok", detail, facts)]


def _compare(title: str, way: Way, url: str | None, facts: dict[str, Any]) -> Check:
    try:
        sent, seen = asyncio.run(asyncio.wait_for(_use(way, url), LONGEST_S))
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        place = f" {without_credentials(url)}" if url else ""
        return Check(AREA, title, "failed", f"could not be used{place}: {named(error)}", facts)
    counted = Counts(
        queries=seen.query_count,
        failed=sum(query.error is not None for query in seen.queries),
        sets=sum(query.many or 0 for query in seen.queries),
        transactions=len(seen.transactions),
    )
    facts = {**facts, "sent": msgspec.to_builtins(sent), "counted": msgspec.to_builtins(counted)}
    if counted == sent:
        return Check(AREA, title, "ok", str(counted), facts)
    return Check(AREA, title, "failed", f"sent {sent}; counted {counted}", facts)


async def _use(way: Way, url: str | None) -> tuple[Counts, Profile]:
    """Send the statements, and give what was sent and what the block's profile says."""
    session = await way.open(url)
    sent = Counts()
    try:
        with profile("doctor") as seen:
            await _send(session, sent, way.system)
    finally:
        await session.close()
    return sent, seen


async def _send(session: Session, sent: Counts, system: str) -> None:
    """A table of our own that nobody else sees, and that is gone with the connection at the latest."""
    table = f"perf_middleware_doctor_{secrets.token_hex(4)}"

    async def query(text: str, *values: object) -> None:
        sent.queries += 1
        await session.execute(text, *values)

    await query(f"CREATE TEMPORARY TABLE {table} (id INTEGER PRIMARY KEY, name VARCHAR(40))")
    sets = [(number, f"name {number}") for number in range(3)]
    sent.queries += 1
    sent.sets += len(sets)
    await session.many(f"INSERT INTO {table} VALUES ({{0}}, {{1}})", sets)  # noqa: S608 - our own table
    await session.execute("BEGIN")
    await query(f"UPDATE {table} SET name = {{0}} WHERE id = {{1}}", "another", 1)  # noqa: S608
    await session.execute("COMMIT")
    sent.transactions += 1
    for number in range(3):
        await query(f"SELECT name FROM {table} WHERE id = {{0}}", number)  # noqa: S608
    try:
        await query(f"SELECT missing FROM {table}")  # noqa: S608
    except Exception:  # noqa: BLE001 - that column is not there: each driver says so in its own way
        sent.failed += 1
    await query(f"DROP {'TEMPORARY ' * (system == 'mysql')}TABLE {table}")


@contextmanager
def recording() -> Iterator[None]:
    """Have blocks report to nobody but themselves, whatever the environment says."""
    door = PerfMiddleware(
        lambda _environ, _start_response: [],
        enabled=True,
        drivers=[],
        log=False,
        jsonl=None,
        store="memory://doctor",
        sample_rate=1.0,
        max_overhead_percent=0,
        max_queries=2000,
    )
    try:
        yield
    finally:
        if door.pipeline is not None:
            door.pipeline.close()


def _attributes(module: str) -> Attributes:
    """What stands in the package of a module, and in its classes."""
    package = module.partition(".")[0]
    found: Attributes = {}
    for name, loaded in list(sys.modules.items()):
        if name.partition(".")[0] != package:
            continue
        inside = dict(getattr(loaded, "__dict__", {}))
        classes = [value for value in inside.values() if issubclass(type(value), type) and _is_of(value, package)]
        for owner, shown in [(loaded, name), *((kind, f"{kind.__module__}.{kind.__qualname__}") for kind in classes)]:
            for attribute, value in list(vars(owner).items()):
                found[id(owner), shown, attribute] = value
    return found


def _changed(before: Attributes, hooked: Attributes, after: Attributes) -> tuple[list[Key], list[Key]]:
    """The attributes that hooking replaced, and those of them that are not again the object they were.

    Hooking may import a part of a package: in what was not there before, what is ours counts.
    """
    owners = {key[:2] for key in before}
    known = [key for key in {**before, **hooked} if key[:2] in owners and type(hooked.get(key)) is not ModuleType]
    touched = [key for key in known if before.get(key, _ABSENT) is not hooked.get(key, _ABSENT)]
    left = [key for key in touched if before.get(key, _ABSENT) is not after.get(key, _ABSENT)]
    imported = [key for key, value in hooked.items() if key[:2] not in owners and is_ours(value)]
    return touched + imported, left + [key for key in imported if is_ours(after.get(key))]


def _is_of(kind: type, package: str) -> bool:
    return str(kind.__module__).partition(".")[0].lstrip("_") == package.lstrip("_")


def _place(key: Key) -> str:
    return f"{key[1]}.{key[2]}"


def _used(urls: Sequence[str], visits: list[Visit]) -> Check:
    """Somebody has to have been looked at, else all the others say nothing."""
    used = [check.name for visit in visits for check in visit.checks if check.facts["sent"]]
    outcome: Outcome = "ok" if used else "unknown"
    return Check(
        "process",
        "counts",
        outcome,
        f"compared for {len(used)}: {', '.join(used) or 'none'}",
        {"used": used, "urls": len(urls)},
    )


def _uninstalled(visits: list[Visit]) -> Check:
    touched = [place for visit in visits for place in visit.touched]
    left = [place for visit in visits for place in visit.left]
    flags = [place for visit in visits for place in visit.flags]
    facts = {"touched": len(touched), "left": left, "flags": flags}
    if left:
        return Check("process", "uninstall", "failed", f"not as before: {', '.join(left)}", facts)
    if not touched:
        return Check("process", "uninstall", "unknown", "nothing was hooked here", facts)
    detail = f"each of {len(touched) - len(flags)} attributes is the object it was"
    if flags:
        detail += f"; flags that a library set by itself stay set: {', '.join(flags)}"
    return Check("process", "uninstall", "ok", detail, facts)


def _patched(visits: list[Visit]) -> Check:
    others = {place: tools for visit in visits for place, tools in visit.others.items()}
    tools = sorted({tool for found in others.values() for tool in found})
    detail = f"{', '.join(tools)} at {', '.join(others)}" if others else "no other tool on what we hook, nor on connect"
    return Check("process", "patched", "ok", detail, {"others": others})


def _faults(before: dict[str, int]) -> Check:
    new = {place: count - before.get(place, 0) for place, count in faults.items() if count > before.get(place, 0)}
    detail = ", ".join(f"{place} ({count})" for place, count in new.items()) or "none of ours while this ran"
    return Check("process", "faults", "failed" if new else "ok", detail, {"faults": new})
