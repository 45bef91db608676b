"""Bundles → partitions: what one commit writes, and in which order.

Per partition: calls, evals and errors first, then the execution rows, which say what the others really hold by now.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from etl.api.models import ExecutionBundle
from etl.crawl.plan import Stored, export_state
from etl.store.dataset import Dataset, Written, calls_of, held_rows
from etl.store.layout import Partition
from etl.tables import schema
from etl.tables.digest import rows_digest
from etl.tables.flatten import Export, HeldRows, calls_frame, errors_frame, evals_frame, executions_frame

_NOTHING_HELD = HeldRows(listed_calls=None, exported_calls=0, calls_digest=rows_digest([]))


@dataclass(slots=True)
class Arrived:
    """Rows that one commit received of one run test, changed or not."""

    rows: Counter[str] = field(default_factory=Counter)
    misfits: int = 0
    dead_letters: int = 0


def commit(
    dataset: Dataset,
    bundles: Sequence[ExecutionBundle],
    stored: Mapping[str, Stored],
    export: Export,
    *,
    fetched_at: datetime,
    settle_hours: float,
    written: Written,
) -> dict[str, Arrived]:
    """Write the bundles into their partitions, durably; returns what arrived by run test key.

    ``stored`` is what the dataset held of the executions when they were planned, ``fetched_at`` a time before any was fetched.

    Raises:
        DestinationError: a partition could not be written; its execution rows, and the partitions after it, are as they were.
    """
    arrived: dict[str, Arrived] = {}
    for partition, group in groupby(sorted(bundles, key=_partition), key=_partition):
        mine = list(group)
        states = {
            bundle.execution.execution_id: export_state(
                bundle, stored.get(bundle.execution.execution_id), fetched_at=fetched_at, settle_hours=settle_hours
            )
            for bundle in mine
        }
        _commit_partition(
            dataset,
            partition,
            mine,
            stored,
            states,
            export,
            fetched_at,
            written,
            arrived.setdefault(partition.run_test_key, Arrived()),
        )
    return arrived


def _commit_partition(
    dataset: Dataset,
    partition: Partition,
    bundles: list[ExecutionBundle],
    stored: Mapping[str, Stored],
    states: Mapping[str, str],
    export: Export,
    fetched_at: datetime,
    written: Written,
    arrived: Arrived,
) -> None:
    fetched = [bundle for bundle in bundles if bundle.is_fetched]
    fetched_ids = [bundle.execution.execution_id for bundle in fetched]
    given_up = {letter.subject_id for bundle in fetched for letter in bundle.dead_letters}
    # What an unproved listing does not name may have been missed: its old rows stay until a listing is proved.
    unproved = given_up.intersection(fetched_ids)
    held = {
        bundle.execution.execution_id: stored[bundle.execution.execution_id].held
        if bundle.execution.execution_id in stored
        else _NOTHING_HELD
        for bundle in bundles
    }
    if fetched:
        calls, evals = calls_frame(fetched, export), evals_frame(fetched, export)
        calls_held = dataset.commit_rows(
            schema.CALLS,
            partition,
            calls.data,
            replaced=fetched_ids,
            kept_calls=given_up,
            kept_executions=unproved,
            written=written,
        )
        listed = {call.call_execution_id for bundle in fetched for call in bundle.listed or ()}
        evals_held = dataset.commit_rows(
            schema.EVALS,
            partition,
            evals.data,
            replaced=fetched_ids,
            kept_calls=calls_of(calls_held, unproved) - listed,
            written=written,
        )
        held |= held_rows(
            {bundle.execution.execution_id: len(bundle.listed or ()) for bundle in fetched}, calls_held, evals_held
        )
        arrived.rows.update(calls=len(calls.data), evals=len(evals.data))
        arrived.misfits += calls.misfits + evals.misfits
    asked = [bundle for bundle in bundles if bundle.is_fetched or bundle.dead_letters]
    if asked:
        errors = errors_frame(asked, export).data
        dataset.commit_rows(
            schema.ERRORS,
            partition,
            errors,
            replaced=[bundle.execution.execution_id for bundle in asked],
            written=written,
        )
        arrived.dead_letters += len(errors)
    verified_at = {
        bundle.execution.execution_id: fetched_at
        if bundle.is_fetched
        else _verified_at(stored.get(bundle.execution.execution_id))
        for bundle in bundles
    }
    executions = executions_frame(bundles, held, states, verified_at, export)
    dataset.commit_rows(
        schema.EXECUTIONS,
        partition,
        executions.data,
        replaced=[bundle.execution.execution_id for bundle in bundles],
        written=written,
    )
    arrived.rows.update(executions=len(bundles))
    arrived.misfits += executions.misfits


def _partition(bundle: ExecutionBundle) -> Partition:
    return Partition(bundle.run_test_key, bundle.date)


def _verified_at(known: Stored | None) -> datetime | None:
    return known.verified_at if known else None
