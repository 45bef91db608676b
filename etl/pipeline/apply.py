"""The steps of an export that change the dataset: relocate stored rows, mark what was deleted, fetch and commit."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import Any

from etl.extract.executions import look_up
from etl.extract.open_execution import OpenExecution
from etl.extract.plan import Planned, most_worth
from etl.extract.settling import Stored
from etl.load.commit import commit
from etl.load.doubled_calls import find_doubled_calls, remove_calls
from etl.load.index import update_index
from etl.load.layout import Part
from etl.load.places import Places
from etl.load.relocate import drop, find_deleted, find_untold, mark_deleted, move, renew
from etl.load.state import StoredState, forget_the_future
from etl.load.stored_calls import StoredCalls
from etl.model.lifecycle import LONG_AGO, ExportState, Settlement, StoredExecution
from etl.model.wording import counted
from etl.pipeline.buffer import CommitBuffer
from etl.pipeline.lists import Lists, independent, may_be_of_another_workspace
from etl.pipeline.record import Record, VanishedCounts, is_waiting_row_due
from etl.pipeline.run import Run
from etl.pipeline.survey import (
    Survey,
    give_one_place_each,
    load,
    make_plan,
    read_missing_payloads,
)
from etl.pipeline.tasks import to_the_end
from etl.transform.flatten import FlatBundle, flatten


async def put_in_place(run: Run, record: Record, found: Survey) -> StoredState:
    """Move and drop rows until every stored execution lies in one place, the right one; returns the state after that."""
    if not (found.drops or found.moves or found.state.surplus or any(found.state.late.values())):
        return found.state
    names = record.names()
    drops = [*found.drops.items(), *found.state.surplus.items()]
    deleted = await to_the_end(partial(find_deleted, run.dataset, found.state, drops))
    for (part, deleted_at), execution_ids in deleted.items():
        marking = partial(mark_deleted, run.dataset, part, execution_ids, deleted_at=deleted_at, stamp=run.stamp())
        await to_the_end(marking)
    for part, execution_ids in find_untold(found.state, drops).items():
        await to_the_end(partial(renew, run.dataset, part, execution_ids, run.stamp()))
    for part, execution_ids in drops:
        await to_the_end(partial(drop, run.dataset, part, execution_ids))
        record.dropped += len(execution_ids)
    if found.moves:
        # A row that moves is newer than before: a call that stands twice must be in one place by then, since the newest counts.
        await part_moved_calls(run, record, found.state)

    async def relocate(source: Part, key: str, execution_ids: set[str]) -> None:
        moving = partial(move, run.dataset, source, key, execution_ids, run_test_name=names[key], stamp=run.stamp())
        await to_the_end(moving)
        record.moved[key] += len(execution_ids)
        run.notify("moved", run_test=names[key], executions=len(execution_ids), source=source.run_test_key)

    for (source, key), execution_ids in sorted(found.moves.items()):
        await to_the_end(relocate(source, key, execution_ids))
    state = await to_the_end(partial(load, run, record, set_aside=True))
    forget_the_future(state, run.by_source(run.clock()))
    await read_missing_payloads(run, record, state)
    return state


async def mark_vanished(run: Run, record: Record, found: Survey, state: StoredState) -> None:
    """Request each vanished execution by its id, and mark those that no longer exist as deleted."""
    names = record.names()

    async def mark(key: str, deleted: set[str], counts: VanishedCounts) -> None:
        await to_the_end(partial(_mark_deleted, run, key, deleted, state))
        counts.deleted = len(deleted & state.executions[key].keys())
        run.notify("deleted", run_test=names[key], executions=counts.deleted)

    for key, vanished in found.vanished.items():
        found_by_id = await look_up(run.client, vanished, workers=run.settings.api.concurrency)
        existing = vanished - found_by_id.deleted - found_by_id.unknown
        counts = record.vanished[key] = VanishedCounts(
            not_listed=len(existing),
            not_answered=len(found_by_id.unknown),
            unfinished=sum(_is_unfinished(state.executions[key].get(each)) for each in existing),
        )
        if found_by_id.deleted:
            # With what is noted of it: a run that is cancelled must still tell what was marked.
            await to_the_end(mark(key, found_by_id.deleted, counts))


def _is_unfinished(known: StoredExecution | None) -> bool:
    """Whether something of it was never exported: without a row, it has dead letters alone."""
    return known is None or known.export_state in {ExportState.INCOMPLETE, ExportState.WAITING}


async def mark_left_behind(run: Run, record: Record, found: Survey) -> None:
    """Request each execution that is left behind by its id, and mark those that no longer exist as deleted.

    Before the others move away: then nothing would tell a later run that they lie there.
    """
    for key, left in found.left_behind.items():
        await _mark_left_behind(run, record, key, left, found.state)


async def _mark_left_behind(run: Run, record: Record, key: str, left: set[str], state: StoredState) -> None:
    looked_up = await look_up(run.client, sorted(left), workers=run.settings.api.concurrency)
    record.necessary_requests += len(left)
    deleted = looked_up.deleted

    async def mark() -> None:
        await to_the_end(partial(_mark_deleted, run, key, deleted, state))
        record.deleted_elsewhere[key] = record.deleted_elsewhere.get(key, 0) + len(deleted)
        if key in record.left_behind:
            record.left_behind[key] -= len(deleted)
        run.notify("deleted", run_test=key, executions=len(deleted))

    if deleted:
        await to_the_end(mark())
    if looked_up.unknown:
        executions = counted(len(looked_up.unknown), "execution")
        then = "run again with --accept-deletions to try again"
        if not run.accept_deletions:
            then = "the next run tries again, one with --accept-deletions for the last time"
        record.not_looked_up.append(f"run_test={key}: {executions} left there could not be looked up; {then}")
    is_settled = run.accept_deletions or not looked_up.unknown
    (record.asked_for if is_settled else record.ask_again).add(key)


def _mark_deleted(run: Run, key: str, deleted: set[str], state: StoredState) -> None:
    places = state.orphans[key] | {execution_id: known.place for execution_id, known in state.executions[key].items()}
    for place in sorted({places[execution_id] for execution_id in deleted & places.keys()}):
        mark_deleted(
            run.dataset,
            Part(key, place),
            {execution_id for execution_id in deleted if places.get(execution_id) == place},
            deleted_at=run.by_source(run.started_at),
            stamp=run.stamp(),
        )


async def fetch_early(run: Run, record: Record, state: StoredState, lists: Lists) -> None:
    """Fetch what is new and changed of the run tests that are listed, as long as the list of another is held up.

    The rest is worth less than what the other may bring.

    Raises: as ``fetch``.
    """
    while await lists.are_held_up():
        forget_the_future(state, run.by_source(run.clock()))  # not before an answer has told the source's time
        read = lists.read
        give_one_place_each(run, record, state)
        keys = set() if may_be_of_another_workspace(run, record, state) else independent(record, state)
        if planned := most_worth(make_plan(run, record, state, keys=keys)):
            await fetch(run, record, planned, state, is_over=lambda: lists.read > read)  # noqa: B023 called in this turn
        await lists.another(read)


async def fetch(
    run: Run,
    record: Record,
    planned: list[Planned],
    state: StoredState,
    *,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Fetch what is planned and commit it as it arrives; what has arrived whole is committed even when the crawl fails.

    Nothing more is begun once it ``is_over``.

    Raises:
        DestinationError: a commit failed.
        KeyRefusedError, SourceUnavailableError: the crawl cannot go on.
    """
    places = Places(run.dataset, state, now=run.by_source(run.started_at))
    late = _late(record, planned, state)

    async def save(bundles: list[FlatBundle]) -> None:
        arrived = await to_the_end(
            partial(
                commit,
                run.dataset,
                bundles,
                state,
                places.parts_of,
                run.stamp(),
                Settlement(
                    fetched_at=run.by_source(run.started_at),
                    now=min(run.by_source(run.started_at), run.started_at),
                    settle_hours=run.settings.export.settle_hours,
                    late=late,
                    vouched=state.index.vouched,
                ),
            )
        )
        record.arrived.append(arrived)
        whole = {bundle.execution.execution_id for bundle in bundles if bundle.part_of is None}
        record.committed |= whole
        _notify_committed(run, len(whole))

    buffer = CommitBuffer(
        save,
        run.dataset.written,
        interval_seconds=run.settings.export.commit_interval_seconds,
        arrived=lambda listed_before: crawl.arrived(listed_before),  # noqa: PLW0108 it is made below
    )

    def due() -> Iterator[Planned]:
        for item in planned:
            if item.is_fetched and not is_over():
                record.begun.append(item)
                yield item

    read = _reader_of_stored_calls(run, state)
    crawl = run.engine.crawl(
        due(),
        buffer.add,
        Stored(
            evals_by_call=partial(read, StoredCalls.evals_by_call, {}),
            rows=partial(read, StoredCalls.rows, {}),
            letters=partial(read, StoredCalls.letters, frozenset()),
            unlisted_calls=partial(read, StoredCalls.unlisted_calls, 0),
        ),
        expected_calls=sum(item.estimated_calls for item in planned if item.is_fetched),
    )
    run.progress.add(crawl, monotonic())
    try:
        async with asyncio.TaskGroup() as group:
            committing = group.create_task(buffer.commit_on_time())
            for item in filter(is_waiting_row_due, planned):
                record.begun.append(item)
                await buffer.add(flatten(OpenExecution(item).bundle(is_listed=False)))
            await crawl.run()
            committing.cancel()
    finally:
        record.fetched.add(crawl.counts)
        await buffer.flush()


def _late(record: Record, planned: Iterable[Planned], state: StoredState) -> set[str]:
    """Executions that no first export brings: their run test was complete once, or they began after some of it was exported.

    So may one of which something was stored under another key, as after a new name.
    """
    complete = record.complete_before().union(record.moved, *record.in_two_lists)
    new = [item for item in planned if item.stored is None]
    exported_from = {
        key: min(
            (each.verified_at or each.exported_at or LONG_AGO for each in state.executions[key].values()), default=None
        )
        for key in {item.run_test_key for item in new} - complete
    }
    return {
        item.execution.execution_id
        for item in new
        if item.run_test_key in complete
        or ((first := exported_from[item.run_test_key]) and (item.started_at or first) >= first)
    }


async def part_moved_calls(run: Run, record: Record, state: StoredState) -> None:
    """Remove the calls that moved to another execution from where they were, once they are stored there.

    Raises:
        DestinationError: something could not be written; the next run completes it.
    """
    if not (run.dataset.written.files or record.fetched.moved or state.may_hold_calls_twice()):
        return
    record.index = await to_the_end(partial(update_index, run.dataset, state.index, []))
    now = run.by_source(run.clock())
    doubled = await to_the_end(partial(find_doubled_calls, run.dataset, record.index, record.fetched.moved, now=now))
    for part, calls in sorted(doubled.items()):
        resolved = await to_the_end(partial(remove_calls, run.dataset, part, calls, run.stamp()))
        record.moved_calls += sum(map(len, calls.values()))
        for execution_id, call_ids in calls.items():
            for call_id in call_ids:  # else a second look finds it in its new place again
                record.fetched.moved.pop((execution_id, call_id), None)
        record.resolve(part.run_test_key, resolved)


def _reader_of_stored_calls(run: Run, state: StoredState) -> Callable[..., Awaitable[Any]]:
    """A function that gives what a method of ``StoredCalls`` says of an execution, or a value for one that has no rows."""
    turn, stored = asyncio.Lock(), StoredCalls(run.dataset)

    async def read(method: Callable[[StoredCalls, Part, str], Any], nothing: Any, item: Planned) -> Any:
        key, execution_id = item.run_test_key, item.execution.execution_id
        place = item.stored.place if item.stored else state.stray_places[key].get(execution_id)
        if place is None:
            return nothing
        async with turn:
            return await asyncio.to_thread(method, stored, Part(key, place), execution_id)

    return read


def _notify_committed(run: Run, executions: int) -> None:
    progress = run.progress
    progress.committed_executions += executions
    seconds = progress.seconds_left(monotonic())
    run.notify(
        "committed",
        executions=executions,
        files=run.dataset.written.files,
        bytes=run.dataset.written.size_bytes,
        requests_left=progress.planned_requests - progress.done_requests,
        seconds_left=None if seconds is None else round(seconds),
    )
