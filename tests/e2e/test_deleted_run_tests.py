"""Executions whose run test was deleted are asked for once: those that were deleted with or before it get their ``deleted_at``."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl import sandbox
from etl.errors import ConfigurationError, ExitCode, InterruptedRunError
from etl.extract import client
from etl.model.records import METRICS, RUN_TESTS, RUNS
from etl.pipeline import job, lists
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, RunTest, Sandbox, SandboxRequest, delete_execution
from etl.sandbox.world import add_run_test
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.e2e.truth import rows_of
from tests.support import settings_for
from tests.worlds import settled_world

NIGHT = datetime.now(UTC)
EXECUTIONS = 8
Export = Callable[..., Any]


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=2, executions=EXECUTIONS, calls=1)) as running:
        yield running


@pytest.fixture(params=["all", "by name"])
def export(server: Sandbox, tmp_path: Path, request: pytest.FixtureRequest) -> Export:
    """One night's export; each one is a day later than the one before."""
    nights = iter(range(1, 99))
    names = "all" if request.param == "all" else [run_test.name for run_test in server.world.run_tests]

    async def run(**options: Any) -> Summary:
        night = NIGHT + timedelta(days=next(nights))
        settings = settings_for(server, tmp_path / "data", run_tests=names)
        return await job.export(settings, clock=lambda: night, **options)

    return run


def delete_run_test(server: Sandbox) -> RunTest:
    """It is listed no more; its executions can still be had by their ids."""
    return server.world.run_tests.pop()


def look_ups(server: Sandbox) -> int:
    return sum(request.path == METRICS and "execution_id" in request.query for request in server.requests)


def deleted(folder: Path) -> set[str]:
    return {row["execution_id"] for row in rows_of(folder, "executions") if row["deleted_at"]}


async def test_execution_that_was_deleted_before_its_run_test_is_marked_and_the_others_are_asked_for_once(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    run_test = delete_run_test(server)
    gone = run_test.executions[3]
    delete_execution(gone)

    await export()
    assert deleted(tmp_path) == {gone.execution_id}
    assert len(rows_of(tmp_path, "executions")) == 2 * EXECUTIONS, "the rows stay"
    asked = look_ups(server)
    assert asked == EXECUTIONS

    stopped: asyncio.Future[InterruptedRunError] = asyncio.get_running_loop().create_future()
    stopped.set_result(InterruptedRunError("stopped", exit_code=ExitCode.SIGTERM))
    for stop in (None, stopped, None):
        await export(stop=stop)
    assert look_ups(server) == asked
    assert deleted(tmp_path) == {gone.execution_id}


async def test_executions_of_a_run_test_that_was_back_in_a_run_that_was_cut_short_are_asked_for_again(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    run_test = delete_run_test(server)
    await export()
    server.world.run_tests.append(run_test)
    stop: asyncio.Future[InterruptedRunError] = asyncio.get_running_loop().create_future()

    def stop_once_listed(event: str, **_: object) -> None:
        if event == "listed" and not stop.done():
            stop.set_result(InterruptedRunError("stopped", exit_code=ExitCode.SIGTERM))

    # The run is still at work then.
    sandbox.rerun_execution(run_test.executions[0], NIGHT)
    sandbox.finish_execution(run_test.executions[0], random.Random(1), NIGHT)
    server.fault = lambda request, _: Fault(is_hanging=True) if request.path == RUNS else None
    assert (await export(stop=stop, notify=stop_once_listed)).exit_code == ExitCode.SIGTERM
    server.fault = None
    gone = delete_run_test(server).executions[3]
    delete_execution(gone)
    await export()
    assert deleted(tmp_path) == {gone.execution_id}


async def test_executions_that_could_not_be_looked_up_are_asked_for_the_next_night(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    for execution in delete_run_test(server).executions:
        delete_execution(execution)
    server.fault = lambda request, _nth: Fault(status=503) if "execution_id" in request.query else None
    night = await export()
    assert deleted(tmp_path) == set()
    assert night.exit_code == 3
    assert [
        each
        for each in night.problems
        if each.endswith(
            "could not be looked up; the next run tries again, one with --accept-deletions for the last time"
        )
    ]
    server.fault = None
    night = await export()
    assert len(deleted(tmp_path)) == EXECUTIONS
    assert not [each for each in night.problems if "looked up" in each]


async def test_nothing_is_asked_for_while_the_key_sees_nothing_that_is_stored(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """As with a key of another workspace."""
    await export()
    stored, others = list(server.world.run_tests), settled_world(seed=7, run_tests=1, executions=1, calls=1)
    server.world.run_tests[:] = []
    others.run_tests[0].name = "Of another workspace"
    add_run_test(server.world, others.run_tests[0])
    for execution in (each for run_test in stored for each in run_test.executions):
        delete_execution(execution)
    refused = await export()
    assert refused.exit_code in (2, 3)
    assert deleted(tmp_path) == set()
    assert look_ups(server) <= 5

    await export(accept_deletions=True)
    assert len(deleted(tmp_path)) == 2 * EXECUTIONS


@pytest.mark.parametrize("fault", [Fault(status=502), Fault(body=b"<html>", headers={"Content-Type": "text/html"})])
async def test_what_cannot_be_looked_up_says_nothing_of_the_workspace(
    server: Sandbox, tmp_path: Path, fault: Fault
) -> None:
    """While the one run test that is stored is out of reach, the new one is exported."""
    first, new = server.world.run_tests
    settings = settings_for(server, tmp_path / "data", run_tests="all", api={"max_tries": 2})
    server.world.run_tests[:] = [first]
    await job.export(settings)
    server.world.run_tests[:] = [first, new]
    ids = {each.execution_id for each in first.executions}
    server.fault = lambda request, _nth: (
        fault if request.query.get("run_test_name") == first.name or request.query.get("execution_id") in ids else None
    )
    summary = await job.export(settings)

    assert summary.exit_code == 3
    assert {row["run_test_name"] for row in rows_of(tmp_path, "executions")} == {first.name, new.name}


async def test_name_that_cannot_be_listed_does_not_let_another_workspace_in(server: Sandbox, tmp_path: Path) -> None:
    """It may be the one that is stored, or one of theirs: both problems are told, and a listable name ends the first."""
    settings = settings_for(server, tmp_path / "data", run_tests="all")
    renamed, new = server.world.run_tests
    server.world.run_tests[:] = [renamed]
    await job.export(settings)
    renamed.name += " "
    server.world.run_tests[:] = [renamed, new]
    refused = await job.export(settings)
    renamed.name = renamed.name.strip()
    night = await job.export(settings)

    assert [each.exit_code for each in (refused, night)] == [2, 0]
    assert [("rename it" in problem, "another workspace" in problem) for problem in refused.problems] == [
        (False, True),
        (True, False),
    ]
    assert {row["run_test_name"] for row in rows_of(tmp_path, "executions")} == {renamed.name, new.name}


async def test_rows_that_the_api_cannot_list_any_more_say_nothing_of_the_workspace(
    server: Sandbox, tmp_path: Path
) -> None:
    """Beside them a new row is good: the list is incomplete, and what it has is exported."""
    settings = settings_for(server, tmp_path / "data", run_tests="all", api={"max_tries": 1})
    del server.world.run_tests[1:]
    run_test = server.world.run_tests[0]
    await job.export(settings)
    old = {each.execution_id for each in run_test.executions}
    new = sandbox.add_execution(server.world, run_test, random.Random(3), datetime.now(UTC) - timedelta(days=2), 2)

    def refuse_old_rows(request: SandboxRequest, _nth: int) -> Fault | None:
        if request.path not in (METRICS, RUNS) or "run_test_name" not in request.query:
            return None
        limit, page = int(request.query["limit"]), int(request.query["page"])
        rows = sandbox.listable_executions(server.world, run_test.name)[(page - 1) * limit : page * limit]
        return Fault(status=500) if any(each.execution_id in old for each in rows) else None

    server.fault = refuse_old_rows
    summary = await job.export(settings)
    assert summary.exit_code == 3
    assert new.execution_id in {row["execution_id"] for row in rows_of(tmp_path, "executions")}


async def test_run_test_that_was_deleted_is_no_reason_to_doubt_the_key_once_that_was_accepted(
    server: Sandbox, tmp_path: Path
) -> None:
    """Its executions can still be had by their ids, and another run test has its first execution later."""
    settings = settings_for(server, tmp_path / "data", run_tests="all")
    new = server.world.run_tests.pop()
    executions = new.executions[:]
    new.executions.clear()
    await job.export(settings)
    server.world.run_tests[:] = [new]
    nights = [await job.export(settings), await job.export(settings, accept_deletions=True), await job.export(settings)]
    new.executions.extend(executions)
    nights.append(await job.export(settings))

    assert [night.exit_code for night in nights] == [2, 0, 0, 0]
    exported = {row["execution_id"] for row in rows_of(tmp_path, "executions")}
    assert exported.issuperset(each.execution_id for each in executions)


async def test_many_run_tests_that_are_gone_at_once_are_a_problem_until_that_is_accepted(tmp_path: Path) -> None:
    """The key may see less than before, whatever the ids answer."""
    async with Sandbox(settled_world(names=["A", "B", "C", "D", "E"], executions=2, calls=1)) as server:
        settings = settings_for(server, tmp_path / "data", run_tests="all")
        await job.export(settings)
        gone = server.world.run_tests[1:]
        del server.world.run_tests[1:]
        delete_execution(gone[0].executions[0])
        nights = [await job.export(settings) for _ in range(2)]
        before = deleted(tmp_path)
        nights += [await job.export(settings, accept_deletions=True), await job.export(settings)]

    assert [night.exit_code for night in nights] == [3, 3, 0, 0]
    assert nights[1].problems[0].startswith("4 run tests in the dataset, such as b-")
    assert (before, deleted(tmp_path)) == (set(), {gone[0].executions[0].execution_id})


async def test_deletions_that_were_accepted_stay_so_although_some_could_not_be_looked_up(tmp_path: Path) -> None:
    async with Sandbox(settled_world(names=["A", "B", "C", "D", "E"], executions=2, calls=1)) as server:
        settings = settings_for(server, tmp_path / "data", run_tests="all", api={"max_tries": 1})
        await job.export(settings)
        gone = server.world.run_tests[1:]
        del server.world.run_tests[1:]
        silent = {run_test.executions[0].execution_id for run_test in gone}
        server.fault = lambda request, _nth: Fault(status=500) if request.query.get("execution_id") in silent else None
        nights = [await job.export(settings, accept_deletions=accept) for accept in (False, True, False)]
        server.fault = None
        delete_execution(gone[0].executions[0])
        nights += [await job.export(settings, accept_deletions=accept) for accept in (True, False)]

    assert [night.exit_code for night in nights] == [3, 3, 0, 0, 0]
    assert [len(night.problems) for night in nights] == [1, 4, 0, 0, 0]
    told = "1 execution left there could not be looked up; run again with --accept-deletions to try again"
    assert all(told in problem for problem in nights[1].problems)
    assert deleted(tmp_path) == {gone[0].executions[0].execution_id}


async def test_check_looks_for_the_dataset_where_most_of_it_lives(tmp_path: Path) -> None:
    """Not in the list of a run test whose executions were deleted, nor by ids of a run test that is gone."""
    async with Sandbox(settled_world(seed=5, names=["A", "B", "C"], executions=1, calls=1)) as server:
        emptied, gone, _ = server.world.run_tests
        rng = random.Random(3)
        for _ in range(60):
            sandbox.add_execution(server.world, gone, rng, datetime.now(UTC) - timedelta(days=9), 0)
        settings = settings_for(server, tmp_path / "data", run_tests="all")
        await job.export(settings)
        delete_execution(emptied.executions[0])
        server.world.run_tests.remove(gone)
        nights = [await job.export(settings, accept_deletions=True), await job.export(settings)]
        for execution in gone.executions:
            delete_execution(execution)
        write_settings(tmp_path, "all")
        checked = await metrics_etl("check", cwd=tmp_path, env=environment(server))

    assert [night.exit_code for night in nights] == [0, 0]
    assert checked.exit_code == 0, checked.stdout


async def test_few_deletions_are_no_other_workspace_for_a_run_of_a_new_run_test(
    server: Sandbox, tmp_path: Path
) -> None:
    settings = settings_for(server, tmp_path / "data", run_tests="all")
    await job.export(settings)
    stored = [execution for run_test in server.world.run_tests for execution in run_test.executions]
    for execution in sorted(stored, key=lambda each: each.execution_id)[:5]:
        delete_execution(execution)
    new = settled_world(seed=9, names=["New"], executions=2, calls=1).run_tests[0]
    add_run_test(server.world, new)
    assert (await job.export(settings.only(["New"]))).exit_code == 0
    assert {each.execution_id for each in new.executions} <= {
        row["execution_id"] for row in rows_of(tmp_path, "executions")
    }


async def test_night_that_fails_with_the_key_of_another_workspace_forgets_nothing(
    server: Sandbox, tmp_path: Path
) -> None:
    complete = await job.export(settings_for(server, tmp_path / "data", run_tests="all"))
    async with Sandbox(settled_world(seed=9, names=["Other"], executions=3, calls=2)) as other:
        other.fault = lambda request, _nth: Fault(status=502) if "run_test_name" in request.query else None
        failed = await job.export(settings_for(other, tmp_path / "data", run_tests="all", api={"max_tries": 1}))
    assert failed.exit_code == 5
    assert {key for key, at in failed.last_complete_at.items() if at} == complete.last_complete_at.keys()


@pytest.mark.parametrize(
    "names",
    [["Other", "More"], ["Checkout flow", "Other"], ["Checkout flow", "Empty"], ["Checkout flow", "Support triage"]],
)
@pytest.mark.parametrize("is_proved", [True, False])
async def test_key_of_another_workspace_is_told_although_the_api_answers_for_the_whole_organization(
    server: Sandbox, tmp_path: Path, names: list[str], *, is_proved: bool
) -> None:
    """Then each execution can be had by its id, whatever workspace it is in."""
    await job.export(settings_for(server, tmp_path / "data", run_tests="all"))
    before = rows_of(tmp_path, "executions")
    async with Sandbox(settled_world(seed=9, names=names, executions=3, calls=2)) as other:
        own = list(other.world.run_tests)
        if names[1] != "Other":  # of a name that is stored, too, and nothing ever ran there
            own[0].executions.clear()
        for run_test in server.world.run_tests:
            add_run_test(other.world, run_test)
        other.world.run_tests[:] = own
        one_more = Fault(edit=lambda body: body.replace(f'"count":{len(own)}'.encode(), b'"count":9'))
        other.fault = lambda request, _nth: one_more if request.path == RUN_TESTS and not is_proved else None
        nights = [await job.export(settings_for(other, tmp_path / "data", run_tests="all")) for _ in range(2)]

    assert [night.exit_code for night in nights] == [2, 2]
    assert rows_of(tmp_path, "executions") == before


@pytest.mark.parametrize("is_held_up", [False, True])
async def test_key_of_another_workspace_brings_nothing_into_the_dataset_on_any_night(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_held_up: bool
) -> None:
    """Once its rows lay there, those of the first workspace would look as if they had been deleted."""
    complete = await job.export(settings_for(server, tmp_path / "data", run_tests="all"))
    before = {table: rows_of(tmp_path, table) for table in ("executions", "calls", "evals")}
    async with Sandbox(settled_world(seed=9, names=["Checkout flow", "Other", "More"], executions=3, calls=2)) as other:
        if is_held_up:  # what the others need is fetched meanwhile, if nothing forbids it
            monkeypatch.setattr(lists, "_PATIENCE_SECONDS", 0.01)
            monkeypatch.setattr(client, "_BACKOFF_MAX_SECONDS", 0.25)
            other.fault = lambda request, _nth: (
                Fault(status=503) if request.query.get("run_test_name") == "More" else None
            )
        settings = settings_for(other, tmp_path / "data", run_tests="all", api={"max_tries": 4})
        nights = [await job.export(settings) for _ in range(2)]
        with pytest.raises(ConfigurationError, match="it may belong to another workspace"):
            await job.plan(settings)
        narrowed = await job.export(settings.only(["Other"]))
        write_settings(tmp_path, "all")
        checked = await metrics_etl("check", cwd=tmp_path, env=environment(other))

    assert [night.exit_code for night in (*nights, narrowed)] == [2, 2, 2]
    assert checked.exit_code == 2
    assert "the key sees none of the 16 executions that the dataset holds" in checked.stdout
    assert all(night.last_complete_at.keys() == complete.last_complete_at.keys() for night in nights)
    assert all(at for night in nights for at in night.last_complete_at.values())
    assert "the key sees none of the 16 executions that the dataset holds" in nights[1].problems[0]
    assert {table: rows_of(tmp_path, table) for table in before} == before
    assert (await job.export(settings_for(server, tmp_path / "data", run_tests="all"))).exit_code == 0
