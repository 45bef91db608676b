"""Where a run is, for whoever wants to show it, and how it tells of events."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from etl.api.client import Traffic
from etl.crawl.fetch import Crawl

Notify = Callable[..., None]
"""Called with the name of an event and its fields."""


@dataclass(slots=True)
class Progress:
    """Where a run is; grows while it runs."""

    listed_executions: int = 0
    planned_executions: int = 0
    planned_requests: int = 0
    committed_executions: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    crawl: Crawl | None = None

    @property
    def fetched_calls(self) -> int:
        """Calls whose metrics arrived."""
        return self.crawl.calls_fetched if self.crawl else 0


def say_nothing(_event: str, **_fields: Any) -> None:
    """A ``Notify`` for nobody."""
