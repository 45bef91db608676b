"""Bundles → partitions: what one commit writes, and in which order.

Per partition: calls, evals and errors first, then the execution rows, which say what the others really hold by now.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter

import pyarrow as pa

from etl.errors import SchemaError
from etl.load.dataset import Dataset, Steps, Written, calls_of
from etl.load.layout import Partition
from etl.load.state import held_rows
from etl.model import schema
from etl.model.digest import rows_digest
from etl.model.lifecycle import KNOWN_CALL, ExportState, HeldRows, StoredExecution, export_state
from etl.model.records import METRICS, RUNS
from etl.transform.flatten import FlatBundle
from etl.transform.frames import ExportStamp, Frame, calls_frame, errors_frame, evals_frame, executions_frame, to_arrow

_NOTHING_HELD = HeldRows(listed_calls=None, exported_calls=0, calls_digest=rows_digest([]))


@dataclass(slots=True)
class Arrived:
    """Rows that one commit received of one run test, changed or not."""

    rows: Counter[str] = field(default_factory=Counter)
    misfits: int = 0
    dead_letters: int = 0
    unknown_statuses: Counter[str] = field(default_factory=Counter)


def commit(
    dataset: Dataset,
    bundles: Sequence[FlatBundle],
    stored: Mapping[str, StoredExecution],
    export: ExportStamp,
    *,
    fetched_at: datetime,
    settle_hours: float,
    written: Written,
) -> Steps[dict[str, Arrived]]:
    """Write the bundles into their partitions, durably; returns what arrived by run test key.

    Takes the rows out of the bundles, which can be committed once only.

    ``stored`` is what the dataset held of the executions when they were planned, ``fetched_at`` a time before any was fetched.

    Raises:
        DestinationError: a partition could not be written; its execution rows, and the partitions after it, are as they were.
        SchemaError: two bundles are of the same execution.
    """
    arrived: dict[str, Arrived] = {}
    for key, group in groupby(sorted(bundles, key=_partition), key=attrgetter("run_test_key")):
        of_run_test = list(group)
        share = arrived[key] = Arrived()
        rows = _frames(of_run_test, export, share)
        for partition, own in groupby(of_run_test, key=_partition):
            mine = _by_execution(own)
            known = {execution_id: stored.get(execution_id) for execution_id in mine}
            held = {execution_id: before.held if before else _NOTHING_HELD for execution_id, before in known.items()}
            held |= yield from _commit_calls(dataset, partition, mine, rows, written)
            yield from dataset.commit_rows(
                schema.ERRORS, partition, rows[schema.ERRORS.name], replaced=mine, written=written
            )
            executions = yield from _commit_executions(
                dataset,
                partition,
                mine,
                known,
                held,
                export,
                fetched_at=fetched_at,
                settle_hours=settle_hours,
                written=written,
            )
            share.misfits += executions.misfits
    return arrived


def _frames(bundles: Sequence[FlatBundle], export: ExportStamp, share: Arrived) -> dict[str, pa.Table]:
    """All that the bundles hold but their executions' own rows; of all dates at once, since frames cost by the piece."""
    calls, evals, errors = calls_frame(bundles, export), evals_frame(bundles, export), errors_frame(bundles, export)
    share.rows.update(executions=len(bundles), calls=len(calls.data), evals=len(evals.data))
    share.misfits += calls.misfits + evals.misfits
    share.dead_letters += len(errors.data)
    for bundle in bundles:
        # They are in the frames now; memory need not hold them twice.
        for rows in (bundle.calls, bundle.evals, bundle.errors):
            rows.values.clear()
        share.unknown_statuses.update({s: n for s, n in bundle.call_statuses.items() if s not in KNOWN_CALL})
    return {
        table.name: to_arrow(frame.data, table)
        for table, frame in ((schema.CALLS, calls), (schema.EVALS, evals), (schema.ERRORS, errors))
    }


def _has_letter(bundle: FlatBundle, endpoint: str) -> bool:
    """Whether the endpoint failed for the execution itself: its aggregates (METRICS) or its list of calls (RUNS)."""
    execution_id = bundle.execution.execution_id
    return any(letter.endpoint == endpoint and letter.subject_id == execution_id for letter in bundle.dead_letters)


def _by_execution(bundles: Iterable[FlatBundle]) -> dict[str, FlatBundle]:
    mine: dict[str, FlatBundle] = {}
    for bundle in bundles:
        if bundle.execution.execution_id in mine:
            raise SchemaError(f"execution {bundle.execution.execution_id} twice in one commit")
        mine[bundle.execution.execution_id] = bundle
    return mine


def _commit_calls(
    dataset: Dataset,
    partition: Partition,
    bundles: Mapping[str, FlatBundle],
    rows: Mapping[str, pa.Table],
    written: Written,
) -> Steps[dict[str, HeldRows]]:
    """Calls and evals of the executions whose calls were listed; returns what the dataset now holds of those."""
    fetched = {execution_id: bundle for execution_id, bundle in bundles.items() if bundle.is_fetched}
    if not fetched:
        return {}
    given_up = {letter.subject_id for bundle in fetched.values() for letter in bundle.dead_letters}
    # What an unproved listing does not name may have been missed: its old rows stay until a listing is proved.
    unproved = {key for key, bundle in fetched.items() if _has_letter(bundle, RUNS)}
    calls_held = yield from dataset.commit_rows(
        schema.CALLS,
        partition,
        rows[schema.CALLS.name],
        replaced=fetched,
        kept_calls=given_up,
        kept_executions=unproved,
        written=written,
    )
    listed = {key for bundle in fetched.values() for key in bundle.listed or ()}
    evals_held = yield from dataset.commit_rows(
        schema.EVALS,
        partition,
        rows[schema.EVALS.name],
        replaced=fetched,
        kept_calls=calls_of(calls_held, unproved) - listed,
        written=written,
    )
    listed_calls = {execution_id: len(bundle.listed or ()) for execution_id, bundle in fetched.items()}
    return held_rows(listed_calls, calls_held, evals_held)


def _commit_executions(
    dataset: Dataset,
    partition: Partition,
    bundles: Mapping[str, FlatBundle],
    known: Mapping[str, StoredExecution | None],
    held: Mapping[str, HeldRows],
    export: ExportStamp,
    *,
    fetched_at: datetime,
    settle_hours: float,
    written: Written,
) -> Steps[Frame]:
    """The executions' own rows, which vouch for what the dataset ``held`` of them; returns what was made of the bundles."""
    states = {
        execution_id: export_state(
            bundle.execution,
            known[execution_id],
            call_statuses=bundle.call_statuses if bundle.is_fetched else None,
            has_letters=bool(bundle.dead_letters),
            fetched_at=fetched_at,
            settle_hours=settle_hours,
        )
        for execution_id, bundle in bundles.items()
    }
    verified_at = {
        execution_id: fetched_at if bundles[execution_id].is_fetched else before.verified_at if before else None
        for execution_id, before in known.items()
    }
    executions = executions_frame(bundles.values(), held, states, verified_at, export)
    yield from dataset.commit_rows(
        schema.EXECUTIONS,
        partition,
        to_arrow(executions.data, schema.EXECUTIONS),
        replaced=bundles,
        heads={execution_id for execution_id, bundle in bundles.items() if _has_letter(bundle, METRICS)},
        verified={
            execution_id
            for execution_id, before in known.items()
            if before and before.export_state == ExportState.EXPORTED and bundles[execution_id].is_fetched
        },
        written=written,
    )
    return executions


def _partition(bundle: FlatBundle) -> Partition:
    return Partition(bundle.run_test_key, bundle.date)
