"""Write bundles into their parts, mark what the source no longer has, and choose the order in which that becomes visible.

Per part: calls, evals and errors first, then the execution rows, which say what the dataset now holds of the others. After a
crash between the two, the next run fetches these executions again.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

import pyarrow as pa

from etl.dataset.layout import Part
from etl.dataset.merge import Replacement, mark
from etl.dataset.part_index import held_rows
from etl.dataset.parts import Dataset
from etl.model import schema
from etl.model.arrow import is_of, with_values
from etl.model.digest import fingerprint, rows_digest
from etl.model.lifecycle import (
    BEGUN,
    KNOWN_CALL,
    LONG_AGO,
    Arrival,
    ExportState,
    HeldRows,
    Settlement,
    StoredExecution,
    export_state,
    is_whole_as_listed,
)
from etl.model.records import METRICS, RUNS, DeadLetter
from etl.transform.drift import Drift
from etl.transform.flatten import FlatBundle
from etl.transform.frames import ExportStamp, calls_frame, errors_frame, evals_frame, executions_frame

_Known = Mapping[str, StoredExecution | None]
_NOTHING_HELD = HeldRows(listed_calls=None, exported_calls=0, calls_digest=rows_digest([]))


@dataclass(slots=True)
class Arrived:
    """Rows that one commit received of one run test, changed or not.

    ``dead_letters`` are those of each execution: one that arrives in pieces tells of all of them each time. ``without_rows``
    executions are incomplete since rows that were to stay are gone. ``drift`` is by execution.
    """

    rows: Counter[str] = field(default_factory=Counter)
    misfits: int = 0
    dead_letters: dict[str, tuple[DeadLetter, ...]] = field(default_factory=dict)
    without_rows: set[str] = field(default_factory=set)
    unknown_statuses: Counter[str] = field(default_factory=Counter)
    drift: dict[str, tuple[Drift, ...]] = field(default_factory=dict)


def commit(
    dataset: Dataset,
    bundles: Sequence[FlatBundle],
    stored: Mapping[str, StoredExecution],
    parts_of: Callable[[Sequence[FlatBundle]], Sequence[Part]],
    stamp: ExportStamp,
    settlement: Settlement,
) -> dict[str, Arrived]:
    """Write the bundles into their parts, durably; returns what arrived by the run test's name.

    Empties the bundles of their rows: each can be committed once only. ``stored`` is what the dataset held when the executions
    were planned; ``parts_of`` tells the part of a bundle, see ``Places``. When a part cannot be written, its execution rows, and
    the parts after it, are unchanged.
    """
    arrived: dict[str, Arrived] = {}
    # Executions that began together come to lie together.
    in_order = sorted(bundles, key=lambda each: (each.run_test_name, each.started_at or LONG_AGO))
    for name, group in groupby(in_order, key=attrgetter("run_test_name")):
        of_run_test = list(group)
        in_parts: dict[Part, list[FlatBundle]] = {}
        for part, bundle in zip(parts_of(of_run_test), of_run_test, strict=True):
            in_parts.setdefault(part, []).append(bundle)
        rows, arrived[name] = _rows_of(of_run_test, stamp)
        for part, in_part in in_parts.items():
            mine = {each.execution.execution_id: each for each in in_part}
            known = {execution_id: stored.get(execution_id) for execution_id in mine}
            replacement = _replacement(mine, known, stamp)
            # A copy is as much text again.
            own_rows = {name: its.filter(is_of(its, mine)) if len(in_parts) > 1 else its for name, its in rows.items()}
            held = {each: before.held if before else _NOTHING_HELD for each, before in known.items()}
            held_now, touched = _commit_calls(dataset, part, mine, own_rows, replacement)
            held |= held_now
            states = {each: _state(bundle, known[each], held[each], settlement) for each, bundle in mine.items()}
            verified_at = {
                each: _verified_at(bundle, known[each], states[each], settlement) for each, bundle in mine.items()
            }
            dataset.commit_rows(schema.ERRORS, part, own_rows[schema.ERRORS.name], replacement)
            executions = executions_frame(mine.values(), held, states, verified_at, stamp)
            own = executions.rows
            # A reader that follows these rows sees that calls or evals of an execution changed.
            renewing = replace(replacement, renewed={*replacement.renewed, *touched})
            changed = dataset.commit_rows(schema.EXECUTIONS, part, own, renewing).changed
            _note_changes(dataset, part.run_test_key, known, held, changed, replacement)
            arrived[name].drift |= {each: bundle.drift for each, bundle in mine.items() if bundle.drift}
            arrived[name].misfits += executions.misfits
            arrived[name].without_rows |= {
                execution_id
                for execution_id, bundle in mine.items()
                if states[execution_id] is ExportState.INCOMPLETE and not bundle.dead_letters and bundle.part_of is None
            }
    pa.default_memory_pool().release_unused()  # else the pieces that are free after each commit add up
    return arrived


def mark_deleted(dataset: Dataset, parts: Mapping[str, Part], stamp: ExportStamp) -> int:
    """Mark the rows of these executions, which lie in these parts; returns how many executions were marked.

    Their dead letters go, which no run can resolve. Execution rows are written last. A run that is killed between is completed by
    the next.
    """
    in_order = sorted(parts, key=parts.__getitem__)
    return sum(_mark_in(dataset, part, {*ids}, stamp) for part, ids in groupby(in_order, key=parts.__getitem__))


def _mark_in(dataset: Dataset, part: Part, execution_ids: Collection[str], stamp: ExportStamp) -> int:
    found = {each: mark(each, dataset.rows(each, part), execution_ids, stamp.columns) for each in schema.OF_EXECUTIONS}
    for table in (schema.CALLS, schema.EVALS, schema.ERRORS):
        dataset.write_if_changed(table, part, found[table])
    rows = found[schema.EXECUTIONS].table
    changed = set[str]().union(*(each.changed for each in found.values())) & {*rows["execution_id"].to_pylist()}
    if changed:
        held = held_rows(dict.fromkeys(changed), found[schema.CALLS].own, found[schema.EVALS].own)
        told: dict[str, dict[str, Any]] = {
            "calls_digest": {each: of.calls_digest for each, of in held.items()},
            "exported_calls": {each: of.exported_calls for each, of in held.items()},
            **{name: dict.fromkeys(changed, value) for name, value in stamp.columns.items()},
        }
        dataset.note_held(part, held)
        dataset.write(schema.EXECUTIONS, part, with_values(rows, told))
        dataset.receipt.note(part.run_test_key, "marked", changed)
    return len(changed)


def _rows_of(bundles: Sequence[FlatBundle], stamp: ExportStamp) -> tuple[dict[str, pa.Table], Arrived]:
    """The rows of all parts at once by table, since a frame has its price; and what arrived but the executions' own misfits."""
    calls, evals, errors = calls_frame(bundles, stamp), evals_frame(bundles, stamp), errors_frame(bundles, stamp)
    whole = sum(each.part_of is None for each in bundles)
    arrived = Arrived(
        rows=Counter(executions=whole, calls=len(calls.data), evals=len(evals.data)),
        misfits=calls.misfits + evals.misfits,
        dead_letters={each.execution.execution_id: each.dead_letters for each in bundles},
    )
    for bundle in bundles:
        # They are in the frames now; memory need not hold them twice.
        for rows in (bundle.calls, bundle.evals, bundle.errors):
            rows.values.clear()
        arrived.unknown_statuses.update({s: n for s, n in bundle.call_statuses.items() if s not in KNOWN_CALL})
    frames = ((schema.CALLS, calls), (schema.EVALS, evals), (schema.ERRORS, errors))
    return {table.name: frame.rows for table, frame in frames}, arrived


def _replacement(bundles: Mapping[str, FlatBundle], known: _Known, stamp: ExportStamp) -> Replacement:
    """What the bundles replace of a part; ``known`` is what it held of their executions."""
    listed = {execution_id: bundle for execution_id, bundle in bundles.items() if bundle.is_fetched}
    parts = {each for each, bundle in listed.items() if bundle.part_of is not None}
    unproved = parts | {each for each, bundle in listed.items() if _has_letter(bundle, RUNS)}
    unlisted = bundles.keys() - listed.keys()
    return Replacement(
        bundles.keys(),
        without_calls=unlisted,
        listed_calls={
            (execution_id, call_id)
            for execution_id, bundle in listed.items()
            for call_id in (bundle.listed or frozenset()) - (bundle.kept if bundle.lacks_evals else frozenset())
        },
        deleted_calls={(execution_id, call) for execution_id, bundle in listed.items() for call in bundle.deleted},
        unproved=unproved | unlisted,
        heads={execution_id for execution_id, bundle in bundles.items() if _has_letter(bundle, METRICS)},
        renewed={each for each, old in known.items() if old and (old.exported_at is None or old.is_damaged)},
        # Without the time of this fetch, a scrub would fetch the same final executions every night.
        verified={
            execution_id
            for execution_id, before in known.items()
            if before and before.export_state == ExportState.EXPORTED and execution_id in listed.keys() - parts
        },
        # A part of what was whole as it is listed verifies that, and need not be told apart.
        restamped={
            each
            for each, bundle in listed.items()
            if bundle.dead_letters
            or (each in parts and not ((before := known[each]) and is_whole_as_listed(bundle.execution, before)))
        },
        stamp=stamp.columns,
    )


def _has_letter(bundle: FlatBundle, endpoint: str) -> bool:
    """Whether the endpoint failed for the execution itself: its aggregates (METRICS) or its list of calls (RUNS)."""
    execution_id = bundle.execution.execution_id
    return any(letter.endpoint == endpoint and letter.subject_id == execution_id for letter in bundle.dead_letters)


def _state(bundle: FlatBundle, before: StoredExecution | None, held: HeldRows, settlement: Settlement) -> ExportState:
    arrival = Arrival(
        held=held,
        call_statuses=bundle.call_statuses if bundle.is_fetched else None,
        # A kept call whose row was lost since it was read has none.
        is_whole=not bundle.dead_letters
        and bundle.part_of is None
        and (bundle.listed is None or held.exported_calls == len(bundle.listed)),
        is_part=bundle.part_of is not None,
        is_late=bundle.run_test_name in settlement.complete_before,
    )
    state = export_state(bundle.execution, before, arrival, settlement)
    # None is final before its rows have what the API shows elsewhere; a list that shows it again changes the execution anyway.
    is_held = any(each.table != schema.EXECUTIONS.name for each in bundle.drift)
    return ExportState.SETTLING if is_held and state is ExportState.EXPORTED else state


def _verified_at(
    bundle: FlatBundle, before: StoredExecution | None, state: ExportState, settlement: Settlement
) -> datetime | None:
    """When the calls of the execution were fetched or compared last; of one that is begun, when that was.

    What was stored before then may be older than what is listed now, so a list that failed begins it, too.
    """
    begun_at = before.verified_at if before else None
    is_unfinished = (
        before is not None
        and {before.export_state, state} <= BEGUN
        and before.fingerprint == fingerprint(bundle.execution.payload)
    )
    is_fetched = (bundle.is_fetched and bundle.part_of is None) or state in BEGUN
    return (is_unfinished and begun_at) or (settlement.fetched_at if is_fetched else begun_at)


def _commit_calls(
    dataset: Dataset,
    part: Part,
    bundles: Mapping[str, FlatBundle],
    rows: Mapping[str, pa.Table],
    replacement: Replacement,
) -> tuple[dict[str, HeldRows], AbstractSet[str]]:
    """Write calls and evals; returns what the dataset now holds of the executions whose calls were listed, and which changed."""
    listed_calls = {
        execution_id: bundle.part_of or len(bundle.listed) or (None if _has_letter(bundle, RUNS) else 0)
        for execution_id, bundle in bundles.items()
        if bundle.listed is not None
    }
    if not listed_calls:
        return {}, frozenset()  # so that the part's largest files are not read
    calls = dataset.commit_rows(schema.CALLS, part, rows[schema.CALLS.name], replacement)
    evals = dataset.commit_rows(schema.EVALS, part, rows[schema.EVALS.name], replacement)
    held = held_rows(listed_calls, calls.own, evals.own)
    dataset.note_held(part, held)
    return held, calls.changed | evals.changed


def _note_changes(
    dataset: Dataset, key: str, known: _Known, held: Mapping[str, HeldRows], changed: AbstractSet[str], by: Replacement
) -> None:
    """Tell the receipt what became of the executions of the run test, of which those that ``changed`` have a new row."""
    new = {each for each in changed if not ((before := known[each]) and before.has_row)}
    empty = {each for each in changed if not held[each].exported_calls}
    emptied = {each for each in empty if (before := known[each]) and before.held.exported_calls}
    dataset.receipt.note(key, "inserted", new)
    dataset.receipt.note(key, "replaced", changed - new)
    dataset.receipt.note(key, "emptied", emptied)
    dataset.receipt.note(key, "verified", {*by.verified})
