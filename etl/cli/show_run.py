"""What ``plan``, ``run`` and ``load`` print, and how to open the dataset. Decides nothing."""

from collections.abc import Sequence
from typing import Any

from etl.cli.console import print_line, print_lines, print_table
from etl.extract.plan import Reason
from etl.load.synchronize import LoadResult
from etl.model.locations import Options, scheme_of
from etl.model.values import fields_of
from etl.model.wording import counted
from etl.pipeline.job import Plan
from etl.pipeline.summary import RunTestSummary, Summary


def print_summary(summary: Summary) -> None:
    """Print what a run has written, what is missing, and where the dataset is, to stdout."""
    titles = ("run test", "listed", "fetched", "waiting", "calls", "evals", "state")
    rows = [_run_test_row(run_test, has_ended_early=summary.failure is not None) for run_test in summary.run_tests]
    print_table(titles, rows, words={"state"})
    print_lines(summary.lines())


def print_load(result: LoadResult, *, is_dry_run: bool) -> None:
    """Print what differed between dataset and warehouse, and what was loaded, to stdout."""
    print_line("warehouse", result.warehouse)
    print_line("changes", result.in_words)
    if is_dry_run:
        print_line("outcome", "nothing was changed, as this is a dry run" if result.is_changed else "nothing to do")
        return
    rows = ", ".join(counted(count, name.removesuffix("s")) for name, count in result.rows.items())
    if result.is_changed:
        print_line("loaded", rows or "no rows")
    print_line("notice", *result.notices)
    print_line("problem", *result.problems)


def print_how_to_open(dataset: str, options: Options | None = None) -> None:
    """Print code that reads the calls that the source still has to stdout, to copy.

    ``options`` are those of a bucket.
    """
    more = f", options={dict(options)}" if options else ""
    print_line("Python", f'import etl; calls = etl.read_calls("{dataset}", evals="wide"{more})')
    if scheme_of(dataset) is None:
        read = f'import pandas; calls = pandas.read_parquet("{dataset}/calls", dtype_backend="pyarrow")'
        print_line("pandas", f"{read}.loc[lambda calls: calls.deleted_at.isna()]")
        print_line("DuckDB", f"FROM '{dataset}/calls/*/*/*.parquet' WHERE deleted_at IS NULL")


def _run_test_row(run_test: RunTestSummary, *, has_ended_early: bool) -> Sequence[str | int]:
    waiting = run_test.reasons[Reason.WAITING]
    not_fetched = waiting + sum(run_test.reasons[reason] for reason in (Reason.FINAL, Reason.FORGOTTEN, Reason.SWEEP))
    fetched = sum(run_test.reasons.values()) - not_fetched - run_test.missed
    if run_test.missed:
        state = f"{run_test.missed:,} left{f', {run_test.previewed:,} readable' if run_test.previewed else ''}"
    elif run_test.is_complete:
        state = "complete"
    elif run_test.error:
        state = "failed"
    else:
        state = "ended early" if has_ended_early else "incomplete"
    return run_test.name, run_test.listed, fetched, waiting, run_test.calls, run_test.evals, state


def print_plan(plan: Plan) -> None:
    """Print the plan to stdout: executions by run test and reason, then requests and minutes."""
    rows = (
        (run_test.name, count, f"{reason.value}: {reason.meaning}")
        for run_test in plan.run_tests
        for reason in Reason
        if (count := run_test.reasons[reason])
    )
    print_table(("run test", "executions", "what and why"), rows, words={"what and why"})
    print_lines(plan.lines())


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """The plan as a JSON object: run tests with reasons, and the executions to fetch, in the order of the run."""
    return {
        "requests": plan.requests,
        "requests_by_purpose": {purpose.value: count for purpose, count in plan.requests_by_purpose.items()},
        **fields_of(plan, "call_requests", "requests_per_minute"),
        "minutes": _minutes(plan.seconds),
        "minutes_to_use": _minutes(plan.seconds_to_use),
        **fields_of(plan, "requests_to_use", "problems"),
        "run_tests": [fields_of(run_test, "name", "key", "listed", "reasons", "error") for run_test in plan.run_tests],
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


def _minutes(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds / 60, 2)
