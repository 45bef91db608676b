"""Choose which executions this run fetches, and say why.

Pure: no clock, no network, no files. The same input gives the same plan.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from types import MappingProxyType

from etl.model.lifecycle import TERMINAL_EXECUTION, ExportState, StoredExecution
from etl.model.listed_execution import ListedExecution
from etl.model.records import DeadLetter

_MASS_SHARE = 0.1
_MASS_FLOOR = 2


class Reason(StrEnum):
    """Why an execution is fetched, or why it is not."""

    NEW = "new"
    CHANGED = "changed"
    DAMAGED = "damaged"
    INCOMPLETE = "incomplete"
    REQUESTED = "requested"
    SETTLING = "settling"
    SCRUB = "scrub"
    UNFINISHED = "unfinished"
    WAITING = "waiting"
    FINAL = "final"


REASON_MEANINGS: dict[Reason, str] = {
    Reason.NEW: "not in the dataset yet",
    Reason.CHANGED: "the API lists it differently than last time",
    Reason.DAMAGED: "the stored calls or evals are not those that were exported",
    Reason.INCOMPLETE: "something of it could not be exported last time",
    Reason.REQUESTED: "asked for by --full-refresh",
    Reason.SETTLING: "finished, but late data may still arrive",
    Reason.SCRUB: "final, and fetched again to verify it",
    Reason.UNFINISHED: 'still running, and calls = "all"',
    Reason.WAITING: "still running; its calls are fetched once it has finished",
    Reason.FINAL: "exported and unchanged",
}

_ORDER = {
    Reason.INCOMPLETE: 1,
    Reason.SETTLING: 2,
    Reason.UNFINISHED: 3,
    Reason.SCRUB: 4,
    Reason.WAITING: 5,
    Reason.FINAL: 6,
}


@dataclass(frozen=True, slots=True)
class Planned:
    """One listed execution and what to do with it; ``date`` is its partition, pinned when it was first seen.

    ``unreadable`` tells why the list could not give it: then only its head is known.
    """

    run_test_name: str
    run_test_key: str
    execution: ListedExecution
    reason: Reason
    date: str
    started_at: datetime | None
    stored: StoredExecution | None
    estimated_calls: int
    unreadable: DeadLetter | None = None

    @property
    def is_fetched(self) -> bool:
        """Whether its calls are fetched in this run."""
        return self.reason not in (Reason.WAITING, Reason.FINAL)

    @property
    def is_noted(self) -> bool:
        """Whether the dataset says of it already all that can be said without its calls."""
        return self.unreadable is None and self.stored is not None and _is_noted(self.execution, self.stored)

    def requests(self, page_limit: int) -> int:
        """How many requests fetching it takes, as far as can be told."""
        return self.estimated_calls + pages(self.estimated_calls, page_limit)


def pages(rows: int, limit: int) -> int:
    """How many pages of ``limit`` rows a list takes; an empty list takes one, too."""
    return max(1, -(-rows // limit))


def says_nothing_new(
    listed: ListedExecution, known: StoredExecution | None, *, fetch_unfinished: bool, full_refresh: bool
) -> bool:
    """Whether a run has nothing to fetch or to write because of it, as long as it is not scrubbed."""
    reason = _reason(listed, known, fetch_unfinished=fetch_unfinished, full_refresh=full_refresh)
    return reason is Reason.FINAL or (reason is Reason.WAITING and known is not None and _is_noted(listed, known))


def plan_run_test(
    listed: Iterable[ListedExecution],
    stored: Mapping[str, StoredExecution],
    *,
    run_test_name: str,
    run_test_key: str,
    now: datetime,
    fetch_unfinished: bool = False,
    full_refresh: bool = False,
    since: date | None = None,
    stray_dates: Mapping[str, str] = MappingProxyType({}),
    unreadable: Mapping[str, DeadLetter] = MappingProxyType({}),
) -> list[Planned]:
    """One entry for each listed execution since ``since``, in no particular order; ``stored`` is by execution_id.

    ``stray_dates`` are partitions that hold calls of executions that are not ``stored``: they belong there and nowhere else.
    ``unreadable`` tells of which executions the head alone could be listed, and why.
    """
    plan = []
    for execution in listed:
        started_at = execution.started_at
        if since and started_at and started_at.date() < since:
            continue
        known = stored.get(execution.execution_id)
        letter = unreadable.get(execution.execution_id)
        reason = _reason(execution, known, fetch_unfinished=fetch_unfinished, full_refresh=full_refresh)
        if letter and known and reason in (Reason.FINAL, Reason.SETTLING, Reason.CHANGED):
            reason = Reason.INCOMPLETE
        plan.append(
            Planned(
                run_test_name=run_test_name,
                run_test_key=run_test_key,
                execution=execution,
                reason=reason,
                date=known.date if known else stray_dates.get(execution.execution_id) or _utc_day(started_at or now),
                started_at=started_at,
                stored=known,
                estimated_calls=_estimated_calls(execution, known),
                unreadable=letter,
            )
        )
    return plan


def order_by_worth(plan: Iterable[Planned]) -> list[Planned]:
    """New and changed executions first, newest first, then those that failed before, then those that settle.

    What an interrupted night should hold comes first; what failed before may well fail again.
    """
    oldest = datetime.min.replace(tzinfo=UTC)
    newest_first = sorted(plan, key=lambda planned: planned.started_at or oldest, reverse=True)
    return sorted(newest_first, key=lambda planned: _ORDER.get(planned.reason, 0))


def scrub(plan: Iterable[Planned], *, requests: int, page_limit: int) -> list[Planned]:
    """The plan, with final executions added to what is fetched, longest unverified first, as long as ``requests`` suffice.

    One that alone takes more than what is left is passed over.
    """
    result = list(plan)
    long_ago = datetime.min.replace(tzinfo=UTC)
    final = [index for index, item in enumerate(result) if item.reason is Reason.FINAL]
    for index in sorted(final, key=lambda index: (_verified_at(result[index]) or long_ago, index)):
        if (cost := result[index].requests(page_limit)) <= requests:
            requests -= cost
            result[index] = replace(result[index], reason=Reason.SCRUB)
    return result


def _verified_at(item: Planned) -> datetime | None:
    return item.stored.verified_at if item.stored else None


def is_mass_vanishing(*, vanished: int, living: int) -> bool:
    """Whether so many of the executions that the dataset holds are not listed any more that the key or workspace may be wrong.

    All of them, or more than a tenth; one or two may always go.
    """
    return vanished > 0 and (vanished == living or vanished > max(_MASS_FLOOR, _MASS_SHARE * living))


def _utc_day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


def _reason(
    execution: ListedExecution, known: StoredExecution | None, *, fetch_unfinished: bool, full_refresh: bool
) -> Reason:
    if execution.status not in TERMINAL_EXECUTION:
        return Reason.UNFINISHED if fetch_unfinished else Reason.WAITING
    if full_refresh:
        return Reason.REQUESTED
    if known is None:
        return Reason.NEW
    return _reason_to_refetch(execution, known)


def _is_noted(execution: ListedExecution, known: StoredExecution) -> bool:
    return (
        known.export_state == ExportState.WAITING
        and known.deleted_at is None
        and not known.has_letters
        and known.fingerprint == execution.fingerprint
    )


def _reason_to_refetch(execution: ListedExecution, known: StoredExecution) -> Reason:
    if known.export_state == ExportState.INCOMPLETE or known.has_letters:
        return Reason.INCOMPLETE
    if known.export_state == ExportState.WAITING or known.deleted_at or known.fingerprint != execution.fingerprint:
        return Reason.CHANGED
    if known.is_damaged:
        return Reason.DAMAGED
    return Reason.FINAL if known.export_state == ExportState.EXPORTED else Reason.SETTLING


def _estimated_calls(execution: ListedExecution, known: StoredExecution | None) -> int:
    """For predicting requests only: what the list says, else what was listed last time."""
    candidates = (execution.calls, known.held.listed_calls if known else None)
    return next((calls for calls in candidates if calls is not None and calls >= 0), 0)
