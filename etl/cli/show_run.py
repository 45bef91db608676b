"""What ``plan``, ``run`` and ``load`` print, and how to open the dataset. Decides nothing."""

from collections.abc import Sequence
from typing import Any

from etl.cli.console import by_purpose, duration, print_alarms, print_line, print_notices, print_table
from etl.extract.endpoints import Purpose
from etl.extract.plan import Reason
from etl.load.warehouse.load import Result
from etl.model import schema
from etl.model.locations import Options, scheme_of
from etl.model.values import fields_of
from etl.model.wording import counted
from etl.pipeline.job import Plan
from etl.pipeline.summary import RunTestSummary, Summary

_STANDARD_REQUESTS_PER_MINUTE = 100


def print_summary(summary: Summary) -> None:
    """What was written, what is missing and where the dataset is; to stdout."""
    titles = ("run test", "listed", "fetched", "waiting", "calls", "evals", "state")
    print_table(titles, map(_run_test_row, summary.run_tests), words={"state"})
    print_line("written", _written(summary))
    print_line("requests", _requests(summary))
    if summary.store_requests:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(summary.store_requests.items()))
        sent = counted(sum(summary.store_requests.values()), "request")
        print_line("bucket", f"{sent} to the store so far: {kinds}")
    print_line("dataset", f"{summary.dataset} (new)" if summary.is_first else summary.dataset)
    if summary.load:
        print_line("warehouse", f"{summary.load.warehouse}: {loaded(summary.load)}")
        print_line("notice", *summary.load.notices)
    if misfits := sum(run_test.misfits for run_test in summary.run_tests):
        print_line("misfits", f'{counted(misfits, "value")} that did not fit: see the column "extra"')
    if previewed := sum(run_test.previewed for run_test in summary.run_tests):
        executions = counted(previewed, "execution")
        print_line("from lists", f"{executions} so far: readable, and fetched exactly by the next run")
    print_notices(summary.findings)
    if summary.failure:
        print_line("problem", str(summary.failure))
    told = {*summary.problems}
    alarms = [finding for finding in summary.findings if str(finding) in told]
    print_alarms(alarms, has_next_step=summary.failure is None)
    if summary.load_failure:
        print_line("problem", f"not loaded: {summary.load_failure}")
    print_line("outcome", f"{summary.outcome} (exit {summary.exit_code})")


def print_load(result: Result, *, is_dry_run: bool) -> None:
    """What differed, and what was loaded; to stdout."""
    print_line("warehouse", result.warehouse)
    print_line("differed", loaded(result))
    if is_dry_run:
        print_line("outcome", "nothing was changed" if result.is_changed else "nothing to do")
        return
    rows = ", ".join(counted(count, name.removesuffix("s")) for name, count in result.rows.items())
    if result.is_changed:
        print_line("loaded", rows or "no rows")
    print_line("notice", *result.notices)
    print_line("problem", *result.problems)


def loaded(result: Result) -> str:
    """What a load was about, in a few words."""
    told = fields_of(result, "new", "changed") | {"changed in the warehouse": result.altered, "removed": result.removed}
    parts = [f"{count:,} {name}" for name, count in told.items() if count]
    if parts:
        return f"executions: {', '.join(parts)}"
    return "no executions" if result.is_changed else "nothing: it is up to date"


def print_how_to_open(dataset: str, options: Options | None = None) -> None:
    """Code that opens the dataset, to copy; to stdout. ``options`` are those of a bucket."""
    given = f", options={dict(options)}" if options else ""
    print_line("Python", f'etl.read_calls("{dataset}", evals="wide"{given})')
    if scheme_of(dataset) is None:
        print_line("pandas", f'pd.read_parquet("{dataset}/calls", dtype_backend="pyarrow")')
        print_line("DuckDB", f"FROM '{dataset}/calls/*/*/*.parquet'")


def _written(summary: Summary) -> str:
    rows = ", ".join(
        counted(summary.rows[name], name.removesuffix("s")) for name in schema.TABLES if summary.rows.get(name)
    )
    if rows:
        return f"{rows} (new or changed rows)"
    if summary.files:
        return f"{counted(summary.files, 'file')}, with no new or changed rows"
    return "nothing" if summary.exit_code else "nothing: everything is up to date"


def _requests(summary: Summary) -> str:
    text = f"{counted(summary.requests, 'request')} in {duration(summary.seconds)}"
    if summary.retries or summary.rejections:
        text += f" ({summary.retries:,} sent again, {summary.rejections:,} refused by the rate limit)"
    if summary.requests:
        text += f": {by_purpose(summary.requests_by_purpose)}"
    if summary.saved_requests > 0:
        text += f"; {counted(summary.saved_requests, 'request')} avoided by checking for changes first"
    return text


def _run_test_row(run_test: RunTestSummary) -> Sequence[str | int]:
    waiting = run_test.reasons[Reason.WAITING]
    fetched = sum(run_test.reasons.values()) - waiting - run_test.reasons[Reason.FINAL] - run_test.missed
    state = "complete" if run_test.is_complete else "failed" if run_test.error else "incomplete"
    state = f"{run_test.missed:,} left" if run_test.missed else state
    return run_test.name, run_test.listed, fetched, waiting, run_test.calls, run_test.evals, state


def print_plan(plan: Plan) -> None:
    """The plan by run test and reason, with requests and minutes; to stdout."""
    rows = (
        (run_test.name, count, f"{reason.value}: {reason.meaning}")
        for run_test in plan.run_tests
        for reason in Reason
        if (count := run_test.reasons[reason])
    )
    print_table(("run test", "executions", "what and why"), rows, words={"what and why"})
    print_line("problem", *plan.problems)
    print_line("requests", _planned_requests(plan))
    print_line("duration", _duration(plan))
    if plan.previews and plan.seconds_to_use is not None:
        new, requests = counted(len(plan.previews), "new execution"), counted(plan.requests_to_use, "request")
        print_line("readable", f"{new} after about {duration(plan.seconds_to_use)}, {requests}: from their lists")


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """The plan as a JSON object: run tests with reasons, and the executions to fetch, in order."""
    return {
        "requests": plan.requests,
        "requests_by_purpose": {purpose.value: count for purpose, count in plan.requests_by_purpose.items()},
        "requests_per_minute": plan.requests_per_minute,
        "minutes": _minutes(plan.seconds),
        "minutes_to_use": _minutes(plan.seconds_to_use),
        **fields_of(plan, "requests_to_use", "problems"),
        "run_tests": [fields_of(each, "name", "key", "listed", "reasons", "error") for each in plan.run_tests],
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


def _planned_requests(plan: Plan) -> str:
    lists = plan.requests_by_purpose[Purpose.LIST]
    text = f"{counted(plan.requests, 'request')} to fetch what is planned"
    if plan.requests:
        text += f": {by_purpose({**plan.requests_by_purpose, Purpose.LIST: 0})}"
    return f"{text}; the lists take {lists:,} more"


def _minutes(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds / 60, 2)


def _duration(plan: Plan) -> str:
    if not plan.requests:
        return "nothing to fetch from the lists that could be read" if plan.problems else "nothing to fetch"
    limit = counted(plan.requests_per_minute or 0, "request")
    if plan.seconds is not None and plan.seconds < 1:
        return f"within a minute: the limit is {limit} a minute"
    if plan.seconds is not None:
        return f"about {duration(plan.seconds)} at {limit} a minute"
    at_standard = duration(plan.requests / _STANDARD_REQUESTS_PER_MINUTE * 60)
    return f"{at_standard} at {_STANDARD_REQUESTS_PER_MINUTE} requests a minute; the API does not announce a limit"
