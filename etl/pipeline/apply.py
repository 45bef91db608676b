"""The steps of an export that change the dataset: rename, mark what is gone, fetch and commit."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from time import monotonic

from etl.dataset.commit import commit, mark_deleted
from etl.dataset.index import update_index
from etl.dataset.places import Places
from etl.dataset.renames import find_renames, rename
from etl.dataset.state import CallReader, StoredState, derive_executions
from etl.errors import SourceError
from etl.extract.crawl import LAG
from etl.extract.executions import read_executions_once
from etl.extract.open_execution import OpenExecution
from etl.extract.plan import Planned, Reason, Route
from etl.extract.settling import ReadStored
from etl.model import schema
from etl.model.findings import Kind
from etl.model.lifecycle import Settlement, StoredCalls, is_held
from etl.model.wording import counted, quoted
from etl.pipeline.buffer import CommitBuffer
from etl.pipeline.context import Run
from etl.pipeline.engine.interface import Crawler
from etl.pipeline.lists import is_run_test, look_up
from etl.pipeline.moved import Lists, look_for
from etl.pipeline.record import Record, is_waiting_row_due
from etl.pipeline.shared_steps import absent_executions, choose_previews, half_written, make_plan
from etl.pipeline.tasks import to_the_end
from etl.settings import RunTest
from etl.transform.drift import Answers
from etl.transform.flatten import FlatBundle, flatten


async def bring_up_to_date(
    run: Run, record: Record, state: StoredState, run_tests: Collection[RunTest], crawler: Crawler, *, is_last: bool
) -> None:
    """Bring the dataset in line with the lists of these run tests, which were just read: rename, mark, fetch.

    Only the last round marks what is gone.
    """
    await _rename(run, record, state)
    if is_last:
        # Not earlier: an execution that is missing from one list may be in a list that is still to come.
        elsewhere: Lists = {}
        for name, gone in (await look_for(run, record, absent_executions(record, state), elsewhere)).items():
            await _mark(run, record, state, name, gone)
        if elsewhere:
            await refresh(run, state)
            await _rename(run, record, state, elsewhere)
        if half_written_ids := half_written(record, state):
            # Their run tests may not be in this run: the last one stands for them in the summary. No list can be wrong
            # about them, so each that does not exist is marked.
            answers = await look_up(run, half_written_ids)
            await _mark(run, record, state, record.run_tests[-1].name, answers.gone)
    planned = make_plan(run, record, state, run_tests)
    if previewed := choose_previews(run, planned):
        run.progress.previews += previewed
        run.notify("lists_first", executions=len(previewed))
        await _fetch(run, record, state, previewed, crawler)
        await refresh(run, state)
        planned = make_plan(run, record, state, run_tests)
    held = _held(run, record, planned)
    later = {item.execution.execution_id for items in held.values() for item in items}
    later |= {item.execution.execution_id for item in planned if item.reason is Reason.SWEEP}
    later |= record.committed  # whole before all others, because lists showed them so
    await _fetch(run, record, state, [item for item in planned if item.execution.execution_id not in later], crawler)
    if held:
        await _fetch_held(run, record, state, held, crawler)


async def sweep(run: Run, record: Record, state: StoredState, crawler: Crawler) -> None:
    """Compare what is swept, once all else is done.

    Not where the API's answers have changed: what they no longer give may be lost from rows then.
    """
    answers = {name: record.answers_of(name) for name in record.planned}
    changed = {name for name, each in answers.items() if each.was_alarm or each.text(is_drift=True)}
    items = [item for item in record.all_planned() if item.reason is Reason.SWEEP and item.run_test_name not in changed]
    if items:
        record.last_step = Kind.NOT_COMPARED
        # One part after the other: each is read once.
        items.sort(key=lambda item: (item.run_test_key, item.stored.place if item.stored else ""))
        await _fetch(run, record, state, items, crawler)
        record.last_step = None


def _held(run: Run, record: Record, planned: Iterable[Planned]) -> dict[str, list[Planned]]:
    """By run test of which the last run said that the answers changed, the executions that only this holds."""
    held: dict[str, list[Planned]] = {}
    for item in planned:
        is_drifting = item.reason is Reason.SETTLING and record.answers_of(item.run_test_name).was_alarm
        if is_drifting and item.stored and is_held(item.execution.unpack(), item.stored, run.settle):
            held.setdefault(item.run_test_name, []).append(item)
    return held


async def _fetch_held(
    run: Run, record: Record, state: StoredState, held: dict[str, list[Planned]], crawler: Crawler
) -> None:
    """Fetch one of each run test, and all others as soon as the answers have their old form again.

    One that shows neither form, because its calls have no such values any more, is followed by another one.
    """
    record.left_alone |= held.keys()
    left = {name: items for name, items in held.items() if not record.answers_of(name).text(is_drift=True)}
    due = {name: items[:1] for name, items in left.items()}
    while due:
        await _fetch(run, record, state, [item for items in due.values() for item in items], crawler)
        for name, items in due.items():
            left[name] = left[name][len(items) :]
            is_told = record.answers_of(name).text(is_drift=True)
            if is_told or any(item.execution.execution_id not in record.committed for item in items):
                del left[name]
            elif not left[name]:
                record.left_alone.discard(name)
        due = {name: items[: None if record.answers_of(name).is_back else 1] for name, items in left.items() if items}


async def refresh(run: Run, state: StoredState) -> None:
    """Update the state with what this run has written."""
    state.index = await to_the_end(partial(update_index, run.dataset, state.index, []))
    derive_executions(state)


async def _rename(run: Run, record: Record, state: StoredState, elsewhere: Lists | None = None) -> None:
    """Let the rows of renamed run tests take the new name; ``elsewhere`` are lists beside those of the run."""
    lists: Lists = {
        test.name: record.lists[test.name].executions for test in record.run_tests if test.name in record.lists
    }
    lists |= elsewhere or {}
    stored = (state.executions.get(execution_id) for ids in lists.values() for execution_id in ids)
    stored_names = {known.run_test_name for known in stored if known and known.has_row}
    gone = [name for name in stored_names - lists.keys() if await _is_gone(run, record, name)]
    renames = find_renames(state, lists, gone)
    if not renames:
        return
    pairs = Counter[tuple[str, str]]()
    for part, names in renames.items():
        await to_the_end(partial(rename, run.dataset, part, names, run.stamp()))
        known = [(state.executions[execution_id], new) for execution_id, new in names.items()]
        pairs.update((stored.run_test_name, new) for stored, new in known if stored.has_row)
    moved = {old for old, _ in pairs}
    sources = {to: {to} - moved | {old for old, new in pairs if new == to} for _, to in pairs}
    answers = {
        to: max(map(record.answers_of, names), key=lambda each: (each.was_alarm, each.told))
        for to, names in sources.items()
    }
    record.answers |= {new: Answers(before.told, before.was_alarm) for new, before in answers.items()}
    exported = {run_test.name for run_test in (*record.run_tests, *run.settings.configured)}
    for (old, new), count in sorted(pairs.items()):
        if new == old:
            continue
        if new in exported or not run.settings.configured:
            what = f"was called {quoted(old)}" if old in gone else f"got {counted(count, 'execution')} of {quoted(old)}"
            record.find(Kind.RENAMED, new, f"{what}, and its rows now have the new name")
        else:
            text = f"{counted(count, 'execution')} now {'belongs' if count == 1 else 'belong'} to {quoted(new)}"
            record.find(Kind.NOT_EXPORTED, old, f"{text}, which run_tests does not name")
        run.notify("renamed", run_test=new, before=old)
    await refresh(run, state)


async def _is_gone(run: Run, record: Record, name: str) -> bool:
    """Whether the API has no run test of this name any more, whose list was not read; False if it did not say."""
    if name in record.not_found:
        return True
    if not run.settings.run_tests:  # all of them were listed
        return name not in {run_test.name for run_test in record.run_tests}
    with suppress(SourceError):
        return not await is_run_test(run.client, name)
    return False


async def _mark(
    run: Run, record: Record, state: StoredState, name: str, deleted: Iterable[str], places: Places | None = None
) -> None:
    """Mark the executions and all their rows; ``places`` knows where executions lie that this run has written."""
    part_of = places.part_of if places else state.part_of
    parts = {execution_id: part for execution_id in deleted if (part := part_of(execution_id))}

    async def mark() -> None:
        marked = await to_the_end(partial(mark_deleted, run.dataset, parts, run.stamp()))
        record.deleted[name] += marked
        if marked:
            run.notify("deleted", run_test=name, executions=marked)

    if parts:
        # The count and the event belong to the marks: a cancelled run must still report what it marked.
        await to_the_end(mark())


async def _fetch(run: Run, record: Record, state: StoredState, planned: list[Planned], crawler: Crawler) -> None:
    """Fetch what is planned and commit it as it arrives; what has arrived is committed even when the crawl fails."""
    is_preview = any(item.route is Route.PREVIEW for item in planned)
    places = Places(run.dataset, state, now=run.by_source(run.started_at))
    fetched_at = run.after_stamps()  # later than any rename's stamp: renamed rows must not seem fetched by this run

    async def save(bundles: list[FlatBundle]) -> None:
        if is_preview:
            run.progress.previewed += len(bundles)
            await save_of([bundle for bundle in bundles if bundle.part_of is not None], is_preview=True)
            bundles = [bundle for bundle in bundles if bundle.part_of is None]
        await save_of(bundles, is_preview=False)

    async def save_of(bundles: list[FlatBundle], *, is_preview: bool) -> None:
        if not bundles:
            return
        # Counted before the commit, which empties the bundles: a row that comes twice in a run, first from its lists,
        # is new or changed once.
        again = (bundle for bundle in bundles if bundle.execution.execution_id in record.previewed)
        rows_again = sum(len(bundle.calls.values) for bundle in again)
        settlement = _settlement(run, record, fetched_at)
        answers_of = (lambda _: Answers()) if is_preview else record.answers_of  # these executions arrive once more
        commit_bundles = partial(commit, run.dataset, bundles, state.executions, places.parts_of, run.stamp())
        arrived = await to_the_end(partial(commit_bundles, settlement, answers_of))
        if is_preview:
            record.previewed |= {bundle.execution.execution_id for bundle in bundles}
        else:
            record.note_arrival(arrived)
            run.dataset.written.rows[schema.CALLS.name] -= rows_again
            _note_commit(run, record, state, bundles)

    buffer = CommitBuffer(
        save,
        interval_seconds=run.settings.export.commit_interval_seconds,
        arrived=lambda listed_before: crawl.arrived(listed_before),  # noqa: PLW0108 it is made below
    )
    due = (item for item in planned if item.is_fetched)
    crawl = crawler(due, buffer.add, _reader_of_calls(run, state))
    run.progress.crawl_began_at = run.progress.crawl_began_at or monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            committing = group.create_task(buffer.commit_on_time())
            for item in filter(is_waiting_row_due, planned):
                await buffer.add(flatten(OpenExecution(item).bundle_without_calls()))
            await crawl.run()
            committing.cancel()
    finally:
        record.fetched.add(crawl.counts)
        await buffer.flush()
    await _mark_deleted_since(run, record, state, planned, crawl.counts.deleted_executions, places)


def _settlement(run: Run, record: Record, fetched_at: datetime) -> Settlement:
    """What decides whether late data may still come; made for each commit, since answers correct the source's clock."""
    return Settlement(
        fetched_at=fetched_at,
        now=min(run.by_source(run.started_at), run.started_at),
        settle=run.settle,
        complete_before=record.complete_before(),
        detail_suffices=run.policy.detail_suffices,
    )


def _note_commit(run: Run, record: Record, state: StoredState, bundles: Iterable[FlatBundle]) -> None:
    """Note which executions are in the dataset now, and which of them were final, and tell it."""
    whole = {bundle.execution.execution_id: bundle for bundle in bundles if bundle.part_of is None}
    record.committed |= whole.keys()
    compared = {key for key, bundle in whole.items() if bundle.is_fetched and not bundle.dead_letters}
    known = {key: state.executions[key] for key in compared & state.executions.keys()}
    record.fetched.compared |= {key: "" for key, each in known.items() if each.is_final}
    fetched = {item.execution.execution_id for item in record.all_planned() if item.is_awaited}
    run.progress.committed_executions = len(fetched & record.committed)
    seconds = run.progress.seconds_left(monotonic())
    run.notify(
        "committed",
        executions=len(whole),
        files=run.dataset.written.files,
        bytes=run.dataset.written.size_bytes,
        requests_left=run.progress.planned_requests - run.progress.done_requests,
        seconds_left=None if seconds is None else round(seconds),
    )


async def _mark_deleted_since(
    run: Run, record: Record, state: StoredState, planned: Iterable[Planned], deleted: Collection[str], places: Places
) -> None:
    """Mark planned executions that the API no longer had when they were fetched, unless their list still has them."""
    ids_of: dict[str, set[str]] = {}
    for item in planned:
        if item.execution.execution_id in deleted:
            ids_of.setdefault(item.run_test_name, set()).add(item.execution.execution_id)
    for name, ids in sorted(ids_of.items()):
        listed = await _listed_now(run, name, ids)
        if listed and record.last_step is None:
            record.find(Kind.NOT_FETCHED, name, f"the API answered 404 for {counted(len(listed), 'execution')}, {LAG}")
        await _mark(run, record, state, name, ids - listed, places)


async def _listed_now(run: Run, name: str, unknown: set[str]) -> set[str]:
    """Which of the executions that the API does not know by their ids the run test's list still has.

    Where the list cannot be read, it may have all of them.
    """
    with suppress(SourceError):
        latest = await read_executions_once(run.client, name, page_limit=run.settings.api.page_limit)
        return unknown & latest.executions.keys()
    return unknown


def _reader_of_calls(run: Run, state: StoredState) -> ReadStored:
    """Reads what the dataset holds of a planned execution's calls, one at a time."""
    turn = asyncio.Lock()
    reader = CallReader(run.dataset)

    async def stored(item: Planned) -> StoredCalls:
        execution_id = item.execution.execution_id
        if (part := state.part_of(execution_id)) is None:
            return StoredCalls()
        async with turn:
            return await asyncio.to_thread(reader.read, part, execution_id)

    return stored
