"""Requests that make no progress or never end are cut off; times are made up."""

import asyncio
from collections.abc import Callable

import pytest

from etl.extract.watch import Watch, Watched


class Request:
    """A task that waits inside of its watch for ever, or until ``done`` is set."""

    def __init__(self, watch: Watch) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._begun: asyncio.Future[Watched] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(watch))

    async def _run(self, watch: Watch) -> str:
        task = asyncio.current_task()
        assert task
        with watch.over(task, 0.0) as watched:
            self._begun.set_result(watched)
            await self.done
        return "answered"

    async def begun(self) -> Watched:
        return await self._begun


@pytest.fixture
def watch() -> Watch:
    return Watch(silence_seconds=1.0, total_seconds=5.0)


async def test_silent_request_is_cut_off_when_its_time_is_over_and_not_before(watch):
    request = Request(watch)
    await request.begun()
    watch.look(0.99)
    assert request.task.cancelling() == 0
    watch.look(1.0)
    watch.look(1.1)
    with pytest.raises(TimeoutError):
        await request.task
    assert request.task.cancelling() == 0, "nothing of the cut is left in the task"


async def test_progress_grants_more_time_but_not_more_than_the_total(watch):
    request = Request(watch)
    watched = await request.begun()
    for tenths in range(49):
        watched.progress_at = tenths / 10
        watch.look(tenths / 10)
    assert request.task.cancelling() == 0
    watched.progress_at = 5.0
    watch.look(5.0)
    with pytest.raises(TimeoutError):
        await request.task


async def test_request_that_has_ended_is_left_alone(watch):
    request = Request(watch)
    await request.begun()
    request.done.set_result(None)
    assert await request.task == "answered"
    watch.look(100.0)
    assert request.task.cancelling() == 0


@pytest.mark.parametrize("is_cut_first", [True, False])
async def test_whoever_cancels_a_request_that_is_cut_off_as_well_hears_of_it(watch, is_cut_first):
    request = Request(watch)
    await request.begun()
    steps: list[Callable[[], object]] = [lambda: watch.look(1.0), request.task.cancel]
    for step in steps if is_cut_first else steps[::-1]:
        step()
    with pytest.raises(asyncio.CancelledError):
        await request.task


async def test_error_of_a_request_is_its_own(watch):
    request = Request(watch)
    await request.begun()
    request.done.set_exception(ValueError("its own"))
    with pytest.raises(ValueError, match="its own"):
        await request.task


async def test_watch_looks_by_itself_while_it_runs():
    quick = Watch(silence_seconds=0.01, total_seconds=1.0)
    running = asyncio.create_task(quick.run())
    request = Request(quick)
    watched = await request.begun()
    watched.started_at = watched.progress_at = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await request.task
    running.cancel()
