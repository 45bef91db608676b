"""What a report holds: how fresh and complete the dataset is, and the figures of each run test. Asks the dataset alone."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from etl.compare.nightly import Judged, by_run_test, judge_nights, read_nights
from etl.files.interface import Files
from etl.inspect.status import Status, StatusVerdict
from etl.model.findings import Kind, alarms
from etl.model.wording import counted
from etl.report.figures import CALLS_READ, Figures, figures_of

MOST_DETAILS = 10
"""So many run tests are shown in detail, those that got worse most; of each other the overview has a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContents:
    """``missing``: what the dataset does not hold, in words. ``judged``: what the verdict on the nights rests on."""

    dataset: str
    read_at: datetime
    verdict: StatusVerdict
    missing: Sequence[str]
    run_tests: Sequence[Figures]
    judged: Judged = field(default_factory=Judged)


def gather_contents(
    files: Files,
    status: Status,
    run_tests: Sequence[str] | None = None,
    since: date | None = None,
    until: date | None = None,
    *,
    false_alarms_per_year: float,
) -> ReportContents:
    """What the dataset holds of the run tests, by name or key, on these days; ``status`` is what it was just now.

    Run tests that surely got worse most come first, and so many have details. Nights before ``since`` are judged, too. Deleted
    executions are left out.

    Raises:
        ConfigurationError: the dataset has no such run test.
        DestinationError: a file of the dataset cannot be read.
    """
    first = since or date.min
    executions, *tables = read_nights(files, CALLS_READ, run_tests, until, first)
    judged = judge_nights(executions, *tables, false_alarms_per_year=false_alarms_per_year)
    worse, shown = (defaultdict[str, list[Any]](list) for _ in range(2))
    for each in judged.worse:
        worse[each.run_test].append(each)
    for one in executions:
        if one.started_at.date() >= first:
            shown[one.label].append(one)
    order = sorted(
        shown, key=lambda name: (not worse[name], *(-each.row.surely_worse for each in worse[name][:1]), name)
    )
    calls, evals = (by_run_test(executions, rows) for rows in tables)
    unfinished = sum(each.waiting for each in status.run_tests if each.name in shown)
    return ReportContents(
        dataset=status.dataset,
        read_at=status.read_at,
        verdict=status.verdict,
        missing=[
            *map(str, alarms(status.findings)),
            *(str(each) for each in status.findings if each.kind is Kind.LISTS_ALONE),
            *([f"{counted(unfinished, 'execution')} not finished yet"] if unfinished else []),
        ],
        run_tests=[
            figures_of(shown[name], calls[name], evals[name], worse[name], has_details=number < MOST_DETAILS)
            for number, name in enumerate(order)
        ],
        judged=judged,
    )
