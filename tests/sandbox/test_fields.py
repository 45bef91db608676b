"""Timestamps are written as the API writes them, and pages partition the rows as on the real server."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.sandbox.fields import AnswerError, page_of, timestamp


def test_timestamps_are_utc_with_microseconds():
    assert timestamp(datetime(2026, 3, 1, 9, 0, 1, 123456, UTC)) == "2026-03-01T09:00:01.123456Z"
    assert timestamp(None) is None


@given(st.integers(0, 40), st.integers(1, 50), st.none() | st.integers(1, 7))
def test_pages_partition_the_rows(size, limit, max_limit):
    rows = list(range(size))
    first = page_of(rows, {"limit": str(limit)}, max_limit)
    pages = [
        page_of(rows, {"page": str(page), "limit": str(limit)}, max_limit)
        for page in range(1, first["total_pages"] + 1)
    ]
    assert [row for page in pages for row in page["results"]] == rows
    assert {page["count"] for page in pages} == {size}
    assert first == pages[0]
    with pytest.raises(AnswerError):
        page_of(rows, {"page": str(first["total_pages"] + 1), "limit": str(limit)}, max_limit)


@pytest.mark.parametrize("page", ["0", "-1", "", "abc", "1.0", "99"])
def test_page_that_is_no_page_is_past_the_end(page):
    with pytest.raises(AnswerError):
        page_of(range(30), {"page": page})


@pytest.mark.parametrize("limit", ["0", "-3", "many", ""])
def test_limit_that_is_no_positive_integer_means_ten(limit):
    assert len(page_of(range(12), {"limit": limit})["results"]) == 10
