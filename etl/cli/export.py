"""What ``run`` and ``compare --wait`` share: an export, with what it tells on stderr while it works."""

import sys
import time
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from etl.cli.console import print_message, print_rate_limit_wait
from etl.cli.process import run_async, stop_on_signals
from etl.errors import ExitCode, LockHeldError

if TYPE_CHECKING:
    from etl.model.findings import Finding
    from etl.pipeline.run import Notify
    from etl.pipeline.summary import Summary
    from etl.settings import Settings

_LOOK_SECONDS = 2.0


def export(
    settings: "Settings",
    *,
    quiet: bool = False,
    verbose: bool = False,
    full_refresh: bool = False,
    accept_deletions: bool = False,
) -> "Summary":
    """Export until it is done, or a signal ends it."""
    from etl.cli.show_progress import can_show_progress, live_progress, make_notify
    from etl.pipeline import job
    from etl.pipeline.run import Progress, dask_module

    if settings.engine.kind == "dask":
        dask_module().be_silent()
    progress = Progress()
    shows_progress = not quiet and not verbose and settings.log.format == "auto" and can_show_progress()
    notify: Notify | None = None if shows_progress or quiet else make_notify(settings.log, verbose=verbose)

    async def export() -> "Summary":
        with stop_on_signals() as stop, live_progress(progress, is_shown=shows_progress):
            return await job.export(
                settings,
                full_refresh=full_refresh,
                accept_deletions=accept_deletions,
                progress=progress,
                notify=notify,
                stop=stop,
            )

    return run_async(export())


def export_once_ended(settings: "Settings", execution_id: str, *, seconds: float) -> "list[Finding]":
    """Wait for the end of the execution and for the dataset's lock, and export its run test; gives what that left out.

    Raises:
        ExporterError: it did not end in time, or nothing of it could be exported.
    """
    from etl.cli.show_run import print_summary
    from etl.model.findings import Finding, Kind, alarms
    from etl.pipeline.await_end import await_end

    gives_up_at = time.monotonic() + seconds

    def on_status(status: str) -> None:
        print_message(f"waiting for execution {execution_id}: {status}")

    waiting = await_end(settings, execution_id, seconds=seconds, on_status=on_status, on_hold=print_rate_limit_wait)
    run_test = run_async(waiting)
    summary, is_told = None, False
    while summary is None:
        try:
            summary = export(settings.only([run_test]))
        except LockHeldError as error:
            if time.monotonic() >= gives_up_at:
                raise
            if not is_told:
                print_message(f"waiting: {error}")
            is_told = True
            time.sleep(_LOOK_SECONDS)
    failure = summary.failure
    if failure and summary.exit_code is not ExitCode.PARTIAL:
        raise failure
    if settings.log.format != "json":  # else the event run_finished has told it
        with redirect_stdout(sys.stderr):
            print_summary(summary)
    left_out = [each for each in alarms(summary.findings) if each.kind is not Kind.NOT_LOADED]
    return left_out or ([Finding(Kind.NOT_FETCHED, run_test, str(failure))] if failure else [])
