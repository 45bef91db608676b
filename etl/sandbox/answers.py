"""What the API answers about a world: ``result`` objects as plain dicts.

Owns the shapes, and paging with all its quirks; knows nothing of HTTP. Pure.
Each function named after an endpoint gives the ``result``; ``success`` wraps it. ``run_tests_page`` is not wrapped.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode

from etl.sandbox.aggregates import AnswerError, average, count, eval_averages, eval_results, metrics, total_duration
from etl.sandbox.world import Call, Execution, RunTest, World, listable_calls, listable_executions

Spelling = Literal["server", "documented"]
Row = TypeVar("Row")

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
OPEN_ENDED_KEYS = {
    "server": ("system_metrics", "breakdown"),
    "documented": ("customer_latency_metrics", "customer_cost_breakdown"),
}
DEFAULT_LIMIT = 10


class PastTheEndError(AnswerError):
    """There is no such page."""


def success(result: Any) -> dict[str, Any]:
    """The envelope of every good answer but the list of run tests."""
    return {"status": True, "result": result}


def call_metrics(call: Call, execution: Execution, spelling: Spelling = "server") -> dict[str, Any]:
    """metrics/?call_execution_id=: one call's raw metrics. An open-ended object that is None is left out."""
    latency_key, cost_key = OPEN_ENDED_KEYS[spelling]
    latency, cost = _call_latency(call), _call_cost(call)
    if call.system_metrics is not None:
        latency[latency_key] = call.system_metrics
    if call.cost_breakdown is not None:
        cost[cost_key] = call.cost_breakdown
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
    """metrics/?execution_id=: one execution's aggregates, over all its calls that have data, deleted ones included.

    Raises:
        AnswerError: a token count is not an integer.
    """
    return {**_execution_head(execution), "metrics": metrics(execution.calls)}


def execution_page(
    world: World, name: str, page: str | None = None, limit: str | None = None, max_limit: int | None = None
) -> dict[str, Any]:
    """metrics/?run_test_name=: the executions of all run tests of this name, newest first.

    Raises:
        AnswerError: there is no such page, or one of its executions cannot be aggregated.
    """
    found = page_of(listable_executions(world, name), page, limit, max_limit)
    return {**found, "results": [execution_metrics(each) for each in found["results"]]}


def run_call(call: Call, execution: Execution, eval_names: Collection[str] | None = None) -> dict[str, Any]:
    """runs/?call_execution_id=: one call with its times and eval outputs."""
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
        "eval_outputs": _eval_outputs(call, eval_names),
        "latency": _call_latency(call),
        "cost": _call_cost(call),
    }


def run_execution(
    execution: Execution,
    page: str | None = None,
    limit: str | None = None,
    max_limit: int | None = None,
    *,
    eval_names: Collection[str] | None = None,
    summary: bool = False,
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
            "eval_outputs": _eval_outputs(call, eval_names),
        }
        for call in found["results"]
    ]
    return {
        **_execution_head(execution),
        "eval_results": eval_results(execution, eval_names),
        "call_results": {**found, "results": rows},
        **(_explanations(execution) if summary else {}),
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
    rows = [{**_execution_head(each), "eval_results": eval_results(each, eval_names)} for each in found["results"]]
    return {**found, "results": rows}


def analytics(
    execution: Execution, *, eval_names: Collection[str] | None = None, summary: bool = True
) -> dict[str, Any]:
    """analytics/: one execution, seen through its evals."""
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
        **(_explanations(execution) if summary else {}),
    }


def analytics_by_name(
    world: World, name: str, *, eval_names: Collection[str] | None = None, summary: bool = True
) -> dict[str, Any]:
    """analytics/?run_test_name=: the execution that completed last, or a message when none has."""
    completed = [each for each in listable_executions(world, name) if each.status == "completed" and each.completed_at]
    if completed:
        latest = max(completed, key=lambda each: each.completed_at or each.created_at)
        return analytics(latest, eval_names=eval_names, summary=summary)
    return {
        "run_test_name": name,
        "message": "No completed executions found.",
        "eval_results": [],
        "eval_averages": {},
        "system_summary": {},
    }


def run_tests_page(world: World, url: str, query: Mapping[str, str], max_limit: int | None = None) -> dict[str, Any]:
    """/simulate/run-tests/: run tests whose name contains ``search``, newest first, with links made from ``url``.

    Raises:
        PastTheEndError: there is no such page.
    """
    wanted = query.get("search", "").strip().lower()
    rows = sorted(
        (each for each in world.run_tests if wanted in each.name.lower()),
        key=lambda each: each.created_at,
        reverse=True,
    )
    found = page_of(rows, query.get("page"), query.get("limit"), max_limit)
    current = found["current_page"]
    return {
        "count": found["count"],
        "next": _link(url, query, current + 1) if current < found["total_pages"] else None,
        "previous": _link(url, query, current - 1) if current > 1 else None,
        "results": [_run_test(each, world.organization_id) for each in found["results"]],
        "total_pages": found["total_pages"],
        "current_page": current,
    }


def page_of(rows: Sequence[Row], page: str | None, limit: str | None, max_limit: int | None = None) -> dict[str, Any]:
    """One page of ``rows``. A limit that is no positive integer silently means 10.

    Raises:
        PastTheEndError: ``page`` is no page of ``rows``; page 1 always is.
    """
    size = _integer(limit)
    size = DEFAULT_LIMIT if size is None or size < 1 else size
    size = size if max_limit is None else min(size, max_limit)
    total_pages = max(1, -(-len(rows) // size))
    number = 1 if page is None else _integer(page)
    if number is None or not 1 <= number <= total_pages:
        raise PastTheEndError(page)
    return {
        "total_pages": total_pages,
        "current_page": number,
        "count": len(rows),
        "results": rows[(number - 1) * size : number * size],
    }


def timestamp(moment: datetime | None) -> str | None:
    """UTC with a Z, to the microsecond."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _execution_head(execution: Execution) -> dict[str, Any]:
    return {
        "execution_id": execution.execution_id,
        "status": execution.status,
        "started_at": timestamp(execution.started_at),
        "completed_at": timestamp(execution.completed_at),
        "total_calls": execution.total_calls,
        "completed_calls": execution.completed_calls,
        "failed_calls": execution.failed_calls,
    }


def _explanations(execution: Execution) -> dict[str, Any]:
    return {
        "eval_explanation_summary": execution.eval_explanation_summary,
        "eval_explanation_summary_status": execution.eval_explanation_summary_status,
    }


def _call_latency(call: Call) -> dict[str, Any]:
    return {"avg_agent_latency_ms": call.avg_agent_latency_ms, "response_time_ms": call.response_time_ms}


def _call_cost(call: Call) -> dict[str, Any]:
    return {
        "total_cost_cents": call.total_cost_cents,
        "stt_cost_cents": call.stt_cost_cents,
        "llm_cost_cents": call.llm_cost_cents,
        "tts_cost_cents": call.tts_cost_cents,
    }


def _eval_outputs(call: Call, eval_names: Collection[str] | None) -> dict[str, Any]:
    if eval_names is None:
        return call.eval_outputs
    wanted = {name.lower() for name in eval_names}
    return {
        config_id: output
        for config_id, output in call.eval_outputs.items()
        if isinstance(output, dict) and str(output.get("name", "")).lower() in wanted
    }


def _run_test(run_test: RunTest, organization_id: str) -> dict[str, Any]:
    configs: list[dict[str, Any]] = [
        {
            "id": each.config_id,
            "name": each.name,
            "config": {},
            "mapping": {},
            "filters": {},
            "error_localizer": False,
            "model": None,
            "status": "Completed",
            "eval_group": None,
            "template_id": each.template_id,
        }
        for each in run_test.eval_configs
    ]
    last_run_at = max((each.created_at for each in run_test.executions if not each.is_deleted), default=None)
    return {
        "id": run_test.run_test_id,
        "name": run_test.name,
        "description": run_test.description,
        "agent_definition": None,
        "agent_version": None,
        "agent_definition_detail": None,
        "source_type": "agent_definition",
        "source_type_display": "Agent Definition",
        "prompt_template": None,
        "prompt_template_detail": None,
        "prompt_version": None,
        "prompt_version_detail": None,
        "scenarios": [],
        "scenarios_detail": [],
        "dataset_row_ids": [],
        "simulator_agent": None,
        "simulator_agent_detail": None,
        "simulate_eval_configs": [each.config_id for each in run_test.eval_configs],
        "simulate_eval_configs_detail": configs,
        "evals_detail": configs,
        "organization": organization_id,
        "enable_tool_evaluation": False,
        "created_at": timestamp(run_test.created_at),
        "updated_at": timestamp(run_test.created_at),
        "last_run_at": timestamp(last_run_at),
        "deleted": False,
        "deleted_at": None,
        "evals": configs,
    }


def _link(url: str, query: Mapping[str, str], page: int) -> str:
    """The same list at another page; page 1 is the list without a page."""
    others = {name: value for name, value in query.items() if name != "page"}
    pairs = sorted(others.items() if page == 1 else {**others, "page": str(page)}.items())
    return f"{url}?{urlencode(pairs)}" if pairs else url


def _integer(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
