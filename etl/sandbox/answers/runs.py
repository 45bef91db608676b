"""What runs/ answers: calls with their eval outputs, and executions with their eval results. Pure."""

from collections.abc import Collection
from typing import Any

from etl.sandbox.aggregates import eval_results
from etl.sandbox.answers.fields import call_cost, call_latency, eval_outputs, execution_head, page_of, timestamp
from etl.sandbox.world import Call, Execution, World, listable_calls, listable_executions


def run_call(call: Call, execution: Execution, eval_names: Collection[str] | None = None) -> dict[str, Any]:
    """runs/?call_execution_id=: a call with its times and eval outputs."""
    return {
        "call_execution_id": call.call_execution_id,
        "execution_id": execution.execution_id,
        "scenario_id": call.scenario.scenario_id,
        "scenario_name": call.scenario.name,
        "status": call.status,
        "started_at": timestamp(call.started_at),
        "completed_at": timestamp(call.completed_at),
        "duration_seconds": call.duration_seconds,
        "ended_reason": call.ended_reason,
        "call_summary": call.call_summary,
        "eval_outputs": eval_outputs(call, eval_names),
        "latency": call_latency(call),
        "cost": call_cost(call),
    }


def run_execution(
    execution: Execution,
    page: str | None = None,
    limit: str | None = None,
    max_limit: int | None = None,
    *,
    eval_names: Collection[str] | None = None,
) -> dict[str, Any]:
    """runs/?execution_id=: eval results, and a page of the calls, last updated first.

    Raises:
        PastTheEndError: there is no such page.
    """
    found = page_of(listable_calls(execution), page, limit, max_limit)
    rows = [
        {
            "call_execution_id": call.call_execution_id,
            "scenario_id": call.scenario.scenario_id,
            "scenario_name": call.scenario.name,
            "status": call.status,
            "duration_seconds": call.duration_seconds,
            "eval_outputs": eval_outputs(call, eval_names),
        }
        for call in found["results"]
    ]
    return {
        **execution_head(execution),
        "eval_results": eval_results(execution, eval_names),
        "call_results": {**found, "results": rows},
    }


def runs_page(
    world: World,
    name: str,
    page: str | None = None,
    limit: str | None = None,
    max_limit: int | None = None,
    *,
    eval_names: Collection[str] | None = None,
) -> dict[str, Any]:
    """runs/?run_test_name=: executions with eval results, newest first.

    Raises:
        PastTheEndError: there is no such page.
    """
    found = page_of(listable_executions(world, name), page, limit, max_limit)
    rows = [{**execution_head(each), "eval_results": eval_results(each, eval_names)} for each in found["results"]]
    return {**found, "results": rows}
