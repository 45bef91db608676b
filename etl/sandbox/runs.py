"""What runs/ answers: calls with their eval outputs, and executions with their eval results. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from etl.sandbox.fields import (
    COST,
    LATENCY,
    AnswerError,
    execution_head,
    fields_of,
    page_of,
    percentile,
    timestamp,
)
from etl.sandbox.world import Call, EvalConfig, Execution, World, listable_calls, listable_executions

SUMMED_UP = ("Pass/Fail", "score", "choices")
EVAL_PERCENTILES = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)


def run_call(call: Call, execution: Execution, query: Mapping[str, str]) -> dict[str, Any]:
    """runs/?call_execution_id=: a call with its times and eval outputs.

    Raises:
        AnswerError: the eval outputs cannot be filtered by name.
    """
    return {
        **_call_head(call, query),
        "execution_id": execution.execution_id,
        "started_at": timestamp(call.started_at),
        "completed_at": timestamp(call.completed_at),
        "ended_reason": call.ended_reason,
        "call_summary": call.call_summary,
        "latency": fields_of(call, LATENCY),
        "cost": fields_of(call, COST),
    }


def run_execution(execution: Execution, query: Mapping[str, str], max_limit: int | None = None) -> dict[str, Any]:
    """runs/?execution_id=: eval results, and a page of the calls, last updated first.

    Raises:
        AnswerError: there is no such page, or the eval outputs cannot be summed up or filtered by name.
    """
    found = page_of(listable_calls(execution), query, max_limit)
    calls = [_call_head(call, query) for call in found["results"]]
    return {**_execution(execution, query), "call_results": {**found, "results": calls}}


def runs_page(world: World, query: Mapping[str, str], max_limit: int | None = None) -> dict[str, Any]:
    """runs/?run_test_name=: executions with eval results, newest first.

    Raises:
        AnswerError: there is no such page, or eval outputs cannot be summed up.
    """
    found = page_of(listable_executions(world, query["run_test_name"]), query, max_limit)
    return {**found, "results": [_execution(each, query) for each in found["results"]]}


def eval_results(execution: Execution, eval_names: Collection[str] | None = None) -> list[dict[str, Any]]:
    """One entry per eval of the run test, from the completed calls that are not deleted.

    Raises:
        AnswerError: an eval has no object as its output, or one of a type that cannot be summed up.
    """
    calls = [call for call in listable_calls(execution) if call.status == "completed" and call.eval_outputs]
    configs = [each for each in execution.run_test.eval_configs if eval_names is None or each.name in eval_names]
    return [_eval_result(config, calls) for config in configs]


def _call_head(call: Call, query: Mapping[str, str]) -> dict[str, Any]:
    return {
        "call_execution_id": call.call_execution_id,
        "scenario_id": call.scenario.scenario_id,
        "scenario_name": call.scenario.name,
        "status": call.status,
        "duration_seconds": call.duration_seconds,
        "eval_outputs": _eval_outputs(call, _eval_names(query)),
    }


def _execution(execution: Execution, query: Mapping[str, str]) -> dict[str, Any]:
    return {**execution_head(execution), "eval_results": eval_results(execution, _eval_names(query))}


def _eval_names(query: Mapping[str, str]) -> set[str] | None:
    names = {name.strip() for name in query.get("eval_name", "").split(",")} - {""}
    return names or None


def _eval_outputs(call: Call, eval_names: Collection[str] | None) -> dict[str, Any]:
    """The call's eval outputs by config id; only those of ``eval_names``, in any case, unless it is None."""
    if eval_names is None:
        return call.eval_outputs
    if not isinstance(call.eval_outputs, dict):
        raise AnswerError("eval outputs that are no object")
    objects = {config_id: each for config_id, each in call.eval_outputs.items() if isinstance(each, dict)}
    if any(each.get("name", "") is None for each in objects.values()):
        raise AnswerError("an eval output whose name is null")
    wanted = {name.lower() for name in eval_names}
    return {config_id: each for config_id, each in objects.items() if str(each.get("name", "")).lower() in wanted}


def _eval_result(config: EvalConfig, calls: Sequence[Call]) -> dict[str, Any]:
    outputs = _outputs(config, calls)
    result: dict[str, Any] = {"name": config.name, "id": config.config_id, "total_cells": len(outputs), "output": {}}
    summary: dict[str, Any]

    def percent(count: int) -> float:
        return round(100 * count / len(outputs), 2) if outputs else 0

    if config.output_type == "Pass/Fail":
        words = Counter(str(each).lower() for each in outputs)
        passed, failed = words["passed"] + words["true"], words["failed"] + words["false"]
        if outputs:
            counts = {"pass_count": passed, "fail_count": failed}
            result["output"] = {"pass": percent(passed), "fail": percent(failed), **counts}
        summary = {"total_pass_rate": percent(passed)}
    elif config.output_type == "score":
        scores = sorted(100 * float(each) for each in outputs)
        if scores:
            result["output"] = {f"p{rank}": round(percentile(scores, rank), 2) for rank in EVAL_PERCENTILES}
            result["avg_score"] = round(sum(scores) / len(scores), 2)
        summary = {"total_avg": result.get("avg_score", 0)}
    else:
        result["output"] = {choice: percent(times) for choice, times in Counter(map(str, outputs)).items()}
        summary = {"total_choices_avg": dict(result["output"])}
    return {
        "name": config.template_name,
        "id": config.template_id,
        "output_type": config.output_type,
        "result": [result],
        **summary,
    }


def _outputs(config: EvalConfig, calls: Sequence[Call]) -> list[Any]:
    """What the eval gave for the calls, without nulls; the type of the last saved call decides whether it can be summed up."""
    if not all(isinstance(call.eval_outputs, dict) for call in calls):
        raise AnswerError("eval outputs that are no object")
    evals = [call.eval_outputs.get(config.config_id) or {} for call in calls]
    if not all(isinstance(each, dict) for each in evals):
        raise AnswerError(f"an output of {config.name} that is no object")
    last_type = next((each["output_type"] for each in evals if each.get("output_type")), config.output_type)
    if last_type not in SUMMED_UP:
        raise AnswerError(f"outputs of {config.name} that cannot be summed up: {last_type}")
    return [each["output"] for each in evals if each.get("output") is not None and each.get("output_type")]
