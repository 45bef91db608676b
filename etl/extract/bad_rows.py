"""Read the rest of a list and skip the rows that the server cannot give.

One bad row on the server turns every page that holds it into a 500, for as long as it is there. The reader starts where such a
page begins and halves the page until the bad row stands alone; it notes that row, skips it, and reads all others. Pure: every
request goes through a function that it is given.

Pages are powers of two that begin at a multiple of their size, so one bad row spoils one page of each size, even where the
server cuts pages smaller than requested. A bad row costs at most ``2 * log2(limit) + 4`` requests: the spoiled pages and their
other halves, one retry, its head, and where there is no head one request to see whether the list has become so short that the row
is gone. The good pages come on top, and at the beginning one or two requests that tell how many rows there are: a list of 12 is
halved from 8 on, whatever the limit.

Whatever the server does, the reader stops after ``count + limit + 202 * (log2(limit) + 3)`` requests at the latest, where ``count``
is what the first good answer said: only pages of full size that hold a new row are free, and all others are counted.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from etl.errors import ServerFaultError, SourceError
from etl.model.records import Page

T = TypeVar("T")
HeadReader = Callable[[int], Awaitable[T | None]]
"""Finds out in another way than through the list which row is at a position of it."""

MAX_UNREADABLE = 100
MAX_PAGES_WITHOUT_NEWS = 50
"""After so many pages in a row that hold no new row, a list that says that it goes on lies."""
MORE_ROWS = 100
"""A list may grow while it is read; with twice the rows that it counts and so many more, it lies."""
MAX_LOST = 8
"""After so many rows without any good answer, bad rows look the same as a server that is down or the end of the list."""
_TRIES = 2
"""An unreadable row was requested once in the search and once more to be sure."""


class PageReader(Protocol[T]):
    """Reads page (from 1) with limit. A 500 is raised at once by a probe, and on any page but the first: it may be gone.

    A trial raises any failure at once: the list can be read without it.
    """

    def __call__(self, page: int, limit: int, *, is_probe: bool = False, is_trial: bool = False) -> Awaitable[Page[T]]:
        """The page; raises the SourceError that it ended in."""


@dataclass(frozen=True, slots=True)
class Unreadable(Generic[T]):
    """One row that the list could not give: where it was, how the last of ``tries`` failed, and what else is known of it."""

    position: int
    error: SourceError
    head: T | None = None
    tries: int = 1


@dataclass(slots=True, eq=False)
class SkippingReader(Generic[T]):
    """Reads a list to its end, after a page of it failed with ``error``.

    ``limit`` is the largest page to request, a power of two, and ``position``, a multiple of it, the row that is read next.
    ``count`` is what the last good answer said of the whole list, ``good_row`` a position that could be read.
    """

    read: PageReader[T]
    id_of: Callable[[T], str]
    head_at: HeadReader[T] | None
    limit: int
    position: int
    error: ServerFaultError
    count: int | None = None
    good_row: int | None = None
    rows: list[T] = field(default_factory=list)
    unreadable: list[Unreadable[T]] = field(default_factory=list)
    _size: int = 0
    _spare: int = 0
    _seen: set[str] = field(default_factory=set)
    _without_news: int = 0
    _lost: int = 0
    _farthest: int | None = None

    async def read_rest(self) -> None:
        """Fill ``rows`` and ``unreadable``. With too many bad rows, the last of these says that the rest was not read.

        Raises:
            SourceError: no row could be read, or a request failed for another reason than a bad row.
        """
        first_error = self.error
        self._spare = 2 * (MAX_UNREADABLE + 1) * (self.limit.bit_length() + 2)
        await self._count_rows()
        # The smallest page that holds the rest would fail like the one before: the first to read is half of it.
        rest = 1 if self.count is None else min(self.limit, max(1, self.count - self.position))
        self._size = max(1, 1 << (rest - 1).bit_length() >> 1)
        while not self._is_at_the_end():
            if self._spare < 0:
                self.unreadable.append(Unreadable(self.position, self._left_out()))
                return
            await self._step()
            if self.count is None and self._lost == MAX_LOST:
                del self.unreadable[-MAX_LOST:]
                if not self.unreadable:
                    raise first_error
                return

    async def _count_rows(self) -> None:
        """Learn from one of the first two rows how many there are: most lists are far shorter than a page."""
        for position in range(2 if self.limit > 1 and self.count is None else 0):
            if await self._probe(position, 1) is not None:
                self.good_row = position
                return

    async def _step(self) -> None:
        page = await self._probe(self.position, self._size)
        if page is None and self._size > 1:
            self._size //= 2
            return
        page = page or await self._probe(self.position, 1)
        error = self.error
        if page is not None:
            self._accept(page)
        elif (head := await self._head()) is None and await self._is_gone():
            return
        elif len(self.unreadable) == MAX_UNREADABLE:
            self._spare = -1
        else:
            self.unreadable.append(Unreadable(self.position, error, head, tries=_TRIES))
            self._lost = self._lost + 1 if head is None else 0
            self._advance(1)

    async def _probe(self, position: int, size: int) -> Page[T] | None:
        """The page that begins at the position, a multiple of its size; None when it is a 500."""
        self._spare -= 1
        try:
            page = await self.read(position // size + 1, size, is_probe=True)
        except ServerFaultError as error:
            self.error = error
            return None
        self.rows += page.results
        self.count = page.count
        return page

    def _accept(self, page: Page[T]) -> None:
        found = len(page.results)
        is_last = page.total_pages == self.position // self._size + 1 and found == page.count - self.position
        if 1 < self._size > found and not is_last:
            # The server cuts pages smaller than requested: these were other rows.
            self.limit = self._size = power_of_two(found)
            return
        known = len(self._seen)
        self._seen.update(map(self.id_of, page.results))
        has_news = len(self._seen) > known
        self._without_news = 0 if has_news else self._without_news + 1
        self._spare += self._size == self.limit and has_news
        if self._without_news == MAX_PAGES_WITHOUT_NEWS:
            self._spare = -1
        if self.good_row is None:
            self.good_row = self.position
        self._advance(self._size)

    def _advance(self, rows: int) -> None:
        self.position += rows
        while self._size < self.limit and self.position % (2 * self._size) == 0:
            self._size *= 2

    async def _head(self) -> T | None:
        if self.head_at is None:
            return None
        self._spare -= 1
        try:
            return await self.head_at(self.position)
        except SourceError:
            return None

    async def _is_gone(self) -> bool:
        """Whether the list has become so short that there is no row at the position."""
        if self.good_row is not None:
            await self._probe(self.good_row, 1)
        return self._is_at_the_end()

    def _is_at_the_end(self) -> bool:
        if self.count is None:
            return False
        if self._farthest is None:
            self._farthest = self.count + self.limit
        return self.position >= min(self.count, self._farthest)

    def _left_out(self) -> SourceError:
        if self._without_news == MAX_PAGES_WITHOUT_NEWS:
            return endless_list(self.count or 0, self.position)
        message = f"too many rows cannot be read: those from row {self.position} on were left out"
        return SourceError(message, status=self.error.status, excerpt=self.error.excerpt)


def endless_list(
    count: int, position: int, why: str = f"{MAX_PAGES_WITHOUT_NEWS} pages in a row hold nothing new"
) -> SourceError:
    """The error for a list whose pages never end."""
    return SourceError(
        f"the list says that it has {count:,} rows, but {why}: what may come after row {position:,} was left out",
        status=200,
    )


def power_of_two(number: int) -> int:
    """The largest one that is not above the number; 1 at least."""
    return 1 << max(0, number.bit_length() - 1)


def power_of_two_above(number: int) -> int:
    """The smallest one that is above the number: a page of that size holds a list of so many rows."""
    return 1 << number.bit_length()
