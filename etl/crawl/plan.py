"""Choose which executions this run fetches, and say why.

Pure: no clock, no network, no files. The same input gives the same plan.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from etl.api.models import Execution, ExecutionBundle
from etl.tables import coerce
from etl.tables.digest import fingerprint
from etl.tables.flatten import HeldRows

TERMINAL_EXECUTION = frozenset({"completed", "failed", "cancelled"})
TERMINAL_CALL = frozenset({"completed", "failed", "cancelled"})


class State(StrEnum):
    """What the dataset says of an execution; see the column ``executions.export_state``."""

    EXPORTED = "exported"
    SETTLING = "settling"
    WAITING = "waiting"
    INCOMPLETE = "incomplete"


class Reason(StrEnum):
    """Why an execution is fetched, or why it is not."""

    NEW = "new"
    CHANGED = "changed"
    DAMAGED = "damaged"
    INCOMPLETE = "incomplete"
    REQUESTED = "requested"
    SETTLING = "settling"
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
    Reason.UNFINISHED: 'still running, and calls = "all"',
    Reason.WAITING: "still running; its calls are fetched once it has finished",
    Reason.FINAL: "exported and unchanged",
}

_ORDER = {Reason.SETTLING: 1, Reason.UNFINISHED: 2, Reason.WAITING: 3, Reason.FINAL: 4}


@dataclass(frozen=True, slots=True)
class Stored:
    """What the dataset says of an execution (its row) and what it really holds of it (its calls and evals)."""

    date: str
    export_state: str
    fingerprint: str
    calls_digest: str
    held: HeldRows
    verified_at: datetime | None


@dataclass(frozen=True, slots=True)
class Planned:
    """One listed execution and what to do with it; ``date`` is its partition, pinned when it was first seen."""

    run_test_name: str
    run_test_key: str
    execution: Execution
    reason: Reason
    date: str
    started_at: datetime | None
    stored: Stored | None
    estimated_calls: int

    @property
    def is_fetched(self) -> bool:
        """Whether its calls are fetched in this run."""
        return self.reason not in (Reason.WAITING, Reason.FINAL)


def plan_run_test(
    listed: Iterable[Execution],
    stored: Mapping[str, Stored],
    *,
    run_test_name: str,
    run_test_key: str,
    now: datetime,
    fetch_unfinished: bool = False,
    full_refresh: bool = False,
    since: date | None = None,
    stray_dates: Mapping[str, str] = MappingProxyType({}),
) -> list[Planned]:
    """One entry for each listed execution since ``since``, in no particular order; ``stored`` is by execution_id.

    ``stray_dates`` are partitions that hold calls of executions that are not ``stored``: they belong there and nowhere else.
    """
    plan = []
    for execution in listed:
        started_at = coerce.timestamp_or_none(execution.payload.get("started_at"))
        if since and started_at and started_at.date() < since:
            continue
        known = stored.get(execution.execution_id)
        plan.append(
            Planned(
                run_test_name=run_test_name,
                run_test_key=run_test_key,
                execution=execution,
                reason=_reason(execution, known, fetch_unfinished=fetch_unfinished, full_refresh=full_refresh),
                date=known.date if known else stray_dates.get(execution.execution_id) or _utc_day(started_at or now),
                started_at=started_at,
                stored=known,
                estimated_calls=_estimated_calls(execution.payload, known),
            )
        )
    return plan


def order_by_worth(plan: Iterable[Planned]) -> list[Planned]:
    """New and changed executions first, newest first, then those that settle: what an interrupted night should hold."""
    oldest = datetime.min.replace(tzinfo=UTC)
    newest_first = sorted(plan, key=lambda planned: planned.started_at or oldest, reverse=True)
    return sorted(newest_first, key=lambda planned: _ORDER.get(planned.reason, 0))


def export_state(bundle: ExecutionBundle, known: Stored | None, *, fetched_at: datetime, settle_hours: float) -> State:
    """What the dataset may claim of the execution once the bundle is committed; ``known`` is what it held before."""
    if bundle.dead_letters:
        return State.INCOMPLETE
    if not bundle.is_fetched:
        return State.WAITING
    is_final = (
        bundle.execution.status in TERMINAL_EXECUTION
        and all(call.metrics.status in TERMINAL_CALL for call in bundle.calls)
        and fetched_at - _ended_at(bundle.execution, known, fetched_at) >= timedelta(hours=settle_hours)
    )
    return State.EXPORTED if is_final else State.SETTLING


def _utc_day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


def _reason(execution: Execution, known: Stored | None, *, fetch_unfinished: bool, full_refresh: bool) -> Reason:
    if execution.status not in TERMINAL_EXECUTION:
        return Reason.UNFINISHED if fetch_unfinished else Reason.WAITING
    if full_refresh:
        return Reason.REQUESTED
    if known is None:
        return Reason.NEW
    return _reason_to_refetch(execution, known)


def _reason_to_refetch(execution: Execution, known: Stored) -> Reason:
    if known.export_state == State.INCOMPLETE:
        return Reason.INCOMPLETE
    if known.export_state == State.WAITING or known.fingerprint != fingerprint(execution.payload):
        return Reason.CHANGED
    if known.calls_digest != known.held.calls_digest:
        return Reason.DAMAGED
    return Reason.FINAL if known.export_state == State.EXPORTED else Reason.SETTLING


def _ended_at(execution: Execution, known: Stored | None, fetched_at: datetime) -> datetime:
    """When late data began to be late: its end, else, when the API tells none, when its present content was first seen."""
    completed_at = coerce.timestamp_or_none(execution.payload.get("completed_at"))
    if completed_at is None and known and known.fingerprint == fingerprint(execution.payload):
        return known.verified_at or fetched_at
    return completed_at or fetched_at


def _estimated_calls(payload: Mapping[str, Any], known: Stored | None) -> int:
    """For predicting requests only: the fresh count, else the stored counter, else what was listed last time."""
    metrics = payload.get("metrics")
    calls = metrics.get("calls") if isinstance(metrics, dict) else None
    total = calls.get("total") if isinstance(calls, dict) else None
    for candidate in (total, payload.get("total_calls"), known.held.listed_calls if known else None):
        if type(candidate) is int and candidate >= 0:
            return candidate
    return 0
