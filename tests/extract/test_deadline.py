"""The deadline of a request. The clock jumps: nobody waits here."""

import asyncio
from collections.abc import Callable

import pytest

from etl.extract.deadline import Deadline


@pytest.fixture
async def let_pass(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many seconds pass at once."""
    loop, passed = asyncio.get_running_loop(), [0.0]
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + sum(passed))
    return passed.append


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_takes_too_long_is_ended_and_a_pause_does_not_count(let_pass: Callable[[float], None]) -> None:
    spent = []

    async def work() -> None:
        with Deadline(1000) as deadline:
            let_pass(400)
            deadline.pause()
            let_pass(9999)
            await turns()
            deadline.resume()
            let_pass(500)
            await turns()
            spent.append(900)
            let_pass(100)
            await turns()
            spent.append(1000)

    with pytest.raises(TimeoutError):
        await work()
    assert spent == [900]


async def test_what_has_ended_is_left_alone(let_pass: Callable[[float], None]) -> None:
    with Deadline(1000):
        await turns()
    with pytest.raises(ZeroDivisionError), Deadline(1000):
        raise ZeroDivisionError
    let_pass(1000)
    await turns()


async def test_only_a_task_has_a_deadline() -> None:
    refused = asyncio.get_running_loop().create_future()

    def begin() -> None:
        with pytest.raises(RuntimeError, match="for a task"):
            Deadline(1000)
        refused.set_result(None)

    asyncio.get_running_loop().call_soon(begin)
    await refused
