"""A listing that says it is complete is complete, whatever happens on the server while it is read.

The server is a model: rows listed newest first (executions) or last saved first (calls), pages cut by offset, and a history
of what happens before each request and, for executions, between its count and its slice, which are two queries.

Both laws speak of the proving request: the last one that asked for the count alone (limit 1), or, where none did, the last
read of the list. What was alive when it counted and still is at the end must have been found.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.api.client import Client
from etl.api.endpoints import RUNS, Request
from etl.api.listing import MAX_ROUNDS, Listing, list_completely, read_pass
from etl.api.models import CallMetrics, Execution, ExecutionBundle, ListedCall, Page
from etl.crawl.fetch import Crawl
from etl.crawl.plan import Planned, Reason
from etl.errors import NotFoundError, SourceError, TransientError

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
    requests: list[tuple[int, int]] = field(default_factory=list)
    counted: list[frozenset[str]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    clock: int = 1_000
    gets: int = 0

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

    def page(self, page: int, limit: int) -> tuple[int, int, list[str]]:
        """As the server pages: total_pages, count, ids. Ties come in another order with each request."""
        self.requests.append((page, limit))
        self.happen()
        count, size = len(self.rows), min(limit, self.max_limit or limit)
        self.counted.append(self.alive)
        total_pages = max(1, -(-count // size))
        if not self.is_atomic:
            self.happen()
        if page > total_pages:
            raise page_is_gone(page)
        salt = len(self.requests) * 7919
        ordered = sorted(self.rows, key=lambda row: (-row[1], hash((salt, len(row[0]), row[0][-1]))))
        return total_pages, count, [name for name, _ in ordered][(page - 1) * size : min(page * size, count)]

    def get(self, name: str) -> None:
        self.gets += 1
        self.happen()
        if name not in self.alive:
            raise NotFoundError(f"{name}: not found")

    @property
    def counted_by_the_proof(self) -> frozenset[str]:
        counts_alone = [number for number, (_, limit) in enumerate(self.requests) if limit == 1]
        return self.counted[counts_alone[-1] if counts_alone else -1]


def page_is_gone(page: int) -> TransientError:
    error = TransientError(f"run test 'A', page {page}: 500", status=500)
    error.is_final = True
    return error


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


def list_executions(server: Server, known: Sequence[str] = (), limit: int = LIMIT) -> Listing[str]:
    async def read(page: int, limit: int) -> Page[str]:
        total_pages, count, names = server.page(page, limit)
        return Page(total_pages=total_pages, count=count, results=tuple(names))

    async def get(name: str) -> str:
        server.get(name)
        return name

    return finished(list_completely(read, lambda name: name, get, known=known, limit=limit))


CAPS = st.sampled_from([7, 7, 7, 7, None, 1, 2, 3, 5])
"""Most rows of a page: usually seven, at which most lists here have several pages."""


@settings(max_examples=2500, deadline=None)
@given(
    size=st.integers(0, 24),
    ties=st.integers(1, 4),
    max_limit=CAPS,
    known=st.integers(0, 2**24 - 1) | st.just(2**24 - 1),
    history=HISTORY,
)
# A row is clipped off the page by one that is inserted after the count.
@example(size=2, ties=1, max_limit=None, known=2**24 - 1, history=[WAIT, INSERT])
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
)
def test_listing_that_says_it_is_complete_holds_what_its_proof_counted(size, ties, max_limit, known, history):
    server = Server(rows(size + 2, ties), history, max_limit=max_limit)
    for name, _ in server.rows[:2]:
        server.gone.add(name)
    del server.rows[:2]
    dead_before = frozenset(server.gone)
    seen_by_the_dataset = [f"old-{number}" for number in range(size + 2) if known >> number & 1]
    try:
        listing = list_executions(server, seen_by_the_dataset)
    except TransientError:
        return  # a page came and went seven times in a row: the listing says so, and claims nothing
    assert not dead_before & listing.rows.keys()
    assert all(name == row for name, row in listing.rows.items())
    if listing.is_complete:
        assert server.counted_by_the_proof & server.alive <= listing.rows.keys()


@settings(max_examples=200, deadline=None)
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


@pytest.mark.parametrize(("size", "max_limit", "pages"), [(LIMIT + 1, None, 2), (8, 7, 2), (24, 1, 24), (21, 7, 3)])
def test_quiet_pages_cost_a_count_and_two_passes(size, max_limit, pages):
    server = Server(rows(size), max_limit=max_limit)
    assert list_executions(server).rows.keys() == server.alive
    assert (len(server.requests), server.gets) == (pages + 1 + pages, 0)


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
    async def read(page: int, limit: int) -> Page[str]:
        return Page(total_pages=1, count=3, results=("a", "b"))

    async def get(name: str) -> str:
        return name

    listing = finished(list_completely(read, lambda name: name, get, known=["a", "b"], limit=LIMIT))
    assert not listing.is_complete
    assert listing.rows.keys() == {"a", "b"}


# Pages that fail


def reader(server: Server, fails: Callable[[int, int], SourceError | None]) -> Callable[[int, int], Any]:
    async def read(page: int, limit: int) -> Page[str]:
        if error := fails(page, len(server.requests)):
            server.requests.append((page, limit))
            raise error
        total_pages, count, names = server.page(page, limit)
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
    read = reader(server, lambda page, nth: page_is_gone(page) if nth == 1 else None)
    assert finished(read_pass(read, lambda name: name, limit=LIMIT)).rows.keys() == server.alive
    assert server.requests == [(1, LIMIT), (2, LIMIT), (1, LIMIT), (2, LIMIT), (3, LIMIT)]


def test_page_that_stays_500_is_named():
    server = Server(rows(7), max_limit=3)
    read = reader(server, lambda page, _nth: page_is_gone(page) if page == 2 else None)
    with pytest.raises(TransientError, match=r"page 2") as caught:
        finished(read_pass(read, lambda name: name, limit=LIMIT))
    assert caught.value.tries == server.requests.count((2, LIMIT)) == 1 + MAX_ROUNDS


@pytest.mark.parametrize("nth", [1, 3])
def test_page_that_was_given_up_by_the_client_is_not_asked_again(nth):
    server = Server(rows(7), max_limit=3)
    given_up = TransientError("page 2: timeout", tries=6)
    read = reader(server, lambda page, asked: {1: page_is_gone(page), nth: given_up}.get(asked))
    with pytest.raises(TransientError) as caught:
        finished(read_pass(read, lambda name: name, limit=LIMIT))
    assert caught.value is given_up
    assert len(server.requests) == nth + 1


# Calls


class CallsClient:
    """Answers the crawl's requests out of the model, at once."""

    def __init__(self, server: Server, failing: frozenset[str] = frozenset()) -> None:
        self.server = server
        self.failing = failing

    async def get(self, request: Request[Any]) -> Any:
        query = dict(request.query)
        if request.path == RUNS:
            total_pages, count, names = self.server.page(int(query["page"]), int(query["limit"]))
            listed = tuple(ListedCall(call_execution_id=name, payload={}) for name in names)
            return Page(total_pages=total_pages, count=count, results=listed)
        name = query["call_execution_id"]
        self.server.get(name)
        if name in self.failing:
            raise TransientError(f"call {name}: 500", status=500, tries=6)
        return CallMetrics(call_execution_id=name, execution_id="e", status="completed", payload={})


PLANNED = Planned(
    run_test_name="A",
    run_test_key="a",
    execution=Execution(execution_id="e", status="completed", payload={}),
    reason=Reason.NEW,
    date="2026-03-01",
    started_at=None,
    stored=None,
    estimated_calls=0,
)


def fetch(server: Server, failing: frozenset[str] = frozenset()) -> ExecutionBundle:
    """The one execution's bundle."""
    bundles: list[ExecutionBundle] = []

    async def emit(bundle: ExecutionBundle) -> None:
        bundles.append(bundle)

    client = cast("Client", CallsClient(server, failing))
    asyncio.run(Crawl(client, [PLANNED], emit, concurrency=1, page_limit=LIMIT).run())
    assert len(bundles) == 1
    return bundles[0]


def calls_server(size: int, ties: int, max_limit: int | None, history: list[int]) -> Server:
    # The execution has finished: where its calls fit one page none is created any more (see etl/crawl/fetch.py).
    changes = ("touch", "delete") if max_limit is None else ("touch", "delete", "insert")
    return Server(rows(size, ties), history, changes, max_limit, is_atomic=True)


@settings(max_examples=2500, deadline=None)
@given(
    size=st.integers(0, 20),
    ties=st.integers(1, 4),
    max_limit=CAPS,
    history=HISTORY,
    failing=st.just(0) | st.integers(0, 2**20 - 1),
)
# While page 2 is read, a call of page 3 is saved and jumps to page 1; one that was seen is deleted afterwards.
@example(size=20, ties=1, max_limit=7, history=[WAIT, 0, WAIT, WAIT, WAIT, 1], failing=0)
# Two calls are deleted while they are fetched: one before its turn, one after it had been given up.
@example(size=5, ties=1, max_limit=None, history=[3, 3, 0, 0, 0, 1, 1], failing=16)
def test_bundle_without_dead_letters_holds_what_its_proof_counted(size, ties, max_limit, history, failing):
    server = calls_server(size, ties, max_limit, history)
    bundle = fetch(server, frozenset(f"old-{number}" for number in range(size) if failing >> number & 1))
    fetched = {call.metrics.call_execution_id for call in bundle.calls}
    given_up = {letter.subject_id for letter in bundle.dead_letters}
    assert len(fetched) == len(bundle.calls)
    assert not fetched & given_up
    if bundle.listed is None:
        assert given_up == {"e"}
        return
    assert {call.call_execution_id for call in bundle.listed} == (fetched | given_up) - {"e"}
    if not given_up:
        assert server.counted_by_the_proof & server.alive <= fetched


@pytest.mark.parametrize("size", [0, 1, 7, LIMIT])
def test_quiet_calls_on_one_page_cost_one_request_and_one_each(size):
    server = calls_server(size, 1, None, [])
    bundle = fetch(server)
    assert len(bundle.calls) == size
    assert (len(server.requests), server.gets) == (1, size)


@pytest.mark.parametrize(("size", "max_limit", "pages"), [(LIMIT + 1, None, 2), (8, 7, 2), (20, 7, 3), (5, 1, 5)])
def test_quiet_calls_on_many_pages_cost_a_count_more(size, max_limit, pages):
    server = calls_server(size, 1, max_limit, [])
    assert len(fetch(server).calls) == size
    assert (len(server.requests), server.gets) == (pages + 1, size)


def test_calls_that_never_settle_are_exported_with_a_dead_letter_for_their_list():
    bundle = fetch(calls_server(20, 1, 7, [2, WAIT] * 1000))
    assert bundle.calls
    assert [(letter.endpoint, letter.subject_id, letter.tries) for letter in bundle.dead_letters] == [
        (RUNS, "e", MAX_ROUNDS)
    ]
    assert "its calls kept changing" in bundle.dead_letters[0].message
