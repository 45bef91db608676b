"""The executions of a run test, as far as the API lists them, and which of those that it lists no more are gone."""

import asyncio
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass, field
from datetime import date

from msgspec import structs

from etl.errors import NotFoundError, SourceError
from etl.extract.bad_rows import HeadReader, PageReader, Unreadable
from etl.extract.client import Client
from etl.extract.endpoints import get_execution, list_execution_heads, list_executions
from etl.extract.listing import list_completely, read_pass
from etl.model.digest import fingerprint
from etl.model.listed_execution import ListedExecution
from etl.model.records import METRICS, DeadLetter, Execution, Page


@dataclass(frozen=True, slots=True)
class Listed:
    """One run test's executions by id.

    ``heads`` tells of which of them the head alone could be read, and why. ``unreadable`` has a line for each row of the list
    that could not even be identified.
    """

    executions: Mapping[str, ListedExecution]
    is_complete: bool
    heads: Mapping[str, DeadLetter]
    unreadable: tuple[str, ...]


async def list_run_test(
    client: Client,
    name: str,
    *,
    known: Container[str],
    page_limit: int,
    says_nothing_new: Callable[[ListedExecution], bool] = lambda _: False,
) -> Listed:
    """List the run test's executions; ``known`` are ids that the dataset holds already.

    What ``says_nothing_new`` lets its payload go as soon as its page is decoded, and is kept once, however often it is read.

    Raises:
        NotFoundError: there is no such run test.
        SourceError: nothing could be listed.
    """
    take = _taker(says_nothing_new)

    async def get(execution_id: str) -> ListedExecution:
        return take(await client.get(get_execution(execution_id)))

    listing = await list_completely(
        _page_reader(client, name, take), _id, get, known=known, limit=page_limit, head_at=_head_reader(client, name)
    )
    return _listed(listing.rows, listing.unreadable, is_complete=listing.is_complete)


async def read_run_test(client: Client, name: str, *, page_limit: int, since: date | None = None) -> Listed:
    """Read the run test's list once, a request a page, without a proof that nothing moved meanwhile.

    With ``since``, not beyond the page whose last execution was created before that day.

    Raises:
        NotFoundError: there is no such run test.
        SourceError: nothing could be listed.
    """
    read_page = _page_reader(client, name, _taker(lambda _: False))

    async def read(page: int, limit: int, *, is_probe: bool = False) -> Page[ListedExecution]:
        found = await read_page(page, limit, is_probe=is_probe)
        # Newest created first: what follows is older still.
        is_last = since is not None and found.results and is_before(found.results[-1], since)
        return structs.replace(found, total_pages=page) if is_last else found

    found = await read_pass(read, _id, limit=page_limit, head_at=_head_reader(client, name))
    return _listed(found.rows, found.unreadable, is_complete=False)


def is_before(execution: ListedExecution, since: date) -> bool:
    """Whether the execution is known to have been created before that day (UTC)."""
    return execution.started_at is not None and execution.started_at.date() < since


def _id(execution: ListedExecution) -> str:
    return execution.execution_id


def _taker(says_nothing_new: Callable[[ListedExecution], bool]) -> Callable[[Execution], ListedExecution]:
    taken: dict[str, ListedExecution] = {}

    def take(execution: Execution) -> ListedExecution:
        before = taken.get(execution.execution_id)
        if before is not None and before.fingerprint == fingerprint(execution.payload):
            return before
        row = ListedExecution.of(execution)
        taken[row.execution_id] = row = row if says_nothing_new(row) else row.holding(execution.payload)
        return row

    return take


def _page_reader(
    client: Client, name: str, take: Callable[[Execution], ListedExecution]
) -> PageReader[ListedExecution]:
    async def read(page: int, limit: int, *, is_probe: bool = False) -> Page[ListedExecution]:
        found = await client.get(list_executions(name, page=page, limit=limit, is_probe=is_probe))
        return Page(total_pages=found.total_pages, count=found.count, results=tuple(map(take, found.results)))

    return read


def _head_reader(client: Client, name: str) -> HeadReader[ListedExecution]:
    async def head_at(position: int) -> ListedExecution | None:
        found = (await client.get(list_execution_heads(name, page=position + 1, limit=1))).results
        return ListedExecution.of(found[0]).holding(found[0].payload) if found else None

    return head_at


def _listed(
    rows: Mapping[str, ListedExecution], unreadable: Collection[Unreadable[ListedExecution]], *, is_complete: bool
) -> Listed:
    heads = {row.head.execution_id: row for row in unreadable if row.head}
    return Listed(
        executions={**rows, **{execution_id: row.head for execution_id, row in heads.items() if row.head}},
        is_complete=is_complete,
        heads={key: DeadLetter.of(METRICS, key, row.error, tries=row.tries) for key, row in heads.items()},
        unreadable=tuple(str(row.error) for row in unreadable if not row.head),
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """Of executions that were asked for by id: those that do not exist any more, and those whose answer could not be had."""

    deleted: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


async def find_deleted(client: Client, execution_ids: Collection[str], *, workers: int) -> Asked:
    """Ask for each of the executions by its id."""
    asked = Asked()
    pending = iter(execution_ids)

    async def work() -> None:
        for execution_id in pending:
            try:
                await client.get(get_execution(execution_id))
            except NotFoundError:
                asked.deleted.add(execution_id)
            except SourceError:
                asked.unknown.add(execution_id)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(workers, len(execution_ids))):
            group.create_task(work())
    return asked
