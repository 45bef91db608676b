"""Hold the bundles that have arrived until they are committed: after some time, when there are many, and at the end.

"Many" is a number of calls that fits well into memory. Where files are large it is a share of the largest one: each commit writes
the whole file again, and small commits would write it again and again.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from etl.load.dataset import Written
from etl.pipeline.tasks import to_the_end
from etl.transform.flatten import FlatBundle

_MANY_CALLS = 2_000
_FILE_SHARE = 4


class CommitBuffer:
    """Collects bundles for ``commit``, which runs once at a time and is never cut short; ``written`` tells how large files are.

    Whoever adds a bundle while a commit is due waits for it: a slow destination slows the crawl down, and memory stays bounded.
    ``commit_on_time`` commits also while nothing more arrives, as when a rate limit holds everything. A crawl that is cancelled
    waits for the running commit; ``flush`` commits what is left.
    """

    def __init__(
        self,
        commit: Callable[[list[FlatBundle]], Coroutine[Any, Any, None]],
        written: Written,
        *,
        interval_seconds: float,
    ) -> None:
        self._commit = commit
        self._written = written
        self._interval_seconds = interval_seconds
        self._bundles: list[FlatBundle] = []
        self._calls = 0
        self._many_calls = _MANY_CALLS
        self._turn = asyncio.Lock()
        self._has_bundles = asyncio.Event()
        self._committed_at = asyncio.get_running_loop().time()

    async def add(self, bundle: FlatBundle) -> None:
        """Take a bundle, and commit when it is time.

        Raises:
            DestinationError: the commit failed; its bundles are not in the dataset.
        """
        self._bundles.append(bundle)
        self._has_bundles.set()
        self._calls += len(bundle.calls.values)
        if self._seconds_until_due() <= 0 or self._calls >= self._many_calls:
            await self.flush()

    async def commit_on_time(self) -> None:
        """Commit what has arrived whenever the interval is over, until cancelled; errors as for ``add``."""
        while True:
            await self._has_bundles.wait()
            await asyncio.sleep(self._seconds_until_due())
            if self._seconds_until_due() <= 0:
                await self.flush()

    async def flush(self) -> None:
        """Commit everything that has arrived; errors as for ``add``."""
        async with self._turn:
            bundles, self._bundles, self._calls = self._bundles, [], 0
            self._has_bundles.clear()
            if bundles:
                # Also what the commit does after its thread: it counts what is now in the dataset.
                await to_the_end(self._commit(bundles))
                self._many_calls = max(_MANY_CALLS, self._written.largest_rows // _FILE_SHARE)
            self._committed_at = asyncio.get_running_loop().time()

    def _seconds_until_due(self) -> float:
        return self._committed_at + self._interval_seconds - asyncio.get_running_loop().time()
