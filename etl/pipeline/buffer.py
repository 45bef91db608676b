"""Hold the bundles that have arrived until they are committed: after some time, when there are many, and at the end.

This bounds the memory of what waits for a commit. Each other bound on the memory of a run or a load stands where its
data is:

- an answer of the API: ``[api] max_response_mb`` in ``extract/transport.py``; ``[api] concurrency`` of them at once
- a page of a list: ``MOST_ROWS_OF_A_PAGE`` in ``extract/listing.py``
- calls of one execution that have arrived before its last one: ``extract/crawl.py`` hands them over in pieces
- payloads: ``engine/this_process.py`` makes rows of each bundle as it arrives
- batches on a Dask cluster: their size and number in ``engine/dask.py``
- the part into which a commit merges its rows: ``FULL_ROWS`` and ``FULL_BYTES`` in ``dataset/places.py``
- a file that is read: ``MOST_BYTES`` in ``files/interface.py``, also for what it holds uncompressed
  (``dataset/parquet.py``)
- rows that are hashed: in batches, in ``transform/row_hash.py``
- files of a bucket that are kept, since they are read again soon: ``files/bucket.py``
- a load: the rows of one file at a time (``load/contents.py``, ``load/drivers.py``); what the engine may take:
  ``load/duckdb.py``, ``load/delta.py``

What is listed, planned and indexed has no bound: it grows with the number of executions.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain, groupby
from typing import Any

from etl.pipeline.tasks import to_the_end
from etl.transform.flatten import FlatBundle

_MANY_CALLS = 5_000
"""So many calls fill a commit: they fit well into memory."""
_MUCH_TEXT = 16 << 20
"""So many characters fill a commit, however few calls have them: they fill a part or two."""
_LEAST_SECONDS = 0.05
"""How long ``commit_on_time`` sleeps at least, so that a tiny interval leaves the event loop time for the crawl."""


@dataclass(slots=True, eq=False)
class CommitBuffer:
    """Collects bundles for ``commit``, which runs once at a time and is never cut short.

    While a commit is due, adding a bundle waits for it: a slow destination slows the crawl down, and memory stays
    bounded. A crawl that is cancelled waits for the running commit, too.
    """

    commit: Callable[[list[FlatBundle]], Coroutine[Any, Any, None]]
    """Writes bundles of different executions to the dataset."""
    interval_seconds: float
    """How long a bundle waits at most before its commit begins."""
    arrived: Callable[[float], Iterable[FlatBundle]] = lambda _listed_before: ()
    """Gives and forgets what has arrived of executions that are not whole yet, if they were listed before this time.

    The time is the event loop's. A commit takes what was listed before the commit before it, so that only executions
    that take long are written in pieces.
    """
    _bundles: dict[str, FlatBundle] = field(default_factory=dict)
    """What waits for the next commit, by execution_id."""
    _filled: float = 0.0
    """How much of a commit the waiting bundles fill; 1 is enough for one."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the running commit."""
    _committed_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """When the last commit ended, by the event loop's clock; at first, when the buffer was made."""

    async def add(self, bundle: FlatBundle) -> None:
        """Take a bundle, and commit all that wait when it is time.

        Raises:
            DestinationError: the commit failed; bundles that it had not written are not in the dataset.
        """
        execution_id = bundle.execution.execution_id
        while execution_id in self._bundles:  # an earlier piece of it, on which this one builds
            await self.flush(-math.inf)
        self._bundles[execution_id] = bundle
        self._filled += _share_of_a_commit(bundle)
        if self._seconds_until_due() <= 0 or self._filled >= 1:
            await self.flush(self._committed_at)

    async def commit_on_time(self) -> None:
        """Commit what has arrived whenever the interval is over, until cancelled; errors as for ``add``.

        This commits although nothing more arrives, as when a rate limit holds every request.
        """
        while True:
            await asyncio.sleep(max(self._seconds_until_due(), _LEAST_SECONDS))
            if self._seconds_until_due() <= 0:
                await self.flush(self._committed_at)

    async def flush(self, listed_before: float = math.inf) -> None:
        """Commit what waits, and what has arrived of executions that are not whole; errors as for ``add``.

        Of those, only the ones that were listed before this time of the event loop; by default all.
        """
        async with self._turn:
            waiting, self._bundles = self._bundles, {}
            self._filled = 0.0
            unfinished = {bundle.execution.execution_id: bundle for bundle in self.arrived(listed_before)}
            # A commit takes one bundle of an execution: where there are two, the later one is committed afterwards.
            later = [unfinished[execution_id] for execution_id in unfinished.keys() & waiting.keys()]
            for batch in chain(_batches((unfinished | waiting).values()), _batches(later)):
                # To the end, and not only its thread: then it counts what is in the dataset now.
                await to_the_end(self.commit(batch))
            self._committed_at = asyncio.get_running_loop().time()

    def _seconds_until_due(self) -> float:
        return self._committed_at + self.interval_seconds - asyncio.get_running_loop().time()


def _batches(bundles: Collection[FlatBundle]) -> Iterator[list[FlatBundle]]:
    """The bundles in lists that each fill one commit: many may have arrived while the last one ran."""
    filled_before = accumulate(map(_share_of_a_commit, bundles), initial=0.0)
    for _, batch in groupby(zip(bundles, filled_before, strict=False), key=lambda pair: int(pair[1])):
        yield [bundle for bundle, _ in batch]


def _share_of_a_commit(bundle: FlatBundle) -> float:
    return max(len(bundle.calls.values) / _MANY_CALLS, bundle.text / _MUCH_TEXT)
