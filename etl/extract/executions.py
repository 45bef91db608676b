"""The executions of a run test, as the API lists them.

Owns the two ways to read that list: with a proof that none is missing (law 4), or once, without a proof; and how to
learn which list has an execution. Never decides what is fetched of them: ``plan.py`` does.
"""

from collections.abc import Callable, Iterable
from datetime import date, datetime
from functools import partial

from etl.errors import SourceError
from etl.extract.bad_rows import HeadReader, PageReader
from etl.extract.client import Client
from etl.extract.endpoints import Slice, get_run_test_name, list_execution_heads, list_executions
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
    """List the run test's executions; ``is_complete`` says whether the list is proved.

    If the list cannot give an execution but another endpoint can, it is in ``executions`` without its aggregates, and
    in ``heads`` with the reason. Otherwise it is in ``unreadable``.

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

    def as_listed(execution: Execution) -> ListedExecution:
        row = ListedExecution.of(execution)
        return row if says_nothing_new(row) else row.with_payload(execution.payload)

    def newer_in(rows: Iterable[ListedExecution]) -> set[str]:
        since = begun_at()
        return {row.execution_id for row in rows if row.started_at is not None and row.started_at >= since}

    read = _pages(client, name, as_listed)
    listing = await list_completely(
        read, _id, limit=page_limit, head_at=_heads(client, name), largest=client.largest_page, newer_in=newer_in
    )
    return _execution_list(listing)


async def read_executions_once(client: Client, name: str, *, page_limit: int) -> ExecutionList:
    """Read the run test's list once, one request a page, without a proof: ``is_complete`` is never set.

    Raises:
        NotFoundError: There is no run test of this name.
        ExporterError: Otherwise as for ``Client.get``: the list could not be read.
    """
    read = _pages(client, name, _with_payload)
    pages = await read_pass(read, _id, limit=page_limit, head_at=_heads(client, name), largest=client.largest_page)
    return _execution_list(Listing(pages.rows, is_complete=False, unreadable=pages.unreadable))


async def run_test_of(client: Client, execution_id: str, *, is_optional: bool) -> str:
    """The name that the execution's run test has now. ``is_optional`` is as in ``Request``.

    Raises:
        SourceError: The API did not say.
    """
    request = partial(get_run_test_name, execution_id, is_optional=is_optional)
    try:
        return await client.get(request(without_evals=True))
    except SourceError:
        return await client.get(request())


def is_before(execution: ListedExecution, since: date) -> bool:
    """Whether the execution is known to have started before that day (UTC); False if its time is unknown."""
    return execution.started_at is not None and execution.started_at.date() < since


def _id(execution: ListedExecution) -> str:
    return execution.execution_id


def _with_payload(execution: Execution) -> ListedExecution:
    return ListedExecution.of(execution).with_payload(execution.payload)


def _pages(client: Client, name: str, as_listed: Callable[[Execution], ListedExecution]) -> PageReader[ListedExecution]:
    async def read(part: Slice) -> Page[ListedExecution]:
        page = await client.get(list_executions(name, part))
        return Page(total_pages=page.total_pages, count=page.count, results=tuple(map(as_listed, page.results)))

    return read


def _heads(client: Client, name: str) -> HeadReader[ListedExecution]:
    async def head_at(position: int) -> ListedExecution | None:
        page = await client.get(list_execution_heads(name, Slice(position + 1, 1)))
        return _with_payload(page.results[0]) if page.results else None

    return head_at


def _execution_list(listing: Listing[ListedExecution]) -> ExecutionList:
    """The list with its bad rows: one whose head is known is listed by it, and its aggregates are a dead letter."""
    executions = dict(listing.rows)
    heads: dict[str, DeadLetter] = {}
    unreadable: list[str] = []
    for bad_row in listing.unreadable:
        if head := bad_row.head:
            executions[head.execution_id] = head
            heads[head.execution_id] = DeadLetter.of(METRICS, head.execution_id, bad_row.error, tries=bad_row.tries)
        else:
            unreadable.append(str(bad_row.error))
    return ExecutionList(executions, listing.is_complete, heads, tuple(unreadable))
