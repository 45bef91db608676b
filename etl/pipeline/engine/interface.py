"""What every engine offers: a crawl over a plan that hands over flat bundles."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from etl.extract.plan import Planned
from etl.extract.settling import Counts, Stored
from etl.transform.flatten import FlatBundle

Take = Callable[[FlatBundle], Awaitable[None]]


class Fetching(Protocol):
    """A crawl over a plan that hands over flat bundles; ``counts`` grow while it runs."""

    counts: Counts

    async def run(self) -> None:
        """Fetch everything; errors as for ``Crawl.run``."""

    def arrived(self, listed_before: float) -> Iterable[FlatBundle]:
        """What has arrived of executions that are not whole yet, as ``Crawl.arrived``."""


Crawler = Callable[[Iterable[Planned], Take, Stored], Fetching]
"""Makes a crawl over a plan that hands each bundle over; ``Stored`` tells it what the dataset holds."""
Engine = AbstractAsyncContextManager[Crawler]
"""Open while a run lasts."""
