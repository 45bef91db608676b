"""The demo, and the sandbox as a command: made-up run tests, a real export, a look at the result.

Composes the sandbox and the job for people to look at; everything it shows is read back from the files that were written.
"""

import asyncio
import random
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from etl import sandbox
from etl.cli.show_run import print_opening, print_summary
from etl.errors import ConfigurationError
from etl.inspect.tables import read_table
from etl.load.files.open import open_files
from etl.load.parquet import read_footer
from etl.model.schema import TABLES
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox.answers import Spelling
from etl.settings import Settings

_API_KEY = "sandbox-key"
_SECRET_KEY = "sandbox-secret"  # noqa: S105 the sandbox has nothing to protect
_RUN_TESTS, _EXECUTIONS, _CALLS = 3, 20, 25
_SETTLED = timedelta(days=2)
_SHOWN = ["run_test_name", "status", "duration_seconds", "latency_avg_agent_latency_ms", "cost_total_cost_cents"]


async def run_demo(path: Path | None, *, seed: int) -> None:
    """Export a made-up world twice, before and after it changed, and show what is in the dataset.

    Raises:
        ExporterError: as ``job.export``.
    """
    console = Console(highlight=False)
    dataset = path or Path(tempfile.mkdtemp(prefix="metrics-etl-demo-"))
    rng = random.Random(seed)  # noqa: S311 a made-up world is no secret
    now = _latest_friday(datetime.now(UTC))
    world = sandbox.make_world(
        rng, run_tests=_RUN_TESTS, executions=_EXECUTIONS, calls=_CALLS, end=now - _SETTLED, include_unfinished=False
    )
    async with sandbox.Sandbox(world, api_key=_API_KEY, secret_key=_SECRET_KEY) as server:
        settings = Settings.model_validate(
            {
                "run_tests": [run_test.name for run_test in world.run_tests],
                "api": {"base_url": server.base_url},
                "destination": {"path": str(dataset)},
                "api_key": _API_KEY,
                "secret_key": _SECRET_KEY,
            }
        )
        _say(console, f"A sandbox with {_RUN_TESTS} run tests answers at {server.base_url}. First export:")
        _check(await job.export(settings))
        _show_tree(console, dataset)
        calls = read_table(dataset, "calls")
        _say(
            console,
            f"The first three of {len(calls):,} calls in pandas, {len(_SHOWN)} of {len(calls.columns)} columns:",
        )
        console.print(calls[_SHOWN].head(3).to_string(index=False), soft_wrap=True)
        _say(console, "The 95th percentile of agent latency, per run test and week (one of them got worse):")
        console.print(weekly_p95_latency(calls).to_string(), soft_wrap=True)

        _change(world, rng, now)
        _say(console, "Now the world changes: a new execution, a rerun, one that has just started. Second export:")
        summary = _check(await job.export(settings))
        print_summary(summary)
        _say(console, "Only what changed was fetched. A third export finds nothing new:")
        summary = _check(await job.export(settings))
        console.print(f"requests sent: {summary.requests}, files written: {summary.files}", soft_wrap=True)
    _say(console, f"The dataset stays in {dataset}. Open it with")
    print_opening(str(dataset))


async def serve_sandbox(
    *,
    port: int,
    seed: int,
    run_tests: int,
    executions: int,
    calls: int,
    rate_limit: int | None,
    latency_seconds: float,
    max_limit: int | None,
    faults: float,
    spelling: Spelling,
) -> None:
    """Serve a made-up world on loopback until cancelled."""
    rng = random.Random(seed)  # noqa: S311 a made-up world is no secret
    world = sandbox.make_world(
        rng,
        run_tests=run_tests,
        executions=executions,
        calls=calls,
        end=_latest_friday(datetime.now(UTC)) - _SETTLED,
        include_unfinished=False,
    )
    server = sandbox.Sandbox(
        world,
        api_key=_API_KEY,
        secret_key=_SECRET_KEY,
        port=port,
        rate_limit=rate_limit,
        latency_seconds=latency_seconds,
        max_limit=max_limit,
        fault=sandbox.random_faults(rng, faults) if faults else None,
        spelling=spelling,
    )
    try:
        await server.start()
    except OSError as exc:
        raise ConfigurationError(f"--port {port}: {exc.strerror}: choose another, or 0 for a free one") from None
    try:
        print(f"export FI_BASE_URL={server.base_url} FI_API_KEY={_API_KEY} FI_SECRET_KEY={_SECRET_KEY}")
        names = ", ".join(f'"{run_test.name}"' for run_test in world.run_tests)
        print(f"run_tests = [{names}]", flush=True)
        await asyncio.Event().wait()
    finally:
        await server.stop()


def weekly_p95_latency(calls: pd.DataFrame) -> pd.DataFrame:
    """95th percentile of ``latency_avg_agent_latency_ms`` in ms: one row per week (its Monday), one column per run test."""
    monday = calls["execution_started_at"].dt.floor("W").dt.date.rename("week")
    grouped = calls.groupby([monday, "run_test_name"])["latency_avg_agent_latency_ms"]
    return grouped.quantile(0.95).round().unstack().rename_axis(columns=None)


def _latest_friday(now: datetime) -> datetime:
    """15:00 UTC of the latest Friday: start times are drawn by hour and weekday, so that each week has the same world."""
    friday = (now - timedelta(days=(now.weekday() - 4) % 7)).replace(hour=15, minute=0, second=0, microsecond=0)
    return friday if friday <= now else friday - timedelta(weeks=1)


def _change(world: sandbox.World, rng: random.Random, now: datetime) -> None:
    """A new finished execution, a rerun that finished, and one that has just started."""
    first, second = world.run_tests[0], world.run_tests[1]
    sandbox.add_execution(world, first, rng, now - timedelta(hours=30), _CALLS)
    rerun = sandbox.listable_executions(world, second.name)[0]
    sandbox.rerun_execution(rerun, now - timedelta(hours=28))
    sandbox.finish_execution(rerun, rng, now - timedelta(hours=27))
    sandbox.add_execution(world, first, rng, now - timedelta(minutes=15), _CALLS, status="running")


def _check(summary: Summary) -> Summary:
    if summary.failure:
        raise summary.failure
    return summary


def _show_tree(console: Console, dataset: Path) -> None:
    """The dataset as it lies on disk: each table with its rows, and the first of its files."""
    _say(console, "The dataset on disk:")
    tree = Tree(f"{dataset}/")
    files = open_files(str(dataset))
    for table in sorted(TABLES):
        if not (paths := files.list(table)):
            continue
        rows = sum(read_footer(files, path).rows for path in paths)
        branch = tree.add(f"{table}/  [dim]rows: {rows:,}, files: {len(paths):,}[/]")
        for part in paths[0].split("/")[1:]:
            branch = branch.add(escape(part))
    console.print(tree, soft_wrap=True)


def _say(console: Console, text: str) -> None:
    console.print(f"\n[bold]{escape(text)}[/]", soft_wrap=True)
