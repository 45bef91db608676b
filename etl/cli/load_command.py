"""``load``: make the warehouse match the dataset, outside of a run.

What differs and what is loaded is decided by ``load.synchronize``. Here is what the command adds: the lock, the
progress, the output, and the exit code. An error that ends the load keeps the exit code of its class; see
``process.report_errors``.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.console import print_in_form, print_message
from etl.cli.options import AsJson, Config, Quiet, Verbose
from etl.cli.process import end, report_errors, run_in_thread
from etl.errors import ExitCode, LockHeldError

if TYPE_CHECKING:
    from etl.files.interface import Files


def load(
    config: Config = None,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Load every row again, and remove executions that the dataset no longer has.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what differs, and change nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the warehouse match the dataset.

    Every run ends with this. Use it after an outage, a restored backup or a change by hand. Safe to repeat and to
    interrupt. Sends no request to the API and needs no key. Exits with 3 if the dataset itself is missing rows.

    Example: metrics-etl load --dry-run
    """
    with report_errors(verbose=verbose):
        from etl.cli.show_progress import load_progress
        from etl.cli.show_run import print_load
        from etl.dataset.parts import Dataset
        from etl.inspect.read_tables import open_dataset
        from etl.load.open import module_for
        from etl.load.synchronize import LoadResult, load_warehouse, preview_load
        from etl.settings import Settings

        settings = Settings.load(config, needs_keys=False, needs_run_tests=False)
        module_for(settings.warehouse.named_url)  # a missing driver is named before anything is read or locked
        files = open_dataset(settings.destination.path, settings.destination.options)
        dataset = Dataset(files, compression=settings.destination.compression)
        if dry_run:
            result = run_in_thread(preview_load, settings.warehouse, dataset, is_full=full)
        else:
            files.prepare()
            now = datetime.now(UTC)
            with _lock_of_load(files, now, quiet=quiet), load_progress(is_shown=not (quiet or as_json)) as shown:
                files.sweep_staging()
                load_it = partial(load_warehouse, on_progress=shown[0], on_retry=shown[1])
                result = run_in_thread(load_it, settings.warehouse, dataset, now, is_full=full)
        print_in_form(result, LoadResult.as_json, partial(print_load, is_dry_run=dry_run), as_json=as_json, quiet=quiet)
        if quiet:
            print_message(*result.problems)
        end(ExitCode.PARTIAL if result.problems else ExitCode.COMPLETE, is_result_printed=dry_run)


@contextmanager
def _lock_of_load(files: "Files", now: datetime, *, quiet: bool) -> Iterator[None]:
    """Hold the dataset's lock during the block; wait while another load holds it: it may be into another warehouse.

    Raises:
        LockHeldError: an export holds the lock.
    """
    note = ", loading a warehouse"
    is_waiting = False
    while True:
        try:
            with files.lock(now, note=note):
                yield
                return
        except LockHeldError:
            holder = files.lock_holder() or note
            if not holder.endswith(note):
                raise
        if not quiet and not is_waiting:
            print_message(f"waiting for another load of this dataset ({holder})")
        is_waiting = True
        time.sleep(0.5)
