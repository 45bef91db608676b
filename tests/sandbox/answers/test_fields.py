"""Timestamps are written as the API writes them."""

from datetime import UTC, datetime

from etl.sandbox.answers.fields import timestamp


def test_timestamps_are_utc_with_microseconds():
    assert timestamp(datetime(2026, 3, 1, 9, 0, 1, 123456, UTC)) == "2026-03-01T09:00:01.123456Z"
    assert timestamp(None) is None
