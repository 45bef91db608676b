"""A run test has another name at the source: its rows take the new name, and stay where they are."""

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
    """The new names of stored executions, by part and execution_id, in the order in which they are to be written.

    ``listed`` are the executions of each list by the name of its run test; the first list that has one counts. Those that no list
    has follow the others of their old name and partition, if that name is one of the ``gone`` ones, which no run test has any more.
    """
    names: dict[str, str] = {}
    for name, execution_ids in listed.items():
        for execution_id in execution_ids:
            names.setdefault(execution_id, name)
    renamed: dict[tuple[str, str], set[str]] = {}
    for execution_id, stored in state.executions.items():
        if stored.has_row and (listed_as := names.get(execution_id)) and listed_as != stored.run_test_name:
            renamed.setdefault((stored.run_test_key, stored.run_test_name), set()).add(listed_as)
    heirs = {old: next(iter(new)) for old, new in renamed.items() if old[1] in gone and len(new) == 1}
    found: dict[Part, dict[str, str]] = {}
    for execution_id, stored in state.executions.items():
        old = (stored.run_test_key, stored.run_test_name)
        name = names.get(execution_id) or heirs.get(old, "")
        if stored.has_row and name and (name != stored.run_test_name or stored.is_damaged):
            found.setdefault(Part(stored.run_test_key, stored.place), {})[execution_id] = name
    # Parts without any that is listed come first: a run that is killed in between leaves listed ones for them to follow.
    return dict(sorted(found.items(), key=lambda each: (not names.keys().isdisjoint(each[1]), each[0])))


def rename(dataset: Dataset, part: Part, names: Mapping[str, str], stamp: ExportStamp) -> None:
    """Give the executions of the part these names, by execution_id, in all tables; execution rows go last, as in a commit.

    Where they have them, nothing is written. The digest by which an execution row vouches for its calls and evals covers the name,
    so it changes. One that did not match the rows before stays as it is: what was damaged is still known to be. What could not be
    written is completed by the next run.
    """
    executions = dataset.rows(schema.EXECUTIONS, part)
    ids, digests = (executions[name].to_pylist() for name in ("execution_id", "calls_digest"))
    old_names = dict(zip(ids, executions["run_test_name"].to_pylist(), strict=True))
    named = {"run_test_name": names}
    stamped = {name: dict.fromkeys(names, value) for name, value in stamp.columns.items()}
    found = [dataset.rows(table, part) for table in schema.OF_CALLS]
    # A run that was killed here left another name beside execution rows of the old one, which may be marked so since.
    before = [with_values(rows, {"run_test_name": {each: old_names[each] for each in names}}) for rows in found]
    after = [with_values(rows, named) for rows in found]
    if after == found and names.items() <= old_names.items():
        return
    for table, rows, renamed in zip(schema.OF_CALLS, found, after, strict=True):
        if not renamed.equals(rows):
            dataset.write(table, part, with_values(renamed, stamped), changed=names)
    errors = dataset.rows(schema.ERRORS, part)
    if len(errors):
        dataset.write(schema.ERRORS, part, with_values(errors, named))
    counts = dict.fromkeys(names)
    held = [held_rows(counts, *tables) for tables in (found, before, after)]
    dataset.note_held(part, held[-1])
    told = {
        each: held[-1][each].calls_digest
        for each, digest in zip(ids, digests, strict=True)
        if each in names and digest in [of[each].calls_digest for of in held[:-1]]
    }
    # All their calls are stamped, so that nothing tells any more which of them were fetched since.
    states = zip(ids, executions["export_state"].to_pylist(), strict=True)
    begun_at = {each: None for each, state in states if state in BEGUN and each in names}
    values: dict[str, Mapping[str, Any]] = {"calls_digest": told, "verified_at": begun_at, **named, **stamped}
    dataset.write(schema.EXECUTIONS, part, with_values(executions, values))
    dataset.receipt.note(part.run_test_key, "replaced", names.keys())
