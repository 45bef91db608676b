"""Pieces of asyncio that a run needs: stop early, let work finish although the run is cancelled, hold a lock."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from etl.errors import TimeLimitError

T = TypeVar("T")


async def until_stopped(work: Awaitable[None], stop: asyncio.Future[Any], *, minutes: float | None = None) -> None:
    """Do the work. If ``stop`` is set first, or ``minutes`` are over, cancel it, let it clean up, and raise why (in a group)."""

    async def watch() -> None:
        try:
            async with asyncio.timeout(None if minutes is None else minutes * 60):
                raise await asyncio.shield(stop)
        except TimeoutError:
            raise TimeLimitError(
                f"stopped after {minutes:g} minutes ([export] max_runtime_minutes); the next run fetches the rest"
            ) from None

    async def finish() -> None:
        await work
        watcher.cancel()

    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(watch())
        group.create_task(finish())


@asynccontextmanager
async def held(lock: AbstractContextManager[None]) -> AsyncIterator[None]:
    """Hold the lock; it is taken and given back in a thread, since that may take seconds."""
    with_lock = ExitStack()
    try:
        await to_the_end(partial(with_lock.enter_context, lock))
        yield
    finally:
        await to_the_end(with_lock.close)


async def to_the_end(work: Callable[[], T] | Coroutine[Any, Any, T]) -> T:
    """Do the work, in a thread if it is a function, and wait for its end even if cancelled: it must not outlive the lock.

    The cancellation is raised afterwards, unless the work failed: then its error is.
    """
    # A thread's future is not a task: cancelling all tasks does not cancel it.
    loop = asyncio.get_running_loop()
    future = asyncio.ensure_future(work) if isinstance(work, Coroutine) else loop.run_in_executor(None, work)
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
