"""Mark executions that the source no longer has, with their calls and evals."""

from collections.abc import Collection, Mapping
from typing import Any

from etl.load.dataset import Dataset
from etl.load.layout import Part
from etl.load.merge import mark, with_values
from etl.load.part_index import held_rows
from etl.load.receipt import Change
from etl.model import schema
from etl.transform.frames import ExportStamp


def mark_deleted(dataset: Dataset, parts: Mapping[str, Part], stamp: ExportStamp) -> int:
    """Mark the rows of these executions, which lie in these parts; returns how many executions were marked.

    Their dead letters go, which no run can resolve. Execution rows are written last, and vouch for what the dataset holds from then
    on. A run that is killed between is completed by the next.

    Raises:
        DestinationError: something could not be written.
    """
    in_parts: dict[Part, set[str]] = {}
    for execution_id, part in parts.items():
        in_parts.setdefault(part, set()).add(execution_id)
    return sum(_mark_in(dataset, part, ids, stamp) for part, ids in sorted(in_parts.items()))


def _mark_in(dataset: Dataset, part: Part, execution_ids: Collection[str], stamp: ExportStamp) -> int:
    tables = {}
    touched = set[str]()
    for table in (schema.CALLS, schema.EVALS, schema.ERRORS):
        merged = mark(table, dataset.rows(table, part), execution_ids, stamp.columns)
        dataset.write_if_changed(table, part, merged)
        tables[table.name] = merged.table
        touched |= merged.changed
    merged = mark(schema.EXECUTIONS, dataset.rows(schema.EXECUTIONS, part), execution_ids, stamp.columns)
    rows = merged.table
    ids = rows["execution_id"].to_pylist()
    changed = (merged.changed | touched) & {*ids}
    held = held_rows(dict.fromkeys(changed), tables[schema.CALLS.name], tables[schema.EVALS.name])
    if changed:
        told: dict[str, dict[str, Any]] = {
            "calls_digest": {each: of.calls_digest for each, of in held.items()},
            "exported_calls": {each: of.exported_calls for each, of in held.items()},
            **{name: dict.fromkeys(changed, value) for name, value in stamp.columns.items()},
        }
        dataset.write(schema.EXECUTIONS, part, with_values(rows, told))
        dataset.receipt.note(part.run_test_key, Change.MARKED, changed)
    return len(changed)
