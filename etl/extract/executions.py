"""The executions of a run test as the API lists them."""

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
    """List the run test's executions; NotFoundError when there is no such run test.

    ``begun_at`` is a time by the source's clock, before the reading began: what was created since may be missing. An execution that
    ``says_nothing_new`` loses its payload as soon as its page is decoded.
    """

    def take(execution: Execution) -> ListedExecution:
        row = ListedExecution.of(execution)
        return row if says_nothing_new(row) else row.with_payload(execution.payload)

    def newer_in(rows: Iterable[ListedExecution]) -> set[str]:
        since = begun_at()
        return {row.execution_id for row in rows if row.started_at is not None and row.started_at >= since}

    listing = await list_completely(
        _pages_of(client, name, take),
        _id,
        limit=page_limit,
        head_at=_heads_of(client, name),
        largest=client.largest_page,
        newer_in=newer_in,
    )
    return _listed(listing)


async def read_executions_once(
    client: Client, name: str, *, page_limit: int, since: date | None = None
) -> ExecutionList:
    """Read the run test's list once, one request a page, without a proof that nothing moved meanwhile; errors as above.

    With ``since``, stop after the page whose last execution was created before that day.
    """
    read_page = _pages_of(client, name, _whole)

    async def read(part: Slice) -> Page[ListedExecution]:
        found = await read_page(part)
        # Newest created first: what follows is older.
        is_last = since is not None and found.results and is_before(found.results[-1], since)
        return structs.replace(found, total_pages=part.page) if is_last else found

    found = await read_pass(read, _id, limit=page_limit, head_at=_heads_of(client, name), largest=client.largest_page)
    return _listed(Listing(found.rows, is_complete=False, unreadable=found.unreadable))


def is_before(execution: ListedExecution, since: date) -> bool:
    """Whether the execution is known to have been created before that day (UTC)."""
    return execution.started_at is not None and execution.started_at.date() < since


def _id(execution: ListedExecution) -> str:
    return execution.execution_id


def _whole(execution: Execution) -> ListedExecution:
    return ListedExecution.of(execution).with_payload(execution.payload)


def _pages_of(client: Client, name: str, take: Callable[[Execution], ListedExecution]) -> PageReader[ListedExecution]:
    async def read(part: Slice) -> Page[ListedExecution]:
        found = await client.get(list_executions(name, part))
        return Page(total_pages=found.total_pages, count=found.count, results=tuple(map(take, found.results)))

    return read


def _heads_of(client: Client, name: str) -> HeadReader[ListedExecution]:
    async def head_at(position: int) -> ListedExecution | None:
        found = (await client.get(list_execution_heads(name, Slice(position + 1, 1)))).results
        return _whole(found[0]) if found else None

    return head_at


def _listed(found: Listing[ListedExecution]) -> ExecutionList:
    heads = {row.head.execution_id: row for row in found.unreadable if row.head}
    return ExecutionList(
        executions={**found.rows, **{execution_id: row.head for execution_id, row in heads.items() if row.head}},
        is_complete=found.is_complete,
        heads={key: DeadLetter.of(METRICS, key, row.error, tries=row.tries) for key, row in heads.items()},
        unreadable=tuple(str(row.error) for row in found.unreadable if not row.head),
    )
