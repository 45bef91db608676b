"""How many whole lists of calls are requested at once, and how large their pages are. It sends nothing itself.

Such an answer may keep a server busy for seconds: it has everything of each call. So both begin small, and grow as long
as answers are fast and small; after one that is not, or that failed, they are halved.
"""

import asyncio

_FAST_SECONDS = 2.0
_SMALL_BYTES = 4 << 20
_FIRST_LISTS = 4
_FIRST_ROWS = 32


class Pace:
    """``async with pace:`` around each such request; it belongs to the event loop in which it is first entered.

    Args:
        most: How many there may be at once, however fast answers are.
    """

    def __init__(self, most: int) -> None:
        self.rows = _FIRST_ROWS
        """The rows of a page of voice calls, a power of two."""
        self._most = most
        self._at_once = min(_FIRST_LISTS, most)
        self._under_way = 0
        self._is_fast = False
        self._freed = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._freed:
            await self._freed.wait_for(lambda: self._under_way < self._at_once)
            self._under_way += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._freed:
            self._under_way -= 1
            self._freed.notify_all()

    def note(self, seconds: float, size_bytes: int | None) -> None:
        """Note an answer; one that failed has no size."""
        self._is_fast = size_bytes is not None and size_bytes <= _SMALL_BYTES and seconds <= _FAST_SECONDS
        if self._is_fast:
            self._at_once = min(self._most, self._at_once + 1)
        else:
            self._at_once = max(1, self._at_once // 2)
            self.rows = max(_FIRST_ROWS, self.rows // 2)

    def note_full_page(self) -> None:
        """Note that the answer had a page of ``rows`` calls."""
        self.rows *= 1 + self._is_fast
