"""One run test's share of an export run."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from etl.model.wording import counted, quoted


@dataclass(slots=True)
class RunTestSummary:
    """One run test's share: executions by reason, rows that arrived, and what went wrong.

    ``is_compared``: the counts of stored executions that its list lacks are known. ``shared``: how many executions of its list
    another run test has, too, by the name of that. ``never_fetched``: how many executions have settled with a status that this
    version does not know, by status: it does not fetch their calls.
    """

    name: str
    key: str
    listed: int = 0
    is_complete: bool = False
    reasons: Counter[str] = field(default_factory=Counter)
    is_compared: bool = False
    not_listed: int = 0
    not_answered: int = 0
    unfinished: int = 0
    deleted: int = 0
    moved: int = 0
    missed: int = 0
    doubted: int = 0
    shared: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    unknown_statuses: Counter[str] = field(default_factory=Counter)
    never_fetched: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    calls: int = 0
    evals: int = 0
    dead_letters: int = 0
    without_rows: int = 0
    misfits: int = 0
    error: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the run test is missing."""
        lacks = self.dead_letters or self.missed or self.without_rows or self.not_answered or self.unfinished
        return self.is_complete and self.error is None and not (lacks or self.shared or self.never_fetched)

    def problems(self, *, is_cut_short: bool = False) -> list[str]:
        """One line for each thing that is missing or wrong. In a run that was cut short an unproved list is not a problem."""
        lines = [
            f"{quoted(self.name)}: {counted(count, 'execution')} of its list also in the list of {quoted(other)}, or stored there "
            "while that list was not read; each was exported once: run again without --run-test; if the message stays, the API "
            "gives one of them the list of the other"
            for other, count in self.shared.items()
        ]
        if self.error:
            return [f"{quoted(self.name)}: {self.error}", *lines]
        if self.unreadable:
            lines.append(
                f"{quoted(self.name)}: {counted(len(self.unreadable), 'row')} of its list cannot be read: {self.unreadable[-1]}"
            )
        elif not (self.is_complete or is_cut_short):
            lines.append(f"{quoted(self.name)}: its list kept changing while it was read; run again to complete it")
        if self.doubted:
            lines.append(
                f"{quoted(self.name)}: {counted(self.doubted, 'execution')} with far fewer calls or evals listed than stored or "
                "counted; the stored ones were kept: run again, or with --accept-deletions if they were deleted on purpose"
            )
        if self.without_rows:
            lines.append(
                f"{quoted(self.name)}: {counted(self.without_rows, 'execution')} incomplete, because stored rows are gone; "
                "the next run fetches them"
            )
        if given_up := self.dead_letters - self.doubted:
            lines.append(
                f"{quoted(self.name)}: {counted(given_up, 'request')} given up, see the errors table; the next run tries again"
            )
        lines += [
            f"{quoted(self.name)}: the calls of {counted(count, 'execution')} are not fetched: this version does not know the "
            f'status {quoted(status)}, which no longer changes: upgrade, or set [export] calls = "all"'
            for status, count in sorted(self.never_fetched.items())
        ]
        for count, what in (
            (self.not_answered, "could not be looked up; the next run tries again"),
            (self.unfinished, "incomplete or waiting although not deleted: export the run test that has them now"),
        ):
            if count:
                lines.append(f"{quoted(self.name)}: {counted(count, 'stored execution')} no longer listed, and {what}")
        return lines

    def notices(self) -> list[str]:
        """One line for each thing that is worth knowing although nothing is missing."""
        finished = 0 if self.error else self.not_listed - self.unfinished
        lines = [
            f"{quoted(self.name)}: {counted(count, what)} {then}"
            for count, what, then in (
                (self.deleted, "execution", "deleted at the source; the rows are kept, see deleted_at"),
                (finished, "stored execution", "no longer listed, although not deleted"),
                (self.moved, "stored execution", "moved here from another run test or name"),
            )
            if count
        ]
        return lines + [
            f"{quoted(self.name)}: the status {quoted(status)}, which this version does not know, occurs {counted(count, 'time')}: "
            "such executions and calls count as not finished"
            for status, count in sorted((self.unknown_statuses - self.never_fetched).items())
        ]

    def as_json(self) -> dict[str, Any]:
        """The share as a JSON object."""
        return {
            "name": self.name,
            "key": self.key,
            "is_complete": self.is_whole,
            "listed": self.listed,
            "reasons": dict(self.reasons),
            "missed": self.missed,
            "not_listed": self.not_listed,
            "deleted": self.deleted,
            "moved": self.moved,
            "executions": self.executions,
            "calls": self.calls,
            "evals": self.evals,
            "dead_letters": self.dead_letters,
            "misfits": self.misfits,
            "error": self.error,
        }
