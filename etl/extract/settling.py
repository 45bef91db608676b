"""Which calls of an execution need not be fetched again: those that two lists show unchanged.

The list of calls was read already; the execution's detail costs one request more. Where the server, the key or the execution has
none, everything is fetched as if it were new.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from etl.errors import SourceError
from etl.extract.bad_rows import power_of_two_above
from etl.extract.client import Client
from etl.extract.endpoints import list_call_details
from etl.extract.plan import Planned, Reason
from etl.model.records import DeadLetter, DetailedCall, ListedCall
from etl.transform.detail import is_listed_as_stored, vouches_for

_MOST_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Stored:
    """Reads what the dataset holds of an execution.

    That is its calls, and of each the configs of its evals; their rows by id; the subject and the message of each dead letter; and
    how many calls the API counted in it and did not list.
    """

    evals_by_call: Callable[[Planned], Awaitable[Mapping[str, AbstractSet[str]]]]
    rows: Callable[[Planned], Awaitable[Mapping[str, Sequence[Any]]]]
    letters: Callable[[Planned], Awaitable[AbstractSet[tuple[str, str]]]]
    unlisted_calls: Callable[[Planned], Awaitable[int]]


class Settling:
    """Compares executions with what is ``stored`` of them; the counts grow with each.

    ``compared`` executions needed two requests instead of one for each call. ``saved_requests`` are the calls that were not
    fetched, less one for each detail that was asked for. ``listed_differently`` executions had changed by their list alone: none
    of their calls had to be fetched. ``fetched_whole`` is how many could not be compared, and ``failure`` says
    why the last of them could not. After a few in a row no detail is read any more.
    """

    def __init__(self, client: Client, stored: Stored, *, page_limit: int) -> None:
        self.compared = 0
        self.saved_requests = 0
        self.listed_differently = 0
        self.fetched_whole = 0
        self.failure: str | None = None
        self._client = client
        self.stored = stored
        self._page_limit = page_limit
        self._failures_in_a_row = 0

    async def unchanged(self, item: Planned, listed: Mapping[str, ListedCall]) -> tuple[frozenset[str], frozenset[str]]:
        """The listed calls whose stored rows can stay, and the calls that only the detail names: one of the two is older."""
        if not (item.is_compared and listed):
            return frozenset(), frozenset()
        details = await self._details(item, limit=max(self._page_limit, power_of_two_above(len(listed))))
        rows = await self.stored.rows(item) if details else {}
        # The rows of calls that could not be fetched last time are older than what no list shows.
        failed = {subject_id for subject_id, _ in await self.stored.letters(item)} if details else set()
        kept = frozenset(
            key
            for key in (listed.keys() & details.keys() & rows.keys()) - failed
            if isinstance(listed[key].payload.get("status"), str)
            and vouches_for(
                listed[key],
                details[key],
                rows[key],
                run_test_name=item.run_test_name,
                started_at=item.started_at,
            )
        )
        self.saved_requests += len(kept)
        self.listed_differently += item.reason is Reason.CHANGED and len(kept) == len(listed)
        return kept, frozenset(details.keys() - listed.keys())

    async def is_stored(self, item: Planned, doubt: DeadLetter, listed: Mapping[str, ListedCall]) -> bool:
        """Whether the same doubt, and nothing else, kept an earlier run from exporting the execution as it is listed now.

        Then its metrics have nothing to add: either they were not needed then, or they did not change what the doubt says. They
        have where the list tells of a call what its stored row does not: they were older then.
        """
        known = item.stored
        if known is None or known.is_damaged or known.fingerprint != item.execution.fingerprint:
            return False
        if await self.stored.letters(item) != {(doubt.subject_id, doubt.message)}:
            return False
        rows = await self.stored.rows(item)
        return all(is_listed_as_stored(listed[each], rows[each]) for each in listed.keys() & rows.keys())

    async def _details(self, item: Planned, *, limit: int) -> dict[str, DetailedCall]:
        """The calls in the execution's detail; none when it cannot be had."""
        if self._failures_in_a_row >= _MOST_FAILURES:
            self.fetched_whole += 1
            return {}
        self.saved_requests -= 1
        request = list_call_details(item.execution.execution_id, limit=limit)
        try:
            page = await self._client.get(request.sent_for(item.purpose))
        except SourceError as error:
            self.fetched_whole += 1
            self._failures_in_a_row += 1
            self.failure = str(error)
            return {}
        self._failures_in_a_row = 0
        self.compared += 1
        times = Counter(call.call_execution_id for call in page.results)
        return {call.call_execution_id: call for call in page.results if times[call.call_execution_id] == 1}
