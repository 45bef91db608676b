"""What /simulate/test-executions/{id}/ answers: an execution's calls with most of their metrics; it has no envelope. Pure."""

from collections.abc import Mapping
from typing import Any

from etl.sandbox.answers.fields import DEFAULT_LIMIT, page_link, timestamp
from etl.sandbox.answers.metrics import CONVERSATION
from etl.sandbox.world import Call, Execution, listable_calls

SAME_NAME = (
    *CONVERSATION[:-1],
    "status",
    "duration_seconds",
    "overall_score",
    "avg_agent_latency_ms",
    "response_time_ms",
)
FROM_CHAT = ("total_tokens", "input_tokens", "output_tokens", "avg_latency_ms", "csat_score")


def execution_detail(execution: Execution, url: str, query: Mapping[str, int]) -> dict[str, Any]:
    """One page of the calls, last updated first, with links made from ``url``. A page past the end is empty."""
    rows = listable_calls(execution)
    limit, page = query.get("limit", DEFAULT_LIMIT), query.get("page", 1)
    total_pages = max(1, -(-len(rows) // limit))
    texts = {name: str(value) for name, value in query.items()}
    return {
        "count": len(rows),
        "next": page_link(url, texts, page + 1) if page < total_pages else None,
        "previous": page_link(url, texts, page - 1) if 1 < page <= total_pages else None,
        "results": [_call(each, execution) for each in rows[(page - 1) * limit : page * limit]],
        "total_pages": total_pages,
        "current_page": page,
        "column_order": [],
        "error_messages": [],
        "status": execution.status,
        "provider": None,
        "agent_type": "text" if execution.run_test.profile.is_chat else "voice",
    }


def _call(call: Call, execution: Execution) -> dict[str, Any]:
    chat = call.chat_metrics or {}
    turn_count = chat.get("turn_count")
    return {
        "id": call.call_execution_id,
        "test_execution_id": execution.execution_id,
        "timestamp": timestamp(call.updated_at),
        "start_time": timestamp(call.started_at),
        "scenario_id": call.scenario.scenario_id,
        "scenario": call.scenario.name,
        "ended_reason": call.ended_reason,
        "call_summary": call.call_summary,
        **{name: getattr(call, name) for name in SAME_NAME},
        "avg_stop_time_after_interruption": call.avg_stop_time_after_interruption_ms,
        "cost_cents": call.total_cost_cents,
        "customer_cost_breakdown": call.cost_breakdown,
        "customer_latency_metrics": None if call.system_metrics is None else {"systemMetrics": call.system_metrics},
        **{name: chat.get(name) for name in FROM_CHAT},
        "turn_count": chat.get("message_count") if turn_count is None else turn_count,
        "eval_outputs": _evals(call, execution),
        "transcript": [],
        "recordings": {},
        "rerun_snapshots": [],
    }


def _evals(call: Call, execution: Execution) -> dict[str, Any]:
    """Outputs of evals that still have a configuration, filled in; others are left out."""
    names = {config.config_id: config.name for config in execution.run_test.eval_configs}
    return {
        config_id: {
            "value": _value(output),
            "reason": output.get("reason"),
            "type": output.get("output_type"),
            "name": names[config_id],
            "error": False,
            "status": "completed",
            "skipped": False,
        }
        for config_id, output in _objects(call.eval_outputs)
        if config_id in names
    }


def _objects(outputs: Any) -> list[tuple[str, dict[str, Any]]]:
    pairs = outputs.items() if isinstance(outputs, dict) else ()
    return [(config_id, output) for config_id, output in pairs if isinstance(output, dict)]


def _value(output: Mapping[str, Any]) -> Any:
    """The output; choices are a list, however they are stored."""
    value = output.get("output")
    if output.get("output_type") != "choices":
        return value
    if isinstance(value, dict):
        value = value.get("choices", value.get("choice"))
    return value if isinstance(value, list) else [value]
