"""What /sdk/… answers: metrics/ with raw metrics and aggregates, runs/ and analytics/ with evals. Pure.

Aggregates are rounded like the API's. As on the real server, an average without data is 0.0, and deleted calls count in
it. Where the real server answers 500, ``AnswerError`` is raised: for a page that is not there, and for values that it
cannot sum up, filter or read as a number.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from etl.sandbox.fields import COST, COUNTERS, LATENCY, AnswerError, execution_head, named_fields, page_of
from etl.sandbox.world import CONVERSATION, EvalConfig, SimulatedCall, SimulatedExecution, listable_calls

CHAT = ("total_tokens", "input_tokens", "output_tokens", "avg_latency_ms", "turn_count", "csat_score", "message_count")
CONVERSATION_DIGITS = {
    "user_wpm": 1,
    "bot_wpm": 1,
    "talk_ratio": 2,
    "user_interruption_rate": 2,
    "ai_interruption_rate": 2,
    "avg_stop_time_after_interruption_ms": 0,
}
SUMMED_UP = ("Pass/Fail", "score", "choices")


def call_metrics(call: SimulatedCall, execution: SimulatedExecution) -> dict[str, Any]:
    """metrics/?call_execution_id=: the raw metrics of a call. An open-ended object that is None is left out."""
    latency, cost = named_fields(call, LATENCY), named_fields(call, COST)
    if call.system_metrics is not None:
        latency["system_metrics"] = call.system_metrics
    if call.cost_breakdown is not None:
        cost["breakdown"] = call.cost_breakdown
    chat = call.chat_metrics
    return {
        "call_execution_id": call.call_execution_id,
        "execution_id": execution.execution_id,
        **named_fields(call, ("status", "duration_seconds")),
        "latency": latency,
        "cost": cost,
        "conversation": named_fields(call, CONVERSATION),
        "chat_metrics": None if chat is None else {name: chat[name] for name in CHAT if name in chat},
    }


def execution_metrics(execution: SimulatedExecution) -> dict[str, Any]:
    """metrics/?execution_id=, and a row of ?run_test_name=: the aggregates over all calls, deleted ones included.

    Raises:
        AnswerError: A chat metric is no number, or a token count no integer.
    """
    return {**execution_head(execution), "metrics": aggregates(execution.calls)}


def aggregates(calls: Sequence[SimulatedCall]) -> dict[str, Any]:
    """The ``metrics`` of one execution.

    Raises:
        AnswerError: A chat metric is no number, or a token count no integer.
    """
    latencies = sorted(call.avg_agent_latency_ms for call in calls if call.avg_agent_latency_ms is not None)

    def chat(name: str, kind: Callable[[str], float], digits: int, other: str = "") -> float:
        found = [call.chat_metrics for call in calls if call.chat_metrics]
        values = (metrics.get(other) if metrics.get(name) is None else metrics[name] for metrics in found)
        return average((_read(value, kind) for value in values), digits)

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
            "avg_total_tokens": chat("total_tokens", int, 0),
            "avg_input_tokens": chat("input_tokens", int, 0),
            "avg_output_tokens": chat("output_tokens", int, 0),
            "avg_chat_latency_ms": chat("avg_latency_ms", float, 1),
            "avg_turn_count": chat("turn_count", float, 0, "bot_message_count"),
            "avg_csat_score": chat("csat_score", float, 2),
        },
        "calls": {
            "total": len(calls),
            **{status: sum(call.status == status for call in calls) for status in ("completed", "failed", "pending")},
        },
    }


def percentile(ordered: Sequence[float], rank: float) -> float:
    """The percentile of sorted values, by linear interpolation."""
    position = (len(ordered) - 1) * rank / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def average(values: Iterable[float | None], digits: int) -> float:
    """The mean of the values that are not None, rounded half up; 0.0 if there are none."""
    known = [value for value in values if value is not None]
    return rounded(sum(known) / len(known), digits) if known else 0.0


def rounded(value: float, digits: int) -> float:
    """Rounded half up, like a numeric in PostgreSQL."""
    return float(Decimal(f"{value:.15g}").quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def _read(value: object, kind: Callable[[str], float]) -> float | None:
    """The number as the server reads it, also if it is stored as text. As an ``int`` it can be no float, not even 5.0.

    Raises:
        AnswerError: It is no number of this kind.
    """
    try:
        return None if value is None else kind(str(value))
    except ValueError as problem:
        raise AnswerError(f"no {kind.__name__}: {value!r}") from problem


def run_call(call: SimulatedCall, execution: SimulatedExecution, query: Mapping[str, str]) -> dict[str, Any]:
    """runs/?call_execution_id=: a call with its times and eval outputs.

    Raises:
        AnswerError: ``eval_name`` is given, and the eval outputs cannot be searched by name.
    """
    return {
        **_call_head(call, query),
        "execution_id": execution.execution_id,
        **named_fields(call, ("started_at", "completed_at", "ended_reason", "call_summary")),
        "latency": named_fields(call, LATENCY),
        "cost": named_fields(call, COST),
    }


def run_execution(execution: SimulatedExecution, query: Mapping[str, str], max_limit: int | None) -> dict[str, Any]:
    """runs/?execution_id=: eval results, and a page of the calls, last updated first.

    Raises:
        AnswerError: There is no such page, or an eval whose outputs cannot be summed up.
    """
    page = page_of(listable_calls(execution), query, max_limit)
    calls = [_call_head(call, query) for call in page["results"]]
    return {**execution_evals(execution, query), "call_results": {**page, "results": calls}}


def _call_head(call: SimulatedCall, query: Mapping[str, str]) -> dict[str, Any]:
    return {
        "call_execution_id": call.call_execution_id,
        "scenario_id": call.scenario.scenario_id,
        "scenario_name": call.scenario.name,
        **named_fields(call, ("status", "duration_seconds")),
        "eval_outputs": _eval_outputs(call, _eval_names(query)),
    }


def execution_evals(execution: SimulatedExecution, query: Mapping[str, str]) -> dict[str, Any]:
    """A row of runs/?run_test_name=: one entry per wanted eval, without what the real server sums up of its outputs.

    Raises:
        AnswerError: An eval whose outputs cannot be summed up.
    """
    wanted = _eval_names(query)
    calls = [call for call in listable_calls(execution) if call.status == "completed" and call.eval_outputs]
    configs = [config for config in execution.run_test.eval_configs if wanted is None or config.name in wanted]
    for config in configs:
        _check_outputs(config, calls)
    results = [
        {
            "name": config.template_name,
            "id": config.template_id,
            "output_type": config.output_type,
            "result": [{"name": config.name, "id": config.config_id}],
        }
        for config in configs
    ]
    return {**execution_head(execution), "eval_results": results}


def execution_analytics(execution: SimulatedExecution, query: Mapping[str, str]) -> dict[str, Any]:
    """analytics/?execution_id=: the name that the run test has now, and the eval results; no averages.

    Raises:
        AnswerError: An eval whose outputs cannot be summed up.
    """
    return {
        "execution_id": execution.execution_id,
        "run_test_name": execution.run_test.name,
        "status": execution.status,
        "eval_results": execution_evals(execution, query)["eval_results"],
        "eval_averages": {},
        "system_summary": named_fields(execution, COUNTERS),
        "eval_explanation_summary": None,
        "eval_explanation_summary_status": "pending",
    }


def _eval_names(query: Mapping[str, str]) -> set[str] | None:
    """The names in ``eval_name``, which are separated by commas; None for all evals."""
    return {name.strip() for name in query.get("eval_name", "").split(",")} - {""} or None


def _eval_outputs(call: SimulatedCall, eval_names: Collection[str] | None) -> dict[str, Any]:
    """The call's eval outputs by config id; only those of ``eval_names``, in any case, unless it is None."""
    if eval_names is None:
        return call.eval_outputs
    if not isinstance(call.eval_outputs, dict):
        raise AnswerError("a call's eval outputs are not an object")
    outputs = {key: output for key, output in call.eval_outputs.items() if isinstance(output, dict)}
    if any(output.get("name", "") is None for output in outputs.values()):
        raise AnswerError("the name of an eval output is null")
    wanted = {name.lower() for name in eval_names}
    return {config_id: output for config_id, output in outputs.items() if str(output.get("name", "")).lower() in wanted}


def _check_outputs(config: EvalConfig, calls: Sequence[SimulatedCall]) -> None:
    """Refuse an eval that the real server cannot sum up: the type of its output for the call saved last decides.

    Raises:
        AnswerError: It is so.
    """
    if not all(isinstance(call.eval_outputs, dict) for call in calls):
        raise AnswerError("a call's eval outputs are not an object")
    evals = [call.eval_outputs.get(config.config_id) or {} for call in calls]
    if not all(isinstance(output, dict) for output in evals):
        raise AnswerError(f"an output of {config.name} is not an object")
    last_type = next((output["output_type"] for output in evals if output.get("output_type")), config.output_type)
    if last_type not in SUMMED_UP:
        raise AnswerError(f"outputs of {config.name} have no summary: {last_type}")
