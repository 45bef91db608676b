"""What a source answers that is odd but not a change: unknown statuses, poisoned rows, calls that never answer, no times."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl import sandbox
from etl.model.findings import Kind
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Execution, Fault, RunTest, Sandbox
from tests.datasets import fill_parts_early
from tests.e2e.truth import assert_equals_world, rows_of
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


def newest(run_test: RunTest) -> Execution:
    return run_test.executions[-1]


def state_of(folder: Path, execution: Execution) -> dict[str, Any]:
    (row,) = (row for row in rows_of(folder, "executions") if row["execution_id"] == execution.execution_id)
    return row


def ids(run_test: RunTest) -> set[str]:
    return {execution.execution_id for execution in run_test.executions}


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
    assert [each.kind for each in summary.findings] == [Kind.NEW_STATUS] * 2
    assert all(word in notice for word, notice in zip(("'archived'", "'on_hold'"), summary.notices, strict=True))
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
    assert [each.kind for each in third.findings] == [Kind.NEW_STATUS_ENDED]
    assert not third.run_tests[0].is_complete
    ids = [row["execution_id"] for row in rows_of(tmp_path, "calls")]
    assert ids.count(execution.execution_id) == len(execution.calls)


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


async def test_documented_spelling_gives_the_same_dataset(tmp_path: Path) -> None:
    world = settled_world(run_tests=2, executions=4, calls=10)
    documented = Fault(
        edit=lambda body: body.replace(b'"system_metrics"', b'"customer_latency_metrics"').replace(
            b'"breakdown"', b'"customer_cost_breakdown"'
        )
    )
    async with Sandbox(world, fault=lambda _request, _nth: documented) as server:
        summary = await job.export(settings_for(server, tmp_path / "data"))

    assert summary.exit_code == 0
    assert_equals_world(tmp_path, world)


async def test_rate_limited_server_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    """A window of one second stands for the real minute; without headers the first refusal teaches the limit."""
    world = settled_world(run_tests=1, executions=4, calls=20)
    async with Sandbox(world, rate_limit=60, rate_window_seconds=1.0) as server:
        summary = await job.export(settings_for(server, tmp_path / "data"))

    assert summary.exit_code == 0
    assert summary.rejections == 0
    assert_equals_world(tmp_path, world)
