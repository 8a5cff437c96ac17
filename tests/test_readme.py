"""The README says what the code does."""

from __future__ import annotations

from pathlib import Path

from perf_middleware import cli
from perf_middleware.settings import FIELDS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def options_table() -> str:
    rows = [f"| `{name}` | `{field.default!r}` | {field.meaning} |" for name, field in FIELDS.items()]
    return "\n".join(["| option | default | meaning |", "| --- | --- | --- |", *rows])


def test_options_of_the_readme_are_those_of_the_settings():
    start, end = README.index("<!-- options -->"), README.index("<!-- /options -->")

    assert README[start:end].removeprefix("<!-- options -->").strip() == options_table()


def test_commands_of_the_readme_exist():
    for verb in cli.VERBS:
        assert f"`perf-middleware {verb}" in README
