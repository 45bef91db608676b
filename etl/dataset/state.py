"""What the dataset holds: the stored executions, whether their calls and evals are those that were exported, and what was lost.

Of each file that the index does not know a few columns are read, and of the calls of a part more while a crawl compares them.
Writes nothing; a damaged file may be moved to the quarantine.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.index import Index, is_damaged, read_index, update_index
from etl.dataset.layout import Part, part_path
from etl.dataset.parquet import UnreadableError
from etl.dataset.parts import Dataset
from etl.errors import FileMissingError
from etl.model import schema
from etl.model.arrow import is_of
from etl.model.lifecycle import ExportState, HeldRows, StoredCalls, StoredExecution
from etl.model.values import python_values, shared_values

_UNIQUE = {
    "execution_id", "listed_calls", "exported_calls", "held_calls", "fingerprint", "calls_digest", "held_digest", "is_here",
}  # fmt: skip
_NOT_PLANNED = {"started_at", "export_run_id"}


@dataclass(slots=True)
class StoredState:
    """What the dataset holds: ``executions`` by id, also those that have no row of their own, since a run was killed before.

    ``half_deleted`` are executions that an older version marked without their calls and evals, ``half_unmarked`` those whose mark a
    killed run took from these alone. ``lost`` are executions of which the last run left rows that are gone since, by the part where
    they were. ``unreadable`` are files. ``index`` is what each part held when the state was loaded.
    """

    executions: dict[str, StoredExecution] = field(default_factory=dict)
    half_deleted: set[str] = field(default_factory=set)
    half_unmarked: set[str] = field(default_factory=set)
    lost: dict[Part, set[str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    index: Index = field(default_factory=Index)

    def part_of(self, execution_id: str) -> Part | None:
        """Where the rows of the execution lie; None when there are none."""
        stored = self.executions.get(execution_id)
        return Part(stored.run_test_key, stored.place) if stored else None


class CallReader:
    """Reads what the dataset holds of calls, one part at a time, and once as long as the same part is asked for.

    Of a file that is gone or damaged nothing is held: a commit deals with it. Not for two threads at once.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._part: Part | None = None
        self._tables: dict[str, pa.Table] = {}

    def read(self, part: Part, execution_id: str) -> StoredCalls:
        """What the part holds of the execution's calls."""
        calls, evals, errors = (
            self._of(table, part, execution_id) for table in (schema.CALLS, schema.EVALS, schema.ERRORS)
        )
        failed = frozenset(errors["subject_id"].to_pylist())
        marks: dict[str, bool] = dict.fromkeys(failed - {execution_id}, False)
        for rows in (evals, calls):
            are_deleted = rows["deleted_at"].is_valid().to_pylist()
            for call_id, is_deleted in zip(rows["call_execution_id"].to_pylist(), are_deleted, strict=True):
                marks[call_id] = is_deleted and marks.get(call_id, True)
        evals_of = defaultdict[str, list[list[Any]]](list)
        for call_id, row in _living(evals):
            evals_of[call_id].append(row)
        return StoredCalls(marks, dict(_living(calls)), evals_of, failed)

    def _of(self, table: schema.Table, part: Part, execution_id: str) -> pa.Table:
        if part != self._part:
            self._part, self._tables = part, {}
        if table.name not in self._tables:
            try:
                self._tables[table.name] = self._dataset.read(table, part_path(table.name, part), table.names)
            except (FileMissingError, UnreadableError):
                self._tables[table.name] = table.no_rows
        rows = self._tables[table.name]
        return rows.filter(is_of(rows, [execution_id]))


def _living(rows: pa.Table) -> Iterator[tuple[str, list[Any]]]:
    """The rows that are not marked, each with the id of its call."""
    living = rows.filter(rows["deleted_at"].is_null())
    values = zip(*(python_values(column) for column in living.columns), strict=True)
    return zip(living["call_execution_id"].to_pylist(), map(list, values), strict=True)


def read_state(dataset: Dataset, *, set_aside: bool) -> StoredState:
    """The stored executions, with what their parts of calls and evals really hold.

    A file that cannot be read counts as missing, so that its executions are fetched again; with ``set_aside`` it is moved to the
    quarantine. One that is not of this dataset, or of a newer version, is a DestinationError.
    """
    state = StoredState()
    known = read_index(dataset.files)
    state.index = update_index(dataset, known, state.unreadable)
    for path in state.unreadable if set_aside else ():
        dataset.set_aside(path)
    derive_executions(state)
    state.lost = _lost(known, state)
    return state


def derive_executions(state: StoredState) -> None:
    """Set the executions of the state, and which are half deleted or half unmarked, to what its index says."""
    state.executions, state.half_deleted, state.half_unmarked = {}, set(), set()
    for part, each in state.index.parts.items():
        for row in _values(each.rows):
            _add_execution(part, row, state)


def _add_execution(part: Part, row: Mapping[str, Any], state: StoredState) -> None:
    has_row, held_at, exported_at = row["is_here"], row["held_at"], row["exported_at"]
    digest = row["held_digest"] or row["calls_digest"]
    held = HeldRows(row["listed_calls"], row["held_calls"], digest, row["detail_calls"])
    told = {name: row[name] for name in ("export_state", "fingerprint", "exported_calls", "verified_at", "deleted_at")}
    if not has_row:
        # All that is there of it may be marked.
        is_gone = row["is_deleted"] and not row["has_errors"]
        told |= {"export_state": ExportState.INCOMPLETE, "fingerprint": "", "exported_calls": held.exported_calls}
        told |= {"deleted_at": held_at if is_gone else None}
    stored = StoredExecution(
        run_test_key=part.run_test_key,
        place=part.place,
        held=held,
        calls_digest=row["calls_digest"] if has_row else digest,
        exported_at=exported_at,
        run_test_name=row["run_test_name"] or "",
        has_letters=row["has_errors"],
        has_row=has_row,
        has_newer_rows=bool(has_row and held_at and exported_at and held_at > exported_at),
        **told,
    )
    # A file may have been copied by hand, without its executions.
    if has_row or row["execution_id"] not in state.executions:
        state.executions[row["execution_id"]] = stored
    if row["deleted_at"] and not row["is_deleted"]:
        (state.half_unmarked if stored.is_damaged else state.half_deleted).add(row["execution_id"])


def _lost(known: Index, state: StoredState) -> dict[Part, set[str]]:
    """The executions of which rows are gone since the index was written, by part, as far as it tells.

    No run takes rows away, so somebody else did: an execution is not there any more, or its calls and evals are not those that it
    vouches for, although none was written after it, as a run that was killed leaves them.
    """
    lost: dict[Part, set[str]] = {}
    here = {execution_id for execution_id, stored in state.executions.items() if stored.has_row}
    for part, before in known.parts.items():
        after = state.index.parts.get(part)
        if after is before:
            continue
        gone = {*before.rows.filter(before.rows["is_here"])["execution_id"].to_pylist()} - here
        if after is not None:
            is_older = pc.fill_null(pc.less_equal(after.rows["held_at"], after.rows["exported_at"]), fill_value=True)
            torn = after.rows.filter(pc.and_(is_damaged(after.rows), is_older))
            whole_before = before.rows.filter(pc.and_not(before.rows["is_here"], is_damaged(before.rows)))
            gone |= {execution_id for execution_id, _ in _as_written(torn) & _as_written(whole_before)}
        if gone:
            lost[part] = gone
    return lost


def _as_written(rows: pa.Table) -> set[tuple[str, datetime | None]]:
    """The executions, each with when its row was written."""
    return {*zip(rows["execution_id"].to_pylist(), rows["exported_at"].to_pylist(), strict=True)}


def _values(rows: pa.Table) -> Iterator[Mapping[str, Any]]:
    """The rows as far as a plan needs them; a value that many of them share (a name, a state, a time) is one object."""
    names = [name for name in rows.column_names if name not in _NOT_PLANNED]
    columns = (rows[name].to_pylist() if name in _UNIQUE else shared_values(rows[name]) for name in names)
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
