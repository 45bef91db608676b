"""Read the rest of a list and skip the rows that the server cannot give.

One bad row on the server turns every page that holds it into a 500, for as long as it is there. A page that fails is halved until
the bad row stands alone; that row is noted, and all others are read. Pure: every request goes through a function that it is given.

Pages are powers of two that begin at a multiple of their size, so one bad row spoils one page of each size, even where the
server cuts pages smaller than requested. A bad row costs at most ``2 * log2(most) + 4`` requests: the spoiled pages and their
other halves, one retry, its head, or one request to see whether the row is gone.

Whatever the server does, the reading ends: at the number of rows that the first good answer told and ``limit`` more, after
``MAX_UNREADABLE`` bad rows, or after ``MAX_PAGES_WITHOUT_NEWS`` pages that hold nothing new.
"""

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from etl.errors import ServerFaultError, SourceError
from etl.extract.endpoints import Slice
from etl.model.records import Page

T = TypeVar("T")
PageReader = Callable[[Slice], Awaitable[Page[T]]]
"""Reads a page. A 500 is raised at once by a probe, and on any page but the first: it may be gone."""
HeadReader = Callable[[int], Awaitable[T | None]]
"""Finds out in another way than through the list which row is at a position of it."""

MAX_UNREADABLE = 100
MAX_PAGES_WITHOUT_NEWS = 50
"""After so many pages in a row that hold no new row, a list that says that it goes on lies."""
MAX_LOST = 8
"""After so many rows without any good answer, bad rows look the same as a server that is down or the end of the list."""
_TRIES = 2
"""An unreadable row was requested once in the search and once more to be sure."""


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

    ``limit`` is the usual page to request, a power of two; pages may grow to ``most`` rows. ``count`` is what the last good answer
    said of the whole list, ``good_row`` a position that could be read.
    """

    read: PageReader[T]
    id_of: Callable[[T], str]
    head_at: HeadReader[T]
    limit: int
    error: SourceError
    most: int = 0
    count: float = math.inf
    good_row: int | None = None
    rows: dict[str, T] = field(default_factory=dict)
    unreadable: list[Unreadable[T]] = field(default_factory=list)
    _end: float = math.inf
    _without_news: int = 0

    async def read_rest(self, position: int) -> None:
        """Fill ``rows`` and ``unreadable``, from the position on, which is a multiple of ``limit``.

        With too many bad rows, the last of these says that the rest was not read. Where no row could be read, the last error is
        raised.
        """
        first_error = self.error
        while not self._is_beyond(position):
            size = max(self.limit, min(self.most, position & -position))  # as large as pages at this position can be
            await self._read(position, size)
            position += size
        if math.isinf(self.count) and not self.unreadable:
            raise first_error

    async def _read(self, position: int, size: int) -> None:
        """Read so many rows from the position on; where they cannot be had in one page, in smaller ones."""
        if self._is_beyond(position):
            return
        page, bad = await self._page(position, size), len(self.unreadable)
        if page is None and size == 1:
            await self._skip(position)
            return
        if page is None:
            size_of_part = size // 2
        elif self._is_cut(page, position, size):
            size_of_part = self.limit = self.most = power_of_two(len(page.results))
        else:
            return
        for start in range(position, position + size, size_of_part):
            await self._read(start, size_of_part)
        if len(self.unreadable) == bad:  # it was too large
            self.most = min(self.most, size_of_part)

    async def _page(self, position: int, size: int) -> Page[T] | None:
        """The page that begins at the position, a multiple of its size; None when it is a 500."""
        try:
            page = await self.read(Slice(position // size + 1, size, is_probe=True, is_trial=size > self.limit))
        except SourceError as error:
            if size <= self.limit and not isinstance(error, ServerFaultError):
                raise
            self.error = error
            return None
        known = len(self.rows)
        self.rows |= {self.id_of(row): row for row in page.results}
        self.count, self.good_row = page.count, position
        self._end = min(self._end, page.count + self.limit)
        self._without_news = 0 if len(self.rows) > known else self._without_news + 1
        if self._without_news == MAX_PAGES_WITHOUT_NEWS:
            self._stop(position, endless_list(page.count, position))
        return page

    def _is_cut(self, page: Page[T], position: int, size: int) -> bool:
        """Whether the server cuts pages smaller than requested: then these were other rows."""
        is_last = page.total_pages == position // size + 1 and len(page.results) == page.count - position
        return 1 < size > len(page.results) and not is_last

    async def _skip(self, position: int) -> None:
        """Note the row at the position, unless it can be read now, or is gone."""
        if await self._page(position, 1):
            return
        error, head = self.error, None
        with suppress(SourceError):
            head = await self.head_at(position)
        if head is None and self.good_row is not None:
            await self._page(self.good_row, 1)
        if self._is_beyond(position):
            return
        if len(self.unreadable) == MAX_UNREADABLE:
            message = f"too many unreadable rows: row {position} and everything after it were left out"
            self._stop(position, SourceError(message, status=error.status, excerpt=error.excerpt))
            return
        self.unreadable.append(Unreadable(position, error, head, tries=_TRIES))
        lost = self.unreadable[-MAX_LOST:]
        if math.isinf(self.count) and len(lost) == MAX_LOST and not any(row.head for row in lost):
            del self.unreadable[-MAX_LOST:]
            self._end = 0

    def _stop(self, position: int, error: SourceError) -> None:
        self.unreadable.append(Unreadable(position, error))
        self._end = 0

    def _is_beyond(self, position: int) -> bool:
        return position >= min(self.count, self._end)


def endless_list(count: float, position: int) -> SourceError:
    """The error for a list whose pages never end."""
    return SourceError(
        f"the list claims {count:,} rows, but {MAX_PAGES_WITHOUT_NEWS} consecutive pages had nothing new: "
        f"anything after row {position:,} was left out",
        status=200,
    )


def power_of_two(number: int) -> int:
    """The largest one that is not above the number; 1 at least."""
    return 1 << max(0, number.bit_length() - 1)


def power_of_two_above(number: int) -> int:
    """The smallest one that is above the number: a page of that size holds a list of so many rows."""
    return 1 << number.bit_length()


async def no_head(_position: int) -> None:
    """A ``HeadReader`` where nothing else tells which row is at a position."""
