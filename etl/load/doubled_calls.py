"""Calls that stand under two executions, because they moved: find them, and remove them from all places but the newest.

A run need not have fetched the execution that a call left, so all files are looked through. Until then both places hold the call;
a run that is killed there is finished by the next.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import FileMissingError
from etl.load.dataset import Dataset
from etl.load.index import Index
from etl.load.layout import Part, part_path
from etl.load.merge import with_column
from etl.load.parquet import UnreadableError
from etl.load.state import held_rows
from etl.model import schema
from etl.model.lifecycle import CLOCKS_DIFFER, HeldRows
from etl.transform.frames import ExportStamp

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_CHANGED = ("calls_digest", "exported_calls", "listed_calls", "export_run_id", "exported_at")
_READ = ["execution_id", *_CHANGED]
_IDS = ("call_execution_id", "execution_id", "exported_at")


def find_doubled_calls(dataset: Dataset, index: Index, *, now: datetime) -> dict[Part, dict[str, set[str]]]:
    """The calls to remove, by part and execution_id: those that another execution has newer. Damaged files are skipped.

    ``index`` is that of the files as they are. Evals that are left of a call count like the call. A time after ``now`` is unknown,
    and counts as the oldest.
    """
    ordered = np.sort(index.call_hashes())
    suspects = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(suspects):
        return {}
    places: dict[str, list[tuple[datetime, str, Part]]] = {}
    for part, each in index.parts.items():
        if not np.isin(each.call_hashes, suspects).any():
            continue
        for call_id, execution_id, exported_at in _read(dataset, part):
            since = exported_at if exported_at and exported_at <= now + CLOCKS_DIFFER else _LONG_AGO
            places.setdefault(call_id, []).append((since, execution_id, part))
    doubled: dict[Part, dict[str, set[str]]] = {}
    for call_id, found in places.items():
        _, newest, _ = max(found)
        for _, execution_id, part in found:
            if execution_id != newest:
                doubled.setdefault(part, {}).setdefault(execution_id, set()).add(call_id)
    return doubled


def remove_calls(dataset: Dataset, part: Part, call_ids: Mapping[str, set[str]], stamp: ExportStamp) -> None:
    """Remove the calls of these executions, and their evals; the execution rows, which vouch for what is left, change last.

    Raises:
        DestinationError: something could not be written. If the execution rows were not, the next run fetches the executions.
    """
    old, new = [], []
    for table in (schema.CALLS, schema.EVALS):
        rows = dataset.rows(table, part)
        ids = zip(rows["execution_id"].to_pylist(), rows["call_execution_id"].to_pylist(), strict=True)
        stays = [call_id not in call_ids.get(execution_id, ()) for execution_id, call_id in ids]
        old.append(rows)
        new.append(rows.filter(pa.array(stays, pa.bool_())))
        if not all(stays):
            dataset.write_or_remove(table, part, new[-1])
    before, after = (held_rows(dict.fromkeys(call_ids, 0), *tables) for tables in (old, new))
    executions = dataset.rows(schema.EXECUTIONS, part)
    changed = [_changed(row, before, after, call_ids, stamp) for row in executions.select(_READ).to_pylist()]
    for name in _CHANGED:
        executions = with_column(executions, name, [row[name] for row in changed])
    if changed:
        dataset.write(schema.EXECUTIONS, part, executions)


def _changed(
    row: dict[str, Any],
    before: Mapping[str, HeldRows],
    after: Mapping[str, HeldRows],
    call_ids: Mapping[str, set[str]],
    stamp: ExportStamp,
) -> dict[str, Any]:
    """The execution's row as it is once its calls are removed, if it is one of these executions."""
    execution_id = row["execution_id"]
    if execution_id not in call_ids:
        return row
    # A digest that did not match the rows stays as it is: what was damaged is still known to be.
    is_whole = before[execution_id].is_as_exported(row["calls_digest"])
    listed_calls = row["listed_calls"]
    return {
        "calls_digest": after[execution_id].calls_digest if is_whole else row["calls_digest"],
        "exported_calls": after[execution_id].exported_calls,
        "listed_calls": None if listed_calls is None else max(0, listed_calls - len(call_ids[execution_id])),
        "export_run_id": stamp.export_run_id,
        "exported_at": stamp.exported_at,
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
    is_beside = pc.is_in(_places(evals), value_set=_places(calls))
    for rows in (calls, evals.filter(pc.invert(is_beside))):
        yield from zip(*(column.to_pylist() for column in rows.columns), strict=True)


def _places(rows: pa.Table) -> pa.Array:
    """Which call of which execution each row is of."""
    joined = pc.binary_join_element_wise(rows["execution_id"], rows["call_execution_id"], " ")
    return joined.combine_chunks()
