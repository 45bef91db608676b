"""What a source answers that is odd but no change: unknown statuses, stops, documented spellings, nesting."""

from typing import Any

import pytest

from etl.model.findings import Kind
from etl.sandbox import Fault
from etl.sandbox.world import SimulatedExecution
from tests.datasets import fill_parts_early
from tests.pipeline.nights import Nights, kinds


@pytest.fixture(autouse=True)
def _a_part_for_each_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_parts_early(monkeypatch, rows=1)


def state_of(nights: Nights, execution: SimulatedExecution) -> Any:
    (row,) = (row for row in nights.rows("executions") if row["execution_id"] == execution.execution_id)
    return row["export_state"]


async def test_status_never_seen_before_counts_as_running_and_is_told(nights: Nights) -> None:
    first, second = nights.world.run_tests
    first.executions[-1].status = "archived"
    second.executions[0].calls[0].status = "on_hold"

    summary = await nights.export()

    assert (summary.exit_code, kinds(summary)) == (0, [Kind.NEW_STATUS] * 2)
    assert all(word in notice for word, notice in zip(("'archived'", "'on_hold'"), summary.notices, strict=True))
    assert (state_of(nights, first.executions[-1]), state_of(nights, second.executions[0])) == ("waiting", "settling")


async def test_run_that_is_stopped_leaves_the_state_of_what_it_did_not_verify(nights: Nights) -> None:
    """Some calls of an execution have arrived by then, and say what is stored."""
    await nights.export()
    before = {row["execution_id"]: (row["export_state"], row["verified_at"]) for row in nights.rows("executions")}
    execution = nights.world.run_tests[0].executions[0]
    slow = execution.calls[0].call_execution_id
    nights.server.fault = lambda request, _nth: (
        Fault(is_hanging=True) if request.query.get("call_execution_id") == slow else None
    )
    stopped = await nights.export(full_refresh=True, export={"max_runtime_minutes": 0.02})
    after = {row["execution_id"]: (row["export_state"], row["verified_at"]) for row in nights.rows("executions")}
    nights.server.fault = None

    assert (stopped.exit_code, (await nights.export()).requests) == (3, 2)
    assert after[execution.execution_id] == before[execution.execution_id]
    assert {state for state, _ in after.values()} == {"exported"}
