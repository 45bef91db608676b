"""What /simulate/… answers, without an envelope: details, voice calls, run tests and their executions. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from etl.sandbox.fields import COST, DEFAULT_LIMIT, LATENCY, cut, links, named_fields, page_of, timestamp
from etl.sandbox.world import CONVERSATION, SimulatedCall, SimulatedExecution, SimulatedRunTest, World, listable_calls

SAME_NAME = (*CONVERSATION[:-1], *LATENCY, "status", "duration_seconds", "tool_outputs", "rerun_snapshots")
OF_VOICE = (
    "status", "started_at", "completed_at", "duration_seconds", "overall_score", "ended_reason", "response_time_ms",
    "call_summary", "system_metrics", "cost_breakdown", *COST[1:], "agent_version",
)  # fmt: skip
FROM_CHAT = ("total_tokens", "input_tokens", "output_tokens", "avg_latency_ms", "csat_score")
PHONE_NUMBER = "+15550100"
NULL_IN_RUN_TESTS = (
    "agent_definition", "agent_version", "agent_definition_detail", "prompt_template", "prompt_template_detail",
    "prompt_version", "prompt_version_detail", "simulator_agent", "simulator_agent_detail", "deleted_at",
)  # fmt: skip


def execution_detail(
    execution: SimulatedExecution, url: str, query: Mapping[str, str], max_limit: int | None = None
) -> dict[str, Any]:
    """One page of the calls, last updated first, with links made from ``url``. A page past the end is empty."""
    limit = int(query.get("limit", DEFAULT_LIMIT))
    page = cut(listable_calls(execution), int(query.get("page", 1)), limit, max_limit)
    return {
        **page,
        **links(page, url, query),
        "results": [_call(call, execution) for call in page["results"]],
        "column_order": [],
        "error_messages": [],
        "status": execution.status,
        "provider": None,
        "agent_type": "text" if execution.run_test.profile.is_chat else "voice",
    }


def _call(call: SimulatedCall, execution: SimulatedExecution) -> dict[str, Any]:
    chat = call.chat_metrics or {}
    is_chat = _is_chat(call, execution)
    turn_count = chat.get("turn_count")
    return {
        "id": call.call_execution_id,
        "test_execution_id": execution.execution_id,
        "timestamp": timestamp(call.updated_at),
        "start_time": timestamp(call.started_at),
        "scenario_id": call.scenario.scenario_id,
        "scenario": call.scenario.name,
        **named_fields(call, ("ended_reason", "call_summary", *SAME_NAME)),
        "avg_stop_time_after_interruption": call.avg_stop_time_after_interruption_ms,
        "cost_cents": call.total_cost_cents,
        "customer_cost_breakdown": call.cost_breakdown,
        "customer_latency_metrics": None if call.system_metrics is None else {"systemMetrics": call.system_metrics},
        **{name: chat.get(name) for name in FROM_CHAT},
        "turn_count": chat.get("bot_message_count", chat.get("message_count")) if turn_count is None else turn_count,
        "eval_outputs": _evals(call, execution),
        "overall_score": chat.get("csat_score") if call.overall_score is None else call.overall_score,
        "customer_cost_cents": call.total_cost_cents,
        "provider": None if is_chat else "vapi",
        "agent_definition_used_id": execution.run_test.run_test_id,
        "agent_definition_used_name": "Chat agent" if is_chat else "Voice agent",
        "scenario_columns": {},
        "transcript": [],
        "recordings": {},
        "phone_number": None if is_chat else PHONE_NUMBER,
        "simulation_call_type": "text" if is_chat else "voice",
    }


def _is_chat(call: SimulatedCall, execution: SimulatedExecution) -> bool:
    return call.is_chat or execution.run_test.profile.is_chat


def _evals(call: SimulatedCall, execution: SimulatedExecution) -> dict[str, Any]:
    """The call's eval outputs, as the page shows them, without those of evals whose configuration is gone."""
    names = {config.config_id: config.name for config in execution.run_test.eval_configs}
    outputs: Any = call.eval_outputs
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
        for config_id, output in (outputs.items() if isinstance(outputs, dict) else ())
        if isinstance(output, dict) and config_id in names
    }


def _value(output: Mapping[str, Any]) -> Any:
    """The value of an eval output; choices are shown as a list, however they are stored."""
    value = output.get("output")
    if output.get("output_type") != "choices":
        return value
    if isinstance(value, dict):
        value = value.get("choices", value.get("choice"))
    return value if isinstance(value, list) else [value]


def voice_calls_page(
    executions: Iterable[SimulatedExecution], url: str, query: Mapping[str, str], max_limit: int | None = None
) -> dict[str, Any]:
    """One page of the executions' voice calls, last updated first. A page past the end is empty."""
    calls = [call for each in executions for call in listable_calls(each) if not _is_chat(call, each)]
    calls.sort(key=lambda call: call.updated_at, reverse=True)
    page = cut(calls, int(query.get("page", 1)), int(query.get("limit", DEFAULT_LIMIT)), max_limit)
    return {**page, **links(page, url, query), "results": [_voice_call(call) for call in page["results"]]}


def _voice_call(call: SimulatedCall) -> dict[str, Any]:
    """The call as the list of voice calls has it: the evals as they are stored, and personal data."""
    return {
        "id": call.call_execution_id,
        "phone_number": PHONE_NUMBER,
        **named_fields(call, OF_VOICE),
        "cost_cents": call.total_cost_cents,
        "customer_cost_cents": call.total_cost_cents,
        "scenario_name": call.scenario.name,
        "eval_outputs": call.eval_outputs or None,
        "transcripts": [{"speaker_role": "user", "content": "My number is " + PHONE_NUMBER}],
        "provider_call_data": {"vapi": {"customer": {"number": PHONE_NUMBER}}},
        "recording_url": "https://recordings.example/call.wav",
        "simulation_call_type": "voice",
    }


def run_tests_page(world: World, url: str, query: Mapping[str, str], max_limit: int | None = None) -> dict[str, Any]:
    """Run tests whose name contains ``search``, newest created first, with links made from ``url``.

    Raises:
        AnswerError: There is no such page.
    """
    search = query.get("search", "").strip().lower()
    run_tests = [run_test for run_test in world.run_tests if search in run_test.name.lower()]
    page = page_of(sorted(run_tests, key=lambda run_test: run_test.created_at, reverse=True), query, max_limit)
    results = [_run_test(run_test, world.organization_id) for run_test in page["results"]]
    return {**page, **links(page, url, query), "results": results}


def run_test_executions_page(
    run_test: SimulatedRunTest, url: str, query: Mapping[str, str], max_limit: int | None = None
) -> dict[str, Any]:
    """One run test's executions, newest created first. One without a version has the newest version's name.

    Raises:
        AnswerError: There is no such page.
    """
    executions = [each for each in run_test.executions if not each.is_deleted]
    executions.sort(key=lambda each: each.created_at, reverse=True)
    newest = next((each.agent_version for each in executions if each.agent_version), "N/A")
    page = page_of(executions, query, max_limit)
    results = [
        {
            "id": each.execution_id,
            "status": each.status.title(),
            "error_reason": each.error_reason,
            "calls": len(listable_calls(each)),
            "agent_version": each.agent_version or newest,
            "agent_definition": run_test.description,
            "agent_type": "text" if run_test.profile.is_chat else "voice",
            "source_type": "agent_definition",
        }
        for each in page["results"]
    ]
    return {**page, **links(page, url, query), "results": results}


def _run_test(run_test: SimulatedRunTest, organization_id: str) -> dict[str, Any]:
    configs: list[dict[str, Any]] = [
        {
            "id": config.config_id,
            "name": config.name,
            "config": {},
            "mapping": {},
            "filters": {},
            "error_localizer": False,
            "model": config.model,
            "status": "Completed",
            "eval_group": None,
            "template_id": config.template_id,
        }
        for config in run_test.eval_configs
    ]
    created = (execution.created_at for execution in run_test.executions if not execution.is_deleted)
    return {
        **dict.fromkeys(NULL_IN_RUN_TESTS),
        "id": run_test.run_test_id,
        "name": run_test.name,
        "description": run_test.description,
        "source_type": "agent_definition",
        "source_type_display": "Agent Definition",
        "scenarios": [],
        "scenarios_detail": [],
        "dataset_row_ids": [],
        "simulate_eval_configs": [config.config_id for config in run_test.eval_configs],
        "simulate_eval_configs_detail": configs,
        "evals_detail": configs,
        "evals": configs,
        "organization": organization_id,
        "enable_tool_evaluation": False,
        "created_at": timestamp(run_test.created_at),
        "updated_at": timestamp(run_test.created_at),
        "last_run_at": timestamp(max(created, default=None)),
        "deleted": False,
    }
