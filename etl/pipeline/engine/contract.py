"""What every engine offers: a crawl over planned executions that hands over flat bundles, and counts what it did."""

import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from etl.extract.calls import Crawl
from etl.extract.plan import Planned
from etl.extract.settling import Settling, Stored
from etl.transform.flatten import FlatBundle

Take = Callable[[FlatBundle], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How to fetch: fields as in the settings."""

    concurrency: int
    page_limit: int
    include_raw: bool


@dataclass(slots=True)
class Counts:
    """Fields as those of ``Crawl`` and of ``Settling``."""

    calls_fetched: int = 0
    listings: int = 0
    necessary_requests: int = 0
    deleted_executions: set[str] = field(default_factory=set)
    compared: int = 0
    saved_requests: int = 0
    listed_differently: int = 0
    fetched_whole: int = 0
    failure: str | None = None

    @classmethod
    def of(cls, crawl: Crawl, settling: Settling) -> "Counts":
        """Those of a crawl so far."""
        return cls(
            calls_fetched=crawl.calls_fetched,
            listings=crawl.listings,
            necessary_requests=crawl.necessary_requests + settling.compared,
            deleted_executions=crawl.deleted_executions,
            compared=settling.compared,
            saved_requests=settling.saved_requests,
            listed_differently=settling.listed_differently,
            fetched_whole=settling.fetched_whole,
            failure=settling.failure,
        )

    def add(self, other: "Counts") -> None:
        """Add those of another crawl, which ended later."""
        self.calls_fetched += other.calls_fetched
        self.listings += other.listings
        self.necessary_requests += other.necessary_requests
        self.deleted_executions |= other.deleted_executions
        self.compared += other.compared
        self.saved_requests += other.saved_requests
        self.listed_differently += other.listed_differently
        self.fetched_whole += other.fetched_whole
        self.failure = other.failure or self.failure


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
