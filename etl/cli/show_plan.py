"""What ``plan`` prints, and ``run --dry-run``. Decides nothing."""

from typing import Any

from etl.cli.console import by_purpose, duration, make_table, print_line, printable, stdout_console
from etl.extract.endpoints import Purpose
from etl.extract.plan import REASON_MEANINGS, Reason
from etl.model.wording import counted
from etl.pipeline.job import Plan

_STANDARD_REQUESTS_PER_MINUTE = 100


def print_plan(plan: Plan) -> None:
    """The plan by run test and reason, with requests and minutes; to stdout."""
    console = stdout_console()
    table = make_table(console, "run test", ("executions",), ("what and why",))
    for run_test in plan.run_tests:
        for reason in Reason:
            if count := run_test.reasons[reason]:
                table.add_row(printable(run_test.name), f"{count:,}", f"{reason.value}: {REASON_MEANINGS[reason]}")
    console.print(table)
    for problem in plan.problems:
        print_line(console, "problem", problem, style="bold red")
    print_line(console, "requests", _requests(plan))
    print_line(console, "duration", _duration(plan))


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """The plan as a JSON object: run tests with reasons, and the executions to fetch, in order."""
    return {
        "requests": plan.requests,
        "requests_by_purpose": {purpose.value: count for purpose, count in plan.requests_by_purpose.items()},
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


def _requests(plan: Plan) -> str:
    lists = plan.requests_by_purpose[Purpose.LIST]
    text = f"{counted(plan.requests, 'request')} to fetch what is planned"
    if plan.requests:
        text += f": {by_purpose({**plan.requests_by_purpose, Purpose.LIST: 0})}"
    return f"{text}; the lists take {lists:,} more"


def _minutes(plan: Plan) -> float | None:
    return None if plan.seconds is None else round(plan.seconds / 60, 2)


def _duration(plan: Plan) -> str:
    if not plan.requests:
        return "nothing to fetch of what could be listed" if plan.problems else "nothing to fetch"
    limit = counted(plan.requests_per_minute or 0, "request")
    if plan.seconds is not None and plan.seconds < 1:
        return f"within a minute: the limit is {limit} a minute"
    if plan.seconds is not None:
        return f"about {duration(plan.seconds)} at {limit} a minute"
    at_standard = duration(plan.requests / _STANDARD_REQUESTS_PER_MINUTE * 60)
    return f"{at_standard} at {_STANDARD_REQUESTS_PER_MINUTE} requests a minute; the API does not announce a limit"
