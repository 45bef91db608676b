"""Changes to stored rows that need no new data: an execution was deleted at the source, or belongs to another run test now.

A move is a copy, durable as a whole, and then a removal: killed at any moment, it is finished by the next run.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from etl.load.dataset import Dataset
from etl.load.layout import Partition
from etl.load.merge import Replacement, is_of, merge, once, with_column
from etl.load.state import StoredState
from etl.model import schema
from etl.model.digest import rows_digest
from etl.transform.flatten import Export, hash_rows

Moves = dict[tuple[Partition, str], set[str]]
"""Executions to move, by the partition in which they lie and the key under which they belong."""

_ROWS_OF_EXECUTIONS = (schema.CALLS, schema.EVALS, schema.ERRORS)


def find_moves(state: StoredState, listed: Mapping[str, Collection[str]], names: Mapping[str, str]) -> Moves:
    """The executions that lie under another key, or another name, than that of the run test that lists them now.

    None lies under several. ``listed`` are execution_ids by key, ``names`` the run tests' names by key.
    """
    moves: Moves = {}
    dates = state.dates()
    for key, execution_ids in listed.items():
        for execution_id in execution_ids:
            stored = state.executions[key].get(execution_id)
            if stored and stored.run_test_name in (None, names[key]):
                continue
            home = next((each for each in (key, *dates) if execution_id in dates[each]), None)
            if home is not None and (home != key or stored):
                moves.setdefault((Partition(home, dates[home][execution_id]), key), set()).add(execution_id)
    return moves


def find_doubled(state: StoredState) -> dict[str, list[Partition]]:
    """The partitions of each execution that lies under several keys: a move was cut short, or files were restored."""
    dates = state.dates()
    seen: set[str] = set()
    doubled: set[str] = set()
    for mine in dates.values() if len(dates) > 1 else ():
        doubled |= mine.keys() & seen
        seen |= mine.keys()
    return {
        execution_id: [Partition(key, mine[execution_id]) for key, mine in dates.items() if execution_id in mine]
        for execution_id in sorted(doubled)
    }


def surplus(
    doubled: Mapping[str, Sequence[Partition]], state: StoredState, listed: Mapping[str, Collection[str]]
) -> dict[Partition, set[str]]:
    """What of the ``doubled`` executions to drop, by partition: all but the place of the row that was written last.

    Of rows of one moment the one counts whose calls are there, then the one that lies where it is ``listed``, then one of a run
    test that is exported. The state holds all run tests that they lie under.
    """
    long_ago = datetime.min.replace(tzinfo=UTC)

    def worth(execution_id: str, partition: Partition) -> tuple[bool, datetime, bool, bool, bool]:
        key = partition.run_test_key
        stored = state.executions[key].get(execution_id)
        is_home, is_exported = execution_id in listed.get(key, ()), key in listed
        if stored is None:
            return False, long_ago, False, is_home, is_exported
        return True, stored.exported_at or long_ago, not stored.is_damaged, is_home, is_exported

    drops: dict[Partition, set[str]] = {}
    for execution_id, partitions in doubled.items():
        best = max(partitions, key=lambda partition: worth(execution_id, partition))
        for partition in partitions:
            if partition != best:
                drops.setdefault(partition, set()).add(execution_id)
    return drops


def as_if_dropped(state: StoredState, drops: Mapping[Partition, Collection[str]]) -> None:
    """Let the state say what it will say once the executions are dropped; it holds all run tests that they lie under."""
    for partition, execution_ids in drops.items():
        for execution_id in execution_ids:
            state.executions[partition.run_test_key].pop(execution_id, None)
            state.stray_dates[partition.run_test_key].pop(execution_id, None)


def as_if_moved(state: StoredState, moves: Moves) -> None:
    """Let the state say what it will say once the moves are made."""
    for (source, key), execution_ids in moves.items():
        if source.run_test_key == key:
            continue
        theirs, mine = state.executions[source.run_test_key], state.executions[key]
        for execution_id in execution_ids:
            if (stored := theirs.pop(execution_id, None)) is not None:
                mine[execution_id] = stored


def move(
    dataset: Dataset,
    source: Partition,
    key: str,
    execution_ids: set[str],
    *,
    run_test_name: str,
) -> None:
    """Let the executions of one partition lie under ``key`` and ``run_test_name``.

    Raises:
        DestinationError: something could not be written; nothing is lost, and moving again completes it.
    """
    target = Partition(key, source.date)
    _copy(dataset, source, target, execution_ids, run_test_name)
    if source != target:
        drop(dataset, source, execution_ids)


def drop(dataset: Dataset, partition: Partition, execution_ids: Collection[str]) -> None:
    """Remove everything of the executions from the partition.

    Raises:
        DestinationError: something could not be written; dropping again completes it.
    """
    # The execution row goes last: it is what the next run finds the rest by.
    for table in (*reversed(_ROWS_OF_EXECUTIONS), schema.EXECUTIONS):
        _drop(dataset, table, partition, execution_ids)


def mark_deleted(
    dataset: Dataset,
    partition: Partition,
    execution_ids: Collection[str],
    *,
    deleted_at: datetime,
    export: Export,
) -> None:
    """Note that the executions were found deleted at the source; their rows stay, but for dead letters that nothing can heal.

    Raises:
        DestinationError: it could not be written.
    """
    _drop(dataset, schema.ERRORS, partition, execution_ids)
    rows = dataset.rows(schema.EXECUTIONS, partition)
    if not pc.any(is_of(rows, execution_ids)).as_py():
        return
    noted: dict[str, object] = {
        "deleted_at": deleted_at,
        "export_run_id": export.export_run_id,
        "exported_at": export.exported_at,
    }
    for name, value in noted.items():
        old = zip(rows["execution_id"].to_pylist(), rows[name].to_pylist(), strict=True)
        rows = with_column(rows, name, [value if each in execution_ids else before for each, before in old])
    dataset.write(schema.EXECUTIONS, partition, rows)


def _copy(dataset: Dataset, source: Partition, target: Partition, execution_ids: set[str], name: str) -> None:
    executions = dataset.rows(schema.EXECUTIONS, source)
    executions = executions.filter(is_of(executions, execution_ids))
    old_names = {execution_id: old_name for old_name, execution_id in _names_and_ids(executions)}
    hashes_before: dict[str, list[str]] = {execution_id: [] for execution_id in execution_ids}
    hashes_after: dict[str, list[str]] = {execution_id: [] for execution_id in execution_ids}
    for table in _ROWS_OF_EXECUTIONS:
        rows = dataset.rows(table, source)
        rows = rows.filter(is_of(rows, execution_ids))
        renamed = _renamed(rows, dict.fromkeys(execution_ids, name))
        if table is not schema.ERRORS:
            # Killed in the middle, a rename leaves calls of the new name beside an execution row that vouches for the old one.
            before = [
                own if is_as_vouched else made
                for own, made, is_as_vouched in zip(
                    rows["row_hash"].to_pylist(),
                    hash_rows(table, _renamed(rows, old_names)),
                    [row_name == old_names.get(each) for row_name, each in _names_and_ids(rows)],
                    strict=True,
                )
            ]
            after = hash_rows(table, renamed)
            renamed = with_column(renamed, "row_hash", after)
            for execution_id, old_hash, new_hash in zip(rows["execution_id"].to_pylist(), before, after, strict=True):
                hashes_before[execution_id].append(old_hash or "")
                hashes_after[execution_id].append(new_hash)
        _put(dataset, table, target, renamed, execution_ids)
    rows = _renamed(executions, dict.fromkeys(execution_ids, name))
    # What was damaged stays so: its digest is not that of its rows, neither before nor after.
    digests = [
        rows_digest(hashes_after[execution_id]) if digest == rows_digest(hashes_before[execution_id]) else digest
        for execution_id, digest in zip(rows["execution_id"].to_pylist(), rows["calls_digest"].to_pylist(), strict=True)
    ]
    _put(dataset, schema.EXECUTIONS, target, with_column(rows, "calls_digest", digests), execution_ids)


def _names_and_ids(rows: pa.Table) -> list[tuple[str | None, str]]:
    return list(zip(rows["run_test_name"].to_pylist(), rows["execution_id"].to_pylist(), strict=True))


def _renamed(rows: pa.Table, names: Mapping[str, str | None]) -> pa.Table:
    """The rows with the run test's name that their execution is given, if it is given one."""
    return with_column(rows, "run_test_name", [names.get(each, name) for name, each in _names_and_ids(rows)])


def _put(
    dataset: Dataset,
    table: schema.Table,
    partition: Partition,
    rows: pa.Table,
    execution_ids: set[str],
) -> None:
    merged = merge(table, dataset.rows(table, partition), once(table, rows), Replacement(execution_ids))
    if merged.is_changed:
        dataset.write(table, partition, merged.table)


def _drop(dataset: Dataset, table: schema.Table, partition: Partition, execution_ids: Collection[str]) -> None:
    rows = dataset.rows(table, partition)
    stays = rows.filter(pc.invert(is_of(rows, execution_ids)))
    if len(stays) == len(rows):
        return
    if len(stays):
        dataset.write(table, partition, stays)
    else:
        dataset.remove(table, partition)
