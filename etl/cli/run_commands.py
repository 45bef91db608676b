"""``run``, ``plan`` and ``load``: bring dataset and warehouse up to date, or show what that would take."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from etl.cli.console import print_json, print_message, print_rate_limit_wait, print_result
from etl.cli.options import AsJson, Config, Quiet, RunTests, Since, Verbose, output, selection
from etl.cli.process import end, hearing_signals, report_errors, run_async, stop_on_signals
from etl.errors import ConfigurationError, ExitCode, ExporterError, LockHeldError

if TYPE_CHECKING:
    from etl.files.interface import Files
    from etl.model.findings import Finding
    from etl.pipeline.context import Notify
    from etl.pipeline.summary import Summary
    from etl.settings import Settings

_LOOK_SECONDS = 0.5


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
            help="If the source no longer has any of the stored executions, mark them as deleted. Without this option, such "
            "a run changes nothing, because the key may belong to another workspace.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and change nothing, like metrics-etl plan.")
    ] = False,
    metrics_file: Annotated[
        Path | None,
        output(
            metavar="FILE",
            help='Write the metrics of the run for Prometheus to this .prom file. Needs the "prometheus" extra.',
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help='Fetch on a Dask cluster: the address of its scheduler, tcp://HOST:8786. Needs the "dask" extra.',
        ),
    ] = None,
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
        from etl.pipeline.metrics_file import check_metrics_file, write_metrics_file
        from etl.settings import Settings

        try:
            settings = Settings.load(config).only(run_tests or (), since=since)
            if dask:
                settings = settings.on_dask(dask)
            if metrics_file:
                check_metrics_file(metrics_file, settings.destination.path)
        except ConfigurationError as error:
            if not dry_run:
                with suppress(ConfigurationError):  # else status tells what is wrong in the settings
                    _tell(error, Settings.load(config, needs_keys=False), is_private=bool(run_tests or since))
            raise
        if dry_run:
            _print_plan_and_exit(
                settings, as_json=as_json, full_refresh=full_refresh, accept_deletions=accept_deletions
            )
        try:
            summary = _export(
                settings, quiet=quiet, verbose=verbose, full_refresh=full_refresh, accept_deletions=accept_deletions
            )
        except Exception as error:
            _tell(error, settings)
            if isinstance(error, ExporterError):
                _end_and_notify("run_failed", error, settings)
            raise
        _print_end(summary, settings, as_json=as_json, quiet=quiet)
        _tell(summary, settings)
        if metrics_file:
            try:
                write_metrics_file(summary, metrics_file)
            except ExporterError as error:
                _end_and_notify("metrics_file_failed", error, settings)
        end(summary.exit_code, is_all_printed=False)


def _end_and_notify(event: str, error: ExporterError, settings: "Settings") -> NoReturn:
    """End the command with the error: as one line of text, or in a log of JSON as an event."""
    from etl.cli.show_progress import make_notify

    if settings.log.format != "json":
        raise error
    make_notify(settings.log, verbose=False)(event, error=str(error), exit_code=error.exit_code)
    end(error.exit_code, is_all_printed=False)


def _tell(ended: "Summary | Exception", settings: "Settings", *, is_private: bool = False) -> None:
    """Tell people how a run ended, unless that was mistyped just now; and ``status`` of an error that did not let it begin."""
    if isinstance(ended, ConfigurationError):  # such as a package that is not installed
        from etl.dataset.last_run import note_failure
        from etl.files.open import open_files

        with suppress(ConfigurationError):  # it is this one
            files = open_files(settings.destination.path, settings.destination.options)
            note_failure(files, ended, datetime.now(UTC), settings.scope)
    if settings.notify.url and not is_private:
        from etl.cli.show_progress import make_notify
        from etl.compare.nightly import read_worse
        from etl.notify.webhook import tell

        worse = partial(read_worse, false_alarms_per_year=settings.compare.false_alarms_per_year)
        if problem := run_async(tell(settings, ended, worse)):
            notify = make_notify(settings.log, verbose=False)
            notify("not_notified", problem=problem)


def _print_end(summary: "Summary", settings: "Settings", *, as_json: bool, quiet: bool) -> None:
    from etl.cli.show_progress import make_notify
    from etl.cli.show_run import print_how_to_open, print_summary

    is_json_log = settings.log.format == "json"
    if as_json:
        print_json(summary.as_json())
    elif not quiet and not is_json_log:  # else the event run_finished has told it
        print_summary(summary)
        if summary.exit_code in (ExitCode.COMPLETE, ExitCode.PARTIAL):
            print_result("")
            print_how_to_open(summary.dataset, settings.destination.options)
    if quiet and summary.problems:
        notify = make_notify(settings.log, verbose=False)
        for problem in summary.problems:
            if is_json_log:
                notify("problem", problem=problem)
            else:
                print_message(problem)


def plan(config: Config = None, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Show what a run would fetch now, why, and at what cost.

    Reads the lists of executions and the details of one execution, and changes nothing. Exits with 3 if a list could not be
    read completely.

    Example: metrics-etl plan
    """
    with report_errors(verbose=verbose):
        from etl.settings import Settings

        _print_plan_and_exit(Settings.load(config), as_json=as_json)


def load(
    config: Config = None,
    *,
    full: Annotated[
        bool,
        typer.Option("--full", help="Load every row again, and remove executions that the dataset no longer has."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what differs, and change nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the warehouse match the dataset.

    Every run ends with this. Use it after an outage, a restored backup or a change by hand. Safe to repeat and to interrupt.
    Sends no request to the API and needs no key. Exits with 3 if the dataset itself is missing rows.

    Example: metrics-etl load --dry-run
    """
    with report_errors(verbose=verbose):
        from etl.cli.show_progress import load_progress
        from etl.cli.show_run import print_load
        from etl.dataset.parts import Dataset
        from etl.inspect.read_tables import open_dataset
        from etl.load.open import module_for
        from etl.load.synchronize import load_warehouse, preview_load
        from etl.settings import Settings

        settings = Settings.load(config, needs_keys=False, needs_run_tests=False)
        module_for(settings.warehouse.named_url)
        files = open_dataset(settings.destination.path, settings.destination.options)
        dataset = Dataset(files, compression=settings.destination.compression)
        if dry_run:
            result = hearing_signals(partial(preview_load, settings.warehouse, dataset, is_full=full))
        else:
            files.prepare()
            now = datetime.now(UTC)
            with (
                _lock_of_load(files, now, is_told=quiet),
                load_progress(is_shown=not quiet and not as_json) as on_progress,
            ):
                files.sweep_staging()
                result = hearing_signals(
                    partial(load_warehouse, settings.warehouse, dataset, now, is_full=full, on_progress=on_progress)
                )
        if as_json:
            print_json(result.as_json())
        elif not quiet:
            print_load(result, is_dry_run=dry_run)
        if quiet:
            for problem in result.problems:
                print_message(problem)
        end(ExitCode.PARTIAL if result.problems else ExitCode.COMPLETE, is_all_printed=dry_run)


@contextmanager
def _lock_of_load(files: "Files", now: datetime, *, is_told: bool) -> Iterator[None]:
    """Hold the dataset's lock; another load that holds it is waited for, since it may be into another target."""
    note = ", loading a warehouse"
    while True:
        try:
            with files.lock(now, note=note):
                yield
                return
        except LockHeldError:
            if not (holder := files.lock_holder() or note).endswith(note):
                raise
        if not is_told:
            print_message(f"waiting for another load of this dataset ({holder})")
        is_told = True
        time.sleep(_LOOK_SECONDS)


def _print_plan_and_exit(
    settings: "Settings", *, as_json: bool, full_refresh: bool = False, accept_deletions: bool = False
) -> NoReturn:
    from etl.cli.show_run import plan_as_json, print_plan
    from etl.pipeline import job

    def notify(event: str, **fields: Any) -> None:
        if event == "held":
            print_rate_limit_wait(fields["seconds"])

    result = run_async(job.plan(settings, full_refresh=full_refresh, accept_deletions=accept_deletions, notify=notify))
    if as_json:
        print_json(plan_as_json(result))
    else:
        print_plan(result)
    end(ExitCode.PARTIAL if result.problems else ExitCode.COMPLETE)


def export_once_ended(settings: "Settings", execution_id: str, *, seconds: float) -> "list[Finding]":
    """Export the run test of the execution once that has ended and no other export is running; gives what that left out."""
    from etl.cli.show_run import print_summary
    from etl.files.open import open_files
    from etl.model.findings import Finding, Kind, alarms
    from etl.pipeline.await_end import await_end

    gives_up_at = time.monotonic() + seconds
    print_message(f"waiting for the end of execution {execution_id}")
    run_test = run_async(await_end(settings, execution_id, seconds=seconds))
    files = open_files(settings.destination.path, settings.destination.options)
    if holder := files.lock_holder():
        print_message(f"waiting for another export ({holder})")
    while files.lock_holder() and time.monotonic() < gives_up_at:
        time.sleep(_LOOK_SECONDS)
    summary = _export(settings.only([run_test]), quiet=False, verbose=False, full_refresh=False, accept_deletions=False)
    if summary.failure and summary.exit_code is not ExitCode.PARTIAL:
        raise summary.failure
    with redirect_stdout(sys.stderr):
        print_summary(summary)
    left_out = [each for each in alarms(summary.findings) if each.kind is not Kind.NOT_LOADED]
    return left_out or [Finding(Kind.NOT_FETCHED, run_test, str(each)) for each in [summary.failure] if each]


def _export(
    settings: "Settings", *, quiet: bool, verbose: bool, full_refresh: bool, accept_deletions: bool
) -> "Summary":
    from etl.cli.show_progress import can_show_progress, live_progress, make_notify
    from etl.pipeline import job
    from etl.pipeline.context import Progress, dask_module

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
