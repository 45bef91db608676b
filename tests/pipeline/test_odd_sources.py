"""What a source answers that is odd but not a change: unknown statuses, poisoned rows, calls that never answer, no times."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.model.findings import Kind
from etl.pipeline import job
from etl.sandbox import Execution, Fault, Sandbox
from tests.datasets import fill_parts_early
from tests.e2e.truth import assert_equals_world, rows_of
from tests.pipeline.nights import NIGHT, Nights, kinds
from tests.support import settings_for
from tests.worlds import settled_world


@pytest.fixture(autouse=True)
def _a_part_for_each_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_parts_early(monkeypatch, rows=1)


def state_of(nights: Nights, execution: Execution) -> Any:
    (row,) = (row for row in nights.rows("executions") if row["execution_id"] == execution.execution_id)
    return row["export_state"]


async def test_scrub_finds_what_the_listing_does_not_show(nights: Nights, tmp_path: Path) -> None:
    """A call that was deleted and a cost that came long after the end leave the execution's own listing as it was."""
    await nights.export()
    first, _ = nights.world.run_tests
    first.executions[3].calls[1].is_deleted = True
    first.executions[7].calls[0].total_cost_cents = 77
    unseen = await nights.export()
    assert unseen.run_tests[0].reasons == {"final": 10}

    for _ in range(4):
        summary = await nights.export(export={"scrub_requests": 4 * 4})
        assert sum(run_test.reasons["scrub"] for run_test in summary.run_tests) == 4
        assert summary.requests <= 2 + 4 * 4 + 2 * 2, "what has changed is compared once more"
    assert (await nights.export()).run_tests[0].reasons == {"final": 10}

    assert_equals_world(tmp_path, nights.world)
    verified = {row["verified_at"] for row in nights.rows("executions")}
    assert verified == {NIGHT + timedelta(days=day) for day in (3, 4, 5, 6)}, "the longest unverified came first"


async def test_status_never_seen_before_counts_as_running_and_is_told(nights: Nights) -> None:
    first, second = nights.world.run_tests
    first.executions[-1].status = "archived"
    second.executions[0].calls[0].status = "on_hold"

    summary = await nights.export()

    assert (summary.exit_code, kinds(summary)) == (0, [Kind.NEW_STATUS] * 2)
    assert all(word in notice for word, notice in zip(("'archived'", "'on_hold'"), summary.notices, strict=True))
    assert (state_of(nights, first.executions[-1]), state_of(nights, second.executions[0])) == ("waiting", "settling")


async def test_run_that_takes_too_long_stops_in_order_and_the_next_goes_on(nights: Nights, tmp_path: Path) -> None:
    """One call never answers: the run would wait for it for a minute and more."""
    slow = nights.world.run_tests[0].executions[0].calls[0].call_execution_id
    nights.server.fault = lambda request, _nth: (
        Fault(is_hanging=True) if request.query.get("call_execution_id") == slow else None
    )

    stopped = await nights.export(export={"max_runtime_minutes": 0.02})

    assert (stopped.exit_code, stopped.outcome) == (3, "partial")
    assert "max_runtime_minutes" in stopped.problems[0]
    assert stopped.rows["calls"] == 14 * 3 - 1, "all but the call that never came"
    states = [row["export_state"] for row in rows_of(tmp_path, "executions")]
    assert sorted(states) == ["exported"] * 13 + ["incomplete"]

    nights.server.fault = None
    assert (await nights.export()).exit_code == 0
    assert_equals_world(tmp_path, nights.world)


async def test_run_that_is_stopped_leaves_the_state_of_what_it_did_not_verify(nights: Nights) -> None:
    """Some calls of an execution have arrived by then, and say what is stored."""
    await nights.export()
    before = {row["execution_id"]: (row["export_state"], row["verified_at"]) for row in nights.rows("executions")}
    execution = nights.world.run_tests[0].executions[0]
    slow = execution.calls[0].call_execution_id
    nights.server.fault = lambda request, _nth: (
        Fault(is_hanging=True) if request.query.get("call_execution_id") == slow else None
    )
    stopped = await nights.export(export={"scrub_requests": 999, "max_runtime_minutes": 0.02})
    after = {row["execution_id"]: (row["export_state"], row["verified_at"]) for row in nights.rows("executions")}
    nights.server.fault = None

    assert (stopped.exit_code, (await nights.export()).requests) == (3, 2)
    assert after[execution.execution_id] == before[execution.execution_id]
    assert {state for state, _ in after.values()} == {"exported"}


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
