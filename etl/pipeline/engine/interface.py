"""What every engine offers: while it is open, it makes crawls, and each crawl over a plan hands over flat bundles.

An engine fetches and flattens. It never writes to the dataset: the run that opened it commits what crawls hand over.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from etl.extract.plan import Planned
from etl.extract.settling import Counts, ReadStored
from etl.transform.flatten import FlatBundle

Take = Callable[[FlatBundle], Awaitable[None]]
"""Takes a bundle from a crawl, which goes on once this returns; an error that it raises ends the crawl."""


class EngineCrawl(Protocol):
    """One crawl over a plan. It is run once."""

    counts: Counts
    """What the crawl has found and spared so far; it grows while ``run`` runs, and holds after an error, too."""

    async def run(self) -> None:
        """Fetch everything that is planned, and hand over each execution as soon as it is whole, a giant in pieces.

        Call it once. What was handed over stands even if the crawl then fails or is cancelled.

        Raises:
            ExceptionGroup: of KeyRefusedError or SourceUnavailableError, when the API refuses the key or is
                unavailable; of ConfigurationError, when a worker of the engine cannot fetch; of ExporterError, for a
                bug on such a worker; of what ``Take`` raised.
        """

    def arrived(self, listed_before: float) -> Iterable[FlatBundle]:
        """Give and forget what has arrived of executions that are not whole yet, if listed before this time.

        The time is the event loop's, and counts for the list of an execution's calls. Call it while ``run`` runs, or
        after it ended in any way. It raises nothing. An engine that hands over only whole executions gives nothing.
        """


Crawler = Callable[[Iterable[Planned], Take, ReadStored], EngineCrawl]
"""Makes a crawl over the items of a plan, which are taken one by one as it goes.

``Take`` gets each bundle; ``ReadStored`` is asked what the dataset holds of an execution before that is compared.
"""
Engine = AbstractAsyncContextManager[Crawler]
"""Opened once for a run, before its first crawl.

Opening raises ConfigurationError or SourceUnavailableError when the engine cannot be used as configured. Close it after
its crawls have ended.
"""
