"""Rows that are missing from a proved list: each is requested by its id, and only the answer decides (law 5).

That holds for executions and calls alike. ``crawl.py`` asks for calls, ``pipeline/apply.py`` for executions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from etl.errors import NotFoundError, SourceError


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What the API says of ids."""

    gone: frozenset[str] = frozenset()
    """Those that it does not know, or that belong elsewhere."""
    alive: frozenset[str] = frozenset()
    """Those that exist where they are stored."""
    unknown: Mapping[str, SourceError] = field(default_factory=dict)
    """Those for which no answer was to be had, and why."""


async def look_up_ids(exists: Callable[[str], Awaitable[bool]], ids: Collection[str], *, workers: int) -> LookedUp:
    """Request the ids, ``workers`` at a time, until one exists: then the list was wrong, and the others do not matter.

    ``exists`` says whether the subject belongs where it is stored; a NotFoundError of it says that there is no such
    subject, and another SourceError leaves the answer open.

    Raises:
        ExceptionGroup: of whatever else ``exists`` raises; it ends the run.
    """
    gone = set[str]()
    alive = set[str]()
    unknown = dict[str, SourceError]()
    pending = iter(sorted(ids))

    async def work() -> None:
        for subject_id in pending:
            if alive:
                return
            try:
                is_there = await exists(subject_id)
            except NotFoundError:
                gone.add(subject_id)
            except SourceError as error:
                unknown[subject_id] = error
            else:
                (alive if is_there else gone).add(subject_id)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(workers, len(ids))):
            group.create_task(work())
    return LookedUp(frozenset(gone), frozenset(alive), unknown)


def decide(answers: LookedUp) -> frozenset[str]:
    """Which of the ids are marked as deleted: those that the API does not know, but none while one of them exists."""
    return frozenset() if answers.alive else answers.gone
