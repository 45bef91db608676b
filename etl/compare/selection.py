"""Which executions are compared: those of the baseline, and those of the candidate that is judged against it.

Each is one execution (by its id, ``last`` or ``previous``), or those that began on some days. Only finished executions that the
source still has count. Reads no call.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta

from etl.compare.statistics import FEWEST_EXECUTIONS
from etl.dataset.layout import Scope
from etl.errors import ConfigurationError
from etl.files.interface import Files
from etl.inspect.read_tables import read_rows
from etl.model import schema
from etl.model.lifecycle import TERMINAL_EXECUTION, ExportState
from etl.model.wording import counted, first_few, quoted

LAST, PREVIOUS = "last", "previous"


@dataclass(frozen=True, slots=True)
class Span:
    """Days on which executions began, UTC, both included."""

    since: date
    until: date

    def __str__(self) -> str:
        return f"{self.since}..{self.until}"

    def has(self, execution: "ComparedExecution") -> bool:
        """Whether the execution began on one of the days."""
        return self.since <= execution.started_at.date() <= self.until


Selector = str | Span
"""How a user selects executions: ``last``, ``previous``, a date range, or else the id of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedExecution:
    """What the dataset says of an execution."""

    execution_id: str
    run_test: str
    run_test_name: str | None
    status: str | None
    started_at: datetime
    export_state: str | None
    deleted_at: datetime | None
    exported_calls: int | None

    @property
    def label(self) -> str:
        """The name of its run test, or the key where it lies."""
        return self.run_test_name or self.run_test

    @property
    def is_finished(self) -> bool:
        """Whether its calls have ended, and were fetched."""
        return self.status in TERMINAL_EXECUTION and self.export_state != ExportState.WAITING

    @property
    def age(self) -> tuple[datetime, str]:
        """Larger for the younger of two executions."""
        return self.started_at, self.execution_id


@dataclass(frozen=True, slots=True)
class Selection:
    """The executions of the baseline, or of the candidate, newest first; ``selector`` is how the user named them."""

    selector: Selector
    executions: tuple[ComparedExecution, ...]

    @property
    def incomplete(self) -> int:
        """How many of the executions lack something."""
        return sum(each.export_state == ExportState.INCOMPLETE for each in self.executions)

    @property
    def run_test(self) -> str:
        """The name of the run test."""
        return self.executions[0].label

    @property
    def label(self) -> str:
        """``2026-11-01..2026-11-07``, or the execution: its id, status and start."""
        if isinstance(self.selector, Span):
            return str(self.selector)
        (one,) = self.executions
        word = f"{self.selector}, " if self.selector in (LAST, PREVIOUS) else ""
        return f"{one.execution_id} ({word}{one.status}, created {one.started_at:%Y-%m-%d %H:%M})"


def read_executions(files: Files, scope: Scope) -> list[ComparedExecution]:
    """Those of the scope, deleted ones included, but for one whose start is no time.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    rows = read_rows(files, schema.EXECUTIONS, scope, [each.name for each in fields(ComparedExecution)])
    return [ComparedExecution(**row) for row in rows.to_pylist() if row["started_at"]]


def select(
    executions: Sequence[ComparedExecution], baseline: Selector, candidate: Selector, *, where: str
) -> tuple[Selection, Selection, list[str]]:
    """The executions of the baseline and of the candidate, and what is worth knowing about the choice.

    A candidate that is one execution does not count among the days of the baseline.

    Raises:
        ConfigurationError: there is no such run test or execution, it has not finished or was deleted, it is not clear which run
            test is meant, or baseline and candidate have an execution in common.
    """
    named = [_by_id(executions, each, where) for each in (baseline, candidate) if _is_id(each)]
    if len(named) < 2:
        run_test = named[0].label if named else _only_run_test(executions, where)
        executions = [each for each in executions if each.label == run_test]
    after = _select_one(executions, candidate, where)
    judged = after.executions if isinstance(baseline, Span) and not isinstance(candidate, Span) else ()
    before = _select_one([each for each in executions if each not in judged], baseline, where)
    if common := {each.execution_id for each in before.executions} & {each.execution_id for each in after.executions}:
        raise ConfigurationError(
            f"baseline and candidate have {counted(len(common), 'execution')} in common ({first_few(sorted(common), shown=1)}): "
            "choose sides that do not overlap"
        )
    return before, after, _notices(executions, (before, after))


def select_latest(executions: Iterable[ComparedExecution]) -> tuple[Selection, Selection] | None:
    """Baseline and candidate of one run test: the week up to its newest finished execution, against the four weeks before it.

    One week before would hide each change that is older than that. Where nothing began in the four weeks, the last two executions;
    None where there are not two.
    """
    finished = _newest_first(executions)
    if len(finished) < 2:
        return None
    until = finished[0].started_at.date()
    week = Span(until - timedelta(days=6), until)
    before = Span(week.since - timedelta(weeks=4), week.since - timedelta(days=1))
    if earlier := tuple(filter(before.has, finished)):
        return Selection(before, earlier), Selection(week, tuple(filter(week.has, finished)))
    return Selection(PREVIOUS, (finished[1],)), Selection(LAST, (finished[0],))


def can_tell_slow_days(selections: Iterable[Selection]) -> bool:
    """Whether there are executions enough to tell a slow day from a worse agent: only selections of several tell."""
    counts = [len(each.executions) for each in selections]
    return sum(count for count in counts if count > 1) >= FEWEST_EXECUTIONS


def _is_id(selector: Selector) -> bool:
    return isinstance(selector, str) and selector not in (LAST, PREVIOUS)


def _by_id(executions: Iterable[ComparedExecution], selector: Selector, where: str) -> ComparedExecution:
    found = next((each for each in executions if each.execution_id == selector), None)
    if found is None:
        raise ConfigurationError(
            f"{where} has no execution {quoted(str(selector))}: give an execution_id, {LAST}, {PREVIOUS}, "
            "or a date range such as 2026-11-01..2026-11-07"
        )
    if found.deleted_at is not None:
        raise ConfigurationError(
            f"execution {quoted(found.execution_id)} was deleted at the source: choose another one"
        )
    if not found.is_finished:
        raise ConfigurationError(
            f"execution {quoted(found.execution_id)} had not finished when it was exported (status {found.status}): "
            "once it has, run metrics-etl run"
        )
    return found


def _only_run_test(executions: Iterable[ComparedExecution], where: str) -> str:
    names = {each.label: each.run_test for each in executions if each.deleted_at is None}
    if not names:
        raise ConfigurationError(f"{where} holds no executions yet: run metrics-etl run")
    if len(names) > 1:
        held = first_few(sorted(f"{quoted(name)} ({key})" for name, key in names.items()), shown=5)
        raise ConfigurationError(f"which run test? {where} holds {held}: name one with --run-test")
    return next(iter(names))


def _select_one(executions: Sequence[ComparedExecution], selector: Selector, where: str) -> Selection:
    finished = _newest_first(executions)
    if isinstance(selector, Span):
        found = [each for each in finished if selector.has(each)]
        if not found:
            days = [each.started_at.date() for each in finished]
            there = f"; there are some from {min(days)} to {max(days)}" if days else ""
            raise ConfigurationError(f"{where} has no finished execution created in {selector}{there}")
        return Selection(selector, tuple(found))
    if _is_id(selector):
        return Selection(selector, (_by_id(executions, selector, where),))
    place = (LAST, PREVIOUS).index(selector)
    if len(finished) <= place:
        raise ConfigurationError(
            f"there is no {selector} execution: {where} holds {counted(len(finished), 'finished execution')} of the run test"
        )
    return Selection(selector, (finished[place],))


def _newest_first(executions: Iterable[ComparedExecution]) -> list[ComparedExecution]:
    """Those that have finished, and that the source still has."""
    finished = (each for each in executions if each.is_finished and each.deleted_at is None)
    return sorted(finished, key=lambda each: each.age, reverse=True)


def _notices(executions: Sequence[ComparedExecution], selections: Sequence[Selection]) -> list[str]:
    notices = []
    if selections[0].run_test != selections[1].run_test:
        notices.append(
            f"the baseline belongs to run test {quoted(selections[0].run_test)}, the candidate to "
            f"{quoted(selections[1].run_test)}: choose both from the same run test"
        )
    for name, selection in zip(("baseline", "candidate"), selections, strict=True):
        states = [each.export_state for each in selection.executions]
        unfinished = sum(_would_be_in(each, selection) for each in executions if not each.is_finished)
        for count, what in (
            (selection.incomplete, "incomplete: metrics-etl run fetches the calls that are missing"),
            (states.count(ExportState.SETTLING), "settling: costs and evals may still arrive"),
            (unfinished, "not finished: not compared"),
        ):
            if count:
                notices.append(f"{name}: {counted(count, 'execution')} {what}")
    return notices


def _would_be_in(execution: ComparedExecution, selection: Selection) -> bool:
    """Whether the execution belongs to the selection, or would be the last one, once it has finished."""
    if execution.deleted_at is not None:
        return False
    if isinstance(selection.selector, Span):
        return selection.selector.has(execution)
    return selection.selector == LAST and execution.age > selection.executions[0].age
