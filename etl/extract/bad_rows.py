"""Read the rest of a list and skip the rows that the server cannot give.

Owns how a bad row is found, and when the reading of such a list ends. It proves nothing: a list with a bad row is never
complete (law 4). Pure: every request goes through a function that it is given.

**Narrowing.** One bad row on the server turns every page that holds it into a 500, for as long as it is there. A page
that fails is requested again in two halves, and so on, until the bad row stands alone. That row is noted, and all
others are read. For example, row 5 of eight is bad (rows count from 0)::

    rows 0-7   500      halved
    rows 0-3   200      four rows
    rows 4-7   500      halved
    rows 4-5   500      halved
    row  4     200      one row
    row  5     500      alone: requested once more, and noted
    rows 6-7   200      two rows

**What it costs** (law 10). Pages are powers of two that begin at a multiple of their size: so one bad row spoils one
page of each size, even where the server cuts pages smaller than requested. A bad row costs at most ``2 * log2(most) +
4`` requests: the spoiled pages and their other halves; then one retry, one for its head (see ``HeadReader``), and one
to see whether the row is gone.

**When it ends.** Whatever the server does: at the number of rows that a good answer counted and ``limit`` more, after
``MAX_UNREADABLE`` bad rows, after ``MAX_LOST`` rows without any good answer, or after ``MAX_PAGES_WITHOUT_NEWS`` pages
in a row without a new row.
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
"""Reads a page.

A 500 is raised without a retry for a probe or a trial, and for each page after the first: that page may be gone.
"""
HeadReader = Callable[[int], Awaitable[T | None]]
"""Finds out in another way than through the list which row is at a position: its head, without what makes it bad."""

MAX_UNREADABLE = 100
"""After so many bad rows, the rest of the list is left out."""
MAX_PAGES_WITHOUT_NEWS = 50
"""After so many pages in a row without a new row, a list is taken for endless."""
MAX_LOST = 8
"""After so many bad rows in a row without one good answer or one head, nothing more is read.

The server may be down, or the list over.
"""


@dataclass(frozen=True, slots=True)
class Unreadable(Generic[T]):
    """One row that the list could not give; or, as the last one, all rows from a position on."""

    position: int
    """Where it was in the list, from 0."""
    error: SourceError
    """How the last try failed."""
    head: T | None = None
    """The row without what makes it bad; None if nothing else is known of it."""
    tries: int = 1
    """How often it was requested."""


@dataclass(slots=True, eq=False)
class SkippingReader(Generic[T]):
    """Reads a list to its end after a page of it failed."""

    read: PageReader[T]
    """Reads a page of the list."""
    id_of: Callable[[T], str]
    """The id of a row."""
    head_at: HeadReader[T]
    """Finds out which row is at a position that the list cannot give."""
    limit: int
    """The usual size of a page, a power of two; it shrinks to what the server gives."""
    error: SourceError
    """How the last page failed."""
    most: int = 0
    """The largest size of a page; 0 for none above ``limit``."""
    count: float = math.inf
    """How many rows the list has, by the last good answer; infinite before the first."""
    good_row: int | None = None
    """A position that could be read; None before the first good answer."""
    rows: dict[str, T] = field(default_factory=dict)
    """What was read, by id."""
    unreadable: list[Unreadable[T]] = field(default_factory=list)
    """What could not be read, in the order of the list."""
    _end: float = math.inf
    """Where the reading ends, whatever later answers count."""
    _without_news: int = 0
    """How many pages in a row held no new row."""

    async def read_rest(self, position: int) -> None:
        """Fill ``rows`` and ``unreadable`` from the position on, which must be a multiple of ``limit``.

        After too many bad rows, the last one says that the rest was not read.

        Raises:
            SourceError: ``error``, as it was at first, if no row could be read; or a failure other than a 500 of a page
                of ``limit`` rows or fewer.
        """
        first_error = self.error
        while not self._is_beyond(position):
            size = max(self.limit, min(self.most, position & -position))  # as large as pages at this position can be
            await self._read(position, size)
            position += size
        if math.isinf(self.count) and not self.unreadable:
            raise first_error

    async def _read(self, position: int, size: int) -> None:
        """Read so many rows from the position on, a multiple of ``size``: in one page, or else in smaller ones."""
        if self._is_beyond(position):
            return
        page = await self._page(position, size)
        bad_before = len(self.unreadable)
        if page is None and size == 1:
            await self._skip(position)
            return
        if page is None:
            size_of_part = size // 2
        elif self._is_cut(page, position, size):
            size_of_part = power_of_two(len(page.results))
            self.limit = self.most = size_of_part  # the server gives no larger pages
        else:
            return
        for start in range(position, position + size, size_of_part):
            await self._read(start, size_of_part)
        if len(self.unreadable) == bad_before:  # no row was bad: the page was too large
            self.most = min(self.most, size_of_part)

    async def _page(self, position: int, size: int) -> Page[T] | None:
        """The page that begins at the position, a multiple of its size; None if it fails: then it is read in halves.

        Only a 500 is such a failure for pages of the usual size; for larger ones, any failure is.
        """
        try:
            page = await self.read(Slice(position // size + 1, size, is_probe=True, is_trial=size > self.limit))
        except SourceError as error:
            self.error = error
            if size <= self.limit and not isinstance(error, ServerFaultError):
                raise
            return None
        known = len(self.rows)
        self.rows |= {self.id_of(row): row for row in page.results}
        self.count = page.count
        self.good_row = position
        self._end = min(self._end, page.count + self.limit)
        self._without_news = 0 if len(self.rows) > known else self._without_news + 1
        if self._without_news == MAX_PAGES_WITHOUT_NEWS:
            self._stop(position, endless_list(page.count, position))
        return page

    def _is_cut(self, page: Page[T], position: int, size: int) -> bool:
        """Whether the server cut the page smaller than requested; then a page of this number holds other rows."""
        is_last = page.total_pages == position // size + 1 and len(page.results) == page.count - position
        return size > 1 and len(page.results) < size and not is_last

    async def _skip(self, position: int) -> None:
        """Note the row at the position, unless it can be read now, or is gone."""
        if await self._page(position, 1):
            return
        error = self.error
        head: T | None = None
        with suppress(SourceError):
            head = await self.head_at(position)
        if head is None and self.good_row is not None:
            await self._page(self.good_row, 1)  # its count says whether the list still reaches so far
        if self._is_beyond(position):
            return
        if len(self.unreadable) == MAX_UNREADABLE:
            message = f"too many rows cannot be read. Row {position} and all rows after it were left out"
            self._stop(position, SourceError(message, status=error.status, excerpt=error.excerpt))
            return
        # It was requested once in the search, and once more to be sure.
        self.unreadable.append(Unreadable(position, error, head, tries=2))
        lost = self.unreadable[-MAX_LOST:]
        if math.isinf(self.count) and len(lost) == MAX_LOST and not any(row.head for row in lost):
            del self.unreadable[-MAX_LOST:]
            self._end = 0

    def _stop(self, position: int, error: SourceError) -> None:
        """Leave out everything from the position on."""
        self.unreadable.append(Unreadable(position, error))
        self._end = 0

    def _is_beyond(self, position: int) -> bool:
        return position >= min(self.count, self._end)


def endless_list(count: float, position: int) -> SourceError:
    """The error for a list whose pages never end, read as far as the position."""
    return SourceError(
        f"the list claims {count:,} rows, but {MAX_PAGES_WITHOUT_NEWS} consecutive pages had nothing new. "
        f"All rows after row {position:,} were left out",
        status=200,
    )


def power_of_two(number: int) -> int:
    """The largest one that is not above the number; 1 at least."""
    return 1 << max(0, number.bit_length() - 1)


def pages_of(rows: int, limit: int) -> int:
    """How many pages of ``limit`` rows hold so many rows."""
    return -(-rows // limit)


def power_of_two_above(number: int) -> int:
    """The smallest one that is above the number: a page of that size holds a list of so many rows."""
    return 1 << number.bit_length()


async def no_head(_position: int) -> None:
    """A ``HeadReader`` where nothing else tells which row is at a position."""
