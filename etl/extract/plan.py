"""Choose which executions this run fetches, and say why. Pure: the same input gives the same plan."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from etl.extract.endpoints import Purpose, no_requests
from etl.extract.listing import MOST_ROWS_OF_A_PAGE
from etl.model.lifecycle import (
    LONG_AGO,
    TERMINAL_EXECUTION,
    ExecutionList,
    ExportState,
    ListedExecution,
    StoredExecution,
)
from etl.model.records import DeadLetter
from etl.model.wording import Word
from etl.settings import RunTest


class Reason(Word):
    """Why an execution is fetched, or why it is not."""

    NEW = "new", "not in the dataset yet"
    CHANGED = "changed", "its row in the API's list has changed since last time"
    LISTED = "listed", "stored from its lists; the calls' own metrics are still to come"
    DAMAGED = "damaged", "the stored calls or evals differ from what was exported"
    INCOMPLETE = "incomplete", "part of it could not be exported last time"
    REQUESTED = "requested", "requested by --full-refresh"
    SETTLING = "settling", "finished, but late data may still arrive"
    SCRUB = "scrub", "final, and fetched again to verify it"
    UNFINISHED = "unfinished", 'still running, and calls = "all"'
    WAITING = "waiting", "still running; its calls are fetched once it has finished"
    FINAL = "final", "exported and unchanged: not fetched"


_PURPOSES = {Reason.INCOMPLETE: Purpose.DEAD_LETTERS, Reason.SETTLING: Purpose.SETTLE, Reason.SCRUB: Purpose.SCRUB}

_COMPARED = {Reason.SETTLING, Reason.CHANGED, Reason.INCOMPLETE}
_WITHOUT_DETAIL = {Reason.LISTED, Reason.FINAL, Reason.UNFINISHED}
"""Executions that need no detail, also when they are scrubbed: it is in the dataset, or is not read of what still runs."""

_LATER = (Reason.INCOMPLETE, Reason.SETTLING, Reason.UNFINISHED, Reason.SCRUB, Reason.WAITING, Reason.FINAL)
_ORDER = {reason: place for place, reason in enumerate(_LATER, start=1)}


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run fetches besides what is new, changed, damaged, incomplete or settling, and whether it compares before.

    What has settled since before ``overdue_since`` is fetched if it cannot be compared. ``detail_suffices``: rows are made of the
    lists, and calls have no metrics of their own.
    """

    fetch_unfinished: bool = False
    full_refresh: bool = False
    settle_by_detail: bool = False
    detail_suffices: bool = False
    overdue_since: datetime = LONG_AGO


@dataclass(frozen=True, slots=True)
class Planned:
    """One listed execution and what to do with it.

    ``run_test_key`` is that of the partition where it lies, or will lie. ``unreadable`` says why the list could not give it: then
    only its head is known. ``is_compared``: the calls that its lists show unchanged are not fetched again. ``is_resumed``: nor are
    those that were fetched since it was found as it is listed now, and left incomplete. ``may_wait``: it only settles, and the next
    run may compare it. ``reads_detail``: for what its calls' own metrics do not have. ``is_by_detail``: rows are made of its lists,
    and only calls that these tell too little of are fetched; or, if it ``is_preview``, none: its metrics are to follow.
    """

    run_test_name: str
    run_test_key: str
    execution: ListedExecution
    reason: Reason
    stored: StoredExecution | None
    estimated_calls: int
    unreadable: DeadLetter | None = None
    is_compared: bool = False
    is_resumed: bool = False
    may_wait: bool = False
    reads_detail: bool = False
    is_by_detail: bool = False
    is_preview: bool = False

    @property
    def is_fetched(self) -> bool:
        """Whether its calls are fetched in this run."""
        return self.reason not in (Reason.WAITING, Reason.FINAL)

    @property
    def purpose(self) -> Purpose:
        """What the requests that fetch it are counted for."""
        return _PURPOSES.get(self.reason, Purpose.FIRST_FETCH)

    @property
    def is_waiting_row_current(self) -> bool:
        """Whether the dataset already says all that can be said without its calls."""
        return self.unreadable is None and _is_waiting_row_current(self.execution, self.stored)

    def requests(self, page_limit: int) -> int:
        """An estimate of the requests that fetching it takes."""
        lists = pages(self.estimated_calls, page_limit) + (self.reads_detail and not self.is_resumed)
        if self.is_by_detail:
            return lists - (self.is_compared and self.reason is Reason.SETTLING)
        if self.stored is None or not (self.is_resumed or self.is_compared):
            return lists + self.estimated_calls
        held = self.stored.held
        # An execution that changed has probably run again, and all its calls with it.
        exact = 0 if self.reason is Reason.CHANGED else held.exported_calls - held.detail_calls
        return lists + max(0, self.estimated_calls - exact)


def requests_to_fetch(plan: Iterable[Planned], *, page_limit: int) -> dict[Purpose, int]:
    """An estimate of the requests that fetching all of it takes, by purpose."""
    expected = no_requests()
    for item in plan:
        if item.is_fetched:
            expected[item.purpose] += item.requests(page_limit)
    return expected


def previews(plan: Iterable[Planned]) -> list[Planned]:
    """What is new of the plan, to be stored from its lists alone, two requests an execution, before the rest of it is fetched."""
    new = (item for item in plan if item.reason in (Reason.NEW, Reason.CHANGED) and not item.is_by_detail)
    return [
        replace(item, reads_detail=True, is_by_detail=True, is_preview=True)
        for item in new
        if item.unreadable is None and (item.stored is None or not item.stored.held.exported_calls)
    ]


def pages(rows: int, limit: int) -> int:
    """How many pages are read of a list of so many rows: those of ``limit`` rows, or one and then the largest that there are."""
    return min(max(1, -(-rows // limit)), 1 + -(-rows // MOST_ROWS_OF_A_PAGE))


def says_nothing_new(listed: ListedExecution, known: StoredExecution | None, policy: Policy) -> bool:
    """Whether the execution gives a run nothing to fetch or to write, unless it is scrubbed."""
    reason = _reason(listed, known, policy)
    return reason is Reason.FINAL or (reason is Reason.WAITING and _is_waiting_row_current(listed, known))


def plan_run_test(
    run_test: RunTest,
    listed: ExecutionList,
    stored: Mapping[str, StoredExecution],
    *,
    home: str,
    policy: Policy = Policy(),
) -> list[Planned]:
    """One entry for each listed execution that the run test's ``since`` lets in, in no particular order.

    An older one is let in, too, when the dataset holds a part of it, or says that it was deleted. ``stored`` is by execution_id.
    ``home`` is the key for what is new.
    """
    plan, has_detail = [], policy.settle_by_detail or policy.detail_suffices
    for execution in listed.executions.values():
        started_at, known = execution.started_at, stored.get(execution.execution_id)
        is_old = run_test.since and started_at and started_at.date() < run_test.since
        if is_old and not (known and _is_wrong(known)):
            continue
        letter = listed.heads.get(execution.execution_id)
        reason = _reason(execution, known, policy)
        if letter and known and reason in (Reason.FINAL, Reason.SETTLING, Reason.CHANGED):
            reason = Reason.INCOMPLETE
        plan.append(
            Planned(
                run_test_name=run_test.name,
                run_test_key=known.run_test_key if known else home,
                execution=execution,
                reason=reason,
                stored=known,
                estimated_calls=_estimated_calls(execution, known),
                unreadable=letter,
                is_compared=has_detail and known is not None and _is_held(known) and reason in _COMPARED,
                is_resumed=known is not None and not policy.detail_suffices and _is_resumed(execution, known, reason),
                may_wait=reason is Reason.SETTLING and _verified_at(known) > policy.overdue_since,
                reads_detail=policy.detail_suffices or (has_detail and reason not in _WITHOUT_DETAIL),
                is_by_detail=policy.detail_suffices and reason is not Reason.REQUESTED,
            )
        )
    return plan


def order_by_worth(plan: Iterable[Planned]) -> list[Planned]:
    """New and changed executions first, newest first, then those that failed before, and may again, then those that settle."""
    newest_first = sorted(plan, key=lambda planned: planned.execution.started_at or LONG_AGO, reverse=True)
    return sorted(newest_first, key=lambda planned: _ORDER.get(planned.reason, 0))


def scrub(plan: Iterable[Planned], *, requests: int, page_limit: int) -> list[Planned]:
    """The plan, with those final executions fetched, longest unverified first, for which what is left of ``requests`` suffices."""
    result = list(plan)
    final = [index for index, item in enumerate(result) if item.reason is Reason.FINAL]
    for index in sorted(final, key=lambda index: (_verified_at(result[index].stored), index)):
        if (cost := result[index].requests(page_limit)) <= requests:
            requests -= cost
            result[index] = replace(result[index], reason=Reason.SCRUB)
    return result


def _verified_at(known: StoredExecution | None) -> datetime:
    return (known and known.verified_at) or LONG_AGO


def _reason(execution: ListedExecution, known: StoredExecution | None, policy: Policy) -> Reason:
    if execution.status not in TERMINAL_EXECUTION:
        return Reason.UNFINISHED if policy.fetch_unfinished else Reason.WAITING
    if policy.full_refresh:
        return Reason.REQUESTED
    if known is None:
        return Reason.NEW
    return _reason_to_refetch(execution, known, policy)


def _is_waiting_row_current(execution: ListedExecution, known: StoredExecution | None) -> bool:
    return (
        known is not None
        and known.export_state == ExportState.WAITING
        and known.deleted_at is None
        and not known.has_letters
        and not known.is_damaged
        and known.fingerprint == execution.fingerprint
    )


def _is_wrong(known: StoredExecution) -> bool:
    """Whether what is stored of a listed execution is less than was there, or says that it was deleted."""
    return _is_incomplete(known) or known.is_damaged or known.deleted_at is not None


def _is_incomplete(known: StoredExecution) -> bool:
    return known.export_state == ExportState.INCOMPLETE or known.has_letters


def _reason_to_refetch(execution: ListedExecution, known: StoredExecution, policy: Policy) -> Reason:
    if _is_incomplete(known):
        return Reason.INCOMPLETE
    if known.export_state == ExportState.WAITING or known.deleted_at or known.fingerprint != execution.fingerprint:
        return Reason.CHANGED
    if known.is_damaged:
        return Reason.DAMAGED
    if (known.held.detail_calls or known.export_state == ExportState.LISTED) and not policy.detail_suffices:
        return Reason.LISTED
    return Reason.FINAL if known.export_state == ExportState.EXPORTED else Reason.SETTLING


def _is_resumed(execution: ListedExecution, known: StoredExecution, reason: Reason) -> bool:
    is_incomplete = known.export_state == ExportState.INCOMPLETE and reason is Reason.INCOMPLETE
    is_as_listed = known.fingerprint == execution.fingerprint
    return _is_held(known) and is_as_listed and (is_incomplete or reason is Reason.LISTED)


def _is_held(known: StoredExecution) -> bool:
    """Whether the dataset holds calls of it, as they were exported."""
    is_fetched = known.export_state != ExportState.WAITING and known.held.exported_calls > 0
    return is_fetched and not (known.is_damaged or known.deleted_at)


def _estimated_calls(execution: ListedExecution, known: StoredExecution | None) -> int:
    """What the list says, else what was listed last time; only predicts requests."""
    candidates = (execution.calls, known.held.listed_calls if known else None)
    return next((calls for calls in candidates if calls is not None and calls >= 0), 0)
