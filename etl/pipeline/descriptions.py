"""Ask what lists of run tests say of new executions: a request a run test with news, and one for the list of all."""

import asyncio
from collections.abc import Iterable, Mapping

from etl.errors import ExporterError
from etl.extract.descriptions import PAGE_ROWS, describe
from etl.extract.plan import Planned
from etl.extract.run_tests import discover
from etl.model.findings import Kind
from etl.model.lifecycle import LONG_AGO, TERMINAL_EXECUTION
from etl.pipeline.context import Run
from etl.pipeline.record import Record


async def describe_planned(run: Run, record: Record, planned: Iterable[Planned]) -> None:
    """Note in ``descriptions`` what is said of the planned executions of which nothing is stored yet.

    Whatever fails is a notice: the executions are exported without it, and described while they settle.
    """
    wanted = _undescribed(record, planned)
    if wanted and record.listed_run_tests is None:
        try:
            found = await discover(run.client, page_limit=run.settings.api.page_limit, is_optional=True)
            record.listed_run_tests = found.run_tests
        except ExporterError as error:
            record.listed_run_tests = {}
            record.find(Kind.NOT_DESCRIBED, "", f"the list of run tests could not be read: {error}")
    async with asyncio.TaskGroup() as group:
        for name, places in wanted.items():
            group.create_task(_describe(run, record, name, places))


async def _describe(run: Run, record: Record, name: str, places: Mapping[str, int]) -> None:
    try:
        run_tests = (record.listed_run_tests or {}).get(name, ())
        record.descriptions |= await describe(run.client, run_tests, places)
    except ExporterError as error:
        record.find(Kind.NOT_DESCRIBED, name, f"its list of agent versions could not be read: {error}")


def requests_to_describe(record: Record, planned: Iterable[Planned]) -> int:
    """How many requests ``describe_planned`` takes."""
    wanted = _undescribed(record, planned).values()
    pages = [len({place // PAGE_ROWS for place in places.values()}) for places in wanted]
    return sum(pages) + bool(pages and record.listed_run_tests is None)


def _undescribed(record: Record, planned: Iterable[Planned]) -> dict[str, dict[str, int]]:
    """The executions that have ended and are fetched without a description, by the name of their run test.

    Each with its place in the list, which begins with the newest, from 0.
    """
    wanted: dict[str, set[str]] = {}
    for item in planned:
        execution = item.execution
        is_new = not (item.stored and item.stored.is_described) and execution.execution_id not in record.descriptions
        if item.is_awaited and is_new and execution.status in TERMINAL_EXECUTION:
            wanted.setdefault(item.run_test_name, set()).add(execution.execution_id)
    places = {}
    for name, execution_ids in wanted.items():
        listed = record.lists[name].executions.values()
        newest_first = sorted(listed, key=lambda each: each.started_at or LONG_AGO, reverse=True)
        in_order = enumerate(each.execution_id for each in newest_first)
        places[name] = {execution_id: place for place, execution_id in in_order if execution_id in execution_ids}
    return places
