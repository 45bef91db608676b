"""``status``, ``verify`` and ``schema``: what is in the dataset, whether it is intact, and what its columns mean.

And ``load``, which makes the warehouse match it, outside of a run; none of these writes to the dataset. ``forget``
removes rows from it. What they find is decided by the room ``inspect``; what is loaded, by ``load.synchronize``; what
goes, by ``pipeline.forget``.
"""

from datetime import UTC, date, datetime
from functools import partial
from typing import Annotated, Literal, get_args

import typer

from etl.cli.console import print_in_form, print_line, print_message, print_result
from etl.cli.options import AsJson, Config, Quiet, RunTests, Since, Verbose, day, output_format, selection
from etl.cli.process import end, report_errors, run_in_thread
from etl.errors import ConfigurationError, ExitCode
from etl.model.locations import QueryEngineName
from etl.model.wording import nearest

_Names = list[str] | None


def status(
    config: Config = None,
    *,
    max_age_hours: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            help="For monitoring, exit with 3 unless the verdict is Good and the last complete export is at most "
            "N hours old.",
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show whether all is well: freshness, gaps, last runs.

    Reads only the dataset and needs no key. Works while an export is running. Without --max-age-hours, it exits with 0
    whatever the verdict is.

    Example: metrics-etl status --max-age-hours 26
    """
    with report_errors(verbose=verbose):
        from etl.cli.show_dataset import print_status
        from etl.inspect.read_status import read_now
        from etl.inspect.status import NIGHTLY_HOURS, Status

        settings, _, current = read_now(config, NIGHTLY_HOURS if max_age_hours is None else max_age_hours)
        print_text = partial(print_status, accepted=settings.compare.accepted, config=config)
        print_in_form(current, Status.as_json, print_text, as_json=as_json, quiet=False)
        is_alarm = max_age_hours is not None and not current.verdict.is_good
        end(ExitCode.PARTIAL if is_alarm else ExitCode.COMPLETE)


def verify(
    config: Config = None,
    *,
    run_tests: RunTests = None,
    since: Since = None,
    warehouse: Annotated[
        bool, typer.Option("--warehouse", help="Also compare every row of the warehouse with the dataset.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Prove that the dataset is intact, file by file.

    Checks every file, key, value and execution, and changes nothing. Compares each file with the SHA-256 that the run
    that wrote it recorded. Exits with 3 if it finds anything. Each finding names the file, what is wrong and how to fix
    it.

    Example: metrics-etl verify --since 2026-11-01
    """
    with report_errors(verbose=verbose):
        from etl.cli.show_dataset import finding_text, print_report
        from etl.inspect.verify import VerifyReport, stored_scope
        from etl.inspect.verify import verify as verify_files
        from etl.inspect.verify_warehouse import verify_warehouse
        from etl.settings import Settings

        settings = Settings.load(config, needs_keys=False, needs_run_tests=False)
        report = verify_files(settings, stored_scope(settings, run_tests or (), since))
        if warehouse:
            report.warehouse = run_in_thread(verify_warehouse, settings)
            report.findings += report.warehouse.findings
        print_in_form(report, VerifyReport.as_json, print_report, as_json=as_json, quiet=quiet)
        if quiet:
            print_message(*map(finding_text, report.findings))
        end(report.exit_code)


def schema(
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="executions, calls, evals, errors or runs (by default, all).")
    ] = None,
    *,
    output: Annotated[Literal["table", "json"], output_format(help="table or json.")] = "table",
    engine: Annotated[
        QueryEngineName | None,
        typer.Option(
            "--ddl",
            metavar="ENGINE",
            help=f"Print the code that opens the dataset in this engine: {', '.join(get_args(QueryEngineName))}.",
        ),
    ] = None,
    location: Annotated[
        str | None,
        typer.Option(
            metavar="LOCATION",
            help="With --ddl, the path or URL of the dataset.",
            show_default="data, or a placeholder for your bucket",
        ),
    ] = None,
    dbt: Annotated[
        bool, typer.Option("--dbt", help="Print a sources.yml for dbt: tables and views of a warehouse, with tests.")
    ] = False,
) -> None:
    """Explain every column, or print the code that opens the dataset.

    Prints the name, type, unit, meaning and source of each column.

    Example: metrics-etl schema --ddl duckdb --location s3://my-bucket/data
    """
    from etl.model.schema import TABLES

    if table is not None and table not in TABLES:
        raise typer.BadParameter(f"there is no table {table!r}. {nearest(table, TABLES)}")
    tables = [TABLES[table]] if table else list(TABLES.values())
    with report_errors(verbose=False):
        if engine:
            from etl.load.ddl import ddl

            print_result(ddl(tables, engine, location))
        elif dbt:
            from etl.load.dbt import sources

            print_result(sources(tables))
        else:
            from etl.cli.show_schema import print_schema

            print_schema(tables, output)
        end(ExitCode.COMPLETE)


def load(
    config: Config = None,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Load every row again, and remove executions that the dataset no longer has.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what a load would change.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the warehouse match the dataset.

    Every run ends with a load. Use this command after an outage, a restored backup or a change by hand. Safe to repeat
    and to interrupt. Sends no request to the API and needs no key. Exits with 3 if the dataset itself is missing rows.

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
            with files.lock(now), load_progress(is_shown=not (quiet or as_json)) as shown:
                files.sweep_staging()
                load_it = partial(load_warehouse, on_progress=shown[0], on_retry=shown[1])
                result = run_in_thread(load_it, settings.warehouse, dataset, now, is_full=full)
        print_in_form(result, LoadResult.as_json, partial(print_load, is_dry_run=dry_run), as_json=as_json, quiet=quiet)
        if quiet:
            print_message(*result.problems)
        end(ExitCode.PARTIAL if result.problems else ExitCode.COMPLETE, is_result_printed=dry_run)


def forget(  # noqa: PLR0913 one parameter for each option of the command
    config: Config = None,
    *,
    calls: Annotated[_Names, selection("--call", metavar="ID", help="Forget a call deleted at the source.")] = None,
    executions: Annotated[_Names, selection("--execution", metavar="ID", help="Forget an execution.")] = None,
    run_tests: Annotated[
        _Names,
        selection("--run-test", metavar="NAME", help="Forget all executions of the run test with this name or folder."),
    ] = None,
    created_before: Annotated[date | None, day(help="Forget all executions created before this day (UTC).")] = None,
    deleted_before: Annotated[date | None, day(help="Forget everything marked as deleted before this day.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove the rows. Without --yes, only count them.")] = False,
    verbose: Verbose = False,
) -> None:
    """Remove rows for good.

    Rows are removed from the dataset at once, and from the warehouse by the next load. No run fetches a forgotten
    execution again. Its own row stays, with only its id, run test and start. The runs table records who removed how
    many rows. You must remove the rows yourself from backups, copies, old versions in a bucket and _state/quarantine.

    The options --call, --execution and --run-test can be given several times. If you give several options, everything
    that any of them names is removed.

    Example: metrics-etl forget --deleted-before 90d --yes
    """
    with report_errors(verbose=verbose):
        from etl.dataset.parts import Dataset
        from etl.inspect.read_tables import open_dataset
        from etl.pipeline import forget as forgetting
        from etl.settings import Settings

        if not (calls or executions or run_tests or created_before or deleted_before):
            raise ConfigurationError("name what to forget. metrics-etl forget --help lists the options")
        destination = Settings.load(config, needs_keys=False, needs_run_tests=False).destination
        files = open_dataset(destination.path, destination.options, is_whole=False)
        forget_it = partial(
            forgetting.forget,
            Dataset(files, compression=destination.compression),
            calls=calls or (),
            executions=executions or (),
            run_tests=run_tests or (),
            created_before=created_before,
            deleted_before=deleted_before,
            is_agreed=yes,
        )
        if yes:
            files.prepare()
            with files.lock(datetime.now(UTC)):
                files.sweep_staging()
                text = forget_it()
        else:
            text = forget_it()
        print_line("forgotten" if yes else "to forget", text or "nothing")
        if text:
            print_line("next", "metrics-etl load, if you have a warehouse" if yes else "add --yes to remove these rows")
        end(ExitCode.COMPLETE)
