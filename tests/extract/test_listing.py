"""A listing that says it is complete is complete, whatever happens on the server while it is read.

The law speaks of the reading's start: what existed by then and still exists at the end must have been found.
"""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.errors import TransientError
from etl.extract.endpoints import Slice
from etl.extract.listing import LargestPage
from etl.model.records import Page
from tests.extract.shifting_list import (
    CAPS,
    DELETE,
    HEAD_ROWS,
    HISTORY,
    INSERT,
    LIMIT,
    WAIT,
    Server,
    list_rows,
    older,
    read_around,
    rows,
)
from tests.support import examples


def list_world(**changes: Any) -> dict[str, Any]:
    """An example: what is not given is as usual."""
    usual = {"recent": 0, "ties": 1, "max_limit": 2, "limit": LIMIT, "largest": 64, "failing": 0}
    return usual | changes


SKIPPED = [*[WAIT] * 6, DELETE + 8 * 5]
"""Of six rows, one that was seen goes before the third page is read: so that one is skipped."""


@settings(max_examples=examples(3000))
@given(
    size=st.integers(0, 24),
    recent=st.just(0) | st.integers(0, 24),
    ties=st.integers(1, 4),
    max_limit=CAPS,
    history=HISTORY,
    limit=st.sampled_from([LIMIT, LIMIT, 2, 8]),
    largest=st.sampled_from([64, 16, 8, 4]),
    failing=st.integers(0, 255) | st.just(0),
)
# A row is clipped off the page by one that is inserted after the count.
@example(**list_world(size=2, max_limit=None, history=[WAIT, INSERT, WAIT]))
@example(**list_world(size=4, max_limit=None, history=[WAIT, WAIT, WAIT, INSERT], limit=2))
# Or off the first of many pages, which makes up in the count for the row that is skipped.
@example(**list_world(size=6, history=[WAIT, INSERT, *SKIPPED]))
# The next reading skips another row.
@example(**list_world(size=6, history=[*SKIPPED, *[WAIT] * 8, DELETE + 8 * 2]))
def test_list_that_is_called_complete_holds_all_that_it_promises(
    size, recent, ties, max_limit, history, limit, largest, failing
):
    """The youngest rows are ``recent`` from the start. ``failing`` has a bit for each request for a larger page."""
    server = Server(rows(size + 2, ties, recent), history, max_limit=max_limit, failing_trials=failing)
    for name, _ in server.rows[:2]:
        server.gone.add(name)
    del server.rows[:2]
    dead_before, at_the_start = frozenset(server.gone), server.alive
    try:
        listing = list_rows(server, limit, LargestPage(largest))
    except TransientError:
        return  # a page came and went seven times in a row: the listing says so, and claims nothing
    assert not dead_before & listing.rows.keys()
    assert all(name == row for name, row in listing.rows.items())
    if listing.is_complete:
        assert older(at_the_start) & server.alive <= listing.rows.keys()


@settings(max_examples=examples(400))
@given(
    size=st.integers(0, 24), max_limit=st.none() | st.integers(5, 7), history=st.lists(st.integers(0, 255), max_size=4)
)
def test_list_that_calms_down_is_proved_complete(size, max_limit, history):
    """If its first page has a row that is older than the reading."""
    assert list_rows(Server(rows(size), history, max_limit=max_limit)).is_complete


@settings(max_examples=examples(400))
@given(
    size=st.integers(0, 40),
    recent=st.integers(0, 20),
    max_limit=st.sampled_from([None, 60, 44]),
    deleted=st.integers(0, 31),
)
@example(size=40, recent=20, max_limit=44, deleted=0)
def test_list_that_gets_a_row_with_each_request_is_proved_complete(size, recent, max_limit, deleted):
    """As of the reading's start, whatever came in the minutes before, and though a row is deleted meanwhile."""
    history = [INSERT, WAIT, WAIT, DELETE + 8 * deleted, *[INSERT, WAIT, WAIT] * 200]
    server = Server(rows(size + recent, 1, recent), history, max_limit=max_limit)
    at_the_start = server.alive
    listing = list_rows(server)
    assert listing.is_complete
    assert older(at_the_start) & server.alive <= listing.rows.keys()


@pytest.mark.parametrize(
    ("size", "requests"),
    [
        (0, [LIMIT]),
        (LIMIT, [LIMIT]),
        (LIMIT + 1, [LIMIT, 2 * LIMIT]),
        (2 * LIMIT, [LIMIT, 4 * LIMIT]),
        (1000, [LIMIT, 1024]),
    ],
)
def test_quiet_list_costs_one_page_that_holds_it(size, requests):
    server = Server(rows(size, ties=max(1, size)))
    assert list_rows(server).rows.keys() == server.alive
    assert [limit for _, limit in server.requests] == requests


@pytest.mark.parametrize(("size", "max_limit", "pages"), [(LIMIT + 1, LIMIT, 2), (24, 1, 24), (21, 7, 3)])
def test_quiet_pages_are_read_once_and_the_first_twice(size, max_limit, pages):
    server = Server(rows(size), max_limit=max_limit)
    assert list_rows(server, largest=LargestPage(LIMIT)).rows.keys() == server.alive
    assert len(server.requests) == 1 + pages


@pytest.mark.parametrize("number", [0, 800, 1590])
def test_bad_row_of_a_long_list_costs_few_requests_more(number):
    """It is the oldest, in the middle, or near the head."""
    server = Server(rows(1600), bad=frozenset({f"old-{number}"}))
    listing = list_rows(server, 16, LargestPage(256))
    assert ([row.head for row in listing.unreadable], len(listing.rows)) == ([f"old-{number}"], 1599)
    assert len(server.requests) <= 7 + 4 + 2 * 8 + 4


def test_page_that_is_cut_or_refused_is_not_requested_as_large_again():
    cut = Server(rows(300), max_limit=50)
    largest = LargestPage()
    for _ in range(3):
        assert list_rows(cut, largest=largest).is_complete
    assert (cut.trials, largest.rows) == ([], 32)
    refused = Server(rows(300), failing_trials=1)
    largest = LargestPage()
    for _ in range(3):
        assert list_rows(refused, largest=largest).is_complete
    assert ({*refused.trials[1:]}, refused.trials[0], largest.rows) == ({128}, 512, 128)


@pytest.mark.parametrize("gives", [0, LIMIT, 100])
def test_larger_page_that_lacks_rows_is_not_believed(gives):
    """Whatever it says of itself: that the list is shorter now, or that there is no second page."""
    server = Server(rows(120))

    async def read(part: Slice) -> Page[str]:
        found = server.page(part)
        if part.limit <= LIMIT:
            return found
        return Page(total_pages=1, count=gives if gives < LIMIT else found.count, results=found.results[:gives])

    listing = list_rows(server, read=read)
    assert listing.is_complete
    assert listing.rows.keys() == server.alive


def test_one_page_that_holds_fewer_rows_than_it_counts_is_never_believed():
    async def read(_part: Slice) -> Page[str]:
        return Page(total_pages=1, count=3, results=("a", "b"))

    listing = list_rows(Server([]), read=read)
    assert not listing.is_complete
    assert listing.rows.keys() == {"a", "b"}


# Pages that fail


def test_page_that_vanishes_while_paging_is_no_error():
    """Before page 2 is asked for, one row goes, and with it page 3; or after page 2 had promised it."""
    assert read_around(Server(rows(7), [WAIT, WAIT, DELETE], max_limit=3)).total_pages == 2
    server = Server(rows(7), [WAIT] * 4 + [DELETE], max_limit=3)
    assert read_around(server).total_pages == 3
    assert server.requests == [(1, LIMIT), (2, LIMIT), (3, LIMIT), (1, HEAD_ROWS)]
