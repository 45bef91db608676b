"""What analytics/ answers: eval results and averages of an execution. Pure."""

from collections.abc import Collection
from typing import Any

from etl.sandbox.aggregates import average, count, eval_averages, eval_results, total_duration
from etl.sandbox.answers.fields import explanations
from etl.sandbox.world import Execution, World, listable_executions


def execution_analytics(
    execution: Execution, *, eval_names: Collection[str] | None = None, summary: bool = True
) -> dict[str, Any]:
    """analytics/?execution_id=: the evals of an execution, and a summary of its calls."""
    calls = execution.calls
    return {
        "execution_id": execution.execution_id,
        "run_test_name": execution.run_test.name,
        "status": execution.status,
        "eval_results": eval_results(execution, eval_names),
        "eval_averages": eval_averages(calls),
        "system_summary": {
            "total_calls": len(calls),
            "completed_calls": count(calls, "completed"),
            "failed_calls": count(calls, "failed"),
            "avg_score": average((call.overall_score for call in calls), 1),
            "avg_response_time_ms": average((call.response_time_ms for call in calls), 0),
            "total_duration_seconds": total_duration(calls),
        },
        **(explanations(execution) if summary else {}),
    }


def latest_analytics(
    world: World, name: str, *, eval_names: Collection[str] | None = None, summary: bool = True
) -> dict[str, Any]:
    """analytics/?run_test_name=: the run test's execution that completed last, or a message if none has."""
    completed = [each for each in listable_executions(world, name) if each.status == "completed" and each.completed_at]
    if completed:
        latest = max(completed, key=lambda each: each.completed_at or each.created_at)
        return execution_analytics(latest, eval_names=eval_names, summary=summary)
    return {
        "run_test_name": name,
        "message": "No completed executions found.",
        "eval_results": [],
        "eval_averages": {},
        "system_summary": {},
    }
