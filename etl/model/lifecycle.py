"""The life of an execution: its statuses, its export state, what the dataset holds of it, and when it is final. Pure."""

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import Self

from etl.model.digest import fingerprint, rows_digest
from etl.model.listed_execution import call_counts
from etl.model.records import Execution
from etl.model.values import timestamp_or_none

TERMINAL_EXECUTION = frozenset({"completed", "failed", "cancelled"})
TERMINAL_CALL = frozenset({"completed", "failed", "cancelled"})
KNOWN_EXECUTION = TERMINAL_EXECUTION | {"pending", "running", "cancelling", "evaluating"}
CLOCKS_DIFFER = timedelta(minutes=5)
"""What two clocks may be apart, each of which is right."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""For comparing with times: before every one of them."""
KNOWN_CALL = TERMINAL_CALL | {"pending", "queued", "ongoing", "analyzing"}
_ENOUGH = 0.9
"""Of ``settle_hours``, between two runs: a night may begin a little earlier than the one before."""


class ExportState(StrEnum):
    """The values of the column ``executions.export_state``."""

    EXPORTED = "exported"
    SETTLING = "settling"
    WAITING = "waiting"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class HeldRows:
    """What the dataset holds of one execution: numbers of calls, and the digest over the rows of its calls and evals."""

    listed_calls: int | None
    exported_calls: int
    calls_digest: str

    @classmethod
    def of(cls, listed_calls: int | None, calls: Collection[str | None], evals: Collection[str | None]) -> Self:
        """What the row hashes of its calls and evals say; ``listed_calls`` is how many calls the API lists.

        A row that was written before there were row hashes has none: its execution then counts as damaged.
        """
        digest = rows_digest(row_hash or "" for row_hash in chain(calls, evals))
        return cls(listed_calls=listed_calls, exported_calls=len(calls), calls_digest=digest)

    def is_as_exported(self, calls_digest: str | None) -> bool:
        """Whether these are the calls and evals that were exported, of which the execution's row has this digest."""
        return self.calls_digest == calls_digest


@dataclass(frozen=True, slots=True)
class StoredExecution:
    """What the dataset says of an execution (its row) and what it really holds (``held``: its calls and evals).

    ``place`` is where its rows lie in the folder of its run test. ``exported_at`` is when its row last changed, ``verified_at``
    when its calls were last fetched. ``has_letters``: the errors table has dead letters of it; only an execution that is incomplete
    or waits has some, unless a run was killed between the two tables.
    """

    place: str
    export_state: str
    fingerprint: str
    calls_digest: str
    exported_calls: int
    held: HeldRows
    verified_at: datetime | None = None
    exported_at: datetime | None = None
    deleted_at: datetime | None = None
    run_test_name: str | None = None
    has_letters: bool = False

    def as_of(self, now: datetime) -> Self:
        """The same without the times that have not come yet."""
        latest = now + CLOCKS_DIFFER
        verified_at, exported_at = (at if at and at <= latest else None for at in (self.verified_at, self.exported_at))
        if (verified_at, exported_at) == (self.verified_at, self.exported_at):
            return self
        return replace(self, verified_at=verified_at, exported_at=exported_at)

    @property
    def vouched(self) -> HeldRows:
        """What its row says that was exported."""
        return HeldRows(self.held.listed_calls, self.exported_calls, self.calls_digest)

    @property
    def was_whole(self) -> bool:
        """Whether nothing of it was missing when it was exported."""
        return self.export_state in (ExportState.EXPORTED, ExportState.SETTLING)

    @property
    def is_damaged(self) -> bool:
        """Whether the dataset holds other calls or evals than were exported."""
        return not self.held.is_as_exported(self.calls_digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What a run brought of an execution: ``held`` is what the dataset holds of it now.

    ``call_statuses`` is None when the calls were not listed. ``is_whole``: each listed call has its row, and there is no dead
    letter.
    """

    held: HeldRows
    call_statuses: Collection[str] | None
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What tells whether late data may still come: ``fetched_at`` is a time before any execution was fetched.

    It is by the source's clock; ``now`` is the same time by that of the two clocks which is behind, since one may be ahead.
    ``late`` are execution_ids that no first export brings: their run test was exported before, when they were not there.
    ``vouched`` says what was exported of those whose rows were lost since.
    """

    fetched_at: datetime
    now: datetime
    settle_hours: float
    late: Container[str] = ()
    vouched: Mapping[str, HeldRows] = field(default_factory=dict)

    @property
    def settle(self) -> timedelta:
        """How long late data may come."""
        return timedelta(hours=self.settle_hours)


def export_state(
    execution: Execution, known: StoredExecution | None, arrival: Arrival, settlement: Settlement
) -> ExportState:
    """The state of a fetched execution, to be committed with it; ``known`` is what the dataset held before."""
    if not arrival.is_whole:
        return ExportState.INCOMPLETE
    if arrival.call_statuses is None:
        return ExportState.WAITING
    is_final = (
        execution.status in TERMINAL_EXECUTION
        and (TERMINAL_CALL.issuperset(arrival.call_statuses) or _has_ended(execution, known, arrival.held, settlement))
        and _is_settled(execution, known, arrival.held, settlement)
    )
    return ExportState.EXPORTED if is_final else ExportState.SETTLING


def _has_ended(execution: Execution, known: StoredExecution | None, held: HeldRows, settlement: Settlement) -> bool:
    """Whether calls without an end count as ended: nothing of a terminal execution has changed for ``settle_hours``.

    Where they did before, they still do; its row may be younger, since it tells when that was verified.
    Cancelled executions keep pending calls for ever. One that goes on after all changes its execution, or is found by a scrub.
    """
    return (
        known is not None
        and _is_as_before(execution, known, held)
        and (
            known.export_state == ExportState.EXPORTED
            or settlement.now - (known.exported_at or settlement.now) >= settlement.settle
        )
    )


def _is_settled(execution: Execution, known: StoredExecution | None, held: HeldRows, settlement: Settlement) -> bool:
    """Whether no late data is expected: ``settle_hours`` after its end, and after a run first saw it as it is.

    The end may be long ago: a rerun keeps the old one, and an execution may be stored late. It alone counts in a first export, if
    the source counts its calls and none is missing: that may be deleted, or not be listed for one night.
    """
    settle, now = settlement.settle, settlement.now
    completed_at = timestamp_or_none(execution.payload.get("completed_at"))
    if completed_at is not None and completed_at > now + CLOCKS_DIFFER:
        completed_at = None  # like each time that has not come yet
    if completed_at is not None and now - completed_at < settle:
        return False
    counts = call_counts(execution.payload)
    has_all = bool(counts) and held.exported_calls >= max(counts)
    lost = settlement.vouched.get(execution.execution_id)
    is_expected = held.is_as_exported(lost.calls_digest) if lost else execution.execution_id not in settlement.late
    if known is None and completed_at is not None and has_all and is_expected:
        return True
    is_listed_as_before = known is not None and known.was_whole and known.fingerprint == fingerprint(execution.payload)
    if known is None or not (is_listed_as_before and held.is_as_exported(known.calls_digest)):
        # More may come; a list may lack something for one night, or be older than another that tells of it.
        return settle <= timedelta(0) and has_all and not is_listed_as_before
    seen_at = known.verified_at or known.exported_at or now
    return known.export_state == ExportState.EXPORTED or now - seen_at >= settle * _ENOUGH


def _is_as_before(execution: Execution, known: StoredExecution, held: HeldRows) -> bool:
    """Whether neither the execution nor its calls and evals say anything new."""
    return known.fingerprint == fingerprint(execution.payload) and held.is_as_exported(known.calls_digest)
