"""Which calls of an execution need not be fetched again: those that two lists show unchanged, or that are stored already.

The list of calls was read already; the execution's detail costs one request more. Where it cannot be had tonight, the execution
settles on and is compared by the next run. Once it has settled for long, everything is fetched as if it were new.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from etl.errors import SourceError
from etl.extract.call_list import CallList, by_id, read_details
from etl.extract.client import Client
from etl.extract.plan import Planned
from etl.model import schema
from etl.model.records import DetailedCall
from etl.transform.detail import vouches_for
from etl.transform.detail_evals import vouches_for_evals

_MOST_FAILURES = 5
_EXPORTED_AT = schema.CALLS.names.index("exported_at")


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

    async def kept(self, item: Planned, found: CallList, *, may_compare: bool) -> frozenset[str] | None:
        """The listed calls whose stored rows can stay; None where the next run may find out.

        Never one that a dead letter tells of: its row is older.
        """
        is_compared = item.is_compared and may_compare
        if not found.calls or not (item.is_resumed or is_compared):
            return frozenset()
        candidates = {key for key, call in found.calls.items() if isinstance(call.payload.get("status"), str)}
        candidates -= await self.stored.failed(item)
        rows = await self.stored.rows(item)
        candidates &= rows.keys()
        kept = {key for key in candidates if item.is_resumed and _is_fetched_since(item, rows[key])}
        if is_compared and candidates > kept:
            details = found.details if found.lacks_evals else await self._details(item, rows=len(found.calls))
            if details is None and item.may_wait:
                return None
            evals = await self.stored.evals(item) if found.lacks_evals else None
            is_same = partial(vouches_for, run_test_name=item.run_test_name, started_at=item.started_at)
            kept |= {
                key
                for key, detail in (details or {}).items()
                if key in candidates
                and is_same(found.calls[key], detail, rows[key])
                and (evals is None or vouches_for_evals(detail, evals.get(key, ())))
            }
        self.counts.saved_requests += len(kept)
        return frozenset(kept)

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


def _is_fetched_since(item: Planned, row: Sequence[Any]) -> bool:
    """Whether the row of a call was fetched since its execution was found as it is listed now."""
    begun_at, exported_at = item.stored.verified_at if item.stored else None, row[_EXPORTED_AT]
    return begun_at is not None and exported_at is not None and exported_at >= begun_at
