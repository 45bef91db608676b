"""The made-up world is the same at every hour of a week."""

from datetime import UTC, datetime, timedelta

from etl.cli.sandbox_server import latest_friday


def test_each_hour_of_a_week_looks_back_from_the_same_moment() -> None:
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    before, after = datetime(2026, 11, 20, 15, tzinfo=UTC), datetime(2026, 11, 27, 15, tzinfo=UTC)
    hours = [monday + timedelta(hours=number) for number in range(7 * 24)]

    assert {hour: latest_friday(hour) for hour in hours} == {hour: after if hour >= after else before for hour in hours}
