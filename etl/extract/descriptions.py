"""What lists of run tests say of executions: which agent they tested, why they failed, what judged their calls.

Owns how far these lists are read. They are never proved: what they do not have tonight is null, and asked for again
while the execution settles.
"""

from collections.abc import Iterable, Mapping

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
    client: Client, run_tests: Iterable[ListedRunTest], places: Mapping[str, int]
) -> dict[str, Mapping[str, str | None]]:
    """What is said of some executions, by id and then by column of ``executions``.

    ``places`` are those of the executions in the list of their run test, which begins with the newest, from 0. Only the
    pages are read on which they should be, as long as these bring any.

    Raises:
        ExporterError: As for ``Client.get``.
    """
    found: dict[str, Mapping[str, str | None]] = {}
    for run_test in run_tests:
        judges, page, rows, is_read = judges_of(run_test), 0, PAGE_ROWS, False
        while not is_read and (left := places.keys() - found.keys()):
            page = max(page + 1, min(places[execution_id] for execution_id in left) // rows + 1)
            answer = await client.get(list_run_test_executions(run_test.run_test_id, Slice(page, PAGE_ROWS)))
            news = {each.execution_id: each.columns | judges for each in answer.results if each.execution_id in left}
            found |= news
            is_cut = len(answer.results) < rows and page < answer.total_pages  # the server gives smaller pages
            is_read = page >= answer.total_pages or not (news or is_cut)
            if is_cut:
                page, rows = 0, max(1, len(answer.results))
    return found


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
