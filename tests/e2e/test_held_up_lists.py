"""A run test whose list is slow, retried or searched for a bad row holds back no other run test."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.extract import client
from etl.model.records import METRICS
from etl.pipeline import job, lists
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, SandboxRequest, delete_execution, rename_run_test
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import settings_for
from tests.worlds import settled_world

FIRST_NIGHT = datetime(2026, 10, 30, 20, tzinfo=UTC)
EXECUTIONS, CALLS = 6, 2
Export = Callable[..., Any]


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """One list is waited for shortly, and retried long enough for the others to be fetched."""
    monkeypatch.setattr(lists, "_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(client, "_BACKOFF_MAX_SECONDS", 0.5)


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=2, executions=EXECUTIONS, calls=CALLS)) as running:
        yield running


@pytest.fixture
def export(server: Sandbox, tmp_path: Path) -> Export:
    """One night's export, one request at a time unless told otherwise."""
    nights = iter(range(99))

    async def run(*, full_refresh: bool = False, **options: Any) -> Summary:
        night = FIRST_NIGHT + timedelta(hours=next(nights))
        api = {"max_tries": 20, "concurrency": 2}
        settings = settings_for(server, tmp_path / "data", api=api, **options)
        return await job.export(settings, full_refresh=full_refresh, clock=lambda: night)

    return run


def names(server: Sandbox) -> tuple[str, str]:
    quick, slow = (run_test.name for run_test in server.world.run_tests)
    return quick, slow


def is_list_of(request: SandboxRequest, name: str) -> bool:
    return request.path == METRICS and request.query.get("run_test_name") == name


def run_test_of(server: Sandbox, request: SandboxRequest) -> str | None:
    """The run test of the call whose metrics are asked for."""
    found = server.world.call(request.query.get("call_execution_id", ""))
    return found[0].run_test.name if found and request.path == METRICS else None


def hold_up(server: Sandbox, name: str, until: Callable[[], bool]) -> None:
    """Each request for the run test's list is refused until then."""

    def refuse(request: SandboxRequest, _nth: int) -> Fault | None:
        return Fault(status=503) if is_list_of(request, name) and not until() else None

    server.fault = refuse


def calls_fetched(server: Sandbox, name: str) -> int:
    return sum(run_test_of(server, request) == name for request in server.requests)


async def test_calls_of_one_run_test_are_fetched_while_the_list_of_another_is_retried(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    quick, slow = names(server)
    hold_up(server, slow, lambda: calls_fetched(server, quick) > 0)  # it would never end without
    summary = await export()
    assert (summary.exit_code, summary.problems) == (0, [])
    assert [each.executions for each in summary.run_tests] == [EXECUTIONS, EXECUTIONS]
    assert_equals_world(tmp_path, server.world)
    fetched = [request.target for request in server.requests if run_test_of(server, request)]
    assert len(fetched) == len(set(fetched)) == 2 * EXECUTIONS * CALLS, "none is fetched twice"


async def test_call_that_moved_is_counted_once_where_moved_calls_are_looked_for_twice(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """After what was fetched early, and before the rows of the renamed run test move."""
    quick, _ = names(server)
    await export(export={"settle_hours": 0})
    source, target, *_ = server.world.run_tests[0].executions
    call = source.calls.pop()
    target.calls.append(call)
    server.world.index_execution(target)
    for execution in (source, target):
        execution.total_calls = len(execution.calls)
    rename_run_test(server.world.run_tests[1], "Renamed")
    server.requests.clear()
    hold_up(server, "Renamed", lambda: calls_fetched(server, quick) > 0)
    summary = await export(run_tests=[quick, "Renamed"], export={"settle_hours": 0})

    assert (summary.exit_code, summary.run_tests[1].moved) == (0, EXECUTIONS)
    assert "1 call moved to another execution; the old rows were removed" in summary.notices
    row = next(row for row in rows_of(tmp_path, "executions") if row["execution_id"] == source.execution_id)
    assert row["listed_calls"] == row["exported_calls"] == len(source.calls)


async def test_what_settles_waits_for_what_the_list_that_is_held_up_may_bring(server: Sandbox, export: Export) -> None:
    quick, slow = names(server)
    for run_test in server.world.run_tests:
        for execution in run_test.executions:
            execution.completed_at = FIRST_NIGHT - timedelta(hours=1)
    await export(run_tests=[quick])
    server.requests.clear()
    hold_up(server, slow, lambda: sum(is_list_of(request, slow) for request in server.requests) > 3)
    summary = await export(export={"settle_by": "refetch"})
    assert summary.exit_code == 0
    order = [name for request in server.requests if (name := run_test_of(server, request))]
    assert order == [slow] * EXECUTIONS * CALLS + [quick] * EXECUTIONS * CALLS


async def test_list_that_comes_after_a_while_does_not_wait_for_the_last_one(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=3, executions=2, calls=CALLS)) as server:
        first, second, third = (run_test.name for run_test in server.world.run_tests)

        def refuse(request: SandboxRequest, _nth: int) -> Fault | None:
            is_refused = (is_list_of(request, second) and not calls_fetched(server, first)) or (
                is_list_of(request, third) and not calls_fetched(server, second)
            )
            return Fault(status=503) if is_refused else None

        server.fault = refuse  # either would be given up otherwise
        summary = await job.export(settings_for(server, tmp_path / "data", api={"max_tries": 20}))
        assert (summary.exit_code, summary.problems) == (0, [])
        assert_equals_world(tmp_path, server.world)


async def test_run_test_that_may_have_lost_an_execution_to_another_waits_for_its_list(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    _, slow = names(server)
    await export()
    delete_execution(server.world.run_tests[0].executions[0])
    server.requests.clear()
    hold_up(server, slow, lambda: sum(is_list_of(request, slow) for request in server.requests) > 3)
    summary = await export(full_refresh=True)
    assert (summary.exit_code, summary.run_tests[0].deleted) == (0, 1)
    first_call = next(number for number, each in enumerate(server.requests) if run_test_of(server, each))
    assert sum(is_list_of(request, slow) for request in server.requests[:first_call]) > 3
    assert len([row for row in rows_of(tmp_path, "executions") if row["deleted_at"]]) == 1


async def test_run_that_ends_before_the_last_list_claims_nothing_of_it(server: Sandbox, export: Export) -> None:
    _, slow = names(server)

    def refuse(request: SandboxRequest, _nth: int) -> Fault | None:
        if is_list_of(request, slow):
            return Fault(status=503)
        return Fault(status=401) if run_test_of(server, request) else None

    server.fault = refuse
    summary = await export()
    assert summary.exit_code == 4
    assert [each.is_complete for each in summary.run_tests] == [True, False]
    assert [each.missed for each in summary.run_tests] == [EXECUTIONS, 0]
    assert not any(each.executions for each in summary.run_tests)
