"""Make a call's row from the lists of its execution, and tell whether the stored row is what these lists say. Pure.

Lists cost two requests an execution, where the calls' own metrics cost one a call. The list of calls has their
scenarios and evals. The execution's detail has nearly all of their metrics in another shape, and some fields that
nothing else has. What is missing from it of a voice call, ``voice.py`` adds to it. All is brought into the shape of a
call's own metrics, and made into a row like these.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

from msgspec import structs

from etl.model import schema
from etl.model.records import FROM_BOTH, FROM_DETAIL, FROM_LISTS, CallMetrics, FetchedCall, ListedCall, NumberLiteral
from etl.model.values import json_text, parsed, value_at
from etl.model.wording import reason_line
from etl.transform.flatten import call_row, eval_row, filled
from etl.transform.rows import MAKERS, Path

SAME: Mapping[str, Path] = {
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
"""By field of the detail, where a call's own metrics have the same value."""

STAGES: Mapping[str, Path] = {name: ("cost", name) for name in ("stt_cost_cents", "llm_cost_cents", "tts_cost_cents")}
"""The same for fields that a detail has only with what the list of voice calls adds to it."""

FIELDS_IN: dict[str, Mapping[str, str]] = {
    above: {name: path[-1] for name, path in {**SAME, **STAGES}.items() if path[:-1] == (above,) * bool(above)}
    for above in ("", "latency", "cost", "conversation", "chat_metrics")
}
"""By object of a call's own metrics ("": the outermost), its fields by their names in the detail."""

_OBJECTS: Mapping[Path, tuple[Path, Path]] = {
    ("customer_latency_metrics", "systemMetrics"): (
        ("latency", "system_metrics"),
        ("latency", "customer_latency_metrics"),
    ),
    ("customer_cost_breakdown",): (("cost", "breakdown"), ("cost", "customer_cost_breakdown")),
}
"""By path of an open-ended object in the detail, the two places where a call's own metrics may have the same object.

The metrics leave it out if it is no object.
"""

SHOWN: Mapping[str, schema.Column] = {
    path[1]: column for column in schema.CALLS.columns for path in column.paths if path[0] == "detail"
}
"""Fields that only the detail has and that are exported, with their columns.

No other field of the detail is: many are personal data.
"""

SHOWN_COLUMNS = frozenset(column.name for column in SHOWN.values())
"""Names of the columns of ``calls`` that only the detail fills."""
_SHOWN_AT = [schema.CALLS.names.index(column.name) for column in SHOWN.values()]
_OF_A_SNAPSHOT = {path[1] for path in SAME.values() if path[0] == "conversation"}
_OF_A_SNAPSHOT |= {"snapshot_timestamp", "rerun_type", "status", "started_at", "completed_at", "duration_seconds"}
_OF_A_SNAPSHOT |= {"cost_cents", "stt_cost_cents", "llm_cost_cents", "tts_cost_cents"}
_OF_A_SNAPSHOT |= {"message_count", "response_time_ms", "avg_agent_latency_ms", "overall_score", "eval_outputs"}
"""Fields of a call's state before a rerun that are exported: no text, number of a phone or recording is among them."""

_NEEDED = {*SAME, *(path[0] for path in _OBJECTS)}
"""Fields without which the detail tells too little of a call."""
EXPORTED = sorted(_NEEDED | STAGES.keys() | SHOWN.keys() | {"scenario", "scenario_id", "eval_outputs"})
"""All fields of the detail that a row may show."""
_SPELLINGS = {path for paths in _OBJECTS.values() for path in paths}
_COVERED: frozenset[Path] = frozenset({*SAME.values(), *_SPELLINGS, ("call_results",), ("detail",)})
"""Paths in the payload of a call below which list and detail have all that its own metrics have."""
_EXTRA = schema.CALLS.names.index("extra")
_METRICS_FROM = schema.CALLS.names.index("metrics_from")
_TURN_COUNT = schema.CALLS.names.index("chat_metrics_turn_count")

_AT: Mapping[Path, int] = {path: index for index, column in enumerate(schema.CALLS.columns) for path in column.paths}
"""By path in the payload of a call, the place of its column in a row."""
_SHOWN_IN_BOTH = {
    name: _AT[path] for name, path in SAME.items() if name not in ("id", "test_execution_id", "turn_count")
}
_SHOWN_IN_BOTH |= {name: _AT[path] for name, path in STAGES.items()}
_SHOWN_IN_BOTH |= {"scenario": _AT["call_results", "scenario_name"], "scenario_id": _AT["call_results", "scenario_id"]}
"""By field of the detail, the place of its column in a row; without a turn count, which the detail may make up."""
_OF_PROVIDER = {path[2]: index for path, index in _AT.items() if path[:2] == ("latency", "system_metrics")}
"""By name of a metric of the voice provider, the place of its column in a row."""
_BREAKDOWN = _AT["cost", "breakdown"]

COVERED_COLUMNS = tuple(
    column.name
    for column in schema.CALLS.columns
    if any(path[:depth] in _COVERED for path in column.paths for depth in range(1, len(path) + 1))
)
"""Columns of ``calls`` for which list and detail are enough, as for what ``extra`` has below their paths."""

_COMPARED = {*COVERED_COLUMNS, "run_test_name", "execution_started_at", "extra"}
_STAGE_COLUMNS = {schema.CALLS.names[_AT[path]] for path in STAGES.values()}
_OF_CHATS = [name for name, path in SAME.items() if path[0] == "chat_metrics" and name != "turn_count"]
"""Fields of the detail that are null for a voice call; it may make up a turn count."""


def differences(
    listed: ListedCall, detail: ListedCall, stored: Sequence[Any], *, run_test_name: str, started_at: datetime | None
) -> set[str]:
    """The columns in which fetching the call's metrics now would give another row, as far as the lists show them.

    ``stored`` is the call's row in the order of ``schema.CALLS``; the run test's name and the start are those of its
    execution. If a field of the detail is missing, nothing can be said, and a column ``detail`` is named that no row
    has. If the metrics have no ``turn_count``, the detail makes one up, which is not compared. Nor is ``extra`` if the
    metrics had values in another form.
    """
    if not _has_all(detail):
        return {"detail"}
    extra = parsed(stored[_EXTRA])
    shown = shown_in_row(stored) | shown_in(detail)
    fetched = FetchedCall(listed=listed, metrics=_metrics(detail, extra), shown=shown, by_lists=by_lists(detail))
    if stored[_TURN_COUNT] is None and value_at(extra, SAME["turn_count"]) is None:
        del fetched.metrics.payload["chat_metrics"]["turn_count"]
    own, _ = call_row(fetched, run_test_name=run_test_name, started_at=started_at)
    row = filled(fetched, own)
    has_stages = detail.payload.keys() >= STAGES.keys()
    paths = _COVERED.union(STAGES.values()) if has_stages else _COVERED
    pairs = zip(
        schema.CALLS.names, _covered(row, parsed(row[_EXTRA]), paths), _covered(stored, extra, paths), strict=True
    )
    compared = _COMPARED | _STAGE_COLUMNS if has_stages else _COMPARED
    compared = compared - {"extra"} if stored[_METRICS_FROM] == FROM_BOTH else compared
    return {
        name for name, new, old in pairs if name in compared and new is not old and json_text(new) != json_text(old)
    }


def listed_in(detail: ListedCall) -> ListedCall:
    """The call as a list without evals has it."""
    payload: dict[str, Any] = {
        "call_execution_id": detail.call_execution_id,
        "scenario_name": detail.payload.get("scenario"),
    }
    payload |= {name: detail.payload.get(name) for name in ("scenario_id", "status", "duration_seconds")}
    return ListedCall(call_execution_id=detail.call_execution_id, payload=payload)


def metrics_in(detail: ListedCall) -> CallMetrics | None:
    """The call's metrics as far as the execution's detail has them; None if a field or the call's status is missing.

    Those of a voice call whose stages were added are whole. Others lack the columns ``schema.NOT_IN_LISTS``: the detail
    has no costs by kind and no ``message_count``, and it may make up a ``turn_count``.
    """
    if not (_has_all(detail) and isinstance(detail.payload["status"], str)):
        return None
    metrics = _metrics(detail, {})
    del metrics.payload["chat_metrics"]["turn_count"]
    is_of_voice = all(detail.payload[name] is None for name in _OF_CHATS)
    is_whole = is_of_voice and detail.payload.keys() >= STAGES.keys()
    return structs.replace(metrics, made_from=FROM_LISTS) if is_whole else metrics


def by_lists(detail: ListedCall) -> dict[int, Any]:
    """What the detail shows of the columns that a call's own metrics and its list fill, as ``FetchedCall.by_lists``."""
    payload = detail.payload
    shown = {index: payload[name] for name, index in _SHOWN_IN_BOTH.items() if name in payload}
    metrics = value_at(payload, ("customer_latency_metrics", "systemMetrics"))
    if isinstance(metrics, dict):
        shown |= {index: metrics[name] for name, index in _OF_PROVIDER.items() if name in metrics}
    if isinstance(breakdown := payload.get("customer_cost_breakdown"), dict):
        shown[_BREAKDOWN] = breakdown
    return shown


def by_lists_in_row(stored: Sequence[Any]) -> dict[int, Any]:
    """The same, of a stored row that has values of the lists; nothing, if it has its call's own metrics alone."""
    if stored[_METRICS_FROM] not in (FROM_DETAIL, FROM_BOTH):
        return {}
    shown = {index: stored[index] for index in (*_SHOWN_IN_BOTH.values(), *_OF_PROVIDER.values())}
    breakdown = stored[_BREAKDOWN]
    return shown | {_BREAKDOWN: None if breakdown is None else parsed(breakdown)}


def shown_in(detail: ListedCall) -> dict[str, Any]:
    """The exported fields of the call that only the detail has, by name."""
    shown = {name: detail.payload[name] for name in SHOWN if name in detail.payload}
    if isinstance(reason := shown.get("ended_reason"), str):
        shown["ended_reason"] = reason_line(reason)
    if "rerun_snapshots" in shown:
        snapshots = shown["rerun_snapshots"] if isinstance(shown["rerun_snapshots"], list) else ()
        shown["rerun_snapshots"] = [_without_texts(snapshot) for snapshot in snapshots if isinstance(snapshot, dict)]
    return shown


def _without_texts(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """What is exported of a snapshot, which may also have phone numbers, texts and recordings."""
    exported = {name: value for name, value in snapshot.items() if name in _OF_A_SNAPSHOT}
    if isinstance(chat := snapshot.get("conversation_metrics_data"), dict):
        numbers = {name: value for name, value in chat.items() if isinstance(value, int | float | NumberLiteral)}
        exported["chat_metrics"] = numbers
    return exported


def shown_in_row(stored: Sequence[Any]) -> dict[str, Any]:
    """The fields that only the detail has, by name, as the stored row of a call has them; without nulls."""
    shown = {
        name: parsed(value) if column.is_json else value.isoformat() if column.type is schema.TIMESTAMP else value
        for (name, column), index in zip(SHOWN.items(), _SHOWN_AT, strict=True)
        if (value := stored[index]) is not None
    }
    shown |= parsed(stored[_EXTRA]).get("detail", {})
    return shown


def amended(stored: Sequence[Any], detail: ListedCall) -> list[Any]:
    """The stored row of a call with what only the detail has, as it is now; a field that is gone keeps its value."""
    shown, _ = MAKERS[schema.CALLS.name].make({"detail": shown_in_row(stored) | shown_in(detail)}, {})
    row = list(stored)
    extra = parsed(stored[_EXTRA])
    for index in _SHOWN_AT:
        row[index] = shown[index]
    if shown[_EXTRA] or extra.pop("detail", None):
        extra |= parsed(shown[_EXTRA])
        row[_EXTRA] = json_text(extra) if extra else None
    return row


def vouches_for_evals(detail: ListedCall, stored: Iterable[Sequence[Any]]) -> bool:
    """Whether the detail shows exactly the ``stored`` evals of the call: rows in the order of ``schema.EVALS``.

    The detail writes choices as a list, and an empty text for a missing one. It leaves out an eval that waits or has no
    configuration.
    """
    outputs = detail.payload.get("eval_outputs")
    if not isinstance(outputs, dict):
        return False
    shown = [eval_row(_as_listed(output), {"eval_config_id": key})[0] for key, output in outputs.items()]
    return dict(map(_said_by_both, shown)) == dict(map(_said_by_both, stored))


def _has_all(detail: ListedCall) -> bool:
    """Whether the detail has every field that it has to have of a call, be it null."""
    return detail.payload.keys() >= _NEEDED


def _metrics(detail: ListedCall, extra: Mapping[str, Any]) -> CallMetrics:
    """The call's metrics as far as the detail has them; open-ended objects are where the stored ``extra`` has them."""
    shown = detail.payload
    payload: dict[str, Any] = {}
    for above, fields in FIELDS_IN.items():
        values = {own: shown[name] for name, own in fields.items() if name in shown}
        payload |= {above: values} if above else values
    for path, spellings in _OBJECTS.items():
        value = value_at(shown, path)
        if isinstance(value, dict):
            stored_at = (spelling for spelling in spellings if value_at(extra, spelling) is not None)
            above, own = next(stored_at, spellings[0])
            payload[above][own] = value
    return CallMetrics(
        call_execution_id=detail.call_execution_id,
        execution_id=shown["test_execution_id"],
        status=shown["status"],
        payload=payload,
        made_from=FROM_DETAIL,
    )


def _covered(row: Sequence[Any], extra: Mapping[str, Any], paths: AbstractSet[Path]) -> list[Any]:
    """The row with only that part of its ``extra`` that lies below one of the paths."""
    covered = _below(extra, (), paths)
    return [*row[:_EXTRA], json_text(covered, is_sorted=True) if covered else None, *row[_EXTRA + 1 :]]


def _below(fields: Mapping[str, Any], at: Path, paths: AbstractSet[Path]) -> dict[str, Any]:
    """The part of the fields, which are at this path of a payload, that lies below one of the paths."""
    covered: dict[str, Any] = {}
    for name, value in fields.items():
        path = (*at, name)
        if path in paths:
            covered[name] = value
        elif isinstance(value, dict) and (nested := _below(value, path, paths)):
            covered[name] = nested
    return covered


def _as_listed(output: Any) -> Any:
    """The output of an eval in the shape that the list of calls has."""
    if not isinstance(output, dict):
        return output
    names = {"name": "name", "type": "output_type", "value": "output", "reason": "reason"}
    return {names[name]: value for name, value in output.items() if name in names}


def _said_by_both(values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The configuration of an eval, and what both the list and the detail say about the eval, in one form."""
    row = dict(zip(schema.EVALS.names, values, strict=True))
    output = row["output_text"] if row["output_json"] is None else json.loads(row["output_json"])
    if row["output_type"] == "choices":
        output = output.get("choices", output.get("choice")) if isinstance(output, dict) else output
        output = output if isinstance(output, list) else [output]
    misfit = json.loads(row["extra"] or "{}").get("output")
    texts = (row["eval_name"] or None, row["output_type"] or None, row["reason"] or None, output or None)
    return row["eval_config_id"], (row["output_passed"], row["output_score"], misfit, *texts)
