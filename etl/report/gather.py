"""What a report holds: how fresh and complete the dataset is, and the figures of each run test.

Owns which run tests a report has, in which order, and which are shown in detail. Reads the dataset alone and draws
nothing.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from etl.compare.nightly import Judged, Worse, by_run_test, judge_nights, read_nights
from etl.compare.selection import ComparedExecution
from etl.files.interface import Files
from etl.inspect.status import Status, StatusVerdict
from etl.model.findings import alarms
from etl.model.wording import counted, quoted
from etl.report.figures import CALLS_READ, Figures, Standing, figures_of
from etl.settings.results import Compare

MOST_DETAILS = 10
"""How many run tests are shown in detail, those that need a person most; of each other the overview has a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContents:
    """All that a page shows."""

    dataset: str
    """Where the dataset is, without secrets."""
    read_at: datetime
    """When the dataset was read, UTC."""
    verdict: StatusVerdict
    """Whether the dataset is fresh and complete."""
    missing: Sequence[str]
    """What the dataset does not hold, in words."""
    run_tests: Sequence[Figures]
    """Those with executions on the days of the report, in the order of what needs a person."""
    judged: Judged = field(default_factory=Judged)
    """What got worse, by the nights, and what that verdict rests on."""


def gather_contents(
    files: Files,
    status: Status,
    run_tests: Sequence[str] | None = None,
    since: date | None = None,
    until: date | None = None,
    *,
    rules: Compare,
) -> ReportContents:
    """The figures of the run tests, by name or key, on these days; ``status`` is that of the dataset just now.

    Nights before ``since`` are judged, too, but no figure shows them, unless they say something of a run test that has
    no others. Deleted executions are left out.

    Raises:
        ConfigurationError: the dataset has no such run test.
        DestinationError: a file of the dataset cannot be read.
    """
    first_day = since or date.min
    executions, calls, evals = read_nights(files, CALLS_READ, run_tests, until, first_day)
    last_day = min(until or date.max, status.complete_at.date() if status.complete_at else date.min)
    judged = judge_nights(executions, calls, evals, rules, last_day)
    worse = defaultdict[str, list[Worse]](list)
    for each in judged.worse:
        worse[each.run_test].append(each)
    remarked = {name for remark in judged.remarks for name in remark.run_tests}
    recent = {each.label for each in executions if each.started_at.date() >= first_day}
    shown = defaultdict[str, list[ComparedExecution]](list)
    for execution in executions:
        if execution.started_at.date() >= first_day or execution.label in {*worse, *remarked} - recent:
            shown[execution.label].append(execution)
    old = [f"{quoted(name)} has no execution since {since}: older ones are shown" for name in sorted({*shown} - recent)]
    calls_of, evals_of = by_run_test(executions, calls), by_run_test(executions, evals)
    standings = {name: _standing(name, judged, worse[name], len(calls_of[name])) for name in shown}

    def urgency(name: str) -> tuple[int, float, bool, str]:
        gravest = -worse[name][0].row.surely_worse if worse[name] else 0.0
        return list(Standing).index(standings[name]), gravest, name not in remarked, name

    return ReportContents(
        dataset=status.dataset,
        read_at=status.read_at,
        verdict=status.verdict,
        missing=[*_missing(status, shown), *old],
        run_tests=[
            figures_of(
                shown[name],
                calls_of[name],
                evals_of[name],
                worse[name],
                standing=standings[name],
                rules=rules,
                has_details=number < MOST_DETAILS,
            )
            for number, name in enumerate(sorted(shown, key=urgency))
        ],
        judged=judged,
    )


def _standing(name: str, judged: Judged, worse: Sequence[Worse], calls: int) -> Standing:
    if worse:
        return Standing.WORSE
    if name in judged.silent or not calls:
        return Standing.NO_CALLS
    return Standing.AS_BEFORE if name in judged.run_tests else Standing.NOT_YET


def _missing(status: Status, names: Collection[str]) -> list[str]:
    """What is missing or unknown, and how many executions of these run tests have not ended."""
    missing = [str(finding) for finding in alarms(status.findings)]
    unfinished = sum(run_test.waiting for run_test in status.run_tests if run_test.name in names)
    if unfinished:
        missing.append(f"{counted(unfinished, 'execution')} not finished yet")
    return missing
