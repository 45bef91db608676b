"""What the API computes from an execution's calls: averages, percentiles and eval statistics, rounded like the API's. Pure.

An average without data is 0.0, as on the real server. Deleted calls count where the server counts them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from etl.sandbox.world import Call, EvalConfig, Execution, listable_calls

SUMMED_UP = ("Pass/Fail", "score", "choices")
EVAL_PERCENTILES = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)


class AnswerError(Exception):
    """The real server cannot compute this answer either: it answers 500."""


def metrics(calls: Sequence[Call]) -> dict[str, Any]:
    """The ``metrics`` of one execution.

    Raises:
        AnswerError: a token count is not an integer, or another chat value not a number.
    """
    chats = [call.chat_metrics for call in calls if call.chat_metrics]
    latencies = sorted(call.avg_agent_latency_ms for call in calls if call.avg_agent_latency_ms is not None)
    return {
        "latency": {
            "avg_agent_latency_ms": average(latencies, 0),
            "avg_response_time_ms": average((call.response_time_ms for call in calls), 0),
            "percentiles": {f"p{rank}": rounded(percentile(latencies, rank), 1) for rank in (50, 95, 99) if latencies},
        },
        "cost": {"total_duration_seconds": int(sum(call.duration_seconds or 0 for call in calls))},
        "conversation": {
            "avg_user_wpm": average((call.user_wpm for call in calls), 1),
            "avg_bot_wpm": average((call.bot_wpm for call in calls), 1),
            "avg_talk_ratio": average((call.talk_ratio for call in calls), 2),
            "avg_user_interruption_rate": average((call.user_interruption_rate for call in calls), 2),
            "avg_ai_interruption_rate": average((call.ai_interruption_rate for call in calls), 2),
            "avg_stop_time_after_interruption_ms": average(
                (call.avg_stop_time_after_interruption_ms for call in calls), 0
            ),
        },
        "chat": {
            "avg_total_tokens": average((_integer(chat.get("total_tokens")) for chat in chats), 0),
            "avg_input_tokens": average((_integer(chat.get("input_tokens")) for chat in chats), 0),
            "avg_output_tokens": average((_integer(chat.get("output_tokens")) for chat in chats), 0),
            "avg_chat_latency_ms": average((_number(chat.get("avg_latency_ms")) for chat in chats), 1),
            "avg_turn_count": average((_number(chat.get("turn_count")) for chat in chats), 0),
            "avg_csat_score": average((_number(chat.get("csat_score")) for chat in chats), 2),
        },
        "calls": {
            "total": len(calls),
            **{status: sum(call.status == status for call in calls) for status in ("completed", "failed", "pending")},
        },
    }


def average(values: Iterable[float | None], digits: int) -> float:
    """The mean of the values that are not None, rounded half up; 0.0 if there are none."""
    known = [value for value in values if value is not None]
    return rounded(sum(known) / len(known), digits) if known else 0.0


def percentile(ordered: Sequence[float], rank: float) -> float:
    """The percentile of sorted values, by linear interpolation."""
    position = (len(ordered) - 1) * rank / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def rounded(value: float, digits: int) -> float:
    """Rounded half up, like a numeric in PostgreSQL."""
    return float(Decimal(f"{value:.15g}").quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def eval_results(execution: Execution, eval_names: Collection[str] | None) -> list[dict[str, Any]]:
    """One entry per eval of the run test, from the completed calls that are not deleted.

    Raises:
        AnswerError: an eval has no object as its output, or one of a type that cannot be summed up.
    """
    calls = [call for call in listable_calls(execution) if call.status == "completed" and call.eval_outputs]
    configs = [each for each in execution.run_test.eval_configs if eval_names is None or each.name in eval_names]
    return [_eval_result(config, calls) for config in configs]


def _eval_result(config: EvalConfig, calls: Sequence[Call]) -> dict[str, Any]:
    if not all(isinstance(call.eval_outputs, dict) for call in calls):
        raise AnswerError("eval outputs that are no object")
    evals = [call.eval_outputs.get(config.config_id) or {} for call in calls]
    if not all(isinstance(each, dict) for each in evals):
        raise AnswerError(f"an output of {config.name} that is no object")
    last_type = next((each["output_type"] for each in evals if each.get("output_type")), config.output_type)
    if last_type not in SUMMED_UP:
        raise AnswerError(f"outputs of {config.name} that cannot be summed up: {last_type}")
    outputs = [each["output"] for each in evals if each.get("output") is not None and each.get("output_type")]
    result: dict[str, Any] = {"name": config.name, "id": config.config_id, "total_cells": len(outputs), "output": {}}
    summary: dict[str, Any]
    if config.output_type == "Pass/Fail":
        passed, failed = _passes(outputs)
        rate = round(100 * passed / len(outputs), 2) if outputs else 0
        if outputs:
            result["output"] = {
                "pass": rate,
                "fail": round(100 * failed / len(outputs), 2),
                "pass_count": passed,
                "fail_count": failed,
            }
        summary = {"total_pass_rate": rate}
    elif config.output_type == "score":
        scores = sorted(100 * float(each) for each in outputs)
        if scores:
            result["output"] = {f"p{rank}": round(percentile(scores, rank), 2) for rank in EVAL_PERCENTILES}
            result["avg_score"] = round(sum(scores) / len(scores), 2)
        summary = {"total_avg": result.get("avg_score", 0)}
    else:
        shares = Counter(str(each) for each in outputs)
        result["output"] = {choice: round(100 * times / len(outputs), 2) for choice, times in shares.items()}
        summary = {"total_choices_avg": dict(result["output"])}
    return {
        "name": config.template_name,
        "id": config.template_id,
        "output_type": config.output_type,
        "result": [result],
        **summary,
    }


def _passes(outputs: Sequence[Any]) -> tuple[int, int]:
    passed = sum(each is True or (isinstance(each, str) and each.lower() == "passed") for each in outputs)
    failed = sum(each is False or (isinstance(each, str) and each.lower() == "failed") for each in outputs)
    return passed, failed


def _integer(value: object) -> int | None:
    """A token count as the server reads it: an integer, also as text. It fails on any float, even 5.0."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    try:
        return int(str(value))
    except ValueError as problem:
        raise AnswerError(f"not an integer: {value!r}") from problem


def _number(value: object) -> float | None:
    """A number, also as text."""
    try:
        return None if value is None else float(str(value))
    except ValueError as problem:
        raise AnswerError(f"not a number: {value!r}") from problem
