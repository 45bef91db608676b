"""The life of an execution: as it is listed, what the dataset holds of it, its export state, and when it is final. Pure."""

import pickle
from collections.abc import Collection, Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from etl.model.digest import fingerprint
from etl.model.records import DeadLetter, Execution
from etl.model.values import MISFIT, timestamp_or_none, to_int

TERMINAL_EXECUTION = frozenset({"completed", "failed", "cancelled"})
TERMINAL_CALL = frozenset({"completed", "failed", "cancelled"})
KNOWN_EXECUTION = TERMINAL_EXECUTION | {"pending", "running", "cancelling", "evaluating"}
CLOCKS_DIFFER = timedelta(minutes=5)
"""What two clocks may be apart, each of which is right."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""For comparing with times: before every one of them."""
KNOWN_CALL = TERMINAL_CALL | {"pending", "queued", "ongoing", "analyzing"}
_NEXT_NIGHT = 0.9
"""Of ``settle_hours``, after which the next run may compare: nightly runs may start a little early."""
OVERDUE = 2 * _NEXT_NIGHT
"""So many ``settle_hours`` after its last change, an execution that cannot be compared is fetched."""


class ExportState(StrEnum):
    """The values of the column ``executions.export_state``."""

    EXPORTED = "exported"
    SETTLING = "settling"
    LISTED = "listed"
    WAITING = "waiting"
    INCOMPLETE = "incomplete"


BEGUN = frozenset({ExportState.INCOMPLETE, ExportState.LISTED})
"""Of an execution in one of these, what was fetched since it was found as it is listed now is not fetched again."""


class ListedExecution(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One listed execution; ``fingerprint`` is that of its payload.

    ``calls`` is the number of its calls according to the list, None if the list does not say. ``packed`` is the payload, pickled,
    which takes a tenth of the memory; as it is if it is nested too deeply for that; None if it was dropped.
    """

    execution_id: str
    status: str
    fingerprint: str
    started_at: datetime | None
    calls: int | None
    packed: bytes | dict[str, Any] | None

    @classmethod
    def of(cls, execution: Execution) -> "ListedExecution":
        """The execution without its payload."""
        return cls(
            execution_id=execution.execution_id,
            status=execution.status,
            fingerprint=fingerprint(execution.payload),
            started_at=timestamp_or_none(execution.payload.get("started_at")),
            calls=next(iter(call_counts(execution.payload)), None),
            packed=None,
        )

    def with_payload(self, payload: dict[str, Any]) -> "ListedExecution":
        """The same execution with its payload."""
        try:
            return msgspec.structs.replace(self, packed=pickle.dumps(payload))
        except RecursionError:
            return msgspec.structs.replace(self, packed=payload)

    def unpack(self) -> Execution:
        """The execution as it was listed; ValueError when its payload was dropped."""
        if self.packed is None:
            raise ValueError(
                f"execution {self.execution_id}: its payload is no longer in memory: this is a bug, please report it"
            )
        payload = pickle.loads(self.packed) if isinstance(self.packed, bytes) else self.packed  # noqa: S301 made here
        return Execution(execution_id=self.execution_id, status=self.status, payload=payload)


@dataclass(frozen=True, slots=True)
class ExecutionList:
    """One run test's executions by id.

    ``is_complete`` is proved: no execution is missing. ``heads`` says of which executions only the head could be read (status,
    times, counters), and why. ``unreadable`` has a line for each row of the list that could not even be identified.
    """

    executions: Mapping[str, ListedExecution]
    is_complete: bool
    heads: Mapping[str, DeadLetter]
    unreadable: tuple[str, ...]


def call_counts(payload: Mapping[str, Any]) -> list[int]:
    """The number of an execution's calls as the API counts them now, and its stored counter; each only if its column holds it."""
    metrics = payload.get("metrics")
    calls = metrics.get("calls") if isinstance(metrics, dict) else None
    total = calls.get("total") if isinstance(calls, dict) else None
    counts = map(to_int, (total, payload.get("total_calls")))
    return [each for each in counts if each is not MISFIT and each >= 0]


@dataclass(frozen=True, slots=True)
class HeldRows:
    """What the dataset holds of one execution.

    ``listed_calls`` is how many calls the API listed, ``exported_calls`` how many are there and not marked as deleted, of which
    ``detail_calls`` have no metrics but those of the detail. ``calls_digest`` is over the rows of its calls and evals, with their
    marks.
    """

    listed_calls: int | None
    exported_calls: int
    calls_digest: str
    detail_calls: int = 0


@dataclass(frozen=True, slots=True)
class StoredCalls:
    """What the dataset holds of the calls of one execution; by default nothing. Rows are in the order of the columns.

    ``calls`` has the id of each, with whether all that is there (evals alone, or a dead letter) is marked as deleted. ``rows`` are
    those of calls without a mark, ``evals`` those of their evals, by call. ``failed`` is what dead letters are about: the
    execution, or its calls.
    """

    calls: Mapping[str, bool] = field(default_factory=dict)
    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    evals: Mapping[str, Sequence[Sequence[Any]]] = field(default_factory=dict)
    failed: AbstractSet[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StoredExecution:
    """What the dataset says of an execution (its row) and what it really holds (``held``: its calls and evals).

    ``place`` is where its rows lie in the partition ``run_test_key``. ``exported_at`` is when its row last changed,
    ``verified_at`` when its calls were last fetched; while it is incomplete, when that began. ``has_letters``: the errors table has
    dead letters of it; only an execution that is incomplete or waits has some, unless a run was killed between the two tables.
    Without its row (``has_row``) it counts as incomplete: a run was killed before it wrote that. ``has_newer_rows``: calls or evals
    are newer than it is, for the same reason.
    """

    run_test_key: str
    place: str
    export_state: str
    fingerprint: str
    calls_digest: str
    exported_calls: int
    held: HeldRows
    verified_at: datetime | None = None
    exported_at: datetime | None = None
    deleted_at: datetime | None = None
    run_test_name: str = ""
    has_letters: bool = False
    has_row: bool = True
    has_newer_rows: bool = False

    @property
    def is_damaged(self) -> bool:
        """Whether the dataset holds other calls or evals than were exported, or newer ones."""
        return self.has_newer_rows or self.held.calls_digest != self.calls_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What a run brought of an execution: ``held`` is what the dataset holds of it now.

    ``call_statuses`` is None when the calls were not listed. ``is_whole``: each listed call has its row, and there is no dead
    letter. ``is_part``: more is to come, unless something stops the run. ``is_late``: its run test was complete before, so this is
    no first export.
    """

    held: HeldRows
    call_statuses: Collection[str] | None
    is_whole: bool
    is_part: bool = False
    is_late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What tells whether late data may still come: ``fetched_at`` is a time before any execution was fetched.

    It is by the source's clock; ``now`` is the same time by that of the two clocks which is behind, since one may be ahead.
    ``settle`` is how long late data may come. ``complete_before`` are the names of run tests of which an earlier run left nothing
    out. ``detail_suffices``: no call needs other metrics than those of its execution's detail.
    """

    fetched_at: datetime
    now: datetime
    settle: timedelta
    complete_before: Container[str] = ()
    detail_suffices: bool = False


def export_state(
    execution: Execution, known: StoredExecution | None, arrival: Arrival, settlement: Settlement
) -> ExportState:
    """The state of a fetched execution, to be committed with it; ``known`` is what the dataset held before."""
    unchanged = known if known is not None and _is_as_before(execution, known, arrival.held) else None
    if unchanged is not None and arrival.is_part and arrival.held.listed_calls == arrival.held.exported_calls:
        return ExportState(unchanged.export_state)
    if not arrival.is_whole:
        return ExportState.LISTED if _is_as_listed(execution, known, arrival) else ExportState.INCOMPLETE
    if arrival.call_statuses is None:
        return ExportState.WAITING
    is_new = known is None or not known.has_row or _was_listed_settled(execution, known, settlement)
    is_first = is_new and not arrival.is_late
    is_final = (
        execution.status in TERMINAL_EXECUTION
        and (TERMINAL_CALL.issuperset(arrival.call_statuses) or _has_ended(unchanged, settlement))
        and (settlement.detail_suffices or not arrival.held.detail_calls)
        and _is_settled(execution, unchanged, arrival.held, settlement, is_first=is_first)
    )
    return ExportState.EXPORTED if is_final else ExportState.SETTLING


def _is_listed(execution: Execution, known: StoredExecution) -> bool:
    """Whether it was stored from its lists alone, as it is listed now."""
    return known.held.detail_calls > 0 and known.fingerprint == fingerprint(execution.payload)


def _was_listed_settled(execution: Execution, known: StoredExecution, settlement: Settlement) -> bool:
    """Whether it was stored so when no late data was expected any more, and nothing of it was fetched since, which may be older."""
    completed_at = timestamp_or_none(execution.payload.get("completed_at"))
    is_alone = _is_listed(execution, known) and known.held.detail_calls == known.held.exported_calls
    since = known.verified_at
    return is_alone and since is not None and completed_at is not None and since - completed_at >= settlement.settle


def _is_as_listed(execution: Execution, known: StoredExecution | None, arrival: Arrival) -> bool:
    """Whether each of its calls has a row as its lists show it now, or an exact one in place of that."""
    is_each_here = arrival.is_part and arrival.held.listed_calls == arrival.held.exported_calls
    if known is not None and known.export_state != ExportState.WAITING:
        return is_each_here and _is_listed(execution, known)
    return is_each_here and arrival.held.detail_calls > 0


def _has_ended(unchanged: StoredExecution | None, settlement: Settlement) -> bool:
    """Whether calls without an end count as ended: nothing of a terminal execution has changed for ``settle_hours``.

    Where they did before, they still do; its row may be younger, since it tells when that was verified.
    Cancelled executions keep pending calls for ever. One that goes on after all changes its execution, or is found by a scrub.
    """
    if unchanged is None:
        return False
    is_long = settlement.now - (unchanged.exported_at or settlement.now) >= settlement.settle
    return unchanged.export_state == ExportState.EXPORTED or is_long


def _is_settled(
    execution: Execution, unchanged: StoredExecution | None, held: HeldRows, settlement: Settlement, *, is_first: bool
) -> bool:
    """Whether no late data is expected: ``settle_hours`` after its end, and after the last change that a run saw.

    The end may be long ago: a rerun keeps the old one, and an execution may be stored late. In a first export it alone counts, if
    the source counts no more calls than were exported: those may be deleted, or missing from the list of one night.
    """
    settle, now = settlement.settle, settlement.now
    completed_at = timestamp_or_none(execution.payload.get("completed_at"))
    if completed_at is not None and completed_at > now + CLOCKS_DIFFER:
        completed_at = None  # like each time that has not come yet
    if completed_at is not None and now - completed_at < settle:
        return False
    if unchanged is not None:
        seen_at = unchanged.verified_at or unchanged.exported_at or now
        return unchanged.export_state == ExportState.EXPORTED or now - seen_at >= settle * _NEXT_NIGHT
    counts = call_counts(execution.payload)
    has_all = bool(counts) and held.exported_calls >= max(counts)
    return has_all and ((is_first and completed_at is not None) or settle <= timedelta(0))


def is_whole_as_listed(execution: Execution, known: StoredExecution) -> bool:
    """Whether the whole execution was stored as it is listed."""
    is_whole = known.export_state in (ExportState.EXPORTED, ExportState.SETTLING)
    return is_whole and known.fingerprint == fingerprint(execution.payload)


def _is_as_before(execution: Execution, known: StoredExecution, held: HeldRows) -> bool:
    """Whether neither the execution nor its calls and evals say anything new."""
    is_same = known.deleted_at is None and held.calls_digest == known.calls_digest
    return is_same and is_whole_as_listed(execution, known)
