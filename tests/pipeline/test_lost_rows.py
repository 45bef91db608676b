"""Rows that a run left and that are gone: exported again, or a problem of every run until they are back or accepted."""

import random
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import etl
from etl.inspect.rules import Kind
from etl.inspect.status import read_status
from etl.inspect.verdict import judge
from etl.inspect.verify import verify
from etl.load.files.local import LocalFiles
from etl.load.files.objects import Objects
from etl.load.layout import INDEX, Scope
from etl.model.records import RUNS
from etl.pipeline import job, lists
from etl.pipeline.summary import Summary
from etl.sandbox import (
    Execution,
    Fault,
    Sandbox,
    SandboxRequest,
    delete_execution,
    finish_execution,
    rerun_execution,
)
from tests.e2e.faults import edited_calls
from tests.e2e.truth import assert_equals_world, rows_of
from tests.stores import Store
from tests.support import settings_for
from tests.warehouses import assert_equals_dataset, load_into, new_duckdb
from tests.worlds import settled_world

EXECUTIONS = 6
NIGHT, DAY = datetime(2026, 11, 5, 2, tzinfo=UTC), timedelta(days=1)


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=2, executions=EXECUTIONS, calls=2, days=3)) as running:
        yield running


@pytest.fixture
def first(server: Sandbox) -> str:
    return server.world.run_tests[0].name


async def night(
    server: Sandbox, folder: Path, number: int, *, only: list[str] | None = None, accept_deletions: bool = False
) -> Summary:
    settings = settings_for(server, folder / "data")
    settings = settings.only(only) if only else settings
    return await job.export(settings, accept_deletions=accept_deletions, clock=lambda: NIGHT + number * DAY)


def lose(folder: Path, run_test: str, *, tables: Sequence[str] = ("executions", "calls", "evals")) -> None:
    """Move away what the dataset holds of the run test."""
    for table in tables:
        for each in (folder / "data" / table).glob(f"run_test={run_test}*"):
            shutil.move(each, folder / f"{table}.{each.name}")


def restore(folder: Path, *, tables: Sequence[str] = ("executions", "calls", "evals")) -> None:
    """Move back what was moved away, in place of what is there by now."""
    for table in tables:
        for each in folder.glob(f"{table}.run_test=*"):
            there = folder / "data" / table / each.name.removeprefix(f"{table}.")
            shutil.rmtree(there, ignore_errors=True)
            shutil.move(each, there)


def is_good(folder: Path, number: int) -> bool:
    now = NIGHT + number * DAY + timedelta(hours=1)
    return judge(read_status(LocalFiles(folder / "data"), now=now)).is_good


def lost(summary: Summary) -> list[tuple[str, int]]:
    told = [problem for problem in summary.problems if "are gone" in problem]
    assert len(told) == len(summary.lost)
    return list(summary.lost.values())


async def test_lost_rows_that_a_run_does_not_export_are_its_problem_until_one_does(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    for number in (1, 2):
        narrowed = await night(server, tmp_path, number, only=[first])
        assert (narrowed.exit_code, lost(narrowed)) == (3, [("Support triage", EXECUTIONS)])
        assert not is_good(tmp_path, number)
    whole = await night(server, tmp_path, 3)

    assert (whole.exit_code, lost(whole), is_good(tmp_path, 3)) == (0, [], True)
    assert_equals_world(tmp_path, server.world)


async def test_lost_rows_of_what_is_deleted_at_the_source_are_missed_until_they_are_restored(
    server: Sandbox, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    for execution in server.world.run_tests[1].executions:
        delete_execution(execution)
    for number in (1, 2):
        assert (await night(server, tmp_path, number)).exit_code == 3
    restore(tmp_path)
    back = await night(server, tmp_path, 3, accept_deletions=True)

    assert (back.exit_code, back.forgotten, is_good(tmp_path, 3)) == (0, 0, True)


async def test_lost_rows_that_are_accepted_are_forgotten(server: Sandbox, first: str, tmp_path: Path) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    for execution in server.world.run_tests[1].executions:
        delete_execution(execution)
    narrowed = await night(server, tmp_path, 1, only=[first], accept_deletions=True)
    accepted = await night(server, tmp_path, 2, accept_deletions=True)
    after = await night(server, tmp_path, 3)

    assert (narrowed.exit_code, lost(narrowed)) == (3, [("Support triage", EXECUTIONS)]), "it is not of this run"
    assert (accepted.exit_code, accepted.forgotten, after.exit_code, is_good(tmp_path, 3)) == (0, EXECUTIONS, 0, True)
    assert any("forgotten" in notice for notice in accepted.notices)


async def test_lost_rows_from_before_since_are_missed(server: Sandbox, first: str, tmp_path: Path) -> None:
    run_tests = [{"name": first, "since": "2030-01-01"}]
    await night(server, tmp_path, 0)
    lose(tmp_path, "checkout")
    later = await job.export(settings_for(server, tmp_path / "data", run_tests=run_tests), clock=lambda: NIGHT + DAY)
    assert (later.exit_code, lost(later)) == (3, [("Checkout flow", EXECUTIONS)])
    assert later.last_complete_at[later.run_tests[0].key] != later.finished_at


async def test_rows_that_were_lost_and_come_again_do_not_settle_anew(server: Sandbox, tmp_path: Path) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    await night(server, tmp_path, 1)
    assert (await night(server, tmp_path, 2)).requests == 2


async def test_rows_that_were_lost_settle_anew_when_they_come_again_otherwise(server: Sandbox, tmp_path: Path) -> None:
    """The lists may lack something in that night."""
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    server.fault = lambda request, _nth: edited_calls(
        server.world, request, lambda calls: [calls[0], *(call | {"eval_outputs": {}} for call in calls[1:])]
    )
    assert (await night(server, tmp_path, 1)).exit_code == 0
    server.fault = None
    for number in (2, 3):
        assert (await night(server, tmp_path, number)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_memory_of_lost_rows_outlives_a_run_that_cannot_read_the_last_summary(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    await night(server, tmp_path, 1, only=[first])
    (tmp_path / "data" / "_state" / "last_run.json").unlink()
    assert not is_good(tmp_path, 1)
    assert lost(await night(server, tmp_path, 2, only=[first])) == [("Support triage", EXECUTIONS)]


async def test_rows_that_are_lost_in_two_steps_are_missed_as_a_whole(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    for number, tables in enumerate((["executions"], ["calls"], ["evals"]), start=1):
        lose(tmp_path, "support", tables=tables)
        narrowed = await night(server, tmp_path, number, only=[first])
        told = lost(narrowed) if number == 3 else damaged(narrowed)
        assert (narrowed.exit_code, told) == (3, [("Support triage", EXECUTIONS)])


async def test_lost_rows_of_which_a_dead_letter_is_left_are_missed(server: Sandbox, first: str, tmp_path: Path) -> None:
    dead = server.world.run_tests[1].executions[2].calls[0].call_execution_id
    server.fault = lambda request, _: Fault(status=400) if dead in request.target else None
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    assert lost(await night(server, tmp_path, 1, only=[first])) == [("Support triage", EXECUTIONS)]


async def test_what_was_accepted_and_is_lost_since_is_missed_again(server: Sandbox, first: str, tmp_path: Path) -> None:
    await night(server, tmp_path, 0)
    settings = settings_for(server, tmp_path / "data", run_tests=[first])
    lose(tmp_path, "support", tables=["executions"])
    await job.export(settings, accept_deletions=True, clock=lambda: NIGHT + DAY)
    codes = [(await job.export(settings, clock=lambda: NIGHT + 2 * DAY)).exit_code]
    for number, table in enumerate(("calls", "evals"), start=3):
        lose(tmp_path, "support", tables=[table])
        assert not is_good(tmp_path, number - 1)
        at = NIGHT + number * DAY
        codes += [(await job.export(settings, clock=lambda at=at: at)).exit_code for _ in range(2)]  # type: ignore[misc]
    assert codes == [0, 3, 3, 3, 3]


PARTS = pytest.mark.parametrize("table", ["executions", "calls", "evals"])


@PARTS
async def test_lost_rows_of_a_run_test_that_is_not_configured_are_not_good_before_the_next_run(
    server: Sandbox, first: str, tmp_path: Path, table: str
) -> None:
    await night(server, tmp_path, 0)
    settings = settings_for(server, tmp_path / "data", run_tests=[first])
    await job.export(settings, clock=lambda: NIGHT + DAY)
    assert is_good(tmp_path, 1)
    lose(tmp_path, "support", tables=[table])
    assert not is_good(tmp_path, 1)
    restore(tmp_path)
    assert is_good(tmp_path, 1)


def damaged(summary: Summary) -> list[tuple[str, int]]:
    told = [problem for problem in summary.problems if "with missing rows" in problem]
    assert len(told) == len(summary.damaged)
    return list(summary.damaged.values())


def verdict(folder: Path, number: int) -> tuple[bool, int]:
    now = NIGHT + number * DAY + timedelta(hours=1)
    found = read_status(LocalFiles(folder / "data"), now=now)
    return judge(found).is_good, found.damaged_executions


@PARTS
async def test_part_of_a_deleted_execution_that_is_lost_is_missed_until_it_is_restored(
    server: Sandbox, tmp_path: Path, table: str
) -> None:
    await night(server, tmp_path, 0)
    delete_execution(server.world.run_tests[1].executions[2])
    await night(server, tmp_path, 1)
    before = sorted(map(str, rows_of(tmp_path, table)))
    lose(tmp_path, "support", tables=[table])
    for number in (2, 3):
        summary = await night(server, tmp_path, number)
        assert (summary.exit_code, damaged(summary)) == (3, [("Support triage", 1)])
        assert verdict(tmp_path, number) == (False, 1)
    restore(tmp_path)
    back = await night(server, tmp_path, 4)

    assert (back.exit_code, damaged(back), verdict(tmp_path, 4)) == (0, [], (True, 0))
    assert len(rows_of(tmp_path, table)) == len(before)


@PARTS
async def test_part_of_a_deleted_execution_that_is_accepted_is_missed_no_more(
    server: Sandbox, first: str, tmp_path: Path, table: str
) -> None:
    await night(server, tmp_path, 0)
    delete_execution(server.world.run_tests[1].executions[2])
    await night(server, tmp_path, 1)
    lose(tmp_path, "support", tables=[table])
    await night(server, tmp_path, 2)
    left = {name: len(rows_of(tmp_path, name)) for name in ("executions", "calls", "evals")}
    narrowed = await night(server, tmp_path, 3, only=[first], accept_deletions=True)
    accepted = await night(server, tmp_path, 4, accept_deletions=True)
    after = await night(server, tmp_path, 5)

    assert (narrowed.exit_code, narrowed.accepted, damaged(narrowed)) == (3, 0, [("Support triage", 1)])
    assert (accepted.exit_code, accepted.accepted, after.exit_code, after.accepted) == (0, 1, 0, 0)
    assert any("what is left is kept" in notice for notice in accepted.notices)
    assert verdict(tmp_path, 5) == (True, 0)
    assert {name: len(rows_of(tmp_path, name)) for name in left} == left


@PARTS
@pytest.mark.parametrize("is_gone", [True, False], ids=["gone at the source", "not configured any more"])
async def test_part_of_a_run_test_that_no_run_lists_is_missed_until_it_is_accepted(
    server: Sandbox, tmp_path: Path, table: str, *, is_gone: bool
) -> None:
    await night(server, tmp_path, 0)
    run_tests = "all" if is_gone else [server.world.run_tests[0].name]
    settings = settings_for(server, tmp_path / "data", run_tests=run_tests)
    if is_gone:
        server.world.run_tests.pop()

    async def run(number: int, *, accept_deletions: bool = False) -> Summary:
        return await job.export(settings, accept_deletions=accept_deletions, clock=lambda: NIGHT + number * DAY)

    assert (await run(1)).exit_code == 0
    lose(tmp_path, "support", tables=[table])
    missed = [await run(number) for number in (2, 3)]
    assert [(each.exit_code, [n for _, n in damaged(each)]) for each in missed] == [(3, [EXECUTIONS])] * 2
    assert verdict(tmp_path, 3) == (False, EXECUTIONS)
    ended = [await run(4, accept_deletions=True), await run(5)]
    assert [(each.exit_code, damaged(each)) for each in ended] == [(0, [])] * 2
    assert verdict(tmp_path, 5) == (True, 0)
    assert verify(settings, Scope()).findings == []
    lose(tmp_path, "support", tables=["calls" if table == "evals" else "evals"])
    wrong = Kind.NO_EXECUTION if table == "executions" else Kind.DAMAGED
    assert {each.kind for each in verify(settings, Scope()).findings} == {wrong}


@PARTS
async def test_part_that_was_accepted_comes_again_once_a_run_lists_it(
    server: Sandbox, first: str, tmp_path: Path, table: str
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support", tables=[table])
    settings = settings_for(server, tmp_path / "data", run_tests=[first])
    accepted = await job.export(settings, accept_deletions=True, clock=lambda: NIGHT + DAY)
    again = await night(server, tmp_path, 2)

    assert (accepted.exit_code, accepted.accepted, again.exit_code) == (0, EXECUTIONS, 0)
    assert_equals_world(tmp_path, server.world)


@PARTS
async def test_part_that_a_narrowed_run_leaves_out_is_missed_until_another_exports_it(
    server: Sandbox, first: str, tmp_path: Path, table: str
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support", tables=[table])
    narrowed = await night(server, tmp_path, 1, only=[first])
    assert (narrowed.exit_code, damaged(narrowed)) == (3, [("Support triage", EXECUTIONS)])
    assert verdict(tmp_path, 1) == (False, EXECUTIONS)
    whole = await night(server, tmp_path, 2)

    assert (whole.exit_code, damaged(whole), verdict(tmp_path, 2)) == (0, [], (True, 0))
    assert_equals_world(tmp_path, server.world)


async def test_evals_that_the_api_lacks_when_lost_ones_are_fetched_again_come_the_next_night(
    server: Sandbox, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support", tables=["evals"])
    server.fault = lambda request, _: edited_calls(
        server.world, request, lambda calls: [{**call, "eval_outputs": {}} for call in calls]
    )
    await night(server, tmp_path, 1)
    server.fault = None
    for number in (2, 3):
        await night(server, tmp_path, number)
    quiet = await night(server, tmp_path, 4)

    assert (quiet.exit_code, quiet.requests) == (0, 2)
    assert_equals_world(tmp_path, server.world)


@PARTS
async def test_part_of_an_execution_that_is_deleted_before_it_is_fetched_again_is_missed(
    server: Sandbox, tmp_path: Path, table: str
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support", tables=[table])
    execution = server.world.run_tests[1].executions[2]

    def delete(request: SandboxRequest, _nth: int) -> None:
        if request.path == RUNS and request.query.get("execution_id") == execution.execution_id:
            delete_execution(execution)

    server.fault = delete
    summary = await night(server, tmp_path, 1)
    assert (summary.exit_code, damaged(summary)) == (3, [("Support triage", 1)])


def run_again(server: Sandbox, number: int) -> Execution:
    """An execution of the second run test, which has not finished until a test says so."""
    execution = server.world.run_tests[1].executions[2]
    rerun_execution(execution, NIGHT + number * DAY)
    return execution


def findings(server: Sandbox, folder: Path) -> list[str]:
    return [each.kind for each in verify(settings_for(server, folder / "data"), Scope()).findings]


CALLS_OR_EVALS = pytest.mark.parametrize("table", ["calls", "evals"])
IN_WHICH_ORDER = pytest.mark.parametrize(
    "is_first", [True, False], ids=["lost, then runs again", "runs again, then lost"]
)


@CALLS_OR_EVALS
@IN_WHICH_ORDER
async def test_part_of_an_execution_that_runs_again_is_missed_until_it_is_fetched(
    server: Sandbox, tmp_path: Path, table: str, *, is_first: bool
) -> None:
    await night(server, tmp_path, 0)
    execution = run_again(server, 1)
    assert is_first or (await night(server, tmp_path, 1)).exit_code == 0
    lose(tmp_path, "support", tables=[table])
    for number, status in enumerate(("running", "running", "evaluating"), start=2):
        execution.status = status  # its row is written again
        summary = await night(server, tmp_path, number)
        assert (summary.exit_code, damaged(summary)) == (3, [("Support triage", 1)])
        assert "run again once they have finished, without --run-test; if that" in summary.problems[-1]
        assert (verdict(tmp_path, number), findings(server, tmp_path)) == ((False, 1), ["damaged"])
    finish_execution(execution, random.Random(5), NIGHT + 4 * DAY)
    whole = await night(server, tmp_path, 5)

    assert (whole.exit_code, damaged(whole), verdict(tmp_path, 5)) == (0, [], (True, 0))
    assert_equals_world(tmp_path, server.world)


@CALLS_OR_EVALS
@IN_WHICH_ORDER
async def test_part_of_an_execution_that_runs_again_is_missed_until_it_is_restored(
    server: Sandbox, tmp_path: Path, table: str, *, is_first: bool
) -> None:
    await night(server, tmp_path, 0)
    before = sorted(map(str, rows_of(tmp_path, table)))
    run_again(server, 1)
    assert is_first or (await night(server, tmp_path, 1)).exit_code == 0
    lose(tmp_path, "support", tables=[table])
    assert (await night(server, tmp_path, 2)).exit_code == 3
    restore(tmp_path)
    back = await night(server, tmp_path, 3)

    assert (back.exit_code, verdict(tmp_path, 3), findings(server, tmp_path)) == (0, (True, 0), [])
    assert len(rows_of(tmp_path, table)) == len(before)


@CALLS_OR_EVALS
@IN_WHICH_ORDER
async def test_part_of_an_execution_that_runs_again_and_that_is_accepted_is_missed_no_more(
    server: Sandbox, first: str, tmp_path: Path, table: str, *, is_first: bool
) -> None:
    await night(server, tmp_path, 0)
    execution = run_again(server, 1)
    assert is_first or (await night(server, tmp_path, 1)).exit_code == 0
    lose(tmp_path, "support", tables=[table])
    await night(server, tmp_path, 2)
    narrowed = await night(server, tmp_path, 3, only=[first], accept_deletions=True)
    accepted = await night(server, tmp_path, 4, accept_deletions=True)
    after = await night(server, tmp_path, 5)

    assert (narrowed.exit_code, narrowed.accepted, damaged(narrowed)) == (3, 0, [("Support triage", 1)])
    assert (accepted.exit_code, accepted.accepted, after.exit_code, after.accepted) == (0, 1, 0, 0)
    assert (verdict(tmp_path, 5), findings(server, tmp_path)) == ((True, 0), [])
    finish_execution(execution, random.Random(5), NIGHT + 5 * DAY)
    assert (await night(server, tmp_path, 6)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@CALLS_OR_EVALS
async def test_part_that_is_removed_during_a_run_which_only_waits_for_its_execution_is_not_accepted(
    server: Sandbox, tmp_path: Path, table: str
) -> None:
    await night(server, tmp_path, 0)
    run_again(server, 1)
    await night(server, tmp_path, 1)

    def remove(event: str, **_details: object) -> None:
        if event == "planned":
            lose(tmp_path, "support", tables=[table])

    settings = settings_for(server, tmp_path / "data")
    one = await job.export(settings, accept_deletions=True, clock=lambda: NIGHT + 2 * DAY, notify=remove)
    assert (one.exit_code, one.accepted, damaged(one)) == (3, 0, [("Support triage", EXECUTIONS)])


async def test_part_of_an_execution_that_runs_again_is_missed_if_the_run_fails(server: Sandbox, tmp_path: Path) -> None:
    """The next run has nothing to do with it either."""
    await night(server, tmp_path, 0)
    run_again(server, 1)
    lose(tmp_path, "support", tables=["calls"])
    await night(server, tmp_path, 1)
    settings = settings_for(server, tmp_path / "data", export={"max_runtime_minutes": 1e-9})
    failed = await job.export(settings, clock=lambda: NIGHT + 2 * DAY)
    assert failed.failure is not None
    assert not is_good(tmp_path, 2)


@pytest.mark.parametrize("tables", [("executions",), ("executions", "calls", "evals")])
async def test_execution_that_never_had_calls_and_is_lost_while_it_runs_is_not_missed(
    server: Sandbox, tmp_path: Path, tables: Sequence[str]
) -> None:
    run_again(server, 0)
    assert (await night(server, tmp_path, 0)).exit_code == 0
    lose(tmp_path, "support", tables=tables)
    assert ((await night(server, tmp_path, 1)).exit_code, verdict(tmp_path, 1)) == (0, (True, 0))


@IN_WHICH_ORDER
async def test_row_alone_that_is_lost_of_an_execution_that_runs_again_is_not_missed_once_it_is_written(
    server: Sandbox, tmp_path: Path, *, is_first: bool
) -> None:
    """All that it said is written again, and the calls of before are those for which it vouched."""
    await night(server, tmp_path, 0)
    run_again(server, 1)
    assert is_first or (await night(server, tmp_path, 1)).exit_code == 0
    lose(tmp_path, "support", tables=["executions"])
    codes = [(await night(server, tmp_path, number)).exit_code for number in (2, 3)]

    assert (codes, verdict(tmp_path, 3), findings(server, tmp_path)) == ([0, 0], (True, 0), [])
    lose(tmp_path, "support", tables=["calls"])
    assert damaged(await night(server, tmp_path, 4)) == [("Support triage", 1)]


@CALLS_OR_EVALS
@IN_WHICH_ORDER
async def test_row_and_part_that_are_lost_of_an_execution_that_runs_again_are_missed_until_accepted(
    server: Sandbox, first: str, tmp_path: Path, table: str, *, is_first: bool
) -> None:
    await night(server, tmp_path, 0)
    run_again(server, 1)
    assert is_first or (await night(server, tmp_path, 1)).exit_code == 0
    lose(tmp_path, "support", tables=["executions", table])
    assert damaged(await night(server, tmp_path, 2, only=[first])) == [("Support triage", EXECUTIONS)]
    for number in (3, 4):
        assert damaged(await night(server, tmp_path, number)) == [("Support triage", 1)]
        assert (verdict(tmp_path, number), findings(server, tmp_path)) == ((False, 1), ["damaged"])
    ended = [await night(server, tmp_path, 5, accept_deletions=True), await night(server, tmp_path, 6)]

    assert ([each.exit_code for each in ended], verdict(tmp_path, 6)) == ([0, 0], (True, 0))


@IN_WHICH_ORDER
async def test_all_rows_that_are_lost_of_an_execution_that_runs_again_are_missed_until_restored(
    server: Sandbox, first: str, tmp_path: Path, *, is_first: bool
) -> None:
    await night(server, tmp_path, 0)
    run_again(server, 1)
    assert is_first or (await night(server, tmp_path, 1)).exit_code == 0
    lose(tmp_path, "support")
    assert lost(await night(server, tmp_path, 2, only=[first])) == [("Support triage", EXECUTIONS)]
    for number in (3, 4):
        assert damaged(await night(server, tmp_path, number)) == [("Support triage", 1)]
        assert not is_good(tmp_path, number)
    restore(tmp_path, tables=["calls", "evals"])

    assert ((await night(server, tmp_path, 5)).exit_code, verdict(tmp_path, 5)) == (0, (True, 0))


async def test_calls_that_were_accepted_without_their_row_are_not_missed_when_their_execution_runs_again(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support", tables=["executions", "evals"])
    settings = settings_for(server, tmp_path / "data", run_tests=[first])
    accepted = await job.export(settings, accept_deletions=True, clock=lambda: NIGHT + DAY)
    run_again(server, 2)

    assert (accepted.exit_code, accepted.accepted) == (0, EXECUTIONS)
    assert ((await night(server, tmp_path, 2)).exit_code, verdict(tmp_path, 2)) == (0, (True, 0))


@CALLS_OR_EVALS
async def test_part_of_an_execution_whose_calls_cannot_be_listed_is_missed_and_stays_in_the_warehouse(
    server: Sandbox, tmp_path: Path, table: str
) -> None:
    await night(server, tmp_path, 0)
    warehouse = new_duckdb(tmp_path)
    load_into(warehouse, tmp_path / "data")
    lose(tmp_path, "support", tables=[table])
    execution_id = server.world.run_tests[1].executions[2].execution_id

    def fail(request: SandboxRequest, _nth: int) -> Fault | None:
        return Fault(status=400) if request.path == RUNS and request.query.get("execution_id") == execution_id else None

    server.fault = fail
    for number in (1, 2):
        summary = await night(server, tmp_path, number)
        assert (summary.exit_code, damaged(summary)) == (3, [("Support triage", 1)])
        assert verdict(tmp_path, number) == (False, 1)
        result = load_into(warehouse, tmp_path / "data")
        assert (result.damaged, result.removed) == (1, 0)
    server.fault = None

    assert (await night(server, tmp_path, 3)).exit_code == 0
    assert_equals_world(tmp_path, server.world)
    load_into(warehouse, tmp_path / "data")
    assert_equals_dataset(warehouse, tmp_path / "data")


async def test_rows_that_were_forgotten_are_not_missed_when_their_execution_runs_again(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    settings = settings_for(server, tmp_path / "data", run_tests=[first])
    accepted = await job.export(settings, accept_deletions=True, clock=lambda: NIGHT + DAY)
    run_again(server, 2)

    assert (accepted.exit_code, accepted.forgotten) == (0, EXECUTIONS)
    assert ((await night(server, tmp_path, 2)).exit_code, verdict(tmp_path, 2)) == (0, (True, 0))


@pytest.mark.parametrize("is_known", [True, False], ids=["exported before", "never exported"])
async def test_calls_for_which_no_row_vouches_since_a_run_was_killed_are_missed_while_their_execution_runs_again(
    server: Sandbox, tmp_path: Path, *, is_known: bool
) -> None:
    """Nothing tells whether their evals came, too."""
    await night(server, tmp_path, 0)
    execution, rows = server.world.run_tests[1].executions[2], tmp_path / "data/executions"
    backup = shutil.move(rows, tmp_path / "backup")
    if is_known:
        shutil.copytree(backup, rows)
        rerun_execution(execution, NIGHT)
        finish_execution(execution, random.Random(4), NIGHT)
        await night(server, tmp_path, 1)
        shutil.copytree(backup, rows, dirs_exist_ok=True)
    else:
        (tmp_path / "data" / INDEX).unlink()
    run_again(server, 2)
    for number in (2, 3):
        assert damaged(await night(server, tmp_path, number)) == [("Support triage", 1)]
        assert (is_good(tmp_path, number), findings(server, tmp_path)) == (False, ["damaged"])
    finish_execution(execution, random.Random(5), NIGHT + 3 * DAY)

    assert (await night(server, tmp_path, 4)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_nothing_is_accepted_of_a_run_test_whose_list_failed(server: Sandbox, tmp_path: Path) -> None:
    """The API may still have it all: the next run fetches it."""
    await night(server, tmp_path, 0)
    lose(tmp_path, "support", tables=["evals"])
    name = server.world.run_tests[1].name
    server.fault = lambda request, _: Fault(status=500) if request.query.get("run_test_name") == name else None
    settings = settings_for(server, tmp_path / "data", api={"max_tries": 1})
    failed = await job.export(settings, accept_deletions=True, clock=lambda: NIGHT + DAY)
    server.fault = None

    assert (failed.exit_code, failed.accepted, damaged(failed)) == (3, 0, [("Support triage", EXECUTIONS)])
    assert failed.problems[-1].partition(": run again, without --run-test; ")[2].startswith("if that does not help")
    assert (await night(server, tmp_path, 2)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("is_moved", [True, False], ids=["under another key", "in another part"])
async def test_rows_that_are_restored_elsewhere_take_the_place_of_those_that_lack_some(
    server: Sandbox, first: str, tmp_path: Path, *, is_moved: bool
) -> None:
    """From a backup of before a rename; the API has them no more."""
    second = server.world.run_tests[1]

    async def run(number: int, key: str = "support-new" if is_moved else "support") -> Summary:
        run_tests = [first, {"name": second.name, "key": key}]
        settings = settings_for(server, tmp_path / "data", run_tests=run_tests)
        return await job.export(settings, clock=lambda: NIGHT + number * DAY)

    await run(0, "support")
    backup = {path: path.read_bytes() for path in (tmp_path / "data").glob("*/run_test=support/*/*.parquet")}
    await run(1)
    delete_execution(second.executions[2])
    assert (await run(2)).exit_code == 0
    before = rows_of(tmp_path, "calls")
    lose(tmp_path, "support", tables=["calls"])
    assert damaged(await run(3)) == [("Support triage", 1)]
    for path, data in backup.items():
        there = path if is_moved else path.with_name("part-9.parquet")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(data)
    back = [await run(number) for number in (4, 5)]

    assert [(each.exit_code, damaged(each)) for each in back] == [(0, [])] * 2
    ids = [row["call_execution_id"] for row in rows_of(tmp_path, "calls")]
    assert sorted(ids) == sorted(row["call_execution_id"] for row in before)
    gone = [row for row in rows_of(tmp_path, "executions") if row["deleted_at"]]
    assert [row["execution_id"] for row in gone] == [second.executions[2].execution_id]


async def test_rows_in_files_that_are_set_aside_are_told_before_they_are_forgotten(
    server: Sandbox, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    delete_execution(server.world.run_tests[1].executions[2])
    await night(server, tmp_path, 1)
    for path in (tmp_path / "data").glob("*/run_test=support*/*/*.parquet"):
        path.write_bytes(b"rotten")
    ended = [await night(server, tmp_path, number, accept_deletions=True) for number in (2, 3)]

    assert [(each.exit_code, each.forgotten, lost(each)) for each in ended] == [
        (3, 0, [("Support triage", 1)]),
        (0, 1, []),
    ]


@PARTS
async def test_part_in_a_file_that_is_set_aside_is_told_before_it_is_accepted(
    server: Sandbox, tmp_path: Path, table: str
) -> None:
    await night(server, tmp_path, 0)
    delete_execution(server.world.run_tests[1].executions[2])
    await night(server, tmp_path, 1)
    for path in (tmp_path / "data" / table).glob("run_test=support*/*/*.parquet"):
        path.write_bytes(b"rotten")
    ended = [await night(server, tmp_path, number, accept_deletions=True) for number in (2, 3)]

    assert [(each.exit_code, each.accepted, damaged(each)) for each in ended] == [
        (3, 0, [("Support triage", 1)]),
        (0, 1, []),
    ]
    assert verdict(tmp_path, 3) == (True, 0)


@pytest.mark.parametrize(("count", "exit_code"), [(1, 6), (EXECUTIONS, 3)], ids=["before the last", "after the last"])
@pytest.mark.parametrize("accept_deletions", [False, True])
async def test_rows_that_are_removed_in_the_run_that_wrote_them_are_missed(
    server: Sandbox, first: str, tmp_path: Path, *, accept_deletions: bool, count: int, exit_code: int
) -> None:
    """What is still to be written into that part is not taken for all of it."""
    removed: list[Path] = []

    def remove(event: str, **_details: object) -> None:
        if event == "committed" and not removed:
            here = [row for row in rows_of(tmp_path, "executions") if row["run_test_name"] == first]
            if len(here) == count:
                removed.extend((tmp_path / "data/executions").glob("run_test=checkout*"))
                lose(tmp_path, "checkout")

    # Each execution is committed when it has arrived.
    settings = settings_for(server, tmp_path / "data", api={"concurrency": 1}, export={"commit_interval_seconds": 1e-6})
    one = await job.export(settings, accept_deletions=accept_deletions, clock=lambda: NIGHT, notify=remove)
    assert removed
    assert (one.exit_code, lost(one)) == (exit_code, [(first, count)])
    assert "although this run has seen it" in str(one.problems) or exit_code == 3
    assert not is_good(tmp_path, 0)
    assert (await night(server, tmp_path, 1)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("tables", [("executions", "calls", "evals"), ("executions",), ("calls",), ("evals",)])
async def test_rows_that_are_removed_during_a_run_which_accepts_deletions_are_missed(
    server: Sandbox, tmp_path: Path, tables: Sequence[str]
) -> None:
    """They were there when it compared what is stored with the lists: nobody has deleted them at the source."""
    await night(server, tmp_path, 0)

    def remove(event: str, **_details: object) -> None:
        if event == "planned":
            lose(tmp_path, "support", tables=tables)

    settings = settings_for(server, tmp_path / "data")
    one = await job.export(settings, accept_deletions=True, clock=lambda: NIGHT + DAY, notify=remove)
    assert (one.exit_code, [count for _, count in (lost(one) or damaged(one))]) == (3, [EXECUTIONS])
    assert not is_good(tmp_path, 1)
    assert (await night(server, tmp_path, 2)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_lost_rows_that_a_list_still_has_are_not_forgotten_where_the_run_is_narrowed_to_days(
    server: Sandbox, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    narrowed = settings_for(server, tmp_path / "data").only(since=datetime.now(UTC).date())
    one = await job.export(narrowed, accept_deletions=True, clock=lambda: NIGHT + DAY)
    assert (one.exit_code, lost(one), one.forgotten) == (3, [("Support triage", EXECUTIONS)], 0)
    assert not is_good(tmp_path, 1)


@pytest.mark.parametrize(
    "tables", [pytest.param(("executions",), marks=pytest.mark.slow), ("executions", "calls", "evals")]
)
@pytest.mark.parametrize("meanwhile", ["no run", "missed", "accepted"])
@pytest.mark.parametrize("how", ["narrowed", "not configured", "exported"])
async def test_rows_that_are_restored_from_before_a_deletion_say_that_it_was(
    server: Sandbox, first: str, tmp_path: Path, tables: Sequence[str], how: str, meanwhile: str
) -> None:
    """No list tells of it where the run test is not exported, and the index remembers it: nothing is asked."""
    await night(server, tmp_path, 0)
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    for execution in server.world.run_tests[1].executions[2:]:
        delete_execution(execution)
    await night(server, tmp_path, 1, accept_deletions=True)
    settings = settings_for(server, tmp_path / "data", run_tests=[first] if how == "not configured" else None)
    settings = settings.only([first]) if how == "narrowed" else settings
    before = {row["execution_id"]: row["deleted_at"] for row in rows_of(tmp_path, "executions")}

    lose(tmp_path, "support", tables=tables)
    for accepts in {"no run": [], "missed": [False], "accepted": [True, False]}[meanwhile] if how != "exported" else ():
        one = await job.export(settings, accept_deletions=accepts, clock=lambda: NIGHT + 2 * DAY)
        assert one.exit_code == (0 if meanwhile == "accepted" and how == "not configured" else 3)
    for table in tables:
        for each in (tmp_path / "backup" / table).glob("run_test=support*"):
            shutil.copytree(each, tmp_path / "data" / table / each.name, dirs_exist_ok=True)
    planned = await job.plan(settings, clock=lambda: NIGHT + 3 * DAY)
    sent = len(server.requests)
    back = [await job.export(settings, clock=lambda at=NIGHT + number * DAY: at) for number in (3, 4)]  # type: ignore[misc]

    assert {row["execution_id"]: row["deleted_at"] for row in rows_of(tmp_path, "executions")} == before
    assert [each.exit_code for each in back] == [0, 0]
    assert len(server.requests) - sent == 2 * len(settings.run_tests)
    assert (sum(planned.requests_by_purpose.values()), planned.problems) == (back[0].requests, [])
    assert any("4 executions deleted at the source" in notice for notice in back[0].notices)
    assert back[1].files == 0


async def test_execution_that_lives_again_is_not_taken_for_a_restored_one(server: Sandbox, tmp_path: Path) -> None:
    """Whatever the clock of the source says."""
    await night(server, tmp_path, 0)
    execution = server.world.run_tests[1].executions[2]
    delete_execution(execution)
    await night(server, tmp_path, 9)
    execution.is_deleted = False
    codes = [(await night(server, tmp_path, number)).exit_code for number in (2, 3)]
    quiet = await night(server, tmp_path, 4)

    assert ([*codes, quiet.exit_code], quiet.files) == ([0, 0, 0], 0)
    assert_equals_world(tmp_path, server.world)


async def test_rows_that_are_restored_from_before_the_last_of_two_deletions_say_when_that_was(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    """Those that tell of the first one, and then those from between."""
    execution = server.world.run_tests[1].executions[2]
    for number, is_deleted in enumerate((False, True, False, True)):
        execution.is_deleted = is_deleted
        await night(server, tmp_path, number)
        shutil.copytree(tmp_path / "data/executions", tmp_path / str(number))
    for number, backup in ((4, "1"), (5, "2")):
        shutil.copytree(tmp_path / backup, tmp_path / "data/executions", dirs_exist_ok=True)
        assert (await night(server, tmp_path, number, only=[first])).exit_code == 0
        assert {row["deleted_at"] for row in rows_of(tmp_path, "executions")} == {None, NIGHT + 3 * DAY}


async def test_restored_execution_that_a_list_has_again_lives_in_runs_that_leave_it_out_too(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    execution = server.world.run_tests[1].executions[2]
    delete_execution(execution)
    await night(server, tmp_path, 1)
    execution.is_deleted = False
    shutil.copytree(tmp_path / "backup/executions", tmp_path / "data/executions", dirs_exist_ok=True)
    await night(server, tmp_path, 2)
    narrowed = await night(server, tmp_path, 3, only=[first])

    assert (narrowed.exit_code, narrowed.files) == (0, 0)
    assert_equals_world(tmp_path, server.world)


async def test_restored_execution_that_stands_in_a_list_that_is_not_believed_lives_in_later_runs(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    """The list says that it lives, whatever it lacks."""
    await night(server, tmp_path, 0)
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    back, *others = server.world.run_tests[1].executions
    delete_execution(back)
    await night(server, tmp_path, 1)
    shutil.copytree(tmp_path / "backup/executions", tmp_path / "data/executions", dirs_exist_ok=True)
    back.is_deleted = False
    for execution in others:
        delete_execution(execution)
    doubted = await night(server, tmp_path, 2)
    narrowed = await night(server, tmp_path, 3, only=[first])

    assert (doubted.exit_code, narrowed.exit_code, narrowed.files) == (3, 0, 0)
    assert [row["deleted_at"] for row in rows_of(tmp_path, "executions")] == [None] * 2 * EXECUTIONS


async def test_execution_that_lives_again_is_not_taken_for_a_restored_one_after_a_run_that_was_killed(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    """Whatever the clock of the source says, and although the index still remembers the deletion."""
    await night(server, tmp_path, 0)
    execution = server.world.run_tests[1].executions[2]
    delete_execution(execution)
    await night(server, tmp_path, 9)
    index = (tmp_path / "data" / INDEX).read_bytes()
    execution.is_deleted = False
    await night(server, tmp_path, 2)
    (tmp_path / "data" / INDEX).write_bytes(index)  # as if it had been killed before it saved another
    narrowed = [await night(server, tmp_path, number, only=[first]) for number in (3, 4)]

    assert [(each.exit_code, each.files, each.notices) for each in narrowed] == [(0, 0, [])] * 2
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("is_held_up", [True, False])
async def test_restored_execution_that_the_list_of_another_run_test_has_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_held_up: bool
) -> None:
    """It counts as listed in neither until both are exported."""
    async with Sandbox(settled_world(run_tests=3, executions=EXECUTIONS, calls=1, days=3)) as server:
        mine, theirs, other = server.world.run_tests
        await night(server, tmp_path, 0)
        shutil.copytree(tmp_path / "data", tmp_path / "backup")
        moving = theirs.executions[2]
        delete_execution(moving)
        await night(server, tmp_path, 1)
        shutil.copytree(tmp_path / "backup/executions", tmp_path / "data/executions", dirs_exist_ok=True)
        moving.is_deleted, moving.run_test = False, mine
        theirs.executions.remove(moving)
        mine.executions.append(moving)
        if is_held_up:  # until the run has planned what the list has that it did read
            monkeypatch.setattr(lists, "_PATIENCE_SECONDS", 0.01)
            events = list[str]()
            server.fault = lambda request, _: (
                Fault(status=503)
                if request.query.get("run_test_name") == other.name and "planned" not in events
                else None
            )
            settings = settings_for(server, tmp_path / "data", api={"max_tries": 20}).only([mine.name, other.name])
            await job.export(settings, clock=lambda: NIGHT + 2 * DAY, notify=lambda event, **_: events.append(event))
            assert events.count("planned") > 1
        else:
            await night(server, tmp_path, 2, only=[mine.name])
            await night(server, tmp_path, 3, only=[theirs.name])

    assert {row["deleted_at"] for row in rows_of(tmp_path, "executions")} == {None}


@pytest.mark.parametrize("tables", [("executions",), ("calls",), ("executions", "calls", "evals")])
@pytest.mark.parametrize("is_gone", [True, False], ids=["gone at the source", "not configured any more"])
async def test_rows_that_stand_in_two_parts_of_a_run_test_that_no_run_lists_stay_in_one(
    server: Sandbox, first: str, tmp_path: Path, tables: Sequence[str], *, is_gone: bool
) -> None:
    """Files were restored to where they do not belong."""
    await night(server, tmp_path, 0)
    before = {table: len(rows_of(tmp_path, table)) for table in ("executions", "calls", "evals")}
    settings = settings_for(server, tmp_path / "data", run_tests="all" if is_gone else [first])
    if is_gone:
        server.world.run_tests.pop()
    await job.export(settings, clock=lambda: NIGHT + DAY)
    for table in tables:
        for path in (tmp_path / "data" / table).glob("run_test=support*/*/part-0.parquet"):
            shutil.copy(path, path.with_name("part-1.parquet"))
    back = await job.export(settings, clock=lambda: NIGHT + 2 * DAY)
    quiet = await job.export(settings, clock=lambda: NIGHT + 3 * DAY)

    assert {table: len(rows_of(tmp_path, table)) for table in before} == before
    assert [(each.exit_code, damaged(each), lost(each)) for each in (back, quiet)] == [(0, [], [])] * 2
    assert [any("stood twice" in notice for notice in each.notices) for each in (back, quiet)] == [True, False]
    assert quiet.files == 0


@pytest.mark.parametrize("copies", [("part-1", "support"), ("part-1", "a-copy"), ("part-0", "a-copy")])
async def test_rows_without_an_execution_that_stand_in_several_parts_are_replaced_in_all_of_them(
    server: Sandbox, tmp_path: Path, copies: tuple[str, str]
) -> None:
    """A run was killed between the tables, and then files were copied."""
    await night(server, tmp_path, 0)
    lose(tmp_path, "support", tables=["executions"])
    part, folder = copies
    for table in ("calls", "evals"):
        for source in (tmp_path / "data" / table).glob("run_test=support*/*/part-0.parquet"):
            shutil.copy(source, source.with_name("part-7.parquet"))
            target = source.parent.parent.with_name(
                source.parent.parent.name if folder == "support" else f"run_test={folder}"
            )
            (target / source.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / source.parent.name / f"{part}.parquet")
            shutil.copy(source, target / source.parent.name / "part-9.parquet")
    healed = await night(server, tmp_path, 1)

    assert (healed.exit_code, is_good(tmp_path, 1), findings(server, tmp_path)) == (0, True, [])
    assert_equals_world(tmp_path, server.world)


async def test_copies_of_rows_without_an_execution_go_though_the_source_has_deleted_it(
    server: Sandbox, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    before = len(rows_of(tmp_path, "calls"))
    lose(tmp_path, "support", tables=["executions"])
    for table in ("calls", "evals"):
        for source in (tmp_path / "data" / table).glob("run_test=support*/*/part-0.parquet"):
            shutil.copy(source, source.with_name("part-1.parquet"))
    for execution in server.world.run_tests[1].executions:
        delete_execution(execution)
    nights = [await night(server, tmp_path, 1), await night(server, tmp_path, 2, accept_deletions=True)]

    assert [each.exit_code for each in nights] == [3, 0]
    assert len(rows_of(tmp_path, "calls")) == before


async def test_other_rows_without_an_execution_stay_though_copies_in_another_part_go(
    server: Sandbox, tmp_path: Path
) -> None:
    """They may be all that is left of what the source has deleted."""
    await night(server, tmp_path, 0)
    lose(tmp_path, "support", tables=["executions"])
    for table in ("calls", "evals"):
        for source in (tmp_path / "data" / table).glob("run_test=support*/*/part-0.parquet"):
            shutil.copy(source, source.with_name("part-2.parquet"))
            pq.write_table(pq.ParquetFile(source).read().slice(0, 1), source.with_name("part-1.parquet"))
    others = sorted((tmp_path / "data/calls").glob("run_test=support*/*/part-1.parquet"))
    for execution in server.world.run_tests[1].executions:
        delete_execution(execution)
    await night(server, tmp_path, 1)

    assert [pq.ParquetFile(path).metadata.num_rows for path in others if path.exists()] == [1] * len(others)


@pytest.mark.parametrize("names", ["all", "by name"])
async def test_rows_that_were_copied_to_another_folder_stay_where_they_belong_in_a_narrowed_run(
    server: Sandbox, first: str, tmp_path: Path, names: str
) -> None:
    settings = settings_for(server, tmp_path / "data", run_tests="all" if names == "all" else None)
    await job.export(settings, clock=lambda: NIGHT)
    files, tables = LocalFiles(tmp_path / "data"), ("executions", "calls", "evals")
    before = [files.list(table) for table in tables]
    for table in tables:
        (source,) = (tmp_path / "data" / table).glob("run_test=support*")
        for copy in ("run_test=a-copy", "run_test=z-copy"):
            shutil.copytree(source, source.with_name(copy))
    narrowed = await job.export(settings.only([first]), clock=lambda: NIGHT + DAY)

    assert [files.list(table) for table in tables] == before
    assert any(f"rows of {2 * EXECUTIONS} executions stood twice" in notice for notice in narrowed.notices)


async def test_plan_takes_restored_rows_for_deleted_as_a_run_does(server: Sandbox, tmp_path: Path) -> None:
    await night(server, tmp_path, 0)
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    for execution in server.world.run_tests[1].executions[1:]:
        delete_execution(execution)
    await night(server, tmp_path, 1, accept_deletions=True)
    shutil.copytree(tmp_path / "backup/executions", tmp_path / "data/executions", dirs_exist_ok=True)
    planned = await job.plan(settings_for(server, tmp_path / "data"), clock=lambda: NIGHT + 2 * DAY)
    assert planned.problems == []


async def test_dead_letters_that_are_restored_of_a_deleted_execution_go_again(server: Sandbox, tmp_path: Path) -> None:
    """No run retries them, so that status would never be good again."""
    execution = server.world.run_tests[1].executions[2]
    dead = execution.calls[0].call_execution_id
    server.fault = lambda request, _: Fault(status=400) if dead in request.target else None
    await night(server, tmp_path, 0)
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    server.fault = None
    delete_execution(execution)
    await night(server, tmp_path, 1)
    before = {row["execution_id"]: row["deleted_at"] for row in rows_of(tmp_path, "executions")}
    shutil.copytree(tmp_path / "backup/errors", tmp_path / "data/errors", dirs_exist_ok=True)
    back = await night(server, tmp_path, 2)
    quiet = await night(server, tmp_path, 3)

    assert (back.exit_code, is_good(tmp_path, 3), quiet.files) == (0, True, 0)
    assert {row["execution_id"]: row["deleted_at"] for row in rows_of(tmp_path, "executions")} == before


async def test_deletion_is_remembered_in_a_bucket(
    seaweed_store: Store, keys: None, server: Sandbox, first: str
) -> None:
    store = Objects(seaweed_store.url(), seaweed_store.options)
    destination = {"path": store.url, "options": seaweed_store.options}

    async def run(number: int, **narrowed: Any) -> tuple[int, list[bool]]:
        settings = settings_for(server, Path(), destination=destination, **narrowed)
        summary = await job.export(settings, clock=lambda: NIGHT + number * DAY)
        rows = etl.read_table(store.url, "executions", deleted="include", options=seaweed_store.options)
        return summary.exit_code, sorted(rows["deleted_at"].notna())

    await run(0)
    backup = {each.path: store.get(each.path)[1] for each in store.list("executions/")}
    delete_execution(server.world.run_tests[1].executions[2])
    marked = await run(1)
    for path, data in backup.items():
        store.put(path, data, store.get(path)[0].version)
    assert (await run(2, run_tests=[first])) == marked == (0, [*[False] * (2 * EXECUTIONS - 1), True])


async def test_deletion_that_is_forgotten_with_the_state_is_found_again_by_a_run_that_reads_the_list(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    execution = server.world.run_tests[1].executions[2]
    delete_execution(execution)
    await night(server, tmp_path, 1)
    shutil.rmtree(tmp_path / "data/_state")
    shutil.copytree(tmp_path / "backup/executions", tmp_path / "data/executions", dirs_exist_ok=True)
    codes = [(await night(server, tmp_path, 2, only=[first])).exit_code]
    assert {row["deleted_at"] for row in rows_of(tmp_path, "executions")} == {None}, "nothing tells"
    codes += [(await night(server, tmp_path, 3)).exit_code]

    gone = [row["execution_id"] for row in rows_of(tmp_path, "executions") if row["deleted_at"]]
    assert (codes, gone) == ([0, 0], [execution.execution_id])
