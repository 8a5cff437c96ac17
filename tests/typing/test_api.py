"""The annotations of the public names, as strict as an application may be."""

from __future__ import annotations

from pathlib import Path

from mypy import api


def test_the_public_names_are_typed_as_an_application_uses_them():
    checked = Path(__file__).with_name("api.py")
    out, errors, code = api.run(["--strict", "--follow-imports=silent", str(checked)])
    assert (out.strip(), errors, code) == ("Success: no issues found in 1 source file", "", 0)
