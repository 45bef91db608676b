"""What the dataset holds: the stored executions, whether their calls and evals are those that were exported, and what was lost.

Of each file that the index does not know a few columns are read. Writes nothing; a damaged file may be moved to the quarantine.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.load.dataset import Dataset
from etl.load.files.contract import data_files
from etl.load.index import Index, is_damaged, read_index, update_index
from etl.load.layout import Part
from etl.model import schema
from etl.model.lifecycle import LONG_AGO, ExportState, HeldRows, StoredExecution
from etl.transform.frames import shared_values

_UNIQUE = {
    "execution_id", "listed_calls", "exported_calls", "held_calls", "fingerprint", "calls_digest", "held_digest", "is_here",
}  # fmt: skip
_NOT_PLANNED = {"started_at", "export_run_id"}


@dataclass(slots=True)
class StoredState:
    """What the dataset holds: ``executions`` by id, also those that have no row of their own, since a run was killed before.

    ``half_deleted`` are executions that are marked, and whose calls or evals are not all. ``lost`` are executions of which the last
    run left rows that are gone since, by the part where they were. ``unreadable`` are files. ``index`` is what each part held when
    the state was loaded.
    """

    executions: dict[str, StoredExecution] = field(default_factory=dict)
    half_deleted: set[str] = field(default_factory=set)
    lost: dict[Part, set[str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    index: Index = field(default_factory=Index)

    def part_of(self, execution_id: str) -> Part | None:
        """Where the rows of the execution lie; None when there are none."""
        stored = self.executions.get(execution_id)
        return Part(stored.run_test_key, stored.place) if stored else None


def load_state(dataset: Dataset, *, strict_keys: Collection[str] | None = (), set_aside: bool) -> StoredState:
    """The stored executions, with what their parts of calls and evals really hold.

    A file that cannot be read counts as missing, so that its executions are fetched again; with ``set_aside`` it is moved to the
    quarantine.

    Raises:
        DestinationError: a file is not one of this dataset, or was written by a newer version.
    """
    state = StoredState()
    data_files(dataset.files, schema.RUNS_TABLE.name)  # no row there counts, but no pipe or link may lie there either
    known = read_index(dataset.files)
    state.index = update_index(dataset, known, state.unreadable, strict_keys=strict_keys)
    if set_aside:
        state.unreadable = [dataset.set_aside(path) for path in state.unreadable]
    load_parts(state)
    state.lost = _lost(known, state)
    return state


def load_parts(state: StoredState) -> None:
    """Let the state say what its index says."""
    state.executions, state.half_deleted = {}, set()
    for part, each in state.index.parts.items():
        for row in _values(each.rows):
            _load(part, row, state)


def forget_the_future(state: StoredState, now: datetime) -> None:
    """Times that have not come yet count as unknown: they were written by a clock that was wrong."""
    for execution_id, stored in state.executions.items():
        if (known := stored.as_of(now)) is not stored:
            state.executions[execution_id] = known


def _load(part: Part, row: Mapping[str, Any], state: StoredState) -> None:
    execution_id, has_row = row["execution_id"], row["is_here"]
    held = HeldRows(row["listed_calls"], row["held_calls"], row["held_digest"])
    told = {name: row[name] for name in ("export_state", "fingerprint", "exported_calls", "verified_at", "exported_at")}
    if not has_row:
        told |= {"export_state": ExportState.INCOMPLETE, "fingerprint": "", "exported_calls": held.exported_calls}
    is_whole = not has_row or held.calls_digest == row["calls_digest"]
    stored = StoredExecution(
        run_test_key=part.run_test_key,
        place=part.place,
        held=held,
        # One object for both: there may be a million of them.
        calls_digest=held.calls_digest if is_whole else row["calls_digest"],
        deleted_at=row["deleted_at"] if has_row else row["held_at"] if _is_gone(row) else None,
        run_test_name=row["run_test_name"] or "",
        has_letters=row["has_errors"],
        has_row=has_row,
        has_newer_rows=has_row and _is_newer(row["held_at"], row["exported_at"]),
        **told,
    )
    if row["deleted_at"] and not row["is_deleted"]:
        state.half_deleted.add(execution_id)
    before = state.executions.get(execution_id)
    if before is None or _worth(before) <= _worth(stored):  # two only where files were copied by hand
        state.executions[execution_id] = stored


def _is_newer(held_at: datetime | None, exported_at: datetime | None) -> bool:
    return held_at is not None and exported_at is not None and held_at > exported_at


def _is_gone(row: Mapping[str, Any]) -> bool:
    """Whether all that is there of an execution without a row is marked as deleted."""
    return bool(row["is_deleted"]) and not row["has_errors"]


def _worth(stored: StoredExecution) -> tuple[bool, bool, datetime]:
    """Which of two rows of an execution counts: it is one, its calls are complete, or else it was written last."""
    return stored.has_row, not stored.is_damaged, stored.exported_at or LONG_AGO


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
