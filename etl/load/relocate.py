"""Change stored rows without new data: an execution was deleted at the source, or now belongs to another run test.

A move first writes all rows to the new place, then removes the old ones. If it is killed between, the next run completes it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from etl.load.dataset import Dataset
from etl.load.layout import Part
from etl.load.merge import Replacement, is_of, merge, once, with_column
from etl.load.receipt import Change
from etl.load.state import StoredState
from etl.model import schema
from etl.model.digest import rows_digest
from etl.model.keys import default_key
from etl.model.lifecycle import LONG_AGO
from etl.transform.frames import ExportStamp, hash_rows

Moves = dict[tuple[Part, str], set[str]]
"""Executions to move, by the part that holds them and the key of the run test that they belong to."""


def find_moves(state: StoredState, listed: Mapping[str, Collection[str]], names: Mapping[str, str]) -> Moves:
    """The executions that are stored under another key or name than that of the run test that now lists them.

    ``listed`` are execution_ids by key, ``names`` the run tests' names by key. No execution may be stored under two keys.
    """
    moves: Moves = {}
    places = state.places()
    for key, execution_ids in listed.items():
        for execution_id in execution_ids:
            stored = state.executions[key].get(execution_id)
            if stored and stored.run_test_name in (None, names[key]):
                continue
            home = next((each for each in (key, *places) if execution_id in places[each]), None)
            if home is not None and (home != key or stored):
                moves.setdefault((Part(home, places[home][execution_id]), key), set()).add(execution_id)
    return moves


def find_doubled(state: StoredState) -> dict[str, list[Part]]:
    """The parts of each execution that is stored under several keys: a move was interrupted, or files were restored."""
    places = state.places()
    seen: set[str] = set()
    doubled: set[str] = set()
    for mine in places.values() if len(places) > 1 else ():
        doubled |= mine.keys() & seen
        seen |= mine.keys()
    return {
        execution_id: [Part(key, mine[execution_id]) for key, mine in places.items() if execution_id in mine]
        for execution_id in sorted(doubled)
    }


def surplus(
    doubled: Mapping[str, Sequence[Part]], state: StoredState, listed: Mapping[str, Collection[str]]
) -> dict[Part, set[str]]:
    """The ``doubled`` executions to drop, by part: from all places but the one whose calls are complete.

    Of those, the one whose execution row was written last stays, then the one under the key that lists it, then one of a run test
    that ``listed`` has, then one under the key that its name gives. The state must hold all run tests that they are stored under.
    """

    def worth(execution_id: str, part: Part) -> tuple[bool, bool, datetime, bool, bool, bool]:
        key = part.run_test_key
        stored = state.executions[key].get(execution_id)
        is_home, is_exported = execution_id in listed.get(key, ()), key in listed
        if stored is None:
            return False, False, LONG_AGO, is_home, is_exported, False
        is_named = key == default_key(stored.run_test_name or "")
        return True, not stored.is_damaged, stored.exported_at or LONG_AGO, is_home, is_exported, is_named

    drops: dict[Part, set[str]] = {}
    for execution_id, parts in doubled.items():
        best = max(parts, key=partial(worth, execution_id))
        for part in parts:
            if part != best:
                drops.setdefault(part, set()).add(execution_id)
    return drops


def find_untold(state: StoredState, drops: Iterable[tuple[Part, Collection[str]]]) -> dict[Part, set[str]]:
    """The execution rows, by part, that stay and do not tell of a change: rows elsewhere are dropped, or those beside are newer.

    The state says already what it will say after the drops.
    """
    dropped = {execution_id for _, execution_ids in drops for execution_id in execution_ids}
    found: dict[Part, set[str]] = {}
    for key, executions in state.executions.items():
        for execution_id in dropped & executions.keys():
            found.setdefault(Part(key, executions[execution_id].place), set()).add(execution_id)
    for part, times in state.late.items():
        if late := times.keys() - dropped:
            found.setdefault(part, set()).update(late)
    return found


def find_deleted(
    dataset: Dataset, state: StoredState, drops: Iterable[tuple[Part, Collection[str]]]
) -> dict[tuple[Part, datetime], set[str]]:
    """The execution rows that stay and do not say that the source deleted the execution, as a newer one says that is dropped.

    By part, and by when that was. The state says already what it will say after the drops.

    Raises:
        DestinationError: a part cannot be read.
    """
    found: dict[tuple[Part, datetime], set[str]] = {}
    for source, execution_ids in drops:
        rows = _rows_of(dataset, schema.EXECUTIONS, source, execution_ids).filter(pc.field("deleted_at").is_valid())
        for row in rows.select(["execution_id", "deleted_at", "exported_at"]).to_pylist():
            for key, executions in state.executions.items():
                stays = executions.get(row["execution_id"])
                if stays is None or stays.deleted_at or row["exported_at"] is None:
                    continue
                if stays.exported_at is None or stays.exported_at < row["exported_at"]:
                    found.setdefault((Part(key, stays.place), row["deleted_at"]), set()).add(row["execution_id"])
    return found


def as_if_dropped(state: StoredState, drops: Mapping[Part, Collection[str]]) -> None:
    """Change the state as if the executions were dropped; it must hold all run tests that they are stored under."""
    for part, execution_ids in drops.items():
        for execution_id in execution_ids:
            state.executions[part.run_test_key].pop(execution_id, None)
            state.stray_places[part.run_test_key].pop(execution_id, None)


def as_if_moved(state: StoredState, moves: Moves) -> None:
    """Change the state as if the moves were made."""
    for (source, key), execution_ids in moves.items():
        if source.run_test_key == key:
            continue
        theirs, mine = state.executions[source.run_test_key], state.executions[key]
        for execution_id in execution_ids:
            if (stored := theirs.pop(execution_id, None)) is not None:
                mine[execution_id] = stored


def move(
    dataset: Dataset, source: Part, key: str, execution_ids: set[str], *, run_test_name: str, stamp: ExportStamp
) -> None:
    """Move the executions of one part to the run test of this key and name; all their rows are of this export then.

    Raises:
        DestinationError: something could not be written; nothing is lost, and moving again completes it.
    """
    target = Part(key, source.place)
    _copy(dataset, source, target, execution_ids, run_test_name, stamp)
    dataset.receipt.note(key, Change.MOVED, execution_ids)
    if source != target:
        drop(dataset, source, execution_ids)


def drop(dataset: Dataset, part: Part, execution_ids: Collection[str]) -> None:
    """Remove everything of the executions from the part.

    Raises:
        DestinationError: something could not be written; dropping again completes it.
    """
    # Execution rows go last: by them, the next run finds what else is left after a crash.
    for table in (schema.ERRORS, schema.EVALS, schema.CALLS, schema.EXECUTIONS):
        _drop(dataset, table, part, execution_ids)


def mark_deleted(
    dataset: Dataset, part: Part, execution_ids: Collection[str], *, deleted_at: datetime, stamp: ExportStamp
) -> None:
    """Note that the executions were deleted at the source. Their rows stay, but not their dead letters, which no run can resolve.

    Raises:
        DestinationError: it could not be written.
    """
    _drop(dataset, schema.ERRORS, part, execution_ids)
    marked = _note(dataset, part, execution_ids, stamp, {"deleted_at": deleted_at})
    dataset.receipt.note(part.run_test_key, Change.MARKED, marked)


def renew(dataset: Dataset, part: Part, execution_ids: Collection[str], stamp: ExportStamp) -> None:
    """Let the execution rows tell readers that follow them that other rows of the executions change in this export.

    Raises:
        DestinationError: it could not be written.
    """
    renewed = _note(dataset, part, execution_ids, stamp, {})
    dataset.receipt.note(part.run_test_key, Change.REPLACED, renewed)


def _note(
    dataset: Dataset, part: Part, execution_ids: Collection[str], stamp: ExportStamp, values: Mapping[str, object]
) -> set[str]:
    """Write values into the execution rows, as of this export; returns the executions that have a row there."""
    rows = dataset.rows(schema.EXECUTIONS, part)
    ids = rows["execution_id"].to_pylist()
    found = {*ids} & {*execution_ids}
    if found:
        for name, value in {**values, **stamp.columns}.items():
            old = zip(ids, rows[name].to_pylist(), strict=True)
            rows = with_column(rows, name, [value if each in found else before for each, before in old])
        dataset.write(schema.EXECUTIONS, part, rows)
    return found


def _copy(dataset: Dataset, source: Part, target: Part, execution_ids: set[str], name: str, stamp: ExportStamp) -> None:
    """Write the executions' rows into the target, under the run test's ``name``; the execution rows last, as in a commit.

    Row hashes cover the name, so they change, and with them the digest by which an execution row vouches for its calls and evals.
    """
    executions = _rows_of(dataset, schema.EXECUTIONS, source, execution_ids)
    hashes: dict[str, list[tuple[str, str]]] = {execution_id: [] for execution_id in execution_ids}
    for table in (schema.CALLS, schema.EVALS):
        old = _rows_of(dataset, table, source, execution_ids)
        new = _moved(old, name, stamp)
        new = with_column(new, "row_hash", hash_rows(table, new))
        for execution_id, before, after in zip(
            old["execution_id"].to_pylist(),
            _vouched_hashes(table, old, executions),
            new["row_hash"].to_pylist(),
            strict=True,
        ):
            hashes[execution_id].append((before, after))
        _put(dataset, table, target, new, execution_ids)
    errors = _rows_of(dataset, schema.ERRORS, source, execution_ids)
    _put(dataset, schema.ERRORS, target, _moved(errors, name, stamp), execution_ids)
    _put(dataset, schema.EXECUTIONS, target, _vouching(_moved(executions, name, stamp), hashes), execution_ids)


def _vouched_hashes(table: schema.Table, rows: pa.Table, executions: pa.Table) -> list[str]:
    """The row hashes as their execution row vouches for them: under the name that it has itself.

    A run that was killed during a rename leaves calls of the new name beside an execution row of the old one.
    """
    names = dict(zip(executions["execution_id"].to_pylist(), executions["run_test_name"].to_pylist(), strict=True))
    own_names = rows["run_test_name"].to_pylist()
    vouched = [names.get(each, own) for each, own in zip(rows["execution_id"].to_pylist(), own_names, strict=True)]
    made = hash_rows(table, with_column(rows, "run_test_name", vouched))
    return [
        (stored or "") if own_name == vouched_name else made_hash
        for own_name, vouched_name, stored, made_hash in zip(
            own_names, vouched, rows["row_hash"].to_pylist(), made, strict=True
        )
    ]


def _vouching(executions: pa.Table, hashes: Mapping[str, Sequence[tuple[str, str]]]) -> pa.Table:
    """The execution rows with the digest of their new row hashes, given as (before, after) by execution_id.

    A digest that did not match the hashes before stays as it is: what was damaged is still known to be.
    """
    digests = []
    for execution_id, digest in zip(
        executions["execution_id"].to_pylist(), executions["calls_digest"].to_pylist(), strict=True
    ):
        is_whole = digest == rows_digest(before for before, _ in hashes[execution_id])
        digests.append(rows_digest(after for _, after in hashes[execution_id]) if is_whole else digest)
    return with_column(executions, "calls_digest", digests)


def _rows_of(dataset: Dataset, table: schema.Table, part: Part, execution_ids: Collection[str]) -> pa.Table:
    rows = dataset.rows(table, part)
    return rows.filter(is_of(rows, execution_ids))


def _moved(rows: pa.Table, name: str, stamp: ExportStamp) -> pa.Table:
    """The rows under the run test's name, as this export writes them."""
    for column, value in {"run_test_name": name, **stamp.columns}.items():
        if column in rows.column_names:
            rows = with_column(rows, column, [value] * len(rows))
    return rows


def _put(dataset: Dataset, table: schema.Table, part: Part, rows: pa.Table, execution_ids: Collection[str]) -> None:
    merged = merge(table, dataset.rows(table, part), once(table, rows), Replacement(execution_ids))
    if merged.is_changed:
        dataset.write(table, part, merged.table)


def _drop(dataset: Dataset, table: schema.Table, part: Part, execution_ids: Collection[str]) -> None:
    rows = dataset.rows(table, part)
    stays = rows.filter(pc.invert(is_of(rows, execution_ids)))
    if len(stays) < len(rows):
        dataset.write_or_remove(table, part, stays)
