"""How far a run is, to be shown, and the type of its event callback. Nothing here decides anything."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from etl.extract.quota import Quota
from etl.extract.transport import Traffic
from etl.pipeline.engine.contract import Fetching

Notify = Callable[..., None]
"""Called with the name of an event and its fields."""


@dataclass(slots=True)
class Progress:
    """How far a run is; updated while it runs. Times are those of ``monotonic``, as the event loop's are.

    ``planned_requests`` is an estimate: deleted calls and retries may change it a little.
    """

    listed_executions: int = 0
    planned_executions: int = 0
    planned_requests: int = 0
    committed_executions: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    quota: Quota = field(default_factory=Quota)
    crawls: list[Fetching] = field(default_factory=list)
    crawl_began_at: float = 0.0

    def add(self, crawl: Fetching, now: float) -> None:
        """A crawl begins."""
        self.crawl_began_at = self.crawl_began_at if self.crawls else now
        self.crawls.append(crawl)

    @property
    def done_requests(self) -> int:
        """Planned requests that were answered."""
        counts = [crawl.counts for crawl in self.crawls]
        done = sum(each.calls_fetched + each.listings for each in counts)
        return min(self.planned_requests, done)

    def seconds_left(self, now: float) -> float | None:
        """How long the rest takes by the rate limit or by the pace so far, whichever is slower; None when neither is known."""
        done = self.done_requests
        left = self.planned_requests - done
        estimates = [(now - self.crawl_began_at) * left / done] if done else []
        if (allowed := self.quota.seconds_for(left, now)) is not None:
            estimates.append(allowed)
        return max(estimates, default=None)

    def held_seconds(self, now: float) -> float:
        """How long the rate limit still holds requests back; 0 when it does not."""
        return max(0.0, self.traffic.held_until - now)


def say_nothing(_event: str, **_fields: Any) -> None:
    """A ``Notify`` that does nothing."""
