"""Complete lists over pages that shift while they are read.

Owns the proof that a list has everything that existed when its reading began (law 4). It knows no endpoint: what reads
a page is given to it. It never says that a missing row is gone: ``absence.py`` confirms that by id (law 5).

**The problem.** The API pages by offset through lists that reorder at any time: rows are inserted at the head, saved
rows jump there, and rows vanish. For example, six rows, three a page::

    page 1 is read       6 5 4 | 3 2 1
    row 5 is deleted     6 4 3 | 2 1
    page 2 is read             | 2 1      row 3 was never seen

Counting does not help: five different rows were seen, and the list now has five, but 5 is gone and 3 was missed.

**What is proved.** ``Listing.is_complete`` says: no row that existed when the reading began, and still exists, is
missing from ``rows``. Rows that come later may be missing; the next run gets them. Without a proof it is False: the
rows are exported, too, but rows missing from such a list do not count as deleted (law 4).

Below, a *newer* row is one that may have been created since the reading began (``newer_in`` says so), an *older* row
any other.

**Proof by one page**, for a list that fits one, of the usual size or of the next power of two above its count (see
``LargestPage``). The server answers with two queries: it takes the ``count``, then it reads that many rows. So a row
can be missing from the page only if another one was created between the two and pushed it off the end; and that other
one is at the head of the same page. Hence one answer proves itself if each of its rows is older, or was known from an
earlier reading: then none was created in between. Two readings in a row with the same older rows are a proof as well,
unless a row slipped in between the two queries of both: that is not defended, since no answer shows it. A page with
fewer rows than it counted proves nothing.

**Proof by a count**, for a list of many pages. An id never comes back, and an execution keeps its run test, so a row
joins a list only when it is created: there can only be fewer older rows from now on. One answer, the first page, says
how many there were: its ``count`` minus its newer rows, all of which stand at the head. As soon as that many older rows
were seen, none is missing, whatever moved or was deleted in between. They may be seen in one reading, or in several
since that answer. A row that is created between the two queries of that answer would make the number too small, so the
first page is read twice, and both must agree.

**Why six rounds.** A round reads the list once. A list at rest is proved by its first round, one that only grows by its
first or second. A round fails if rows are deleted before they are seen, or if everything on the first page is newer.
What ``MAX_ROUNDS`` rounds do not prove changes faster than it can be read, or contradicts itself; more requests would
not help, and all come out of one rate limit (law 10). Then the listing says that it is incomplete, and has all rows of
all rounds.

**Calls** show no time of their creation, and one that is saved jumps to the head. Their pages are read once here, by
``read_pass``; the proof is with the crawl, which requests each call anyway.

**Bad rows.** A page that stays 500 holds a row that the server cannot give. ``bad_rows.py`` skips it, in smaller pages.
Then nothing is proved: the listing is incomplete, and ``unreadable`` has the row, with what another endpoint says about
it.

**Lists without an end.** A list may claim a billion pages. After ``MAX_PAGES_WITHOUT_NEWS`` pages in a row without a
new row it is read no further, and counts as one with a bad row.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from etl.errors import ServerFaultError, SourceError
from etl.extract.bad_rows import (
    MAX_PAGES_WITHOUT_NEWS,
    HeadReader,
    PageReader,
    SkippingReader,
    Unreadable,
    endless_list,
    pages_of,
    power_of_two,
    power_of_two_above,
)
from etl.extract.endpoints import Slice
from etl.model.records import Page

T = TypeVar("T")

MAX_ROUNDS = 6
"""How often a list is read to prove it."""
_MOST_PAGE_RETRIES = 6
"""How often a page that is still there is requested again after a 500."""
MOST_ROWS_OF_A_PAGE = 16_384
"""The largest page: a server takes about 20 s for so many executions, and sends about 16 MB."""
_SHRINK = 4
"""What the size of a page that failed is divided by."""
_HEAD_ROWS = 16
"""Rows of the head that are read to learn the count."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """What a list holds."""

    rows: Mapping[str, T]
    """By id."""
    is_complete: bool
    """Whether it is proved that no row is missing that existed when the reading began and still exists."""
    unreadable: tuple[Unreadable[T], ...] = ()
    """The rows that the server could not give; then the list is not complete."""


@dataclass(frozen=True, slots=True)
class Pass(Generic[T]):
    """All pages of a list, read once. It proves nothing by itself."""

    rows: dict[str, T]
    """By id."""
    total_pages: int
    """How many pages the list had; more than one where a bad row was skipped."""
    count: int
    """How many rows the list has, by its last page."""
    unreadable: tuple[Unreadable[T], ...] = ()
    """The rows that the server could not give."""
    first_pages: Sequence[Page[T]] = ()
    """The first page as it was read first, and as the reading continued from it.

    Only one if it was read once, none if it failed.
    """

    @property
    def is_whole_page(self) -> bool:
        """Whether the list fits one page, and that page has as many rows as it counted."""
        return self.total_pages == 1 and len(self.rows) == self.count


@dataclass(slots=True, eq=False)
class LargestPage:
    """The largest page to request in this run: it shrinks to what the server turns out to give."""

    rows: int = MOST_ROWS_OF_A_PAGE
    """How many rows it has: a power of two."""

    async def first_pages(
        self, read: PageReader[T], id_of: Callable[[T], str], limit: int, *, is_read_twice: bool
    ) -> tuple[Sequence[Page[T]], int]:
        """The first pages of a list, and the size of the last of them, from which to read on.

        A list that fits ``limit`` rows has one. Of a longer one the first page is requested again, as large as the
        server gives it: at best, it then holds the whole list. Where no larger one can be had, it is read again only if
        ``is_read_twice``.

        A larger page is not believed if it has other rows than it counts, or if it claims to be the whole list and a
        row of the first page is missing from it.

        Raises:
            SourceError: The page of ``limit`` rows could not be read.
        """
        first = await read(Slice(1, limit))
        if first.total_pages <= 1:
            return (first,), limit
        if len(first.results) < min(first.count, limit):  # the server cuts pages smaller than requested
            self.shrink(len(first.results))
        while (size := min(self.rows, max(2 * limit, power_of_two_above(first.count)))) > limit:
            try:
                page = await read(Slice(1, size, is_trial=True))
            except ServerFaultError:
                break  # a bad row may be the reason: pages of other lists may still be as large
            except SourceError:
                self.shrink(size // _SHRINK)
                continue
            rows = len(page.results)
            is_short = rows < min(page.count, size)
            if is_short and (rows <= limit or page.total_pages != pages_of(page.count, rows)):
                self.shrink(rows)
                break
            if page.total_pages == 1 and not {*map(id_of, first.results)} <= {*map(id_of, page.results)}:
                break
            return (first, page), size
        pages = (first, await read(Slice(1, limit))) if is_read_twice else (first,)
        return pages, limit

    def shrink(self, rows: int) -> None:
        """Note that the server gives no more than so many rows in one page."""
        self.rows = min(self.rows, power_of_two(rows))


async def read_pass(
    read: PageReader[T],
    id_of: Callable[[T], str],
    *,
    limit: int,
    largest: LargestPage,
    head_at: HeadReader[T] | None = None,
    is_read_twice: bool = False,
) -> Pass[T]:
    """Read all pages once, never beyond the last one that the server admits to.

    Args:
        read: Reads one page.
        id_of: The id of a row.
        limit: The usual size of a page.
        largest: The largest page. A list that does not fit ``limit`` rows is read in larger pages if the server gives
            them.
        head_at: With it, rows that make a page stay 500 are skipped, and it says which row is at a position.
        is_read_twice: Read the first page of such a list twice in any case, for a proof.

    Raises:
        ServerFaultError: A page stays 500, and ``head_at`` is None or no row could be read.
        SourceError: A page of ``limit`` rows or fewer could not be read for another reason.
    """
    rows: dict[str, T] = {}
    first_pages: Sequence[Page[T]] = ()
    unreadable: Sequence[Unreadable[T]] = ()
    page_limit = limit
    size = limit
    count = 0
    total_pages = 0
    pages_read = 0
    pages_without_news = 0
    try:
        first_pages, page_limit = await largest.first_pages(read, id_of, limit, is_read_twice=is_read_twice)
        size = page_limit
        page: Page[T] | None = first_pages[-1]
        while page is not None:
            known = len(rows)
            rows.update((id_of(row), row) for row in page.results)
            pages_without_news = 0 if len(rows) > known else pages_without_news + 1
            pages_read += 1
            count = page.count
            total_pages = page.total_pages
            if pages_read >= total_pages:
                break
            if pages_without_news == MAX_PAGES_WITHOUT_NEWS:
                unreadable = (Unreadable(len(rows), endless_list(count, len(rows))),)
                break
            # Servers may cut pages smaller than requested.
            size = max(1, min(size, len(page.results)))
            page = await _read_page(read, pages_read + 1, page_limit, size, is_trial=page_limit > limit)
    except ServerFaultError as error:
        if head_at is None:
            raise
        # Larger pages are requested behind the bad row only if the server has not cut any.
        most = largest.rows if size == page_limit else 0
        rest = SkippingReader(
            read, id_of, head_at, limit=power_of_two(min(size, limit)), error=error, most=most, rows=rows
        )
        if pages_read:
            rest.count = count
            rest.good_row = 0
        # From the page that failed on; rows that are read twice do no harm.
        await rest.read_rest(pages_read * size // rest.limit * rest.limit)
        count = int(rest.count) if rest.good_row is not None else 0
        total_pages = max(2, pages_read + 1)
        unreadable = rest.unreadable
    except SourceError:
        if page_limit == limit:
            raise
        # The server cannot give pages as large as that one: start again with the usual size.
        largest.shrink(page_limit // _SHRINK)
        return await read_pass(read, id_of, limit=limit, largest=largest, head_at=head_at, is_read_twice=is_read_twice)
    return Pass(rows, max(total_pages, pages_read), count, tuple(unreadable), first_pages)


async def _read_page(read: PageReader[T], number: int, limit: int, size: int, *, is_trial: bool) -> Page[T] | None:
    """The page of this number, of ``limit`` rows at most; None if it is gone by now.

    A page past the last one is a 500, just like a fault. So after each 500 but the last, the count is requested, in a
    small page: the page is gone if the pages before it, of ``size`` rows each, hold the whole list.

    Raises:
        ServerFaultError: It is still there, and stays 500.
    """
    pages_before_hold = (number - 1) * size
    most_tries = 1 if is_trial else 1 + _MOST_PAGE_RETRIES
    for tries in range(1, most_tries + 1):
        try:
            return await read(Slice(number, limit, is_trial=is_trial))
        except ServerFaultError as error:
            if not error.is_final or number == 1:
                raise
            failure = ServerFaultError(str(error), excerpt=error.excerpt, tries=tries)
        if tries <= _MOST_PAGE_RETRIES and pages_before_hold >= (await read(Slice(1, min(limit, _HEAD_ROWS)))).count:
            return None
    raise failure


async def list_completely(
    read: PageReader[T],
    id_of: Callable[[T], str],
    *,
    limit: int,
    head_at: HeadReader[T],
    largest: LargestPage,
    newer_in: Callable[[Iterable[T]], AbstractSet[str]],
) -> Listing[T]:
    """The whole list, as it was when the reading began, with a proof; or all that could be read, without one.

    Args:
        read: Reads one page.
        id_of: The id of a row.
        limit: The usual size of a page.
        head_at: Finds out in another way which row is at a position, for rows that the list cannot give.
        largest: The largest page to request.
        newer_in: The ids of those of the rows that may have been created since the reading began.

    Raises:
        SourceError: As for ``read_pass``.
    """
    listed: dict[str, T] = {}
    since_counted: dict[str, T] = {}
    first_pages: Sequence[Page[T]] = ()
    older_before: AbstractSet[str] | None = None

    def has_all(first_pages: Sequence[Page[T]], rows: Mapping[str, T]) -> bool:
        """Whether there are as many older rows as each of the two first pages counted."""
        older = len(rows) - len(newer_in(rows.values()))
        return len(first_pages) > 1 and all(page.count - len(newer_in(page.results)) == older for page in first_pages)

    for _ in range(MAX_ROUNDS):
        latest = await read_pass(read, id_of, limit=limit, head_at=head_at, largest=largest, is_read_twice=True)
        if latest.unreadable:
            return _without_proof(latest, listed, id_of)
        newer = newer_in(latest.rows.values())
        older = latest.rows.keys() - newer
        # The proof by one page: none of its rows was created while the server answered.
        is_whole = latest.is_whole_page and (older == older_before or newer <= listed.keys())
        # The proof by a count: this reading alone has all, or else all readings since the first count.
        if is_whole or has_all(latest.first_pages, latest.rows):
            return Listing(rows=latest.rows, is_complete=True)
        listed |= latest.rows
        if not first_pages:
            # What was seen before this count may have been deleted before it: it stands for no row that was counted.
            first_pages = latest.first_pages
            since_counted = {}
        since_counted |= latest.rows
        if has_all(first_pages, since_counted):
            return Listing(rows=listed, is_complete=True)
        older_before = older if latest.is_whole_page else None
    return Listing(rows=listed, is_complete=False)


def _without_proof(latest: Pass[T], listed: Mapping[str, T], id_of: Callable[[T], str]) -> Listing[T]:
    """All that was read, and each unreadable row once.

    While the list moves, a head may be that of another row: of one that was read, or of one that is noted already.
    """
    rows = {**listed, **latest.rows}
    unreadable: list[Unreadable[T]] = []
    identified: set[str] = set()
    for bad_row in latest.unreadable:
        if bad_row.head is None or id_of(bad_row.head) in rows:
            unreadable.append(replace(bad_row, head=None))
        elif id_of(bad_row.head) not in identified:
            identified.add(id_of(bad_row.head))
            unreadable.append(bad_row)
    return Listing(rows=rows, is_complete=False, unreadable=tuple(unreadable))
