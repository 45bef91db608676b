"""A call that is listed under two executions, or moves from one to another, stands once, and stops no run."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from etl.model.records import METRICS
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Call, Execution, Fault, Sandbox, SandboxRequest
from etl.sandbox.answers.metrics import execution_page
from tests.datasets import fill_parts_early
from tests.e2e.faults import edited_calls
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import cap_pages, settings_for
from tests.worlds import settled_world

FIRST_NIGHT = datetime(2026, 11, 5, 2, tzinfo=UTC)
Export = Callable[..., Any]


@pytest.fixture(autouse=True)
def _a_part_for_each_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_parts_early(monkeypatch, rows=1)


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=2, executions=4, calls=12)) as running:
        yield running


@pytest.fixture
def export(server: Sandbox, tmp_path: Path) -> Export:
    """One night's export; every execution has settled before the first."""
    nights = iter(range(99))

    async def run(*, names: list[str] | None = None, **sections: Any) -> Summary:
        night = FIRST_NIGHT + timedelta(days=next(nights))
        settings = settings_for(server, tmp_path / "data", run_tests=names, **sections)
        return await job.export(settings, clock=lambda: night)

    return run


def places(folder: Path, call: Call) -> dict[str, set[str]]:
    """The executions under which each table has the call; no key stands twice."""
    found = {}
    for table, key in (("calls", ("call_execution_id",)), ("evals", ("call_execution_id", "eval_config_id"))):
        rows = rows_of(folder, table)
        keys = [tuple(row[name] for name in key) for row in rows]
        assert len(keys) == len(set(keys)), f"{table}: a key stands twice"
        found[table] = {row["execution_id"] for row in rows if row["call_execution_id"] == call.call_execution_id}
    return found


def once_in(execution: Execution) -> dict[str, set[str]]:
    return {"calls": {execution.execution_id}, "evals": {execution.execution_id}}


def move(server: Sandbox, call: Call, source: Execution, target: Execution) -> None:
    source.calls.remove(call)
    target.calls.append(call)
    server.world.index_execution(target)


def also_lists(
    server: Sandbox, liar: Execution, call: Call, owner: Execution
) -> Callable[[SandboxRequest, int], Fault | None]:
    """The list of one execution names a call of another one, too."""

    def edit(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        outputs = {key: dict(value) for key, value in call.eval_outputs.items()}
        return [*calls, {**calls[0], "call_execution_id": call.call_execution_id, "eval_outputs": outputs}]

    assert call in owner.calls
    return lambda request, _nth: (
        edited_calls(server.world, request, edit) if request.query.get("execution_id") == liar.execution_id else None
    )


def pair(server: Sandbox, where: str) -> tuple[Execution, Execution]:
    first, second = server.world.run_tests
    return first.executions[-1], (first if where == "same run test" else second).executions[-2]


WHERE = ["same run test", "another run test"]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("page_limit", [pytest.param(1024, marks=pytest.mark.slow), 4])
async def test_call_that_two_executions_list_stands_under_the_one_that_it_names_itself(
    server: Sandbox, export: Export, tmp_path: Path, where: str, page_limit: int, *, is_known: bool
) -> None:
    owner, liar = pair(server, where)
    call = owner.calls[3]
    settings: dict[str, Any] = {"api": {"page_limit": page_limit}, "export": {"scrub_requests": 10_000}}
    cap_pages(server, page_limit)
    if is_known:
        await export(**settings)
    server.fault = also_lists(server, liar, call, owner)

    for _ in range(2):
        odd = await export(**settings)
        assert odd.exit_code == 3
        assert places(tmp_path, call) == once_in(owner)
        [letter] = rows_of(tmp_path, "errors")
        assert (letter["subject_id"], letter["execution_id"]) == (call.call_execution_id, liar.execution_id)
        assert f"belongs to execution {owner.execution_id}" in letter["message"]
        states = {row["execution_id"]: row["export_state"] for row in rows_of(tmp_path, "executions")}
        assert {each for each, state in states.items() if state != "exported"} == {liar.execution_id}

    assert server.count(METRICS, call_execution_id=call.call_execution_id) <= 6, "it is not retried"
    server.fault = None
    healed = await export(**settings)
    assert (healed.exit_code, healed.problems) == (0, [])
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("names", ["all", "target alone"])
async def test_call_that_moved_stands_in_its_new_place_alone(
    server: Sandbox, export: Export, tmp_path: Path, where: str, names: str
) -> None:
    """Also where the run is not about the old place."""
    await export()
    source, target = pair(server, where)
    call = source.calls[5]
    move(server, call, source, target)

    moved = await export(names=None if names == "all" else [target.run_test.name])

    assert (moved.exit_code, moved.problems) == (0, [])
    assert places(tmp_path, call) == once_in(target)
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)
    versions = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "calls").rglob("*.parquet")}
    assert (await export()).files == 0
    assert versions == {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "calls").rglob("*.parquet")}


async def test_call_that_a_killed_run_left_in_both_places_goes_in_a_quiet_night(
    server: Sandbox, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await export()
    source, target = pair(server, "another run test")
    listed = execution_page(server.world, source.run_test.name, limit="1024")
    unchanged = Fault(body=msgspec.json.encode({"status": True, "result": listed}))
    server.fault = lambda request, _nth: (
        unchanged if request.query.get("run_test_name") == source.run_test.name else None
    )
    move(server, source.calls[5], source, target)
    call = target.calls[-1]
    with monkeypatch.context() as killed:
        killed.setattr(job, "part_moved_calls", _do_nothing)
        await export(names=[target.run_test.name])
    ids = [row["call_execution_id"] for row in rows_of(tmp_path, "calls")]
    assert ids.count(call.call_execution_id) == 2

    healed = await export()

    assert (healed.exit_code, [each.reasons for each in healed.run_tests]) == (0, [{"final": 4}] * 2)
    assert places(tmp_path, call) == once_in(target)


async def _do_nothing(*_: object) -> None:
    """What a run does at its end that was killed before it."""


@pytest.mark.parametrize("where", WHERE)
async def test_call_that_moves_while_the_run_reads_it_stands_where_it_was_seen_last(
    server: Sandbox, export: Export, tmp_path: Path, where: str
) -> None:
    """The old place was read before the move, the new one after it: each of them has the call's own word."""
    source, target = pair(server, where)
    call = source.calls[5]

    def move_once_read(request: SandboxRequest) -> None:
        is_target = request.query.get("execution_id") == target.execution_id
        if is_target and server.count(METRICS, call_execution_id=call.call_execution_id) and call in source.calls:
            move(server, call, source, target)

    server.on_request = move_once_read
    await export(api={"concurrency": 1})
    assert call in target.calls
    server.on_request = None

    assert places(tmp_path, call) == once_in(target)
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)
