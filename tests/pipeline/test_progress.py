"""What the line of progress says, in made-up time."""

from types import SimpleNamespace
from typing import Any

from etl.cli.show_progress import progress_parts
from etl.extract.quota import Quota
from etl.pipeline.progress import Progress


def progress(*, done: int = 0, planned: int = 0, limit: int | None = None, began_at: float = 0.0) -> Progress:
    crawl: Any = SimpleNamespace(calls_fetched=done, listings=0)
    return Progress(
        planned_requests=planned,
        planned_executions=40,
        committed_executions=12,
        quota=Quota(requests_per_minute=limit),
        crawl=crawl,
        crawl_began_at=began_at,
    )


def spend(quota: Quota, requests: int, now: float) -> None:
    for _ in range(requests):
        quota.sent()
        quota.answered(now, {})


def test_listing_says_what_was_found():
    listing = Progress(listed_executions=1200)
    listing.traffic.requests = 3
    assert list(progress_parts(listing, 1.0)) == ["listing: 1,200 executions, 3 requests"]


def test_pace_tells_the_time_left_where_no_limit_is_known():
    assert list(progress_parts(progress(done=100, planned=400), 20.0)) == [
        "100/400 requests",
        "60 s left",
        "12/40 saved",
    ]


def test_no_time_is_told_before_anything_is_known():
    assert list(progress_parts(progress(planned=400), 20.0)) == ["0/400 requests", "12/40 saved"]


def test_limit_tells_the_time_left_though_the_first_window_is_spent_in_a_second():
    """The pace of a burst would promise that 900 requests take 9 seconds."""
    limited = progress(done=100, planned=1000, limit=100)
    spend(limited.quota, 100, 1.0)
    assert limited.seconds_left(1.0) == 8 * 60
    assert "rate limit: 0 of 100 left" in progress_parts(limited, 1.0)


def test_pace_counts_where_the_server_is_slower_than_the_limit():
    assert progress(done=10, planned=110, limit=1000).seconds_left(60.0) == 600.0


def test_hold_is_counted_down_in_place_of_what_is_left():
    held = progress(done=100, planned=1000, limit=100)
    held.traffic.held_until = 60.0
    assert "rate limit: waiting 43 s" in progress_parts(held, 17.5)
    assert "rate limit: 100 of 100 left" in progress_parts(held, 60.0)
