"""``run`` and ``plan``: bring the dataset up to date, or show what that would take.

Holds the export of ``compare --wait``, too. Owns how the end of a run is told: to people, to programs, to ``status``
and to the webhook. Which exit code a run ends with is decided by ``pipeline.summary``.
"""

import sys
import time
from contextlib import redirect_stdout, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from etl.cli.console import print_hold, print_in_form, print_json, print_message, print_result
from etl.cli.options import AsJson, Config, Quiet, RunTests, Since, Verbose, output, selection
from etl.cli.process import end, report_errors, run_async, stop_on_signals
from etl.errors import ConfigurationError, ExitCode, ExporterError

if TYPE_CHECKING:
    from etl.model.findings import Finding
    from etl.pipeline.summary import Summary
    from etl.settings import Settings


def run(  # noqa: PLR0913 one parameter for each option of the command
    config: Config = None,
    *,
    run_tests: RunTests = None,
    since: Since = None,
    full_refresh: Annotated[
        bool, selection("--full-refresh", help="Fetch all finished executions again, including final ones.")
    ] = False,
    accept_deletions: Annotated[
        bool,
        selection(
            "--accept-deletions",
            help="Mark all stored executions as deleted if none of them exists at the source any more. "
            "Without this option, such a run changes nothing, because the key may belong to another workspace.",
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Annotated[
        bool, output("--verbose", "-v", help="Print every event as it happens, and a traceback if metrics-etl crashes.")
    ] = False,
) -> None:
    """Export what is new or changed since the last run.

    Safe to repeat and to interrupt: what is saved stays saved, and the next run continues.

    Example: metrics-etl run --run-test "Checkout flow" --since 2026-11-01
    """
    with report_errors(verbose=verbose):
        from etl.settings import Settings

        try:
            settings = Settings.load(config).only(run_tests or (), since=since)
        except ConfigurationError as error:
            if not (run_tests or since):
                _report_mistake(error, config)
            raise
        try:
            summary = _export(
                settings, quiet=quiet, verbose=verbose, full_refresh=full_refresh, accept_deletions=accept_deletions
            )
        except Exception as error:
            if not (settings.is_part and isinstance(error, ConfigurationError)):  # else the options may be wrong
                _note_failure(error, settings)
                _tell_webhook(error, settings)
            if isinstance(error, ExporterError) and settings.log.format == "json":
                _notify("run_failed", settings, error=str(error), exit_code=error.exit_code)
                end(error.exit_code, is_result_printed=False)
            raise
        _print_end(summary, settings, as_json=as_json, quiet=quiet)
        _tell_webhook(summary, settings)
        end(summary.exit_code, is_result_printed=False)


def plan(
    config: Config = None,
    *,
    run_tests: RunTests = None,
    since: Since = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show what a run would fetch now, why, and at what cost.

    Reads the lists of executions, and changes nothing. Exits with 3 if a list could not be read completely.

    Example: metrics-etl plan --since 7d
    """
    with report_errors(verbose=verbose):
        from etl.cli.show_run import plan_as_json, print_plan
        from etl.pipeline import job
        from etl.settings import Settings

        settings = Settings.load(config).only(run_tests or (), since=since)
        result = run_async(job.plan(settings, notify=print_hold))
        print_in_form(result, plan_as_json, print_plan, as_json=as_json, quiet=False)
        end(ExitCode.PARTIAL if result.problems else ExitCode.COMPLETE)


def export_once_ended(settings: "Settings", execution_id: str, *, seconds: float) -> "list[Finding]":
    """Wait until the execution has ended and no other export is running, and export its run test.

    Waits at most ``seconds`` for both. Returns a finding for everything that is missing from the dataset after this
    export; what is missing from the warehouse is none.

    Raises:
        ExporterError: the execution did not end in time, or the export failed as a whole.
    """
    from etl.cli.show_run import print_summary
    from etl.files.open import open_files
    from etl.model.findings import Finding, Kind, alarms
    from etl.pipeline.await_end import await_end

    gives_up_at = time.monotonic() + seconds
    print_message(f"waiting for execution {execution_id} to end")
    run_test = run_async(await_end(settings, execution_id, seconds=seconds))
    files = open_files(settings.destination.path, settings.destination.options)
    if holder := files.lock_holder():
        print_message(f"waiting for another export to end ({holder})")
    while files.lock_holder() and time.monotonic() < gives_up_at:
        time.sleep(0.5)
    summary = _export(settings.only([run_test]), quiet=False, verbose=False, full_refresh=False, accept_deletions=False)
    if summary.failure and summary.exit_code is not ExitCode.PARTIAL:
        raise summary.failure
    with redirect_stdout(sys.stderr):
        print_summary(summary)
    findings = [finding for finding in alarms(summary.findings) if finding.kind is not Kind.NOT_LOADED]
    if summary.failure and not findings:
        findings = [Finding(Kind.NOT_FETCHED, run_test, str(summary.failure))]
    return findings


def _export(
    settings: "Settings", *, quiet: bool, verbose: bool, full_refresh: bool, accept_deletions: bool
) -> "Summary":
    """Export, and show progress or events on stderr meanwhile; SIGINT and SIGTERM stop the run in order."""
    from etl.cli.show_progress import can_show_progress, live_progress, make_notify
    from etl.pipeline import job
    from etl.pipeline.context import Progress, dask_module

    if settings.engine.kind == "dask":
        dask_module().be_silent()
    progress = Progress()
    shows_progress = not quiet and not verbose and settings.log.format == "auto" and can_show_progress()
    notify = None if shows_progress or quiet else make_notify(settings.log, verbose=verbose)

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


def _print_end(summary: "Summary", settings: "Settings", *, as_json: bool, quiet: bool) -> None:
    """Print how the run ended: as a document, as lines, or, if ``quiet``, only its problems.

    Where the log is JSON, the event ``run_finished`` has said it already.
    """
    from etl.cli.show_run import print_how_to_open, print_summary

    is_json_log = settings.log.format == "json"
    if as_json:
        print_json(summary.as_json())
    elif not quiet and not is_json_log:
        print_summary(summary)
        if summary.exit_code in (ExitCode.COMPLETE, ExitCode.PARTIAL):
            print_result("\nTo open the dataset:")
            print_how_to_open(summary.dataset, settings.destination.options)
    if quiet and is_json_log:
        for problem in summary.problems:
            _notify("problem", settings, problem=problem)
    elif quiet:
        print_message(*summary.problems)


def _report_mistake(error: ConfigurationError, config: Path | None) -> None:
    """Tell ``status`` and the webhook why the settings did not let a run start.

    Settings that cannot be read even without keys are not reported: ``status`` sees by itself what is wrong in them.
    """
    from etl.settings import Settings

    with suppress(ConfigurationError):
        settings = Settings.load(config, needs_keys=False)
        _note_failure(error, settings)
        _tell_webhook(error, settings)


def _note_failure(error: Exception, settings: "Settings") -> None:
    """Note for ``status`` that wrong settings or a missing package kept a run from starting.

    Other errors are in the record of the run that they ended.
    """
    from etl.dataset.last_run import note_failure
    from etl.files.open import open_files

    if isinstance(error, ConfigurationError):
        with suppress(ConfigurationError):  # the destination is what is wrong: there is no place for a note
            files = open_files(settings.destination.path, settings.destination.options)
            note_failure(files, error, datetime.now(UTC), settings.scope)


def _tell_webhook(ended: "Summary | Exception", settings: "Settings") -> None:
    """Tell the webhook of the settings, if there is one, how the run ended; log it if the webhook cannot be told."""
    if settings.notify.url:
        from etl.compare.nightly import read_worse
        from etl.notify.webhook import tell

        worse = partial(read_worse, rules=settings.compare, today=datetime.now(UTC).date())
        if problem := run_async(tell(settings, ended, worse)):
            _notify("not_notified", settings, problem=problem)


def _notify(event: str, settings: "Settings", **fields: Any) -> None:
    """Write an event to the log, in the format of the settings."""
    from etl.cli.show_progress import make_notify

    make_notify(settings.log, verbose=False)(event, **fields)
