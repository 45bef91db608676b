"""Write bundles into their parts, mark what the source no longer has, and decide in which order both become visible.

In each part, calls, evals and errors are written first, and the execution rows last: these say what the dataset now
holds of the others. After a crash in between, the next run fetches these executions again. Never decides which
executions are fetched (``extract/plan``), nor how rows are merged (``merge``).
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from itertools import chain, groupby
from operator import attrgetter
from typing import Any

import pyarrow as pa

from etl.dataset.layout import Part
from etl.dataset.merge import Replacement, mark
from etl.dataset.part_index import held_rows
from etl.dataset.parts import Dataset
from etl.model import lifecycle, schema
from etl.model.arrow import is_of, with_values
from etl.model.digest import fingerprint, rows_digest
from etl.model.lifecycle import Arrival, ExportState, HeldRows, Settlement, StoredExecution
from etl.model.records import DETAIL, METRICS, RUNS, DeadLetter
from etl.transform.drift import Answers
from etl.transform.flatten import FlatBundle
from etl.transform.frames import ExportStamp, calls_frame, errors_frame, evals_frame, executions_frame

_Batch = Mapping[str, FlatBundle]
"""The bundles of one part, by execution_id."""
_Known = Mapping[str, StoredExecution | None]
"""What the dataset held of each execution when it was planned; None for a new one."""
_Rows = Mapping[str, pa.Table]
"""By the table's name."""
_NOTHING_HELD = HeldRows(listed_calls=None, exported_calls=0, calls_digest=rows_digest([]))


@dataclass(slots=True)
class Arrived:
    """What one commit received of one run test, whether it changed anything or not."""

    rows: Counter[str] = field(default_factory=Counter)
    """By table, how many rows came. An execution that comes in pieces counts once, with its last piece."""
    misfits: int = 0
    """How many values did not fit their column."""
    dead_letters: dict[str, tuple[DeadLetter, ...]] = field(default_factory=dict)
    """By execution_id, what could not be fetched; each piece of an execution brings all of them so far."""
    without_rows: set[str] = field(default_factory=set)
    """The ids of executions that are incomplete only because rows that were to stay are gone."""
    unknown_statuses: Counter[str] = field(default_factory=Counter)
    """How many calls have each status that this version does not know."""


def commit(
    dataset: Dataset,
    bundles: Sequence[FlatBundle],
    stored: Mapping[str, StoredExecution],
    parts_of: Callable[[Sequence[FlatBundle]], Sequence[Part]],
    stamp: ExportStamp,
    settlement: Settlement,
    answers_of: Callable[[str], Answers] = lambda _: Answers(),
) -> dict[str, Arrived]:
    """Write the bundles into their parts, durably; returns what arrived, by the run test's name.

    Takes the rows out of the bundles, so that each can be committed only once. ``stored`` is what the dataset held when
    the executions were planned. ``parts_of`` gives the part of each bundle, see ``Places``. ``answers_of`` gives what
    the answers about a run test have shown in this run; the bundles add to it.

    Raises:
        DestinationError: a part could not be written. Its execution rows and the parts after it are unchanged.
    """
    arrived: dict[str, Arrived] = {}
    # Executions that began together come to lie together.
    in_order = sorted(bundles, key=lambda bundle: (bundle.run_test_name, bundle.started_at or lifecycle.LONG_AGO))
    for name, group in groupby(in_order, key=attrgetter("run_test_name")):
        of_run_test = list(group)
        by_part: dict[Part, dict[str, FlatBundle]] = {}
        for part, bundle in zip(parts_of(of_run_test), of_run_test, strict=True):
            by_part.setdefault(part, {})[bundle.execution.execution_id] = bundle
        drifted = _note_losses(dataset, by_part, stored, answers_of(name))
        rows, arrived[name] = _rows_of(of_run_test, stamp)
        for part, in_part in by_part.items():
            own_rows = rows
            # With one part, all rows are its own: filtering would copy all the text again.
            if len(by_part) > 1:
                own_rows = {table: of_table.filter(is_of(of_table, in_part)) for table, of_table in rows.items()}
            known = {execution_id: stored.get(execution_id) for execution_id in in_part}
            settled = replace(settlement, drifted=drifted)
            misfits, without_rows = _commit_part(dataset, part, in_part, own_rows, known, stamp, settled)
            arrived[name].misfits += misfits
            arrived[name].without_rows |= without_rows
    pa.default_memory_pool().release_unused()  # otherwise Arrow keeps the memory of every commit
    return arrived


def mark_deleted(dataset: Dataset, parts: Mapping[str, Part], stamp: ExportStamp) -> int:
    """Mark all rows of these executions, given by id with their parts; returns how many executions changed.

    Their dead letters are removed, since no run can resolve them any more. Execution rows are written last; if a run is
    killed before, the next one completes it.
    """
    in_order = sorted(parts, key=parts.__getitem__)
    return sum(_mark_in(dataset, part, {*ids}, stamp) for part, ids in groupby(in_order, key=parts.__getitem__))


def _mark_in(dataset: Dataset, part: Part, ids: Collection[str], stamp: ExportStamp) -> int:
    """Mark these executions in one part; returns how many of them changed."""
    marked = {table: mark(table, dataset.rows(table, part), ids, stamp.columns) for table in schema.OF_EXECUTIONS}
    for table in (schema.CALLS, schema.EVALS, schema.ERRORS):
        dataset.write_if_changed(table, part, marked[table])
    rows = marked[schema.EXECUTIONS].table
    changed = set[str]().union(*(merged.changed for merged in marked.values()))
    changed &= {*rows["execution_id"].to_pylist()}
    if changed:
        held = held_rows(dict.fromkeys(changed), marked[schema.CALLS].own, marked[schema.EVALS].own)
        values: dict[str, dict[str, Any]] = {
            "calls_digest": {execution_id: own.calls_digest for execution_id, own in held.items()},
            "exported_calls": {execution_id: own.exported_calls for execution_id, own in held.items()},
            **{name: dict.fromkeys(changed, value) for name, value in stamp.columns.items()},
        }
        dataset.note_held(part, held)
        dataset.write(schema.EXECUTIONS, part, with_values(rows, values))
        dataset.receipt.note(part.run_test_key, "marked", changed)
    return len(changed)


def _rows_of(bundles: Sequence[FlatBundle], stamp: ExportStamp) -> tuple[_Rows, Arrived]:
    """The rows of calls, evals and errors by table, and what arrived; takes the rows out of the bundles.

    What only the execution rows can tell is added later. The rows are made for all parts at once, since a frame costs
    milliseconds however few its rows.
    """
    calls, evals, errors = (make(bundles, stamp) for make in (calls_frame, evals_frame, errors_frame))
    whole = sum(bundle.part_of is None for bundle in bundles)
    arrived = Arrived(
        rows=Counter(executions=whole, calls=len(calls.rows), evals=len(evals.rows)),
        misfits=calls.misfits + evals.misfits,
        dead_letters={bundle.execution.execution_id: bundle.dead_letters for bundle in bundles},
    )
    for bundle in bundles:
        # The frames hold these rows now; memory need not hold them twice.
        for rows in (bundle.calls, bundle.evals, bundle.errors):
            rows.values.clear()
        unknown = bundle.call_statuses.keys() - lifecycle.KNOWN_CALL
        arrived.unknown_statuses.update({status: bundle.call_statuses[status] for status in unknown})
    return {frame.table.name: frame.rows for frame in (calls, evals, errors)}, arrived


def _note_losses(
    dataset: Dataset, by_part: Mapping[Part, _Batch], stored: Mapping[str, StoredExecution], answers: Answers
) -> frozenset[str]:
    """Add what the bundles of a run test show of the API's form; returns those that are not final because of it."""
    for part, batch in by_part.items():
        has_values = _has_values(dataset, part, stored)
        for execution_id, bundle in batch.items():
            before = stored.get(execution_id)
            # Rows that were made of lists tell nothing of how a call's own metrics were answered.
            is_fetched = before is not None and before.held.exported_calls > before.held.detail_calls
            is_new = before is None or not (is_fetched or before.export_state in lifecycle.WHOLE)
            answers.note(execution_id, bundle.losses, is_new=is_new, has_values=has_values)
    return frozenset(filter(answers.holds, chain.from_iterable(by_part.values())))


def _has_values(dataset: Dataset, part: Part, stored: Mapping[str, StoredExecution]) -> Callable[[str], bool]:
    """Tells whether a column ("calls.status") has a value in a stored row of the part, or of the newest other one.

    These are read when first asked.
    """
    key = part.run_test_key
    others = {known.place for known in stored.values() if known.run_test_key == key} - {part.place}
    parts = [part, *(Part(key, place) for place in sorted(others)[-1:])]
    rows_of = cache(dataset.rows)

    def has_values(column: str) -> bool:
        table, _, name = column.partition(".")
        values = (rows_of(schema.TABLES[table], each)[name] for each in parts)
        return any(each.null_count < len(each) for each in values)

    return has_values


def _commit_part(
    dataset: Dataset, part: Part, batch: _Batch, rows: _Rows, known: _Known, stamp: ExportStamp, settlement: Settlement
) -> tuple[int, set[str]]:
    """Commit the bundles of one part; returns the misfits of their execution rows, and see ``Arrived.without_rows``."""
    replacement = _replacement(batch, known, stamp, settlement)
    held = {id_: before.held if before else _NOTHING_HELD for id_, before in known.items()}
    held_now, touched = _commit_calls(dataset, part, batch, rows, replacement)
    held |= held_now
    states = {id_: _state(bundle, known[id_], held[id_], settlement) for id_, bundle in batch.items()}
    verified_at = {id_: _verified_at(bundle, known[id_], states[id_], settlement) for id_, bundle in batch.items()}
    dataset.commit_rows(schema.ERRORS, part, rows[schema.ERRORS.name], replacement)
    executions = executions_frame(batch.values(), held, states, verified_at, stamp)
    # A reader that follows these rows sees that calls or evals of an execution changed.
    renewing = replace(replacement, renewed={*replacement.renewed, *touched})
    changed = dataset.commit_rows(schema.EXECUTIONS, part, executions.rows, renewing).changed
    _note_changes(dataset, part.run_test_key, known, held, changed)
    dataset.receipt.note(part.run_test_key, "verified", {*replacement.verified})
    # Nothing failed, and all of it came: rows that were to stay are gone.
    without_rows = {
        id_
        for id_, bundle in batch.items()
        if states[id_] is ExportState.INCOMPLETE and not _has_failed(bundle) and bundle.part_of is None
    }
    return executions.misfits, without_rows


def _replacement(batch: _Batch, known: _Known, stamp: ExportStamp, settlement: Settlement) -> Replacement:
    """What the bundles replace in their part."""
    listed = {id_: bundle for id_, bundle in batch.items() if bundle.is_fetched}
    unlisted = batch.keys() - listed.keys()
    pieces = {id_ for id_, bundle in listed.items() if bundle.part_of is not None}
    failed = {id_ for id_, bundle in listed.items() if _has_failed(bundle)}
    undetailed = {id_ for id_, bundle in listed.items() if _lacks_detail(bundle) and not bundle.keeps_unseen}
    stored = {id_: before for id_, before in known.items() if before}
    whole = {id_ for id_, before in stored.items() if lifecycle.is_whole_as_listed(batch[id_].execution, before)}
    return Replacement(
        batch.keys(),
        without_calls=unlisted,
        listed_calls={(id_, call_id) for id_, bundle in listed.items() for call_id in _calls_with_evals(bundle)},
        deleted_calls={(id_, call_id) for id_, bundle in listed.items() for call_id in bundle.deleted},
        unproved=unlisted | pieces | {id_ for id_, bundle in listed.items() if _has_letter(bundle, RUNS)},
        heads={id_ for id_, bundle in batch.items() if _has_letter(bundle, METRICS)},
        renewed={id_ for id_, before in stored.items() if before.exported_at is None or before.is_damaged},
        # Without the time of this fetch, a run would fetch all calls of those that lack nothing but their detail, or
        # whose answers have changed (``lifecycle.is_held``), every night.
        verified=(settlement.drifted & listed.keys() | undetailed) - pieces,
        # A piece of an execution that is stored whole, as listed, only confirms it: its rows keep their stamp.
        restamped=failed | (pieces - whole),
        stamp=stamp.columns,
    )


def _calls_with_evals(bundle: FlatBundle) -> AbstractSet[str]:
    """The ids of the calls of which the list says everything: that they exist, and which evals they have."""
    named = bundle.listed or frozenset()
    return named - bundle.kept if bundle.lacks_evals else named


def _has_letter(bundle: FlatBundle, endpoint: str) -> bool:
    """Whether the endpoint failed for the execution itself: its aggregates (METRICS) or its list of calls (RUNS)."""
    execution_id = bundle.execution.execution_id
    return any(letter.endpoint == endpoint and letter.subject_id == execution_id for letter in bundle.dead_letters)


def _has_failed(bundle: FlatBundle) -> bool:
    """Whether a request about the execution was given up, other than for its detail."""
    return any(letter.endpoint != DETAIL for letter in bundle.dead_letters)


def _lacks_detail(bundle: FlatBundle) -> bool:
    """Whether the execution's detail, or that of some of its calls, could not be read."""
    return any(letter.endpoint == DETAIL for letter in bundle.dead_letters)


def _state(bundle: FlatBundle, before: StoredExecution | None, held: HeldRows, settlement: Settlement) -> ExportState:
    """The export state of the execution, of which the dataset holds these calls now."""
    arrival = Arrival(
        held=held,
        call_statuses=bundle.call_statuses if bundle.is_fetched else None,
        # Rows are counted, too: the stored row of a kept call may have been lost since it was read.
        is_whole=not _has_failed(bundle)
        and bundle.part_of is None
        and (bundle.listed is None or held.exported_calls == len(bundle.listed)),
        lacks_detail=_lacks_detail(bundle),
        keeps_unseen=bundle.keeps_unseen,
        is_part=bundle.part_of is not None,
        is_late=bundle.run_test_name in settlement.complete_before,
    )
    return lifecycle.export_state(bundle.execution, before, arrival, settlement)


def _verified_at(
    bundle: FlatBundle, before: StoredExecution | None, state: ExportState, settlement: Settlement
) -> datetime | None:
    """The new ``verified_at``; None if its calls were never fetched or compared.

    Usually the time of this fetch. An execution that takes several runs (``lifecycle.BEGUN``) keeps the time of the
    first one while its entry in the list stays the same: calls stored since then need not be fetched again. A failed
    list begins such a series, too. If nothing was fetched, the stored time stays.
    """
    stored_at = before.verified_at if before else None
    is_begun = state in lifecycle.BEGUN
    was_begun = before is not None and before.export_state in lifecycle.BEGUN
    if before and was_begun and is_begun and before.fingerprint == fingerprint(bundle.execution.payload):
        return stored_at or settlement.fetched_at
    is_fetched = is_begun or (bundle.is_fetched and bundle.part_of is None)
    return settlement.fetched_at if is_fetched else stored_at


def _commit_calls(
    dataset: Dataset, part: Part, batch: _Batch, rows: _Rows, replacement: Replacement
) -> tuple[dict[str, HeldRows], AbstractSet[str]]:
    """Write calls and evals; returns what is now held of the executions whose calls were listed, and which changed."""
    counts_in_lists = {id_: _count_in_list(bundle) for id_, bundle in batch.items() if bundle.is_fetched}
    if not counts_in_lists:
        return {}, frozenset()  # so that the part's largest files are not read
    calls = dataset.commit_rows(schema.CALLS, part, rows[schema.CALLS.name], replacement)
    evals = dataset.commit_rows(schema.EVALS, part, rows[schema.EVALS.name], replacement)
    held = held_rows(counts_in_lists, calls.own, evals.own)
    dataset.note_held(part, held)
    return held, calls.changed | evals.changed


def _count_in_list(bundle: FlatBundle) -> int | None:
    """How many calls the execution has according to its list; None if the list failed before it named any."""
    count = bundle.part_of or len(bundle.listed or ())
    return None if count == 0 and _has_letter(bundle, RUNS) else count


def _note_changes(
    dataset: Dataset, key: str, known: _Known, held: Mapping[str, HeldRows], changed: AbstractSet[str]
) -> None:
    """Note in the receipt what became of executions of the run test; ``changed`` ones have a new row."""
    had_row = {execution_id for execution_id, before in known.items() if before and before.has_row}
    had_calls = {execution_id for execution_id, before in known.items() if before and before.held.exported_calls}
    emptied = {execution_id for execution_id in changed & had_calls if not held[execution_id].exported_calls}
    dataset.receipt.note(key, "inserted", changed - had_row)
    dataset.receipt.note(key, "replaced", changed & had_row)
    dataset.receipt.note(key, "emptied", emptied)
