"""A call by two lists that cost two requests an execution: its rows, and whether the stored ones are what the API says. Pure.

The list of calls has their scenarios and evals; the execution's detail has nearly all of their metrics in another shape, and some
fields that nothing else has. Both are brought into the shape of a call's own metrics, and made into a row as always.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from etl.model import schema
from etl.model.records import CallMetrics, DetailedCall, FetchedCall, ListedCall, NumberLiteral
from etl.model.values import json_text, parsed
from etl.transform.flatten import call_row, eval_row
from etl.transform.rows import MAKERS, value_at

_Path = tuple[str, ...]

SAME: Mapping[str, _Path] = {
    "id": ("call_execution_id",),
    "test_execution_id": ("execution_id",),
    "status": ("status",),
    "duration_seconds": ("duration_seconds",),
    "avg_agent_latency_ms": ("latency", "avg_agent_latency_ms"),
    "response_time_ms": ("latency", "response_time_ms"),
    "cost_cents": ("cost", "total_cost_cents"),
    **{name: ("conversation", name) for name in ("user_wpm", "bot_wpm", "talk_ratio")},
    **{name: ("conversation", name) for name in ("user_interruption_count", "user_interruption_rate")},
    **{name: ("conversation", name) for name in ("ai_interruption_count", "ai_interruption_rate")},
    "avg_stop_time_after_interruption": ("conversation", "avg_stop_time_after_interruption_ms"),  # milliseconds, too
    **{name: ("chat_metrics", name) for name in ("input_tokens", "output_tokens", "total_tokens")},
    **{name: ("chat_metrics", name) for name in ("avg_latency_ms", "csat_score", "turn_count")},
}
"""Fields of the detail, and where a call's metrics have the same value."""

_OBJECTS: Mapping[_Path, tuple[_Path, _Path]] = {
    ("customer_latency_metrics", "systemMetrics"): (
        ("latency", "system_metrics"),
        ("latency", "customer_latency_metrics"),
    ),
    ("customer_cost_breakdown",): (("cost", "breakdown"), ("cost", "customer_cost_breakdown")),
}
"""Open-ended objects of the detail, and where metrics have the same one, in two spellings. Metrics omit one that is no object."""

SHOWN: Mapping[str, schema.Column] = {
    path[1]: column for column in schema.CALLS.columns for path in column.paths if path[0] == "detail"
}
"""Fields that the detail alone has and that are exported, with their columns. Any other one stays out: many are personal data."""

SHOWN_COLUMNS = frozenset(column.name for column in SHOWN.values())
_SHOWN_AT = [schema.CALLS.names.index(column.name) for column in SHOWN.values()]
_OF_A_SNAPSHOT = {
    *("snapshot_timestamp", "rerun_type", "status", "started_at", "completed_at", "duration_seconds", "message_count"),
    *("cost_cents", "stt_cost_cents", "llm_cost_cents", "tts_cost_cents", "overall_score", "response_time_ms"),
    *("avg_agent_latency_ms", "avg_stop_time_after_interruption_ms", "eval_outputs"),
    *(path[1] for path in SAME.values() if path[0] == "conversation"),
}

_NEEDED = {*SAME, *(path[0] for path in _OBJECTS)}
_COVERED: frozenset[_Path] = frozenset(
    {*SAME.values(), ("call_results",), ("detail",), *(path for paths in _OBJECTS.values() for path in paths)}
)
_EXTRA = schema.CALLS.names.index("extra")
_TURN_COUNT = schema.CALLS.names.index("chat_metrics_turn_count")

COVERED_COLUMNS = tuple(
    column.name
    for column in schema.CALLS.columns
    if any(path[:depth] in _COVERED for path in column.paths for depth in range(1, len(path) + 1))
)
"""Columns of ``calls`` that the two lists prove, and which of ``extra`` lies under the same paths."""

_COMPARED = {*COVERED_COLUMNS, "run_test_name", "execution_started_at", "extra"}


def differences(
    listed: ListedCall, detail: DetailedCall, stored: Sequence[Any], *, run_test_name: str, started_at: datetime | None
) -> set[str]:
    """The columns in which fetching the call's metrics now would give another row, as far as ``COVERED_COLUMNS`` go.

    ``stored`` is the call's row in the order of ``schema.CALLS``; the name and the start are those of the call's execution. A
    detail without a field tells nothing, as if a column ``detail`` differed. Where metrics have no ``turn_count``, the detail
    makes one up, which is not compared.
    """
    if not _has_all(detail):
        return {"detail"}
    extra = parsed(stored[_EXTRA])
    shown = shown_in_row(stored) | shown_in(detail)
    fetched = FetchedCall(listed=listed, metrics=_metrics(detail, extra), shown=shown)
    if stored[_TURN_COUNT] is None and value_at(extra, SAME["turn_count"]) is None:
        del fetched.metrics.payload["chat_metrics"]["turn_count"]
    row, _ = call_row(fetched, run_test_name=run_test_name, started_at=started_at)
    pairs = zip(schema.CALLS.names, _covered(row, parsed(row[_EXTRA])), _covered(stored, extra), strict=True)
    return {name for name, new, old in pairs if name in _COMPARED and json_text(new) != json_text(old)}


def metrics_in(detail: DetailedCall) -> CallMetrics | None:
    """The call's metrics as far as the execution's detail has them; None where it tells too little of the call.

    Costs by kind and ``message_count`` are not in it, and a ``turn_count`` may be made up there.
    """
    if not (_has_all(detail) and isinstance(detail.payload["status"], str)):
        return None
    metrics = _metrics(detail, {})
    del metrics.payload["chat_metrics"]["turn_count"]
    return metrics


def shown_in(detail: DetailedCall) -> dict[str, Any]:
    """What the detail alone has of the call, of that which is exported."""
    shown = {name: detail.payload[name] for name in SHOWN if name in detail.payload}
    if "rerun_snapshots" in shown:
        snapshots = shown["rerun_snapshots"] if isinstance(shown["rerun_snapshots"], list) else ()
        shown["rerun_snapshots"] = [_without_texts(each) for each in snapshots if isinstance(each, dict)]
    return shown


def _without_texts(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """What is exported of a snapshot, which may also have numbers of phones, texts and recordings."""
    kept = {name: value for name, value in snapshot.items() if name in _OF_A_SNAPSHOT}
    if isinstance(chat := snapshot.get("conversation_metrics_data"), dict):
        is_number = {name: isinstance(value, int | float | NumberLiteral) for name, value in chat.items()}
        kept["chat_metrics"] = {name: value for name, value in chat.items() if is_number[name]}
    return kept


def shown_in_row(stored: Sequence[Any]) -> dict[str, Any]:
    """What the stored row of a call has of the fields that the detail alone has."""
    shown = {
        name: parsed(value) if column.is_json else value
        for (name, column), index in zip(SHOWN.items(), _SHOWN_AT, strict=True)
        if (value := stored[index]) is not None
    }
    shown |= parsed(stored[_EXTRA]).get("detail", {})
    return shown


def amended(stored: Sequence[Any], detail: DetailedCall) -> list[Any]:
    """The stored row of a call with what the detail alone has, as it is now."""
    shown, _ = MAKERS[schema.CALLS.name].make({"detail": shown_in_row(stored) | shown_in(detail)}, {})
    row, extra = list(stored), parsed(stored[_EXTRA])
    for index in _SHOWN_AT:
        row[index] = shown[index]
    if shown[_EXTRA] or extra.pop("detail", None):
        extra |= parsed(shown[_EXTRA])
        row[_EXTRA] = json_text(extra) if extra else None
    return row


def vouches_for_evals(detail: DetailedCall, stored: Iterable[Sequence[Any]]) -> bool:
    """Whether the detail shows the ``stored`` evals of the call, rows in the order of ``schema.EVALS``, and no others.

    The detail has choices as a list, an empty text for a missing one, nothing of an eval that waits or has no configuration.
    """
    outputs = detail.payload.get("eval_outputs")
    if not isinstance(outputs, dict):
        return False
    shown = [eval_row(_as_listed(output), {"eval_config_id": key})[0] for key, output in outputs.items()]
    return dict(map(_told, shown)) == dict(map(_told, stored))


def _has_all(detail: DetailedCall) -> bool:
    return detail.payload.keys() >= _NEEDED


def _metrics(detail: DetailedCall, extra: Mapping[str, Any]) -> CallMetrics:
    """The call's metrics as far as the detail has them; open-ended objects are spelled as in the stored ``extra``."""
    payload: dict[str, Any] = {}
    for name, path in SAME.items():
        _put(payload, path, detail.payload[name])
    for path, spellings in _OBJECTS.items():
        value = value_at(detail.payload, path)
        if isinstance(value, dict):
            spelled = next((each for each in spellings if value_at(extra, each) is not None), spellings[0])
            _put(payload, spelled, value)
    return CallMetrics(
        call_execution_id=detail.call_execution_id,
        execution_id=detail.payload["test_execution_id"],
        status=detail.payload["status"],
        payload=payload,
        is_from_detail=True,
    )


def _covered(row: Sequence[Any], extra: Mapping[str, Any]) -> list[Any]:
    """The row, and of its ``extra`` what lies under a covered path."""
    covered = _below(extra, ())
    return [*row[:_EXTRA], json_text(covered, is_sorted=True) if covered else None, *row[_EXTRA + 1 :]]


def _below(fields: Mapping[str, Any], at: _Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        path = (*at, name)
        if path in _COVERED:
            found[name] = value
        elif isinstance(value, dict) and (nested := _below(value, path)):
            found[name] = nested
    return found


def _put(payload: dict[str, Any], path: _Path, value: Any) -> None:
    for step in path[:-1]:
        payload = payload.setdefault(step, {})
    payload[path[-1]] = value


def _as_listed(output: Any) -> Any:
    """The output as the list of calls has it."""
    if not isinstance(output, dict):
        return output
    names = {"name": "name", "type": "output_type", "value": "output", "reason": "reason"}
    return {names[name]: value for name, value in output.items() if name in names}


def _told(values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The configuration of an eval, and what both the list and the detail say of it."""
    row = dict(zip(schema.EVALS.names, values, strict=True))
    output = row["output_text"] if row["output_json"] is None else json.loads(row["output_json"])
    if row["output_type"] == "choices":
        output = output.get("choices", output.get("choice")) if isinstance(output, dict) else output
        output = output if isinstance(output, list) else [output]
    misfit = json.loads(row["extra"] or "{}").get("output")
    texts = (row["eval_name"] or None, row["output_type"] or None, row["reason"] or None, output or None)
    return row["eval_config_id"], (row["output_passed"], row["output_score"], misfit, *texts)
