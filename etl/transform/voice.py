"""What the list of voice calls adds to an execution's detail, so that both together give a call's whole row. Pure.

Which list has which cell of the row of a voice call, and when it is not believed:

| cells | list | not believed |
|---|---|---|
| ``SAME`` and the open-ended objects of ``detail.py`` | detail | another value in the other list (``IN_BOTH``) |
| ``STAGES`` of ``detail.py``: what speech and language models cost | voice calls | the same |
| evals, as they are stored | voice calls | |
| ``schema.OF_VOICE_LIST`` | voice calls | it is not there |
| scenario | detail | another name in the other list |
| of chats | neither | the detail shows one: the call is no voice call |

A call of which something is not believed keeps its own request. ``differing`` judges by one call for all.
"""

from collections.abc import Mapping

from msgspec import structs

from etl.model import schema
from etl.model.records import CallMetrics, FetchedCall, ListedCall
from etl.model.values import json_text, parsed, value_at
from etl.transform.detail import STAGES, listed_in
from etl.transform.flatten import call_row, filled
from etl.transform.row_hash import NOT_HASHED
from etl.transform.rows import Path

IN_BOTH: Mapping[str, Path] = {
    **{name: (name,) for name in ("status", "duration_seconds", "response_time_ms", "cost_cents")},
    **{name: (name,) for name in ("overall_score", "customer_cost_cents")},
    "scenario_name": ("scenario",),
    "system_metrics": ("customer_latency_metrics", "systemMetrics"),
    "cost_breakdown": ("customer_cost_breakdown",),
}
"""By field of the list of voice calls, where the detail has the same. Where they differ, the call has just changed."""

_NOT_JUDGED = NOT_HASHED | {"extra"}
"""Columns in which a call's own metrics may differ from lists: a new field is no reason to ask for each call."""
FIELDS = (*IN_BOTH, *STAGES, "eval_outputs")
"""The fields that a voice call has to have. Others are dropped at once, but for ``schema.OF_VOICE_LIST``: many are
personal data.
"""


def listed_call(detail: ListedCall, voice: ListedCall) -> ListedCall:
    """The call as the list of calls would have it."""
    listed, outputs = listed_in(detail), voice.payload["eval_outputs"]
    return structs.replace(listed, payload=listed.payload | {"eval_outputs": {} if outputs is None else outputs})


def joined(detail: ListedCall, voice: ListedCall) -> ListedCall:
    """The detail's call with its stages; without them where the two lists do not agree about it."""
    if any(value_at(detail.payload, path) != voice.payload[name] for name, path in IN_BOTH.items()):
        return detail
    added = {name: voice.payload[name] for name in (*STAGES, *schema.OF_VOICE_LIST) if name in voice.payload}
    return structs.replace(detail, payload=detail.payload | added)


def differing(call: FetchedCall, of_lists: CallMetrics) -> list[str]:
    """The columns in which the row of a call's own metrics is another one than that of its lists.

    What is null in it, lists may have.
    """
    both = (call, structs.replace(call, metrics=of_lists))
    rows = [filled(each, call_row(each, run_test_name="", started_at=None)[0]) for each in both]
    return [
        column.name
        for column, own, other in zip(schema.CALLS.columns, *rows, strict=True)
        if column.name not in _NOT_JUDGED and _comparable(column, own) != _comparable(column, other)
    ]


def _comparable(column: schema.Column, value: object) -> object:
    """The value, with the fields of an object in order."""
    return json_text(parsed(value), is_sorted=True) if column.is_json and isinstance(value, str) else value
