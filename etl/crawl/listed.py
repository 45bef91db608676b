"""The executions of a run test, as far as the API lists them, and which of those that it lists no more are gone."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from etl.api.client import Client
from etl.api.endpoints import METRICS, get_execution, list_execution_heads, list_executions
from etl.api.listing import list_completely
from etl.api.models import DeadLetter, Execution, Page
from etl.errors import NotFoundError, SourceError


@dataclass(frozen=True, slots=True)
class Listed:
    """One run test's executions by id.

    ``heads`` tells of which of them the head alone could be read, and why. ``unreadable`` has a line for each row of the list
    that could not even be identified.
    """

    executions: Mapping[str, Execution]
    is_complete: bool
    heads: Mapping[str, DeadLetter]
    unreadable: tuple[str, ...]


async def list_run_test(client: Client, name: str, *, known: Collection[str], page_limit: int) -> Listed:
    """List the run test's executions; ``known`` are ids that the dataset holds already.

    Raises:
        NotFoundError: there is no such run test.
        SourceError: nothing could be listed.
    """

    async def read(page: int, limit: int, *, is_probe: bool = False) -> Page[Execution]:
        return await client.get(list_executions(name, page=page, limit=limit, is_probe=is_probe))

    async def get(execution_id: str) -> Execution:
        return await client.get(get_execution(execution_id))

    async def head_at(position: int) -> Execution | None:
        found = (await client.get(list_execution_heads(name, page=position + 1, limit=1))).results
        return found[0] if found else None

    listing = await list_completely(
        read, lambda execution: execution.execution_id, get, known=known, limit=page_limit, head_at=head_at
    )
    heads = {row.head.execution_id: row for row in listing.unreadable if row.head}
    return Listed(
        executions={**listing.rows, **{execution_id: row.head for execution_id, row in heads.items() if row.head}},
        is_complete=listing.is_complete,
        heads={execution_id: DeadLetter.of(METRICS, execution_id, row.error) for execution_id, row in heads.items()},
        unreadable=tuple(str(row.error) for row in listing.unreadable if not row.head),
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
