"""Three pieces of asyncio that a run needs: stop early, let work finish, and find the error in a group."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from etl.errors import ExporterError

T = TypeVar("T")


async def until_stopped(
    work: Coroutine[Any, Any, None],
    stop: asyncio.Future[Any] | None,
    *,
    limit: tuple[float, ExporterError] | None = None,
) -> None:
    """Do the work; when ``stop`` is set first, cancel it, let it clean up, and raise what was set (in a group).

    ``limit`` does the same after some seconds, with an error of its own.
    """
    if stop is None and limit is None:
        await work
        return
    seconds, late = limit or (None, None)

    async def watch() -> None:
        try:
            async with asyncio.timeout(seconds):
                raise await asyncio.shield(stop or asyncio.get_running_loop().create_future())
        except TimeoutError:
            raise late or RuntimeError("no limit was set") from None

    async def finish() -> None:
        await work
        watcher.cancel()

    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(watch())
        group.create_task(finish())


async def to_the_end(work: Callable[[], T] | Coroutine[Any, Any, T]) -> T:
    """Do the work, in a thread when it is a function, and wait for its end, however often cancelled: it must not outlive its guard.

    Raises:
        CancelledError: the caller was cancelled and the work has ended well; when it failed, its error counts.
    """
    # A thread's future is no task: whoever cancels all tasks does not cancel it.
    future = (
        asyncio.ensure_future(work)
        if isinstance(work, Coroutine)
        else asyncio.get_running_loop().run_in_executor(None, work)
    )
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as exc:
            cancelled = exc
    result = future.result()
    if cancelled is not None:
        raise cancelled
    return result
