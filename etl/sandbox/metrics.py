"""What metrics/ answers: the raw metrics of a call, and the aggregates of executions, rounded like the API's. Pure.

An average without data is 0.0, as on the real server. Deleted calls count.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from etl.sandbox.fields import COST, LATENCY, AnswerError, execution_head, fields_of, page_of, percentile
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
CONVERSATION_DIGITS = {
    "user_wpm": 1,
    "bot_wpm": 1,
    "talk_ratio": 2,
    "user_interruption_rate": 2,
    "ai_interruption_rate": 2,
    "avg_stop_time_after_interruption_ms": 0,
}


def call_metrics(call: Call, execution: Execution) -> dict[str, Any]:
    """metrics/?call_execution_id=: the raw metrics of a call. An open-ended object that is None is omitted."""
    latency, cost = fields_of(call, LATENCY), fields_of(call, COST)
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
        "conversation": fields_of(call, CONVERSATION),
        "chat_metrics": None if chat is None else {name: chat[name] for name in CHAT if name in chat},
    }


def execution_metrics(execution: Execution) -> dict[str, Any]:
    """metrics/?execution_id=: the aggregates of an execution, over all its calls that have data, deleted ones included.

    Raises:
        AnswerError: a token count is not an integer.
    """
    return {**execution_head(execution), "metrics": aggregates(execution.calls)}


def execution_page(world: World, query: Mapping[str, str], max_limit: int | None = None) -> dict[str, Any]:
    """metrics/?run_test_name=: the executions of all run tests of this name, newest first.

    Raises:
        AnswerError: there is no such page, or one of its executions cannot be aggregated.
    """
    found = page_of(listable_executions(world, query["run_test_name"]), query, max_limit)
    return {**found, "results": [execution_metrics(each) for each in found["results"]]}


def aggregates(calls: Sequence[Call]) -> dict[str, Any]:
    """The ``metrics`` of one execution.

    Raises:
        AnswerError: a token count is not an integer, or another chat value not a number.
    """
    latencies = sorted(call.avg_agent_latency_ms for call in calls if call.avg_agent_latency_ms is not None)

    def chat(name: str, read: Callable[[object], float | None], digits: int) -> float:
        return average((read(call.chat_metrics.get(name)) for call in calls if call.chat_metrics), digits)

    return {
        "latency": {
            "avg_agent_latency_ms": average(latencies, 0),
            "avg_response_time_ms": average((call.response_time_ms for call in calls), 0),
            "percentiles": {f"p{rank}": rounded(percentile(latencies, rank), 1) for rank in (50, 95, 99) if latencies},
        },
        "cost": {"total_duration_seconds": int(sum(call.duration_seconds or 0 for call in calls))},
        "conversation": {
            f"avg_{name.removeprefix('avg_')}": average((getattr(call, name) for call in calls), digits)
            for name, digits in CONVERSATION_DIGITS.items()
        },
        "chat": {
            "avg_total_tokens": chat("total_tokens", _integer, 0),
            "avg_input_tokens": chat("input_tokens", _integer, 0),
            "avg_output_tokens": chat("output_tokens", _integer, 0),
            "avg_chat_latency_ms": chat("avg_latency_ms", _number, 1),
            "avg_turn_count": chat("turn_count", _number, 0),
            "avg_csat_score": chat("csat_score", _number, 2),
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


def rounded(value: float, digits: int) -> float:
    """Rounded half up, like a numeric in PostgreSQL."""
    return float(Decimal(f"{value:.15g}").quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def _integer(value: object) -> int | None:
    """A token count as the server reads it: an integer, also as text. It fails on any float, even 5.0."""
    try:
        return None if value is None else int(str(value))
    except ValueError as problem:
        raise AnswerError(f"not an integer: {value!r}") from problem


def _number(value: object) -> float | None:
    """A number, also as text."""
    try:
        return None if value is None else float(str(value))
    except ValueError as problem:
        raise AnswerError(f"not a number: {value!r}") from problem
