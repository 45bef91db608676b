"""``plan`` and ``export``: one list of steps with two endings.

Both survey: discover → load → list → compare. A plan then works out what an export would do; an export puts stored rows in their
places, marks what was deleted, plans, fetches and commits, and always leaves a summary behind. While the list of one run test is
held up, it fetches what the others need.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec

from etl.errors import DestinationError, ExporterError, InterruptedRunError, LockHeldError, TimeLimitError, leaves
from etl.extract.plan import Planned, requests_to_fetch
from etl.extract.purpose import Purpose
from etl.extract.transport import Traffic
from etl.load.attempt import Attempt, note_attempt, note_failure, read_attempt
from etl.load.identity import identify, read_identity
from etl.load.last_run import LastRun, read_last_run
from etl.load.layout import INDEX, LAST_RUN
from etl.load.relocate import as_if_moved
from etl.load.state import StoredState, load_missing
from etl.load.warehouse.last_load import last_load_into
from etl.load.warehouse.target import module_for
from etl.model import schema
from etl.model.lifecycle import CLOCKS_DIFFER
from etl.pipeline.apply import fetch, fetch_early, mark_left_behind, mark_vanished, part_moved_calls, put_in_place
from etl.pipeline.lists import read_again_where_some_were_gone, start_lists
from etl.pipeline.load_warehouse import load_warehouse
from etl.pipeline.lost_rows import find_restored, mark_restored, save_index
from etl.pipeline.progress import Notify, Progress, say_nothing
from etl.pipeline.record import Record, summarize
from etl.pipeline.run import Run, begin
from etl.pipeline.run_test_summary import RunTestSummary
from etl.pipeline.summary import Summary
from etl.pipeline.survey import discover_and_load, load, make_plan, survey
from etl.pipeline.tasks import held, to_the_end, until_stopped
from etl.settings import Settings
from etl.transform.frames import frame_of

_NO_DATE = "the source's answers have no usable Date: this machine's clock alone decided what is final; keep it right"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an export would do: everything listed, most valuable first, and what could not be listed.

    ``requests_by_purpose`` are those of the lists, too; ``requests`` are all others. ``seconds`` is how long the rate limit makes
    it take if it begins now; None when no limit is known.
    """

    planned: Sequence[Planned] = field(repr=False)  # asyncio.Runner formats its result, whatever its size
    run_tests: Sequence[RunTestSummary]
    requests_by_purpose: Mapping[Purpose, int]
    requests_per_minute: int | None
    seconds: float | None = None
    undiscovered: Sequence[str] = ()

    @property
    def requests(self) -> int:
        """What it takes to fetch what is planned."""
        return sum(self.requests_by_purpose.values()) - self.requests_by_purpose[Purpose.LIST]

    @property
    def problems(self) -> list[str]:
        """One line for each thing that could not be listed."""
        return [*self.undiscovered, *(problem for run_test in self.run_tests for problem in run_test.problems())]


async def plan(
    settings: Settings,
    *,
    full_refresh: bool = False,
    accept_deletions: bool = False,
    notify: Notify | None = None,
    clock: Callable[[], datetime] | None = None,
) -> Plan:
    """What ``export`` would fetch now, and why. Lists the executions; changes nothing.

    Raises:
        ConfigurationError, KeyRefusedError, SourceUnavailableError, DestinationError: as ``export`` would end.
    """
    run = begin(
        settings,
        full_refresh=full_refresh,
        accept_deletions=accept_deletions,
        progress=Progress(),
        notify=notify or say_nothing,
        clock=clock,
    )
    record = Record(settings.run_tests, last_attempt=await asyncio.to_thread(_last_attempt, run))
    read_identity(run.dataset.files)
    state = await asyncio.to_thread(load, run, record, set_aside=False) if settings.run_tests else None
    try:
        async with run.client:
            if state is None:
                state = await discover_and_load(run, record, set_aside=False)
            record.before = await _last_run(run, record)
            async with asyncio.TaskGroup() as group:
                start_lists(group, run, record, state)
            find_restored(record, state)
            found = await survey(run, record, state)
            load_missing({source.run_test_key for source, _ in found.moves}, found.state)
            look_ups = found.look_ups()
            as_if_moved(found.state, found.moves)
            planned = make_plan(run, record, found.state)
    except* ExporterError as group:
        raise _reason_to_stop(group) from None
    expected = requests_to_fetch(planned, page_limit=settings.api.page_limit)
    # The export lists everything once more, and asks for each execution that is in no list any more.
    expected[Purpose.LIST] = run.client.traffic.requests + look_ups
    quota = run.client.quota
    seconds = quota.seconds_for(sum(expected.values()), asyncio.get_running_loop().time())
    return Plan(
        planned=planned,
        run_tests=record.run_test_summaries(is_cut_short=False, settled_before=run.settled_before(run.clock())),
        requests_by_purpose=expected,
        requests_per_minute=quota.requests_per_minute,
        seconds=seconds,
        undiscovered=record.discovered.problems if record.discovered else (),
    )


async def export(
    settings: Settings,
    *,
    full_refresh: bool = False,
    accept_deletions: bool = False,
    progress: Progress | None = None,
    notify: Notify | None = None,
    stop: asyncio.Future[InterruptedRunError] | None = None,
    clock: Callable[[], datetime] | None = None,
) -> Summary:
    """Bring the dataset up to date with the API.

    Once it has asked the API it always leaves a summary behind, unless it is cancelled: see its ``exit_code`` and ``problems``.
    ``stop`` ends the run early; everything that had arrived whole is committed. ``full_refresh`` fetches final executions, too.
    ``accept_deletions`` believes that many executions or calls were deleted at once. At its end the run loads the dataset into the
    warehouse of the settings, if they name one.

    Raises:
        ConfigurationError, DestinationError: the dataset's folder cannot be used as configured, or the package for the warehouse
            is not installed; nothing was asked of the API.
        LockHeldError: another export is running on this dataset.
    """
    run = begin(
        settings,
        full_refresh=full_refresh,
        accept_deletions=accept_deletions,
        progress=progress or Progress(),
        notify=notify or say_nothing,
        clock=clock,
    )
    files = run.dataset.files
    if settings.warehouse.url:
        module_for(settings.warehouse.url)
    try:
        await to_the_end(files.prepare)
        async with held(files.lock(run.started_at, is_stopped=lambda: stop is not None and stop.done())):
            await to_the_end(files.sweep_staging)
            await to_the_end(partial(identify, files, run.started_at))
            last = await to_the_end(partial(_last_attempt, run))
            begun = Attempt(started_at=run.started_at, export_run_id=run.export_run_id)
            await to_the_end(partial(note_attempt, files, begun))
            return await _export_alone(run, stop, last)
    except (LockHeldError, DestinationError) as error:  # one that comes later is told by the summary
        if stop is not None and stop.done():
            raise stop.result() from None
        if isinstance(error, LockHeldError):
            raise
        if (silence := await to_the_end(partial(note_failure, files, error, run.started_at))) is not None:
            raise DestinationError(f"{error}; {silence}") from error
        raise


def _last_attempt(run: Run) -> Attempt | None:
    """The note that the run before left. One that cannot be read may be that of a run that was lost, so it counts as one."""
    try:
        return read_attempt(run.dataset.files, note=lambda _: None)
    except DestinationError:
        return Attempt(started_at=run.started_at)


async def _export_alone(run: Run, stop: asyncio.Future[InterruptedRunError] | None, last: Attempt | None) -> Summary:
    """Export as the holder of the lock; ``last`` is the note of the run before.

    Raises:
        DestinationError: the dataset cannot be read, or was written by a newer version; nothing was asked of the API.
    """
    settings, record = run.settings, Record(run.settings.run_tests, last_attempt=last)
    state = await to_the_end(partial(load, run, record, set_aside=True)) if settings.run_tests else None
    run.notify("run_started", export_run_id=run.export_run_id, dataset=settings.destination.path)
    failure: ExporterError | None = None
    bug: BaseException | None = None
    try:
        async with run.client:
            limit = _time_limit(settings)
            if limit is not None:
                run.client.gate.run_ends_at = asyncio.get_running_loop().time() + limit[0]
            await until_stopped(_export(run, record, state), stop, limit=limit)
    except* ExporterError as group:
        failure = _reason_to_stop(group)
    except* Exception as group:  # noqa: BLE001 recorded here, raised below
        bug = next(leaves(group))
        failure = ExporterError(f"a bug: {type(bug).__name__}: {bug}")
    summary = await _conclude(run, record, failure)
    if settings.warehouse.url and not isinstance(failure, InterruptedRunError | DestinationError) and bug is None:
        await _load(run, summary, stop)
    if settings.warehouse.url:
        place = settings.warehouse.place or ""
        last_load = await to_the_end(partial(last_load_into, run.dataset.files, place, summary.counts_from))
        summary.warehouse_loaded_at = last_load.loaded_at or datetime.fromtimestamp(0, UTC)
    details = {k: v for k, v in summary.as_json().items() if k not in ("run_tests", "receipt", "dataset", "version")}
    run.notify("run_finished", **details)
    if bug is not None:
        raise bug
    return summary


async def _load(run: Run, summary: Summary, stop: asyncio.Future[InterruptedRunError] | None) -> None:
    """Load the dataset into the warehouse; a failure is the summary's, and neither the dataset's nor the next load's."""

    def go_on(*_: int) -> None:
        if stop is not None and stop.done():
            raise stop.result()

    section, accepts = run.settings.warehouse, run.accept_deletions
    work = partial(
        load_warehouse,
        section,
        run.dataset,
        summary.counts_from,
        accept_deletions=accepts,
        on_progress=go_on,
        on_wait=go_on,
    )
    try:
        summary.load = await to_the_end(work)
    except ExporterError as error:
        summary.load_failure = error


async def _export(run: Run, record: Record, state: StoredState | None) -> None:
    async with run.engine:
        if state is None:
            state = await discover_and_load(run, record, set_aside=True)
        record.before = await _last_run(run, record)
        record.completed_files = await to_the_end(run.dataset.complete)
        async with asyncio.TaskGroup() as group:
            lists = start_lists(group, run, record, state)
            await fetch_early(run, record, state, lists)
        await mark_restored(run, record, state)
        found = await survey(run, record, state)
        await mark_left_behind(run, record, found)
        state = await put_in_place(run, record, found)
        await mark_vanished(run, record, found, state)
        await fetch(run, record, make_plan(run, record, state), state)
        await part_moved_calls(run, record, state)
        await read_again_where_some_were_gone(run, record)


async def _last_run(run: Run, record: Record) -> LastRun | None:
    """What the run before left; None where it cannot be read, which the end of the run tells."""
    try:
        return await to_the_end(partial(read_last_run, run.dataset.files, note=record.ignored.append))
    except DestinationError as error:
        record.last_run_error = error
        return None


def _time_limit(settings: Settings) -> tuple[float, TimeLimitError] | None:
    """After how many seconds the run ends, and what it says then."""
    minutes = settings.export.max_runtime_minutes
    if minutes is None:
        return None
    return minutes * 60, TimeLimitError(
        f"stopped after {minutes:g} minutes ([export] max_runtime_minutes); the next run fetches the rest"
    )


def _of_the_clocks(traffic: Traffic) -> list[str]:
    """What is to be noticed of the source's clock, beside ours."""
    offset = traffic.clock_offset
    if offset is None:
        return [_NO_DATE] if traffic.received_bytes else []
    if abs(offset) <= CLOCKS_DIFFER:
        return []
    minutes, way = abs(offset) // timedelta(minutes=1), "behind" if offset > timedelta(0) else "ahead of"
    return [f"this machine's clock is {minutes:,} min {way} that of the source: set the one that is wrong"]


async def _conclude(run: Run, record: Record, failure: ExporterError | None) -> Summary:
    """Save the summary: a row of the runs table, and the JSON of the last run."""
    summary = summarize(run, record, failure=failure, finished_at=run.clock())
    before = record.before or await _last_run(run, record)
    summary.ignored = [*record.ignored, *_of_the_clocks(run.client.traffic)]
    saves: list[Callable[[Run, Summary], None]] = [_save_row, _save_document]
    if before is None:
        summary.failure = summary.failure or record.last_run_error
        saves.pop()  # a new document would forget what was complete
        before = LastRun()
    else:
        summary.is_first = before.export_run_id is None and record.last_attempt is None
    before = before.after(record.last_attempt)
    if record.index and not record.index.is_there and any(before.last_complete_at.values()):
        before = before.doubted()
        summary.ignored.append(
            f"{run.dataset.files.where(INDEX)} was missing, damaged or of another version: rows may have gone before it"
        )
    try:
        await to_the_end(partial(save_index, run, record, summary))
    except DestinationError as error:
        summary.failure = summary.failure or error
    summary.carry_on(before, run.settings)
    for save in saves:
        try:
            await to_the_end(partial(save, run, summary))
        except DestinationError as error:
            summary.failure = summary.failure or error
            summary.carry_on(before, run.settings)
            if save is _save_document:  # its row does not know yet that the run failed
                with suppress(DestinationError):
                    await to_the_end(partial(_save_row, run, summary))
    return summary


def _save_row(run: Run, summary: Summary) -> None:
    row = summary.as_row(msgspec.json.encode(summary.as_json()["run_tests"]).decode())
    frame = frame_of(schema.RUNS_TABLE, [row])
    run.dataset.record_run(summary.started_at.astimezone(UTC).date(), summary.export_run_id, frame)


def _save_document(run: Run, summary: Summary) -> None:
    document = msgspec.json.format(msgspec.json.encode(summary.as_json()), indent=2)
    run.dataset.files.publish(LAST_RUN, document + b"\n")


def _reason_to_stop(group: BaseExceptionGroup[ExporterError]) -> ExporterError:
    """The error that ended the run: a destination that failed counts most, then a signal, then the time limit."""
    errors = [error for error in leaves(group) if isinstance(error, ExporterError)]
    for kind in (DestinationError, InterruptedRunError, TimeLimitError):
        for error in errors:
            if isinstance(error, kind):
                return error
    return errors[0]
