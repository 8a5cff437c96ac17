"""Whether a driver's hook has noted the statement that a layer handed down; found by looking, not by asking.

A row that was noted since then is the driver's. So it does not matter which drivers there are, whether they were hooked
before the layer or after it, or whether this one connection was opened too early to be seen.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from perf_middleware.collector.context import unattributed
from perf_middleware.collector.noting import note_relation
from perf_middleware.collector.rows import END_S, START_S, TARGET, TEXT, WIDTH, Target

if TYPE_CHECKING:
    from perf_middleware.collector.context import Capture
    from perf_middleware.collector.rows import Facts

#: When a statement was handed down, in `perf_counter_ns`, and how many facts there were then.
Begun: TypeAlias = "tuple[int, int]"

#: Systems that drivers know by another's name.
_FAMILY: Final = {"mariadb": "mysql", "cockroachdb": "postgresql", "aws.redshift": "postgresql"}


class Layered(Target):
    """A connection as a layer sees it.

    Attributes:
        driver: The same connection as its driver noted it last; None as long as it did not.
        alone: The last statement was noted by the layer, because no driver had done so.
        inside: It left a transaction open, whose end is the layer's to note.

    """

    __slots__ = ("alone", "driver", "inside")

    def __init__(self, system: str, db: str | None, *, awaited: bool = False) -> None:
        super().__init__(system, db, awaited=awaited)
        self.driver: Target | None = None
        self.alone = False
        self.inside = False

    @property
    def known(self) -> Target:
        """What the layer's rows are noted of: the driver's, where that one notes others of the same transaction."""
        return self.driver or self


def begin(capture: Capture | None) -> Begun | None:
    """To be called before a statement is handed down; None where no profile is open."""
    facts = None if capture is None else capture.facts
    return None if facts is None else (perf_counter_ns(), len(facts))


def noted_below(capture: Capture, target: Layered, begun: Begun, text: Any) -> bool:
    """Whether a driver has noted the statement; where not, the layer has to."""
    facts = capture.facts
    if facts is None:
        return True
    start_ns, length = begun
    driver = _driver(facts, start_ns / 1e9, target, text)
    if driver is not None:
        target.driver = driver
        target.alone = target.inside = False
    elif len(facts) >= length or target.alone:  # else it was folded into counters as soon as it was noted
        target.alone = True
    return not target.alone


def stray(target: Layered | None) -> None:
    """Count a statement outside every profile, unless its driver's hook does, or nobody has found out yet."""
    if target is not None and target.alone:
        unattributed.add()


def relate(capture: Capture, begun: Begun, relation: str) -> None:
    """Have the statement known as what loads `relation`."""
    if _last(capture.facts, begun) is not None:
        note_relation(capture, relation)


def _driver(facts: Facts, start_s: float, target: Layered, text: Any) -> Target | None:
    """Whose row it is: the same connection's as last time, or one with the same text, or one of the same system.

    Drivers are often given another text than the layer was, so that one of the same system has to do; beside others of
    another thread's it would be the newest.
    """
    session = None if target.driver is None else target.driver.session
    family = _FAMILY.get(target.system, target.system)
    other: Target | None = None
    place = len(facts) - WIDTH
    while place >= 0 and facts[place + END_S] >= start_s:
        noted: Target = facts[place + TARGET]
        if facts[place + START_S] >= start_s and not isinstance(noted, Layered):
            if noted.session is session or facts[place + TEXT] == text:
                return noted
            if other is None and _FAMILY.get(noted.system, noted.system) == family:
                other = noted
        place -= WIDTH
    return other


def _last(facts: Facts | None, begun: Begun) -> int | None:
    """Where the row that was noted last begins, if it was noted since then."""
    place = len(facts) - WIDTH if facts else -1
    return place if facts and facts[place + START_S] >= begun[0] / 1e9 else None
