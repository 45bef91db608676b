"""One execution's list of calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etl.errors import SourceError
from etl.extract.bad_rows import Unreadable
from etl.extract.client import Client
from etl.extract.endpoints import list_calls
from etl.extract.listing import read_pass
from etl.model.records import RUNS, DeadLetter, ListedCall, Page


@dataclass(frozen=True, slots=True)
class CallList:
    """What one reading of the list showed, by call_execution_id.

    ``count`` is how many calls the list had after all of its pages were read; None when one page showed it whole.
    ``unreadable`` says how many calls it could not give: then nothing is proved.
    """

    calls: Mapping[str, ListedCall]
    count: int | None = None
    unreadable: DeadLetter | None = None


async def read_call_list(client: Client, execution_id: str, *, page_limit: int) -> CallList:
    """Read the list once.

    Raises:
        NotFoundError: there is no such execution.
        SourceError: nothing of it could be read.
    """

    async def read(page: int, limit: int, *, is_probe: bool = False, is_trial: bool = False) -> Page[ListedCall]:
        return await client.get(list_calls(execution_id, page=page, limit=limit, is_probe=is_probe, is_trial=is_trial))

    found = await read_pass(read, lambda call: call.call_execution_id, limit=page_limit, largest=client.largest_page)
    if found.unreadable:
        return CallList(found.rows, unreadable=_unreadable_calls(execution_id, found.unreadable))
    return CallList(found.rows, None if found.is_whole_page else (await read(1, 1)).count)


def _unreadable_calls(execution_id: str, unreadable: Sequence[Unreadable[ListedCall]]) -> DeadLetter:
    last = unreadable[-1]
    problem = SourceError(
        f"{len(unreadable)} of its calls cannot be listed: {last.error}",
        status=last.error.status,
        excerpt=last.error.excerpt,
        tries=last.tries,
    )
    return DeadLetter.of(RUNS, execution_id, problem)
