"""The list of one execution's calls, and what replaces it while the server cannot give it.

The server answers 500 for the list as long as it cannot sum up one eval of the execution, although it can give each
call. After the first 500, these are tried in this order:

1. The execution's detail, which tells whether stored calls and evals are unchanged.
2. The list with the name of an eval that does not exist: nothing is summed up, and every call comes without its evals.
3. The same without the rows that make its pages fail.

``lacks_evals`` says that the entries have no evals, so that each call's entry has to be requested by itself. Before
that, the list is tried once more, unless the detail was read and the route compares: then few entries are needed.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from operator import attrgetter

from msgspec import structs

from etl.errors import ServerFaultError, SourceError
from etl.extract.bad_rows import HeadReader, SkippingReader, no_head, power_of_two_above
from etl.extract.client import Client
from etl.extract.endpoints import Slice, list_call_details, list_calls
from etl.extract.listing import MOST_ROWS_OF_A_PAGE, read_pass
from etl.extract.plan import Planned, Route
from etl.model.records import ListedCall, Page
from etl.transform.detail import listed_in

_ID_OF = attrgetter("call_execution_id")


@dataclass(frozen=True, slots=True)
class Details:
    """What was read of an execution's detail."""

    calls: Mapping[str, ListedCall] = field(default_factory=dict)
    """Its calls by call_execution_id, without those that it has twice: of these it does not say which entry counts."""
    failure: SourceError | None = None
    """Why calls are missing; None if it was read to its end."""


@dataclass(frozen=True, slots=True)
class CallList:
    """What one reading of the list showed, by call_execution_id."""

    calls: Mapping[str, ListedCall]
    """The calls that it has."""
    count: int | None = None
    """How many calls the list had after all of its pages were read.

    None if one page showed it whole, or if rows are unreadable: then it proves nothing.
    """
    unreadable: SourceError | None = None
    """Why some calls could not be read, and how many: then nothing is proved."""
    lacks_evals: bool = False
    """Its entries have no evals."""
    details: Details | None = None
    """The execution's detail, if it was requested before the list, or in its place."""


async def read_call_list(client: Client, item: Planned, *, page_limit: int, details: Details | None = None) -> CallList:
    """Read the list once; ``details`` is the execution's detail, if it was requested before.

    Raises:
        NotFoundError: there is no such execution.
        SourceError: the list cannot be had in any way.
    """
    try:
        latest = await _read(client, item, page_limit)
    except ServerFaultError as error:
        if item.route is Route.PREVIEW:
            raise
        failure = error
    else:
        return replace(latest, details=details)
    details = details or await read_details(client, item, rows=item.estimated_calls)
    other = (
        list_of_details(details)
        if details.failure is None
        else await _read_otherwise(client, item, page_limit, failure)
    )
    if item.route.keeps_unchanged and details.failure is None:
        return other
    try:
        latest = await _read(client, item, page_limit)
    except SourceError:
        latest = other
    return replace(latest, details=details)


def list_of_details(details: Details) -> CallList:
    """A list without evals, made of an execution's detail that was read to its end."""
    calls = {key: listed_in(detail) for key, detail in details.calls.items()}
    return CallList(calls, lacks_evals=True, details=details)


async def _read_otherwise(client: Client, item: Planned, page_limit: int, failure: ServerFaultError) -> CallList:
    """The list in the ways 2 and 3 of the module's docstring; raises ``failure`` where none of them works."""
    with suppress(ServerFaultError):
        return await _read(client, item, page_limit, without_evals=True)
    try:
        return await _read(client, item, page_limit, without_evals=True, head_at=no_head)
    except ServerFaultError:
        raise failure from None


async def _read(
    client: Client,
    item: Planned,
    page_limit: int,
    *,
    without_evals: bool = False,
    head_at: HeadReader[ListedCall] | None = None,
) -> CallList:
    """Read the usual list once; with ``head_at``, without the rows that make its pages fail.

    Of many pages, the count is requested again at the end: only a count from after the last page can prove them.
    """

    async def read(part: Slice) -> Page[ListedCall]:
        request = list_calls(item.execution.execution_id, part, without_evals=without_evals)
        return await client.get(request.sent_for(item.purpose))

    listing = await read_pass(read, _ID_OF, limit=page_limit, largest=client.largest_page, head_at=head_at)
    if listing.unreadable:
        last = listing.unreadable[-1].error
        text = f"cannot list {len(listing.unreadable)} of the calls of execution {item.execution.execution_id}: {last}"
        problem = SourceError(text, status=last.status, excerpt=last.excerpt)
        return CallList(listing.rows, unreadable=problem, lacks_evals=without_evals)
    count = None if listing.is_whole_page else (await read(Slice(1, 1))).count
    return CallList(listing.rows, count, lacks_evals=without_evals)


async def read_details(client: Client, item: Planned, *, rows: int) -> Details:
    """The execution's detail, read to its end; the answer says what of it cannot be had.

    It takes one request, unless it has more calls than the expected ``rows``, the server gives smaller pages, or a call
    makes its page fail: the others are read in smaller ones.
    """
    execution_id = item.execution.execution_id
    limit = power_of_two_above(rows)
    ambiguous = set[str]()

    async def read(part: Slice) -> Page[ListedCall]:
        part = structs.replace(part, is_probe=part.limit < limit)  # a 500 of the first page may pass
        page = await client.get(list_call_details(execution_id, part).sent_for(item.purpose))
        times = Counter(call.call_execution_id for call in page.results)
        ambiguous.update(key for key, number in times.items() if number > 1)
        return page

    reader = SkippingReader(read, _ID_OF, no_head, limit=limit, error=SourceError(""), most=MOST_ROWS_OF_A_PAGE)
    failure: SourceError | None = None
    try:
        await reader.read_rest(0)
    except SourceError:
        failure = reader.error
    calls = {key: call for key, call in reader.rows.items() if key not in ambiguous}
    failure = failure or next((row.error for row in reader.unreadable), None)
    if failure is None and len(calls) < reader.count:
        failure = SourceError(f"the detail of execution {execution_id} shows {len(calls)} of {reader.count:g} calls")
    return Details(calls, failure)
