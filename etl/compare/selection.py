"""Which executions are compared: those of the baseline, and those of the candidate that is judged against it.

Each side is one execution (by its id, ``last`` or ``previous``), or the executions that began on some days. Only
finished executions count, and only those that the source still has. Reads no calls.
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
from etl.model.lifecycle import TERMINAL_EXECUTION, ExportState, unless_future
from etl.model.values import shared_values
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


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the agent."""

    name: str

    def __str__(self) -> str:
        return f"version={self.name}"

    def has(self, execution: "ComparedExecution") -> bool:
        """Whether the execution tested this version."""
        return execution.agent_version == self.name


Selector = str | Span | Version
"""How a user selects executions: ``last``, ``previous``, a date range, a version, or else the id of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedExecution:
    """What the dataset says of an execution: some columns of its row."""

    execution_id: str
    """The id that the source gave it."""
    run_test: str
    """The key of the folder that holds it."""
    run_test_name: str | None
    """The name of its run test."""
    status: str | None
    """As the source says: ``completed``, ``failed`` and so on."""
    started_at: datetime
    """When it began, UTC."""
    export_state: str | None
    """How much of it was exported: an ``ExportState``."""
    deleted_at: datetime | None
    """When it was first missing from the source; None while the source has it."""
    exported_calls: int | None
    """How many of its calls the dataset should hold; None if that is not known."""
    agent_version: str | None = None
    """The name of the version of the agent that it tested."""
    run_test_id: str | None = None
    """The id of its run test at the source."""
    judged_by_fingerprint: str | None = None
    """The same for all executions whose calls were judged alike; None where that is not known."""
    judged_by: str | None = None
    """What judged its calls, as JSON, likewise."""

    @property
    def label(self) -> str:
        """The name of its run test, or the key if there is no name. Executions with one label are of one run test."""
        return self.run_test_name or self.run_test

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, and its calls were fetched."""
        return self.status in TERMINAL_EXECUTION and self.export_state != ExportState.WAITING

    @property
    def age(self) -> tuple[datetime, str]:
        """What executions are sorted by: larger for the younger of two."""
        return self.started_at, self.execution_id


@dataclass(frozen=True, slots=True)
class Selection:
    """The executions of one side of a comparison."""

    selector: Selector
    """How the user selected them."""
    executions: tuple[ComparedExecution, ...]
    """Finished ones that the source still has, newest first; at least one."""

    @property
    def incomplete(self) -> int:
        """How many of the executions are incomplete: some of their calls could not be fetched."""
        return sum(execution.export_state == ExportState.INCOMPLETE for execution in self.executions)

    @property
    def run_test(self) -> str:
        """The name of the run test: that of the newest execution."""
        return self.executions[0].label

    @property
    def label(self) -> str:
        """``2026-11-01..2026-11-07``, or the execution: its id, status and start."""
        if not isinstance(self.selector, str):
            return str(self.selector)
        (execution,) = self.executions
        word = f"{self.selector}, " if self.selector in (LAST, PREVIOUS) else ""
        return f"{execution.execution_id} ({word}{execution.status}, created {execution.started_at:%Y-%m-%d %H:%M})"

    def as_json(self, calls: int) -> dict[str, object]:
        """The side as ``compare --json`` has it, with the number of its calls."""
        return {
            "wanted": str(self.selector),
            "run_test": self.run_test,
            "executions": [execution.execution_id for execution in self.executions],
            "calls": calls,
            "first_started_at": self.executions[-1].started_at,
            "last_started_at": self.executions[0].started_at,
        }


def read_executions(files: Files, scope: Scope) -> list[ComparedExecution]:
    """All executions of the scope, deleted ones included; but none without a valid start, which no days could select.

    Raises:
        DestinationError: a file of the dataset cannot be read.
    """
    columns = [*(column.name for column in fields(ComparedExecution) if column.name != "judged_by"), "exported_at"]
    values = map(shared_values, read_rows(files, schema.EXECUTIONS, scope, columns).columns)
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))
    # A text that judged thousands of executions may be long: it is read once a part, and held once.
    names = ["judged_by_fingerprint", "judged_by"]
    texts = read_rows(files, schema.EXECUTIONS, scope, names, once_per=names[0], is_of_days=False)
    judges = dict(zip(*(column.to_pylist() for column in texts.columns), strict=True))
    return [
        ComparedExecution(**row, judged_by=judges.get(row["judged_by_fingerprint"]))
        for row in rows
        if unless_future(row["started_at"], row.pop("exported_at"))
    ]


def select(
    executions: Sequence[ComparedExecution], baseline: Selector, candidate: Selector, *, where: str
) -> tuple[Selection, Selection, list[str]]:
    """The executions of baseline and candidate, and notices about them; ``where`` names the dataset in messages.

    ``last``, ``previous`` and days mean executions of one run test: that of the execution that the other side selects
    by its id, or else the only one there is. A candidate of a single execution does not count among the days of the
    baseline.

    Raises:
        ConfigurationError: a side has no execution, or one that has not finished or was deleted; it is not clear which
        run test is meant; or baseline and candidate have an execution in common.
    """
    named = [_by_id(executions, selector, where) for selector in (baseline, candidate) if _is_id(selector)]
    if len(named) < 2:
        run_test = named[0].label if named else _only_run_test(executions, where)
        executions = [execution for execution in executions if execution.label == run_test]
    after = _select_one(executions, candidate, where)
    judged = after.executions if isinstance(candidate, str) and not isinstance(baseline, str) else ()
    before = _select_one([execution for execution in executions if execution not in judged], baseline, where)
    ids_before, ids_after = ({execution.execution_id for execution in side.executions} for side in (before, after))
    common = sorted(ids_before & ids_after)
    if common:
        shared = f"{counted(len(common), 'execution')} in common ({first_few(common, shown=1)})"
        raise ConfigurationError(f"baseline and candidate have {shared}. Choose sides that do not overlap")
    return before, after, _notices(executions, before, after)


def select_latest(executions: Iterable[ComparedExecution]) -> tuple[Selection, Selection] | None:
    """Of one run test: the four weeks before its latest week as the baseline, and that week as the candidate.

    The latest week ends with the newest finished execution. A baseline of one week would hide each change that is older
    than a week. Where nothing began in the four weeks, the last two executions; None where fewer than two have
    finished.
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
    """Whether there are enough executions, on sides that have several, to tell a slow day from a worse agent."""
    counts = [len(selection.executions) for selection in selections]
    return sum(count for count in counts if count > 1) >= FEWEST_EXECUTIONS


def _is_id(selector: Selector) -> bool:
    return isinstance(selector, str) and selector not in (LAST, PREVIOUS)


def _by_id(executions: Iterable[ComparedExecution], selector: Selector, where: str) -> ComparedExecution:
    """The execution with this id; an error if there is none, or it cannot be compared."""
    execution = next((each for each in executions if each.execution_id == selector), None)
    if execution is None:
        raise ConfigurationError(
            f"{where} has no execution {quoted(str(selector))}. Give an execution_id, {LAST}, {PREVIOUS}, "
            "or a date range such as 2026-11-01..2026-11-07"
        )
    name = f"execution {quoted(execution.execution_id)}"
    if execution.deleted_at is not None:
        raise ConfigurationError(f"{name} was deleted at the source, or forgotten. Choose another execution")
    if not execution.is_finished:
        status = f"had not finished when it was exported (status {execution.status})"
        raise ConfigurationError(f"{name} {status}. Run metrics-etl run once it has finished")
    return execution


def _only_run_test(executions: Iterable[ComparedExecution], where: str) -> str:
    """The name of the only run test of which the source still has executions; an error if there is not just one."""
    keys = {execution.label: execution.run_test for execution in executions if execution.deleted_at is None}
    if not keys:
        raise ConfigurationError(f"{where} holds no executions yet. Run metrics-etl run first")
    if len(keys) > 1:
        held = first_few(sorted(f"{quoted(name)} ({key})" for name, key in keys.items()), shown=5)
        raise ConfigurationError(f"{where} holds several run tests: {held}. Name one with --run-test")
    return next(iter(keys))


def _select_one(executions: Sequence[ComparedExecution], selector: Selector, where: str) -> Selection:
    """One side; an error if the selector means no execution that can be compared."""
    finished = _newest_first(executions)
    if not isinstance(selector, str):
        chosen = tuple(filter(selector.has, finished))
        if not chosen:
            days = [execution.started_at.date() for execution in finished]
            others = f". Its finished executions are from {min(days)} to {max(days)}" if days else ""
            if isinstance(selector, Version):
                versions = sorted({each.agent_version for each in finished if each.agent_version})
                others = (
                    f". Known versions: {first_few(versions)}" if versions else ". No execution has an agent version"
                )
            raise ConfigurationError(f"{where} has no finished execution of {selector}{others}")
        return Selection(selector, chosen)
    if _is_id(selector):
        return Selection(selector, (_by_id(executions, selector, where),))
    place = (LAST, PREVIOUS).index(selector)
    if len(finished) <= place:
        held = f"{where} holds {counted(len(finished), 'finished execution')} of the run test"
        raise ConfigurationError(f"there is no {selector!r} execution, because {held}")
    return Selection(selector, (finished[place],))


def _newest_first(executions: Iterable[ComparedExecution]) -> list[ComparedExecution]:
    """The executions that can be compared: finished ones that the source still has."""
    finished = (execution for execution in executions if execution.is_finished and execution.deleted_at is None)
    return sorted(finished, key=lambda execution: execution.age, reverse=True)


def _notices(executions: Sequence[ComparedExecution], before: Selection, after: Selection) -> list[str]:
    """What is worth knowing about the two sides, which were selected among these executions."""
    notices = []
    if before.run_test != after.run_test:
        notices.append(
            f"the baseline belongs to run test {quoted(before.run_test)}, the candidate to {quoted(after.run_test)}. "
            "Choose both from the same run test"
        )
    for side, selection in (("baseline", before), ("candidate", after)):
        states = [execution.export_state for execution in selection.executions]
        unfinished = sum(_would_be_in(execution, selection) for execution in executions if not execution.is_finished)
        counts = {
            "with missing calls. Fetch the calls with metrics-etl run, then compare again": selection.incomplete,
            "still settling, so more costs and evals may arrive": states.count(ExportState.SETTLING),
            "that had not finished when last exported, and so cannot be compared": unfinished,
        }
        notices += [f"the {side} has {counted(count, 'execution')} {words}" for words, count in counts.items() if count]
    return notices


def _would_be_in(execution: ComparedExecution, selection: Selection) -> bool:
    """Whether an unfinished execution will be in the selection once it has ended: on its days, or as the last one."""
    if execution.deleted_at is not None:
        return False
    if not isinstance(selection.selector, str):
        return selection.selector.has(execution)
    return selection.selector == LAST and execution.age > selection.executions[0].age
