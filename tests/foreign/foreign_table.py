"""The table of the foreign suites that a test run ends with."""

from __future__ import annotations

from operator import itemgetter

from rich.console import Console
from rich.table import Table

COLUMNS = ("suite", "version", "tests", "newly failing", "requests seen", "blocks seen", "queries seen", "unattributed")

NOTES = {
    "newly_failing": "newly failing",
    "exceptions": "not judged",
    "by_headers": 'judged with headers="off"',
    "failing_bare": "failing without us too",
    "flaky": "passed the second time, or failed without us then",
}


def write(reporter):
    """Write the verdicts that were recorded, if any, and name the tests they are about."""
    reports = [*reporter.stats.get("passed", ()), *reporter.stats.get("failed", ())]
    verdicts = [value for report in reports for name, value in report.user_properties if name == "foreign"]
    if not verdicts:
        return
    verdicts.sort(key=itemgetter("suite"))
    reporter.section("foreign suites, with us on")
    console = Console(file=reporter._tw._file, width=120)
    console.print(_table(verdicts))
    for note, meaning in NOTES.items():
        for verdict in verdicts:
            for reason, tests in _by_reason(verdict[note]).items():
                about = f"{verdict['suite']}, {meaning}{reason}:"
                console.print("\n    ".join([about, *tests]), markup=False, highlight=False, soft_wrap=True)


def _by_reason(tests):
    """Tests by why they are named; those of a mere list share having none."""
    reasons = {}
    for test in tests:
        reason = f", {tests[test]}" if isinstance(tests, dict) else ""
        reasons.setdefault(reason, []).append(test)
    return reasons


def _table(verdicts):
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for verdict in verdicts:
        seen = (f"{verdict['seen'].get(kind, 0):,}" for kind in ("request", "block", "query", "unattributed"))
        newly = str(len(verdict["newly_failing"]) or "none")
        table.add_row(verdict["suite"], verdict["version"], f"{verdict['tests']:,}", newly, *seen)
    return table
