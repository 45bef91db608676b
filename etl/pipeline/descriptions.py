"""Ask what lists of run tests say of new executions: a request a run test with news, and one for the list of all.

Nothing depends on it: it goes on beside the fetch, and a commit waits for it only so long.
"""

import asyncio
from collections.abc import Iterable, Mapping
from time import monotonic

from etl.errors import ExporterError
from etl.extract.descriptions import describe, page_numbers
from etl.extract.plan import Planned
from etl.model.findings import Kind
from etl.model.lifecycle import LONG_AGO, TERMINAL_EXECUTION
from etl.model.wording import counted, first_few, quoted
from etl.pipeline.context import Run
from etl.pipeline.lists import run_tests_of
from etl.pipeline.record import Record

PATIENCE_SECONDS = 60.0
"""How long all commits of a run wait for descriptions."""


async def describe_planned(run: Run, record: Record, planned: Iterable[Planned]) -> None:
    """Note in ``descriptions`` what is said of the planned executions of which nothing is stored yet.

    What fails, or is cut short, is one notice: the executions are exported without it, and described when they are
    fetched or compared again.
    """
    wanted = _undescribed(record, planned)
    problems: list[str] = []
    try:
        if wanted:
            await run_tests_of(run, record)
        async with asyncio.TaskGroup() as group:
            for name, places in wanted.items():
                group.create_task(_describe(run, record, name, places, problems))
    except ExporterError as error:
        problems.append(f"the list of run tests could not be read: {error}")
    except asyncio.CancelledError:
        problems.append("the run could not wait for them any longer")
        raise
    finally:
        lacking = {key for places in wanted.values() for key in places} - record.descriptions.keys()
        if lacking:
            why = first_few(problems) if problems else "the lists do not have them"
            record.find(Kind.NOT_DESCRIBED, "", f"of {counted(len(lacking), 'execution')}: {why}")


async def wait_for_descriptions(record: Record) -> None:
    """Wait until all is described, but no longer than a run waits for it."""
    if record.describing:
        began_at = monotonic()
        await asyncio.wait([record.describing], timeout=max(0.0, PATIENCE_SECONDS - record.waited_seconds))
        record.waited_seconds += monotonic() - began_at


async def _describe(run: Run, record: Record, name: str, places: Mapping[str, int], problems: list[str]) -> None:
    try:
        run_tests = (record.listed_run_tests or {}).get(name, ())
        await describe(run.client, run_tests, places, record.descriptions)
    except ExporterError as error:
        problems.append(f"{quoted(name)}: {error}")


def requests_to_describe(record: Record, planned: Iterable[Planned]) -> int:
    """How many requests ``describe_planned`` takes, if each name is that of one run test where the list is not read."""
    listed, requests = record.listed_run_tests or {}, 0
    for name, places in _undescribed(record, planned).items():
        run_tests = max(1, len(listed.get(name, ())))
        requests += run_tests * len(page_numbers(places.values(), run_tests))
    return requests + bool(requests and record.listed_run_tests is None)


def _undescribed(record: Record, planned: Iterable[Planned]) -> dict[str, dict[str, int]]:
    """The executions that have ended and are fetched without a description, by the name of their run test.

    Each with its place in the list, which begins with the newest, from 0.
    """
    wanted: dict[str, set[str]] = {}
    for item in planned:
        execution = item.execution
        is_new = not (item.stored and item.stored.is_described) and execution.execution_id not in record.descriptions
        if item.is_fetched and is_new and execution.status in TERMINAL_EXECUTION:
            wanted.setdefault(item.run_test_name, set()).add(execution.execution_id)
    places = {}
    for name, execution_ids in wanted.items():
        listed = record.lists[name].executions.values()
        newest_first = sorted(listed, key=lambda each: each.started_at or LONG_AGO, reverse=True)
        in_order = enumerate(each.execution_id for each in newest_first)
        places[name] = {execution_id: place for place, execution_id in in_order if execution_id in execution_ids}
    return places
