"""A model of a server whose list shifts while it is read, and the readers under test.

The server is a model: rows listed newest first (executions, run tests) or last saved first (calls), pages cut by
offset, and a history of what happens before each request and, but for calls, between its count and its rows, which are
two queries. ``bad`` rows turn each page that holds them into a 500.
"""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from hypothesis import strategies as st

from etl.errors import NotFoundError, ServerFaultError, SourceError, TransientError
from etl.extract.bad_rows import PageReader, no_head
from etl.extract.endpoints import Slice
from etl.extract.listing import LargestPage, Listing, Pass, list_completely, read_pass
from etl.model.records import Page

T = TypeVar("T")

HISTORY = st.lists(st.integers(0, 255), max_size=100)
INSERT, DELETE, WAIT = 0, 1, 7
LIMIT = 64
HEAD_ROWS = 16


@dataclass
class Server:
    """Rows as (id, time of the order), and what is still to happen.

    A number of the history whose last octal digit is 0, 1 or 2 changes something; any other lets the next request in.
    Names of rows that may be younger than the reading begin with ``new``. A row comes between a count and its rows but
    once: no answer tells what was counted.
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

    return finished(read_pass(reader(server, fails), str, limit=limit, largest=LargestPage(limit), head_at=no_head))


CAPS = st.sampled_from([7, 7, 7, 7, None, 1, 2, 3, 5])
"""Most rows of a page: usually seven, at which most lists here have several pages."""
