"""The engine that fetches in this process, on its event loop. Dask workers fetch each of their batches with it, too."""

import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

from etl.extract.client import Client
from etl.extract.crawl import Crawl
from etl.extract.plan import Planned
from etl.extract.settling import Settling
from etl.extract.voice_list import VoiceLists
from etl.model.records import ExecutionBundle
from etl.pipeline.engine.interface import Crawler, Take
from etl.settings.sections import Api
from etl.transform.flatten import FlatBundle, flatten


class LocalCrawl:
    """A crawl that flattens each bundle as it arrives, as ``EngineCrawl`` promises.

    Payloads are several times as large as rows, and need not be kept until the commit.
    """

    def __init__(self, settling: Settling, plan: Iterable[Planned], take: Take, api: Api, *, include_raw: bool) -> None:
        self._flatten = partial(flatten, include_raw=include_raw)

        async def emit(bundle: ExecutionBundle) -> None:
            await take(self._flatten(bundle))

        self._crawl = Crawl(settling.client, iter(plan), emit, api.concurrency, api.page_limit, settling)
        self.run = self._crawl.run
        self.counts = settling.counts

    def arrived(self, listed_before: float = math.inf) -> Iterable[FlatBundle]:
        """Give and forget what has arrived of executions that are not whole yet, as ``EngineCrawl.arrived``."""
        return map(self._flatten, self._crawl.arrived(listed_before=listed_before))


@asynccontextmanager
async def this_process(client: Client, api: Api, *, include_raw: bool) -> AsyncIterator[Crawler]:
    """The engine that needs nothing installed or started. Opening it does nothing; a crawl needs the client to be open.

    ``include_raw``: rows also hold the payloads that they were made of.
    """
    voice = VoiceLists(client)
    yield lambda plan, take, stored: LocalCrawl(
        Settling(client, stored, voice), plan, take, api, include_raw=include_raw
    )
