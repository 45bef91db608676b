"""What every engine offers, a crawl that hands over flat bundles, and the engine that fetches in this process."""

import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol, Self

from etl.extract.calls import Crawl
from etl.extract.client import Client
from etl.extract.plan import Planned
from etl.extract.settling import Counts, Settling, Stored
from etl.model.records import ExecutionBundle
from etl.settings.sections import Api
from etl.transform.flatten import FlatBundle, flatten

Take = Callable[[FlatBundle], Awaitable[None]]


class Fetching(Protocol):
    """A crawl over a plan that hands over flat bundles; ``counts`` grow while it runs."""

    counts: Counts

    async def run(self) -> None:
        """Fetch everything; errors as for ``Crawl.run``."""

    def arrived(self, listed_before: float) -> Iterable[FlatBundle]:
        """What has arrived of executions that are not whole yet, as ``Crawl.arrived``."""


class Engine(AbstractAsyncContextManager["Engine"], Protocol):
    """Open while a run lasts."""

    def crawl(self, plan: Iterable[Planned], take: Take, stored: Stored) -> Fetching:
        """A crawl over the plan that hands each bundle over to ``take``; ``stored`` tells what the dataset holds."""


class Here:
    """Flattens each bundle as it arrives: payloads are several times as large as rows, and need not be kept until the commit."""

    def __init__(
        self, client: Client, plan: Iterable[Planned], take: Take, stored: Stored, api: Api, *, include_raw: bool
    ) -> None:
        self._flat = partial(flatten, include_raw=include_raw)
        settling = Settling(client, stored, page_limit=api.page_limit)

        async def emit(bundle: ExecutionBundle) -> None:
            await take(self._flat(bundle))

        self._crawl = Crawl(client, iter(plan), emit, api.concurrency, api.page_limit, settling)
        self.run, self.counts = self._crawl.run, settling.counts

    def arrived(self, listed_before: float = math.inf) -> Iterable[FlatBundle]:
        """What has arrived of executions that are not whole yet, as ``Crawl.arrived``."""
        return map(self._flat, self._crawl.arrived(listed_before=listed_before))


class ThisProcess:
    """The engine that needs nothing else."""

    def __init__(self, client: Client, api: Api, *, include_raw: bool) -> None:
        self._client, self._api, self._include_raw = client, api, include_raw

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def crawl(self, plan: Iterable[Planned], take: Take, stored: Stored) -> Fetching:
        """A crawl over the plan on the event loop."""
        return Here(self._client, plan, take, stored, self._api, include_raw=self._include_raw)
