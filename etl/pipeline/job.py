"""``plan`` and ``export``: one list of steps with two endings; ``run`` waits for an export.

Both load the state, read the lists, and plan what they bring. A plan then works out what an export would do; an
export renames, marks, fetches and commits, round by round as lists arrive, and always leaves a summary behind.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import aclosing
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from pathlib import Path

from etl.dataset.last_run import Attempt, note_failure, read_last_run, update_last_run
from etl.dataset.parts import identify, require_whole
from etl.dataset.state import StoredState
from etl.errors import DestinationError, ExporterError, InterruptedRunError, LockHeldError, TimeLimitError, leaves
from etl.extract.endpoints import Purpose
from etl.extract.plan import Planned, requests_to_fetch
from etl.load.open import module_for
from etl.load.synchronize import load_warehouse
from etl.model.findings import Finding, Kind, alarms
from etl.model.wording import ShownInLines, by_purpose, counted, duration
from etl.pipeline.apply import bring_up_to_date, sweep
from etl.pipeline.conclude import conclude
from etl.pipeline.context import Notify, Progress, Run, begin
from etl.pipeline.descriptions import describe_executions, requests_to_describe
from etl.pipeline.forget import finish_forgetting
from etl.pipeline.lists import discover_all, note_gone, read_lists
from etl.pipeline.preflight import refuse_unknown
from etl.pipeline.record import Record
from etl.pipeline.shared_steps import (
    absent_executions,
    choose_previews,
    choose_sweep,
    half_written,
    make_plan,
    read_stored,
)
from etl.pipeline.summary import RunTestSummary, Summary
from etl.pipeline.tasks import held, to_the_end, until_stopped
from etl.settings import Settings

STANDARD_REQUESTS_PER_MINUTE = 100
"""What is assumed of an API that announces no limit."""


@dataclass(frozen=True, slots=True, repr=False)
class Plan(ShownInLines):
    """What an export would do, and what could not be listed."""

    planned: Sequence[Planned]
    """Every listed execution that is in scope, with why it is fetched or not; of each round of lists, best first."""
    run_tests: Sequence[RunTestSummary]
    """Each run test's share."""
    requests_by_purpose: Mapping[Purpose, int]
    """How many requests it takes, with those for the lists."""
    call_requests: int
    """How many of these are for one call by itself."""
    requests_per_minute: int | None
    """The rate limit; None if the API announces none and none is configured."""
    seconds: float | None = None
    """How long all of it takes at the rate limit; None if no limit is known."""
    previews: Sequence[Planned] = ()
    """The executions that are stored from their lists first."""
    requests_to_use: int = 0
    """After how many requests these can be read."""
    seconds_to_use: float | None = None
    """After how many seconds these can be read at the rate limit; None if no limit is known."""
    findings: Sequence[Finding] = ()
    """What is missing, unknown or worth knowing already."""

    @property
    def requests(self) -> int:
        """Requests that fetch what is planned, without those for the lists."""
        return sum(self.requests_by_purpose.values()) - self.requests_by_purpose[Purpose.LIST]

    @property
    def problems(self) -> list[str]:
        """One line for each alarm: what is missing or unknown."""
        return [str(finding) for finding in alarms(self.findings)]

    def lines(self) -> Iterator[tuple[str, str]]:
        """The problems, and what the rest takes."""
        yield from (("problem", problem) for problem in self.problems)
        requests = counted(sum(self.requests_by_purpose.values()), "request")
        yield "requests", f"{requests}: {by_purpose(self.requests_by_purpose, self.call_requests)}"
        yield "duration", self._duration()
        if self.previews and self.seconds_to_use is not None:
            executions = counted(len(self.previews), "new execution")
            requests = counted(self.requests_to_use, "request")
            yield "readable", f"{executions} from lists after {requests}, in {duration(self.seconds_to_use)} or more"

    def _duration(self) -> str:
        if not self.requests:
            return "nothing to fetch from the lists that could be read" if self.problems else "nothing to fetch"
        if self.seconds is None:
            at_standard = duration(self.requests / STANDARD_REQUESTS_PER_MINUTE * 60)
            limit = f"assuming {STANDARD_REQUESTS_PER_MINUTE} requests a minute"
            return f"about {at_standard}, {limit}, because the API announces no limit (less without a limit)"
        limit = counted(self.requests_per_minute or 0, "request")
        if self.seconds < 1:
            return f"within a minute, since the limit is {limit} a minute"
        return f"about {duration(self.seconds)} at {limit} a minute"


async def plan(
    settings: Settings | str | Path,
    *,
    full_refresh: bool = False,
    accept_deletions: bool = False,
    notify: Notify | None = None,
    clock: Callable[[], datetime] | None = None,
) -> Plan:
    """What ``export`` would fetch now, and why. Changes nothing.

    Reads the lists, and looks up by id or name what they leave open.

    Raises:
        ConfigurationError, KeyRefusedError, SourceUnavailableError, DestinationError: what would end an export.
    """
    settings = Settings.of(settings)
    run = begin(settings, full_refresh=full_refresh, accept_deletions=accept_deletions, notify=notify, clock=clock)
    await refuse_unknown(run.client, settings)
    record = await asyncio.to_thread(_begin_record, run)
    state = await asyncio.to_thread(read_stored, run, record, set_aside=False)
    planned: list[Planned] = []
    previewed: list[Planned] = []
    absent = 0
    try:
        async with run.client:
            if not settings.run_tests:
                await discover_all(run, record, state)
            await asyncio.to_thread(choose_sweep, run, record, state)
            async with asyncio.TaskGroup() as group, aclosing(read_lists(group, run, record, state)) as rounds:
                async for run_tests, is_last in rounds:
                    if is_last:
                        absent = sum(map(len, absent_executions(record, state).values())) + len(
                            half_written(record, state)
                        )
                    due = make_plan(run, record, state, run_tests)
                    planned += due
                    previewed += choose_previews(run, due)
            requests_for_lists = run.client.traffic.requests
    except* ExporterError as group:
        raise _reason_to_stop(group) from None
    expected = requests_to_fetch(planned, previewed, page_limit=settings.api.page_limit)
    # The export reads all lists again. An execution that is in none of them any more takes a request or two.
    expected[Purpose.LIST] = requests_for_lists + 2 * absent + requests_to_describe(record)
    quota = run.client.quota
    of_previews = requests_to_fetch(previewed, page_limit=settings.api.page_limit)
    to_use = expected[Purpose.LIST] + sum(of_previews.values())
    return Plan(
        planned=planned,
        run_tests=record.run_test_summaries(is_cut_short=False, settled_before=run.settled_before(run.clock())),
        requests_by_purpose=expected,
        call_requests=sum(item.call_requests for item in planned if item.is_fetched),
        requests_per_minute=quota.requests_per_minute,
        seconds=quota.seconds_for(sum(expected.values()), math.inf),
        previews=previewed,
        requests_to_use=to_use if previewed else 0,
        seconds_to_use=quota.seconds_for(to_use, math.inf) if previewed else None,
        findings=record.findings,
    )


async def export(
    settings: Settings | str | Path,
    *,
    full_refresh: bool = False,
    accept_deletions: bool = False,
    progress: Progress | None = None,
    notify: Notify | None = None,
    stop: asyncio.Future[InterruptedRunError] | None = None,
    clock: Callable[[], datetime] | None = None,
) -> Summary:
    """Bring the dataset up to date with the API, then the warehouse with the dataset, if the settings name one.

    After the first request, the summary reports errors (``exit_code``, ``problems``) instead of raising them; only a
    bug in metrics-etl still raises, after the run is recorded. ``stop`` ends the run early; what has arrived is saved.
    ``full_refresh`` fetches final executions again, too. ``accept_deletions`` marks all stored executions as deleted
    if the API no longer has any of them.

    Raises:
        ConfigurationError, DestinationError: the dataset cannot be used as configured, the package for the warehouse
            is not installed, or a run test given to ``Settings.only`` does not exist; nothing was exported.
        LockHeldError: another export is running on this dataset.
        InterruptedRunError: ``stop`` was set before the export could begin.
    """
    settings = Settings.of(settings)
    stop = stop or asyncio.get_running_loop().create_future()
    run = begin(
        settings,
        full_refresh=full_refresh,
        accept_deletions=accept_deletions,
        progress=progress,
        notify=notify,
        clock=clock,
    )
    files = run.dataset.files
    if settings.warehouse.url:
        module_for(settings.warehouse.url)
    try:
        await until_stopped(refuse_unknown(run.client, settings), stop)
    except* ExporterError as group:
        raise _reason_to_stop(group) from None
    try:
        await to_the_end(files.prepare)
        async with held(files.lock(run.started_at, is_stopped=stop.done)):
            await to_the_end(files.sweep_staging)
            record = await to_the_end(partial(_begin_record, run, is_export=True))
            begun = Attempt(started_at=run.started_at, export_run_id=run.export_run_id)
            await to_the_end(
                partial(update_last_run, files, {"scope": settings.scope, "attempt": begun, "forgot": None})
            )
            return await _export_alone(run, record, stop)
    except (LockHeldError, DestinationError) as error:  # a later one is in the summary
        if stop.done():
            raise stop.result() from None
        if isinstance(error, LockHeldError):
            raise
        await to_the_end(partial(note_failure, files, error, run.started_at, settings.scope))
        raise


def run(
    settings: Settings | str | Path | None = None,
    *,
    run_tests: str | Collection[str] = (),
    since: date | str | None = None,
    full_refresh: bool = False,
    accept_deletions: bool = False,
    notify: Notify | None = None,
) -> Summary:
    """Export what is new or changed, and wait until it is done. Works in scripts and notebooks.

    ``settings`` may be the path of a settings file, and defaults to that of ``Settings.load``. ``run_tests`` and
    ``since`` narrow the export as in ``Settings.only``. The rest is as in ``export``; ``notify`` is called in another
    thread.

    Ctrl-C, or a notebook's stop button, ends the run cleanly: what arrived is saved, then KeyboardInterrupt is
    raised. A second one does not wait for that. In a coroutine of your own, await ``export``: there asyncio takes the
    first Ctrl-C for itself.

    Raises:
        KeyboardInterrupt: see above; and errors as for ``export``.
    """
    chosen = Settings.of(settings).only(run_tests, since=since)
    stop = Future[InterruptedRunError]()
    work = partial(export, chosen, full_refresh=full_refresh, accept_deletions=accept_deletions, notify=notify)

    async def export_until_stopped() -> Summary:
        return await work(stop=asyncio.wrap_future(stop))

    executor = ThreadPoolExecutor(1)
    ended = executor.submit(asyncio.run, export_until_stopped())
    executor.shutdown(wait=False)
    try:
        wait([ended])
    except BaseException:
        if not ended.done():  # its loop is there to be told
            stop.set_result(InterruptedRunError("interrupted, but everything received is saved"))
        wait([ended])
        raise
    return ended.result()


def _begin_record(run: Run, *, is_export: bool = False) -> Record:
    """A record that knows what the run before left.

    An export gives the dataset an id, if it has none, removes what a killed ``forget`` has left, and moves documents
    that it cannot read to quarantine.
    """
    record = Record(run.settings.run_tests)
    files = run.dataset.files
    note = partial(record.find, Kind.DOCUMENT_SET_ASIDE, "")
    if is_export:
        identify(files, run.started_at, note=note)
        finish_forgetting(run.dataset)
    else:
        require_whole(files, note=note)
    last = read_last_run(files, note=note, set_aside=is_export)
    run.dataset.receipt.follows = last.last_writer
    before = last.of(run.settings.scope)
    # A run that was killed left only an attempt: what it may have changed is not complete any more.
    record.before = before.after(before.attempt)
    new = [name for name in run.settings.export.leave_out if name not in before.leave_out]
    if new and before.export_run_id and not run.policy.full_refresh:
        record.find(Kind.VALUES_STAY, "", f"stored rows keep {', '.join(new)} until they are compared again")
    return record


async def _export_alone(run: Run, record: Record, stop: asyncio.Future[InterruptedRunError]) -> Summary:
    """Export as the holder of the lock.

    Raises:
        DestinationError: the dataset cannot be read; no request was sent.
    """
    settings = run.settings
    state = await to_the_end(partial(read_stored, run, record, set_aside=True))
    run.notify("run_started", export_run_id=run.export_run_id, dataset=settings.destination.path)
    failure: ExporterError | None = None
    bug: BaseException | None = None
    try:
        async with run.client:
            minutes = settings.export.max_runtime_minutes
            if minutes is not None:
                run.client.gate.run_ends_at = asyncio.get_running_loop().time() + minutes * 60
            await until_stopped(_export(run, record, state), stop, minutes=minutes)
    except* ExporterError as group:
        failure = _reason_to_stop(group)
        if record.last_step and not isinstance(failure, DestinationError | InterruptedRunError):
            record.find(record.last_step, "", f"this step ended early: {failure}")
            failure = None
    except* Exception as group:  # noqa: BLE001 recorded here, raised below
        bug = next(leaves(group))
        failure = ExporterError(f"this is a bug in metrics-etl. Please report it: {type(bug).__name__}: {bug}")
    summary = await conclude(run, record, state, failure)
    if settings.warehouse.url and not isinstance(failure, InterruptedRunError | DestinationError) and bug is None:
        await _load(run, summary, stop)
    not_in_event = ("run_tests", "receipt", "dataset", "version")
    run.notify("run_finished", **{key: value for key, value in summary.as_json().items() if key not in not_in_event})
    if bug is not None:
        raise bug
    return summary


async def _load(run: Run, summary: Summary, stop: asyncio.Future[InterruptedRunError]) -> None:
    """Load the dataset into the warehouse. A failure is noted in the summary, and harms nothing else."""

    def go_on(*_: int) -> None:
        if stop.done():
            raise stop.result()

    def tell(reason: str) -> None:
        run.notify("load_waits", reason=reason)

    work = partial(load_warehouse, run.settings.warehouse, run.dataset, summary.counts_from)
    work = partial(work, on_progress=go_on, on_wait=go_on, on_retry=tell)
    try:
        summary.load = result = await to_the_end(work)
    except ExporterError as error:
        summary.load_failure = error
    else:
        summary.findings += [Finding(Kind.NOT_LOADED, "", problem) for problem in result.problems]


async def _export(run: Run, record: Record, state: StoredState) -> None:
    """The steps of an export that send requests: run tests, lists, and round by round what these bring."""
    async with run.engine as crawler:
        record.completed_files = await to_the_end(run.dataset.complete)
        if not run.settings.run_tests:
            await discover_all(run, record, state)
        await to_the_end(partial(choose_sweep, run, record, state))
        async with asyncio.TaskGroup() as group, aclosing(read_lists(group, run, record, state)) as rounds:
            async for run_tests, is_last in rounds:
                await bring_up_to_date(run, record, state, run_tests, crawler, is_last=is_last)
        if not run.settings.run_tests:
            note_gone(record, state)
        await describe_executions(run, record, state)
        await sweep(run, record, state, crawler)


def _reason_to_stop(group: BaseExceptionGroup[ExporterError]) -> ExporterError:
    """The error that ended the run: a destination that failed counts most, then a signal, then the time limit."""
    errors = [error for error in leaves(group) if isinstance(error, ExporterError)]
    kinds = (DestinationError, InterruptedRunError, TimeLimitError)
    return next((error for kind in kinds for error in errors if isinstance(error, kind)), errors[0])
