"""How the rows of a batch enter a window: the twin, in Python, of `merge.lua`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perf_middleware.stats.row import OTHER, NamedRow, merge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def merge_rows(known: Mapping[str, bytes], names: int, max_names: int, rows: Sequence[NamedRow]) -> dict[str, bytes]:
    """The packed rows that change.

    Args:
        known: Packed rows of the window; those of the rows' names and of `(other)` suffice.
        names: How many names the window has, `(other)` not counted.
        max_names: When it has that many, a new name is added to `(other)` instead: totals stay exact.
        rows: What to add.

    """
    changed: dict[str, bytes] = {}
    for row in rows:
        name = row.name
        if name != OTHER and name not in changed and name not in known:
            if names >= max_names:
                name = OTHER
            else:
                names += 1
        changed[name] = merge(changed.get(name, known.get(name)), row)
    return changed


def new_texts(known: Mapping[str, object], texts: Mapping[str, str], max_texts: int, count: int) -> dict[str, str]:
    """The texts that may be written: known ones are replaced, new ones only while there is room."""
    room = max(0, max_texts - count)
    fresh = [key for key in texts if key not in known][:room]
    return {key: text for key, text in texts.items() if key in known or key in fresh}
