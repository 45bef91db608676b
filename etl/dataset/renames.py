"""A run test was renamed at the source: its rows take the new name, and stay where they are.

Finds which executions have a new name, and writes it into the rows of one part. Never asks the source: the lists are
given.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from etl.dataset.layout import Part
from etl.dataset.part_index import held_rows
from etl.dataset.parts import Dataset
from etl.dataset.state import StoredState
from etl.model import schema
from etl.model.arrow import with_values
from etl.model.lifecycle import BEGUN
from etl.transform.frames import ExportStamp


def find_renames(
    state: StoredState, listed: Mapping[str, Iterable[str]], gone: Iterable[str]
) -> dict[Part, dict[str, str]]:
    """The new names of stored executions, by part and execution_id. Parts come in the order in which to write them.

    ``listed`` has the ids of the executions in each list, by the name of its run test; if two lists have one, the first
    counts. ``gone`` are names that no run test has any more. A stored execution that is in no list, and is marked or
    has such a name, takes the new name of the living ones of its old name and folder, if all of these have the same.
    Listed ones without a row of their own are among the renamed: only their other rows tell what they are called.
    """
    names = {execution_id: name for name, ids in reversed([*listed.items()]) for execution_id in ids}
    new_names: dict[tuple[str, str], set[str]] = {}
    for execution_id, stored in state.executions.items():
        stays = stored.deleted_at is None and stored.run_test_name not in gone
        if stored.has_row and (name := names.get(execution_id) or (stored.run_test_name if stays else "")):
            new_names.setdefault((stored.run_test_key, stored.run_test_name), set()).add(name)
    heirs = {old: next(iter(new)) for old, new in new_names.items() if len(new) == 1 and old[1] not in new}
    renamed: dict[Part, dict[str, str]] = {}
    for execution_id, stored in state.executions.items():
        name = names.get(execution_id) or heirs.get((stored.run_test_key, stored.run_test_name), "")
        # The row of a damaged one may have its new name already, and its calls not.
        if name and (name != stored.run_test_name or stored.is_damaged):
            renamed.setdefault(Part(stored.run_test_key, stored.place), {})[execution_id] = name

    # Parts without a listed execution come first: if a run is killed, the listed ones still lead to the others.
    in_order = sorted(renamed, key=lambda part: (not names.keys().isdisjoint(renamed[part]), part))
    return {part: renamed[part] for part in in_order}


def rename(dataset: Dataset, part: Part, names: Mapping[str, str], stamp: ExportStamp) -> None:
    """Give executions of the part the names that stand by execution_id, in all tables; execution rows go last.

    One of which a killed run, or damage, left no row of its own is renamed, too. Writes nothing if they all have these
    names. The digest in an execution's row covers the names of its calls and evals, so it changes; but one that did not
    match its rows before stays as it is, so that the damage is still noticed. A rename that is killed is completed by
    the next run.
    """
    executions = dataset.rows(schema.EXECUTIONS, part)
    ids, digests = (executions[name].to_pylist() for name in ("execution_id", "calls_digest"))
    old_names = dict(zip(ids, executions["run_test_name"].to_pylist(), strict=True))
    named = {"run_test_name": names}
    stamped = {name: dict.fromkeys(names, value) for name, value in stamp.columns.items()}
    tables = (*schema.OF_CALLS, schema.ERRORS)
    stored = [dataset.rows(table, part) for table in tables]
    # A run that was killed here left new names in calls, and digests over calls with the names of the execution rows.
    before = [with_values(rows, {"run_test_name": old_names}) for rows in stored]
    after = [with_values(rows, named) for rows in stored]
    if after == stored and all(old_names.get(execution_id, name) == name for execution_id, name in names.items()):
        return
    for table, rows, renamed in zip(tables, stored, after, strict=True):
        if not renamed.equals(rows):
            own = stamped if table in schema.OF_CALLS else {}
            dataset.write(table, part, with_values(renamed, own), changed=names)
    counts = dict.fromkeys(names)
    held_stored, held_before, held_after = (held_rows(counts, *rows[:2]) for rows in (stored, before, after))
    dataset.note_held(part, held_after)
    new_digests = {
        execution: held_after[execution].calls_digest
        for execution, digest in zip(ids, digests, strict=True)
        if execution in names and digest in (held_stored[execution].calls_digest, held_before[execution].calls_digest)
    }
    # All their calls are stamped now, so nothing says any more which of them were fetched since a list was begun.
    states = zip(ids, executions["export_state"].to_pylist(), strict=True)
    begun_at = {execution_id: None for execution_id, state in states if state in BEGUN and execution_id in names}
    values: dict[str, Mapping[str, Any]] = {"calls_digest": new_digests, "verified_at": begun_at, **named, **stamped}
    dataset.write(schema.EXECUTIONS, part, with_values(executions, values))
    dataset.receipt.note(part.run_test_key, "replaced", names.keys() & old_names.keys())
