"""Whole lists of calls are requested a few at a time, in pages that grow while the server is fast."""

import asyncio

import pytest

from etl.extract.pace import Pace

FAST, SLOW = (0.1, 1_000), (3.0, 1_000)


def at_once(pace: Pace) -> int:
    """How many requests it lets through that all take long."""
    let_through = 0

    async def request() -> None:
        nonlocal let_through
        async with pace:
            let_through += 1
            await asyncio.Event().wait()

    async def ask() -> None:
        tasks = [asyncio.ensure_future(request()) for _ in range(50)]
        for _ in range(200):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(ask())
    return let_through


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], 4),
        ([FAST] * 3, 7),
        ([FAST] * 100, 32),
        ([SLOW], 2),
        ([SLOW] * 9, 1),
        ([(0.1, 5 << 20)], 2),
        ([(0.1, None)], 2),
        ([SLOW, FAST, FAST], 4),
    ],
)
def test_a_few_lists_at_once_and_more_while_they_are_fast(
    answers: list[tuple[float, int | None]], expected: int
) -> None:
    pace = Pace(32)
    for seconds, size_bytes in answers:
        pace.note(seconds, size_bytes)
    assert at_once(pace) == expected


def test_pages_grow_while_they_are_fast_and_shrink_after_one_that_was_not() -> None:
    pace, sizes = Pace(4), []
    for answer in (FAST, FAST, SLOW, SLOW, SLOW, FAST):
        pace.note(*answer)
        pace.note_full_page()
        sizes.append(pace.rows)
    assert sizes == [64, 128, 64, 32, 32, 64]
