"""Write bundles into their parts, and choose the order in which that becomes visible.

Per part: calls, evals and errors first, then the execution rows, which say what the dataset now holds of the others. After a
crash between the two, the next run fetches these executions again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from operator import attrgetter

import pyarrow as pa

from etl.errors import SchemaError
from etl.load.dataset import Dataset
from etl.load.layout import Part
from etl.load.merge import Replacement, is_of
from etl.load.part_index import held_rows
from etl.load.receipt import Change
from etl.model import schema
from etl.model.digest import fingerprint, rows_digest
from etl.model.lifecycle import (
    KNOWN_CALL,
    LONG_AGO,
    Arrival,
    ExportState,
    HeldRows,
    Settlement,
    StoredExecution,
    export_state,
)
from etl.model.records import METRICS, RUNS, DeadLetter
from etl.transform.flatten import FlatBundle
from etl.transform.frames import ExportStamp, calls_frame, errors_frame, evals_frame, executions_frame

_NOTHING_HELD = HeldRows(listed_calls=None, exported_calls=0, calls_digest=rows_digest([]))


@dataclass(slots=True)
class Arrived:
    """Rows that one commit received of one run test, changed or not.

    ``dead_letters`` are those of each execution: one that arrives in pieces tells of all of them each time. ``without_rows``
    executions are incomplete since rows that were to stay are gone.
    """

    rows: Counter[str] = field(default_factory=Counter)
    misfits: int = 0
    dead_letters: dict[str, tuple[DeadLetter, ...]] = field(default_factory=dict)
    without_rows: set[str] = field(default_factory=set)
    unknown_statuses: Counter[str] = field(default_factory=Counter)


def commit(
    dataset: Dataset,
    bundles: Sequence[FlatBundle],
    stored: Mapping[str, StoredExecution],
    parts_of: Callable[[Sequence[FlatBundle]], Sequence[Part]],
    stamp: ExportStamp,
    settlement: Settlement,
) -> dict[str, Arrived]:
    """Write the bundles into their parts, durably; returns what arrived by the run test's name.

    Empties the bundles of their rows: each can be committed once only.

    ``stored`` is what the dataset held when the executions were planned; ``parts_of`` tells the part of a bundle, see ``Places``.

    Raises:
        DestinationError: a part could not be written; its execution rows, and the parts after it, are unchanged.
        SchemaError: two bundles are of the same execution.
    """
    arrived: dict[str, Arrived] = {}
    for name, group in groupby(sorted(bundles, key=_age), key=attrgetter("run_test_name")):
        of_run_test = list(group)
        in_parts: dict[Part, list[FlatBundle]] = {}
        for part, bundle in zip(parts_of(of_run_test), of_run_test, strict=True):
            in_parts.setdefault(part, []).append(bundle)
        rows, arrived[name] = _rows_of(of_run_test, stamp)
        for part, in_part in in_parts.items():
            mine = _by_execution(in_part)
            known = {execution_id: stored.get(execution_id) for execution_id in mine}
            replacement = _replacement(mine, known, stamp)
            # A copy is as much text again.
            own_rows = {
                name: of_all.filter(is_of(of_all, mine)) if len(in_parts) > 1 else of_all
                for name, of_all in rows.items()
            }
            held = {each: before.held if before else _NOTHING_HELD for each, before in known.items()}
            held_now, touched = _commit_calls(dataset, part, mine, own_rows, replacement)
            held |= held_now
            states = _states(mine, known, held, settlement)
            verified_at = _verified_at(mine, known, states, settlement.fetched_at)
            dataset.commit_rows(schema.ERRORS, part, own_rows[schema.ERRORS.name], replacement)
            executions = executions_frame(mine.values(), held, states, verified_at, stamp)
            own = executions.rows
            changed = dataset.commit_rows(schema.EXECUTIONS, part, own, _renewing(replacement, touched)).changed
            _note_changes(dataset, part.run_test_key, known, held, changed, replacement)
            arrived[name].misfits += executions.misfits
            arrived[name].without_rows |= {
                execution_id
                for execution_id, bundle in mine.items()
                if states[execution_id] is ExportState.INCOMPLETE and not bundle.dead_letters and bundle.part_of is None
            }
    pa.default_memory_pool().release_unused()  # else the pieces that are free after each commit add up
    return arrived


def _rows_of(bundles: Sequence[FlatBundle], stamp: ExportStamp) -> tuple[dict[str, pa.Table], Arrived]:
    """The rows of calls, evals and errors by table, and what arrived but the executions' own misfits.

    Of all parts at once: a frame costs milliseconds, however few its rows.
    """
    calls, evals, errors = calls_frame(bundles, stamp), evals_frame(bundles, stamp), errors_frame(bundles, stamp)
    arrived = Arrived(
        rows=Counter(
            executions=sum(each.part_of is None for each in bundles), calls=len(calls.rows), evals=len(evals.rows)
        ),
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


def _by_execution(bundles: Iterable[FlatBundle]) -> dict[str, FlatBundle]:
    mine: dict[str, FlatBundle] = {}
    for bundle in bundles:
        if bundle.execution.execution_id in mine:
            raise SchemaError(f"execution {bundle.execution.execution_id} twice in one commit")
        mine[bundle.execution.execution_id] = bundle
    return mine


def _replacement(
    bundles: Mapping[str, FlatBundle], known: Mapping[str, StoredExecution | None], stamp: ExportStamp
) -> Replacement:
    """What the bundles replace of a part; ``known`` is what it held of their executions."""
    listed = {execution_id: bundle for execution_id, bundle in bundles.items() if bundle.is_fetched}
    unproved = {each for each, bundle in listed.items() if bundle.part_of is not None or _has_letter(bundle, RUNS)}
    unlisted = bundles.keys() - listed.keys()
    return Replacement(
        bundles.keys(),
        without_calls=unlisted,
        listed_calls={
            (execution_id, call_id) for execution_id, bundle in listed.items() for call_id in bundle.listed or ()
        },
        deleted_calls={
            (execution_id, call_id) for execution_id, bundle in listed.items() for call_id in bundle.deleted
        },
        doubtful=unproved | unlisted,
        heads={execution_id for execution_id, bundle in bundles.items() if _has_letter(bundle, METRICS)},
        renewed={
            each for each, before in known.items() if before and (before.exported_at is None or before.is_damaged)
        },
        # Without the time of this fetch, a scrub would fetch the same final executions every night.
        verified={
            execution_id
            for execution_id, before in known.items()
            if before and before.export_state == ExportState.EXPORTED and execution_id in listed
        },
        restamped={each for each, bundle in listed.items() if bundle.dead_letters or bundle.part_of is not None},
        stamp=stamp.columns,
    )


def _has_letter(bundle: FlatBundle, endpoint: str) -> bool:
    """Whether the endpoint failed for the execution itself: its aggregates (METRICS) or its list of calls (RUNS)."""
    execution_id = bundle.execution.execution_id
    return any(letter.endpoint == endpoint and letter.subject_id == execution_id for letter in bundle.dead_letters)


def _states(
    bundles: Mapping[str, FlatBundle],
    known: Mapping[str, StoredExecution | None],
    held: Mapping[str, HeldRows],
    settlement: Settlement,
) -> dict[str, ExportState]:
    return {
        execution_id: export_state(
            bundle.execution,
            known[execution_id],
            Arrival(
                held=held[execution_id],
                call_statuses=bundle.call_statuses if bundle.is_fetched else None,
                # A kept call whose row was lost since it was read has none.
                is_whole=not bundle.dead_letters
                and bundle.part_of is None
                and (bundle.listed is None or held[execution_id].exported_calls == len(bundle.listed)),
                is_late=bundle.run_test_name in settlement.complete_before,
            ),
            settlement,
        )
        for execution_id, bundle in bundles.items()
    }


def _verified_at(
    bundles: Mapping[str, FlatBundle],
    known: Mapping[str, StoredExecution | None],
    states: Mapping[str, ExportState],
    fetched_at: datetime,
) -> dict[str, datetime | None]:
    """When the calls of each execution were fetched or compared last; of one that is incomplete, when that began.

    What was stored before then may be older than what is listed now, so a list that failed begins it, too.
    """
    found: dict[str, datetime | None] = {}
    for execution_id, before in known.items():
        bundle = bundles[execution_id]
        is_unfinished = (
            before is not None
            and before.export_state == states[execution_id] == ExportState.INCOMPLETE
            and before.fingerprint == fingerprint(bundle.execution.payload)
        )
        is_fetched = bundle.is_fetched or states[execution_id] == ExportState.INCOMPLETE
        begun_at = before.verified_at if before else None
        found[execution_id] = (is_unfinished and begun_at) or (fetched_at if is_fetched else begun_at)
    return found


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
    return held_rows(listed_calls, calls.table, evals.table), calls.changed | evals.changed


def _renewing(replacement: Replacement, touched: AbstractSet[str]) -> Replacement:
    """The replacement for execution rows: a reader that follows these sees that calls or evals of an execution changed."""
    return replace(replacement, renewed={*replacement.renewed, *touched})


def _note_changes(
    dataset: Dataset,
    key: str,
    known: Mapping[str, StoredExecution | None],
    held: Mapping[str, HeldRows],
    changed: AbstractSet[str],
    replacement: Replacement,
) -> None:
    """Tell the receipt what became of the executions of the run test, of which those that ``changed`` have a new row."""
    new = {each for each in changed if not ((before := known[each]) and before.has_row)}
    emptied = {
        each
        for each in changed
        if (before := known[each]) and before.held.exported_calls and not held[each].exported_calls
    }
    dataset.receipt.note(key, Change.INSERTED, new)
    dataset.receipt.note(key, Change.REPLACED, changed - new)
    dataset.receipt.note(key, Change.EMPTIED, emptied)
    dataset.receipt.note(key, Change.VERIFIED, {*replacement.verified})


def _age(bundle: FlatBundle) -> tuple[str, datetime]:
    """Sorts by run test and start: executions that began together come to lie together."""
    return bundle.run_test_name, bundle.started_at or LONG_AGO
