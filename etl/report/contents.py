"""What a report holds: how fresh and complete the dataset is, and the figures of each run test. Asks the dataset alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from etl.compare.samples import EVAL_COLUMNS, living_rows
from etl.compare.selection import ComparedExecution, read_executions
from etl.inspect.status import Status
from etl.inspect.tables import find_scope
from etl.inspect.verdict import Verdict, judge
from etl.load.files.contract import Files
from etl.model import schema
from etl.model.findings import Kind, alarms
from etl.model.wording import counted
from etl.report.figures import CALLS_READ, Figures, figures_of

MOST_DETAILS = 10
"""So many run tests are shown in detail, those that got worse most; of each other the overview has a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """``missing``: what the dataset does not hold, in words."""

    dataset: str
    read_at: datetime
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
    names = {each.name for each in figures}
    unfinished = sum(each.waiting for each in status.run_tests if each.name in names)
    return Contents(
        dataset=status.dataset,
        read_at=status.read_at,
        verdict=judge(status),
        missing=[
            *map(str, alarms(status.findings)),
            *(str(each) for each in status.findings if each.kind is Kind.LISTS_ALONE),
            *([f"{counted(unfinished, 'execution')} not finished yet"] if unfinished else []),
        ],
        run_tests=figures,
    )


def read_figures(
    files: Files, run_tests: Sequence[str] | None = None, since: date | None = None, until: date | None = None
) -> list[Figures]:
    """The figures of the run tests, by name or key, those that surely got worse most first, and so many of these with details.

    Deleted executions are left out.

    Raises:
        ConfigurationError: the dataset has no such run test.
        DestinationError: a file of the dataset cannot be read.
    """
    scope = find_scope(files, schema.EXECUTIONS, run_tests, since, until)
    executions: dict[str, list[ComparedExecution]] = {}
    for each in read_executions(files, scope):
        if each.deleted_at is None:
            executions.setdefault(each.label, []).append(each)
    mine = replace(scope, run_test_keys=frozenset(each.run_test for named in executions.values() for each in named))
    calls, evals = (
        living_rows(files, table, mine, columns)
        for table, columns in ((schema.CALLS, CALLS_READ), (schema.EVALS, EVAL_COLUMNS))
    )

    def figures(names: Iterable[str], *, has_details: bool) -> list[Figures]:
        return [figures_of(executions[each], calls, evals, has_details=has_details) for each in names]

    if len(executions) <= MOST_DETAILS:
        return sorted(figures(executions, has_details=True), key=_order)
    found = sorted(figures(executions, has_details=False), key=_order)
    worst = figures([each.name for each in found[:MOST_DETAILS]], has_details=True)
    return sorted([*worst, *found[MOST_DETAILS:]], key=_order)


def _order(figures: Figures) -> tuple[float, str, str]:
    return -figures.worse[0].surely_worse if figures.worse else 0.0, figures.name, figures.key
