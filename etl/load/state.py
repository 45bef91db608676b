"""What the dataset holds: the stored executions, and whether their calls and evals are those that were exported.

Reads a few columns of every file of a run test, one partition after the other, and keeps of each execution what a plan needs.
Writes nothing; a damaged file may be moved to the quarantine.
"""

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from etl.errors import DestinationError
from etl.load.dataset import Dataset
from etl.load.layout import Partition, parse_partition_path
from etl.load.merge import is_of
from etl.load.parquet import UnreadableError
from etl.model import schema
from etl.model.lifecycle import HeldRows, StoredExecution

_COLUMNS = {
    "executions": (
        "execution_id", "listed_calls", "run_test_name", "export_state", "fingerprint", "calls_digest", "verified_at",
        "exported_at", "deleted_at",
    ),
    "calls": ("execution_id", "row_hash", "call_execution_id"),
    "evals": ("execution_id", "row_hash"),
    "errors": ("execution_id",),
}  # fmt: skip
_UNIQUE = {"execution_id", "listed_calls", "fingerprint", "calls_digest"}
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class StoredState:
    """What the dataset holds, by the key of the run test: executions by id, and the files that could not be read.

    ``stray_dates``: the dates where rows lie of executions that have no row of their own (a run was killed between the two);
    ``orphans``: the same for dead letters alone. ``elsewhere``: the dates of the executions of the other run tests.
    ``surplus``: executions of which a partition holds rows that belong to another date of the same run test, because files
    were restored there. ``call_hashes`` has 64 bits for each call, which take little memory.
    """

    executions: dict[str, dict[str, StoredExecution]] = field(default_factory=dict)
    stray_dates: dict[str, dict[str, str]] = field(default_factory=dict)
    orphans: dict[str, dict[str, str]] = field(default_factory=dict)
    elsewhere: dict[str, dict[str, str]] = field(default_factory=dict)
    surplus: dict[Partition, set[str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    call_hashes: "array[int]" = field(default_factory=lambda: array("q"))

    def may_hold_calls_twice(self) -> bool:
        """Whether a call seems to stand under two executions, or one execution in two places; exact but for hashes that collide."""
        return has_doubled(self.call_hashes)

    def dates(self) -> dict[str, dict[str, str]]:
        """The date of the partition of every execution that has any row in the dataset, by key and execution_id."""
        known = {
            key: self.stray_dates[key] | {execution_id: stored.date for execution_id, stored in executions.items()}
            for key, executions in self.executions.items()
        }
        return self.elsewhere | known


def load_state(dataset: Dataset, run_test_keys: Iterable[str], *, set_aside: bool) -> StoredState:
    """The stored executions of the run tests, with what their partitions of calls and evals really hold.

    A file that cannot be read counts as missing, so that its executions are fetched again; with ``set_aside`` it is moved to the
    quarantine.

    Raises:
        DestinationError: a file is not one of this dataset, or was written by a newer version.
    """
    state = StoredState()
    keys = list(run_test_keys)
    _load_elsewhere(dataset, state, except_keys=keys, set_aside=set_aside)
    load_run_tests(dataset, keys, state, set_aside=set_aside)
    return state


def load_run_tests(dataset: Dataset, run_test_keys: Iterable[str], state: StoredState, *, set_aside: bool) -> None:
    """Add what the dataset holds of these run tests to the state; errors as for ``load_state``."""
    for key in run_test_keys:
        found = state.executions[key] = {}
        loose: dict[str, list[tuple[str, Partition]]] = {"errors": [], "evals": [], "calls": []}
        for partition, paths in sorted(_partitions(dataset, key).items()):
            rows = {
                name: _read(dataset, schema.TABLES[name], path, state, set_aside=set_aside)
                for name, path in paths.items()
            }
            _load_partition(partition, rows, found, loose, state)
        _place_loose(key, loose, state)


def held_rows(listed_calls: Mapping[str, int], calls: pa.Table, evals: pa.Table) -> dict[str, HeldRows]:
    """What a partition's calls and evals hold of the executions, each given with its number of listed calls."""
    call_hashes, eval_hashes = (_row_hashes(rows.filter(is_of(rows, listed_calls))) for rows in (calls, evals))
    return {
        execution_id: HeldRows.of(count, call_hashes.get(execution_id, ()), eval_hashes.get(execution_id, ()))
        for execution_id, count in listed_calls.items()
    }


def forget_the_future(state: StoredState, now: datetime) -> None:
    """Times that have not come yet count as unknown: whoever wrote them had a clock that was wrong."""
    for executions in state.executions.values():
        for execution_id, stored in executions.items():
            if (known := stored.as_of(now)) is not stored:
                executions[execution_id] = known


def has_doubled(hashes: "array[int]") -> bool:
    """Whether a value stands there twice."""
    return len(np.unique(np.array(hashes, np.int64))) < len(hashes)


def _partitions(dataset: Dataset, run_test_key: str) -> dict[Partition, dict[str, str]]:
    """The paths of the run test's files, by partition and table."""
    partitions: dict[Partition, dict[str, str]] = {}
    for name in _COLUMNS:
        for path in dataset.files.list(f"{name}/run_test={run_test_key}"):
            if (parsed := parse_partition_path(path)) is None:
                raise DestinationError(f"{dataset.files.where(path)}: not a file of this dataset; move it elsewhere")
            partitions.setdefault(parsed[1], {})[name] = path
    return partitions


def _read(dataset: Dataset, table: schema.Table, path: str, state: StoredState, *, set_aside: bool) -> pa.Table:
    """The columns that the state needs; no rows when the file is damaged, which is noted."""
    names = _COLUMNS[table.name]
    try:
        return dataset.read(table, path, names)
    except UnreadableError:
        state.unreadable.append(dataset.files.set_aside(path) if set_aside else path)
        return table.no_rows.select(names)


def _load_partition(
    partition: Partition,
    rows: Mapping[str, pa.Table],
    found: dict[str, StoredExecution],
    loose: Mapping[str, list[tuple[str, Partition]]],
    state: StoredState,
) -> None:
    """Add the partition's executions to ``found``, and to ``loose`` those of which it holds other rows than their own."""
    calls, evals = _row_hashes(rows.get("calls")), _row_hashes(rows.get("evals"))
    if "calls" in rows:
        state.call_hashes.extend(map(hash, rows["calls"]["call_execution_id"].to_pylist()))
    sick = set(rows["errors"]["execution_id"].to_pylist()) if "errors" in rows else set()
    here = set()
    for (
        stored_id,
        listed_calls,
        run_test_name,
        export_state,
        fingerprint,
        calls_digest,
        verified_at,
        exported_at,
        deleted_at,
    ) in _values(rows.get("executions")):
        here.add(stored_id)
        held = HeldRows.of(listed_calls, calls.get(stored_id, ()), evals.get(stored_id, ()))
        stored = StoredExecution(
            date=partition.date,
            export_state=export_state,
            fingerprint=fingerprint,
            # One object for both: there may be a million of them.
            calls_digest=held.calls_digest if held.is_as_exported(calls_digest) else calls_digest,
            held=held,
            verified_at=verified_at,
            exported_at=exported_at,
            deleted_at=deleted_at,
            run_test_name=run_test_name,
            has_letters=stored_id in sick,
        )
        before = found.get(stored_id)
        if before and (before.exported_at or _LONG_AGO) > (exported_at or _LONG_AGO):
            stored, before = before, stored
        found[stored_id] = stored
        if before and before.date != stored.date:
            state.surplus.setdefault(Partition(partition.run_test_key, before.date), set()).add(stored_id)
    for name, ids in (("errors", sick), ("evals", evals.keys()), ("calls", calls.keys())):
        loose[name].extend((execution_id, partition) for execution_id in ids - here)


def _place_loose(key: str, loose: Mapping[str, list[tuple[str, Partition]]], state: StoredState) -> None:
    """Rows in another partition than their execution's row are surplus; rows of an execution without a row are strays."""
    found = state.executions[key]
    strays: dict[str, dict[str, str]] = {name: {} for name in loose}
    for name, pieces in loose.items():
        for execution_id, partition in pieces:
            if (stored := found.get(execution_id)) is None:
                strays[name][execution_id] = partition.date
                continue
            state.surplus.setdefault(partition, set()).add(execution_id)
            if name == "errors":
                found[execution_id] = replace(stored, has_letters=True)
    state.orphans[key] = strays["errors"]
    state.stray_dates[key] = strays["errors"] | strays["evals"] | strays["calls"]


def _load_elsewhere(dataset: Dataset, state: StoredState, *, except_keys: Collection[str], set_aside: bool) -> None:
    """Note where each execution of the other run tests lies, as far as their files can be read."""
    for name in reversed(_COLUMNS):
        table = schema.TABLES[name]
        for path in dataset.files.list(name):
            parsed = parse_partition_path(path)
            if parsed is None or parsed[1].run_test_key in except_keys:
                continue
            try:
                ids = dataset.read(table, path, ("execution_id",))["execution_id"].unique().to_pylist()
            except UnreadableError:
                state.unreadable.append(dataset.files.set_aside(path) if set_aside else path)
                continue
            state.elsewhere.setdefault(parsed[1].run_test_key, {}).update(dict.fromkeys(ids, parsed[1].date))


def _row_hashes(rows: pa.Table | None) -> dict[str, list[str | None]]:
    """The row hashes of each execution."""
    hashes: dict[str, list[str | None]] = {}
    if rows is not None:
        for execution_id, row_hash in zip(rows["execution_id"].to_pylist(), rows["row_hash"].to_pylist(), strict=True):
            hashes.setdefault(execution_id, []).append(row_hash)
    return hashes


def _values(rows: pa.Table | None) -> Iterator[tuple[Any, ...]]:
    """The rows as tuples; a value that many of them share (a name, a state, a time) is one object."""
    if rows is None:
        return iter(())
    return zip(
        *(rows[name].to_pylist() if name in _UNIQUE else _shared(rows[name]) for name in _COLUMNS["executions"]),
        strict=True,
    )


def _shared(column: pa.ChunkedArray) -> list[Any]:
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    return [None if index is None else values[index] for index in encoded.indices.to_pylist()]
