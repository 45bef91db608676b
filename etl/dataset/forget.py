"""Remove rows for good, on the owner's word: nothing else in the exporter does (law 6).

What goes stands in ``_state/dataset.json`` before the first file is written, and until the last one is. In between,
nobody reads the dataset; what a killed ``forget`` leaves, the next one or a run removes. A forgotten execution keeps a
row that says so, with nothing of what the source gave but its id, its run test and its start: so no run fetches it
again, and readers that follow ``exported_at`` replace the rows that they have of it by none.

Never decides who asks for it, nor what may go: see ``pipeline/forget``.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.layout import Part, part_path
from etl.dataset.part_index import held_rows
from etl.dataset.parts import Dataset, Forgetting
from etl.files.interface import version_of
from etl.model import schema
from etl.model.arrow import is_of, with_values
from etl.model.lifecycle import ExportState

_KEPT = ("execution_id", "run_test_name", "started_at")
"""What the row of a forgotten execution still says of it."""


@dataclass(frozen=True, slots=True)
class Going:
    """What goes from one part."""

    rows: Counter[str]
    """How many rows, by table."""
    executions: dict[str, tuple[str, int]]
    """The executions that these rows belong to, each with its digest and number of calls afterwards."""
    calls: frozenset[str]
    """The ids of the calls that go; of an execution that goes as a whole, only those that were named."""
    living: frozenset[str]
    """Of the calls that were named, those that the source still had in the last run."""


def find_going(
    dataset: Dataset, part: Part, executions: Collection[str], calls: Collection[str], deleted_before: datetime
) -> Going:
    """What goes from the part: these executions, and what is marked as deleted of these calls, or before this time.

    Raises:
        DestinationError: a file cannot be read.
    """
    stored = {table.name: dataset.rows_if_readable(table, part) for table in schema.OF_EXECUTIONS}
    names = ["call_execution_id", "deleted_at", "execution_id"]
    marks = pa.concat_tables(stored[table.name].select(names) for table in schema.OF_CALLS)
    living = {*_calls_of(marks.filter(marks["deleted_at"].is_null()))}
    gone = {*_calls_of(marks)}.intersection(calls) - living
    gone |= {*_calls_of(stored["calls"].filter(_is_older(stored["calls"], deleted_before)))}
    gone |= {*_calls_of(marks.filter(is_of(marks, executions)))}.intersection(calls)
    going = {name: _goes(schema.TABLES[name], rows, executions, gone, deleted_before) for name, rows in stored.items()}
    counts = Counter({name: pc.sum(goes).as_py() or 0 for name, goes in going.items()})
    changed = [id_ for name, rows in stored.items() for id_ in rows.filter(going[name])["execution_id"].to_pylist()]
    left = (stored[table.name].filter(pc.invert(going[table.name])) for table in schema.OF_CALLS)
    held = held_rows(dict.fromkeys(changed), *left)
    executions_left = {id_: (each.calls_digest, each.exported_calls) for id_, each in held.items()}
    return Going(counts, executions_left, frozenset(gone), frozenset(living.intersection(calls)))


def forget_rows(dataset: Dataset, what: Forgetting) -> None:
    """Remove the rows, part by part, execution rows last, and write all files of the parts, even if repeated.

    What the rows of executions vouch for is what was there when it was noted: what somebody took away since is missed.

    Raises:
        DestinationError: a file cannot be read or written; the next run goes on.
    """
    for part, changed in what.parts:
        for table in (schema.CALLS, schema.EVALS, schema.ERRORS):
            rows = dataset.rows(table, part)
            goes = _goes(table, rows, what.executions, what.calls, what.deleted_before)
            if version_of(dataset.files, part_path(table.name, part)):
                dataset.write(table, part, rows.filter(pc.invert(goes)))
        rows = dataset.rows(schema.EXECUTIONS, part)
        own = dict.fromkeys(changed.keys() & what.executions)
        rows = with_values(rows, {name: own for name in rows.column_names if name not in _KEPT})
        values: dict[str, dict[str, object]] = {
            "export_state": dict.fromkeys(own, ExportState.FORGOTTEN),
            "fingerprint": dict.fromkeys(own, ""),
            "deleted_at": dict.fromkeys(own, what.exported_at),
            "calls_digest": {execution_id: digest for execution_id, (digest, _) in changed.items()},
            "exported_calls": {execution_id: calls for execution_id, (_, calls) in changed.items()},
            "export_run_id": dict.fromkeys(changed, what.export_run_id),
            "exported_at": dict.fromkeys(changed, what.exported_at),
        }
        dataset.write(schema.EXECUTIONS, part, with_values(rows, values))
        dataset.receipt.note(part.run_test_key, "replaced", changed)


def _goes(
    table: schema.Table, rows: pa.Table, executions: Collection[str], calls: Collection[str], deleted_before: datetime
) -> pa.ChunkedArray:
    """For each row, whether it goes; these calls go with their evals and dead letters."""
    goes = is_of(rows, executions)
    if table is schema.EXECUTIONS:
        return goes
    subject = "subject_id" if table is schema.ERRORS else "call_execution_id"
    goes = pc.or_(goes, is_of(rows, calls, subject))
    return pc.or_(goes, _is_older(rows, deleted_before)) if table is schema.EVALS else goes


def _calls_of(rows: pa.Table) -> list[str]:
    """The id of the call of each row."""
    return list(rows["call_execution_id"].to_pylist())


def _is_older(rows: pa.Table, deleted_before: datetime) -> pa.ChunkedArray:
    """For each row, whether it was marked before this time."""
    is_older = pc.less(rows["deleted_at"], pa.scalar(deleted_before, schema.TIMESTAMP))
    return pc.fill_null(is_older, fill_value=False)
