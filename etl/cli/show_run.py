"""What people see: progress, the closing summary, the plan, the schema. Writes to the terminal; decides nothing."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from etl.cli.console import duration, plain, stdout_console
from etl.extract.plan import REASON_MEANINGS, Reason
from etl.model import schema
from etl.pipeline.job import Plan
from etl.pipeline.progress import Progress
from etl.pipeline.summary import RunTestSummary, Summary

_STANDARD_REQUESTS_PER_MINUTE = 100


def can_show_progress() -> bool:
    """Whether stderr is a terminal on which a line can be drawn again."""
    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


@contextmanager
def live_progress(progress: Progress, *, is_shown: bool) -> Iterator[None]:
    """Show the run's progress on stderr while the block runs."""
    if not is_shown:
        yield
        return
    console = Console(stderr=True)
    with Live(
        get_renderable=lambda: _progress_line(progress, monotonic(), width=console.width),
        console=console,
        refresh_per_second=4,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield


def _progress_line(progress: Progress, now: float, *, width: int) -> Table:
    """One line, what matters most first, cut at the width of the terminal."""
    line = Table.grid(padding=(0, 1))
    words = Text("  ".join(progress_words(progress, now)), no_wrap=True, overflow="ellipsis")
    if progress.crawl is None:
        line.add_row(words)
    else:
        total, done = max(progress.planned_requests, 1), progress.done_requests
        line.add_row(ProgressBar(total=total, completed=done, width=8 if width <= 100 else 24), words)
    return line


def progress_words(progress: Progress, now: float) -> Iterator[str]:
    """What the line of progress says at this time."""
    if progress.crawl is None:
        yield f"listing: {progress.listed_executions:,} executions, {progress.traffic.requests:,} requests"
    else:
        yield f"{progress.done_requests:,}/{progress.planned_requests:,} requests"
        if (seconds := progress.seconds_left(now)) is not None:
            yield f"{duration(seconds)} left"
    if (held := math.ceil(progress.held_seconds(now))) > 1:
        yield f"rate limit: waiting {held} s"
    elif (left := progress.quota.left(now)) is not None:
        yield f"rate limit: {left:,} of {progress.quota.requests_per_minute:,} left"
    if progress.crawl is not None:
        yield f"{progress.committed_executions:,}/{progress.planned_executions:,} saved"


def print_summary(summary: Summary) -> None:
    """What is new, what is missing, where it is, and how to open it; to stdout."""
    console = stdout_console()
    _print_run_tests(console, summary.run_tests)
    rows = summary.rows
    written = ", ".join(f"{rows[name]:,} {name}" for name in schema.TABLES if rows.get(name))
    written = f"{written} (new or changed rows)" if written else "nothing: everything was up to date"
    requests = f"{summary.requests:,} requests in {duration(summary.seconds)}"
    if summary.necessary_requests and not summary.failure:
        requests += f", {summary.requests / summary.necessary_requests:.2f} times what was necessary"
    if summary.retries or summary.rejections:
        requests += f" ({summary.retries:,} retries, {summary.rejections:,} refused by the rate limit)"
    console.print(f"written    {written}", soft_wrap=True)
    console.print(f"requests   {requests}", soft_wrap=True)
    console.print(f"dataset    {escape(summary.dataset)}", soft_wrap=True)
    if misfits := sum(run_test.misfits for run_test in summary.run_tests):
        console.print(
            f"misfits    {misfits:,} values did not fit their column and stand in the column extra", soft_wrap=True
        )
    for notice in summary.notices:
        console.print(f"notice     {escape(notice)}", soft_wrap=True)
    for problem in summary.problems:
        console.print(f"[bold red]problem[/]    {escape(problem)}", soft_wrap=True)
    console.print(f"outcome    {summary.outcome} (exit {summary.exit_code})", soft_wrap=True)


def print_opening(dataset: str) -> None:
    """How to open the dataset, to paste; to stdout."""
    console = stdout_console()
    for line in (
        f'Python     etl.read_calls("{dataset}", evals="wide")',
        f'pandas     pd.read_parquet("{dataset}/calls", dtype_backend="pyarrow")',
        f"DuckDB     FROM '{dataset}/calls/*/*/*.parquet'",
    ):
        console.print(escape(line), soft_wrap=True, highlight=False)


def _print_run_tests(console: Console, run_tests: Sequence[RunTestSummary]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run test", overflow="fold", max_width=40)
    for name in ("listed", "fetched", "waiting", "calls", "evals"):
        table.add_column(name, justify="right")
    table.add_column("state", overflow="fold")
    for run_test in run_tests:
        waiting = run_test.reasons[Reason.WAITING]
        fetched = sum(run_test.reasons.values()) - waiting - run_test.reasons[Reason.FINAL] - run_test.missed
        figures = (run_test.listed, fetched, waiting, run_test.calls, run_test.evals)
        state = "complete" if run_test.is_whole else "failed" if run_test.error else "incomplete"
        state = f"{run_test.missed:,} left" if run_test.missed else state
        table.add_row(plain(run_test.name), *(f"{figure:,}" for figure in figures), state)
    console.print(table)


def print_plan(plan: Plan) -> None:
    """The plan by run test and reason, with requests and minutes; to stdout."""
    console = stdout_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run test", overflow="fold", max_width=40)
    table.add_column("executions", justify="right")
    table.add_column("what and why", overflow="fold")
    for run_test in plan.run_tests:
        for reason in Reason:
            if count := run_test.reasons[reason]:
                table.add_row(plain(run_test.name), f"{count:,}", f"{reason.value}: {REASON_MEANINGS[reason]}")
    console.print(table)
    for problem in plan.problems:
        console.print(f"[bold red]problem[/]    {escape(problem)}", soft_wrap=True)
    console.print(f"requests   {plan.requests:,} to fetch what is planned", soft_wrap=True)
    console.print(f"duration   {_plan_duration(plan)}", soft_wrap=True)


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """The plan as a JSON object: run tests with reasons, and the executions to fetch in their order."""
    return {
        "requests": plan.requests,
        "requests_per_minute": plan.requests_per_minute,
        "minutes": _minutes(plan),
        "problems": plan.problems,
        "run_tests": [
            {
                "name": run_test.name,
                "key": run_test.key,
                "listed": run_test.listed,
                "reasons": run_test.reasons,
                "error": run_test.error,
            }
            for run_test in plan.run_tests
        ],
        "executions": [
            {
                "execution_id": item.execution.execution_id,
                "run_test": item.run_test_name,
                "reason": item.reason.value,
                "estimated_calls": item.estimated_calls,
            }
            for item in plan.planned
            if item.is_fetched
        ],
    }


def print_schema(tables: Sequence[schema.Table], output: str) -> None:
    """The columns of the tables, as a table, JSON or Markdown; to stdout."""
    if output == "json":
        document = [
            {
                "table": table.name,
                "one_row_per": table.one_row_per,
                "key": table.key,
                "columns": [
                    {
                        "name": column.name,
                        "type": column.type_name,
                        "unit": column.unit or None,
                        "meaning": column.meaning,
                        "source": column.source or None,
                        "null": column.null_rule,
                    }
                    for column in table.columns
                ],
            }
            for table in tables
        ]
        print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
    elif output == "markdown":
        print("\n".join(schema_markdown(tables)))
    else:
        console = stdout_console()
        for table in tables:
            console.print(
                f"\n[bold]{table.name}[/]: one row per {table.one_row_per}; key {', '.join(table.key)}", highlight=False
            )
            grid = Table(box=None, pad_edge=False, header_style="bold")
            for name in ("column", "type", "unit", "meaning"):
                grid.add_column(name, overflow="fold")
            for column in table.columns:
                grid.add_row(*map(Text, (column.name, column.type_name, column.unit, column.meaning)))
            console.print(grid)


def schema_markdown(tables: Sequence[schema.Table]) -> Iterator[str]:
    """The lines of a Markdown section per table."""
    for table in tables:
        yield f"## {table.name}"
        yield ""
        source = f" Source: `GET {table.endpoint}`." if table.endpoint else ""
        yield f"One row per {table.one_row_per}. Key: {', '.join(f'`{name}`' for name in table.key)}.{source}"
        yield ""
        yield "| column | type | unit | meaning | source | null |"
        yield "|---|---|---|---|---|---|"
        for column in table.columns:
            paths = " or ".join(f"`{path}`" for path in column.source.split("|")) if column.source else ""
            cells = (f"`{column.name}`", column.type_name, column.unit, column.meaning, paths, column.null_rule)
            yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
        yield ""


def _minutes(plan: Plan) -> float | None:
    return None if plan.seconds is None else round(plan.seconds / 60, 2)


def _plan_duration(plan: Plan) -> str:
    if not plan.requests:
        return "nothing to fetch"
    if plan.seconds is not None and plan.seconds < 1:
        return f"within a minute: the limit is {plan.requests_per_minute:,} requests a minute"
    if plan.seconds is not None:
        return f"about {duration(plan.seconds)} at {plan.requests_per_minute:,} requests a minute"
    at_standard = duration(plan.requests / _STANDARD_REQUESTS_PER_MINUTE * 60)
    return f"{at_standard} at {_STANDARD_REQUESTS_PER_MINUTE} requests a minute; the API told no limit"
