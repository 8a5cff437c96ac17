"""The table of everything that is measured; a variant is measured against the bare application of its own setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """One way of watching one application.

    Attributes:
        name: On the command line.
        label: In the tables.
        tool: "module:function" that wraps the application; None for the bare one.
        door: See `doors`.
        driver: See `databases`.
        texts_differ: Every statement has a text of its own.
        options: Keywords of the function.

    """

    name: str
    label: str
    tool: str | None = None
    door: str = "wsgi"
    driver: str = "pymysql"
    texts_differ: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def setting(self) -> tuple[str, str, bool]:
        """What a variant shares with the bare application it is compared with."""
        return self.door, self.driver, self.texts_differ

    @property
    def bare(self) -> str:
        """Name of that bare application."""
        return BARE[self.setting]


_OURS = "benchmarks.overhead.ours:wrap"

_TABLE = (
    Variant("bare", "bare"),
    Variant("bare-texts", "bare, every text different", texts_differ=True),
    Variant("ours", "perf-middleware", _OURS),
    Variant("ours-no-callers", "callers off", _OURS, options={"capture_callers": False}),
    Variant("ours-no-detectors", "detectors off", _OURS, options={"detectors": []}),
    Variant("ours-sample-0", "sample_rate=0", _OURS, options={"sample_rate": 0.0}),
    Variant("ours-texts", "every text different", _OURS, texts_differ=True),
    Variant("ours-disabled", "enabled=False", _OURS, options={"enabled": False}),
)

VARIANTS = {variant.name: variant for variant in _TABLE}
BARE = {variant.setting: variant.name for variant in _TABLE if variant.tool is None}
