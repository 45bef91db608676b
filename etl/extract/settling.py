"""Which calls of an execution need not be fetched again: those that two lists show unchanged, or that are stored already.

The list of calls was read already; the execution's detail costs one request more. Where it cannot be had tonight, the execution
settles on and is compared by the next run. Once it has settled for long, everything is fetched as if it were new.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from etl.errors import SourceError
from etl.extract.call_list import CallList, by_id, read_details
from etl.extract.client import Client
from etl.extract.endpoints import get_call_metrics
from etl.extract.open_execution import OpenExecution
from etl.extract.plan import Planned
from etl.model import schema
from etl.model.records import CallMetrics, DetailedCall, FetchedCall
from etl.model.values import parsed
from etl.transform.detail import differences
from etl.transform.detail_evals import vouches_for_evals
from etl.transform.drift import lost_columns, unknown_fields
from etl.transform.flatten import call_row

_MOST_FAILURES = 5
_INDEX = {name: index for index, name in enumerate(schema.CALLS.names)}
_NO_VALUES = {"extra", "detail", "chat_metrics_turn_count"}  # the detail makes up a number of turns


@dataclass(frozen=True, slots=True)
class Stored:
    """Reads what the dataset holds of an execution.

    That is: the ids of its calls, each with whether it is marked as deleted; the rows of those that are not, by id; the rows of
    their evals by call; and the calls of which a dead letter tells.
    """

    calls: Callable[[Planned], Awaitable[Mapping[str, bool]]]
    rows: Callable[[Planned], Awaitable[Mapping[str, Sequence[Any]]]]
    evals: Callable[[Planned], Awaitable[Mapping[str, Sequence[Sequence[Any]]]]]
    failed: Callable[[Planned], Awaitable[AbstractSet[str]]]


@dataclass(slots=True)
class Counts:
    """What a crawl did.

    ``listings`` are executions whose calls are listed. ``necessary_requests``: one for each page of calls, each call, each look-up
    and each detail. ``deleted_executions`` are planned ones that the API no longer has. ``saved_requests`` are the calls that were
    not fetched, less one for each detail that was read. ``not_compared`` is how many executions could not be compared, and
    ``failure`` says why the last of them could not.
    """

    calls_fetched: int = 0
    listings: int = 0
    necessary_requests: int = 0
    deleted_executions: set[str] = field(default_factory=set)
    saved_requests: int = 0
    not_compared: int = 0
    failure: str | None = None

    def add(self, other: "Counts") -> None:
        """Add those of another crawl, which ended later."""
        self.calls_fetched += other.calls_fetched
        self.listings += other.listings
        self.necessary_requests += other.necessary_requests
        self.deleted_executions |= other.deleted_executions
        self.saved_requests += other.saved_requests
        self.not_compared += other.not_compared
        self.failure = other.failure or self.failure


class Settling:
    """Compares executions with what is ``stored`` of them; ``counts`` grow with each.

    After a few in a row whose detail failed, no detail is read any more.
    """

    def __init__(self, client: Client, stored: Stored, *, page_limit: int) -> None:
        self.counts = Counts()
        self.stored = stored
        self._client = client
        self._page_limit = page_limit
        self._failures_in_a_row = 0

    async def compare(self, execution: OpenExecution, latest: CallList, *, may_compare: bool) -> bool:
        """Let the execution keep the listed calls whose stored rows can stay; False where the next run may find out.

        Never one that a dead letter tells of: its row is older. Where rows lack what the detail or their ``extra`` has, one call is
        fetched first: what the API does not give of it, it need not be asked for of the others.
        """
        item, listed = execution.planned, execution.listed
        is_compared = item.is_compared and may_compare
        if not listed or not (item.is_resumed or is_compared):
            return True
        candidates = {key for key, call in listed.items() if isinstance(call.payload.get("status"), str)}
        candidates -= await self.stored.failed(item)
        rows = await self.stored.rows(item)
        candidates &= rows.keys()
        kept = {key for key in candidates if item.is_resumed and _is_fetched_since(item, rows[key])}
        details: Mapping[str, DetailedCall] = {}
        if is_compared and candidates > kept:
            found = latest.details if latest.lacks_evals else await self._details(item, rows=len(listed))
            if found is None and item.may_wait:
                return False
            details = found or {}
        of_execution: dict[str, Any] = {"run_test_name": item.run_test_name, "started_at": item.started_at}
        differing = {
            key: differences(listed[key], details[key], rows[key], **of_execution)
            for key in sorted(candidates & details.keys() - kept)
        }
        if latest.lacks_evals:
            evals = await self.stored.evals(item)
            same = {key for key, names in differing.items() if not names}
            kept |= {key for key in same if vouches_for_evals(details[key], evals.get(key, ()))}
        else:
            kept |= await self._unchanged(execution, rows, differing)
        self.counts.saved_requests += len(kept)
        execution.kept = frozenset(kept - execution.fetched.keys())
        return True

    async def _unchanged(
        self, execution: OpenExecution, rows: Mapping[str, Sequence[Any]], differing: Mapping[str, set[str]]
    ) -> set[str]:
        """The calls whose rows differ from their details in nothing but what their own metrics do not give."""
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
        fetched = FetchedCall(listed=execution.listed[first], metrics=metrics)
        row, _ = call_row(fetched, run_test_name=item.run_test_name, started_at=item.started_at)
        lost = lost_columns(schema.CALLS, metrics.payload)
        if odd and not lost and row[_INDEX["extra"]] != rows[first][_INDEX["extra"]]:
            return set()  # the answers have their old form again, or this version knows the new one
        if row[_INDEX["row_hash"]] != rows[first][_INDEX["row_hash"]]:
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
            metrics = await self._client.get(request.sent_for(item.purpose))
        except SourceError:
            return None
        is_own = metrics.execution_id == item.execution.execution_id
        self.counts.calls_fetched += is_own
        return metrics if is_own else None

    async def _details(self, item: Planned, *, rows: int) -> dict[str, DetailedCall] | None:
        """The calls in the execution's detail; None when it cannot be had."""
        if self._failures_in_a_row >= _MOST_FAILURES:
            self.counts.not_compared += 1
            return None
        self.counts.saved_requests -= 1
        try:
            page = await read_details(self._client, item, rows=rows, page_limit=self._page_limit)
        except SourceError as error:
            self.counts.not_compared += 1
            self._failures_in_a_row += 1
            self.counts.failure = str(error)
            return None
        self._failures_in_a_row = 0
        self.counts.necessary_requests += 1
        return by_id(page)


def _is_odd(row: Sequence[Any]) -> bool:
    """Whether a completed call has fields that the schema does not know, where others may be gone."""
    return row[_INDEX["status"]] == "completed" and bool(unknown_fields(parsed(row[_INDEX["extra"]])))


def _is_fetched_since(item: Planned, row: Sequence[Any]) -> bool:
    """Whether the row of a call was fetched since its execution was found as it is listed now."""
    begun_at, exported_at = item.stored.verified_at if item.stored else None, row[_INDEX["exported_at"]]
    return begun_at is not None and exported_at is not None and exported_at >= begun_at
