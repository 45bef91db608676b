"""What happens at the source between two nights: deleted, renamed, moved, rerun, never seen before, poisoned."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import etl
from etl import sandbox
from etl.errors import DestinationError, ExitCode, InterruptedRunError
from etl.extract import calls
from etl.inspect.rules import Kind
from etl.inspect.status import read_status
from etl.inspect.verdict import judge
from etl.inspect.verify import verify
from etl.load import relocate
from etl.load.dataset import Dataset
from etl.load.files.local import LocalFiles
from etl.load.layout import Part, Scope
from etl.model.records import DETAIL, METRICS, RUNS
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Execution, Fault, RunTest, Sandbox, SandboxRequest
from etl.sandbox.error_bodies import not_found
from tests.datasets import fill_parts_early
from tests.e2e.truth import assert_equals_world, call_rows, execution_rows, rows_of
from tests.support import settings_for
from tests.worlds import settled_world

NIGHT = datetime.now(UTC)
Export = Callable[..., Any]


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    world = settled_world(run_tests=2, executions=12, calls=3)
    del world.run_tests[1].executions[:-4]
    async with Sandbox(world) as running:
        yield running


@pytest.fixture
def export(server: Sandbox, tmp_path: Path) -> Export:
    """One night's export; each one is a day later than the one before."""
    nights = iter(range(1, 99))

    async def run(
        *,
        names: list[Any] | None = None,
        settings: dict[str, Any] | None = None,
        at: datetime | None = None,
        **options: Any,
    ) -> Summary:
        night = at or NIGHT + timedelta(days=next(nights))
        configured = settings_for(server, tmp_path / "data", run_tests=names, **(settings or {}))
        return await job.export(configured, clock=lambda: night, **options)

    return run


@pytest.fixture(autouse=True)
def _a_part_for_each_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_parts_early(monkeypatch, rows=1)


def holds(data: bytes | memoryview, execution: Execution) -> bool:
    """Whether a file of this content has a row of the execution."""
    return execution.execution_id in pq.ParquetFile(pa.BufferReader(data)).read()["execution_id"].to_pylist()


def folder_of(folder: Path, execution: Execution) -> str:
    """The name of the folder in which the execution's row lies."""
    paths = (folder / "data" / "executions").rglob("*.parquet")
    return next(path.parent.name for path in paths if holds(path.read_bytes(), execution))


def newest(run_test: RunTest) -> Execution:
    return run_test.executions[-1]


def state_of(folder: Path, execution: Execution) -> dict[str, Any]:
    (row,) = (row for row in rows_of(folder, "executions") if row["execution_id"] == execution.execution_id)
    return row


async def test_deleted_execution_keeps_its_rows_and_says_since_when(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    gone = newest(server.world.run_tests[0])
    calls = [row for row in rows_of(tmp_path, "calls") if row["execution_id"] == gone.execution_id]
    sandbox.delete_execution(gone)

    summary = await export()
    again = await export()

    assert (summary.exit_code, again.exit_code) == (0, 0)
    assert state_of(tmp_path, gone)["deleted_at"] == NIGHT + timedelta(days=2)
    assert [row for row in rows_of(tmp_path, "calls") if row["execution_id"] == gone.execution_id] == calls
    assert (summary.run_tests[0].deleted, again.run_tests[0].deleted) == (1, 0)
    assert "1 execution deleted at the source" in summary.notices[0]
    assert again.requests == 2, "it is not asked for again"


async def test_execution_that_comes_back_is_not_deleted_any_more(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    gone = newest(server.world.run_tests[0])
    gone.is_deleted = True
    await export()
    gone.is_deleted = False

    summary = await export()

    assert summary.run_tests[0].reasons["changed"] == 1
    assert state_of(tmp_path, gone)["deleted_at"] is None
    assert_equals_world(tmp_path, server.world)


async def test_execution_from_before_since_that_comes_back_is_not_deleted_any_more(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """Its deletion was told whatever ``since`` says, so must its return be."""
    names = [{"name": each.name, "since": "2030-01-01"} for each in server.world.run_tests]
    await export()
    gone = newest(server.world.run_tests[0])
    gone.is_deleted = True
    assert (await export(names=names)).run_tests[0].deleted == 1
    gone.is_deleted = False

    assert (await export(names=names)).exit_code == 0
    assert state_of(tmp_path, gone)["deleted_at"] is None
    assert_equals_world(tmp_path, server.world)


def not_found_by_id(request: SandboxRequest, _nth: int) -> Fault | None:
    """Each list of executions is right, and none of them is found."""
    if "execution_id" in request.query or request.path.startswith(DETAIL):
        return Fault(status=404, body=msgspec.json.encode(not_found("Test execution")))
    return None


@pytest.mark.parametrize("options", [None, {}, {"full_refresh": True}], ids=["first export", "settling", "refresh"])
async def test_executions_that_are_listed_but_not_found_by_id_are_missed(
    server: Sandbox, export: Export, tmp_path: Path, options: dict[str, Any] | None
) -> None:
    settings = {"export": {"settle_hours": 8_760}}
    before = None if options is None else await export(settings=settings)
    server.fault = not_found_by_id

    sick = await export(settings=settings, **(options or {}))

    assert sick.exit_code == 3
    assert len(sick.problems) == 2
    assert "'Checkout flow': 12 rows of its list cannot be read: execution " in sick.problems[0]
    assert "listed, but not found by its id" in sick.problems[0]
    assert (sick.complete_at is None) is (before is None)
    assert sick.complete_at is None or sick.complete_at < sick.started_at
    server.fault = None
    healed = await export(settings=settings)
    assert (healed.exit_code, healed.problems) == (0, [])
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("is_gone_for_good", [True, False], ids=["deleted", "list fails"])
async def test_execution_that_is_deleted_after_it_was_listed_is_not_missed(
    server: Sandbox, export: Export, tmp_path: Path, *, is_gone_for_good: bool
) -> None:
    """The list is read once more to know that; when it cannot be, the run does not claim it."""
    gone = newest(server.world.run_tests[0])

    def delete_when_listed(request: SandboxRequest) -> None:
        if request.path == RUNS and not gone.is_deleted:
            sandbox.delete_execution(gone)

    server.on_request = delete_when_listed
    if not is_gone_for_good:
        server.fault = lambda request, _nth: (
            Fault(status=400, body=b"{}") if gone.is_deleted and "run_test_name" in request.query else None
        )
    summary = await export()

    assert (summary.exit_code == 0) is is_gone_for_good
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_execution_that_ends_after_a_part_of_it_was_saved_is_missed_until_the_next_night(
    server: Sandbox, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_deleted: bool
) -> None:
    """It is deleted then, or it loses a call and its list cannot be read again; its row vouches for what was saved."""
    monkeypatch.setattr(calls, "_MOST_IN_HAND", 2)
    execution = newest(server.world.run_tests[0])
    sought = dict[str, None]()

    def delete_before_the_last_call(request: SandboxRequest) -> None:
        if request.query.get("call_execution_id") in {each.call_execution_id for each in execution.calls}:
            sought[request.query["call_execution_id"]] = None
            if len(sought) == len(execution.calls) and is_deleted:
                sandbox.delete_execution(execution)
            elif len(sought) == len(execution.calls):
                last = next(each for each in execution.calls if each.call_execution_id == [*sought][-1])
                sandbox.delete_call(last)
                server.fault = lambda request, _nth: Fault(status=400) if request.path == RUNS else None

    server.on_request = delete_before_the_last_call
    summary = await export(settings={"api": {"concurrency": 1}})
    server.on_request = server.fault = None
    status = judge(read_status(LocalFiles(tmp_path / "data"), now=NIGHT + timedelta(days=1, hours=1)))
    held = state_of(tmp_path, execution)
    assert (held["export_state"], held["exported_calls"]) == ("incomplete", len(execution.calls) - 1)
    assert (summary.exit_code, status.is_good) == (3, False)
    found = verify(settings_for(server, tmp_path / "data"), Scope()).findings
    assert {each.kind for each in found} == {Kind.DEAD_LETTER}

    assert (await export()).problems == []
    assert bool(state_of(tmp_path, execution)["deleted_at"]) is is_deleted
    assert rows_of(tmp_path, "errors") == []


async def test_many_executions_that_vanish_at_once_change_nothing_until_it_is_said_that_they_may(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """A key of another workspace sees none of them: that must not look like the end of the data."""
    await export()
    for execution in server.world.run_tests[0].executions[:5]:
        sandbox.delete_execution(execution)

    suspicious = await export()
    assert suspicious.exit_code == 3
    assert "5 of its 12 stored executions are no longer listed" in suspicious.problems[0]
    assert "--accept-deletions" in suspicious.problems[0]
    assert all(row["deleted_at"] is None for row in rows_of(tmp_path, "executions"))

    accepted = await export(accept_deletions=True)
    assert (accepted.exit_code, accepted.run_tests[0].deleted) == (0, 5)
    assert sum(row["deleted_at"] is not None for row in rows_of(tmp_path, "executions")) == 5


async def test_deletions_are_not_looked_for_in_a_list_that_is_not_proved(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    run_test = server.world.run_tests[0]
    sandbox.delete_execution(run_test.executions[0])
    poison(run_test.executions[1])

    summary = await export()

    assert summary.exit_code == 3
    assert state_of(tmp_path, run_test.executions[0])["deleted_at"] is None


async def test_execution_that_exists_but_is_not_listed_is_not_taken_for_deleted(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """Its run test was renamed, and a namesake of the old name remains: nobody exports the new name."""
    await export()
    first, second = server.world.run_tests
    moved = newest(first)
    first.executions.remove(moved)
    second.executions.append(moved)

    summary = await export(names=[first.name])

    assert summary.exit_code == 0
    assert summary.run_tests[0].not_listed == 1
    assert state_of(tmp_path, moved)["deleted_at"] is None


@pytest.mark.parametrize("state", ["incomplete", "waiting"])
async def test_unfinished_execution_that_exists_but_is_not_listed_is_missing(
    server: Sandbox, export: Export, tmp_path: Path, state: str
) -> None:
    first, second = server.world.run_tests
    moved = newest(first)
    bad = moved.calls[0].call_execution_id
    if state == "waiting":
        moved.status = "running"
    else:
        server.fault = lambda request, _nth: Fault(status=500) if bad in request.target else None
    await export()
    assert state_of(tmp_path, moved)["export_state"] == state
    server.fault = None
    moved.status = "completed"
    first.executions.remove(moved)
    second.executions.append(moved)

    for _ in range(2):
        summary = await export(names=[first.name])
        assert (summary.exit_code, [first.name in problem for problem in summary.problems]) == (3, [True])
        assert "1 stored execution no longer listed, and incomplete or waiting" in summary.problems[0]
        assert not any("no longer listed" in notice for notice in summary.notices)

    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_execution_that_is_not_listed_and_could_not_be_looked_up_is_missing(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    gone = newest(server.world.run_tests[0])
    sandbox.delete_execution(gone)
    server.fault = lambda request, _nth: Fault(status=500) if gone.execution_id in request.target else None

    sick = await export(settings={"api": {"max_tries": 1}})

    assert (sick.exit_code, sick.run_tests[0].is_whole) == (3, False)
    assert "1 stored execution no longer listed, and could not be looked up" in sick.problems[0]
    server.fault = None
    assert (await export()).exit_code == 0
    assert state_of(tmp_path, gone)["deleted_at"] is not None


@pytest.mark.parametrize("is_old_name_configured", [False, True])
async def test_renamed_run_test_moves_without_a_request_for_any_call(
    server: Sandbox, export: Export, tmp_path: Path, *, is_old_name_configured: bool
) -> None:
    await export()
    first, second = server.world.run_tests
    old = first.name
    sandbox.rename_run_test(first, "Checkout, all new")
    sent = len(server.requests)

    summary = await export(names=[first.name, second.name, *([old] if is_old_name_configured else [])])

    assert summary.exit_code == (3 if is_old_name_configured else 0), "a run test that does not exist is told"
    assert summary.run_tests[0].moved == 12
    assert not any("call_execution_id" in request.query for request in server.requests[sent:])
    assert_equals_world(tmp_path, server.world)
    places = {path.name for path in (tmp_path / "data" / "calls").iterdir() if any(path.rglob("*.parquet"))}
    assert places == {f"run_test={run_test.key}" for run_test in summary.run_tests[:2]}
    assert (await export(names=[first.name, second.name])).files == 0


async def test_execution_deleted_while_its_run_test_is_renamed_is_marked(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    first, second = server.world.run_tests
    gone, calls = newest(first), len(rows_of(tmp_path, "calls"))
    sandbox.delete_execution(gone)
    sandbox.rename_run_test(first, "Checkout, all new")

    summary = await export(names=[first.name, second.name])

    assert (summary.exit_code, summary.run_tests[0].moved) == (0, 11)
    assert any("1 execution deleted at the source" in notice for notice in summary.notices)
    assert state_of(tmp_path, gone)["deleted_at"] == NIGHT + timedelta(days=2)
    assert not any("stay there" in notice for notice in summary.notices)
    assert len(rows_of(tmp_path, "calls")) == calls


@pytest.mark.parametrize("are_all_named", [True, False])
async def test_executions_that_vanish_in_large_numbers_during_a_rename_are_believed_when_it_is_said(
    server: Sandbox, export: Export, tmp_path: Path, *, are_all_named: bool
) -> None:
    """A list of the wrong workspace shows one of them by chance: nothing may be marked for that, in no later night either."""
    first, second = server.world.run_tests
    names: Any = [f"{first.name}, new", second.name] if are_all_named else "all"
    await export(names=None if are_all_named else "all")
    sandbox.rename_run_test(first, f"{first.name}, new")
    vanished = first.executions[:11]
    for execution in vanished:
        sandbox.delete_execution(execution)

    for _ in range(2):
        doubted = await export(names=names)
        assert doubted.exit_code == 3
        assert any("11 of the 12 executions stored under" in problem for problem in doubted.problems)
        assert [row["deleted_at"] for row in rows_of(tmp_path, "executions")] == [None] * 16
    believed = await export(names=names, accept_deletions=True)
    assert believed.exit_code == 0
    assert any("11 executions deleted at the source" in notice for notice in believed.notices)
    assert sum(row["deleted_at"] is not None for row in rows_of(tmp_path, "executions")) == 11


@pytest.mark.parametrize("are_all_named", [True, False])
async def test_list_that_is_short_during_a_rename_is_believed_the_second_time(
    server: Sandbox, export: Export, tmp_path: Path, *, are_all_named: bool
) -> None:
    """It may lack new executions, too: the first night must not be green."""
    first, second = server.world.run_tests
    names: Any = [f"{first.name}, new", second.name] if are_all_named else "all"
    await export(names=None if are_all_named else "all")
    sandbox.rename_run_test(first, f"{first.name}, new")
    hidden, first.executions[1:] = first.executions[1:], []
    before = rows_of(tmp_path, "executions")

    doubted = await export(names=names)
    assert (doubted.exit_code, rows_of(tmp_path, "executions")) == (3, before)
    assert any("11 of the 12 executions stored under" in problem for problem in doubted.problems)
    believed = await export(names=names)
    assert (believed.exit_code, sum(each.moved for each in believed.run_tests)) == (0, 1)
    first.executions += hidden
    whole = await export(names=names)
    assert (whole.exit_code, sum(each.moved for each in whole.run_tests)) == (0, 11)
    assert_equals_world(tmp_path, server.world)


async def test_new_key_or_new_name_under_the_old_key_moves_the_rows(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    first, second = server.world.run_tests
    await export(names=[first.name, second.name])
    sent = len(server.requests)

    rekeyed = await export(names=[{"name": first.name, "key": "checkout"}, second.name])
    sandbox.rename_run_test(first, "Checkout, all new")
    renamed = await export(names=[{"name": first.name, "key": "checkout"}, second.name])

    assert (rekeyed.exit_code, renamed.exit_code) == (0, 0)
    assert len(server.requests) - sent == 4, "two lists each"
    assert_equals_world(tmp_path, server.world)
    assert {row["run_test"] for row in rows_of(tmp_path, "calls")} == {"checkout", renamed.run_tests[1].key}


async def test_executions_that_vanish_while_their_run_test_gets_another_key_are_doubted_and_asked_for_once(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """None of them moves, so nothing but the name tells whose they are."""
    first, second = server.world.run_tests
    names: Any = [{"name": first.name, "key": "checkout"}, second.name]
    await export()
    for execution in first.executions:
        sandbox.delete_execution(execution)
    sandbox.add_execution(server.world, first, random.Random(1), NIGHT - timedelta(days=3), 2)

    for _ in range(2):
        doubted = await export(names=names)
        assert doubted.exit_code == 3
        assert any("12 of the 12 executions stored under" in problem for problem in doubted.problems)
        assert [row["deleted_at"] for row in rows_of(tmp_path, "executions")] == [None] * 16
    believed = await export(names=names, accept_deletions=True)
    assert believed.exit_code == 0
    assert any("12 executions deleted at the source" in notice for notice in believed.notices)
    assert sum(row["deleted_at"] is not None for row in rows_of(tmp_path, "executions")) == 12
    sent = len(server.requests)
    quiet = await export(names=names)
    assert (quiet.exit_code, quiet.notices) == (0, [])
    assert not [each for each in server.requests[sent:] if "execution_id" in each.query and each.path == METRICS]


async def test_execution_that_a_renamed_run_test_left_behind_is_marked_although_a_run_was_stopped_before(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """Once the others have moved, nothing tells where it lies."""
    await export()
    first, second = server.world.run_tests
    gone = newest(first)
    sandbox.delete_execution(gone)
    sandbox.rename_run_test(first, "Checkout, all new")
    stop: asyncio.Future[InterruptedRunError] = asyncio.get_running_loop().create_future()

    def interrupt(request: SandboxRequest) -> None:
        if request.query.get("execution_id") == gone.execution_id and not stop.done():
            stop.set_result(InterruptedRunError("stop", exit_code=ExitCode.SIGTERM))

    server.on_request = interrupt
    codes = [(await export(names=[first.name, second.name], stop=each)).exit_code for each in (stop, None)]
    assert codes == [ExitCode.SIGTERM, 0]
    assert state_of(tmp_path, gone)["deleted_at"] is not None


async def test_rerun_of_a_moved_execution_keeps_its_old_calls_until_it_has_finished(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    first, second = server.world.run_tests
    execution = newest(first)
    sandbox.rename_run_test(first, "Checkout, all new")
    sandbox.rerun_execution(execution, NIGHT)

    await export(names=[first.name, second.name])
    assert state_of(tmp_path, execution)["export_state"] == "waiting"
    assert sum(row["execution_id"] == execution.execution_id for row in rows_of(tmp_path, "calls")) == 3

    sandbox.finish_execution(execution, random.Random(1), NIGHT)
    await export(names=[first.name, second.name])
    assert_equals_world(tmp_path, server.world)


async def test_plan_of_a_renamed_run_test_knows_that_nothing_is_fetched(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    first, second = server.world.run_tests
    sandbox.rename_run_test(first, "Checkout, all new")
    before = bytes_of_files(tmp_path)

    plan = await job.plan(settings_for(server, tmp_path / "data", run_tests=[first.name, second.name]))

    assert plan.requests == 0
    assert plan.run_tests[0].reasons == {"final": 12}
    assert bytes_of_files(tmp_path) == before


async def test_execution_whose_start_came_later_or_moved_to_another_month_is_read_by_its_day(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """Its rows stay in the folder that took them."""
    moved, late = server.world.run_tests[0].executions[:2]
    start, late.started_at = late.started_at, None  # type: ignore[assignment]
    await export()
    late.started_at = start
    moved.started_at += timedelta(days=70)
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)

    data = tmp_path / "data"
    for execution in (moved, late):
        day = execution.started_at.date()
        executions = etl.read_table(data, "executions", since=day, until=day)
        calls = etl.read_calls(data, since=day, until=day)
        assert execution.execution_id in {*executions["execution_id"]} & {*calls["execution_id"]}
    settings = settings_for(server, data)
    scope = Scope(since=moved.started_at.date())
    report = verify(settings, scope, needs_aggregates=True)
    assert {*report.executions} == {moved.execution_id}
    shutil.rmtree(data / "_state")
    assert {*etl.read_calls(data, since=scope.since)["execution_id"]} == {moved.execution_id}, "so do the files"


async def test_scrub_finds_what_the_listing_does_not_show(server: Sandbox, export: Export, tmp_path: Path) -> None:
    """A call that was deleted and a cost that came long after the end leave the execution's own listing as it was."""
    await export()
    first, _ = server.world.run_tests
    sandbox.delete_call(first.executions[3].calls[1])
    first.executions[7].calls[0].total_cost_cents = 77
    unseen = await export()
    assert unseen.run_tests[0].reasons == {"final": 12}

    for _ in range(4):
        summary = await export(settings={"export": {"scrub_requests": 4 * 4}})
        assert sum(run_test.reasons["scrub"] for run_test in summary.run_tests) == 4
        assert summary.requests <= 2 + 4 * 4 + 2 * 2, "what has changed is compared once more"
    assert (await export()).run_tests[0].reasons == {"final": 12}

    assert_equals_world(tmp_path, server.world)
    nights = {row["verified_at"] for row in rows_of(tmp_path, "executions")}
    assert nights == {NIGHT + timedelta(days=day) for day in (3, 4, 5, 6)}, "the longest unverified came first"


async def test_status_never_seen_before_counts_as_running_and_is_told(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    newest(server.world.run_tests[0]).status = "archived"
    server.world.run_tests[1].executions[0].calls[0].status = "on_hold"

    summary = await export()

    assert summary.exit_code == 0
    assert [notice.partition(": ")[2] for notice in summary.notices] == [
        "the status 'archived', which this version does not know, occurs 1 time: such executions and calls count as not finished",
        "the status 'on_hold', which this version does not know, occurs 1 time: such executions and calls count as not finished",
    ]
    assert state_of(tmp_path, newest(server.world.run_tests[0]))["export_state"] == "waiting"
    assert state_of(tmp_path, server.world.run_tests[1].executions[0])["export_state"] == "settling"


async def test_execution_that_settles_in_a_status_never_seen_before_is_a_problem_until_its_calls_are_exported(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """An API of a newer version may end executions in other words."""
    execution = newest(server.world.run_tests[0])
    execution.status = "archived"
    first, second, third = [await export(at=NIGHT + timedelta(hours=hours)) for hours in (0, 23, 25)]
    everything = await export(at=NIGHT + timedelta(hours=26), settings={"export": {"calls": "all"}})

    assert [each.exit_code for each in (first, second, third, everything)] == [0, 0, 3, 0]
    (problem,) = third.problems
    assert problem.endswith(
        "the calls of 1 execution are not fetched: this version does not know the status 'archived', which no longer changes: "
        'upgrade, or set [export] calls = "all"'
    )
    assert not third.run_tests[0].is_whole
    ids = [row["execution_id"] for row in rows_of(tmp_path, "calls")]
    assert ids.count(execution.execution_id) == len(execution.calls)


async def test_two_run_tests_of_one_name_are_exported_as_one(tmp_path: Path) -> None:
    world = settled_world(names=["Checkout", "Checkout", "Other"], executions=3, calls=2)
    async with Sandbox(world) as server:
        summary = await job.export(settings_for(server, tmp_path / "data"))

    assert (summary.exit_code, summary.run_tests[0].listed) == (0, 6)
    assert_equals_world(tmp_path, world)


async def test_execution_without_any_time_is_exported_and_settles(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    execution = newest(server.world.run_tests[0])
    execution.started_at = execution.completed_at = None  # type: ignore[assignment]

    states = []
    for _ in range(3):
        await export()
        states.append(state_of(tmp_path, execution)["export_state"])

    assert states == ["settling", "exported", "exported"]
    assert_equals_world(tmp_path, server.world)
    first_seen = f"month={NIGHT + timedelta(days=1):%Y-%m}"
    assert folder_of(tmp_path, execution) == first_seen


async def test_poisoned_execution_costs_no_other_row_and_heals(server: Sandbox, export: Export, tmp_path: Path) -> None:
    """One fractional token count makes every page that holds its execution a 500."""
    poisoned = server.world.run_tests[0].executions[5]
    poison(poisoned)

    summary = await export()

    assert summary.exit_code == 3
    rows = {row["execution_id"]: row for row in rows_of(tmp_path, "executions")}
    assert rows.keys() == {key for run_test in server.world.run_tests for key in ids(run_test)}
    assert rows[poisoned.execution_id]["export_state"] == "incomplete"
    assert rows[poisoned.execution_id]["calls_total"] is None
    assert {row["call_execution_id"] for row in rows_of(tmp_path, "calls")} == {
        key for (key,) in call_rows(server.world)
    }
    (error,) = rows_of(tmp_path, "errors")
    assert (error["subject_id"], error["status"]) == (poisoned.execution_id, 500)

    poisoned.calls[0].chat_metrics = {"total_tokens": 12}
    healed = await export()
    assert healed.exit_code == 0
    assert rows_of(tmp_path, "errors") == []
    assert_equals_world(tmp_path, server.world)


async def test_execution_that_is_poisoned_later_keeps_what_was_known(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    poisoned = server.world.run_tests[0].executions[5]
    known = execution_rows(server.world)[(poisoned.execution_id,)]
    poison(poisoned)

    summary = await export()

    assert summary.exit_code == 3
    row = state_of(tmp_path, poisoned)
    assert {name: row[name] for name in known} == known
    assert (row["export_state"], row["exported_calls"]) == ("incomplete", 3)


def bytes_of_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ids(run_test: RunTest) -> set[str]:
    return {execution.execution_id for execution in run_test.executions}


async def test_run_that_takes_too_long_stops_in_order_and_the_next_goes_on(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """One call never answers: the run would wait for it for a minute and more."""
    slow = server.world.run_tests[0].executions[0].calls[0].call_execution_id
    server.fault = lambda request, _nth: (
        sandbox.Fault(is_hanging=True) if request.query.get("call_execution_id") == slow else None
    )

    stopped = await export(settings={"export": {"max_runtime_minutes": 0.02}})

    assert (stopped.exit_code, stopped.outcome) == (3, "partial")
    assert "max_runtime_minutes" in stopped.problems[0]
    assert stopped.rows["calls"] == 16 * 3 - 1, "all but the call that never came"
    states = [row["export_state"] for row in rows_of(tmp_path, "executions")]
    assert sorted(states) == ["exported"] * 15 + ["incomplete"]

    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_execution_of_which_no_call_can_be_had_does_not_end_the_night(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    bad = sandbox.add_execution(server.world, server.world.run_tests[0], random.Random(99), NIGHT, 120)
    server.fault = lambda request, _nth: (
        sandbox.Fault(status=500)
        if request.query.get("call_execution_id") in {call.call_execution_id for call in bad.calls}
        else None
    )

    for _ in range(2):
        summary = await export(settings={"api": {"max_tries": 1}})
        assert summary.exit_code == 3
        assert summary.run_tests[0].dead_letters == 120

    assert len(rows_of(tmp_path, "errors")) == 120
    assert len(rows_of(tmp_path, "calls")) == 16 * 3


async def test_executions_that_exist_elsewhere_are_told_once_and_need_no_word_from_you(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """A namesake was renamed to something that nobody exports: the workspace is the right one."""
    first, second = server.world.run_tests
    sandbox.rename_run_test(second, first.name)
    await export(names=[first.name])
    sandbox.rename_run_test(second, "Nobody's")

    nights = [await export(names=[first.name]) for _ in range(3)]

    assert [(each.exit_code, each.run_tests[0].not_listed) for each in nights] == [(3, 4), (0, 4), (0, 4)]
    assert "4 of its 16 stored executions are missing from its list, although they exist" in nights[0].problems[0]

    assert all(row["deleted_at"] is None for row in rows_of(tmp_path, "executions"))


async def test_list_that_lacks_many_is_believed_the_second_time_whatever_was_exported_meanwhile(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """Some have a job for each run test, and some runs end before they know what a list lacks."""
    first, second = server.world.run_tests
    sandbox.rename_run_test(second, first.name)
    sandbox.add_run_test(server.world, sandbox.RunTest(run_test_id="3", name="Third", created_at=first.created_at))
    await export(names=[first.name])
    sandbox.rename_run_test(second, "Nobody's")
    stopped: asyncio.Future[InterruptedRunError] = asyncio.get_running_loop().create_future()
    stopped.set_result(InterruptedRunError("stopped", exit_code=ExitCode.SIGTERM))

    turns = [(await export(names=[name])).exit_code for name in (first.name, "Third", first.name)]
    assert turns == [3, 0, 0]
    assert (await export(names=[first.name], stop=stopped)).exit_code == ExitCode.SIGTERM
    assert (await export(names=[first.name])).exit_code == 0


async def test_list_that_was_whole_again_in_a_run_that_was_cut_short_is_not_believed_at_once(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    first, second = server.world.run_tests
    sandbox.rename_run_test(second, first.name)
    await export(names=[first.name])
    sandbox.rename_run_test(second, "Nobody's")
    assert (await export(names=[first.name])).exit_code == 3
    sandbox.rename_run_test(second, first.name)
    sandbox.rerun_execution(newest(first), NIGHT)
    sandbox.finish_execution(newest(first), random.Random(1), NIGHT)
    stop: asyncio.Future[InterruptedRunError] = asyncio.get_running_loop().create_future()

    def stop_once_planned(event: str, **_: object) -> None:
        if event == "planned":
            stop.set_result(InterruptedRunError("stopped", exit_code=ExitCode.SIGTERM))

    server.fault = lambda request, _: Fault(is_hanging=True) if request.path == RUNS else None
    cut_short = await export(names=[first.name], stop=stop, notify=stop_once_planned)
    server.fault = None
    sandbox.rename_run_test(second, "Nobody's")
    turns = [(await export(names=[first.name])).exit_code for _ in range(2)]
    assert (cut_short.exit_code, turns) == (ExitCode.SIGTERM, [3, 0])


async def test_dead_letters_of_a_deleted_execution_go(server: Sandbox, export: Export, tmp_path: Path) -> None:
    gone = newest(server.world.run_tests[0])
    bad = gone.calls[0].call_execution_id
    server.fault = lambda request, _nth: (
        sandbox.Fault(status=500) if request.query.get("call_execution_id") == bad else None
    )
    assert (await export()).exit_code == 3
    sandbox.delete_execution(gone)

    assert (await export()).exit_code == 0
    assert rows_of(tmp_path, "errors") == []


async def test_execution_that_cannot_be_listed_is_told_in_the_right_words_whatever_since_says(
    server: Sandbox, tmp_path: Path
) -> None:
    first, *_ = server.world.run_tests
    poison(first.executions[0])
    day = first.executions[-1].started_at.date()
    settings = settings_for(server, tmp_path / "data").only([first.name], since=day)

    plan = await job.plan(settings)
    summary = await job.export(settings)

    assert "1 row of its list cannot be read" in summary.problems[0]
    assert plan.problems == summary.problems


def poison(execution: Execution) -> None:
    execution.calls[0].chat_metrics = {"total_tokens": 12.5}


@pytest.mark.parametrize("step", ["executions", pytest.param("drop", marks=pytest.mark.slow)])
async def test_move_that_was_cut_short_is_finished_even_if_the_execution_was_deleted_since(
    server: Sandbox, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first, second = server.world.run_tests
    gone = newest(first)
    await export()
    sandbox.rename_run_test(first, "Checkout, all new")

    def fail(*_: Any, **__: Any) -> None:
        raise DestinationError("no")

    publish = LocalFiles.publish

    def fail_at_executions(files: LocalFiles, path: str, data: bytes) -> None:
        if path.startswith("executions/"):
            fail()
        publish(files, path, data)

    if step == "drop":
        monkeypatch.setattr("etl.load.relocate.drop", fail)
    else:
        monkeypatch.setattr(LocalFiles, "publish", fail_at_executions)
    assert (await export(names=[first.name, second.name])).exit_code == 6
    monkeypatch.undo()
    sandbox.delete_execution(gone)

    for _ in range(2):
        assert (await export(names=[first.name, second.name])).exit_code == 0

    assert_each_once(tmp_path)
    assert state_of(tmp_path, gone)["execution_id"] == gone.execution_id


async def test_deleted_execution_that_a_cut_move_left_in_a_run_test_that_is_not_exported_breaks_nothing(
    server: Sandbox, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = server.world.run_tests
    gone = newest(first)
    await export()
    sandbox.rename_run_test(first, "Checkout, all new")

    drop = relocate.drop

    def fail_at_its_part(dataset: Dataset, part: Part, execution_ids: set[str]) -> None:
        if gone.execution_id in execution_ids:
            raise DestinationError("no")
        drop(dataset, part, execution_ids)

    monkeypatch.setattr(relocate, "drop", fail_at_its_part)
    assert (await export(names=[first.name, second.name])).exit_code == 6
    monkeypatch.undo()
    sandbox.delete_execution(gone)
    (there,) = [
        path
        for path in (tmp_path / "data" / "calls").rglob("*.parquet")
        if "new" in path.parts[-3] and holds(path.read_bytes(), gone)
    ]
    there.unlink()

    for _ in range(2):
        assert (await export(names=[first.name, second.name])).exit_code == 0

    assert_each_once(tmp_path)
    assert len([row for row in rows_of(tmp_path, "calls") if row["execution_id"] == gone.execution_id]) == len(
        gone.calls
    )


@contextmanager
def dying_before_the_row_of(execution: Execution, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An export inside writes the execution's calls and dead letters, and fails at its own row."""
    publish = LocalFiles.publish

    def fail(files: LocalFiles, path: str, data: bytes) -> None:
        if path.startswith("executions/") and holds(data, execution):
            raise DestinationError("no")
        publish(files, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "publish", fail)
        yield


async def test_dead_letter_of_an_execution_that_was_deleted_before_it_had_a_row_goes(
    server: Sandbox, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = server.world.run_tests
    sick = newest(first)
    server.fault = lambda request, _nth: Fault(status=500) if sick.execution_id in request.target else None
    with dying_before_the_row_of(sick, monkeypatch):
        assert (await export()).exit_code == 6
    assert [row["execution_id"] for row in rows_of(tmp_path, "errors")] == [sick.execution_id]
    server.fault = None
    sandbox.delete_execution(sick)

    assert (await export()).exit_code == 0

    assert rows_of(tmp_path, "errors") == []
    assert sick.execution_id not in {row["execution_id"] for row in rows_of(tmp_path, "executions")}
    sent = len(server.requests)
    assert (await export()).exit_code == 0
    assert not [each for each in server.requests[sent:] if each.query.get("execution_id") == sick.execution_id]


@pytest.mark.parametrize("is_running", [True, False])
async def test_dead_letter_of_a_run_that_was_killed_before_the_row_goes_with_the_next(
    server: Sandbox, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_running: bool
) -> None:
    """Its execution's row says that nothing is wrong: it waits, or is final."""
    sick = newest(server.world.run_tests[0])
    if is_running:
        sandbox.rerun_execution(sick, NIGHT)
    await export()
    healthy = sick.calls[0].chat_metrics
    if is_running:
        poison(sick)
    else:
        server.fault = lambda request, _nth: Fault(status=500) if sick.execution_id in request.target else None
    with dying_before_the_row_of(sick, monkeypatch):
        assert (await export(full_refresh=True)).exit_code == 6
    assert [row["execution_id"] for row in rows_of(tmp_path, "errors")] == [sick.execution_id]
    server.fault = None
    sick.calls[0].chat_metrics = healthy

    assert (await export()).exit_code == 0

    assert rows_of(tmp_path, "errors") == []
    assert_equals_world(tmp_path, server.world)


def assert_each_once(folder: Path) -> None:
    for table, key in (("executions", "execution_id"), ("calls", "call_execution_id")):
        found = [row[key] for row in rows_of(folder, table)]
        assert len(found) == len(set(found))


async def test_executions_that_stay_under_a_name_that_is_gone_are_told(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    first, second = server.world.run_tests
    left = newest(first)
    sandbox.delete_execution(left)
    sandbox.rename_run_test(first, "Checkout, all new")
    server.fault = lambda request, _nth: (
        Fault(status=400) if request.query.get("execution_id") == left.execution_id else None
    )

    summary = await export(names=[first.name, second.name])

    assert summary.exit_code == 3
    assert summary.problems[0].endswith(
        "1 execution left there could not be looked up; the next run tries again, one with --accept-deletions for the last time"
    )
    assert any("1 execution left there, no longer in any list" in notice for notice in summary.notices)
    assert_each_once(tmp_path)

    for is_answered in (False, True, True):
        server.fault = server.fault if not is_answered else None
        sent = len(server.requests)
        summary = await export(names=[first.name, second.name])
        assert summary.exit_code == (0 if is_answered else 3)
    assert state_of(tmp_path, left)["deleted_at"]
    assert not [each for each in server.requests[sent:] if "execution_id" in each.query], "asked for once"


async def test_files_that_are_restored_under_another_month_double_nothing(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """Without a start an execution lies under the month in which it was first seen, and that month was lost meanwhile."""
    execution = newest(server.world.run_tests[0])
    execution.started_at = None  # type: ignore[assignment]
    await export()
    paths = [
        path
        for table in ("executions", "calls", "evals")
        for path in (tmp_path / "data" / table).rglob(f"month={NIGHT + timedelta(days=1):%Y-%m}/part-*.parquet")
    ]
    assert len(paths) == 3
    backup = {path: path.read_bytes() for path in paths}
    for path in paths:
        path.unlink()
    await export(at=NIGHT + timedelta(days=40))
    for path, content in backup.items():
        path.write_bytes(content)

    for _ in range(2):
        assert (await export()).exit_code == 0

    assert_each_once(tmp_path)
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("since", ["there", "deleted", "failing"])
async def test_execution_whose_newest_row_is_not_where_it_is_listed_is_compared_with_that_row(
    server: Sandbox, export: Export, tmp_path: Path, since: str
) -> None:
    """Its row under that run test says what the list says, so that the payload is let go; then a newer row takes its place."""
    first, _ = server.world.run_tests
    execution, before = newest(first), newest(first).calls[0].duration_seconds
    execution.calls[0].duration_seconds = 1
    key = (await export(names=[first.name])).run_tests[0].key
    tables = [path for path in (tmp_path / "data").iterdir() if path.name in {"executions", "calls", "evals"}]
    for table in tables:
        shutil.copytree(table, tmp_path / "older" / table.name)
    execution.calls[0].duration_seconds = before
    await export(names=[first.name])
    for table in tables:
        (table / f"run_test={key}").rename(table / "run_test=elsewhere")
        shutil.copytree(tmp_path / "older" / table.name, table, dirs_exist_ok=True)
    execution.calls[0].duration_seconds = 1

    def once_asked_for(request: Any, _nth: int) -> Fault | None:
        if request.query.get("execution_id") != execution.execution_id or since == "there":
            return None
        if since == "deleted":
            sandbox.delete_execution(execution)
            return None
        return Fault(status=500)

    server.fault = once_asked_for
    summary = await export(names=[first.name], settings={"api": {"max_tries": 1}})
    server.fault = None

    assert summary.exit_code == (3 if since == "failing" else 0)
    assert summary.run_tests[0].reasons == {"final": 11} | ({"changed": 1} if since == "there" else {})
    assert summary.requests == summary.necessary_requests
    server.world.run_tests.remove(server.world.run_tests[1])
    healed = await export(names=[first.name])
    assert (healed.exit_code, healed.run_tests[0].deleted) == (0, since == "deleted")
    if since != "deleted":
        assert_equals_world(tmp_path, server.world)
    assert_each_once(tmp_path)


async def test_file_that_cannot_be_read_is_set_aside_even_if_its_run_test_is_not_exported(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """Whoever reads the whole dataset would stumble over it."""
    first, _ = server.world.run_tests
    path = min((tmp_path / "data" / "calls").glob(f"run_test={(await export()).run_tests[1].key}/*/*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])

    narrowed = await export(names=[first.name])

    assert narrowed.exit_code == 3
    assert "unreadable file set aside" in narrowed.problems[0]
    assert not path.exists()
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_dead_letter_of_an_execution_of_which_nothing_else_is_left_moves_and_heals(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    first, second = server.world.run_tests
    poison(newest(first))
    newest(first).status = "running"
    await export()
    assert len(rows_of(tmp_path, "errors")) == 1
    for path in (tmp_path / "data" / "executions").rglob("*.parquet"):
        path.unlink()
    newest(first).calls[0].chat_metrics = None

    assert (await export(names=[{"name": first.name, "key": "alpha"}, second.name])).exit_code == 0
    assert rows_of(tmp_path, "errors") == []
