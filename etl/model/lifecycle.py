"""The life of an execution: how it is listed, what the dataset holds of it, and when it is final. Pure.

docs/architecture.md draws the states and what moves them: what a run saw of the execution (``Sight``).
"""

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
from etl.model.values import MISFIT, timestamp_or_none, to_int, value_at
from etl.model.wording import Word

TERMINAL_EXECUTION = frozenset({"completed", "failed", "cancelled"})
KNOWN_EXECUTION = TERMINAL_EXECUTION | {"pending", "running", "cancelling", "evaluating"}
TERMINAL_CALL = frozenset({"completed", "failed", "cancelled"})
KNOWN_CALL = TERMINAL_CALL | {"pending", "queued", "ongoing", "analyzing"}
CLOCKS_DIFFER = timedelta(minutes=5)
"""How far apart two correct clocks may be."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""Earlier than any time: stands for one that is missing."""
_EARLY_NIGHT = 0.9
"""Nightly runs may start a little early: so much of ``settle_hours`` counts as all of it."""
_OVERDUE_NIGHTS = 2
"""An execution that could not be compared for so many nights is fetched instead."""


def next_night_after(settle: timedelta) -> timedelta:
    """How long without a change counts as settled: a little less than ``settle_hours``, for a run that starts early."""
    return settle * _EARLY_NIGHT


def overdue_after(settle: timedelta) -> timedelta:
    """How long after its last change an execution that cannot be compared is fetched."""
    return next_night_after(settle) * _OVERDUE_NIGHTS


def unless_future(moment: datetime | None, now: datetime | None) -> datetime | None:
    """The time; None if it is after ``now``, both by the source's clock: then it is wrong, and counts as missing."""
    return None if moment and now and moment > now + CLOCKS_DIFFER else moment


class ExportState(StrEnum):
    """The values of the column ``executions.export_state``."""

    EXPORTED = "exported"
    """Final: whole, and no late data is expected."""
    SETTLING = "settling"
    """Whole, and compared again until late data is no longer expected."""
    LISTED = "listed"
    """Each call has a row, some of them as the lists show it; exact ones are to come."""
    WAITING = "waiting"
    """Not finished at the source: its calls are not there yet, or are those of before it ran again."""
    INCOMPLETE = "incomplete"
    """Part of it could not be fetched; the next run goes on."""
    FORGOTTEN = "forgotten"
    """Its owner had all but its row removed (``dataset/forget``). No run sees it any more."""


BEGUN = frozenset({ExportState.INCOMPLETE, ExportState.LISTED})
"""States of an execution that is being fetched, perhaps by several runs.

Rows that were fetched since it got its present entry in the list are not fetched again.
"""
WHOLE = frozenset({ExportState.EXPORTED, ExportState.SETTLING})
"""An execution in one of these was stored with each of its calls, as it was listed then."""


class ListedExecution(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One listed execution."""

    execution_id: str
    status: str
    """The API's word for where it is: see ``KNOWN_EXECUTION``."""
    fingerprint: str
    """Hash of its payload."""
    started_at: datetime | None
    """When the source created it; None if the list does not say."""
    calls: int | None
    """How many calls it has according to the list; None if the list does not say."""
    has_chats: bool
    """Whether its aggregates have values of chats."""
    packed: bytes | dict[str, Any] | None
    """The payload, pickled to a tenth of the memory; as it is if too deeply nested for that; None if dropped."""

    @classmethod
    def of(cls, execution: Execution) -> "ListedExecution":
        """The execution without its payload."""
        return cls(
            execution_id=execution.execution_id,
            status=execution.status,
            fingerprint=fingerprint(execution.payload),
            started_at=timestamp_or_none(execution.payload.get("started_at")),
            calls=next(iter(call_counts(execution.payload)), None),
            has_chats=_has_chats(execution.payload),
            packed=None,
        )

    def with_payload(self, payload: dict[str, Any]) -> "ListedExecution":
        """The same execution with its payload."""
        try:
            return msgspec.structs.replace(self, packed=pickle.dumps(payload))
        except RecursionError:
            return msgspec.structs.replace(self, packed=payload)

    def unpack(self) -> Execution:
        """The execution as it was listed.

        Raises:
            ValueError: its payload was dropped, which is a bug: only what says nothing new loses it.
        """
        if self.packed is None:
            raise ValueError(
                f"the payload of execution {self.execution_id} is no longer in memory. This is a bug. Please report it"
            )
        payload = pickle.loads(self.packed) if isinstance(self.packed, bytes) else self.packed  # noqa: S301 made here
        return Execution(execution_id=self.execution_id, status=self.status, payload=payload)


@dataclass(frozen=True, slots=True)
class ExecutionList:
    """One run test's executions as they are listed, by execution_id."""

    executions: Mapping[str, ListedExecution]
    """Those that could be read, at least their heads."""
    is_complete: bool
    """It is proved that no execution is missing (law 4)."""
    heads: Mapping[str, DeadLetter]
    """Of which executions only the head could be read (status, times, counters), and why."""
    unreadable: tuple[str, ...]
    """A line for each row of the list that could not even be identified."""


def call_counts(payload: Mapping[str, Any]) -> list[int]:
    """How many calls an execution has: as the API counts them now, and its stored counter.

    Each is left out where the payload has no count that its column can hold.
    """
    counts = map(to_int, (value_at(payload, ("metrics", "calls", "total")), payload.get("total_calls")))
    return [count for count in counts if count is not MISFIT and count >= 0]


def _has_chats(payload: Mapping[str, Any]) -> bool:
    """Whether an average over chats is neither zero nor null; voice calls count turns, too."""
    chat = value_at(payload, ("metrics", "chat"))
    return isinstance(chat, dict) and any(chat.get(f"avg_{name}") for name in ("total_tokens", "csat_score"))


@dataclass(frozen=True, slots=True)
class HeldRows:
    """What the dataset holds of one execution's calls and evals, by their rows."""

    listed_calls: int | None
    """How many calls the API listed; None if that was never read."""
    exported_calls: int
    """How many calls have a row without a mark."""
    calls_digest: str
    """Hash of the rows of its calls and evals, with their marks."""
    detail_calls: int = 0
    """How many of the exported calls have no metrics but those of the detail."""


@dataclass(frozen=True, slots=True)
class StoredCalls:
    """What the dataset holds of the calls of one execution, by call_execution_id; by default nothing.

    A row is a sequence of values in the order of the table's columns.
    """

    calls: Mapping[str, bool] = field(default_factory=dict)
    """Each call of which there is a row, an eval or a dead letter, with whether all of that is marked as deleted."""
    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """The rows of calls without a mark."""
    evals: Mapping[str, Sequence[Sequence[Any]]] = field(default_factory=dict)
    """The rows of these calls' evals."""
    failed: AbstractSet[str] = frozenset()
    """The ids that dead letters are about: the execution, or its calls."""


@dataclass(frozen=True, slots=True)
class StoredExecution:
    """What the dataset says of an execution, by its row, and what it really holds of its calls and evals."""

    run_test_key: str
    """The key of the partition where it lies."""
    place: str
    """Its part of that partition."""
    export_state: str
    """Its state, as a text: a later version may have written another one."""
    fingerprint: str
    """Hash of its entry in the list, as it was stored."""
    calls_digest: str
    """The digest that its row vouches for: a commit writes it after its calls and evals (law 2)."""
    exported_calls: int
    """How many calls its row says were exported."""
    held: HeldRows
    """What its calls and evals really are."""
    verified_at: datetime | None = None
    """When its calls were last fetched, or it became final; in a state of ``BEGUN``, when that began.

    Any other comparison without a difference does not renew it.
    """
    exported_at: datetime | None = None
    """When its row last changed."""
    deleted_at: datetime | None = None
    """Since when it is marked as deleted."""
    run_test_name: str = ""
    """The run test that it was listed for last."""
    has_letters: bool = False
    """The errors table has dead letters of it: it is incomplete or waits, or a run was killed between two tables.

    Those of its detail do not count.
    """
    lacks_detail: bool = False
    """The errors table has dead letters of its detail: rows of its calls lack what only that shows."""
    has_row: bool = True
    """It has a row of its own; without one it counts as incomplete: a run was killed before it wrote that."""
    is_described: bool = False
    """It has what the lists of run tests say of it, or never gets it, since it is forgotten."""
    has_newer_rows: bool = False
    """Calls or evals are newer than its row: a run was killed before it wrote that."""

    @property
    def is_forgotten(self) -> bool:
        """Whether its owner has forgotten it."""
        return self.export_state == ExportState.FORGOTTEN

    @property
    def is_final(self) -> bool:
        """Whether it is exported and not marked."""
        return self.export_state == ExportState.EXPORTED and self.deleted_at is None

    @property
    def is_damaged(self) -> bool:
        """Whether the dataset holds other calls or evals than were exported, or newer ones."""
        return self.has_newer_rows or self.held.calls_digest != self.calls_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What a run brought of an execution."""

    held: HeldRows
    """What the dataset holds of it now, with what arrived."""
    call_statuses: Collection[str] | None
    """The statuses of its calls; None when they were not listed."""
    is_whole: bool
    """Each listed call has its row, and there is no dead letter but those of its detail."""
    lacks_detail: bool = False
    """Its detail, or that of some calls, could not be read."""
    keeps_unseen: bool = False
    """Stored calls stay, although nothing was there to compare them with."""
    is_part: bool = False
    """More is to come, unless something stops the run."""
    is_late: bool = False
    """An earlier run exported everything in its run test, so this is no first export."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What tells whether late data may still come."""

    fetched_at: datetime
    """By the source's clock: after all rows written so far, and before anything of this plan is fetched."""
    now: datetime
    """When the run started, by the slower of two clocks, the source's and ours: the other one may be fast."""
    settle: timedelta
    """How long late data may come: ``settle_hours``."""
    complete_before: Container[str] = ()
    """The names of the run tests that an earlier run exported completely."""
    detail_suffices: bool = False
    """With ``metrics = "listed"``: no call needs other metrics than those of its execution's detail."""
    drifted: AbstractSet[str] = frozenset()
    """The execution_ids of those in which columns lost values that the API has in another form."""


class Sight(Word):
    """What a run saw of an execution, beside what was stored of it: that moves it from one export state to another."""

    RUNNING = "running", "it has not finished at the source, so its calls were not requested"
    PART = "part", "a call has no row, a request failed, or more is to come"
    LISTED = "listed", "each call has a row, but the own metrics of some calls are still to come"
    UNSETTLED = "unsettled", "all of it was seen, but late data may come, it or a call runs, or values are missing"
    SETTLED = "settled", "all of it was seen, and no late data is expected"
    NOTHING_NEW = "nothing new", "only a part of it was seen, which changes nothing"


_NEXT_STATE = {
    Sight.RUNNING: ExportState.WAITING,
    Sight.PART: ExportState.INCOMPLETE,
    Sight.LISTED: ExportState.LISTED,
    Sight.UNSETTLED: ExportState.SETTLING,
    Sight.SETTLED: ExportState.EXPORTED,
}
"""The state after each sight, whatever the state was before; after ``NOTHING_NEW`` it stays."""


def export_state(
    execution: Execution, known: StoredExecution | None, arrival: Arrival, settlement: Settlement
) -> ExportState:
    """The state of a fetched execution, to be committed with it; ``known`` is what the dataset held before."""
    sight = sight_of(execution, known, arrival, settlement)
    return ExportState(known.export_state) if known and sight is Sight.NOTHING_NEW else _NEXT_STATE[sight]


def sight_of(execution: Execution, known: StoredExecution | None, arrival: Arrival, settlement: Settlement) -> Sight:
    """What the run saw of the execution, beside what is ``known`` of it."""
    held = arrival.held
    is_listed_as_before = known is not None and known.fingerprint == fingerprint(execution.payload)
    unchanged = known if known and is_listed_as_before and _are_calls_unchanged(known, held) else None
    if not arrival.is_whole:
        return _sight_of_part(known, arrival, is_unchanged=bool(unchanged), is_listed_as_before=is_listed_as_before)
    if arrival.call_statuses is None:
        return Sight.RUNNING
    was_listed_late = known is not None and is_listed_as_before and _was_listed_late(execution, known, settlement)
    is_new = known is None or not known.has_row or was_listed_late
    is_settled = (
        execution.status in TERMINAL_EXECUTION
        and execution.execution_id not in settlement.drifted
        and (TERMINAL_CALL.issuperset(arrival.call_statuses) or _count_open_calls_as_ended(unchanged, settlement))
        and (settlement.detail_suffices or not held.detail_calls)
        and not arrival.lacks_detail
        and (not arrival.keeps_unseen or (known is not None and is_held(execution, known, settlement.settle)))
        and _is_settled(execution, unchanged, held, settlement, is_first=is_new and not arrival.is_late)
    )
    return Sight.SETTLED if is_settled else Sight.UNSETTLED


def _sight_of_part(
    known: StoredExecution | None, arrival: Arrival, *, is_unchanged: bool, is_listed_as_before: bool
) -> Sight:
    """What the run saw of an execution that is not whole."""
    held = arrival.held
    if not arrival.is_part or held.listed_calls != held.exported_calls:
        return Sight.PART
    if is_unchanged:
        return Sight.NOTHING_NEW
    if known is None or known.export_state == ExportState.WAITING:
        return Sight.LISTED if held.detail_calls else Sight.PART
    # Rows of lists that were stored before are replaced one by one: what was stored tells that it was listed.
    return Sight.LISTED if known.held.detail_calls and is_listed_as_before else Sight.PART


def is_whole_as_listed(execution: Execution, known: StoredExecution) -> bool:
    """Whether the whole execution was stored as it is listed."""
    return known.export_state in WHOLE and known.fingerprint == fingerprint(execution.payload)


def is_held(execution: Execution, known: StoredExecution, settle: timedelta) -> bool:
    """Whether a settling execution, listed as before, was compared after all late data was expected.

    So it is not final for another reason: columns lost their values, see ``transform/drift``.
    """
    if known.export_state != ExportState.SETTLING or known.verified_at is None:
        return False
    payload = execution.payload
    ended_at = timestamp_or_none(payload.get("completed_at")) or timestamp_or_none(payload.get("started_at"))
    return ended_at is None or known.verified_at - ended_at >= settle


def _are_calls_unchanged(known: StoredExecution, held: HeldRows) -> bool:
    """Whether the whole execution was stored, and its calls and evals say the same as then."""
    return known.export_state in WHOLE and known.deleted_at is None and held.calls_digest == known.calls_digest


def _was_listed_late(execution: Execution, known: StoredExecution, settlement: Settlement) -> bool:
    """Whether all its rows were made of lists that were read when no late data was expected any more.

    Where a call was fetched since, that may be older than what is listed now.
    """
    is_of_lists_alone = 0 < known.held.detail_calls == known.held.exported_calls
    completed_at = timestamp_or_none(execution.payload.get("completed_at"))
    if not is_of_lists_alone or known.verified_at is None or completed_at is None:
        return False
    return known.verified_at - completed_at >= settlement.settle


def _count_open_calls_as_ended(unchanged: StoredExecution | None, settlement: Settlement) -> bool:
    """Whether calls without an end count as ended: nothing of their execution has changed for ``settle_hours``.

    Cancelled executions keep pending calls for ever. A final execution stays final: its row may be young only because
    its run test was renamed. If a call goes on after all, its execution changes, or the sweep finds it.
    """
    if unchanged is None:
        return False
    changed_at = unchanged.exported_at or settlement.now
    return unchanged.export_state == ExportState.EXPORTED or settlement.now - changed_at >= settlement.settle


def _is_settled(
    execution: Execution, unchanged: StoredExecution | None, held: HeldRows, settlement: Settlement, *, is_first: bool
) -> bool:
    """Whether no late data is expected: ``settle_hours`` after its end, and after the last change seen (law 8).

    The end may be long ago: a rerun keeps the old one, and an execution may be stored late. In a first export, the end
    alone counts, if the source counts no more calls than were exported: those may be deleted, or missing from the list
    of one night. ``is_first`` holds for a stored execution, too, if only its own row was missing, or if all its rows
    come from lists that were read late (``_was_listed_late``).
    """
    now = settlement.now
    completed_at = unless_future(timestamp_or_none(execution.payload.get("completed_at")), now)
    if completed_at is not None and now - completed_at < settlement.settle:
        return False
    if unchanged is not None:
        seen_at = unchanged.verified_at or unchanged.exported_at or now
        return unchanged.export_state == ExportState.EXPORTED or now - seen_at >= next_night_after(settlement.settle)
    counts = call_counts(execution.payload)
    has_all = bool(counts) and held.exported_calls >= max(counts)
    return has_all and ((is_first and completed_at is not None) or settlement.settle <= timedelta(0))
