"""What became of the dataset between two runs: rows that came back from a backup, and rows that are gone.

The index of the last run tells, and a run saves another at its end.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain

from etl.load.accept import accept_damaged
from etl.load.index import update_index, write_index
from etl.load.layout import Part
from etl.load.relocate import mark_deleted
from etl.load.state import StoredState, load_missing
from etl.pipeline.record import Record
from etl.pipeline.run import Run
from etl.pipeline.summary import Summary
from etl.pipeline.tasks import to_the_end


def find_restored(record: Record, state: StoredState) -> dict[tuple[Part, datetime], set[str]]:
    """The executions whose row was restored from before they were deleted at the source, unless a list has them again.

    By part, and by when they were deleted. The state says already what it will say once they are marked.
    """
    found, living = {}, record.living_ids()
    for (part, deleted_at), execution_ids in sorted(state.index.restored().items()):
        if restored := execution_ids - living:
            found[part, deleted_at] = restored
            load_missing({part.run_test_key}, state)
            executions = state.executions[part.run_test_key]
            for each in restored & executions.keys():
                executions[each] = replace(executions[each], deleted_at=deleted_at, has_letters=False)
    return found


async def mark_restored(run: Run, record: Record, state: StoredState) -> None:
    """Mark these executions as deleted again.

    Raises:
        DestinationError: something could not be read or written; the next run does it.
    """

    async def mark(part: Part, deleted_at: datetime, execution_ids: set[str]) -> None:
        marking = partial(mark_deleted, run.dataset, part, execution_ids, deleted_at=deleted_at, stamp=run.stamp())
        await to_the_end(marking)
        key = part.run_test_key
        record.deleted_elsewhere[key] = record.deleted_elsewhere.get(key, 0) + len(execution_ids)

    for found, execution_ids in find_restored(record, state).items():
        await to_the_end(mark(*found, execution_ids))


def save_index(run: Run, record: Record, summary: Summary) -> None:
    """Save what the dataset holds now, and tell what it has lost; deletions that are accepted are forgotten.

    Raises:
        DestinationError: something could not be read or written.
    """
    if record.index is None:
        return
    index = update_index(run.dataset, record.index, [])
    index.miss(record.committed_of())
    revived = index.deleted.keys() & (record.committed | record.living_ids())
    index.deleted = {each: at for each, at in index.deleted.items() if each not in revived}
    index.is_saved = index.is_saved and not revived
    damaged = index.damaged()
    if summary.failure:  # the next run comes to what this one had still to do
        damaged = record.not_planned(damaged)
    # What a file held that was set aside in this run is told once before it can be accepted.
    if run.accept_deletions and not (summary.failure or summary.quarantined):
        accepted = _to_accept(run, record, damaged)
        accept_damaged(run.dataset, index, accepted, run.stamp())
        summary.accepted = sum(map(len, accepted.values()))
        index = update_index(run.dataset, index, []) if accepted else index
        damaged = index.damaged()
        forgotten = _to_accept(run, record, index.lost)
        left = {key: ids - forgotten.get(key, set()) for key, ids in index.lost.items()}
        index.lost = {key: ids for key, ids in left.items() if ids}
        for execution_id in chain(*forgotten.values()):
            index.vouched.pop(execution_id, None)
        summary.forgotten = sum(map(len, forgotten.values()))
        index.is_saved = index.is_saved and not forgotten
    names = {each.key: each.name for each in run.settings.configured} | record.names()
    for told, executions in ((summary.lost, index.lost), (summary.damaged, damaged)):
        told.update({key: (names.get(key, key), len(ids)) for key, ids in sorted(executions.items())})
    waiting = record.waiting_ids() if damaged else set[str]()
    summary.damaged_unfinished = {key for key, ids in damaged.items() if ids & waiting}
    if not index.is_saved:
        write_index(run.dataset.files, index)


def _to_accept(run: Run, record: Record, executions: Mapping[str, AbstractSet[str]]) -> dict[str, set[str]]:
    """Those of the executions, by key, that this run is about and had nothing to do with: what it planned went during the run."""
    return {key: ids for key, ids in record.not_planned(executions).items() if _may_accept(run, record, key)}


def _may_accept(run: Run, record: Record, key: str) -> bool:
    """Whether the run is about all of this run test, and knows that no list has more of it than what was planned."""
    if run.settings.since is not None:
        return False
    if key not in record.names():
        return not run.settings.is_part
    found = record.lists.get(key)
    return key in record.not_found or (found is not None and found.is_complete)
