"""Hold the bundles that have arrived until they are committed: after some time, when there are many, and at the end.

"Many" is a number of calls that fits well into memory, or as much text as fills a part.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from etl.pipeline.tasks import to_the_end
from etl.transform.flatten import FlatBundle

_MANY_CALLS = 2_000
_MUCH_TEXT = 16 << 20  # characters
_LEAST_SECONDS = 0.05


@dataclass(slots=True, eq=False)
class CommitBuffer:
    """Collects bundles for ``commit``, which runs once at a time and is never cut short.

    Adding a bundle while a commit is due waits for the commit: a slow destination slows the crawl down, and memory stays bounded.
    ``commit_on_time`` commits also while nothing more arrives, as when a rate limit holds everything. A crawl that is cancelled
    waits for the running commit; ``flush`` commits what is left.

    ``arrived`` gives what has arrived of executions that are not whole yet, and were listed before a time of the event loop: each
    commit takes those that were listed before the one before it.
    """

    commit: Callable[[list[FlatBundle]], Coroutine[Any, Any, None]]
    interval_seconds: float
    arrived: Callable[[float], Iterable[FlatBundle]] = lambda _listed_before: ()
    _bundles: dict[str, FlatBundle] = field(default_factory=dict)
    _calls: int = 0
    _text: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _committed_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    async def add(self, bundle: FlatBundle) -> None:
        """Take a bundle, and commit when it is time; a commit that fails leaves its bundles out of the dataset."""
        execution_id = bundle.execution.execution_id
        while execution_id in self._bundles:  # a part of it, on which this one builds
            await self._flush(-math.inf)
        self._bundles[execution_id] = bundle
        self._calls += len(bundle.calls.values)
        self._text += bundle.text
        if self._seconds_until_due() <= 0 or self._calls >= _MANY_CALLS or self._text >= _MUCH_TEXT:
            await self._flush(self._committed_at)

    async def commit_on_time(self) -> None:
        """Commit what has arrived whenever the interval is over, until cancelled."""
        while True:
            await asyncio.sleep(max(self._seconds_until_due(), _LEAST_SECONDS))
            if self._seconds_until_due() <= 0:
                await self._flush(self._committed_at)

    async def flush(self) -> None:
        """Commit everything that has arrived, of executions that are not whole too."""
        await self._flush(math.inf)

    async def _flush(self, listed_before: float) -> None:
        async with self._turn:
            bundles, self._bundles = self._bundles, {}
            self._calls = self._text = 0
            arrived = {each.execution.execution_id: each for each in self.arrived(listed_before)}
            # A commit takes one bundle of an execution.
            for batch in ({**arrived, **bundles}, {key: arrived[key] for key in arrived.keys() & bundles.keys()}):
                if batch:
                    # Also what the commit does after its thread: it counts what is now in the dataset.
                    await to_the_end(self.commit([*batch.values()]))
            self._committed_at = asyncio.get_running_loop().time()

    def _seconds_until_due(self) -> float:
        return self._committed_at + self.interval_seconds - asyncio.get_running_loop().time()
