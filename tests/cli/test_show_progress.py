"""What the line of progress says, in made-up time."""

from types import SimpleNamespace

from etl.cli.show_progress import load_progress, progress_parts
from etl.extract.endpoints import Purpose
from etl.pipeline.context import Progress
from tests.progress import progress, spend


def test_listing_says_what_was_found():
    listing = Progress(listed_executions=1200)
    listing.traffic.requests_by_purpose[Purpose.LIST] = 3
    assert list(progress_parts(listing, 1.0)) == ["listing: 1,200 executions found, 3 requests sent"]


def test_pace_tells_the_time_left_where_no_limit_is_known():
    assert list(progress_parts(progress(done=100, planned=400), 20.0)) == [
        "100 of 400 requests",
        "60 s left",
        "12 of 40 executions saved",
    ]


def test_no_time_is_told_before_anything_is_known():
    assert list(progress_parts(progress(planned=400), 20.0)) == ["0 of 400 requests", "12 of 40 executions saved"]


def test_hold_is_counted_down_in_place_of_what_is_left_and_is_part_of_the_time_left():
    held = progress(done=100, planned=101, limit=100)
    held.traffic.held_until = 60.0
    assert [*progress_parts(held, 17.5)][1:3] == ["43 s left", "rate limit: waiting 43 s"]
    assert "rate limit: 100 of 100 requests left" in progress_parts(held, 60.0)


def test_spent_limit_says_that_nothing_is_left():
    limited = progress(done=100, planned=1000, limit=100)
    spend(limited.quota, 100, 1.0)
    assert "rate limit: 0 of 100 requests left" in progress_parts(limited, 1.0)


def test_rows_from_lists_are_told_beside_what_is_fetched():
    early = progress(planned=400)
    early.previews, early.previewed = [SimpleNamespace()] * 3, 2  # type: ignore[list-item]
    assert list(progress_parts(early, 20.0)) == ["0 of 400 requests", "2 of 3 readable", "12 of 40 executions saved"]


def test_requests_for_single_calls_are_told_once_there_are_any():
    some = progress(done=100, planned=400)
    some.traffic.call_requests = 60
    assert list(progress_parts(some, 20.0))[-1] == "60 requests for single calls"


def test_load_says_once_what_it_waits_for(capsys):
    with load_progress(is_shown=True) as (_, on_retry):
        for reason in ("starting up", "starting up", "a deadlock"):
            on_retry(reason)

    assert capsys.readouterr().err == "waiting: starting up\nwaiting: a deadlock\n"
