"""What the dataset holds: the stored executions, and whether their calls and evals are those that were exported.

Of each file that the index does not know a few columns are read. Writes nothing; a damaged file may be moved to the quarantine.
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.load.dataset import Dataset
from etl.load.files.contract import data_files
from etl.load.index import Index, read_index, update_index
from etl.load.layout import Part
from etl.load.merge import is_of
from etl.load.part_index import by_execution
from etl.model import schema
from etl.model.lifecycle import LONG_AGO, HeldRows, StoredExecution
from etl.transform.frames import shared_values

_UNIQUE = {
    "execution_id", "listed_calls", "exported_calls", "held_calls", "fingerprint", "calls_digest", "held_digest", "is_here",
}  # fmt: skip
_NOT_PLANNED = {"call_hashes", "started_at", "export_run_id"}


@dataclass(slots=True)
class StoredState:
    """What the dataset holds, by the key of the run test: executions by id, and the files that could not be read.

    ``stray_places``: the places where rows lie of executions that have no row of their own (a run was killed between the two);
    ``orphans``: the same for dead letters alone; ``scattered``: such executions by each other part that has rows of theirs, too.
    ``elsewhere``: the places of the executions of the other run tests.
    ``surplus``: executions of which a part holds rows that belong to another one of the same run test, because files were
    restored there. ``late``: executions with calls or evals that were exported after their own row, and when: a run was killed
    between the two tables, and nothing else may tell. ``index`` is what each part held when the state was loaded.
    """

    executions: dict[str, dict[str, StoredExecution]] = field(default_factory=dict)
    stray_places: dict[str, dict[str, str]] = field(default_factory=dict)
    orphans: dict[str, dict[str, str]] = field(default_factory=dict)
    elsewhere: dict[str, dict[str, str]] = field(default_factory=dict)
    surplus: dict[Part, set[str]] = field(default_factory=dict)
    scattered: dict[Part, set[str]] = field(default_factory=dict)
    late: dict[Part, dict[str, datetime]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    index: Index = field(default_factory=Index)

    def parts_of(self, run_test_key: str) -> dict[Part, pa.Table]:
        """What the index holds of the parts of a run test."""
        return {part: each.rows for part, each in self.index.parts.items() if part.run_test_key == run_test_key}

    def may_hold_calls_twice(self) -> bool:
        """Whether a call seems to stand under two executions, or one execution in two places; exact but for hashes that collide."""
        hashes = self.index.call_hashes()
        hashes.sort()  # where it is: numpy's unique takes seven times the memory
        return bool((hashes[1:] == hashes[:-1]).any())

    def places(self) -> dict[str, dict[str, str]]:
        """The place of every execution that has any row in the dataset, by key and execution_id."""
        known = {
            key: self.stray_places[key] | {execution_id: stored.place for execution_id, stored in executions.items()}
            for key, executions in self.executions.items()
        }
        return self.elsewhere | known


def load_state(dataset: Dataset, run_test_keys: Iterable[str], *, set_aside: bool) -> StoredState:
    """The stored executions of the run tests, with what their parts of calls and evals really hold.

    So are those of another run test of which an execution has rows in two parts, for them to come into one.
    A file that cannot be read counts as missing, so that its executions are fetched again; with ``set_aside`` it is moved to the
    quarantine.

    Raises:
        DestinationError: a file is not one of this dataset, or was written by a newer version.
    """
    keys, state = list(run_test_keys), StoredState()
    data_files(dataset.files, schema.RUNS_TABLE.name)  # no row there counts, but no pipe or link may lie there either
    state.index = update_index(dataset, read_index(dataset.files), state.unreadable, strict_keys=keys)
    if set_aside:
        state.unreadable = [dataset.set_aside(path) for path in state.unreadable]
    for key in sorted({part.run_test_key for part in state.index.parts} - {*keys}):
        parts = state.parts_of(key)
        state.elsewhere[key] = places = _places(parts)
        if sum(map(len, parts.values())) > len(places):  # some execution has rows in two parts
            keys.append(key)
    load_run_tests(keys, state)
    return state


def load_run_tests(run_test_keys: Iterable[str], state: StoredState) -> None:
    """Add to the state what its index holds of these run tests."""
    for key in run_test_keys:
        found = state.executions[key] = {}
        loose: dict[str, list[tuple[str, Part]]] = {"errors": [], "evals": [], "calls": []}
        for part, rows in state.parts_of(key).items():
            _load_part(part, rows, found, loose, state)
        _place_loose(key, loose, state)


def load_missing(run_test_keys: AbstractSet[str], state: StoredState) -> None:
    """Add to the state what its index holds of those of these run tests that it does not have."""
    load_run_tests(sorted(run_test_keys - state.executions.keys()), state)


def held_rows(listed_calls: Mapping[str, int | None], calls: pa.Table, evals: pa.Table) -> dict[str, HeldRows]:
    """What a part's calls and evals hold of the executions, each given with its number of listed calls."""
    call_hashes, eval_hashes = (
        by_execution(rows.filter(is_of(rows, listed_calls)), "row_hash") for rows in (calls, evals)
    )
    return {
        execution_id: HeldRows.of(count, call_hashes.get(execution_id, ()), eval_hashes.get(execution_id, ()))
        for execution_id, count in listed_calls.items()
    }


def forget_the_future(state: StoredState, now: datetime) -> None:
    """Times that have not come yet count as unknown: they were written by a clock that was wrong."""
    for part, times in state.late.items():
        state.late[part] = {execution_id: at for execution_id, at in times.items() if at <= now}
    for executions in state.executions.values():
        for execution_id, stored in executions.items():
            if (known := stored.as_of(now)) is not stored:
                executions[execution_id] = known


def _load_part(
    part: Part,
    rows: pa.Table,
    found: dict[str, StoredExecution],
    loose: Mapping[str, list[tuple[str, Part]]],
    state: StoredState,
) -> None:
    """Add the part's executions to ``found``, and to ``loose`` those of which it holds other rows than their own."""
    for row in _values(rows):
        if not row["is_here"]:
            for name, pieces in loose.items():
                if row[f"has_{name}"]:
                    pieces.append((row["execution_id"], part))
            continue
        stored_id, exported_at = row["execution_id"], row["exported_at"]
        held = HeldRows(row["listed_calls"], row["held_calls"], row["held_digest"])
        stored = StoredExecution(
            place=part.place,
            export_state=row["export_state"],
            fingerprint=row["fingerprint"],
            # One object for both: there may be a million of them.
            calls_digest=held.calls_digest if held.is_as_exported(row["calls_digest"]) else row["calls_digest"],
            exported_calls=row["exported_calls"],
            held=held,
            verified_at=row["verified_at"],
            exported_at=exported_at,
            deleted_at=row["deleted_at"],
            run_test_name=row["run_test_name"],
            has_letters=row["has_errors"],
        )
        before = found.get(stored_id)
        if before and _worth(before) > _worth(stored):
            stored, before = before, stored
        found[stored_id] = stored
        if exported_at and row["held_at"] and exported_at < row["held_at"]:
            state.late.setdefault(part, {})[stored_id] = row["held_at"]
        if before and before.place != stored.place:
            state.surplus.setdefault(Part(part.run_test_key, before.place), set()).add(stored_id)


def _worth(stored: StoredExecution) -> tuple[bool, datetime]:
    """Which of two rows of an execution stays: its calls are complete, or else it was written last."""
    return not stored.is_damaged, stored.exported_at or LONG_AGO


def _place_loose(key: str, loose: Mapping[str, list[tuple[str, Part]]], state: StoredState) -> None:
    """Rows in another part than their execution's row are surplus; rows of an execution without a row are strays."""
    found = state.executions[key]
    strays: dict[str, dict[str, str]] = {name: {} for name in loose}
    for name, pieces in loose.items():
        for execution_id, part in pieces:
            if (stored := found.get(execution_id)) is None:
                strays[name][execution_id] = part.place
                continue
            state.surplus.setdefault(part, set()).add(execution_id)
            if name == "errors":
                found[execution_id] = replace(stored, has_letters=True)
    state.orphans[key] = strays["errors"]
    state.stray_places[key] = homes = strays["errors"] | strays["evals"] | strays["calls"]
    for execution_id, part in chain.from_iterable(loose.values()):
        if homes.get(execution_id, part.place) != part.place:
            state.scattered.setdefault(part, set()).add(execution_id)


def _places(parts: Mapping[Part, pa.Table]) -> dict[str, str]:
    """Where each execution lies, its own row if it has one."""
    places: dict[str, str] = {}
    for is_here in (False, True):
        for part, rows in parts.items():
            ids = rows.filter(pc.equal(rows["is_here"], is_here))["execution_id"].to_pylist()
            places |= dict.fromkeys(ids, part.place)
    return places


def _values(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows as far as a plan needs them; a value that many of them share (a name, a state, a time) is one object."""
    names = [name for name in rows.column_names if name not in _NOT_PLANNED]
    columns = (rows[name].to_pylist() if name in _UNIQUE else shared_values(rows[name]) for name in names)
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
