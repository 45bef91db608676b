"""Which executions ``compare`` compares: an execution, the last or the one before it, or those of a date range.

Only finished executions that the source still has count. Reads no call.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from etl.compare.statistics import FEWEST_EXECUTIONS
from etl.errors import ConfigurationError
from etl.inspect.tables import find_scope, read_rows
from etl.load.files.contract import Files
from etl.load.layout import Scope
from etl.model import schema
from etl.model.lifecycle import LONG_AGO, TERMINAL_EXECUTION, ExportState
from etl.model.wording import counted, first_few, quoted

LAST, PREVIOUS = "last", "previous"
_COLUMNS = (
    *("execution_id", "run_test", "run_test_name", "status"),
    *("started_at", "export_state", "deleted_at", "exported_calls"),
)


@dataclass(frozen=True, slots=True)
class Span:
    """Days on which executions began, UTC, both included."""

    since: date
    until: date

    def __str__(self) -> str:
        return f"{self.since}..{self.until}"

    def has(self, execution: "ComparedExecution") -> bool:
        """Whether the execution began on one of the days."""
        return execution.started_at is not None and self.since <= execution.started_at.date() <= self.until


PLAUSIBLE = Span(date(2000, 1, 1), date(2099, 12, 31))
"""A start on another day is no start: zeros and ends of time are how programs write none."""
Wanted = str | Span
"""``last``, ``previous``, a date range, or else the id of an execution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedExecution:
    """What the dataset says of an execution."""

    execution_id: str
    run_test: str
    run_test_name: str | None
    status: str | None
    started_at: datetime | None
    export_state: str | None
    deleted_at: datetime | None
    exported_calls: int | None

    @property
    def is_finished(self) -> bool:
        """Whether its calls have ended, and were fetched."""
        return self.status in TERMINAL_EXECUTION and self.export_state != ExportState.WAITING

    @property
    def age(self) -> tuple[datetime, str]:
        """Larger for the younger of two executions."""
        return self.started_at or LONG_AGO, self.execution_id


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: what was asked for, and the executions that this is."""

    wanted: Wanted
    executions: tuple[ComparedExecution, ...]

    @property
    def incomplete(self) -> int:
        """How many of its executions lack something."""
        return sum(each.export_state == ExportState.INCOMPLETE for each in self.executions)

    @property
    def run_test(self) -> str:
        """The name of the run test."""
        newest = self.executions[0]
        return newest.run_test_name or newest.run_test

    @property
    def label(self) -> str:
        """``2026-11-01..2026-11-07``, or the execution: its id, status and start."""
        if isinstance(self.wanted, Span):
            return str(self.wanted)
        (one,) = self.executions
        created = f", created {one.started_at:%Y-%m-%d %H:%M}" if one.started_at else ""
        word = f"{self.wanted}, " if self.wanted in (LAST, PREVIOUS) else ""
        return f"{one.execution_id} ({word}{one.status}{created})"


def find_sides(files: Files, run_test: str | None, baseline: Wanted, candidate: Wanted) -> tuple[Side, Side, list[str]]:
    """The two sides, and what is worth knowing about the choice.

    Raises:
        ConfigurationError: there is no such run test or execution, it has not finished or was deleted, it is not clear which run
            test is meant, or both sides have an execution in common.
        DestinationError: a file of the dataset cannot be read.
    """
    executions = read_executions(files, find_scope(files, schema.EXECUTIONS, run_test, None, None))
    return choose(executions, baseline, candidate, where=files.where())


def read_executions(files: Files, scope: Scope) -> list[ComparedExecution]:
    """Those of the scope, each once, deleted ones included; a start that is not ``PLAUSIBLE`` is none.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    rows = read_rows(files, schema.EXECUTIONS, scope, list(_COLUMNS)).to_pylist()
    # Rows that an export is moving are there twice for a moment, and equal.
    found = {row["execution_id"]: ComparedExecution(**row) for row in rows}.values()
    return [each if PLAUSIBLE.has(each) else replace(each, started_at=None) for each in found]


def choose(
    executions: Sequence[ComparedExecution], baseline: Wanted, candidate: Wanted, *, where: str
) -> tuple[Side, Side, list[str]]:
    """As ``find_sides``, among these executions."""
    named = [_by_id(executions, each, where) for each in (baseline, candidate) if _is_id(each)]
    key = named[0].run_test if named else None
    if len(named) < 2:
        key = key or _only_run_test(executions, where)
        executions = [each for each in executions if each.run_test == key]
    sides = [_side(executions, each, where) for each in (baseline, candidate)]
    _refuse_common(*sides)
    return sides[0], sides[1], _notices(executions, sides)


def latest_sides(executions: Iterable[ComparedExecution]) -> tuple[Side, Side] | None:
    """Of one run test: the week up to the day on which its newest finished execution began, and the four weeks before it.

    One week before would hide each change that is older than that. Where nothing began in the four weeks, the last two executions;
    None where there are not two.
    """
    finished = _newest_first(each for each in executions if each.is_finished and each.deleted_at is None)
    if len(finished) < 2:
        return None
    if newest := finished[0].started_at:
        until = newest.date()
        week = Span(until - timedelta(days=6), until)
        before = Span(week.since - timedelta(weeks=4), week.since - timedelta(days=1))
        earlier = tuple(filter(before.has, finished))
        if earlier:
            return Side(before, earlier), Side(week, tuple(filter(week.has, finished)))
    return Side(PREVIOUS, (finished[1],)), Side(LAST, (finished[0],))


def can_tell_days(sides: Iterable[Side]) -> bool:
    """Whether there are executions enough to tell a slow day from a worse agent: only sides with several of them tell."""
    counts = [len(side.executions) for side in sides]
    return sum(count for count in counts if count > 1) >= FEWEST_EXECUTIONS


def _is_id(wanted: Wanted) -> bool:
    return isinstance(wanted, str) and wanted not in (LAST, PREVIOUS)


def _by_id(executions: Iterable[ComparedExecution], wanted: Wanted, where: str) -> ComparedExecution:
    found = next((each for each in executions if each.execution_id == wanted), None)
    if found is None:
        raise ConfigurationError(
            f"{where} has no execution {quoted(str(wanted))}: give an execution_id, {LAST}, {PREVIOUS}, "
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
    names = {each.run_test: each.run_test_name or "" for each in executions if each.deleted_at is None}
    if not names:
        raise ConfigurationError(f"{where} holds no executions yet: run metrics-etl run")
    if len(names) > 1:
        held = first_few(sorted(f"{quoted(name)} ({key})" for key, name in names.items()), shown=5)
        raise ConfigurationError(f"which run test? {where} holds {held}: name one with --run-test")
    return next(iter(names))


def _side(executions: Sequence[ComparedExecution], wanted: Wanted, where: str) -> Side:
    finished = _newest_first(each for each in executions if each.is_finished and each.deleted_at is None)
    if isinstance(wanted, Span):
        found = [each for each in finished if wanted.has(each)]
        if not found:
            starts = sorted(each.started_at.date() for each in finished if each.started_at)
            there = f"; there are some from {starts[0]} to {starts[-1]}" if starts else ""
            raise ConfigurationError(f"{where} has no finished execution created in {wanted}{there}")
        return Side(wanted, tuple(found))
    if _is_id(wanted):
        return Side(wanted, (_by_id(executions, wanted, where),))
    place = (LAST, PREVIOUS).index(wanted)
    if len(finished) <= place:
        raise ConfigurationError(
            f"there is no {wanted} execution: {where} holds {counted(len(finished), 'finished execution')} of the run test"
        )
    return Side(wanted, (finished[place],))


def _newest_first(executions: Iterable[ComparedExecution]) -> list[ComparedExecution]:
    return sorted(executions, key=lambda each: each.age, reverse=True)


def _refuse_common(baseline: Side, candidate: Side) -> None:
    common = {each.execution_id for each in baseline.executions} & {each.execution_id for each in candidate.executions}
    if common:
        raise ConfigurationError(
            f"baseline and candidate have {counted(len(common), 'execution')} in common ({first_few(sorted(common), shown=1)}): "
            "choose sides that have none"
        )


def _notices(executions: Sequence[ComparedExecution], sides: Sequence[Side]) -> list[str]:
    notices = []
    if sides[0].executions[0].run_test != sides[1].executions[0].run_test:
        notices.append(f"the baseline is of {quoted(sides[0].run_test)}, the candidate of {quoted(sides[1].run_test)}")
    for name, side in zip(("baseline", "candidate"), sides, strict=True):
        states = [each.export_state for each in side.executions]
        unfinished = sum(_would_be_in(each, side) for each in executions if not each.is_finished)
        for count, what in (
            (side.incomplete, "incomplete: metrics-etl run fetches the calls that are missing"),
            (states.count(ExportState.SETTLING), "settling: costs and evals may still arrive"),
            (unfinished, "not finished: not compared"),
        ):
            if count:
                notices.append(f"{name}: {counted(count, 'execution')} {what}")
    return notices


def _would_be_in(execution: ComparedExecution, side: Side) -> bool:
    """Whether the execution belongs to the side, or would be the last one, once it has finished."""
    if execution.deleted_at is not None:
        return False
    if isinstance(side.wanted, Span):
        return side.wanted.has(execution)
    return side.wanted == LAST and execution.age > side.executions[0].age
