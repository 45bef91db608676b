"""A listing that says it is complete is complete, whatever happens on the server while it is read.

The server is a model: rows listed newest first (executions) or last saved first (calls), pages cut by offset, and a history
of what happens before each request and, for executions, between its count and its slice, which are two queries.

Both laws speak of the proving request: the last one that asked for the count alone (limit 1), or, where none did, the last
read of the list. What was alive when it counted and still is at the end must have been found.

``bad`` rows turn each page that holds them into a 500.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from etl.errors import NotFoundError, RequestRefusedError, ServerFaultError, SourceError, TransientError
from etl.extract import calls
from etl.extract.bad_rows import MAX_LOST, MAX_UNREADABLE, PageReader, power_of_two
from etl.extract.calls import Crawl
from etl.extract.client import Client
from etl.extract.endpoints import Request
from etl.extract.listing import MAX_ROUNDS, LargestPage, Listing, Pass, list_completely, read_pass
from etl.model.records import (
    DETAIL,
    METRICS,
    RUNS,
    CallMetrics,
    DetailedCall,
    ExecutionBundle,
    ListedCall,
    Page,
)
from tests.bundles import planned
from tests.support import examples

T = TypeVar("T")

HISTORY = st.lists(st.integers(0, 255), max_size=100)
INSERT, DELETE, WAIT = 0, 1, 7
LIMIT = 64


@dataclass
class Server:
    """Rows as (id, time of the order), and what is still to happen.

    A number of the history whose last octal digit is 0, 1 or 2 changes something; any other lets the next request in.
    """

    rows: list[tuple[str, int]]
    history: list[int] = field(default_factory=list)
    changes: Sequence[str] = ("insert", "delete")
    max_limit: int | None = None
    is_atomic: bool = False
    bad: frozenset[str] = frozenset()
    is_bad_by_id: bool = True
    told_head: str | None = None
    headless: frozenset[int] = frozenset()
    requests: list[tuple[int, int]] = field(default_factory=list)
    counted: list[frozenset[str]] = field(default_factory=list)
    counted_alone: frozenset[str] | None = None
    gone: set[str] = field(default_factory=set)
    clock: int = 1_000
    gets: int = 0
    heads: int = 0
    trials: list[int] = field(default_factory=list)
    failing_trials: int = 0

    def happen(self) -> None:
        while self.history and (what := self.history.pop(0)) % 8 < 3:
            change = self.changes[what % 8 % len(self.changes)]
            which = what // 8
            self.clock += which % 4 > 0  # now and then two things happen at the same time: a tie
            if change == "insert":
                self.rows.append((f"new-{len(self.rows) + len(self.gone)}", self.clock))
            elif self.rows and change == "delete":
                self.gone.add(self.rows.pop(which % len(self.rows))[0])
            elif self.rows:
                name, _ = self.rows.pop(which % len(self.rows))
                self.rows.append((name, self.clock))

    @property
    def alive(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.rows)

    def page(
        self, page: int, limit: int, *, is_probe: bool = False, is_trial: bool = False
    ) -> tuple[int, int, list[str]]:
        """As the server pages: total_pages, count, ids. Ties come in another order with each request."""
        self.requests.append((page, limit))
        self.happen()
        if is_trial:
            self.trials.append(limit)
            if self.failing_trials >> len(self.trials) - 1 & 1:
                raise TransientError("timeout")
        count, size = len(self.rows), min(limit, self.max_limit or limit)
        self.counted.append(self.alive)
        if limit == 1 and not is_probe:
            self.counted_alone = self.alive
        total_pages = max(1, -(-count // size))
        if not self.is_atomic:
            self.happen()
        if page > total_pages:
            raise is_500(page)
        names = self.ordered()[(page - 1) * size : min(page * size, count)]
        if not self.bad.isdisjoint(names):
            raise is_500(page, is_final=is_probe or is_trial or page > 1)
        return total_pages, count, names

    def ordered(self) -> list[str]:
        salt = len(self.requests) * 7919
        return [name for name, _ in sorted(self.rows, key=lambda row: (-row[1], hash((salt, len(row[0]), row[0][-1]))))]

    def head_at(self, position: int) -> str:
        self.heads += 1
        self.happen()
        if position >= len(self.rows) or position in self.headless:
            raise is_500(position + 1)
        return self.told_head or self.ordered()[position]

    def get(self, name: str) -> None:
        self.gets += 1
        self.happen()
        if name not in self.alive:
            raise NotFoundError(f"{name}: not found")
        if name in self.bad and self.is_bad_by_id:
            raise is_500(1, is_final=False)

    @property
    def counted_by_the_proof(self) -> frozenset[str]:
        return self.counted[-1] if self.counted_alone is None else self.counted_alone


def is_500(page: int, *, is_final: bool = True) -> ServerFaultError:
    return ServerFaultError(f"run test 'A', page {page}: 500", is_final=is_final)


async def unasked(position: int) -> str:
    raise AssertionError(f"the head at {position} was asked for")


def rows(count: int, ties: int = 1) -> list[tuple[str, int]]:
    """The newest last; so many in a row share their time."""
    return [(f"old-{number}", number // ties) for number in range(count)]


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits: no event loop is needed."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    raise AssertionError("it waited")


# Executions


def list_executions(
    server: Server,
    known: Sequence[str] = (),
    limit: int = LIMIT,
    largest: LargestPage | None = None,
) -> Listing[str]:
    async def get(name: str) -> str:
        server.get(name)
        return name

    async def head_at(position: int) -> str:
        return server.head_at(position)

    read = reader(server, lambda _page, _nth: None)
    return finished(
        list_completely(
            read, lambda name: name, get, known=known, limit=limit, head_at=head_at, largest=largest or LargestPage()
        )
    )


CAPS = st.sampled_from([7, 7, 7, 7, None, 1, 2, 3, 5])
"""Most rows of a page: usually seven, at which most lists here have several pages."""


@settings(max_examples=examples(2500))
@given(
    size=st.integers(0, 24),
    ties=st.integers(1, 4),
    max_limit=CAPS,
    known=st.integers(0, 2**24 - 1) | st.just(2**24 - 1),
    history=HISTORY,
    limit=st.sampled_from([LIMIT, LIMIT, 2, 8]),
    failing=st.integers(0, 255) | st.just(0),
)
# A row is clipped off the page by one that is inserted after the count.
@example(size=2, ties=1, max_limit=None, known=2**24 - 1, history=[WAIT, INSERT], limit=LIMIT, failing=0)
@example(size=4, ties=1, max_limit=None, known=2**24 - 1, history=[WAIT, WAIT, WAIT, INSERT], limit=2, failing=0)
# Both passes skip the same row, and one that only the second saw makes up for it in the count.
@example(
    size=6,
    ties=1,
    max_limit=2,
    known=0,
    history=[
        *(WAIT, WAIT, DELETE + 8 * 5, *[WAIT] * 6),
        *(INSERT + 8, WAIT, WAIT, DELETE + 8 * 5),
    ],
    limit=LIMIT,
    failing=0,
)
# Both passes skip the same row, and one that both saw is gone before anybody counts.
@example(
    size=6,
    ties=1,
    max_limit=2,
    known=0,
    history=[
        *(WAIT, WAIT, DELETE + 8 * 5, WAIT, WAIT, WAIT, WAIT),
        *(INSERT + 8, WAIT, WAIT, DELETE + 8 * 5, WAIT, WAIT, WAIT, WAIT, DELETE),
    ],
    limit=LIMIT,
    failing=0,
)
def test_listing_that_says_it_is_complete_holds_what_its_proof_counted(
    size, ties, max_limit, known, history, limit, failing
):
    """Whatever becomes of the requests for a larger page: ``failing`` has a bit for each."""
    server = Server(rows(size + 2, ties), history, max_limit=max_limit, failing_trials=failing)
    for name, _ in server.rows[:2]:
        server.gone.add(name)
    del server.rows[:2]
    dead_before = frozenset(server.gone)
    seen_by_the_dataset = [f"old-{number}" for number in range(size + 2) if known >> number & 1]
    try:
        listing = list_executions(server, seen_by_the_dataset, limit)
    except TransientError:
        return  # a page came and went seven times in a row: the listing says so, and claims nothing
    assert not dead_before & listing.rows.keys()
    assert all(name == row for name, row in listing.rows.items())
    if listing.is_complete:
        assert server.counted_by_the_proof & server.alive <= listing.rows.keys()


@settings(max_examples=examples(200))
@given(
    size=st.integers(0, 24), max_limit=st.none() | st.integers(1, 7), history=st.lists(st.integers(0, 255), max_size=4)
)
def test_list_that_calms_down_is_proved_complete(size, max_limit, history):
    server = Server(rows(size), history, max_limit=max_limit)
    assert list_executions(server).is_complete


@pytest.mark.parametrize("size", [0, 1, LIMIT])
def test_one_quiet_page_costs_one_request_and_two_with_news(size):
    server = Server(rows(size))
    listing = list_executions(server, known=[name for name, _ in server.rows])
    assert listing.is_complete
    assert (len(server.requests), server.gets) == (1, 0)
    server = Server(rows(size))
    assert list_executions(server, known=["gone-long-ago"]).is_complete
    assert (len(server.requests), server.gets) == (2 if size else 1, 0)


@pytest.mark.parametrize(("size", "max_limit", "pages"), [(LIMIT + 1, LIMIT, 2), (8, 7, 2), (24, 1, 24), (21, 7, 3)])
def test_quiet_pages_cost_a_count_and_two_passes(size, max_limit, pages):
    server = Server(rows(size), max_limit=max_limit)
    assert list_executions(server).rows.keys() == server.alive
    assert (len(server.requests) - len(server.trials), server.gets) == (pages + 1 + pages, 0)
    assert len(server.trials) == (max_limit == LIMIT), "only a page that was not cut says that a larger one may be had"


@pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT, 2 * LIMIT - 1, 1000])
def test_list_that_does_not_fit_a_page_is_read_in_one_that_is_larger(size):
    larger = power_of_two(size) * 2
    server = Server(rows(size, ties=size), max_limit=None)
    assert list_executions(server, known=[name for name, _ in server.rows]).is_complete
    assert server.requests == [(1, LIMIT), (1, larger)]
    server = Server(rows(size, ties=size), max_limit=None)
    assert list_executions(server).rows.keys() == server.alive
    assert server.requests == [(1, LIMIT), (1, larger), (1, larger)], "with news it is read again"
    assert server.gets == 0


def test_page_that_is_cut_or_refused_is_not_asked_for_as_large_again():
    cut = Server(rows(300), max_limit=100)
    largest = LargestPage()
    for _ in range(3):
        assert list_executions(cut, largest=largest).is_complete
    assert (cut.trials, largest.rows) == ([512], 64)
    refused = Server(rows(300), failing_trials=0b11)
    largest = LargestPage()
    for _ in range(3):
        assert list_executions(refused, largest=largest).is_complete
    assert (refused.trials, largest.rows) == ([512, 512], 256)
    refused.rows = rows(200)
    assert list_executions(refused, largest=largest).is_complete
    assert refused.trials == [512, 512, 256]


def test_larger_page_that_failed_once_is_tried_again():
    server = Server(rows(300, ties=300), failing_trials=1)
    assert list_executions(server).rows.keys() == server.alive
    assert server.trials == [512, 512]


def test_list_that_grows_beyond_the_larger_page_is_read_in_the_next_size():
    server = Server(rows(127, ties=300), [WAIT, WAIT, INSERT, INSERT])
    largest = LargestPage()
    assert list_executions(server, largest=largest).is_complete
    assert (server.trials, largest.rows) == ([128, 256], LargestPage().rows)


@pytest.mark.parametrize("gives", [0, LIMIT, 100])
def test_larger_page_that_lacks_rows_is_not_believed(gives):
    """Whatever it says of itself: that the list is shorter now, or that there is no second page."""
    server = Server(rows(120))

    async def read(page: int, limit: int, *, is_probe: bool = False, is_trial: bool = False) -> Page[str]:
        total_pages, count, names = server.page(page, limit, is_probe=is_probe, is_trial=is_trial)
        if limit <= LIMIT:
            return Page(total_pages=total_pages, count=count, results=tuple(names))
        return Page(total_pages=1, count=gives if gives < LIMIT else count, results=tuple(names[:gives]))

    async def get(name: str) -> str:
        return name

    listing = finished(
        list_completely(read, lambda name: name, get, known=(), limit=LIMIT, head_at=unasked, largest=LargestPage())
    )
    assert listing.is_complete
    assert listing.rows.keys() == server.alive


def test_bad_row_beyond_the_first_page_makes_no_later_list_go_without_a_larger_page():
    server = Server(rows(300))
    server.bad = frozenset({server.ordered()[-1]})
    largest = LargestPage()
    found = list_executions(server, largest=largest)
    assert found.rows.keys() == server.alive - server.bad
    assert len(found.unreadable) == 1
    assert (server.trials, largest.rows) == ([512], LargestPage().rows)


def test_list_that_is_too_long_for_one_page_is_read_in_pages():
    server = Server(rows(300))
    assert list_executions(server, largest=LargestPage(256)).is_complete
    assert not server.trials


def test_list_that_never_calms_down_is_called_incomplete():
    for max_limit, history in ((None, [WAIT, INSERT]), (3, [INSERT, WAIT, WAIT, WAIT])):
        server = Server(rows(7), history * 1000, max_limit=max_limit)
        listing = list_executions(server)
        assert not listing.is_complete
        assert {f"old-{number}" for number in range(1, 7)} <= listing.rows.keys()
        assert len([limit for _, limit in server.requests if limit == (1 if max_limit else LIMIT)]) == MAX_ROUNDS


def test_row_that_paging_skipped_is_asked_for_by_its_id():
    """A row went while it was read a second time; whether it or the one that slipped past died, only a request can tell."""
    server = Server(rows(6), [WAIT] * 8 + [DELETE + 8 * 5], max_limit=3)
    listing = list_executions(server)
    assert listing.is_complete
    assert server.alive <= listing.rows.keys()
    assert server.gets == 1


def test_one_page_that_holds_fewer_rows_than_it_counts_is_never_believed():
    async def read(page: int, limit: int, *, is_probe: bool = False, is_trial: bool = False) -> Page[str]:
        return Page(total_pages=1, count=3, results=("a", "b"))

    async def get(name: str) -> str:
        return name

    listing = finished(list_completely(read, lambda name: name, get, known=["a", "b"], limit=LIMIT, head_at=unasked))
    assert not listing.is_complete
    assert listing.rows.keys() == {"a", "b"}


# Pages that fail


def reader(server: Server, fails: Callable[[int, int], SourceError | None]) -> PageReader[str]:
    async def read(page: int, limit: int, *, is_probe: bool = False, is_trial: bool = False) -> Page[str]:
        if error := fails(page, len(server.requests)):
            server.requests.append((page, limit))
            raise error
        total_pages, count, names = server.page(page, limit, is_probe=is_probe, is_trial=is_trial)
        return Page(total_pages=total_pages, count=count, results=tuple(names))

    return read


def test_page_that_vanishes_while_paging_is_no_error():
    server = Server(
        rows(7), [WAIT, WAIT, DELETE], max_limit=3
    )  # before page 2 is asked for, one row goes, and with it page 3
    found = finished(read_pass(reader(server, lambda _page, _nth: None), lambda name: name, limit=LIMIT))
    assert found.total_pages == 2
    server = Server(rows(7), [WAIT] * 4 + [DELETE], max_limit=3)  # the same after page 2 had promised a third
    found = finished(read_pass(reader(server, lambda _page, _nth: None), lambda name: name, limit=LIMIT))
    assert server.requests == [(1, LIMIT), (2, LIMIT), (3, LIMIT), (1, LIMIT)]
    assert found.total_pages == 3


def test_page_that_failed_once_is_read_again():
    server = Server(rows(7), max_limit=3)
    read = reader(server, lambda page, nth: is_500(page) if nth == 1 else None)
    assert finished(read_pass(read, lambda name: name, limit=LIMIT)).rows.keys() == server.alive
    assert server.requests == [(1, LIMIT), (2, LIMIT), (1, LIMIT), (2, LIMIT), (3, LIMIT)]


@pytest.mark.parametrize("nth", [1, 3])
def test_page_that_was_given_up_by_the_client_is_not_asked_again(nth):
    server = Server(rows(7), max_limit=3)
    given_up = TransientError("page 2: timeout", tries=6)
    read = reader(server, lambda page, asked: {1: is_500(page), nth: given_up}.get(asked))
    with pytest.raises(TransientError) as caught:
        finished(read_pass(read, lambda name: name, limit=LIMIT))
    assert caught.value is given_up
    assert len(server.requests) == nth + 1


# Bad rows


def read_around(
    server: Server, limit: int, fails: Callable[[int, int], SourceError | None] = lambda _page, _nth: None
) -> Pass[str]:
    return finished(read_pass(reader(server, fails), lambda name: name, limit=limit))


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


@pytest.mark.parametrize(("size", "largest"), [(2, 1), (3, 2), (12, 8), (16, 8), (17, 16), (700, 512), (1024, 512)])
@pytest.mark.parametrize("bad", [0, 1, 5, -1])
def test_narrowing_begins_at_half_of_the_smallest_page_that_holds_the_list(size, largest, bad):
    server = Server(rows(size))
    server.bad = frozenset({server.ordered()[bad % size]})
    found = read_around(server, 1024)
    assert found.rows.keys() == server.alive - server.bad
    narrowed = [limit for _, limit in server.requests[1:] if limit != 1024]
    assert max(narrowed) == largest
    assert len(narrowed) <= 2 * largest.bit_length() + 8


@settings(max_examples=examples(300))
@given(size=st.integers(1, 48), bad=BAD, max_limit=CAPS, limit=LIMITS)
def test_bad_rows_are_identified_and_leave_the_listing_incomplete(size, bad, max_limit, limit):
    server = Server(rows(size), max_limit=max_limit)
    server.bad = frozenset(name for position, name in enumerate(server.ordered()) if bad >> position & 1)
    listing = list_executions(server, limit=limit)
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
    limit=LIMITS.filter(lambda limit: limit > 1),  # else a page looks like a count
)
def test_listing_with_bad_rows_claims_nothing_that_is_not_so_while_the_list_moves(
    size, ties, max_limit, bad, history, limit
):
    server = Server(rows(size, ties), history, max_limit=max_limit)
    server.bad = frozenset(f"old-{number}" for number in range(size) if bad >> number & 1)
    try:
        listing = list_executions(server, limit=limit)
    except TransientError:
        return  # nothing is claimed
    finally:
        size_ever = len(server.rows) + len(server.gone)
        a_pass = size_ever + limit + 2 * (MAX_UNREADABLE + 1) * (limit.bit_length() + 2)
        assert len(server.requests) <= 2 * MAX_ROUNDS * (a_pass + size_ever * (1 + 2 * MAX_ROUNDS))
    identified = [row.head for row in listing.unreadable if row.head]
    assert listing.rows.keys() | set(identified) <= server.alive | server.gone
    assert not server.bad & listing.rows.keys()
    assert len(set(identified)) == len(identified)
    if listing.is_complete:
        assert server.counted_by_the_proof & server.alive <= listing.rows.keys()
        assert not listing.unreadable


def test_head_of_a_row_that_was_read_does_not_pass_for_the_bad_one():
    listing = list_executions(Server(rows(7), bad=frozenset({"old-3"}), told_head="old-6"))
    assert [(row.position, row.head) for row in listing.unreadable] == [(3, None)]


def test_bad_row_that_is_pushed_down_while_it_is_asked_for_is_told_once():
    listing = list_executions(Server(rows(7), bad=frozenset({"old-3", "old-4"}), told_head="old-3"))
    assert [row.head for row in listing.unreadable] == ["old-3"]


def test_too_many_bad_rows_end_the_reading_with_a_message():
    server = Server(rows(400))
    server.bad = frozenset(server.ordered()[1::2])
    found = read_around(server, LIMIT)
    assert len(found.unreadable) == MAX_UNREADABLE + 1
    assert "from row 201 on" in str(found.unreadable[-1].error)
    assert found.rows.keys() == set(server.ordered()[:201:2])
    assert len(server.requests) <= most_requests(201, MAX_UNREADABLE + 1, LIMIT, None)


def test_heads_vouch_for_a_list_of_which_no_row_can_be_read():
    server = Server(rows(2 * MAX_LOST))
    server.bad = server.alive
    server.headless = frozenset(range(2 * MAX_LOST)) - {MAX_LOST - 1, 2 * MAX_LOST - 1}
    listing = list_executions(server)
    assert [row.position for row in listing.unreadable] == list(range(2 * MAX_LOST))
    assert [row.position for row in listing.unreadable if row.head] == [MAX_LOST - 1, 2 * MAX_LOST - 1]


def test_bad_row_is_told_by_its_own_error_even_if_the_one_that_was_good_turns_bad():
    server = Server(rows(40), bad=frozenset({"old-6"}))
    found = read_around(server, 16, lambda page, _nth: is_500(1) if page == 1 and (34, 1) in server.requests else None)
    assert [(row.position, "page 34" in str(row.error)) for row in found.unreadable] == [(33, True)]


def test_row_that_failed_alone_but_once_is_no_bad_row():
    server = Server(rows(40), bad=frozenset({"old-6"}))  # at 33: the reader comes to 32 alone
    found = read_around(
        server, 16, lambda page, _nth: is_500(page) if page == 33 and server.requests[-1][0] != 33 else None
    )
    assert server.requests.count((33, 1)) == 2
    assert [row.position for row in found.unreadable] == [33]


def test_pages_that_fail_at_every_size_but_one_end_the_reading_with_a_message():
    """No row is bad, and each page costs as if one were."""
    server = Server(rows(2000))
    found = finished(read_pass(large_pages_fail(server), lambda name: name, limit=1024))
    assert "left out" in str(found.unreadable[-1].error)
    assert 0 < len(found.rows) < 2000
    assert len(server.requests) <= 2000 + 1024 + 2 * (MAX_UNREADABLE + 1) * (10 + 3)


def large_pages_fail(server: Server) -> PageReader[str]:
    async def read(page: int, limit: int, *, is_probe: bool = False, is_trial: bool = False) -> Page[str]:
        if limit > 1:
            server.requests.append((page, limit))
            raise is_500(page)
        total_pages, count, names = server.page(page, limit)
        return Page(total_pages=total_pages, count=count, results=tuple(names))

    return read


def test_list_that_grows_with_each_answer_is_read_to_an_end_all_the_same():
    asked = 0

    async def read(page: int, limit: int, *, is_probe: bool = False, is_trial: bool = False) -> Page[str]:
        nonlocal asked
        asked += 1
        assert asked <= 300 + 4
        if not is_probe:
            raise is_500(page, is_final=False)
        count = 100 * (page * limit + 1)
        names = tuple(f"{page}-{number}" for number in range(limit))
        return Page(total_pages=-(-count // limit), count=count, results=names)

    assert finished(read_pass(read, lambda name: name, limit=4)).count > 300


def test_page_that_vanished_meanwhile_is_no_bad_row():
    server = Server(rows(40))
    server.bad = frozenset({server.ordered()[33]})

    def shrink_after_the_bad_row(_page: int, _nth: int) -> None:
        if server.requests[-2:] == [(34, 1), (1, 1)]:
            server.rows = [row for row in server.rows if row[0] in server.ordered()[:34]]

    found = read_around(server, 16, shrink_after_the_bad_row)
    assert [row.position for row in found.unreadable] == [33]
    assert found.count == 34


@pytest.mark.parametrize(("bad", "limit", "failures"), [(0, 16, 18), (6, 16, 18), (6, 64, 1)])
def test_page_that_fails_for_a_while_leaves_no_row_out_and_proves_nothing_by_being_one(bad, limit, failures):
    server = Server(rows(40), bad=frozenset({f"old-{bad}"}))
    reads = reader(server, lambda _page, nth: setattr(server, "bad", frozenset() if nth >= failures else server.bad))
    found = finished(read_pass(reads, lambda name: name, limit=limit))
    assert found.rows.keys() == server.alive
    assert not found.unreadable
    assert not found.is_whole_page


@pytest.mark.parametrize("error", [TransientError("502", status=502), RequestRefusedError("410", status=410)])
def test_any_error_but_a_500_ends_the_reading(error):
    server = Server(rows(40), bad=frozenset({"old-9"}))
    with pytest.raises(type(error)) as caught:
        read_around(server, 64, lambda page, _nth: error if page > 1 else None)
    assert caught.value is error


# Calls


class CallsClient:
    """Answers the crawl's requests out of the model, at once."""

    def __init__(
        self,
        server: Server,
        failing: frozenset[str] = frozenset(),
        *,
        has_detail: bool = False,
        has_entries: bool = True,
    ) -> None:
        self.server = server
        self.failing = failing
        self.has_detail = has_detail
        self.has_entries = has_entries
        self.largest_page = LargestPage()

    async def get(self, request: Request[Any]) -> Any:
        query = dict(request.query)
        if request.path.startswith(DETAIL):
            return self.detail()
        if request.path == RUNS and "call_execution_id" in query:
            return self.entry(query["call_execution_id"])
        if request.path == RUNS:
            is_probe = query["page"] == "1" and not request.retries_500
            total_pages, count, names = self.server.page(
                int(query["page"]), int(query["limit"]), is_probe=is_probe, is_trial=request.is_optional
            )
            listed = tuple(ListedCall(call_execution_id=name, payload={}) for name in names)
            return Page(total_pages=total_pages, count=count, results=listed)
        name = query["call_execution_id"]
        self.server.get(name)
        if name in self.failing:
            raise ServerFaultError(f"call {name}: 500", tries=6)
        return CallMetrics(call_execution_id=name, execution_id="e", status="completed", payload={})

    def detail(self) -> Page[DetailedCall]:
        self.server.happen()
        if not self.has_detail:
            raise is_500(1)
        self.server.counted.append(self.server.alive)
        self.server.counted_alone = self.server.alive
        found = tuple(DetailedCall(call_execution_id=name, payload={}) for name in self.server.ordered())
        return Page(total_pages=1, count=len(found), results=found)

    def entry(self, name: str) -> ListedCall:
        self.server.get(name)
        self.server.gets -= 1
        if name in self.server.bad and not self.has_entries:
            raise ServerFaultError(f"call {name}: 500", tries=6)
        return ListedCall(call_execution_id=name, payload={"eval_outputs": {"told by": "its entry"}})


def fetch(server: Server, failing: frozenset[str] = frozenset(), **has: bool) -> ExecutionBundle:
    """The one execution's bundle, with the calls that were handed over before it was whole, as long as their rows stay."""
    bundles: list[ExecutionBundle] = []

    async def emit(bundle: ExecutionBundle) -> None:
        bundles.append(bundle)

    client = cast("Client", CallsClient(server, failing, **has))
    asyncio.run(Crawl(client, [planned("e")], emit, concurrency=1, page_limit=LIMIT).run())
    *parts, bundle = bundles
    assert all(part.part_of is not None for part in parts)
    assert bundle.part_of is None
    earlier = {call.metrics.call_execution_id: call for part in parts for call in part.calls}
    kept = tuple(earlier[call_id] for call_id in sorted(bundle.kept))
    return structs.replace(bundle, calls=(*kept, *bundle.calls), kept=frozenset())


@pytest.fixture(autouse=True)
def few_calls_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived of an execution is handed over often."""
    monkeypatch.setattr(calls, "_MOST_IN_HAND", 3)


def calls_server(size: int, ties: int, max_limit: int | None, history: list[int]) -> Server:
    # The execution has finished: where its calls fit one page none is created any more (see etl/extract/calls.py).
    changes = ("touch", "delete") if max_limit is None else ("touch", "delete", "insert")
    return Server(rows(size, ties), history, changes, max_limit, is_atomic=True, is_bad_by_id=False)


@settings(max_examples=examples(2500))
@given(
    size=st.integers(0, 20),
    ties=st.integers(1, 4),
    max_limit=CAPS,
    history=HISTORY,
    failing=st.just(0) | st.integers(0, 2**20 - 1),
    bad=st.just(0) | st.integers(0, 19).map(lambda bit: 1 << bit) | st.integers(0, 2**20 - 1),
    has_detail=st.booleans(),
    has_entries=st.booleans(),
)
# While page 2 is read, a call of page 3 is saved and jumps to page 1; one that was seen is deleted afterwards.
@example(
    size=20,
    ties=1,
    max_limit=7,
    history=[WAIT, 0, WAIT, WAIT, WAIT, 1],
    failing=0,
    bad=0,
    has_detail=False,
    has_entries=True,
)
# Two calls are deleted while they are fetched: one before its turn, one after it had been given up.
@example(
    size=5,
    ties=1,
    max_limit=None,
    history=[3, 3, 0, 0, 0, 1, 1],
    failing=16,
    bad=0,
    has_detail=False,
    has_entries=True,
)
def test_bundle_without_dead_letters_holds_what_its_proof_counted(
    size, ties, max_limit, history, failing, bad, has_detail, has_entries
):
    server = calls_server(size, ties, max_limit, history)
    server.bad = frozenset(f"old-{number}" for number in range(size) if bad >> number & 1)
    failing_calls = frozenset(f"old-{number}" for number in range(size) if failing >> number & 1)
    bundle = fetch(server, failing_calls, has_detail=has_detail, has_entries=has_entries)
    fetched = {call.metrics.call_execution_id for call in bundle.calls}
    given_up = {letter.subject_id for letter in bundle.dead_letters}
    assert len(fetched) == len(bundle.calls)
    assert not fetched & given_up
    if bundle.listed is None:
        assert given_up == {"e"}
        return
    without_entry = {letter.subject_id for letter in bundle.dead_letters if letter.endpoint == RUNS}
    assert {call.call_execution_id for call in bundle.listed} == (fetched | given_up) - without_entry
    if not given_up:
        assert server.counted_by_the_proof & server.alive <= fetched


def test_calls_that_cannot_be_listed_are_counted_in_a_dead_letter_and_the_others_are_exported():
    server = calls_server(20, 1, 7, [])
    server.bad = frozenset({"old-0", "old-11"})
    bundle = fetch(server, frozenset({"old-5"}))
    assert {call.metrics.call_execution_id for call in bundle.calls} == server.alive - server.bad - {"old-5"}
    assert [(each.endpoint, each.subject_id, each.status) for each in bundle.dead_letters] == [
        (METRICS, "old-5", 500),
        (RUNS, "e", 500),
    ]
    assert bundle.dead_letters[1].message.startswith("2 of its calls cannot be listed: ")


def test_calls_that_cannot_all_be_listed_are_listed_once_even_if_one_goes_meanwhile():
    server = calls_server(5, 1, None, [])
    server.bad = frozenset({"old-3"})
    get = server.get

    def delete_and_get(name: str) -> None:
        server.rows = [row for row in server.rows if row[0] != "old-1"]
        get(name)

    server.get = delete_and_get  # type: ignore[method-assign]
    bundle = fetch(server)
    assert {call.metrics.call_execution_id for call in bundle.calls} == server.alive - server.bad
    assert [(each.endpoint, each.subject_id) for each in bundle.dead_letters] == [(RUNS, "e")]
    assert server.requests.count((1, LIMIT)) == 3, "with evals, without, and where the search for the bad row begins"


def test_calls_of_earlier_rounds_are_kept_when_one_that_was_not_read_turns_bad():
    """The list is read again because a call is gone, and cannot be proved any more: what is fetched is fetched."""
    server = calls_server(5, 1, None, [WAIT, 1 + 8 * 2])
    get = server.get

    def get_and_spoil(name: str) -> None:
        server.bad = frozenset({"old-3"})
        get(name)

    server.get = get_and_spoil  # type: ignore[method-assign]
    bundle = fetch(server)
    assert {call.metrics.call_execution_id for call in bundle.calls} == server.alive
    assert [(each.endpoint, each.subject_id) for each in bundle.dead_letters] == [(RUNS, "e")]


@pytest.mark.parametrize("size", [0, 1, 7, LIMIT])
def test_quiet_calls_on_one_page_cost_one_request_and_one_each(size):
    server = calls_server(size, 1, None, [])
    bundle = fetch(server)
    assert len(bundle.calls) == size
    assert (len(server.requests), server.gets) == (1, size)


@pytest.mark.parametrize(("size", "max_limit", "pages"), [(8, 7, 2), (20, 7, 3), (5, 1, 5)])
def test_quiet_calls_on_many_pages_cost_a_count_more(size, max_limit, pages):
    server = calls_server(size, 1, max_limit, [])
    assert len(fetch(server).calls) == size
    assert (len(server.requests), server.gets) == (pages + 1, size)


def test_calls_with_one_time_cost_one_larger_page_and_one_request_each():
    server = calls_server(3000, 3000, None, [])
    bundle = fetch(server)
    assert (len(bundle.calls), bundle.dead_letters) == (3000, ())
    assert (server.requests, server.gets) == ([(1, LIMIT), (1, 4096)], 3000)


def test_calls_with_one_time_on_pages_that_are_cut_are_not_fetched_before_all_were_seen():
    server = calls_server(300, 300, 50, [])
    bundle = fetch(server)
    assert server.gets == len(bundle.calls) <= 300
    assert len(server.requests) - len(server.trials) <= MAX_ROUNDS * (6 + 1)


def test_calls_that_never_settle_are_exported_with_a_dead_letter_for_their_list():
    bundle = fetch(calls_server(20, 1, 7, [2, WAIT] * 1000))
    assert bundle.calls
    assert [(letter.endpoint, letter.subject_id, letter.tries) for letter in bundle.dead_letters] == [
        (RUNS, "e", MAX_ROUNDS)
    ]
    assert "its calls kept changing" in bundle.dead_letters[0].message
