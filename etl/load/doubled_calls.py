"""Calls that stand under two executions, because they moved: find them, and remove them from all places but the newest.

A run need not have fetched the execution that a call left, so all files are looked through. Until then both places hold the call;
a run that is killed there is finished by the next. No call goes on the word of a list alone: another execution must have it.
"""

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import FileMissingError
from etl.load.dataset import Dataset
from etl.load.index import Index
from etl.load.layout import Part, part_path
from etl.load.merge import is_of, with_column
from etl.load.parquet import UnreadableError
from etl.load.part_index import hash_ids
from etl.load.receipt import Change
from etl.load.state import held_rows
from etl.model import schema
from etl.model.lifecycle import CLOCKS_DIFFER, LONG_AGO, ExportState, HeldRows
from etl.model.records import RUNS
from etl.transform.frames import ExportStamp

_CHANGED = ("calls_digest", "exported_calls", "listed_calls", "export_state", "export_run_id", "exported_at")
_READ = ["execution_id", "deleted_at", *_CHANGED]
_SUBJECT = ("execution_id", "subject_id")
_IDS = ("call_execution_id", "execution_id", "exported_at")


def find_doubled_calls(
    dataset: Dataset, index: Index, moved: Mapping[tuple[str, str], str], *, now: datetime
) -> dict[Part, dict[str, set[str]]]:
    """The calls to remove, by part and execution_id: those that another execution has newer. Damaged files are skipped.

    ``index`` is that of the files as they are. Evals that are left of a call count like the call. A time after ``now`` is unknown,
    and counts as the oldest. ``moved`` has the execution that a call names, by the execution that no longer lists it and the call:
    where that has it, it stays there, and an execution without its rows is named all the same.
    """
    owners = {call_id: owner for (_, call_id), owner in moved.items()}
    places = _places_of_calls(dataset, index, owners, now)
    pairs: list[tuple[Part, str, str]] = []
    for call_id, found in places.items():
        _, newest, _ = max(found)
        named = [execution_id for _, execution_id, _ in found if execution_id == owners.get(call_id)]
        pairs += [(part, each, call_id) for _, each, part in found if each not in (named or [newest])]
    sources = _parts_of({execution_id for execution_id, _ in moved}, index)
    for (execution_id, call_id), owner in moved.items():
        if execution_id in sources and owner in [each for _, each, _ in places.get(call_id, ())]:
            pairs.append((sources[execution_id], execution_id, call_id))
    doubled: dict[Part, dict[str, set[str]]] = {}
    for part, execution_id, call_id in pairs:
        doubled.setdefault(part, {}).setdefault(execution_id, set()).add(call_id)
    return doubled


def _places_of_calls(
    dataset: Dataset, index: Index, wanted: Collection[str], now: datetime
) -> dict[str, list[tuple[datetime, str, Part]]]:
    """Since when which execution has each call, and where: of all ``wanted`` and doubled calls, and of those beside them."""
    ordered = np.sort(index.call_hashes())
    suspects = np.unique(np.concatenate([ordered[1:][ordered[1:] == ordered[:-1]], hash_ids(wanted)]))
    places: dict[str, list[tuple[datetime, str, Part]]] = {}
    for part, each in index.parts.items() if len(suspects) else ():
        if not np.isin(each.call_hashes, suspects).any():
            continue
        for call_id, execution_id, exported_at in _read(dataset, part):
            since = exported_at if exported_at and exported_at <= now + CLOCKS_DIFFER else LONG_AGO
            places.setdefault(call_id, []).append((since, execution_id, part))
    return places


def _parts_of(execution_ids: Collection[str], index: Index) -> dict[str, Part]:
    """Where the rows of these executions lie."""
    parts: dict[str, Part] = {}
    for part, each in index.parts.items() if execution_ids else ():
        mine = each.rows.filter(pc.and_(each.rows["is_here"], is_of(each.rows, execution_ids)))
        parts |= dict.fromkeys(mine["execution_id"].to_pylist(), part)
    return parts


def remove_calls(
    dataset: Dataset, part: Part, call_ids: Mapping[str, set[str]], stamp: ExportStamp
) -> dict[str, set[str]]:
    """Remove the calls of these executions, and their evals; the execution rows, which vouch for what is left, change last.

    The next run compares these executions once more: a source that gives a call back may list them as before. Returns by
    execution_id the calls of which a dead letter said that the execution no longer lists them: it went with them.

    Raises:
        DestinationError: something could not be written. If the execution rows were not, the next run fetches the executions.
    """
    old, new = [], []
    for table in (schema.CALLS, schema.EVALS):
        rows = dataset.rows(table, part)
        old.append(rows)
        new.append(_without(dataset, table, part, rows, "call_execution_id", call_ids))
    before, after = (held_rows(dict.fromkeys(call_ids, 0), *tables) for tables in (old, new))
    letters = dataset.rows(schema.ERRORS, part)
    of_lists = letters.filter(pc.equal(letters["endpoint"], RUNS))
    unlisted: dict[str, set[str]] = {}
    for execution_id, subject_id in zip(*(of_lists[name].to_pylist() for name in _SUBJECT), strict=True):
        if subject_id in call_ids.get(execution_id, ()):
            unlisted.setdefault(execution_id, set()).add(subject_id)
    letters = _without(dataset, schema.ERRORS, part, letters, "subject_id", unlisted)
    executions = dataset.rows(schema.EXECUTIONS, part)
    listed = {each: len(ids - unlisted.get(each, set())) for each, ids in call_ids.items()}
    healed = unlisted.keys() - set(letters["execution_id"].to_pylist())
    changed = [_changed(row, before, after, listed, healed, stamp) for row in executions.select(_READ).to_pylist()]
    for name in _CHANGED:
        executions = with_column(executions, name, [row[name] for row in changed])
    if changed:
        dataset.write(schema.EXECUTIONS, part, executions)
    ids = after.keys() & set(executions["execution_id"].to_pylist())
    emptied = {each for each in ids if before[each].exported_calls and not after[each].exported_calls}
    dataset.receipt.note(part.run_test_key, Change.REPLACED, ids)
    dataset.receipt.note(part.run_test_key, Change.EMPTIED, emptied)
    return unlisted


def _without(
    dataset: Dataset, table: schema.Table, part: Part, rows: pa.Table, name: str, call_ids: Mapping[str, set[str]]
) -> pa.Table:
    """The rows without those of these calls, which the column ``name`` has, written if any goes."""
    ids = zip(rows["execution_id"].to_pylist(), rows[name].to_pylist(), strict=True)
    stays = [call_id not in call_ids.get(execution_id, ()) for execution_id, call_id in ids]
    if all(stays):
        return rows
    left = rows.filter(pa.array(stays, pa.bool_()))
    dataset.write_or_remove(table, part, left)
    return left


def _changed(
    row: dict[str, Any],
    before: Mapping[str, HeldRows],
    after: Mapping[str, HeldRows],
    listed: Mapping[str, int],
    healed: AbstractSet[str],
    stamp: ExportStamp,
) -> dict[str, Any]:
    """The execution's row as it is once its calls are removed, if it is one of these executions.

    ``listed`` is how many of these calls it counts as listed; those that are ``healed`` have no dead letter any more.
    """
    execution_id = row["execution_id"]
    if execution_id not in after:
        return row
    # A digest that did not match the rows stays as it is: what was damaged is still known to be.
    is_whole = before[execution_id].is_as_exported(row["calls_digest"])
    listed_calls, exported_calls = row["listed_calls"], after[execution_id].exported_calls
    if listed_calls is not None:
        listed_calls = max(0, listed_calls - listed[execution_id])
    is_complete = (
        execution_id in healed and is_whole and exported_calls == listed_calls
        if row["export_state"] == ExportState.INCOMPLETE
        else row["export_state"] == ExportState.EXPORTED and row["deleted_at"] is None
    )
    return {
        "calls_digest": after[execution_id].calls_digest if is_whole else row["calls_digest"],
        "exported_calls": exported_calls,
        "listed_calls": listed_calls,
        "export_state": ExportState.SETTLING if is_complete else row["export_state"],
        **stamp.columns,
    }


def _read(dataset: Dataset, part: Part) -> Iterator[tuple[str, str, datetime | None]]:
    """Each call in the part, and the evals whose call has no row beside them, since its file was lost: id, execution, time."""
    tables = []
    for table in (schema.CALLS, schema.EVALS):
        try:
            tables.append(dataset.read(table, part_path(table.name, part), _IDS))
        except FileMissingError:
            tables.append(table.no_rows.select(_IDS))
        except UnreadableError:
            return
    calls, evals = tables
    is_beside = pc.is_in(_homes(evals), value_set=_homes(calls))
    for rows in (calls, evals.filter(pc.invert(is_beside))):
        yield from zip(*(column.to_pylist() for column in rows.columns), strict=True)


def _homes(rows: pa.Table) -> pa.Array:
    """Which call of which execution each row is of."""
    joined = pc.binary_join_element_wise(rows["execution_id"], rows["call_execution_id"], " ")
    return joined.combine_chunks()
