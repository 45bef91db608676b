"""All rows but the bad ones are read, these are told by their position, and a list with a bad row proves nothing."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.errors import TransientError
from etl.extract.bad_rows import MAX_LOST, MAX_UNREADABLE, no_head, power_of_two
from etl.extract.endpoints import Slice
from etl.extract.listing import MAX_ROUNDS, LargestPage, read_pass
from etl.model.records import Page
from tests.extract.shifting_list import (
    CAPS,
    DELETE,
    HISTORY,
    LIMIT,
    Server,
    finished,
    is_500,
    list_rows,
    older,
    read_around,
    rows,
)
from tests.support import examples


def most_requests(size: int, bad: int, limit: int, max_limit: int | None) -> int:
    """What a pass may cost over a list that does not move: the proof of the promise in etl/extract/bad_rows.py."""
    page = power_of_two(min(limit, max_limit or limit))
    doublings = limit.bit_length() - 1
    asked_again = 1 + 2 * MAX_ROUNDS
    return -(-size // page) + asked_again + bad * (2 * doublings + 4) + doublings + 3


LIMITS = st.sampled_from([1, 2, 4, 16, 64])
BAD = st.integers(0, 2**48 - 1) | st.sets(st.integers(0, 47), max_size=4).map(
    lambda bits: sum(1 << bit for bit in bits)
)


@settings(max_examples=examples(1000))
@given(size=st.integers(1, 48), bad=BAD, max_limit=CAPS, limit=LIMITS)
# The rows of a page that the server cut look like the end of the list.
@example(size=12, bad=1, max_limit=5, limit=16)
@example(size=13, bad=1, max_limit=5, limit=16)
def test_all_rows_but_the_bad_ones_are_read_and_these_are_told_by_position(size, bad, max_limit, limit):
    server = Server(rows(size), max_limit=max_limit)
    order = server.ordered()
    positions = [position for position in range(size) if bad >> position & 1]
    server.bad = frozenset(order[position] for position in positions)
    if set(range(min(size, MAX_LOST))) <= set(positions):
        with pytest.raises(TransientError, match="page 1: 500"):
            read_around(server, limit)
        assert len(server.requests) <= most_requests(MAX_LOST, MAX_LOST, limit, max_limit)
        return
    found = read_around(server, limit)
    assert found.rows.keys() == server.alive - server.bad
    assert [row.position for row in found.unreadable] == positions
    assert {(row.error.status, row.tries, row.head) for row in found.unreadable} <= {(500, 2, None)}
    assert not (positions and found.is_whole_page)
    assert len(server.requests) <= most_requests(size, len(positions), limit, max_limit)


@settings(max_examples=examples(300))
@given(size=st.integers(1, 48), bad=BAD, max_limit=CAPS, limit=LIMITS)
def test_bad_rows_are_identified_and_leave_the_listing_incomplete(size, bad, max_limit, limit):
    server = Server(rows(size), max_limit=max_limit)
    server.bad = frozenset(name for position, name in enumerate(server.ordered()) if bad >> position & 1)
    listing = list_rows(server, limit=limit)
    assert listing.rows.keys() == server.alive - server.bad
    assert {row.head for row in listing.unreadable} == server.bad
    assert len(listing.unreadable) == len(server.bad)
    assert listing.is_complete == (not server.bad)
    assert server.heads <= len(server.bad) + MAX_LOST


@settings(max_examples=examples(2500))
@given(
    size=st.integers(1, 24),
    ties=st.integers(1, 4),
    max_limit=CAPS,
    bad=st.integers(1, 2**24 - 1) | st.integers(0, 23).map(lambda bit: 1 << bit),
    history=HISTORY,
    limit=LIMITS,
)
# A row that was seen before the rows were counted, and deleted then, made up for the bad one.
@example(size=22, ties=4, max_limit=7, bad=1 << 18, history=[*[3] * 6, DELETE + 8 * 14], limit=4)
def test_listing_with_bad_rows_claims_nothing_that_is_not_so_while_the_list_moves(
    size, ties, max_limit, bad, history, limit
):
    server = Server(rows(size, ties), history, max_limit=max_limit)
    server.bad = frozenset(f"old-{number}" for number in range(size) if bad >> number & 1)
    at_the_start = server.alive
    try:
        listing = list_rows(server, limit=limit)
    except TransientError:
        return  # nothing is claimed
    finally:
        size_ever = len(server.rows) + len(server.gone)
        a_pass = 2 * (size_ever + limit) + (MAX_UNREADABLE + 1) * (2 * limit.bit_length() + 4)
        assert len(server.requests) <= 2 * MAX_ROUNDS * (a_pass + size_ever * (1 + 2 * MAX_ROUNDS))
    identified = [row.head for row in listing.unreadable if row.head]
    assert listing.rows.keys() | set(identified) <= server.alive | server.gone
    assert not server.bad & listing.rows.keys()
    assert len(set(identified)) == len(identified)
    if listing.is_complete:
        assert older(at_the_start) & server.alive <= listing.rows.keys()
        assert not listing.unreadable


@pytest.mark.parametrize(
    ("bad", "told", "heads"), [({"old-3"}, "old-6", [None]), ({"old-3", "old-4"}, "old-3", ["old-3"])]
)
def test_head_of_a_row_that_was_read_or_told_before_does_not_pass_for_the_bad_one(bad, told, heads):
    """Rows are pushed down while they are asked for."""
    listing = list_rows(Server(rows(7), bad=frozenset(bad), told_head=told))
    assert [row.head for row in listing.unreadable] == heads


def test_too_many_bad_rows_end_the_reading_with_a_message():
    server = Server(rows(400))
    server.bad = frozenset(server.ordered()[1::2])
    found = read_around(server)
    assert len(found.unreadable) == MAX_UNREADABLE + 1
    assert "Row 201 and all rows after it" in str(found.unreadable[-1].error)
    assert found.rows.keys() == set(server.ordered()[:201:2])
    assert len(server.requests) <= most_requests(201, MAX_UNREADABLE + 1, LIMIT, None)


def test_heads_vouch_for_a_list_of_which_no_row_can_be_read():
    server = Server(rows(2 * MAX_LOST))
    server.bad = server.alive
    server.headless = frozenset(range(2 * MAX_LOST)) - {MAX_LOST - 1, 2 * MAX_LOST - 1}
    listing = list_rows(server)
    assert [row.position for row in listing.unreadable] == list(range(2 * MAX_LOST))
    assert [row.position for row in listing.unreadable if row.head] == [MAX_LOST - 1, 2 * MAX_LOST - 1]


@pytest.mark.parametrize("is_same", [True, False])
def test_list_that_has_no_end_is_read_to_one_all_the_same(is_same):
    """It grows with each answer, or tells of rows that it never shows."""
    asked = 0

    async def read(part: Slice) -> Page[str]:
        nonlocal asked
        asked += 1
        assert asked <= 300 + 4
        if not part.is_probe:
            raise is_500(part.page, is_final=False)
        count = 10**9 if is_same else 100 * (part.page * part.limit + 1)
        names = tuple(f"{0 if is_same else part.page}-{number}" for number in range(part.limit))
        return Page(total_pages=-(-count // part.limit), count=count, results=names)

    found = finished(read_pass(read, str, limit=4, largest=LargestPage(4), head_at=no_head))
    assert bool(found.unreadable) is is_same


def test_page_that_vanished_meanwhile_is_no_bad_row():
    server = Server(rows(40))
    server.bad = frozenset({server.ordered()[33]})

    def shrink_after_the_bad_row(_part: Slice, _nth: int) -> None:
        if (34, 1) in server.requests[-2:]:
            server.rows = [row for row in server.rows if row[0] in server.ordered()[:33]]

    found = read_around(server, 16, shrink_after_the_bad_row)
    assert not found.unreadable
    assert found.count == 33


@pytest.mark.parametrize(("bad", "limit", "failures"), [(0, 16, 18), (6, 16, 18), (6, 64, 1)])
def test_page_that_fails_for_a_while_leaves_no_row_out_and_proves_nothing_by_being_one(bad, limit, failures):
    server = Server(rows(40), bad=frozenset({f"old-{bad}"}))

    def heal(_part: Slice, nth: int) -> None:
        server.bad = frozenset() if nth >= failures else server.bad

    found = read_around(server, limit, heal)
    assert found.rows.keys() == server.alive
    assert not found.unreadable
    assert not found.is_whole_page
