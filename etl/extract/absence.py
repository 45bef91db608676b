"""What is stored and missing from a proved list is requested by its own id: that alone decides, for executions and calls alike."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from etl.errors import NotFoundError, SourceError


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What the API says of ids: those that it does not know, those that exist, and those for which no answer was to be had."""

    gone: frozenset[str] = frozenset()
    alive: frozenset[str] = frozenset()
    unknown: Mapping[str, SourceError] = field(default_factory=dict)


async def ask(exists: Callable[[str], Awaitable[bool]], ids: Collection[str], *, workers: int) -> LookedUp:
    """Request the ids, ``workers`` at a time, until one exists: then the list was wrong, and the others do not matter.

    ``exists`` says whether the subject belongs where it is stored; NotFoundError says that it does not exist at all. Another
    SourceError leaves it open, and whatever else is raised ends the run.
    """
    gone, alive, unknown = set[str](), set[str](), dict[str, SourceError]()
    pending = iter(sorted(ids))

    async def work() -> None:
        for each in pending:
            if alive:
                return
            try:
                (alive if await exists(each) else gone).add(each)
            except NotFoundError:
                gone.add(each)
            except SourceError as error:
                unknown[each] = error

    async with asyncio.TaskGroup() as group:
        for _ in range(min(workers, len(ids))):
            group.create_task(work())
    return LookedUp(frozenset(gone), frozenset(alive), unknown)


def decide(answers: LookedUp) -> frozenset[str]:
    """Which of the ids are marked as deleted: those that the API does not know, but none while one of them exists."""
    return frozenset() if answers.alive else answers.gone
