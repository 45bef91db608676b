"""The executions of a run test, as the API lists them.

Owns the two ways to read that list: with a proof that none is missing (law 4), for an export, or once and without one,
for a look. Never decides what is fetched of them: ``plan.py`` does.
"""

from collections.abc import Callable, Iterable
from datetime import date, datetime

from msgspec import structs

from etl.extract.bad_rows import HeadReader, PageReader
from etl.extract.client import Client
from etl.extract.endpoints import Slice, list_execution_heads, list_executions
from etl.extract.listing import Listing, list_completely, read_pass
from etl.model.lifecycle import ExecutionList, ListedExecution
from etl.model.records import METRICS, DeadLetter, Execution, Page


async def list_executions_completely(
    client: Client,
    name: str,
    *,
    page_limit: int,
    begun_at: Callable[[], datetime],
    says_nothing_new: Callable[[ListedExecution], bool] = lambda _: False,
) -> ExecutionList:
    """List the run test's executions, with a proof where there is one: then ``is_complete`` is set.

    An execution that the list cannot give is in ``heads`` and without its aggregates in ``executions``, if another
    endpoint knows it, and in ``unreadable`` otherwise.

    Args:
        client: Sends the requests.
        name: The name of the run test.
        page_limit: The usual size of a page.
        begun_at: A time by the source's clock before the reading began: what was created since then may be missing.
        says_nothing_new: Whether an execution's payload is not needed: it is dropped as soon as its page is decoded.

    Raises:
        NotFoundError: There is no run test of this name.
        ExporterError: Otherwise as for ``Client.get``: the list could not be read.
    """

    def take(execution: Execution) -> ListedExecution:
        row = ListedExecution.of(execution)
        return row if says_nothing_new(row) else row.with_payload(execution.payload)

    def newer_in(rows: Iterable[ListedExecution]) -> set[str]:
        since = begun_at()
        return {row.execution_id for row in rows if row.started_at is not None and row.started_at >= since}

    read = _pages_of(client, name, take)
    listing = await list_completely(
        read, _id, limit=page_limit, head_at=_heads_of(client, name), largest=client.largest_page, newer_in=newer_in
    )
    return _listed(listing)


async def read_executions_once(
    client: Client, name: str, *, page_limit: int, since: date | None = None
) -> ExecutionList:
    """Read the run test's list once, one request a page, without a proof: ``is_complete`` is never set.

    With ``since``, stop after the page whose last execution was created before that day.

    Raises:
        NotFoundError: There is no run test of this name.
        ExporterError: Otherwise as for ``Client.get``: the list could not be read.
    """
    read_page = _pages_of(client, name, _whole)

    async def read(part: Slice) -> Page[ListedExecution]:
        page = await read_page(part)
        # Newest created first: what follows is older.
        is_last = since is not None and page.results and is_before(page.results[-1], since)
        return structs.replace(page, total_pages=part.page) if is_last else page

    pages = await read_pass(read, _id, limit=page_limit, head_at=_heads_of(client, name), largest=client.largest_page)
    return _listed(Listing(pages.rows, is_complete=False, unreadable=pages.unreadable))


def is_before(execution: ListedExecution, since: date) -> bool:
    """Whether the execution is known to have started before that day (UTC); False if its time is unknown."""
    return execution.started_at is not None and execution.started_at.date() < since


def _id(execution: ListedExecution) -> str:
    return execution.execution_id


def _whole(execution: Execution) -> ListedExecution:
    return ListedExecution.of(execution).with_payload(execution.payload)


def _pages_of(client: Client, name: str, take: Callable[[Execution], ListedExecution]) -> PageReader[ListedExecution]:
    async def read(part: Slice) -> Page[ListedExecution]:
        page = await client.get(list_executions(name, part))
        return Page(total_pages=page.total_pages, count=page.count, results=tuple(map(take, page.results)))

    return read


def _heads_of(client: Client, name: str) -> HeadReader[ListedExecution]:
    async def head_at(position: int) -> ListedExecution | None:
        page = await client.get(list_execution_heads(name, Slice(position + 1, 1)))
        return _whole(page.results[0]) if page.results else None

    return head_at


def _listed(listing: Listing[ListedExecution]) -> ExecutionList:
    """The list with its bad rows: one whose head is known is listed by it, and its aggregates are a dead letter."""
    heads = {bad_row.head.execution_id: bad_row for bad_row in listing.unreadable if bad_row.head}
    return ExecutionList(
        executions={**listing.rows, **{key: bad_row.head for key, bad_row in heads.items() if bad_row.head}},
        is_complete=listing.is_complete,
        heads={key: DeadLetter.of(METRICS, key, bad.error, tries=bad.tries) for key, bad in heads.items()},
        unreadable=tuple(str(bad_row.error) for bad_row in listing.unreadable if not bad_row.head),
    )
