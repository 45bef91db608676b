"""Dates in headers, and the source's clock against ours: read where they are dates, and never an error where they are not."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etl.extract.source_clock import clock_offset, unix_seconds

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


numbers = st.integers(-(10**25), 10**25).map(str) | st.text("0123456789", max_size=30)
nearly_dates = st.tuples(
    st.sampled_from(["Thu, ", "", "Foo, "]),
    numbers,
    st.sampled_from([" Nov ", " Foo ", "-Nov-", " "]),
    numbers,
    st.just(" "),
    st.lists(numbers, max_size=4).map(":".join),
    st.sampled_from([" GMT", " +", " -", " ", ""]),
    numbers,
).map("".join)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001 made aware below
def test_what_is_written_is_read_to_the_second(moment):
    aware = moment.replace(microsecond=0, tzinfo=UTC)
    assert unix_seconds(format_datetime(aware, usegmt=True)) == aware.timestamp()


@given(st.text() | nearly_dates)
@example("Thu, 26 Nov 2026 00:00:00 +99999999999999999999")
@example("Thu, 26 Nov 99999999999999 00:00:00 GMT")
@example("Thu, 26 Nov 2026 00:00:00 +9999")
@example("Thu, " + "9" * 5_000 + " Nov 2026 00:00:00 GMT")
def test_no_value_raises(value):
    found = unix_seconds(value)
    assert found is None or abs(found) < 1e12


@pytest.mark.parametrize(
    "value", ["", "yesterday", "Mon, 99 Foo 2026 00:00:00 GMT", "Thu, 26 Nov 2026 00:00:00", "26 Nov 2026 00:00 -0000"]
)
def test_what_is_no_date_or_has_no_zone_is_unknown(value):
    assert unix_seconds(value) is None
