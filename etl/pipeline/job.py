"""One export, composed: lock → list → plan → crawl → commit → summary. No logic of any one step."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from etl.errors import DestinationError, ExporterError, InterruptedRunError, TimeLimitError, leaves
from etl.extract.plan import Planned
from etl.load.relocate import as_if_moved
from etl.pipeline.progress import Notify, Progress
from etl.pipeline.run import Run
from etl.pipeline.summary import RunTestSummary, Summary
from etl.pipeline.tasks import to_the_end, until_stopped
from etl.settings import Settings


@dataclass(frozen=True, slots=True)
class Plan:
    """What an export would do: everything listed, by worth, and what could not be listed.

    ``seconds`` is how long the rate limit lets it take, if it begins now; None when no limit is known.
    """

    planned: Sequence[Planned] = field(repr=False)  # asyncio.Runner makes a text of its result, whatever its size
    run_tests: Sequence[RunTestSummary]
    requests: int
    requests_per_minute: int | None
    seconds: float | None = None
    undiscovered: Sequence[str] = ()

    @property
    def problems(self) -> list[str]:
        """One line for each thing that could not be listed."""
        return [*self.undiscovered, *(problem for run_test in self.run_tests for problem in run_test.problems())]


async def plan(
    settings: Settings,
    *,
    full_refresh: bool = False,
    accept_deletions: bool = False,
    clock: Callable[[], datetime] | None = None,
) -> Plan:
    """What ``export`` would fetch now, and why. Lists the executions; changes nothing.

    Raises:
        ConfigurationError, KeyRefusedError, SourceUnavailableError, DestinationError: as ``export`` would end.
    """
    run = Run(settings, full_refresh=full_refresh, accept_deletions=accept_deletions, clock=clock)
    state = await asyncio.to_thread(run.load_state, set_aside=False) if settings.run_tests else None
    try:
        async with run.client as client:
            if state is None:
                await run.discover(client)
                state = await asyncio.to_thread(run.load_state, set_aside=False)
            await run.survey.list_run_tests(client, state)
            _, moves = await asyncio.to_thread(run.find_places, state)
            await asyncio.to_thread(run.load_sources, [source for source, _ in moves], state)
            as_if_moved(state, moves)
            planned = run.survey.plan(state)
    except* ExporterError as group:
        raise _reason_to_stop(group) from None
    return Plan(
        planned=planned,
        run_tests=run.summary.run_tests,
        requests=run.progress.planned_requests,
        requests_per_minute=client.quota.requests_per_minute,
        seconds=client.quota.seconds_for(
            # The export lists everything once more.
            client.traffic.requests + run.progress.planned_requests,
            asyncio.get_running_loop().time(),
        ),
        undiscovered=run.summary.undiscovered,
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

    Once it asks the API it always leaves a summary behind, unless it is cancelled: look at its ``exit_code`` and ``problems``.
    ``stop`` ends the run early, with everything committed that had arrived whole. ``full_refresh`` fetches final executions too,
    ``accept_deletions`` believes that a run test lost many of its executions at once.

    Raises:
        ConfigurationError, DestinationError: the dataset's folder cannot be used as configured; nothing was asked of the API.
        LockHeldError: another export is at work there.
    """
    run = Run(
        settings,
        full_refresh=full_refresh,
        accept_deletions=accept_deletions,
        progress=progress,
        notify=notify,
        clock=clock,
    )
    await to_the_end(run.files.prepare)
    with run.files.lock(run.started_at):
        await to_the_end(run.files.sweep_staging)
        state = await to_the_end(lambda: run.load_state(set_aside=True)) if settings.run_tests else None
        run.notify("run_started", export_run_id=run.summary.export_run_id, dataset=run.summary.dataset)
        bug: BaseException | None = None
        try:
            async with run.client as client:
                await until_stopped(run.crawl(client, state), stop, limit=run.time_limit)
        except* ExporterError as group:
            run.summary.failure = _reason_to_stop(group)
        except* Exception as group:  # noqa: BLE001 recorded here, raised below
            bug = next(leaves(group))
            run.summary.failure = ExporterError(f"a bug: {type(bug).__name__}: {bug}")
        await run.conclude()
        if bug is not None:
            raise bug
    return run.summary


def _reason_to_stop(group: BaseExceptionGroup[ExporterError]) -> ExporterError:
    """The error that ended the run: what could not be saved counts most, then that a signal asked for it."""
    errors = [error for error in leaves(group) if isinstance(error, ExporterError)]
    for kind in (DestinationError, InterruptedRunError, TimeLimitError):
        for error in errors:
            if isinstance(error, kind):
                return error
    return errors[0]
