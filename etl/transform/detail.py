"""Whether a stored call is still what the API says, by two lists that cost two requests an execution. Pure.

The list of calls has their scenarios and evals; the execution's detail has nearly all of their metrics in another shape. Both are
brought into the shape of a call's own metrics, made into a row as always, and compared with the stored row.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from etl.model import schema
from etl.model.records import CallMetrics, DetailedCall, FetchedCall, ListedCall
from etl.model.values import json_text, parsed
from etl.transform.flatten import call_row
from etl.transform.rows import value_at

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

_COVERED: frozenset[_Path] = frozenset(
    {*SAME.values(), ("call_results",), *(path for paths in _OBJECTS.values() for path in paths)}
)
_EXTRA = schema.CALLS.names.index("extra")
_TURN_COUNT = schema.CALLS.names.index("chat_metrics_turn_count")


def _is_covered(path: _Path) -> bool:
    return any(path[:depth] in _COVERED for depth in range(1, len(path) + 1))


COVERED_COLUMNS = tuple(column.name for column in schema.CALLS.columns if any(map(_is_covered, column.paths)))
"""Columns of ``calls`` that the two lists prove, and which of ``extra`` lies under the same paths."""

_COMPARED = {*COVERED_COLUMNS, "run_test_name", "execution_started_at", "extra"}


def differences(
    listed: ListedCall,
    detail: DetailedCall,
    stored: Sequence[Any],
    *,
    run_test_name: str,
    started_at: datetime | None,
) -> set[str]:
    """The columns in which fetching the call's metrics now would give another row, as far as ``COVERED_COLUMNS`` go.

    ``stored`` is the call's row in the order of ``schema.CALLS``; the name and the start are those of the call's execution. A
    detail without a field tells nothing, as if a column ``detail`` differed. Where metrics have no ``turn_count``, the detail
    makes one up, which is not compared.
    """
    if any(name not in detail.payload for name in (*SAME, *(path[0] for path in _OBJECTS))):
        return {"detail"}
    extra = parsed(stored[_EXTRA])
    fetched = FetchedCall(listed=listed, metrics=_metrics(detail, extra))
    if stored[_TURN_COUNT] is None and value_at(extra, SAME["turn_count"]) is None:
        del fetched.metrics.payload["chat_metrics"]["turn_count"]
    row, _ = call_row(fetched, run_test_name=run_test_name, started_at=started_at)
    pairs = zip(schema.CALLS.names, _covered(row, parsed(row[_EXTRA])), _covered(stored, extra), strict=True)
    return {name for name, new, old in pairs if name in _COMPARED and json_text(new) != json_text(old)}


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
