"""Arithmetic, judgement and command line of `benchmarks/overhead`; what it measures is not asserted here."""

from __future__ import annotations

from importlib.util import find_spec

import msgspec
import pytest

from benchmarks.overhead import __main__ as command
from benchmarks.overhead import callgrind, plot, show
from benchmarks.overhead.cost import Cost, cost, median_cost
from benchmarks.overhead.documents import between
from benchmarks.overhead.importing import STAGES
from benchmarks.overhead.plan import plan
from benchmarks.overhead.processes import run_python, run_worker
from benchmarks.overhead.promises import PER_QUERY, promises
from benchmarks.overhead.results import Import, Measured, Memory, Results, Run
from benchmarks.overhead.tables import against_peers, tables
from benchmarks.overhead.variants import VARIANTS

BARE = {0: 100.0, 10: 200.0, 60: 700.0}


def results(**measured):
    run = Run(date="2026-10-01", commit="abc", python="CPython 3", processor="P", cores=2, versions={"pymysql": "1"})
    of = {name.replace("_", "-"): one for name, one in measured.items()}
    return Results(run, of, promises=promises(of))


def counted(per_query, per_request=0.0, with_finding=0.0):
    return Measured(sees=10, instructions=Cost(per_query, per_request, with_finding))


# Arithmetic


def test_an_application_watched_by_nobody_costs_nothing():
    assert cost(BARE, BARE) == Cost(0.0, 0.0, 0.0)


def test_a_query_costs_the_slope_and_a_request_what_is_left():
    watched = {0: BARE[0] + 7, 10: BARE[10] + 30 + 4 * 10, 60: BARE[60] + 30 + 4 * 60}

    assert cost(watched, BARE) == Cost(per_query=4.0, per_request=7.0, with_finding=30.0)


def test_each_round_is_paired_with_its_own_bare_application():
    slow = {queries: 10 * us for queries, us in BARE.items()}
    rounds = [({queries: us + queries for queries, us in bare.items()}, bare) for bare in (BARE, slow, BARE)]

    assert median_cost(rounds) == Cost(1.0, 0.0, 0.0)


def test_one_disturbed_round_of_three_moves_nothing():
    disturbed = {queries: us * 50 for queries, us in BARE.items()}

    assert median_cost([(BARE, BARE), (disturbed, BARE), (BARE, BARE)]) == Cost(0.0, 0.0, 0.0)


def test_what_both_batches_share_is_not_counted():
    short, long = callgrind.INSTRUCTION_BATCHES
    marks = []
    for each in (3, 5, 8):
        for requests in (short, long):
            marks += [10**9, 4000 + each * requests, 900 + 2 * each * requests]

    assert callgrind.per_request(marks, 1) == {0: 3, 10: 5, 60: 8}
    assert callgrind.per_request(marks, 2) == {0: 6, 10: 10, 60: 16}


# Variants


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_every_variant_has_a_tool_that_exists_and_a_bare_application_of_its_setting(variant):
    bare = VARIANTS[variant.bare]

    assert bare.tool is None
    assert bare.setting == variant.setting
    assert variant.tool is None or find_spec(variant.tool.partition(":")[0])


@pytest.mark.parametrize("name", ["floor-full", "ours", "ours-asgi", "ours-flask", "otel", "ours-sqlite3"])
def test_a_tool_that_is_measured_sees_every_query(name):
    assert run_worker("sees", name) == 10


def test_a_tool_that_is_switched_off_sees_nothing():
    assert run_worker("sees", "ours-disabled") == 0


# Promises


def test_a_promise_is_not_kept_by_the_smallest_excess():
    kept, broken = (promises({"ours": counted(instructions)})[0] for instructions in (8000.0, 8000.1))

    assert kept.limit == PER_QUERY
    assert (kept.kept, broken.kept) == (True, False)


def test_nothing_is_promised_of_what_was_not_measured():
    assert promises({}) == []
    assert promises({"otel": counted(300_000.0)}) == []


def test_the_limit_beside_a_peer_is_a_thirtieth_of_what_it_was_measured_at():
    limits = {promise.name: promise.limit for promise in promises({"ours": counted(1.0), "otel": counted(300_000.0)})}

    assert limits["per query, 1/30 of OpenTelemetry"] == pytest.approx(10.0)


def test_a_log_line_is_judged_without_the_call_of_the_pipeline_itself():
    def timed(us):
        return Measured(us=Cost(0.0, us, us))

    measured = {"ours": timed(10.0), "ours-log": timed(27.5), "direct-log": timed(15.0)}
    (promise,) = (promise for promise in promises(measured) if "log" in promise.name)

    assert promise.measured == pytest.approx(2.5)
    assert promise.beside == 15.0


@pytest.mark.parametrize(("end_mib", "kept"), [(40.0, True), (41.0, True), (41.1, False)])
def test_memory_may_not_grow_after_a_third_of_the_requests(end_mib, kept):
    memory = Memory(requests=300, queries=50, after_third_mib=40.0, at_end_mib=end_mib)
    (promise,) = promises({"ours": Measured(memory=memory)})

    assert promise.kept is kept


# What is shown


def test_what_was_not_measured_is_empty_and_never_zero():
    table = against_peers(results(ours=counted(8000.0, 71_000.0, 71_000.0)))

    assert table.rows == [["perf-middleware", "10", "", "", "8.0", "71.0", "71.0", ""]]


def test_every_row_is_as_long_as_its_heading():
    shown = tables(
        results(
            ours=Measured(
                10,
                Cost(1, 2, 3),
                540,
                Cost(1, 2, 3),
                Cost(1, 2, 3),
                Import(1, 2),
                dict.fromkeys(STAGES, Import(1, 2)),
                Memory(300, 50, 40.0, 41.0),
            ),
            ours_asgi=counted(1.0),
            ours_sqlite3=counted(1.0),
            floor_full=counted(1.0),
            otel=counted(1.0),
        )
    )

    assert len(shown) == 8
    assert [(table.title, row) for table in shown for row in table.rows if len(row) != len(table.columns)] == []


def test_markdown_tells_when_on_what_and_of_how_many():
    text = show.markdown([], results(ours=Measured(us=Cost(1, 2, 3), timed_requests=540)))

    assert all(fact in text for fact in ("2026-10-01", "CPython 3", "pymysql 1"))


def test_only_what_stands_between_the_marks_is_replaced():
    document = "before\n<!-- overhead -->\nold\n<!-- /overhead -->\nafter\n"

    replaced = between(document, "new")

    assert replaced == "before\n<!-- overhead -->\n\nnew\n\n<!-- /overhead -->\nafter\n"
    assert between(replaced, "new") == replaced


def test_a_document_without_marks_is_refused():
    with pytest.raises(ValueError, match="overhead"):
        between("no marks", "new")


def test_a_tool_that_saw_no_query_has_no_bar(tmp_path):
    measured = results(ours=counted(5000.0), otel=counted(300_000.0), sentry=counted(1.0))
    measured.measured["sentry"].sees = 0
    plot.draw(measured, tmp_path / "plot.svg")

    drawn = (tmp_path / "plot.svg").read_text()

    assert "OpenTelemetry" in drawn
    assert "sentry" not in drawn


# The command


def saved(tmp_path, per_query):
    path = tmp_path / "results.json"
    path.write_bytes(msgspec.json.encode(results(ours=counted(per_query))))
    return str(path)


@pytest.mark.parametrize(("per_query", "code"), [(1.0, 0), (9000.0, 1)])
def test_the_gate_fails_when_a_promise_is_broken(tmp_path, per_query, code, capsys):
    assert command.main(["--gate", "--from", saved(tmp_path, per_query)]) == code
    assert "per query" in capsys.readouterr().out


def test_without_the_gate_a_broken_promise_is_only_shown(tmp_path, capsys):
    assert command.main(["--from", saved(tmp_path, 9000.0)]) == 0
    assert "failed" in capsys.readouterr().out


def test_saved_results_are_printed_as_they_were_read(tmp_path, capsys):
    path = saved(tmp_path, 1.0)
    command.main(["--from", path, "--format", "json"])

    assert msgspec.json.decode(capsys.readouterr().out, type=Results) == command._load(command.Path(path))


def test_an_unknown_variant_is_the_users_mistake_and_names_the_known(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--only", "ours,theirs"])

    assert ended.value.code == 2
    assert "'theirs'" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["--gate", "--quick", "--only=ours"])
def test_the_documents_are_not_refreshed_from_a_part_of_the_measurements(part, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--write", part])

    assert ended.value.code == 2
    assert "full run" in capsys.readouterr().err


def test_a_missing_valgrind_is_the_users_mistake_and_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert command.main(["--gate"]) == 2
    assert "apt-get install valgrind" in capsys.readouterr().err


def test_only_narrows_what_a_mode_measures():
    narrowed = plan(gate=True, quick=False, only=["otel", "ours-sample-0"], memory=True)

    assert [variant.name for variant in narrowed.counted] == ["otel", "ours-sample-0"]
    assert [variant.name for variant in narrowed.timed] == ["ours-sample-0"]
    assert [variant.name for variant in narrowed.imported] == ["otel"]
    assert [variant.name for variant in narrowed.remembered] == ["ours-sample-0"]
    assert list(narrowed.started) == []
    assert list(plan(gate=True, quick=False, only=[], memory=False).remembered) == []


def test_what_takes_milliseconds_a_query_is_not_counted_under_valgrind():
    full = plan(gate=False, quick=False, only=[], memory=True)

    assert {variant.name for variant in full.timed} - {variant.name for variant in full.counted} == {
        "silk-orm",
        "toolbar-orm",
    }


def test_the_parent_measures_without_importing_a_peer():
    program = "import json, sys, benchmarks.overhead.__main__; print(json.dumps(list(sys.modules)))"

    assert not {"ddtrace", "newrelic", "elasticapm", "sentry_sdk", "opentelemetry"} & set(run_python(["-c", program]))
