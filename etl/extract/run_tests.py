"""The run tests that the key sees, for an export of all of them.

Owns which run tests there are, what is wrong with their list, and what is said about a name that the API does not know.
Never chooses among them: the settings do.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from etl.errors import ConfigurationError, KeyRefusedError, SourceError, SourceUnavailableError, UnexpectedAnswerError
from etl.extract.bad_rows import no_head
from etl.extract.client import Client
from etl.extract.endpoints import Slice, list_run_tests
from etl.extract.listing import Listing, list_completely
from etl.model.keys import is_listable
from etl.model.lifecycle import CLOCKS_DIFFER
from etl.model.records import ListedRunTest
from etl.model.values import timestamp_or_none
from etl.model.wording import counted, nearest, quoted
from etl.settings import Settings


@dataclass(frozen=True, slots=True)
class Discovered:
    """The run tests of the key's workspace."""

    run_tests: dict[str, list[ListedRunTest]]
    """By name, newest created first. Those of the same name stand together: the API lists their executions as one."""
    problems: tuple[str, ...]
    """One line for each thing that is missing from the list, or that cannot be exported."""


async def discover_for(settings: Settings, on_hold: Callable[[float], None]) -> Discovered:
    """``discover`` with a client of its own.

    ``on_hold`` is called with the number of seconds for which the rate limit holds it up, if that is long.

    Raises:
        ExporterError: As for ``discover`` and ``Client``.
    """
    async with Client(settings, on_hold=on_hold) as client:
        return await discover(client, page_limit=settings.api.page_limit)


async def discover(client: Client, *, page_limit: int, now: datetime | None = None) -> Discovered:
    """List all run tests of the key's workspace.

    An unproved list, or rows that cannot be read, are no error: ``problems`` reports them. ``now`` is when the reading
    begins, by our clock.

    Raises:
        ConfigurationError: There is no run test.
        KeyRefusedError: The API refused the key.
        UnexpectedAnswerError: The API answered with a document of another shape than it documents.
        SourceUnavailableError: No run test could be listed.
    """
    begun_at = (now or datetime.now(UTC)) - CLOCKS_DIFFER

    def newer_in(rows: Iterable[ListedRunTest]) -> set[str]:
        since = begun_at + (client.traffic.clock_offset or timedelta(0))
        created = {row.run_test_id: timestamp_or_none(row.payload.get("created_at")) for row in rows}
        return {run_test_id for run_test_id, created_at in created.items() if created_at and created_at >= since}

    try:
        listing = await list_completely(
            lambda part: client.get(list_run_tests(part)),
            lambda run_test: run_test.run_test_id,
            limit=page_limit,
            head_at=no_head,
            largest=client.largest_page,
            newer_in=newer_in,
        )
    except UnexpectedAnswerError:
        raise
    except SourceError as error:
        raise SourceUnavailableError(f"the run tests could not be listed: {error}") from None
    by_name: dict[str, list[ListedRunTest]] = {}
    for run_test in listing.rows.values():
        if is_listable(run_test.name):
            by_name.setdefault(run_test.name, []).append(run_test)
    problems = tuple(_problems(listing))
    if not by_name and problems:
        raise SourceUnavailableError(f"no run test could be listed: {problems[0]}")
    if not by_name:
        raise ConfigurationError("the key sees no run test. Check the key's workspace")
    return Discovered(by_name, problems)


def no_such_run_test(name: str, listed: Collection[str], configured: Collection[str]) -> str:
    """The message about a name that the API does not know, with the nearest of the ``listed`` names, which it knows.

    One that is ``configured``, too, is not meant.
    """
    others = [each for each in listed if each not in configured]
    hint = nearest(name, others, otherwise="See metrics-etl discover") if listed else "Check the key's workspace"
    return f"the API has no run test with this name. {hint}"


async def why_unknown(client: Client, name: str, configured: Collection[str], *, page_limit: int) -> str:
    """Why the API answered 404 for this name, as one line.

    The first page of run tests decides: if the name is on it, the line says that the API contradicts itself; otherwise
    it is the line of ``no_such_run_test``, with the nearest name. If the page cannot be read, there is no hint.
    """
    try:
        page = await client.get(list_run_tests(Slice(1, page_limit)))
    except (KeyRefusedError, SourceError, SourceUnavailableError):
        return "the API has no run test with this name"
    listed = [run_test.name for run_test in page.results]
    if name in listed:
        return "the API answered 404 for this run test, although it is in the API's list of run tests"
    return no_such_run_test(name, listed, configured)


def _problems(listing: Listing[ListedRunTest]) -> Iterator[str]:
    """One line for each thing that is wrong with the list."""
    if listing.unreadable:
        rows = counted(len(listing.unreadable), "row")
        yield f"{rows} of the list of run tests cannot be read: {listing.unreadable[-1].error}"
    elif not listing.is_complete:
        yield "the list of run tests kept changing while it was read. Run again"
    for run_test in listing.rows.values():
        if not is_listable(run_test.name):
            unlisted = f"run test {run_test.run_test_id} was left out, because the API cannot find it by its name"
            yield f"{unlisted} {quoted(run_test.name)}. Rename it at the source"
