"""What the dataset holds: the stored executions, whether their calls and evals are as exported, and what was lost.

Reads the files that the index does not know, as far as it needs them, and all columns of one part's calls, evals and
dead letters while a crawl compares them. Writes nothing, but may move damaged files to the quarantine. Never decides
what to fetch: see ``extract/plan``.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.index import Index, has_newer, is_damaged, read_index, update_index
from etl.dataset.layout import Part
from etl.dataset.parquet import UnreadableError
from etl.dataset.parts import Dataset
from etl.model import schema
from etl.model.arrow import row_versions, runs_of
from etl.model.lifecycle import LONG_AGO, ExportState, HeldRows, StoredCalls, StoredExecution
from etl.model.records import DETAIL
from etl.model.values import python_values, shared_values

_UNIQUE = {"execution_id", "fingerprint", "calls_digest", "held_digest"}
"""Columns of the index of which hardly any two rows share a value."""
_NOT_PLANNED = {"started_at", "export_run_id"}
"""Columns of the index that no plan needs."""


@dataclass(slots=True)
class StoredState:
    """What the dataset holds, as it was read last."""

    executions: dict[str, StoredExecution] = field(default_factory=dict)
    """By id, every execution of which there is a row in any table; a killed run may have left no row of its own."""
    half_unmarked: set[str] = field(default_factory=set)
    """The ids of marked executions whose calls and evals a killed run has unmarked or replaced already."""
    lost: dict[Part, set[str]] = field(default_factory=dict)
    """By part, the ids of executions of which somebody removed rows that the last run had left there."""
    unreadable: list[str] = field(default_factory=list)
    """The paths of damaged files."""
    index: Index = field(default_factory=Index)
    """What each part holds; ``executions`` are derived from it."""

    def part_of(self, execution_id: str) -> Part | None:
        """Where the rows of the execution lie; None if there are none."""
        stored = self.executions.get(execution_id)
        return Part(stored.run_test_key, stored.place) if stored else None

    def started_before(self, day: date) -> set[str]:
        """The ids of the stored executions that were created before this day; not those of which that is unknown."""
        rows = (part.rows for part in self.index.parts.values())
        pairs = (zip(python_values(each["started_at"]), each["execution_id"].to_pylist(), strict=True) for each in rows)
        return {execution_id for at, execution_id in chain.from_iterable(pairs) if at and at.date() < day}

    def newest_started_at(self) -> datetime:
        """When the newest stored execution was created, as far as that is known; long ago if it is not."""
        starts = (pc.max(part.rows["started_at"]).as_py() for part in self.index.parts.values())
        return max(filter(None, starts), default=LONG_AGO)


class CallReader:
    """Reads the stored calls of one execution after the other, and keeps the part that it read last.

    A missing or damaged file counts as empty: the commit deals with it. Not for two threads at once. It hands no Python
    value to Arrow, which would import pandas for that.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._part: Part | None = None
        self._read: dict[str, tuple[pa.Table, dict[str, list[tuple[int, int]]]]] = {}

    def read(self, part: Part, execution_id: str) -> StoredCalls:
        """What the part holds of the execution's calls, evals and dead letters.

        Raises:
            DestinationError: a file may not be read, or a newer version wrote it.
        """
        tables = (*schema.OF_CALLS, schema.ERRORS)
        calls, evals, errors = (self._rows_of(table, part, execution_id) for table in tables)
        letters = zip(errors["subject_id"].to_pylist(), errors["endpoint"].to_pylist(), strict=True)
        failed = frozenset(subject for subject, endpoint in letters if endpoint != DETAIL)
        # A call counts as marked only if its row and all its evals are marked and no dead letter names it.
        marks: dict[str, bool] = dict.fromkeys(failed - {execution_id}, False)
        for rows in (evals, calls):
            are_deleted = rows["deleted_at"].is_valid().to_pylist()
            for call_id, is_deleted in zip(rows["call_execution_id"].to_pylist(), are_deleted, strict=True):
                marks[call_id] = is_deleted and marks.get(call_id, True)
        evals_of = defaultdict[str, list[list[Any]]](list)
        for call_id, row in _living(evals):
            evals_of[call_id].append(row)
        return StoredCalls(marks, dict(_living(calls)), evals_of, failed)

    def _rows_of(self, table: schema.Table, part: Part, execution_id: str) -> pa.Table:
        if part != self._part:
            self._part = part
            self._read = {}
        if table.name not in self._read:
            try:
                rows = self._dataset.rows_if_readable(table, part)
            except UnreadableError:
                rows = table.no_rows
            runs: dict[str, list[tuple[int, int]]] = defaultdict(list)
            for owner, start, end in runs_of(rows):
                runs[owner].append((start, end - start))
            self._read[table.name] = rows, runs
        rows, runs = self._read[table.name]
        # Only these are cut out: slices of all executions would take more memory than the part.
        return pa.concat_tables([rows.slice(*run) for run in runs.get(execution_id, [(0, 0)])])


def _living(rows: pa.Table) -> Iterator[tuple[str, list[Any]]]:
    """The values of the rows that are not marked, in the order of the columns, each row with the id of its call."""
    living = rows.filter(rows["deleted_at"].is_null())
    values = zip(*(python_values(column) for column in living.columns), strict=True)
    return zip(living["call_execution_id"].to_pylist(), map(list, values), strict=True)


def read_state(dataset: Dataset, *, set_aside: bool) -> StoredState:
    """The stored executions, with what their parts of calls and evals really hold.

    A damaged file counts as missing, so that its executions are fetched again. With ``set_aside``, which is for the
    holder of the lock, it is moved to the quarantine.

    Raises:
        DestinationError: a file may not be read, is not one of this dataset, or was written by a newer version.
    """
    state = StoredState()
    known = read_index(dataset.files)
    state.index = update_index(dataset, known, state.unreadable)
    if set_aside:
        for path in state.unreadable:
            dataset.set_aside(path)
    derive_executions(state)
    state.lost = _lost(known, state)
    return state


def derive_executions(state: StoredState) -> None:
    """Derive ``executions`` and ``half_unmarked`` from the index again."""
    state.executions = {}
    state.half_unmarked = set()
    for part, part_index in state.index.parts.items():
        for row in _values(part_index.rows):
            _add_execution(part, row, state)


def _add_execution(part: Part, row: Mapping[str, Any], state: StoredState) -> None:
    """Add the execution of one row of the index to the state."""
    has_row = row["is_here"]
    held_at, exported_at = row["held_at"], row["exported_at"]
    digest = row["held_digest"] or row["calls_digest"]
    held = HeldRows(row["listed_calls"], row["held_calls"], digest, row["detail_calls"])
    # If a run was killed before it wrote the execution's row, it counts as deleted when all its calls and evals are
    # marked, and it has no dead letters.
    gone_at = held_at if row["is_deleted"] and not row["has_errors"] else None
    stored = StoredExecution(
        run_test_key=part.run_test_key,
        place=part.place,
        export_state=row["export_state"] if has_row else ExportState.INCOMPLETE,
        fingerprint=row["fingerprint"] if has_row else "",
        exported_calls=row["exported_calls"] if has_row else held.exported_calls,
        held=held,
        calls_digest=row["calls_digest"] if has_row else digest,
        verified_at=row["verified_at"],
        exported_at=exported_at,
        deleted_at=row["deleted_at"] if has_row else gone_at,
        run_test_name=row["run_test_name"] or "",
        has_letters=row["has_errors"],
        lacks_detail=row["lacks_detail"],
        has_row=has_row,
        is_described=row["run_test_id"] is not None or row["export_state"] == ExportState.FORGOTTEN,
        has_newer_rows=bool(has_row and held_at and exported_at and held_at > exported_at),
    )
    # Somebody may have copied a file of calls to another part: the part with the execution's own row counts.
    if has_row or row["execution_id"] not in state.executions:
        state.executions[row["execution_id"]] = stored
    if row["deleted_at"] and not row["is_deleted"]:
        state.half_unmarked.add(row["execution_id"])


def _lost(known: Index, state: StoredState) -> dict[Part, set[str]]:
    """By part, the executions of which rows are gone since the ``known`` index was written.

    No run removes rows, so somebody else did. Either the execution's own row is not there any more, or its calls and
    evals do not match its digest although none of them is newer than its row, as they would be after a killed run.
    """
    lost: dict[Part, set[str]] = {}
    with_row = {execution_id for execution_id, stored in state.executions.items() if stored.has_row}
    for part, before in known.parts.items():
        after = state.index.parts.get(part)
        if after is before:
            continue
        gone = {*before.rows.filter(before.rows["is_here"])["execution_id"].to_pylist()} - with_row
        if after is not None:
            gone |= _without_some_calls(before.rows, after.rows)
        if gone:
            lost[part] = gone
    return lost


def _without_some_calls(before: pa.Table, after: pa.Table) -> set[str]:
    """The executions of a part whose calls or evals were removed between two readings of its index."""
    mismatched = after.filter(pc.and_not(is_damaged(after), has_newer(after)))
    whole_before = before.filter(pc.and_not(before["is_here"], is_damaged(before)))
    return {execution_id for execution_id, _ in row_versions(mismatched) & row_versions(whole_before)}


def _values(rows: pa.Table) -> Iterator[Mapping[str, Any]]:
    """The rows as far as a plan needs them; a value that many rows share (a name, a state, a time) is one object."""
    names = [name for name in rows.column_names if name not in _NOT_PLANNED]
    columns = (rows[name].to_pylist() if name in _UNIQUE else shared_values(rows[name]) for name in names)
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
