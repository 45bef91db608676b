"""Three pieces of asyncio that a run needs: stop early, let a thread finish, and find the error in a group."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from etl.errors import InterruptedRunError


async def until_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Future[InterruptedRunError] | None) -> None:
    """Do the work; when ``stop`` is set first, cancel it, let it clean up, and raise what was set (in a group)."""
    if stop is None:
        await work
        return

    async def watch() -> None:
        raise await asyncio.shield(stop)

    async def finish() -> None:
        await work
        watcher.cancel()

    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(watch())
        group.create_task(finish())


async def to_the_end(work: Callable[[], None]) -> None:
    """Run the work in a thread and wait for its end, even when cancelled meanwhile: it must not outlive what guards it."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors themselves, out of whatever groups they came in."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
