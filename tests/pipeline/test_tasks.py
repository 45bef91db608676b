"""Stopping early, letting a thread finish, and finding the error in a group."""

import asyncio
import threading

import pytest

from etl.errors import DestinationError, ExitCode, InterruptedRunError
from etl.pipeline.tasks import to_the_end, until_stopped


async def cancel_while_working(*, times: int, work_fails: bool) -> BaseException | None:
    """Cancel ``to_the_end`` while its thread works; what it raised once the thread had ended."""
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        may_end.wait()
        ended.set()
        if work_fails:
            raise DestinationError("full")

    waiting = asyncio.ensure_future(to_the_end(work))
    await asyncio.to_thread(began.wait)
    for _ in range(times):
        waiting.cancel()
        await asyncio.wait([waiting], timeout=0.02)
        assert not waiting.done(), "the thread was left alone"
    may_end.set()
    await asyncio.wait([waiting])
    assert ended.is_set()
    return asyncio.CancelledError() if waiting.cancelled() else waiting.exception()


@pytest.mark.parametrize("times", [1, 3])
async def test_however_often_cancelled_the_thread_is_waited_for(times: int) -> None:
    assert isinstance(await cancel_while_working(times=times, work_fails=False), asyncio.CancelledError)


async def test_failure_of_the_thread_is_not_lost_in_a_cancellation() -> None:
    assert isinstance(await cancel_while_working(times=1, work_fails=True), DestinationError)


async def test_result_of_the_thread_is_given_back() -> None:
    assert await to_the_end(lambda: 7) == 7


async def test_coroutine_is_not_cancelled_with_whoever_waits_for_it() -> None:
    may_end = asyncio.Event()

    async def work() -> None:
        await may_end.wait()

    waiting = asyncio.ensure_future(to_the_end(work()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done(), "the work was left alone"
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_stop_cancels_the_work_and_lets_it_clean_up() -> None:
    cleaned_up = False
    stop: asyncio.Future[InterruptedRunError] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        nonlocal cleaned_up
        stop.set_result(InterruptedRunError("stop", exit_code=ExitCode.SIGTERM))
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up = True

    with pytest.RaisesGroup(InterruptedRunError):
        await until_stopped(work(), stop)
    assert cleaned_up


async def test_work_that_ends_or_fails_first_does_not_wait_for_stop() -> None:
    async def fail() -> None:
        raise DestinationError("full")

    stop: asyncio.Future[InterruptedRunError] = asyncio.get_running_loop().create_future()
    await until_stopped(asyncio.sleep(0), stop)
    with pytest.RaisesGroup(DestinationError):
        await until_stopped(fail(), stop)
