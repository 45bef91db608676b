"""A listing that says it is complete is complete, whatever happens on the server while it is read.

The server is a model: rows listed newest first (executions, run tests) or last saved first (calls), pages cut by offset, and a
history of what happens before each request and, but for calls, between its count and its rows, which are two queries.

Of executions and run tests the law speaks of the reading's start: what existed by then and still exists at the end must have been
found. Of calls nobody can tell what is older. So it speaks of the proving request: the last one that asked for the count alone, or,
where none did, the last read of the list.

``bad`` rows turn each page that holds them into a 500.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from etl.errors import NotFoundError, ServerFaultError, SourceError, TransientError
from etl.extract import crawl
from etl.extract.bad_rows import MAX_LOST, MAX_UNREADABLE, PageReader, power_of_two
from etl.extract.client import Client
from etl.extract.crawl import Crawl
from etl.extract.endpoints import Request, Slice
from etl.extract.listing import MAX_ROUNDS, LargestPage, Listing, Pass, list_completely, read_pass
from etl.model.records import RUNS, CallMetrics, DetailedCall, ExecutionBundle, ListedCall, Page
from tests.bundles import planned
from tests.extract.held import resumed, settling_of
from tests.support import examples

T = TypeVar("T")

HISTORY = st.lists(st.integers(0, 255), max_size=100)
INSERT, DELETE, WAIT = 0, 1, 7
LIMIT = 64
HEAD_ROWS = 16


@dataclass
class Server:
    """Rows as (id, time of the order), and what is still to happen.

    A number of the history whose last octal digit is 0, 1 or 2 changes something; any other lets the next request in. Names of
    rows that may be younger than the reading begin with ``new``. A row comes between a count and its rows but once: no answer
    tells what was counted.
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
    has_slipped_in: bool = False

    def happen(self, *, may_insert: bool = True) -> None:
        while self.history and (what := self.history.pop(0)) % 8 < 3:
            change = self.changes[what % 8 % len(self.changes)]
            which = what // 8
            self.clock += which % 4 > 0  # now and then two things happen at the same time: a tie
            if change == "insert" and may_insert:
                self.rows.append((f"new-{len(self.rows) + len(self.gone)}", self.clock))
            elif change == "insert":
                pass
            elif self.rows and change == "delete":
                self.gone.add(self.rows.pop(which % len(self.rows))[0])
            elif self.rows:
                name, _ = self.rows.pop(which % len(self.rows))
                self.rows.append((name, self.clock))

    def happen_between(self) -> None:
        """Between the count of a page and its rows."""
        if self.is_atomic:
            return
        known = self.alive
        self.happen(may_insert=not self.has_slipped_in)
        self.has_slipped_in |= not self.alive <= known

    @property
    def alive(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.rows)

    def page(self, part: Slice) -> Page[str]:
        """As the server pages. Ties come in another order with each request."""
        page, limit = part.page, part.limit
        self.requests.append((page, limit))
        self.happen()
        if part.is_trial:
            self.trials.append(limit)
            if self.failing_trials >> len(self.trials) - 1 & 1:
                raise TransientError("timeout")
        count, size = len(self.rows), min(limit, self.max_limit or limit)
        self.counted.append(self.alive)
        if limit == 1 and not part.is_probe:
            self.counted_alone = self.alive
        total_pages = max(1, -(-count // size))
        self.happen_between()
        if page > total_pages:
            raise is_500(page)
        names = self.ordered()[(page - 1) * size : min(page * size, count)]
        if not self.bad.isdisjoint(names):
            raise is_500(page, is_final=not part.retries_500)
        return Page(total_pages=total_pages, count=count, results=tuple(names))

    def ordered(self) -> list[str]:
        salt = len(self.requests) * 7919
        return [
            name for name, _ in sorted(self.rows, key=lambda row: (-row[1], hash((salt, len(row[0]), ord(row[0][-1])))))
        ]

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


def rows(count: int, ties: int = 1, recent: int = 0) -> list[tuple[str, int]]:
    """The newest last; so many in a row share their time, and so many may be younger than the reading."""
    return [(f"{'old' if number < count - recent else 'new'}-{number}", number // ties) for number in range(count)]


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits: no event loop is needed."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    raise AssertionError("it waited")


# Executions and run tests


def list_rows(
    server: Server, limit: int = LIMIT, largest: LargestPage | None = None, read: PageReader[str] | None = None
) -> Listing[str]:
    async def head_at(position: int) -> str:
        return server.head_at(position)

    return finished(
        list_completely(
            read or reader(server),
            lambda name: name,
            limit=limit,
            head_at=head_at,
            largest=largest or LargestPage(),
            newer_in=newer_in,
        )
    )


def newer_in(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.startswith("new")}


def older(names: AbstractSet[str]) -> AbstractSet[str]:
    return names - newer_in(names)


CAPS = st.sampled_from([7, 7, 7, 7, None, 1, 2, 3, 5])
"""Most rows of a page: usually seven, at which most lists here have several pages."""


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
    size=st.integers(0, 24),
    max_limit=st.none() | st.integers(5, 7),
    history=st.lists(st.integers(0, 255), max_size=4),
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
    """With respect to the reading's start, whatever came in the minutes before, and though a row is deleted meanwhile."""
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


def test_page_that_is_cut_or_refused_is_not_asked_for_as_large_again():
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


def never(_part: Slice, _nth: int) -> None:
    return None


def reader(server: Server, fails: Callable[[Slice, int], SourceError | None] = never) -> PageReader[str]:
    async def read(part: Slice) -> Page[str]:
        if error := fails(part, len(server.requests)):
            server.requests.append((part.page, part.limit))
            raise error
        return server.page(part)

    return read


def read_around(
    server: Server, limit: int = LIMIT, fails: Callable[[Slice, int], SourceError | None] = never
) -> Pass[str]:
    """Once, and around bad rows, of which nothing else is known."""

    async def head_at(_position: int) -> None:
        return None

    return finished(read_pass(reader(server, fails), str, limit=limit, largest=LargestPage(limit), head_at=head_at))


def test_page_that_vanishes_while_paging_is_no_error():
    """Before page 2 is asked for, one row goes, and with it page 3; or after page 2 had promised it."""
    assert read_around(Server(rows(7), [WAIT, WAIT, DELETE], max_limit=3)).total_pages == 2
    server = Server(rows(7), [WAIT] * 4 + [DELETE], max_limit=3)
    assert read_around(server).total_pages == 3
    assert server.requests == [(1, LIMIT), (2, LIMIT), (3, LIMIT), (1, HEAD_ROWS)]


# Bad rows


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
    assert "row 201 and everything after it" in str(found.unreadable[-1].error)
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

    async def head_at(_position: int) -> None:
        return None

    found = finished(read_pass(read, str, limit=4, largest=LargestPage(4), head_at=head_at))
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


# Calls


class CallsClient:
    """Answers the crawl's requests out of the model, at once.

    Of ids that begin so, ``hidden`` calls exist and are never listed, ``silent`` ones get no answer, ``foreign`` ones are another
    execution's.
    """

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
        self.lacks_details = False
        self.asked: Counter[str] = Counter()

    async def get_detail(self, _request: Request[Any]) -> Page[DetailedCall]:
        return self.detail()

    async def get(self, request: Request[Any]) -> Any:
        query = dict(request.query)
        if request.path == RUNS and "call_execution_id" in query:
            return self.entry(query["call_execution_id"])
        if request.path == RUNS:
            is_probe = query["page"] == "1" and not request.retries_500
            part = Slice(int(query["page"]), int(query["limit"]), is_probe=is_probe, is_trial=request.is_optional)
            found = self.server.page(part)
            listed = tuple(
                ListedCall(call_execution_id=name, payload={"status": "completed"}) for name in found.results
            )
            return structs.replace(found, results=listed)
        return self.metrics(query["call_execution_id"])

    def metrics(self, name: str) -> CallMetrics:
        self.asked[name] += 1
        if not name.startswith(("hidden", "silent", "foreign")):
            self.server.get(name)
        if name in self.failing or name.startswith("silent"):
            raise ServerFaultError(f"call {name}: 500", tries=6)
        execution_id = "another" if name.startswith("foreign") else "e"
        return CallMetrics(call_execution_id=name, execution_id=execution_id, status="completed", payload={})

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


def fetch(
    server: Server, client: CallsClient | None = None, stored: Sequence[str] = (), failed: Sequence[str] = ()
) -> ExecutionBundle:
    """The one execution's bundle, with the calls that were handed over before it was whole.

    With ``stored`` calls, of which ``marked`` ones are marked, the execution was left incomplete; some ``failed``.
    """
    bundles: list[ExecutionBundle] = []

    async def emit(bundle: ExecutionBundle) -> None:
        bundles.append(bundle)

    source = cast("Client", client or CallsClient(server))
    settling = settling_of(source, {key: key.startswith("marked") for key in stored}, failed=failed)
    plan = [resumed("e") if stored else planned("e")]
    asyncio.run(Crawl(source, iter(plan), emit, concurrency=1, page_limit=LIMIT, settling=settling).run())
    *parts, bundle = bundles
    assert all(part.part_of is not None for part in parts)
    assert bundle.part_of is None
    earlier = {call.metrics.call_execution_id: call for part in parts for call in part.calls}
    arrived = tuple(earlier[call_id] for call_id in sorted(bundle.kept & earlier.keys()))
    return structs.replace(bundle, calls=(*arrived, *bundle.calls), kept=bundle.kept - earlier.keys())


@pytest.fixture(autouse=True)
def few_calls_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived of an execution is handed over often."""
    monkeypatch.setattr(crawl, "_MOST_IN_HAND", 3)


def calls_server(size: int, ties: int, max_limit: int | None, history: list[int]) -> Server:
    # The execution has finished: where its calls fit one page none is created any more (see etl/extract/crawl.py).
    changes = ("touch", "delete") if max_limit is None else ("touch", "delete", "insert")
    return Server(rows(size, ties), history, changes, max_limit, is_atomic=True, is_bad_by_id=False)


def names_of(bits: int, size: int) -> frozenset[str]:
    return frozenset(f"old-{number}" for number in range(size) if bits >> number & 1)


def call_world(**changes: Any) -> dict[str, Any]:
    """An example: what is not given is empty."""
    usual: dict[str, Any] = {
        "size": 5, "ties": 1, "max_limit": None, "history": [], "failing": 0, "bad": 0, "has_detail": False,
        "has_entries": True, "stored": 0, "failed": 0, "unlisted": [],
    }  # fmt: skip
    return usual | changes


@settings(max_examples=examples(3000))
@given(
    size=st.integers(0, 20),
    ties=st.integers(1, 4),
    max_limit=CAPS,
    history=HISTORY,
    failing=st.just(0) | st.integers(0, 2**20 - 1),
    bad=st.just(0) | st.integers(0, 19).map(lambda bit: 1 << bit) | st.integers(0, 2**20 - 1),
    has_detail=st.booleans(),
    has_entries=st.booleans(),
    stored=st.just(0) | st.integers(0, 2**20 - 1),
    failed=st.just(0) | st.integers(0, 2**20 - 1),
    unlisted=st.lists(st.sampled_from(["gone", "gone", "foreign", "marked", "hidden", "silent"]), max_size=3),
)
# While page 2 is read, a call of page 3 is saved and jumps to page 1; one that was seen is deleted afterwards.
@example(**call_world(size=20, max_limit=7, history=[WAIT, 0, WAIT, WAIT, WAIT, 1]))
# Two calls are deleted while they are fetched: one before its turn, one after it had been given up.
@example(**call_world(history=[3, 3, 0, 0, 0, 1, 1], failing=16))
# Stored calls are missing from the list: of many pages too, one of them exists, and of one nobody can tell.
@example(**call_world(size=20, max_limit=7, stored=2**19, unlisted=["gone", "foreign", "marked"]))
@example(**call_world(unlisted=["gone", "hidden"]))
@example(**call_world(unlisted=["gone", "silent"]))
# A bad row slips through a list that goes on to count it, and one call is stored.
@example(**call_world(size=3, ties=3, max_limit=7, bad=2, stored=1))
# A call is created between the second reading of many pages and its count.
@example(**call_world(size=8, max_limit=7, history=[3, 3, 3, 3, 2], stored=1, has_entries=False))
def test_bundle_without_dead_letters_holds_what_its_proof_counted(
    size, ties, max_limit, history, failing, bad, has_detail, has_entries, stored, failed, unlisted
):
    """And of what is stored nothing is marked that exists, or of which that is not known, and nothing is fetched without need."""
    server = calls_server(size, ties, max_limit, history)
    server.bad = names_of(bad, size)
    client = CallsClient(server, names_of(failing, size), has_detail=has_detail, has_entries=has_entries)
    ghosts = [f"{kind}-{number}" for number, kind in enumerate(unlisted)]
    held, letters = names_of(stored, size), names_of(failed, size)
    bundle = fetch(server, client, [*held, *ghosts], [*letters])
    fetched = {call.metrics.call_execution_id for call in bundle.calls}
    given_up = {letter.subject_id for letter in bundle.dead_letters}
    assert len(fetched) == len(bundle.calls)
    assert not fetched & given_up
    assert not bundle.deleted & (server.alive | fetched | bundle.kept)
    assert not [key for key in bundle.deleted if key.startswith(("marked", "hidden", "silent"))]
    assert max([client.asked[key] for key in ghosts], default=0) <= 1
    assert bundle.kept <= held - letters
    assert not [key for key in bundle.kept if client.asked[key]]
    if "e" in given_up and not bundle.listed:
        return  # the list could not be read, perhaps for the second time: nothing is claimed of it
    without_entry = {letter.subject_id for letter in bundle.dead_letters if letter.endpoint == RUNS}
    assert {call.call_execution_id for call in bundle.listed or ()} == (
        fetched | bundle.kept | given_up
    ) - without_entry
    if not given_up:
        assert {"hidden", "silent"}.isdisjoint(unlisted)
        assert {key for key in ghosts if not key.startswith("marked")} <= bundle.deleted
        assert held <= bundle.deleted | bundle.kept | fetched
        # A stored call that is kept may be deleted while pages are read: the next run compares it.
        assert not bundle.kept <= server.alive or server.counted_by_the_proof & server.alive <= fetched | bundle.kept


@pytest.mark.parametrize(
    ("size", "max_limit", "reads"), [(0, None, 1), (1, None, 1), (LIMIT, None, 1), (8, 7, 3), (20, 7, 4), (5, 1, 6)]
)
def test_quiet_calls_cost_their_pages_and_one_request_each_and_many_pages_a_count(size, max_limit, reads):
    server = calls_server(size, 1, max_limit, [])
    assert len(fetch(server).calls) == size
    assert (len(server.requests), server.gets) == (reads, size)
