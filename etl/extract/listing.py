"""Complete listings over pages that shift while they are read.

The API pages by offset through lists that reorder at any time: rows are inserted at the head, saved rows jump there, rows
vanish. Neither the number of rows read nor the number of distinct ids proves that none was missed: a missed row and one that
was deleted meanwhile cancel each other out. Two procedures do prove it.

**A, the list fits one page**, of the usual size or, after the first page has told its ``count``, of the next power of two above
that (see ``LargestPage``). A page is cut to the ``count`` that the server took just before reading it, so a row can be
missing from it only if a newer one pushed it out, and that newer row is in the page. It was created while the page was read. Hence:
a page in which every row is older than the reading, or known from an earlier read, is whole. Read
until one is, or until two in a row have the same older rows: what came during the reading is the next run's. (A page with fewer
rows than it counted is read again, too: a server that cuts pages without saying so is never believed.)

**B, many pages**, where the list is too long for one, or the server cuts large pages or cannot give them. Read all pages; let L
be the ids seen that are older than the reading. Then read the first rows and ``count`` once more: n is the count without the newer
ones among them. Then find out which ids of L are still alive: A ⊆ L. Every id in A existed before the count was taken (it had been
listed) and after it (it is alive), ids never come back, and executions keep their run test: so it existed in this list when it was
counted, and A is a subset of those n rows. If A has n members, A is the list, whatever moved in between. If not, repeat with what
is known by now.

For executions a second pass over the pages tells which are alive, and a request by id for those that it does not show. For calls
the request for their metrics tells it, which is needed anyway (see ``calls.py``).

After ``MAX_ROUNDS`` rounds without proof the listing says that it is incomplete; its rows are still used.

**Bad rows.** A page that stays 500 holds a row that the server cannot give. ``bad_rows.py`` skips it, in small pages, so these
pages prove nothing by A; B does not depend on how rows were read. With a bad row there is no proof at all: the listing is
incomplete, without further rounds, and ``unreadable`` has the row, with what another endpoint tells of it.

**Lies.** A list may claim a billion pages. After ``MAX_PAGES_WITHOUT_NEWS`` pages in a row that hold no new row it is read no
further, and counts as one with a bad row.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from etl.errors import NotFoundError, ServerFaultError, SourceError
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
_HEAD_ROWS = 16
"""Rows in which those are sought first that were created since the reading began."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """What a list holds, by id. ``is_complete`` is a proof: no row that existed when the list was counted is missing."""

    rows: Mapping[str, T]
    is_complete: bool
    unreadable: tuple[Unreadable[T], ...] = ()


@dataclass(frozen=True, slots=True)
class Pass(Generic[T]):
    """All pages, read once; ``count`` is what the last of them said of the whole list.

    ``total_pages`` is how many there were of ``limit`` rows, more than one where a bad row was skipped.
    """

    rows: dict[str, T]
    total_pages: int
    count: int
    limit: int
    unreadable: tuple[Unreadable[T], ...] = ()

    @property
    def is_whole_page(self) -> bool:
        """Whether the list fits one page, and that page held as many rows as it counted."""
        return self.total_pages == 1 and len(self.rows) == self.count


@dataclass(slots=True, eq=False)
class LargestPage:
    """The largest page to request in this run: it shrinks to what the server is seen to give."""

    rows: int = MOST_ROWS_OF_A_PAGE

    async def whole(
        self, read: PageReader[T], id_of: Callable[[T], str], first: Page[T], limit: int
    ) -> tuple[Page[T], int] | None:
        """The whole list in one page and the size of that, after a ``first`` page of ``limit`` rows; None when it cannot be had.

        A page without what the first one had, or with fewer rows than it counts, is not believed.
        """
        if len(first.results) < min(first.count, limit):
            self._is_cut_to(len(first.results))
        size = max(2 * limit, power_of_two_above(first.count))
        if size > self.rows:
            return None
        try:
            page = await read(Slice(1, size, is_trial=True))
        except ServerFaultError:
            return None  # a bad row may be the reason: other lists can still be had so
        except SourceError:
            self.rows = size // 2
            return None
        if len(page.results) < min(page.count, size):
            self._is_cut_to(len(page.results))
            return None
        lost = set(map(id_of, first.results)) - set(map(id_of, page.results))
        return None if lost or page.total_pages > 1 else (page, size)

    def _is_cut_to(self, rows: int) -> None:
        self.rows = min(self.rows, power_of_two(rows))


async def read_pass(
    read: PageReader[T],
    id_of: Callable[[T], str],
    *,
    limit: int,
    head_at: HeadReader[T] | None = None,
    largest: LargestPage | None = None,
) -> Pass[T]:
    """Read all pages once, never beyond the last one that the server admits to.

    With ``head_at``, rows that make a page stay 500 are skipped. With ``largest``, a list that does not fit ``limit`` rows is read
    in one larger page, where the server gives that.

    Raises:
        ServerFaultError: a page stays 500, without ``head_at``.
        SourceError: a page that exists cannot be read, for another reason than bad rows, or no row can.
    """
    rows: dict[str, T] = {}
    number, total_pages, count, size = 1, 1, 0, limit
    without_news = 0
    while number <= total_pages:
        if without_news == MAX_PAGES_WITHOUT_NEWS:
            lie: Unreadable[T] = Unreadable(len(rows), endless_list(count, len(rows)))
            return Pass(rows, total_pages, count, limit, (lie,))
        try:
            page = await _read_page(read, number, limit)
        except ServerFaultError as error:
            if head_at is None:
                raise
            rest = SkippingReader(read, id_of, head_at, power_of_two(size), error, rows=rows)
            if number > 1:
                rest.count, rest.good_row = count, 0
            # From the page of this number and size on; rows that are read twice do no harm.
            await rest.read_rest((number - 1) * size // rest.limit * rest.limit)
            return Pass(
                rows=rest.rows,
                total_pages=max(2, number),
                count=int(rest.count) if rest.good_row is not None else 0,
                limit=limit,
                unreadable=tuple(rest.unreadable),
            )
        if page is None:
            break
        if largest and page.total_pages > number == 1 and (whole := await largest.whole(read, id_of, page, limit)):
            page, limit = whole
        known = len(rows)
        rows.update((id_of(row), row) for row in page.results)
        without_news = 0 if len(rows) > known else without_news + 1
        total_pages, count = page.total_pages, page.count
        if number < total_pages:
            # Servers may cut pages smaller than requested.
            size = max(1, min(size, len(page.results)))
        number += 1
    return Pass(rows=rows, total_pages=max(total_pages, number - 1), count=count, limit=limit)


async def _read_page(read: PageReader[T], number: int, limit: int) -> Page[T] | None:
    """The page; None when it is gone by now.

    A page past the last one is a 500, as a fault is: the first one says how many pages there are before each retry.
    """
    for tries in range(1, MAX_ROUNDS + 2):
        try:
            return await read(Slice(number, limit))
        except ServerFaultError as error:
            if not error.is_final or number == 1:
                raise
            failure = ServerFaultError(str(error), excerpt=error.excerpt, tries=tries)
        if tries <= MAX_ROUNDS and number > (await read(Slice(1, limit))).total_pages:
            return None
    raise failure


async def list_completely(
    read: PageReader[T],
    id_of: Callable[[T], str],
    get: Callable[[str], Awaitable[T]],
    *,
    limit: int,
    head_at: HeadReader[T],
    largest: LargestPage | None = None,
    is_newer: Callable[[T], bool] | None = None,
) -> Listing[T]:
    """The whole list, as it was when the reading began.

    ``get`` reads one row, or raises NotFoundError. ``head_at`` finds out in another way which row is at a position of the list, for
    rows that the list cannot give. Without ``largest`` no page is larger than ``limit``. ``is_newer`` says whether a row may have
    been created since the reading began; without it, nobody can tell.

    Raises:
        SourceError: a page or a row that exists cannot be read, for another reason than bad rows, or no row can.
    """
    listed: dict[str, T] = {}
    size, older_before = limit, None
    for _ in range(MAX_ROUNDS):
        latest = await read_pass(read, id_of, limit=size, head_at=head_at, largest=largest)
        if latest.unreadable:
            return _without_proof(latest, listed, id_of)
        size = latest.limit
        if latest.total_pages > 1:
            rows = listed | latest.rows
            return await _list_many_pages(read, id_of, get, rows, limit=limit, head_at=head_at, is_newer=is_newer)
        newer = {key for key, row in latest.rows.items() if is_newer is None or is_newer(row)}
        older = latest.rows.keys() - newer
        is_same = is_newer is not None and older == older_before
        if latest.is_whole_page and (is_same or newer <= listed.keys()):
            return Listing(rows=latest.rows, is_complete=True)
        listed |= latest.rows
        older_before = older if latest.is_whole_page else None
    return Listing(rows=listed, is_complete=False)


async def _list_many_pages(
    read: PageReader[T],
    id_of: Callable[[T], str],
    get: Callable[[str], Awaitable[T]],
    listed: dict[str, T],
    *,
    limit: int,
    head_at: HeadReader[T],
    is_newer: Callable[[T], bool] | None,
) -> Listing[T]:
    for _ in range(MAX_ROUNDS):
        count, newer = await _count_older(read, id_of, limit, is_newer)
        latest = await read_pass(read, id_of, limit=limit, head_at=head_at)
        if latest.unreadable:
            return _without_proof(latest, listed, id_of)
        counted = listed.keys() - newer
        if len(counted) >= count:
            alive = await _alive(get, [key for key in listed if key not in latest.rows])
            if len(counted & (latest.rows.keys() | alive.keys())) == count:
                return Listing(rows=latest.rows | alive, is_complete=True)
            listed = latest.rows | alive
        else:
            listed |= latest.rows
    return Listing(rows=listed, is_complete=False)


async def _count_older(
    read: PageReader[T], id_of: Callable[[T], str], limit: int, is_newer: Callable[[T], bool] | None
) -> tuple[int, set[str]]:
    """How many rows the list counts without the newer ones at its head, and the ids of these."""
    if is_newer is None:
        return (await read(Slice(1, 1))).count, set()
    for rows in (min(limit, _HEAD_ROWS), limit):
        head = await read(Slice(1, rows))
        newer = {id_of(row) for row in head.results if is_newer(row)}
        if len(newer) < len(head.results) or len(newer) >= head.count:
            break
    return head.count - len(newer), newer


async def _alive(get: Callable[[str], Awaitable[T]], ids: Collection[str]) -> dict[str, T]:
    alive = {}
    for key in ids:
        try:
            alive[key] = await get(key)
        except NotFoundError:
            continue
    return alive


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
