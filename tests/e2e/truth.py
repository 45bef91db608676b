"""What a dataset must hold, taken straight from the sandbox's world: attribute by attribute, without the exporter."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from etl.model import schema
from etl.sandbox import World
from etl.sandbox.sdk import execution_metrics
from etl.sandbox.world import SimulatedCall, SimulatedExecution, SimulatedRunTest, listable_calls

Row = dict[str, Any]

_SAME_NAMES = [
    "user_wpm",
    "bot_wpm",
    "talk_ratio",
    "user_interruption_count",
    "user_interruption_rate",
    "ai_interruption_count",
    "ai_interruption_rate",
    "avg_stop_time_after_interruption_ms",
]
_SYSTEM_METRICS = [
    "bot_wpm",
    "user_wpm",
    "talk_ratio",
    "ai_interruption_rate",
    "ai_interruption_count",
    "user_interruption_rate",
    "user_interruption_count",
    "avg_agent_latency_ms",
    "avg_stop_time_after_interruption_ms",
]
_CHAT = ["input_tokens", "output_tokens", "total_tokens", "message_count", "turn_count", "avg_latency_ms", "csat_score"]


def executions(world: World) -> Iterator[tuple[SimulatedRunTest, SimulatedExecution]]:
    for run_test in world.run_tests:
        for execution in run_test.executions:
            if not execution.is_deleted:
                yield run_test, execution


def call_rows(world: World) -> dict[tuple[str, ...], Row]:
    return {
        (call.call_execution_id,): call_row(run_test, execution, call)
        for run_test, execution in executions(world)
        if execution.status in ("completed", "failed", "cancelled")
        for call in listable_calls(execution)
    }


def call_row(run_test: SimulatedRunTest, execution: SimulatedExecution, call: SimulatedCall) -> Row:
    system_metrics, chat = call.system_metrics or {}, call.chat_metrics or {}
    return (
        {
            "call_execution_id": call.call_execution_id,
            "execution_id": execution.execution_id,
            "run_test_name": run_test.name,
            "execution_started_at": execution.started_at,
            "scenario_id": call.scenario.scenario_id,
            "scenario_name": call.scenario.name,
            "status": call.status,
            "duration_seconds": call.duration_seconds,
            "latency_avg_agent_latency_ms": call.avg_agent_latency_ms,
            "latency_response_time_ms": call.response_time_ms,
            "cost_total_cost_cents": call.total_cost_cents,
            "cost_stt_cost_cents": call.stt_cost_cents,
            "cost_llm_cost_cents": call.llm_cost_cents,
            "cost_tts_cost_cents": call.tts_cost_cents,
            "cost_customer_cost_breakdown": call.cost_breakdown,
        }
        | {f"latency_customer_{name}": system_metrics.get(name) for name in _SYSTEM_METRICS}
        | {f"conversation_{name}": getattr(call, name) for name in _SAME_NAMES}
        | {f"chat_metrics_{name}": chat.get(name) for name in _CHAT}
    )


def outputs_of(call: SimulatedCall) -> dict[str, Any]:
    """Its evals; a call may have something else in their place."""
    outputs: Any = call.eval_outputs
    return outputs if isinstance(outputs, dict) else {}


def eval_rows(world: World) -> dict[tuple[str, ...], Row]:
    rows: dict[tuple[str, ...], Row] = {}
    for run_test, execution in executions(world):
        if execution.status not in ("completed", "failed", "cancelled"):
            continue
        for call in listable_calls(execution):
            for config_id, output in outputs_of(call).items():
                rows[call.call_execution_id, config_id] = _eval_row(run_test, execution, call, config_id, output)
    return rows


def _eval_row(
    run_test: SimulatedRunTest,
    execution: SimulatedExecution,
    call: SimulatedCall,
    config_id: str,
    output: dict[str, Any],
) -> Row:
    value = output.get("output")
    return {
        "call_execution_id": call.call_execution_id,
        "eval_config_id": config_id,
        "run_test_name": run_test.name,
        "execution_id": execution.execution_id,
        "execution_started_at": execution.started_at,
        "eval_name": output.get("name"),
        "output_type": output.get("output_type"),
        "output_passed": {"Passed": True, "Failed": False}.get(value) if isinstance(value, str) else None,
        "output_score": value if isinstance(value, int | float) else None,
        "output_text": value if isinstance(value, str) else None,
        "output_json": value if isinstance(value, list) else None,
        "reason": output.get("reason"),
        "status": output.get("status"),
    }


def execution_rows(world: World) -> dict[tuple[str, ...], Row]:
    return {(execution.execution_id,): _execution_row(run_test, execution) for run_test, execution in executions(world)}


def _execution_row(run_test: SimulatedRunTest, execution: SimulatedExecution) -> Row:
    metrics = execution_metrics(execution)["metrics"]
    percentiles = metrics["latency"]["percentiles"]
    row: Row = {
        "execution_id": execution.execution_id,
        "run_test_name": run_test.name,
        "status": execution.status,
        "started_at": execution.started_at,
        "completed_at": execution.completed_at,
        "total_calls": execution.total_calls,
        "completed_calls": execution.completed_calls,
        "failed_calls": execution.failed_calls,
        "latency_avg_agent_latency_ms": metrics["latency"]["avg_agent_latency_ms"],
        "latency_avg_response_time_ms": metrics["latency"]["avg_response_time_ms"],
    }
    if execution.status in ("completed", "failed", "cancelled"):
        row |= {"run_test_id": run_test.run_test_id, "agent_version": execution.agent_version}
    row |= {f"latency_percentiles_{name}": percentiles.get(name) for name in ("p50", "p95", "p99")}
    for block in ("cost", "conversation", "chat", "calls"):
        row |= {f"{block}_{name}": value for name, value in metrics[block].items()}
    return row


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    """Those that the source has: without a mark that it was deleted there."""
    rows: list[dict[str, Any]] = ds.dataset(folder / "data" / table, partitioning="hive").to_table().to_pylist()
    return [row for row in rows if row.get("deleted_at") is None]


def assert_holds(folder: Path, table: str, expected: dict[tuple[str, ...], Row]) -> None:
    """Every row exactly once, and each cell as the world has it."""
    assert_same_rows(table, rows_of(folder, table), expected)


def assert_same_rows(table: str, rows: list[Row], expected: dict[tuple[str, ...], Row]) -> None:
    """These rows, each exactly once, with these cells; other columns may hold anything.

    A row that comes from its execution's lists has nulls where these do not tell. So has an execution of which lists of
    run tests told nothing.
    """
    found = {tuple(row[name] for name in schema.TABLES[table].key): row for row in rows}
    assert len(found) == len(rows), "a row stands twice"
    assert found.keys() == expected.keys()
    is_json = {column.name for column in schema.TABLES[table].columns if column.is_json}
    for key, wanted in expected.items():
        row = found[key]
        untold: tuple[str, ...] = schema.NOT_IN_LISTS if row.get("metrics_from") == "detail" else ()
        untold = ("run_test_id", "agent_version") if row.get("run_test_id", "") is None else untold
        for name, value in (wanted | dict.fromkeys(untold)).items():
            cell = row[name]
            assert (json.loads(cell) if name in is_json and cell is not None else cell) == value, (table, key, name)


def assert_equals_world(folder: Path, world: World) -> None:
    assert_holds(folder, "executions", execution_rows(world))
    assert_holds(folder, "calls", call_rows(world))
    assert_holds(folder, "evals", eval_rows(world))
