"""What a run needs from asyncio: end early on a signal, let work finish although it is cancelled, and hold a lock."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from etl.errors import TimeLimitError

T = TypeVar("T")


async def until_stopped(work: Awaitable[None], stop: asyncio.Future[Any], *, minutes: float | None = None) -> None:
    """Do the work, unless it is stopped first: then cancel it and let it clean up.

    ``stop`` stops it as soon as an error is set as its result. After ``minutes`` the work is stopped, too; None for no
    limit.

    Raises:
        ExceptionGroup: with the error that was set, with TimeLimitError, or with what the work raised.
    """

    async def raise_once_stopped() -> None:
        try:
            async with asyncio.timeout(None if minutes is None else minutes * 60):
                raise await asyncio.shield(stop)
        except TimeoutError:
            raise TimeLimitError(
                f"stopped after {minutes:g} minutes ([export] max_runtime_minutes). The next run fetches the rest"
            ) from None

    async with asyncio.TaskGroup() as group:
        stopper = group.create_task(raise_once_stopped())
        await work
        stopper.cancel()


@asynccontextmanager
async def held(lock: AbstractContextManager[None]) -> AsyncIterator[None]:
    """Hold the lock. It is taken and released in a thread, since either may take seconds; errors are the lock's own."""
    stack = ExitStack()
    try:
        await to_the_end(partial(stack.enter_context, lock))
        yield
    finally:
        await to_the_end(stack.close)


async def to_the_end(work: Callable[[], T] | Coroutine[Any, Any, T]) -> T:
    """Do the work and wait for its end even if cancelled, because it must not outlive the dataset's lock.

    A function is called in a thread, a coroutine becomes a task. Returns what the work returns.

    Raises:
        CancelledError: the caller was cancelled while the work went on, and the work succeeded.
        BaseException: what the work raised, whether the caller was cancelled or not.
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
