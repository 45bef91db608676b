"""Fetch in this process, on its event loop."""

import math
from collections.abc import Iterable
from typing import Self

from etl.extract.calls import Crawl
from etl.extract.client import Client
from etl.extract.plan import Planned
from etl.extract.settling import Settling, Stored
from etl.model.records import ExecutionBundle
from etl.pipeline.engine.contract import Counts, Fetching, How, Take
from etl.transform.flatten import FlatBundle, flatten


class Here:
    """Flattens each bundle as it arrives: payloads are several times as large as rows, and need not be kept until the commit."""

    def __init__(self, client: Client, plan: Iterable[Planned], take: Take, stored: Stored, how: How) -> None:
        self._include_raw = how.include_raw
        self._settling = Settling(client, stored, page_limit=how.page_limit)

        async def emit(bundle: ExecutionBundle) -> None:
            await take(self._flat(bundle))

        self._crawl = Crawl(
            client,
            plan,
            emit,
            concurrency=how.concurrency,
            page_limit=how.page_limit,
            settling=self._settling,
        )
        self.run = self._crawl.run

    @property
    def counts(self) -> Counts:
        """What it did so far."""
        return Counts.of(self._crawl, self._settling)

    def arrived(self, listed_before: float = math.inf) -> Iterable[FlatBundle]:
        """What has arrived of executions that are not whole yet, as ``Crawl.arrived``."""
        return map(self._flat, self._crawl.arrived(listed_before=listed_before))

    def _flat(self, bundle: ExecutionBundle) -> FlatBundle:
        return flatten(bundle, include_raw=self._include_raw)


class ThisProcess:
    """The engine that needs nothing else."""

    def __init__(self, client: Client, how: How) -> None:
        self._client, self._how = client, how

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def crawl(self, plan: Iterable[Planned], take: Take, stored: Stored, expected_calls: int) -> Fetching:  # noqa: ARG002 others need it
        """A crawl over the plan on the event loop."""
        return Here(self._client, plan, take, stored, self._how)
