from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from perf_middleware import cli
from perf_middleware.cli import main
from perf_middleware.cli.analyze import PROGRESS_MIN_BYTES
from perf_middleware.record import Profile, Query, to_json

COMMAND = [sys.executable, "-m", "perf_middleware"]


def line(identity, queries=(), **facts):
    return to_json(Profile(id=identity, name="GET /orders", queries=list(queries), **facts)) + b"\n"


def loop(count=9):
    return [
        Query(
            sql=f"SELECT name FROM authors WHERE id = {number} AND secret = 'canary'",
            start_ms=number * 1.0,
            duration_ms=0.5,
            caller="shop/views.py:42 in order_list",
        )
        for number in range(count)
    ]


SLOW = [Query(sql="SELECT id FROM events WHERE token = 'canary'", duration_ms=1200.0)]


@pytest.fixture
def write(tmp_path):
    def to_file(*lines):
        path = tmp_path / "profiles.jsonl"
        path.write_bytes(b"".join(lines))
        return str(path)

    return to_file


# --------------------------------------------------------------------------------------------------- user mistakes


def test_no_verb_says_how_it_is_used(capsys):
    assert main([]) == 2
    assert "usage: perf-middleware" in capsys.readouterr().err


def test_an_unknown_verb_names_the_nearest(capsys):
    assert main(["analyse", "x"]) == 2
    error = capsys.readouterr().err
    assert "no verb 'analyse'" in error
    assert "did you mean analyze?" in error


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n    {verb} " in printed for verb in cli.VERBS)


@pytest.mark.parametrize(
    "arguments", [["analyze"], ["analyze", "x", "--format", "xml"], ["analyze", "x", "--fail-on", "z"]]
)
def test_a_wrong_argument_is_2_and_says_what_is_accepted(capsys, arguments):
    assert main(arguments) == 2
    assert "usage: perf-middleware analyze" in capsys.readouterr().err


def test_a_missing_file_is_named_with_the_remedy(capsys, tmp_path):
    missing = str(tmp_path / "none.jsonl")
    assert main(["analyze", missing]) == 2
    assert capsys.readouterr().err == (
        f"perf-middleware: cannot read {missing}: No such file or directory; "
        "give a file of profile JSONL, or - for stdin\n"
    )


def test_a_folder_is_no_file(capsys, tmp_path):
    assert main(["analyze", str(tmp_path)]) == 2
    assert "Is a directory" in capsys.readouterr().err


def test_text_without_rich_names_the_extra_and_json_does_not_need_it(capsys, monkeypatch, write):
    for module in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "rich", None)
    path = write(line("a"))
    assert main(["analyze", path]) == 2
    assert 'pip install "perf-middleware[cli]"' in capsys.readouterr().err
    assert main(["analyze", path, "--format", "json"]) == 0


def test_analyze_imports_no_server_and_no_rich_for_json(write):
    code = (
        "import sys; from perf_middleware.cli import main; code = main(sys.argv[1:]);"
        "print([m for m in ('rich', 'uvicorn', 'werkzeug', 'starlette', 'redis') if m in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "analyze", write(line("a")), "--format", "json"], capture_output=True, check=True
    )
    assert ran.stderr.decode().strip() == "[]"


# ------------------------------------------------------------------------------------------------------------ JSON


def test_json_has_a_line_for_every_record_in_their_order(capsys, write):
    assert main(["analyze", write(line("b", loop()), line("a"), line("c", SLOW)), "--format", "json"]) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [(row["id"], [finding["kind"] for finding in row["findings"]]) for row in rows] == [
        ("b", ["n_plus_one"]),
        ("a", []),
        ("c", ["slow_query"]),
    ]


def test_lines_that_are_no_record_are_named_by_number_and_the_rest_is_read(capsys, write):
    bad = [b'{"queries": [{"rows": "canary"}]}\n', b"canary\n", b"[1]\n", b'{"findings": [{"severity": "canary"}]}\n']
    path = write(line("a"), *bad, b"\n", line("b", loop()))
    assert main(["analyze", path, "--format", "json"]) == 1
    printed = capsys.readouterr()
    assert [json.loads(row)["id"] for row in printed.out.splitlines()] == ["a", "b"]
    assert [f"profiles.jsonl:{number}: " in printed.err for number in range(1, 8)] == [False] + [True] * 4 + [False] * 2
    assert "4 of 6 lines unreadable" in printed.err
    assert "canary" not in printed.err + printed.out


def test_json_comes_line_by_line_while_the_input_is_still_open():
    with subprocess.Popen(
        [*COMMAND, "analyze", "-", "--format", "json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        for identity in ("a", "b"):
            process.stdin.write(line(identity))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == identity
        process.stdin.close()
        assert process.wait() == 0


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_terminal_that_is_not_utf8_is_no_traceback(write, form):
    path = write(line("é", [Query(sql="SELECT é FROM t", duration_ms=900.0)]))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    ran = subprocess.run(
        [*COMMAND, "analyze", path, "--format", form], env=environment, capture_output=True, check=True
    )
    assert ran.stderr == b""
    assert ("SELECT é" if form == "json" else r"SELECT \xe9").encode() in ran.stdout


def test_a_reader_that_goes_away_is_no_traceback(write):
    path = write(*(line(f"profile-{number}", loop()) for number in range(2000)))
    with subprocess.Popen(
        [*COMMAND, "analyze", path, "--format", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


# ------------------------------------------------------------------------------------------------------------ text


def text_of(capsys, monkeypatch, path, *more, width="120"):
    monkeypatch.setenv("COLUMNS", width)
    code = main(["analyze", path, *more])
    return code, capsys.readouterr().out


def test_an_empty_file_is_fine(capsys, monkeypatch, write):
    assert text_of(capsys, monkeypatch, write()) == (0, "0 profiles, 0 queries, 0 findings\n")


def test_clean_profiles_are_only_counted(capsys, monkeypatch, write):
    code, printed = text_of(capsys, monkeypatch, write(line("a", loop(2)), line("b")))
    assert (code, printed) == (0, "2 profiles, 2 queries, 0 findings\n")


def test_findings_alone_are_no_failure_and_have_place_and_remedy(capsys, monkeypatch, write):
    code, printed = text_of(
        capsys, monkeypatch, write(line("a", loop(), duration_ms=80.0), line("b", SLOW)), width="200"
    )
    assert code == 0
    assert "GET /orders  9 queries, 80.0 ms  a\n" in printed
    assert " low      n_plus_one: 9 times authors by id at shop/views.py:42 in order_list" in printed
    assert "SELECT ... FROM authors WHERE id IN (...)" in printed
    assert "critical slow_query: events took 1200 ms" in printed
    assert printed.endswith("2 profiles, 10 queries, 2 findings (1 critical, 1 low)\n")
    assert "canary" not in printed


def test_unreadable_lines_are_in_the_summary(capsys, monkeypatch, write):
    code, printed = text_of(capsys, monkeypatch, write(b"{\n", line("a")))
    assert (code, printed) == (1, "1 profile, 0 queries, 0 findings, 1 unreadable line\n")


def test_standard_input_is_read(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{\n" + line("a", loop()))))
    code, printed = text_of(capsys, monkeypatch, "-")
    assert code == 1
    assert "1 profile, 9 queries, 1 finding" in printed


@pytest.mark.parametrize(("severity", "code"), [("low", 1), ("medium", 1), ("high", 1), ("critical", 0)])
@pytest.mark.parametrize("form", ["text", "json"])
def test_fail_on_a_severity_or_above(capsys, write, severity, code, form):
    path = write(line("a", SLOW, duration_ms=10_000.0))
    assert main(["analyze", path, "--fail-on", severity, "--format", form]) == code


def test_a_record_cannot_steer_the_terminal(capsys, monkeypatch, write):
    queries = [Query(fingerprint="SELECT \x1b[2J FROM t", duration_ms=900.0, caller="a\x1b[31m.py:1 in [bold]f[/bold]")]
    path = write(to_json(Profile(id="\x1b]0;x\x07", name="GET [red]\x1b[0m", queries=queries)) + b"\n")
    _, printed = text_of(capsys, monkeypatch, path, width="200")
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "GET [red]" in printed
    assert "[bold]f[/bold]" in printed


def test_a_large_file_has_a_bar_on_the_terminal_and_the_same_output(capsys, monkeypatch, write):
    rows = [line(str(number), loop(), service="x" * 4000) for number in range(1 + PROGRESS_MIN_BYTES // 4000)]
    path = write(*rows)
    assert main(["analyze", path, "--format", "json"]) == 0
    without = capsys.readouterr()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["analyze", path, "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert without.err == ""
    assert "analyze" in printed.err
    assert printed.out == without.out
