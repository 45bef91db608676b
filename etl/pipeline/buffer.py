"""Hold the bundles that have arrived until they are committed: after some time, when there are many, and at the end."""

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain, groupby
from typing import Any

from etl.pipeline.tasks import to_the_end
from etl.transform.flatten import FlatBundle

_MANY_CALLS = 2_000  # fit well into memory
_MUCH_TEXT = 16 << 20  # characters, which fill a part or two
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
    _filled: float = 0.0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _committed_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    async def add(self, bundle: FlatBundle) -> None:
        """Take a bundle, and commit when it is time; a commit that fails leaves its bundles out of the dataset."""
        execution_id = bundle.execution.execution_id
        while execution_id in self._bundles:  # a part of it, on which this one builds
            await self._flush(-math.inf)
        self._bundles[execution_id] = bundle
        self._filled += _share_of_a_commit(bundle)
        if self._seconds_until_due() <= 0 or self._filled >= 1:
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
            self._filled = 0.0
            arrived = {each.execution.execution_id: each for each in self.arrived(listed_before)}
            # A commit takes one bundle of an execution.
            batches = {**arrived, **bundles}.values(), [arrived[key] for key in arrived.keys() & bundles.keys()]
            for batch in chain.from_iterable(map(_bounded, batches)):
                # Also what the commit does after its thread: it counts what is now in the dataset.
                await to_the_end(self.commit(batch))
            self._committed_at = asyncio.get_running_loop().time()

    def _seconds_until_due(self) -> float:
        return self._committed_at + self.interval_seconds - asyncio.get_running_loop().time()


def _bounded(bundles: Collection[FlatBundle]) -> Iterator[list[FlatBundle]]:
    """The bundles in lists that each fill one commit: many may have arrived while the last one ran."""
    filled_before = zip(bundles, accumulate(map(_share_of_a_commit, bundles), initial=0.0), strict=False)
    for _, some in groupby(filled_before, key=lambda pair: int(pair[1])):
        yield [bundle for bundle, _ in some]


def _share_of_a_commit(bundle: FlatBundle) -> float:
    return max(len(bundle.calls.values) / _MANY_CALLS, bundle.text / _MUCH_TEXT)
