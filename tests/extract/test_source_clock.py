"""The source's clock against ours: what ``Date`` says, and what it does not."""

from datetime import UTC, datetime, timedelta

import pytest

from etl.extract.source_clock import clock_offset

NOW = datetime(2026, 11, 1, 2, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("date", "offset"),
    [
        ("Sun, 01 Nov 2026 02:00:30 GMT", timedelta(0)),
        ("Sun, 01 Nov 2026 01:59:35 GMT", timedelta(0)),
        ("Sat, 31 Oct 2026 02:00:30 GMT", timedelta(days=-1)),
        ("Mon, 01 Nov 2027 02:00:30 GMT", timedelta(days=365)),
        ("Sun, 01 Nov 2026 04:00:30 +0200", timedelta(0)),
    ],
)
def test_date_tells_how_far_the_clocks_are_apart(date, offset):
    assert clock_offset({"Date": date}, NOW) == offset


@pytest.mark.parametrize(
    "headers",
    [
        {},
        *({"Date": text} for text in ("", "yesterday", "Sun, 01 Nov 2026 02:00:30 +" + "9" * 19, "9" * 400)),
        *({"Date": date} for date in ("Fri, 31 Dec 9999 23:59:59 GMT", "Sat, 01 Jan 0001 00:00:00 GMT")),
    ],
)
def test_nonsense_tells_nothing(headers):
    assert clock_offset(headers, NOW) is None
