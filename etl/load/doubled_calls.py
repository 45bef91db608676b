"""Calls that stand under two executions, because they moved: find them, and remove them from all places but the newest.

A run need not have fetched the execution that a call left, so all files are looked through. Until then both places hold the call;
a run that is killed there is finished by the next.
"""

from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import FileMissingError
from etl.load.dataset import Dataset
from etl.load.layout import Partition, parse_partition_path
from etl.load.merge import with_column
from etl.load.parquet import UnreadableError
from etl.load.state import held_rows
from etl.model import schema
from etl.model.lifecycle import CLOCKS_DIFFER, HeldRows
from etl.transform.frames import ExportStamp

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_CHANGED = ("calls_digest", "exported_calls", "listed_calls", "export_run_id", "exported_at")
_READ = ["execution_id", *_CHANGED]


def find_doubled_calls(dataset: Dataset, *, now: datetime) -> dict[Partition, dict[str, set[str]]]:
    """The calls to remove, by partition and execution_id: those that another execution has newer. Damaged files are skipped.

    Evals that are left of a call count like the call.

    A time after ``now`` is unknown, and counts as the oldest.
    """
    # Eight bytes for each call: the ids of a long history would take a hundred.
    hashes = array("q")
    for _, rows in _read(dataset, "call_execution_id", "execution_id"):
        once = set(zip(*(column.to_pylist() for column in rows.columns), strict=True))
        hashes.extend(hash(call_id) for call_id, _ in once)
    ordered = np.sort(np.array(hashes, np.int64))
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    places: dict[str, list[tuple[datetime, str, Partition]]] = {}
    for partition, rows in _read(dataset, "call_execution_id", "execution_id", "exported_at") if suspects else ():
        for call_id, execution_id, exported_at in zip(*(column.to_pylist() for column in rows.columns), strict=True):
            if hash(call_id) in suspects:
                since = exported_at if exported_at and exported_at <= now + CLOCKS_DIFFER else _LONG_AGO
                places.setdefault(call_id, []).append((since, execution_id, partition))
    doubled: dict[Partition, dict[str, set[str]]] = {}
    for call_id, found in places.items():
        _, newest, _ = max(found)
        for _, execution_id, partition in found:
            if execution_id != newest:
                doubled.setdefault(partition, {}).setdefault(execution_id, set()).add(call_id)
    return doubled


def remove_calls(dataset: Dataset, partition: Partition, call_ids: Mapping[str, set[str]], stamp: ExportStamp) -> None:
    """Remove the calls of these executions, and their evals; the execution rows, which vouch for what is left, change last.

    Raises:
        DestinationError: something could not be written. If the execution rows were not, the next run fetches the executions.
    """
    old, new = [], []
    for table in (schema.CALLS, schema.EVALS):
        rows = dataset.rows(table, partition)
        ids = zip(rows["execution_id"].to_pylist(), rows["call_execution_id"].to_pylist(), strict=True)
        stays = [call_id not in call_ids.get(execution_id, ()) for execution_id, call_id in ids]
        old.append(rows)
        new.append(rows.filter(pa.array(stays, pa.bool_())))
        if not all(stays):
            dataset.write_or_remove(table, partition, new[-1])
    before, after = (held_rows(dict.fromkeys(call_ids, 0), *tables) for tables in (old, new))
    executions = dataset.rows(schema.EXECUTIONS, partition)
    changed = [_changed(row, before, after, call_ids, stamp) for row in executions.select(_READ).to_pylist()]
    for name in _CHANGED:
        executions = with_column(executions, name, [row[name] for row in changed])
    if changed:
        dataset.write(schema.EXECUTIONS, partition, executions)


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


def _read(dataset: Dataset, *names: str) -> Iterator[tuple[Partition, pa.Table]]:
    """Columns of the calls in each partition, and of the evals there whose call has no row beside them: its file was lost."""
    partitions: dict[Partition, dict[str, str]] = {}
    for table in (schema.CALLS, schema.EVALS):
        for path in dataset.files.list(table.name):
            if parsed := parse_partition_path(path):
                partitions.setdefault(parsed[1], {})[table.name] = path
    for partition, paths in partitions.items():
        with suppress(FileMissingError, UnreadableError):
            calls, evals = (
                dataset.read(table, paths[table.name], names) if table.name in paths else table.no_rows.select(names)
                for table in (schema.CALLS, schema.EVALS)
            )
            is_beside = pc.is_in(_places(evals), value_set=_places(calls))
            yield partition, pa.concat_tables([calls.cast(evals.schema), evals.filter(pc.invert(is_beside))])


def _places(rows: pa.Table) -> pa.Array:
    """Which call of which execution each row is of."""
    joined = pc.binary_join_element_wise(rows["execution_id"], rows["call_execution_id"], " ")
    return joined.combine_chunks()
