"""Where a run is, for whoever wants to show it, and how it tells of events."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from etl.extract.calls import Crawl
from etl.extract.client import Traffic
from etl.extract.quota import Quota

Notify = Callable[..., None]
"""Called with the name of an event and its fields."""


@dataclass(slots=True)
class Progress:
    """Where a run is; grows while it runs. Times are those of ``monotonic``, as the event loop's are.

    The planned requests are an estimate: calls that were deleted meanwhile, and retries, may move it a little.
    """

    listed_executions: int = 0
    planned_executions: int = 0
    planned_requests: int = 0
    committed_executions: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    quota: Quota = field(default_factory=Quota)
    crawl: Crawl | None = None
    crawl_began_at: float = 0.0

    @property
    def done_requests(self) -> int:
        """Planned requests that were answered."""
        done = self.crawl.calls_fetched + self.crawl.listings if self.crawl else 0
        return min(self.planned_requests, done)

    def seconds_left(self, now: float) -> float | None:
        """How long the rest takes: what the limit allows, or the pace so far, whichever is slower; None when neither is known."""
        done = self.done_requests
        left = self.planned_requests - done
        estimates = [(now - self.crawl_began_at) * left / done] if done else []
        if (allowed := self.quota.seconds_for(left, now)) is not None:
            estimates.append(allowed)
        return max(estimates, default=None)

    def held_seconds(self, now: float) -> float:
        """For how long the rate limit lets nothing more through; 0 when it does."""
        return max(0.0, self.traffic.held_until - now)


def say_nothing(_event: str, **_fields: Any) -> None:
    """A ``Notify`` for nobody."""
