"""The ``metrics-etl`` command: what can be typed, what is printed, and the exit codes. No logic of its own.

Results go to stdout, messages and progress to stderr. Heavy modules are imported by the command that needs them.
"""

import asyncio
import sys
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from etl import runtime
from etl.command import (
    AcceptDeletions,
    AsJson,
    Config,
    Quiet,
    RunTests,
    Since,
    Verbose,
    errors_reported,
    print_json,
    signals_stop,
    tell_hold,
)
from etl.version import __version__

if TYPE_CHECKING:
    from datetime import date

    from etl.progress import Notify
    from etl.settings import Settings
    from etl.summary import Summary
    from etl.verify import Report

app = typer.Typer(
    name="metrics-etl",
    help="Export Future AGI simulation metrics to a partitioned Parquet dataset.",
    epilog="Exit codes: 0 complete, 1 bug, 2 usage or configuration, 3 partial, 4 key refused, 5 source unavailable, "
    "6 destination failed, 75 another export is at work, 130/143 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class SchemaFormat(StrEnum):
    """How ``schema`` prints."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"


class Engine(StrEnum):
    """What ``schema --ddl`` writes for; see ``etl.outputs.ddl.ENGINES``."""

    PANDAS = "pandas"
    DUCKDB = "duckdb"
    POLARS = "polars"
    SPARK = "spark"
    BIGQUERY = "bigquery"
    SNOWFLAKE = "snowflake"
    ATHENA = "athena"
    REDSHIFT = "redshift"
    TRINO = "trino"
    CLICKHOUSE = "clickhouse"


class Spelling(StrEnum):
    """Whose names the sandbox gives to the free-form blocks."""

    SERVER = "server"
    DOCUMENTED = "documented"


def main() -> None:
    """Entry point of the command."""
    runtime.prepare()
    app()


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:  # noqa: D103, FBT002
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def run(
    config: Config = None,
    *,
    run_tests: RunTests = None,
    since: Since = None,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Fetch finished executions again, also final ones.")
    ] = False,
    accept_deletions: AcceptDeletions = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and change nothing, as the command plan does.")
    ] = False,
    metrics_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the run's figures for Prometheus there (.prom).")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Export what is new or changed since the last run. Safe to repeat, to interrupt and to run every night.

    Example: metrics-etl run --run-test "Checkout flow" --since 2026-11-01
    """
    with errors_reported(verbose=verbose):
        from etl.display import print_summary  # noqa: PLC0415
        from etl.outputs.prometheus import check_metrics_file, write_metrics_file  # noqa: PLC0415
        from etl.settings import Settings  # noqa: PLC0415

        settings = Settings.load(config).only(run_tests or (), since=since.date() if since else None)
        if metrics_file:
            check_metrics_file(metrics_file)
        if dry_run:
            _plan(settings, as_json=as_json, full_refresh=full_refresh, accept_deletions=accept_deletions)
        summary = _export(
            settings, quiet=quiet, verbose=verbose, full_refresh=full_refresh, accept_deletions=accept_deletions
        )
        if as_json:
            print_json(summary.as_json())
        elif not quiet:
            print_summary(summary)
        if quiet:
            for problem in summary.problems:
                print(problem, file=sys.stderr)
        if metrics_file:
            write_metrics_file(summary, metrics_file)
        raise typer.Exit(summary.exit_code)


@app.command()
def plan(config: Config = None, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Say what a run would fetch now, why, and how many requests it takes. Changes nothing.

    Example: metrics-etl plan --json
    """
    with errors_reported(verbose=verbose):
        from etl.settings import Settings  # noqa: PLC0415

        _plan(Settings.load(config), as_json=as_json)


@app.command()
def verify(
    config: Config = None,
    *,
    run_tests: RunTests = None,
    since: Since = None,
    against_api: Annotated[
        bool,
        typer.Option(
            "--against-api", help="Also compare the API's averages, percentiles and counts with those of the calls."
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Prove that the dataset is whole: every file, key, value and execution. Changes nothing, needs no key.

    Example: metrics-etl verify --against-api --since 2026-11-01
    """
    with errors_reported(verbose=verbose):
        from etl.settings import Settings  # noqa: PLC0415
        from etl.verdict import print_report  # noqa: PLC0415

        settings = Settings.load(config, needs_keys=against_api)
        report = _verify(
            settings.only(run_tests or (), since=since.date() if since else None),
            is_all=not run_tests,
            since=since.date() if since else None,
            against_api=against_api,
            quiet=quiet,
        )
        if as_json:
            print_json(report.as_json())
        elif not quiet:
            print_report(report)
        if quiet:
            for finding in report.findings:
                print(finding, file=sys.stderr)
        raise typer.Exit(report.exit_code)


@app.command()
def check(config: Config = None, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Look whether an export would work: settings, server, key, run tests, destination, lock. Changes nothing.

    Example: metrics-etl check
    """
    with errors_reported(verbose=verbose):
        from etl import check as command  # noqa: PLC0415
        from etl.display_health import print_checks  # noqa: PLC0415

        checks = runtime.run(command.check(config))
        if as_json:
            print_json(command.as_json(checks))
        else:
            print_checks(checks)
        raise typer.Exit(command.exit_code(checks))


@app.command()
def discover(config: Config = None, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """List the run tests that the key sees, to paste into the settings file. Needs the keys, but no settings file.

    Example: metrics-etl discover
    """
    with errors_reported(verbose=verbose):
        from etl import discover as command  # noqa: PLC0415
        from etl.settings import Settings  # noqa: PLC0415

        settings = Settings.load(config, needs_run_tests=False)
        found = runtime.run(command.discover_run_tests(settings, on_hold=tell_hold))
        if as_json:
            print_json(command.as_json(found))
        else:
            print("\n".join(command.as_toml(found)))
            for problem in found.problems:
                print(f"problem: {problem}", file=sys.stderr)
        raise typer.Exit(3 if found.problems else 0)


@app.command()
def status(
    config: Config = None,
    *,
    max_age_hours: Annotated[
        float | None,
        typer.Option(min=0, metavar="N", help="Exit 3 when the last complete run ended longer ago, for monitoring."),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Say how fresh the dataset is, what it holds and what is missing, and how the last runs went. Needs no key, no network.

    Example: metrics-etl status --max-age-hours 26
    """
    with errors_reported(verbose=verbose):
        from etl.display_health import print_status  # noqa: PLC0415
        from etl.settings import Settings  # noqa: PLC0415
        from etl.status import read_status  # noqa: PLC0415
        from etl.store.files import LocalFiles  # noqa: PLC0415

        settings = Settings.load(config, needs_keys=False, needs_run_tests=False)
        found = read_status(LocalFiles(settings.destination.folder), now=datetime.now(UTC))
        if as_json:
            print_json(found)
        else:
            print_status(found)
        raise typer.Exit(3 if max_age_hours is not None and found.is_older_than(max_age_hours) else 0)


@app.command()
def schema(
    table: Annotated[str | None, typer.Argument(help="One table; all when left out.")] = None,
    *,
    output: Annotated[
        SchemaFormat | None, typer.Option("--format", "-f", help="How to print.", show_default="table")
    ] = None,
    engine: Annotated[
        Engine | None, typer.Option("--ddl", help="Print what to paste to open the dataset in this engine instead.")
    ] = None,
    location: Annotated[
        str | None,
        typer.Option(
            metavar="LOCATION", help="With --ddl: path or URL of the dataset.", show_default="data or a placeholder"
        ),
    ] = None,
) -> None:
    """Print every column of the dataset: name, type, unit, meaning, source.

    Example: metrics-etl schema calls --ddl duckdb --location s3://my-bucket/metrics
    """
    from etl.tables.schema import TABLES  # noqa: PLC0415

    if table is not None and table not in TABLES:
        raise typer.BadParameter(f"no table {table!r}; there are {', '.join(TABLES)}")
    tables = [TABLES[table]] if table else list(TABLES.values())
    if engine:
        from etl.outputs.ddl import ddl  # noqa: PLC0415

        if output:
            raise typer.BadParameter("--format does not go with --ddl")
        with errors_reported(verbose=False):
            print(ddl(tables, engine, location))
        return
    if location is not None:
        raise typer.BadParameter("--location goes with --ddl")
    from etl.display import print_schema  # noqa: PLC0415

    print_schema(tables, output or SchemaFormat.TABLE)


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8765,
    seed: Annotated[int, typer.Option(help="The same seed makes the same world.")] = 1,
    run_tests: Annotated[int, typer.Option(min=1, max=1000, help="Run tests.")] = 3,
    executions: Annotated[int, typer.Option(min=0, max=100_000, help="Executions of each run test.")] = 20,
    calls: Annotated[int, typer.Option(min=0, max=100_000, help="Calls of each execution.")] = 25,
    rate_limit: Annotated[int, typer.Option(min=0, help="Requests a minute; 0 for no limit.")] = 0,
    latency_ms: Annotated[float, typer.Option(min=0, help="Delay of every answer.")] = 0,
    max_limit: Annotated[int, typer.Option(min=0, help="Most rows a page may have; 0 for any.")] = 0,
    faults: Annotated[float, typer.Option(min=0, max=1, help="Share of requests that fail in some way.")] = 0,
    spelling: Annotated[Spelling, typer.Option(help="Names of the free-form blocks.")] = Spelling.SERVER,
) -> None:
    """Serve the API in a box on this machine, with made-up run tests, until interrupted.

    Example: metrics-etl sandbox --rate-limit 100 --faults 0.02
    """
    from etl.demo import serve_sandbox  # noqa: PLC0415

    with errors_reported(verbose=False), suppress(KeyboardInterrupt):
        asyncio.run(
            serve_sandbox(
                port=port,
                seed=seed,
                run_tests=run_tests,
                executions=executions,
                calls=calls,
                rate_limit=rate_limit or None,
                latency_seconds=latency_ms / 1000,
                max_limit=max_limit or None,
                faults=faults,
                spelling=spelling.value,
            )
        )


@app.command()
def demo(
    path: Annotated[
        Path | None, typer.Option(help="Folder for the dataset.", show_default="a new temporary folder")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same world.")] = 1,
) -> None:
    """Export a made-up world from the sandbox, look at the result, change the world, export again. No key, no network.

    Example: metrics-etl demo
    """
    from etl.demo import run_demo  # noqa: PLC0415

    with errors_reported(verbose=False):
        runtime.run(run_demo(path, seed=seed))


def _plan(
    settings: "Settings", *, as_json: bool, full_refresh: bool = False, accept_deletions: bool = False
) -> NoReturn:
    from etl import job  # noqa: PLC0415
    from etl.display import plan_as_json, print_plan  # noqa: PLC0415

    result = runtime.run(job.plan(settings, full_refresh=full_refresh, accept_deletions=accept_deletions))
    if as_json:
        print_json(plan_as_json(result))
    else:
        print_plan(result)
    raise typer.Exit(3 if result.problems else 0)


def _verify(settings: "Settings", *, is_all: bool, since: "date | None", against_api: bool, quiet: bool) -> "Report":
    from etl.reconcile import compare, expected_requests  # noqa: PLC0415
    from etl.store.checks import counted  # noqa: PLC0415
    from etl.store.inventory import Scope  # noqa: PLC0415
    from etl.verify import verify  # noqa: PLC0415

    def tell(words: str) -> None:
        if not quiet:
            print(words, file=sys.stderr)

    # With run_tests = "all" a key was taken for a name: the dataset knows which it is.
    keys = None if is_all else frozenset(each for test in settings.run_tests for each in (test.key, test.name))
    report = verify(settings, Scope(keys, since), needs_aggregates=against_api)
    if against_api:
        tell(
            f"asking the API: {counted(expected_requests(settings, report.executions), 'request')}, one for each page of the lists"
        )
        report.add(
            runtime.run(
                compare(
                    settings,
                    report.executions,
                    unsound=report.unsound,
                    on_hold=lambda seconds: tell(f"the rate limit lets nothing through for {seconds:.0f} s"),
                )
            )
        )
    return report


def _export(
    settings: "Settings", *, quiet: bool, verbose: bool, full_refresh: bool, accept_deletions: bool
) -> "Summary":
    from etl import job  # noqa: PLC0415
    from etl.display import can_show_progress, live_progress  # noqa: PLC0415
    from etl.logs import make_notify  # noqa: PLC0415
    from etl.progress import Progress  # noqa: PLC0415

    progress = Progress()
    shows_progress = not quiet and not verbose and settings.log.format == "auto" and can_show_progress()
    notify: Notify | None = None if shows_progress or quiet else make_notify(settings.log, verbose=verbose)

    async def export() -> "Summary":
        with signals_stop() as stop, live_progress(progress, is_shown=shows_progress):
            return await job.export(
                settings,
                full_refresh=full_refresh,
                accept_deletions=accept_deletions,
                progress=progress,
                notify=notify,
                stop=stop,
            )

    return runtime.run(export())
