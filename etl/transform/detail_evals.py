"""Whether a call's stored evals are what its execution's detail shows, for lists that cannot be had with evals. Pure.

The detail has choices as a list, an empty text for a missing one, nothing of an eval that waits or has no configuration.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from etl.model import schema
from etl.model.records import DetailedCall
from etl.transform.flatten import eval_row


def vouches_for_evals(detail: DetailedCall, stored: Iterable[Sequence[Any]]) -> bool:
    """Whether the detail shows the ``stored`` evals of the call, rows in the order of ``schema.EVALS``, and no others."""
    outputs = detail.payload.get("eval_outputs")
    if not isinstance(outputs, dict):
        return False
    shown = [eval_row(_as_listed(output), {"eval_config_id": key})[0] for key, output in outputs.items()]
    return dict(map(_told, shown)) == dict(map(_told, stored))


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
