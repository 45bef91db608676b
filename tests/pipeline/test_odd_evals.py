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


def spoil_with_a_number(server: Sandbox) -> None:
    """The output of one eval has a type that cannot be summed up."""
    config = server.world.run_tests[0].eval_configs[0]
    for call in odd_execution(server).calls:
        output = {"name": config.name, "output": 0.5, "output_type": "numeric", "reason": "r"}
        call.eval_outputs = call.eval_outputs | {config.config_id: output}


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
        "detail": sum(each.path.startswith(DETAIL) for each in server.requests),
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


async def test_call_that_no_list_can_give_is_missing_alone_where_there_is_no_detail(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    spoil_with_a_list(server)
    server.fault = lambda request, _nth: Fault(status=404) if request.path.startswith(DETAIL) else None
    summary = await export()
    assert summary.exit_code == 3
    [letter] = rows_of(tmp_path, "errors")
    assert (letter["endpoint"], letter["subject_id"]) == (RUNS, odd_execution(server).execution_id)
    assert letter["message"].startswith("1 of its calls cannot be listed: ")
    lost = odd_execution(server).calls[2].call_execution_id
    calls = {call.call_execution_id for each in server.world.run_tests[0].executions for call in each.calls}
    assert {row["call_execution_id"] for row in rows_of(tmp_path, "calls")} == calls - {lost}
    evals = {row["call_execution_id"] for row in rows_of(tmp_path, "evals")}
    assert {call.call_execution_id for call in odd_execution(server).calls if call.eval_outputs} - {lost} <= evals

    server.fault = None
    healed = await export()
    assert (healed.exit_code, healed.problems) == (0, [])
    assert_equals_world(tmp_path, server.world)


async def test_call_whose_entry_fails_is_a_dead_letter_of_its_own_and_keeps_its_rows(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    before = {table: rows_of(tmp_path, table) for table in ("calls", "evals")}
    bad = odd_execution(server).calls[1]
    spoil_with_a_number(server)
    odd_execution(server).calls[0].duration_seconds = 1234  # the list of executions shows it

    def refuse(request: SandboxRequest, _nth: int) -> Fault | None:
        is_entry = request.path == RUNS and request.query.get("call_execution_id") == bad.call_execution_id
        return Fault(status=500) if is_entry else None

    server.fault = refuse
    summary = await export(export={"settle_by": "refetch"})
    assert summary.exit_code == 3
    [letter] = rows_of(tmp_path, "errors")
    assert (letter["endpoint"], letter["subject_id"], letter["status"]) == (RUNS, bad.call_execution_id, 500)
    for table, rows in before.items():
        old = [each for each in rows if each["call_execution_id"] == bad.call_execution_id]
        assert [each for each in rows_of(tmp_path, table) if each["call_execution_id"] == bad.call_execution_id] == old

    server.fault = None
    healed = await export()
    assert (healed.exit_code, healed.problems) == (0, [])
    assert_equals_world(tmp_path, server.world)
