"""Evals that the server cannot sum up make it refuse the list of their execution's calls, though each call can be had."""

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from etl.model.records import DETAIL, METRICS, RUNS
from etl.sandbox import Execution, Fault, Sandbox, SandboxRequest
from tests.e2e.truth import assert_equals_world, rows_of
from tests.pipeline.nights import Nights
from tests.worlds import settled_world

CALLS = 6
Export = Callable[..., Any]


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=1, executions=2, calls=CALLS)) as running:
        for execution in running.world.run_tests[0].executions:
            for call in execution.calls:
                call.status = "completed"
        yield running


@pytest.fixture
def export(server: Sandbox, tmp_path: Path) -> Export:
    """One night's export."""
    return partial(Nights(server, tmp_path).export, api={"max_tries": 2})


def odd_execution(server: Sandbox) -> Execution:
    return server.world.run_tests[0].executions[0]


def spoil_with_a_list(server: Sandbox) -> None:
    """One call has a list in place of its evals."""
    odd_execution(server).calls[2].eval_outputs = ["x"]  # type: ignore[assignment]


def requests_of(server: Sandbox, execution: Execution) -> dict[str, int]:
    """What was asked about the execution and its calls: its list with evals, without, its detail, entries and metrics."""
    calls = {call.call_execution_id for call in execution.calls}
    lists = [each.query for each in server.requests if each.query.get("execution_id") == execution.execution_id]
    by_call = [each.path for each in server.requests if each.query.get("call_execution_id") in calls]
    return {
        "list": sum("eval_name" not in each for each in lists),
        "without evals": sum("eval_name" in each for each in lists),
        "detail": sum(each.path == f"{DETAIL}{execution.execution_id}/" for each in server.requests),
        "entries": by_call.count(RUNS),
        "metrics": by_call.count(METRICS),
    }


@pytest.mark.parametrize("has_detail", [True, False])
async def test_list_that_is_500_first_and_does_not_answer_then_hides_no_call(
    server: Sandbox, export: Export, tmp_path: Path, *, has_detail: bool
) -> None:
    lists = iter([Fault(status=500)])

    def fail(request: SandboxRequest, _nth: int) -> Fault | None:
        if request.path.startswith(DETAIL):
            return None if has_detail else Fault(status=500)
        is_list = request.query.get("execution_id") == odd_execution(server).execution_id
        return next(lists, Fault(is_reset=True)) if is_list and "eval_name" not in request.query else None

    server.fault = fail
    summary = await export()
    assert (summary.exit_code, summary.problems) == (0, [])
    assert_equals_world(tmp_path, server.world)


async def test_execution_with_a_list_for_evals_is_found_by_its_detail(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    spoil_with_a_list(server)
    summary = await export()
    assert (summary.exit_code, summary.problems) == (0, [])
    assert_equals_world(tmp_path, server.world)
    [extra] = [row["extra"] for row in rows_of(tmp_path, "calls") if row["extra"]]
    assert json.loads(extra)["call_results"]["eval_outputs"] == ["x"], "what is no eval output is kept as it came"
    sent = {"list": 2, "without evals": 0, "detail": 1, "entries": CALLS, "metrics": CALLS}
    assert requests_of(server, odd_execution(server)) == sent
