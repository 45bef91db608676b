"""The progress of a run, in made-up time."""

from types import SimpleNamespace
from typing import Any

from etl.extract.quota import Quota
from etl.extract.settling import Counts
from etl.pipeline.run import Progress


def progress(*, done: int = 0, planned: int = 0, limit: int | None = None, began_at: float = 0.0) -> Progress:
    crawl: Any = SimpleNamespace(counts=Counts(calls_fetched=done))
    return Progress(
        planned_requests=planned,
        planned_executions=40,
        committed_executions=12,
        quota=Quota(requests_per_minute=limit),
        crawls=[crawl],
        crawl_began_at=began_at,
    )


def spend(quota: Quota, requests: int, now: float) -> None:
    for _ in range(requests):
        quota.sent()
        quota.answered(now, {})
