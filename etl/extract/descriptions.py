"""What lists of run tests say of executions: which agent they tested, why they failed, what judged their calls.

Owns how far these lists are read. They are never proved: what they do not have is null.
"""

from collections.abc import AsyncIterator, Mapping

from etl.errors import ExporterError
from etl.extract.client import Client
from etl.extract.endpoints import Slice, list_run_test_executions, list_run_tests
from etl.model.digest import fingerprint
from etl.model.records import ListedRunTest
from etl.model.values import json_text

PAGE_ROWS = 25
"""How many executions a page has: the server loads all calls of each."""
_MOST_FAILURES = 2
"""A list of which so many pages fail is left alone."""
_JUDGES = ("name", "template_id", "model", "config", "mapping", "filters", "eval_group", "error_localizer")
"""What is kept of an eval's configuration."""


async def run_tests_by_name(client: Client, *, page_limit: int) -> dict[str, list[ListedRunTest]]:
    """The run tests of the key's workspace, as far as one reading of their list shows them.

    Raises:
        ExporterError: As for ``Client.get``.
    """
    found: dict[str, list[ListedRunTest]] = {}
    page, total = 0, 1
    while page < total:
        page += 1
        answer = await client.get(list_run_tests(Slice(page, page_limit), is_optional=True))
        total = answer.total_pages if answer.results else 0
        for run_test in answer.results:
            found.setdefault(run_test.name, []).append(run_test)
    return found


async def describe(
    client: Client, run_test: ListedRunTest, places: Mapping[str, int], problems: list[str], *, is_alone: bool
) -> AsyncIterator[dict[str, dict[str, str | None]]]:
    """What is said of executions, page by page, by id and then by column of ``executions``.

    ``places`` are where they stand in the list of the run test's name, from 0, newest first. If it ``is_alone`` in
    having that name, only their pages are read, and the one after, where some are missing from one: newer executions
    may have moved them. Otherwise, all pages are read as far as the last place. A page that fails is a problem, and no
    more. None is read if the list of run tests does not say what judges this one.
    """
    judges = judges_of(run_test)
    if not judges:
        return
    found: set[str] = set()
    rows, page, failures = PAGE_ROWS, 0, 0
    due = pages_of(places, rows, is_alone=is_alone)
    while failures < _MOST_FAILURES and (left := [number for number in due if number > page]):
        page = min(left)
        try:
            answer = await client.get(list_run_test_executions(run_test.run_test_id, Slice(page, PAGE_ROWS)))
        except ExporterError as error:
            problems.append(str(error))
            failures += 1
            continue
        told = {each.execution_id: each.columns | judges for each in answer.results if each.execution_id in places}
        found |= told.keys()
        yield told
        if page >= answer.total_pages or len(found) == len(places):
            break
        if 0 < len(answer.results) < rows:  # the server gives smaller pages
            page, rows = 0, len(answer.results)
            due = pages_of({key: place for key, place in places.items() if key not in found}, rows, is_alone=is_alone)
        elif due[page] - found:
            due.setdefault(page + 1, set())


def pages_of(places: Mapping[str, int], rows: int = PAGE_ROWS, *, is_alone: bool) -> dict[int, set[str]]:
    """The pages of a run test's list to read, by number from 1, and which executions should be on each."""
    pages: dict[int, set[str]] = {}
    for execution_id, place in places.items():
        pages.setdefault(place // rows + 1, set()).add(execution_id)
    return pages if is_alone else {number: set() for number in range(1, max(pages, default=0) + 1)}


def judges_of(run_test: ListedRunTest) -> dict[str, str | None]:
    """The columns of ``executions`` that say how the run test's evals are configured now, in the order of their ids."""
    configs = run_test.payload.get("simulate_eval_configs_detail")
    if not isinstance(configs, list):
        return {}
    by_id = {
        str(config.get("id")): {name: config[name] for name in _JUDGES if name in config}
        for config in configs
        if isinstance(config, dict)
    }
    return {"judged_by": json_text(by_id, is_sorted=True), "judged_by_fingerprint": fingerprint(by_id)}
