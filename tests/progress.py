"""The progress of a run, in made-up time."""

from etl.extract.endpoints import Purpose
from etl.extract.quota import Quota
from etl.pipeline.context import Progress


def progress(*, done: int = 0, planned: int = 0, limit: int | None = None, began_at: float = 0.0) -> Progress:
    made = Progress(
        planned_requests=planned,
        planned_executions=40,
        committed_executions=12,
        quota=Quota(requests_per_minute=limit),
        crawl_began_at=began_at,
    )
    made.traffic.requests_by_purpose[Purpose.FIRST_FETCH] = done
    return made


def spend(quota: Quota, requests: int, now: float) -> None:
    for _ in range(requests):
        quota.sent()
        quota.answered(now, {})
