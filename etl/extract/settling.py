"""Which calls of an execution need not be fetched again: those that two lists show unchanged, or that are stored already.

The list of calls was read already; the execution's detail costs one request more. Where it cannot be had tonight, the execution
settles on and is compared by the next run. Once it has settled for long, everything is fetched as if it were new.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etl.errors import SourceError
from etl.extract.call_list import CallList, by_id, read_details
from etl.extract.client import Client
from etl.extract.endpoints import get_call_metrics
from etl.extract.open_execution import OpenExecution
from etl.extract.plan import Planned, Reason
from etl.model import schema
from etl.model.lifecycle import StoredCalls
from etl.model.records import FROM_DETAIL, CallMetrics, DetailedCall, FetchedCall, ListedCall
from etl.model.values import parsed
from etl.transform.detail import (
    SHOWN_COLUMNS,
    amended,
    differences,
    metrics_in,
    shown_in,
    shown_in_row,
    vouches_for_evals,
)
from etl.transform.drift import lost_columns, unknown_fields
from etl.transform.flatten import call_row
from etl.transform.row_hash import says_the_same

Stored = Callable[[Planned], Awaitable[StoredCalls]]
"""Reads what the dataset holds of an execution."""
_Rows = Mapping[str, Sequence[Any]]
_MOST_FAILURES = 5
_INDEX = {name: index for index, name in enumerate(schema.CALLS.names)}
_NO_VALUES = {"extra", "detail", "chat_metrics_turn_count"}  # the detail makes up a number of turns


@dataclass(slots=True)
class Counts:
    """What a crawl found and spared.

    ``deleted_executions`` are planned ones that the API no longer has. ``saved_requests`` are the calls that were not fetched, less
    one for each detail that was read. ``without_detail`` is how many executions could not be compared, and ``failure`` says why the
    last of them could not.
    """

    deleted_executions: set[str] = field(default_factory=set)
    saved_requests: int = 0
    without_detail: int = 0
    failure: str | None = None

    def add(self, other: "Counts") -> None:
        """Add those of another crawl, which ended later."""
        self.deleted_executions |= other.deleted_executions
        self.saved_requests += other.saved_requests
        self.without_detail += other.without_detail
        self.failure = other.failure or self.failure


@dataclass(slots=True, eq=False)
class Settling:
    """Compares executions with what is ``stored`` of them, until several in a row have no detail; ``counts`` grow with each."""

    client: Client
    stored: Stored
    page_limit: int
    counts: Counts = field(default_factory=Counts)
    _failures_in_a_row: int = 0

    async def compare(self, execution: OpenExecution, latest: CallList) -> bool:
        """Let the execution keep the listed calls whose stored rows can stay; False where the next run may find out.

        What the detail alone has comes along, and where no more is wanted, the calls' metrics, too.
        """
        item, listed = execution.planned, execution.listed
        rows = execution.stored.rows
        if item.reason is not Reason.CHANGED:  # else it tells of values that are gone
            execution.shown = {key: shown_in_row(row) for key, row in rows.items()}
        candidates = _candidates(execution)
        kept = {key for key in candidates if item.is_resumed and _is_fetched_since(item, rows[key])}
        details: Mapping[str, DetailedCall] = {}
        due = candidates if item.is_resumed else {*listed}
        if item.reads_detail and due > kept:
            found = latest.details
            if found is None and not latest.lacks_evals:
                found = await self.details(item, rows=len(listed))
            if found is None and (item.may_wait or item.is_preview):
                return False
            details = found or {}
        execution.shown |= {key: execution.shown.get(key, {}) | shown_in(each) for key, each in details.items()}
        if item.is_compared or item.is_by_detail:
            there = sorted(candidates & details.keys() - kept)
            kept |= await self._same(execution, rows, {key: details[key] for key in there})
        self.counts.saved_requests += len(kept)
        execution.kept = frozenset(kept - execution.fetched.keys())
        if item.is_by_detail:
            metrics = {key: metrics_in(details[key]) for key in listed.keys() & details.keys() - execution.kept}
            told = {key: each for key, each in metrics.items() if each is not None}
            if latest.lacks_evals:
                execution.at_hand = told
            else:
                execution.fetched |= told
        return True

    async def is_as_stored(self, item: Planned, found: CallList) -> bool:
        """Whether the detail, of which the list was made, shows each stored call and its evals as they are, and no others."""
        stored, details = await self.stored(item), found.details or {}
        return stored.rows.keys() == details.keys() and all(
            _differences(item, found.calls[key], each, stored.rows[key]) <= SHOWN_COLUMNS
            and vouches_for_evals(each, stored.evals.get(key, ()))
            for key, each in details.items()
        )

    async def _same(self, execution: OpenExecution, rows: _Rows, details: Mapping[str, DetailedCall]) -> set[str]:
        """The calls whose rows can stay by their details, but for what these alone have, which is amended."""
        item, listed = execution.planned, execution.listed
        found = {key: _differences(item, listed[key], each, rows[key]) for key, each in details.items()}
        new = {key: amended(rows[key], details[key]) for key, names in found.items() if names & SHOWN_COLUMNS}
        differing = {key: names - SHOWN_COLUMNS for key, names in found.items()}
        same = {key for key, names in differing.items() if not names}
        if execution.lacks_evals:
            evals = execution.stored.evals
            same = {key for key in same if vouches_for_evals(details[key], evals.get(key, ()))}
        elif not item.is_by_detail:
            same = await self._unchanged(execution, {**rows, **new}, differing)
        execution.amended = {key: new[key] for key in same & new.keys()}
        return same

    async def _unchanged(self, execution: OpenExecution, rows: _Rows, differing: Mapping[str, set[str]]) -> set[str]:
        """The calls whose rows differ from their details in nothing but what their own metrics do not give.

        Where rows lack what the detail or their ``extra`` has, one call is fetched first: what the API does not give of it, it need
        not be asked for of the others.
        """
        item = execution.planned
        lacking = {
            key: {name for name in found - _NO_VALUES if rows[key][_INDEX[name]] is None}
            for key, found in differing.items()
        }
        same = {key for key, found in differing.items() if not found}
        odd = [key for key in differing if _is_odd(rows[key])]
        first = max(odd or lacking, key=lambda key: len(lacking[key]), default="")
        if not (odd or lacking.get(first)):
            return same
        metrics = await self._metrics(item, first)
        if metrics is None:
            return same - {first}
        execution.fetched[first] = metrics
        fetched = FetchedCall(listed=execution.listed[first], metrics=metrics, shown=shown_in_row(rows[first]))
        row, _ = call_row(fetched, run_test_name=item.run_test_name, started_at=item.execution.started_at)
        lost = lost_columns(schema.CALLS, metrics.payload)
        if odd and not lost and row[_INDEX["extra"]] != rows[first][_INDEX["extra"]]:
            return set()  # the answers have their old form again, or this version knows the new one
        if not says_the_same(schema.CALLS, row, rows[first]):
            return same
        execution.lacking = Counter(name for each in lacking.values() for name in each & lacking[first])
        return {
            key
            for key, found in differing.items()
            if not found
            or (lost and found == {"detail"})
            or (found - {"extra"} and found - {"extra"} <= lacking[key] & lacking[first])
        }

    async def _metrics(self, item: Planned, call_execution_id: str) -> CallMetrics | None:
        """The call's own metrics; None when they cannot be had: then they are requested again, with what is to be fetched."""
        request = get_call_metrics(call_execution_id, item.execution.execution_id)
        try:
            metrics = await self.client.get(request.sent_for(item.purpose))
        except SourceError:
            return None
        return metrics if metrics.execution_id == item.execution.execution_id else None

    async def details(self, item: Planned, *, rows: int) -> dict[str, DetailedCall] | None:
        """The calls in the execution's detail; None when it cannot be had."""
        if self.client.lacks_details or self._failures_in_a_row >= _MOST_FAILURES:
            self.counts.without_detail += not item.is_preview
            return None
        self.counts.saved_requests -= item.is_compared
        try:
            page = await read_details(self.client, item, rows=rows, page_limit=self.page_limit)
        except SourceError as error:
            self.counts.without_detail += not item.is_preview
            self._failures_in_a_row += 1
            self.counts.failure = str(error)
            return None
        self._failures_in_a_row = 0
        return by_id(page)


def _candidates(execution: OpenExecution) -> set[str]:
    """The listed calls whose rows may stay: not one that a dead letter tells of, which is older, or that has other metrics."""
    item, stored = execution.planned, execution.stored
    listed = {key for key, call in execution.listed.items() if isinstance(call.payload.get("status"), str)}
    here = {key for key, row in stored.rows.items() if item.is_by_detail or row[_INDEX["metrics_from"]] != FROM_DETAIL}
    return (listed & here) - stored.failed


def _differences(item: Planned, listed: ListedCall, detail: DetailedCall, stored: Sequence[Any]) -> set[str]:
    return differences(listed, detail, stored, run_test_name=item.run_test_name, started_at=item.execution.started_at)


def _is_odd(row: Sequence[Any]) -> bool:
    """Whether a completed call has fields that the schema does not know, where others may be gone."""
    return row[_INDEX["status"]] == "completed" and bool(unknown_fields(parsed(row[_INDEX["extra"]])))


def _is_fetched_since(item: Planned, row: Sequence[Any]) -> bool:
    """Whether the row of a call was fetched since its execution was found as it is listed now."""
    begun_at, exported_at = item.stored.verified_at if item.stored else None, row[_INDEX["exported_at"]]
    return begun_at is not None and exported_at is not None and exported_at >= begun_at
