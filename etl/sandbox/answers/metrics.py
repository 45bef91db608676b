"""What metrics/ answers: the raw metrics of a call, and the aggregates of executions. Pure."""

from typing import Any

from etl.sandbox.aggregates import metrics
from etl.sandbox.answers.fields import call_cost, call_latency, execution_head, page_of
from etl.sandbox.world import Call, Execution, World, listable_executions

CONVERSATION = (
    "user_wpm",
    "bot_wpm",
    "talk_ratio",
    "user_interruption_count",
    "user_interruption_rate",
    "ai_interruption_count",
    "ai_interruption_rate",
    "avg_stop_time_after_interruption_ms",
)
CHAT = ("total_tokens", "input_tokens", "output_tokens", "avg_latency_ms", "turn_count", "csat_score", "message_count")


def call_metrics(call: Call, execution: Execution) -> dict[str, Any]:
    """metrics/?call_execution_id=: the raw metrics of a call. An open-ended object that is None is omitted."""
    latency, cost = call_latency(call), call_cost(call)
    if call.system_metrics is not None:
        latency["system_metrics"] = call.system_metrics
    if call.cost_breakdown is not None:
        cost["breakdown"] = call.cost_breakdown
    chat = call.chat_metrics
    return {
        "call_execution_id": call.call_execution_id,
        "execution_id": execution.execution_id,
        "status": call.status,
        "duration_seconds": call.duration_seconds,
        "latency": latency,
        "cost": cost,
        "conversation": {name: getattr(call, name) for name in CONVERSATION},
        "chat_metrics": None if chat is None else {name: chat[name] for name in CHAT if name in chat},
    }


def execution_metrics(execution: Execution) -> dict[str, Any]:
    """metrics/?execution_id=: the aggregates of an execution, over all its calls that have data, deleted ones included.

    Raises:
        AnswerError: a token count is not an integer.
    """
    return {**execution_head(execution), "metrics": metrics(execution.calls)}


def execution_page(
    world: World, name: str, page: str | None = None, limit: str | None = None, max_limit: int | None = None
) -> dict[str, Any]:
    """metrics/?run_test_name=: the executions of all run tests of this name, newest first.

    Raises:
        AnswerError: there is no such page, or one of its executions cannot be aggregated.
    """
    found = page_of(listable_executions(world, name), page, limit, max_limit)
    return {**found, "results": [execution_metrics(each) for each in found["results"]]}
