"""Complete listings over pages that shift while they are read.

The API pages by offset through lists that reorder at any time: rows are inserted at the head, saved rows jump there, rows
vanish. Neither the number of rows read nor the number of distinct ids proves that none was missed: a missed row and one that
was deleted meanwhile cancel each other out. Two procedures do prove it; decision 6 has the reasons.

**A, the list fits one page**, of the usual size or of the next power of two above its ``count`` (see ``LargestPage``). A page is
cut to the ``count`` that the server took just before reading it, so a row can be missing from it only if a newer one, which is in
the page, pushed it out. Hence: a page in which every row is older than the reading, or known from an earlier read, is whole. Read
until one is, or until two in a row have the same older rows. (A page with fewer rows than it counted is read again, too.)

**B, many pages.** Ids never come back, and executions keep their run test: a row joins a list when it is created. So of those
older than the reading there are n when it begins: the ``count`` without the newer ones at the head. Once n of them were seen,
none is missing, whatever moved or was deleted in between. (A row that comes between the count and the rows of a page would make
n too small: so the first page is read twice, and both must tell the same n.) If fewer were seen, the pages are read again.

Calls tell no time, and one that is saved jumps to the head. Of these the pages are read once here, and ``calls.py`` has the proof.
After ``MAX_ROUNDS`` rounds without proof the listing says that it is incomplete; its rows are still used.

**Bad rows.** A page that stays 500 holds a row that the server cannot give. ``bad_rows.py`` skips it, in smaller pages. Then
nothing is proved: the listing is incomplete, and ``unreadable`` has the row, with what another endpoint tells of it.

**Lies.** A list may claim a billion pages. After ``MAX_PAGES_WITHOUT_NEWS`` pages in a row that hold no new row it is read no
further, and counts as one with a bad row.
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
    power_of_two,
    power_of_two_above,
)
from etl.extract.endpoints import Slice
from etl.model.records import Page

T = TypeVar("T")

MAX_ROUNDS = 6
MOST_ROWS_OF_A_PAGE = 16_384
"""The largest page: a server takes about 20 s for so many executions, and sends about 16 MB."""
_SHRINK = 4
"""What the size of a page that failed is divided by."""
_HEAD_ROWS = 16
"""Rows of the head that are read to learn the count."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """What a list holds, by id. ``is_complete`` is a proof: no row that existed when the reading began is missing."""

    rows: Mapping[str, T]
    is_complete: bool
    unreadable: tuple[Unreadable[T], ...] = ()


@dataclass(frozen=True, slots=True)
class Pass(Generic[T]):
    """All pages, read once; ``count`` is what the last of them said of the whole list.

    ``total_pages`` is how many there were, more than one where a bad row was skipped. ``firsts`` are the first one, and the one
    from which the reading went on.
    """

    rows: dict[str, T]
    total_pages: int
    count: int
    unreadable: tuple[Unreadable[T], ...] = ()
    firsts: Sequence[Page[T]] = ()

    @property
    def is_whole_page(self) -> bool:
        """Whether the list fits one page, and that page held as many rows as it counted."""
        return self.total_pages == 1 and len(self.rows) == self.count


@dataclass(slots=True, eq=False)
class LargestPage:
    """The largest page to request in this run: it shrinks to what the server is seen to give."""

    rows: int = MOST_ROWS_OF_A_PAGE

    async def first_pages(
        self, read: PageReader[T], id_of: Callable[[T], str], limit: int, *, is_read_twice: bool
    ) -> tuple[Sequence[Page[T]], int]:
        """The first page of ``limit`` rows; of a longer list, too, the one to go on from, as large as it can be had; its size.

        A larger one without what the first one had, or with other rows than it counts, is not believed.
        """
        first = await read(Slice(1, limit))
        if first.total_pages <= 1:
            return (first,), limit
        if len(first.results) < min(first.count, limit):
            self.shrink(len(first.results))
        while (size := min(self.rows, max(2 * limit, power_of_two_above(first.count)))) > limit:
            try:
                page = await read(Slice(1, size, is_trial=True))
            except ServerFaultError:
                break  # a bad row may be the reason: other lists can still be had so
            except SourceError:
                self.shrink(size // _SHRINK)
                continue
            rows = len(page.results)
            if rows < min(page.count, size) and (rows <= limit or page.total_pages != -(-page.count // rows)):
                self.shrink(rows)
                break
            if page.total_pages == 1 and not {*map(id_of, first.results)} <= {*map(id_of, page.results)}:
                break
            return (first, page), size
        return ((first, await read(Slice(1, limit))) if is_read_twice else (first,)), limit

    def shrink(self, rows: int) -> None:
        """The server gives no more rows than so many."""
        self.rows = min(self.rows, power_of_two(rows))


async def read_pass(
    read: PageReader[T],
    id_of: Callable[[T], str],
    *,
    limit: int,
    head_at: HeadReader[T] | None = None,
    largest: LargestPage | None = None,
    is_read_twice: bool = False,
) -> Pass[T]:
    """Read all pages once, never beyond the last one that the server admits to.

    With ``head_at``, rows that make a page stay 500 are skipped; without, that is a ServerFaultError. With ``largest``, a list
    that does not fit ``limit`` rows is read in larger pages, where the server gives them. ``is_read_twice``: the first page of
    such a list is, at any rate.
    """
    rows: dict[str, T] = {}
    firsts: Sequence[Page[T]] = ()
    unreadable: Sequence[Unreadable[T]] = ()
    usual, size, largest = limit, limit, largest or LargestPage(limit)
    number = count = total_pages = without_news = 0
    try:
        firsts, limit = await largest.first_pages(read, id_of, limit, is_read_twice=is_read_twice)
        size = limit
        page: Page[T] | None = firsts[-1]
        while page is not None:
            known = len(rows)
            rows.update((id_of(row), row) for row in page.results)
            without_news = 0 if len(rows) > known else without_news + 1
            number, count, total_pages = number + 1, page.count, page.total_pages
            if number >= total_pages:
                break
            if without_news == MAX_PAGES_WITHOUT_NEWS:
                unreadable = (Unreadable(len(rows), endless_list(count, len(rows))),)
                break
            # Servers may cut pages smaller than requested.
            size = max(1, min(size, len(page.results)))
            page = await _read_page(read, number + 1, limit, size, is_trial=limit > usual)
    except ServerFaultError as error:
        if head_at is None:
            raise
        most = largest.rows if size == limit else 0
        rest = SkippingReader(read, id_of, head_at, power_of_two(min(size, usual)), error, most, rows=rows)
        if number:
            rest.count, rest.good_row = count, 0
        # From the page that failed on; rows that are read twice do no harm.
        await rest.read_rest(number * size // rest.limit * rest.limit)
        count = int(rest.count) if rest.good_row is not None else 0
        total_pages, unreadable = max(2, number + 1), rest.unreadable
    except SourceError:
        if limit == usual:
            raise
        largest.shrink(limit // _SHRINK)
        return await read_pass(read, id_of, limit=usual, head_at=head_at, largest=largest, is_read_twice=is_read_twice)
    return Pass(rows, max(total_pages, number), count, tuple(unreadable), firsts)


async def _read_page(read: PageReader[T], number: int, limit: int, size: int, *, is_trial: bool) -> Page[T] | None:
    """The page, of which those before held ``size`` rows each; None when it is gone by now.

    A page past the last one is a 500, as a fault is: the first rows say how many there are before each retry.
    """
    for tries in range(1, 2 if is_trial else MAX_ROUNDS + 2):
        try:
            return await read(Slice(number, limit, is_trial=is_trial))
        except ServerFaultError as error:
            if not error.is_final or number == 1:
                raise
            failure = ServerFaultError(str(error), excerpt=error.excerpt, tries=tries)
        if tries <= MAX_ROUNDS and (number - 1) * size >= (await read(Slice(1, min(limit, _HEAD_ROWS)))).count:
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
    """The whole list, as it was when the reading began; errors as for ``read_pass`` with ``head_at``.

    ``head_at`` finds out in another way which row is at a position of the list, for rows that the list cannot give. ``newer_in``
    gives the ids of those rows that may have been created since the reading began.
    """
    listed: dict[str, T] = {}
    since_counted: dict[str, T] = {}
    firsts: Sequence[Page[T]] = ()
    older_before: AbstractSet[str] | None = None

    def has_all(firsts: Sequence[Page[T]], rows: Mapping[str, T]) -> bool:
        """Whether there are as many older rows as each of the two first pages counted."""
        older = len(rows) - len(newer_in(rows.values()))
        return len(firsts) > 1 and all(page.count - len(newer_in(page.results)) == older for page in firsts)

    for _ in range(MAX_ROUNDS):
        latest = await read_pass(read, id_of, limit=limit, head_at=head_at, largest=largest, is_read_twice=True)
        if latest.unreadable:
            return _without_proof(latest, listed, id_of)
        newer = newer_in(latest.rows.values())
        older = latest.rows.keys() - newer
        is_whole = latest.is_whole_page and (older == older_before or newer <= listed.keys())
        if is_whole or has_all(latest.firsts, latest.rows):
            return Listing(rows=latest.rows, is_complete=True)
        listed |= latest.rows
        if not firsts:  # a row that was deleted before the count stands for none of those that were counted
            firsts, since_counted = latest.firsts, {}
        since_counted |= latest.rows
        if has_all(firsts, since_counted):
            return Listing(rows=listed, is_complete=True)
        older_before = older if latest.is_whole_page else None
    return Listing(rows=listed, is_complete=False)


def _without_proof(latest: Pass[T], listed: Mapping[str, T], id_of: Callable[[T], str]) -> Listing[T]:
    """All that was read, and what could not be. A head of which the whole row was read belongs to another row."""
    rows = {**listed, **latest.rows}
    unreadable: list[Unreadable[T]] = []
    identified: set[str] = set()
    for row in latest.unreadable:
        if row.head is None or id_of(row.head) in rows:
            unreadable.append(replace(row, head=None))
        elif id_of(row.head) not in identified:
            identified.add(id_of(row.head))
            unreadable.append(row)
    return Listing(rows=rows, is_complete=False, unreadable=tuple(unreadable))
