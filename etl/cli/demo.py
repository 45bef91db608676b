"""What ``demo`` does: made-up run tests, a real export, and what it wrote, read back from the files.

Everything is what a user could do with the commands; only the source is simulated.
"""

import random
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.markup import escape

from etl import sandbox
from etl.cli.console import print_lines, print_result, stdout_console
from etl.cli.report_command import page_module, write_report
from etl.cli.show_dataset import print_tables
from etl.cli.show_run import print_how_to_open, print_load, print_summary
from etl.dataset.parts import Dataset
from etl.errors import ConfigurationError
from etl.files.open import open_files
from etl.inspect.read_status import read_status
from etl.inspect.read_tables import read_table
from etl.load.open import module_for
from etl.load.synchronize import load_warehouse
from etl.model.wording import shown
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.report.gather import gather_contents
from etl.sandbox.generate import add_execution, finish_execution, latest_friday, settled_world
from etl.sandbox.world import listable_executions, rerun_execution
from etl.settings import Settings
from etl.settings.sections import WarehouseSettings

_RUN_TESTS, _EXECUTIONS, _CALLS = 3, 20, 25
_QUESTION = """\
SELECT run_test_name, count(*) AS calls, round(sum(cost_total_cost_cents) / 100.0, 2) AS dollars
FROM simulation_metrics.calls_current
GROUP BY run_test_name
ORDER BY dollars DESC"""


async def run_demo(path: Path | None, *, seed: int, now: datetime) -> None:
    """Export a made-up world three times, changing it after the first, and show what is in the dataset.

    ``path`` is a new folder, by default a temporary one. The same ``seed`` and ``now`` give the same rows.

    Raises:
        ConfigurationError: something lies where the demo would write.
        ExporterError: an export failed.
    """
    if path:
        _require_free(path)
    dataset = path or Path(tempfile.mkdtemp(prefix="metrics-etl-demo-"))
    rng = random.Random(seed)  # noqa: S311 a made-up world is no secret
    world = settled_world(rng, now, run_tests=_RUN_TESTS, executions=_EXECUTIONS, calls=_CALLS)
    async with sandbox.Sandbox(world) as server:
        settings = Settings.model_validate(
            {
                "run_tests": [run_test.name for run_test in world.run_tests],
                "api": {"base_url": server.base_url},
                "destination": {"path": str(dataset)},
                "export": {"settle_hours": 0},  # the exports follow one another at once, and nothing comes late here
                "api_key": sandbox.API_KEY,
                "secret_key": sandbox.SECRET_KEY,
            }
        )
        _print_step(f"A sandbox with {_RUN_TESTS} run tests is running at {server.base_url}. First export:")
        _raise_failure(await job.export(settings))
        _print_step("The dataset on disk:")
        print_tables(read_status(open_files(str(dataset)), now=datetime.now(UTC)).tables)
        _change_world(world, rng, latest_friday(now))
        _print_step("Now the source has a new, a running and a rerun execution, and a deleted call. Second export:")
        print_summary(_raise_failure(await job.export(settings)))
        _print_step("The deleted call stays in the dataset, marked as deleted:")
        calls = read_table(dataset, "calls", deleted="include").dropna(subset="deleted_at")
        columns = ["run_test_name", "call_execution_id", "duration_seconds", "deleted_at"]
        print_result(calls[columns].to_string(index=False, formatters={"deleted_at": "{:%Y-%m-%d}".format}))
        _print_step("A third export compares the deleted call's execution with the source once more:")
        print_lines(list(_raise_failure(await job.export(settings)).lines())[:2])
    for name, show in (("warehouse", _show_warehouse), ("report", _show_report)):
        try:
            show(dataset, settings)
        except ConfigurationError as error:  # its extra is not installed
            _print_step(f"Skipped the {name}: {error}")
    _print_step(f"The dataset stays in {dataset}. To open the dataset:")
    print_how_to_open(str(dataset))


def _require_free(path: Path) -> None:
    """Refuse a place that is taken: made-up rows must not mix with a real dataset, its warehouse or its report."""
    for place in (path, Path(f"{path}.duckdb"), Path(f"{path}.html")):
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            raise ConfigurationError(f"--path: {place} already exists. Name a new folder")


def _show_warehouse(dataset: Path, settings: Settings) -> None:
    """Load the dataset into a DuckDB file beside it, and query it.

    Raises:
        ConfigurationError: DuckDB is not installed.
    """
    url = f"duckdb://{dataset}.duckdb"
    module_for(url)
    import duckdb

    stored = Dataset(open_files(str(dataset)), compression=settings.destination.compression)
    _print_step("Load the dataset into a warehouse, which is a DuckDB file here:")
    print_load(load_warehouse(WarehouseSettings(url=url), stored, datetime.now(UTC)), is_dry_run=False)
    _print_step("Query the warehouse with SQL:")
    print_result(_QUESTION)
    with duckdb.connect(f"{dataset}.duckdb", read_only=True) as warehouse:
        print_result(warehouse.sql(_QUESTION).df().to_string(index=False))


def _show_report(dataset: Path, settings: Settings) -> None:
    """Write a report beside the dataset.

    Raises:
        ConfigurationError: the packages of the report are not installed.
    """
    page = page_module()
    files = open_files(str(dataset))
    _print_step("Draw a report for a browser or an e-mail:")
    contents = gather_contents(files, read_status(files, now=datetime.now(UTC)), rules=settings.compare)
    write_report(page, contents, Path(f"{dataset}.html"))


def _change_world(world: sandbox.World, rng: random.Random, now: datetime) -> None:
    """Add a finished execution and one that has just started, rerun one, and delete one of its calls."""
    first, second = world.run_tests[0], world.run_tests[1]
    add_execution(world, first, rng, now - timedelta(hours=30), _CALLS)
    rerun = listable_executions(world, second.name)[0]
    rerun_execution(rerun, now - timedelta(hours=28))
    finish_execution(rerun, rng, now - timedelta(hours=27))
    rerun.calls[0].is_deleted = True
    add_execution(world, first, rng, now - timedelta(minutes=15), _CALLS, status="running")


def _raise_failure(summary: Summary) -> Summary:
    """The summary of a run that did not fail.

    Raises:
        ExporterError: what the run failed with.
    """
    if summary.failure:
        raise summary.failure
    return summary


def _print_step(text: str) -> None:
    stdout_console().print(f"\n[bold]{escape(shown(text))}[/]", soft_wrap=True, highlight=False)
