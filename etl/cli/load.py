"""``load``: bring the warehouse up to date with the dataset."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer

from etl.cli.endings import end, hearing_signals, report_errors
from etl.cli.options import AsJson, Config, Quiet, Verbose
from etl.errors import ExitCode


def load(
    config: Config = None,
    *,
    full: Annotated[
        bool,
        typer.Option("--full", help="Load every row again, and remove executions that are no longer in the dataset."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what differs, and change nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the warehouse equal to the dataset.

    Every run does this at its end. Use it after an outage, a restored backup or a change by hand. Safe to repeat and to
    interrupt. Sends no request to the API and needs no key. Exits with 3 when the dataset itself is missing rows.

    Example: metrics-etl load --dry-run
    """
    with report_errors(verbose=verbose):
        from etl.cli.console import print_json, print_message  # noqa: PLC0415
        from etl.cli.show_load import load_progress, print_load  # noqa: PLC0415
        from etl.inspect.tables import open_dataset  # noqa: PLC0415
        from etl.load.dataset import Dataset  # noqa: PLC0415
        from etl.load.warehouse.target import module_for  # noqa: PLC0415
        from etl.pipeline.load_warehouse import load_warehouse, preview_load  # noqa: PLC0415
        from etl.settings import Settings  # noqa: PLC0415
        from etl.settings.capacity import require_threads  # noqa: PLC0415

        settings = Settings.load(config, needs_keys=False, needs_run_tests=False)
        require_threads()
        module_for(settings.warehouse.named_url)
        files = open_dataset(settings.destination.path, settings.destination.options)
        dataset = Dataset(files, compression=settings.destination.compression)
        if dry_run:
            result = hearing_signals(partial(preview_load, settings.warehouse, dataset, is_full=full))
        else:
            files.prepare()
            now = datetime.now(UTC)
            with files.lock(now), load_progress(is_shown=not quiet and not as_json) as on_progress:
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
