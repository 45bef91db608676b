"""What every engine offers: a crawl over planned executions that hands over flat bundles."""

import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from etl.extract.plan import Planned
from etl.extract.settling import Stored
from etl.pipeline.engine.counts import Counts
from etl.transform.flatten import FlatBundle

Take = Callable[[FlatBundle], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How to fetch: fields as in the settings; unless ``doubts_lists``, every list of calls is believed."""

    concurrency: int
    page_limit: int
    include_raw: bool
    doubts_lists: bool


class Fetching(Protocol):
    """A crawl over a plan that hands over flat bundles; ``counts`` grow while it runs."""

    @property
    def counts(self) -> Counts:
        """What it did so far."""

    async def run(self) -> None:
        """Fetch everything; errors as for ``Crawl.run``."""

    def arrived(self, listed_before: float = math.inf) -> Iterable[FlatBundle]:
        """What has arrived of executions that are not whole yet, as ``Crawl.arrived``."""


class Engine(AbstractAsyncContextManager["Engine"], Protocol):
    """Open while a run lasts."""

    def crawl(self, plan: Iterable[Planned], take: Take, stored: Stored, expected_calls: int) -> Fetching:
        """A crawl over the plan, of about so many calls, that hands each bundle over to ``take``.

        What the dataset holds of the executions is ``stored``.
        """
