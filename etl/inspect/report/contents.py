"""What a report holds: how fresh and complete the dataset is, and the figures of each run test. Asks the dataset alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from etl.inspect.report.figures import CALLS_READ, EVALS_READ, Figures, figures_of
from etl.inspect.samples import rows_once
from etl.inspect.sides import ComparedExecution, read_executions
from etl.inspect.status import Status
from etl.inspect.tables import find_scope
from etl.inspect.verdict import Verdict, judge, lacks, missing_rows
from etl.load.files.open import Files
from etl.load.layout import Scope
from etl.model import schema
from etl.model.wording import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """``missing``: what the dataset does not hold, in words. ``since`` and ``until`` are what was asked for, both included."""

    dataset: str
    read_at: datetime
    since: date | None
    until: date | None
    verdict: Verdict
    missing: Sequence[str]
    run_tests: Sequence[Figures]


def read_contents(
    files: Files,
    status: Status,
    run_tests: Sequence[str] | None = None,
    since: date | None = None,
    until: date | None = None,
) -> Contents:
    """What the dataset holds of the run tests, by name or key, on these days; ``status`` is what it was just now.

    Raises:
        ConfigurationError: the dataset has no such run test.
        DestinationError: a file of the dataset cannot be read.
    """
    figures = read_figures(files, run_tests, since, until)
    keys = {each.key for each in figures}
    unfinished = sum(each.waiting for each in status.run_tests if each.key in keys)
    return Contents(
        dataset=status.dataset,
        read_at=status.read_at,
        since=since,
        until=until,
        verdict=judge(status),
        missing=[
            *missing_rows(status),
            *lacks(status.run_tests),
            *([f"{counted(unfinished, 'execution')} not finished yet"] if unfinished else []),
            *(f"{each.name}: {each.error}" for each in status.run_tests if each.error),
        ],
        run_tests=figures,
    )


def read_figures(
    files: Files, run_tests: Sequence[str] | None = None, since: date | None = None, until: date | None = None
) -> list[Figures]:
    """The figures of the run tests, by name or key, those that surely got worse most first; deleted executions are left out.

    Holds the rows of one run test at a time.

    Raises:
        ConfigurationError: the dataset has no such run test.
        DestinationError: a file of the dataset cannot be read.
    """
    scope = find_scope(files, schema.EXECUTIONS, run_tests, since, until)
    executions: dict[str, list[ComparedExecution]] = {}
    for each in read_executions(files, scope):
        if each.deleted_at is None:
            executions.setdefault(each.run_test, []).append(each)
    found = []
    for key, of_run_test in executions.items():
        newest = max(of_run_test, key=lambda each: each.age)
        mine = Scope(frozenset({key}), scope.since, scope.until)
        calls = rows_once(files, schema.CALLS, mine, CALLS_READ)
        evals = rows_once(files, schema.EVALS, mine, EVALS_READ)
        found.append(figures_of(key, newest.run_test_name or key, of_run_test, calls, evals))
    return sorted(found, key=lambda each: (-each.worse[0].surely_worse if each.worse else 0.0, each.name, each.key))
