"""Whether the stored evals of a call are still what its execution's detail shows, for lists that cannot be had with evals. Pure.

The detail has choices as a list, an empty text for a missing one, nothing of an eval that waits, and no eval whose configuration was
deleted.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from etl.model import schema
from etl.model.records import DetailedCall
from etl.transform.flatten import eval_row

_Row = Sequence[Any]


def vouches_for_evals(detail: DetailedCall, stored: Iterable[_Row]) -> bool:
    """Whether the detail shows the ``stored`` evals of the call, rows in the order of ``schema.EVALS``, and no others."""
    outputs = detail.payload.get("eval_outputs")
    if not isinstance(outputs, dict):
        return False
    shown = [eval_row(_as_listed(output), {"eval_config_id": key})[0] for key, output in outputs.items()]
    return [*map(_told, _sorted(shown))] == [*map(_told, _sorted(stored))]


def _as_listed(output: Any) -> Any:
    """The output as the list of calls has it."""
    names = {"name": "name", "type": "output_type", "value": "output", "reason": "reason"}
    return {names[name]: value for name, value in output.items() if name in names} if isinstance(output, dict) else output


def _sorted(rows: Iterable[_Row]) -> list[dict[str, Any]]:
    return sorted((dict(zip(schema.EVALS.names, row, strict=True)) for row in rows), key=lambda row: row["eval_config_id"])


def _told(row: dict[str, Any]) -> tuple[Any, ...]:
    """What both the list and the detail say of an eval."""
    output = row["output_text"] if row["output_json"] is None else json.loads(row["output_json"])
    if row["output_type"] == "choices":
        output = output.get("choices", output.get("choice")) if isinstance(output, dict) else output
        output = output if isinstance(output, list) else [output]
    misfit = json.loads(row["extra"] or "{}").get("output")
    texts = (row["eval_name"] or None, row["output_type"] or None, row["reason"] or None, output or None)
    return row["eval_config_id"], row["output_passed"], row["output_score"], misfit, *texts
