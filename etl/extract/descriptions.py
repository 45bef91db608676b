"""What lists of run tests say of executions: which agent they tested, why they failed, what judged their calls.

Owns how far these lists are read. They are never proved: what they do not have tonight is null, and asked for again
whenever the execution is fetched or compared.
"""

from collections.abc import Collection, Mapping, Sequence

from etl.extract.client import Client
from etl.extract.endpoints import Slice, list_run_test_executions
from etl.model.digest import fingerprint
from etl.model.records import ListedRunTest
from etl.model.values import json_text

PAGE_ROWS = 25
"""How many executions a page has: the server loads all calls of each."""
_JUDGES = ("name", "template_id", "model", "config", "mapping", "filters", "eval_group", "error_localizer")
"""What is kept of an eval's configuration."""


async def describe(
    client: Client,
    run_tests: Sequence[ListedRunTest],
    places: Mapping[str, int],
    found: dict[str, Mapping[str, str | None]],
) -> None:
    """Add to ``found`` what is said of some executions, by id and then by column of ``executions``.

    The ``run_tests`` have one name. ``places`` are those of the executions in the list of that name, which begins with
    the newest, from 0. Of each run test only the pages are read on which they should be, and the one after, where a
    page lacks some: newer ones may have moved them there. What was found before an error stays in ``found``.

    Raises:
        ExporterError: As for ``Client.get``.
    """
    for run_test in run_tests:
        judges, page, rows = judges_of(run_test), 0, PAGE_ROWS
        while True:
            left = [place for execution_id, place in places.items() if execution_id not in found]
            numbers = page_numbers(left, len(run_tests), rows)
            # The page after the last one that was read, if that should have had more, or the next with any.
            page = min((max(number, page + 1) for number in numbers if number >= page), default=0)
            if not page:
                break
            answer = await client.get(list_run_test_executions(run_test.run_test_id, Slice(page, PAGE_ROWS)))
            wanted = (each for each in answer.results if each.execution_id in places)
            found |= {each.execution_id: each.columns | judges for each in wanted}
            if page >= answer.total_pages:
                break
            if 0 < len(answer.results) < rows:  # the server gives smaller pages
                page, rows = 0, len(answer.results)


def page_numbers(places: Collection[int], run_tests: int, rows: int = PAGE_ROWS) -> Collection[int]:
    """The pages of a run test's list on which executions at these places should be.

    Where several run tests have one name, the place in their common list is only the last one at which it may be.
    """
    numbers = {place // rows + 1 for place in places}
    return numbers if run_tests < 2 else range(1, max(numbers, default=0) + 1)


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
