"""One execution's list of calls, in whichever way the server can give it.

The list stays 500 for as long as the server cannot sum up one eval of the execution, though each call can be had. Only then, in
this order:

1. The list with the name of an eval that does not exist: nothing is summed up, and every call comes without its evals.
2. The execution's detail, for its ids alone.
3. The first again, without the rows that make its pages fail.

``lacks_evals`` says that the rows have no evals: then each call's own entry has them.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from etl.errors import ServerFaultError, SourceError
from etl.extract.bad_rows import HeadReader, power_of_two_above
from etl.extract.client import Client
from etl.extract.endpoints import Slice, list_call_details, list_calls
from etl.extract.listing import MOST_ROWS_OF_A_PAGE, read_pass
from etl.extract.plan import Planned
from etl.model.records import DetailedCall, ListedCall, Page


@dataclass(frozen=True, slots=True)
class CallList:
    """What one reading of the list showed, by call_execution_id.

    ``count`` is how many calls the list had after all of its pages were read; None when one page showed it whole.
    ``unreadable`` says how many calls it could not give: then nothing is proved.
    """

    calls: Mapping[str, ListedCall]
    count: int | None = None
    unreadable: SourceError | None = None
    lacks_evals: bool = False


async def read_call_list(client: Client, item: Planned, *, page_limit: int) -> CallList:
    """Read the list once.

    Raises:
        NotFoundError: there is no such execution.
        SourceError: nothing of it could be read.
    """
    try:
        return await _read(client, item, page_limit)
    except ServerFaultError as error:
        failure = error
    with suppress(ServerFaultError):
        return await _read(client, item, page_limit, without_evals=True)
    if found := await _read_ids(client, item, page_limit):
        return found
    try:
        return await _read(client, item, page_limit, without_evals=True, head_at=_no_head)
    except ServerFaultError:
        raise failure from None


async def _no_head(_position: int) -> None:
    """Nothing else tells which call a row is."""


async def _read(
    client: Client,
    item: Planned,
    page_limit: int,
    *,
    without_evals: bool = False,
    head_at: HeadReader[ListedCall] | None = None,
) -> CallList:
    async def read(part: Slice) -> Page[ListedCall]:
        request = list_calls(item.execution.execution_id, part, without_evals=without_evals)
        return await client.get(request.sent_for(item.purpose))

    found = await read_pass(
        read, lambda call: call.call_execution_id, limit=page_limit, largest=client.largest_page, head_at=head_at
    )
    if found.unreadable:
        last = found.unreadable[-1].error
        text = f"{len(found.unreadable)} of its calls cannot be listed: {last}"
        problem = SourceError(text, status=last.status, excerpt=last.excerpt)
        return CallList(found.rows, unreadable=problem, lacks_evals=without_evals)
    count = None if found.is_whole_page else (await read(Slice(1, 1))).count
    return CallList(found.rows, count, lacks_evals=without_evals)


async def _read_ids(client: Client, item: Planned, page_limit: int) -> CallList | None:
    """The ids in the execution's detail; None when it cannot give all of them in one page."""

    async def read(limit: int) -> Page[DetailedCall]:
        return await client.get(list_call_details(item.execution.execution_id, limit=limit).sent_for(item.purpose))

    try:
        page = await read(page_limit)
        if page_limit <= page.count < MOST_ROWS_OF_A_PAGE:
            page = await read(power_of_two_above(page.count))
    except SourceError:
        return None
    ids = {call.call_execution_id for call in page.results}
    if len(ids) != page.count:
        return None
    calls = {each: ListedCall(call_execution_id=each, payload={"call_execution_id": each}) for each in ids}
    return CallList(calls, lacks_evals=True)
