"""A call as an execution's detail and the list of voice calls show it, with every field that a real server sends.

The cells that are exported are those of the call's own metrics and of its entry in the list of calls. Of what only the
detail has, a row is made as well.
"""

from collections.abc import Mapping
from typing import Any

_AGENT = "a9e17000-0000-4000-8000-000000000001"
_IN_DETAIL = (
    "session_id", "audio_url", "customer_name", "scenario_graph_id", "snapshot_timestamp", "rerun_type",
    "original_call_execution_id", "tool_outputs", "total_tokens", "input_tokens", "output_tokens", "avg_latency_ms",
    "csat_score",
)  # fmt: skip
_IN_VOICE = (
    "recording_url", "error_message", "stereo_recording_url", "assistant_id", "customer_number", "call_type",
    "ended_at", "analysis_data", "evaluation_data", "message_count", "agent_version",
)  # fmt: skip
_IN_BOTH = ("service_provider_call_id", "customer_call_id", "processing_skip_reason")
_NULL_IN_DETAIL, _NULL_IN_VOICE = dict.fromkeys((*_IN_BOTH, *_IN_DETAIL)), dict.fromkeys((*_IN_BOTH, *_IN_VOICE))
_CONSTANT = {
    "ended_reason": "customer-ended-call",
    "call_summary": "The caller asked for a refund.",
    "phone_number": "+15550100",
    "simulation_call_type": "voice",
    "processing_skipped": False,
}
_CONSTANT_IN_DETAIL = {
    **_CONSTANT,
    "call_type": "Inbound",
    "transcript": [],
    "recordings": {},
    "scenario_columns": {},
    "scenario_graph": {},
    "rerun_snapshots": [],
    "is_snapshot": False,
    "provider": "vapi",
    "agent_definition_used_id": _AGENT,
    "agent_definition_used_name": "Voice agent",
}
_CONSTANT_IN_VOICE = {
    **_CONSTANT,
    "call_metadata": {"call_direction": "inbound"},
    "transcripts": [],
    "provider_call_data": {"vapi": {"id": _AGENT}},
    "error_localizer_tasks": [],
    "transcript_available": False,
    "recording_available": False,
}


def detailed_call(
    listed: Mapping[str, Any], metrics: Mapping[str, Any], *, execution_id: str, started_at: str
) -> dict[str, Any]:
    """The call in its execution's detail."""
    latency, conversation, cost = metrics["latency"], metrics["conversation"], metrics["cost"]
    shown = {
        key: {
            "value": output["output"],
            "reason": output["reason"],
            "type": output["output_type"],
            "name": output["name"],
            "error": False,
            "status": "completed",
            "skipped": False,
        }
        for key, output in listed["eval_outputs"].items()
    }
    columns = {
        key: {"id": key, **output, "template_type": "single", "visible": True, "error_localizer": False}
        for key, output in shown.items()
    }
    return {
        **_NULL_IN_DETAIL,
        **_CONSTANT_IN_DETAIL,
        **{name: value for name, value in conversation.items() if name != "avg_stop_time_after_interruption_ms"},
        **_in_both(metrics),
        "id": listed["call_execution_id"],
        "test_execution_id": execution_id,
        "timestamp": started_at,
        "start_time": started_at,
        "duration": metrics["duration_seconds"],
        "response_time": latency["response_time_ms"] / 1000,
        "scenario": listed["scenario_name"],
        "scenario_id": listed["scenario_id"],
        "eval_outputs": shown,
        "eval_metrics": columns,
        "avg_agent_latency": latency["avg_agent_latency_ms"],
        "avg_agent_latency_ms": latency["avg_agent_latency_ms"],
        "avg_stop_time_after_interruption": conversation["avg_stop_time_after_interruption_ms"],
        "turn_count": 0,  # made up: the call has none
        "agent_talk_percentage": 50.0,
        "customer_cost_breakdown": cost["breakdown"],
        "customer_latency_metrics": {"systemMetrics": latency["system_metrics"], "turnLatencies": []},
    }


def voice_call(listed: Mapping[str, Any], metrics: Mapping[str, Any], *, started_at: str) -> dict[str, Any]:
    """The call in the list of voice calls."""
    cost = metrics["cost"]
    return {
        **_NULL_IN_VOICE,
        **_CONSTANT_IN_VOICE,
        **_in_both(metrics),
        **{name: cost[name] for name in ("stt_cost_cents", "llm_cost_cents", "tts_cost_cents")},
        "id": listed["call_execution_id"],
        **dict.fromkeys(("started_at", "completed_at", "created_at", "updated_at"), started_at),
        "response_time_seconds": metrics["latency"]["response_time_ms"] / 1000,
        "scenario_name": listed["scenario_name"],
        "eval_outputs": listed["eval_outputs"],
        "system_metrics": metrics["latency"]["system_metrics"],
        "cost_breakdown": cost["breakdown"],
    }


def _in_both(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What both lists have under one name."""
    total = metrics["cost"]["total_cost_cents"]
    return {
        "status": metrics["status"],
        "duration_seconds": metrics["duration_seconds"],
        "response_time_ms": metrics["latency"]["response_time_ms"],
        "cost_cents": total,
        "customer_cost_cents": total,
        "overall_score": metrics["duration_seconds"] % 11 / 2,
    }
