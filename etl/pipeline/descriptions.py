"""Ask what lists of run tests say of executions, once all calls are fetched, and write it into their rows.

Only in a night with news: a request for the list of all run tests, and for each run test that has news, one for every
25 executions of which nothing is known yet.
"""

import asyncio
from collections.abc import Collection, Mapping
from functools import partial

from etl.dataset.descriptions import write_descriptions
from etl.dataset.layout import Part
from etl.dataset.state import StoredState
from etl.errors import ExporterError
from etl.extract.descriptions import describe, pages_of, run_tests_by_name
from etl.model.findings import Kind
from etl.model.lifecycle import LONG_AGO, TERMINAL_EXECUTION
from etl.model.records import ListedRunTest
from etl.model.wording import counted, first_few
from etl.pipeline.apply import refresh
from etl.pipeline.context import Run
from etl.pipeline.record import Record
from etl.pipeline.tasks import to_the_end

_MOST_SECONDS = 600.0
"""After so long, what is not described yet is left to a later run."""


async def describe_executions(run: Run, record: Record, state: StoredState) -> None:
    """Describe ended executions of run tests with news. Whatever fails is one notice, and left to the next news."""
    wanted = _undescribed(record)
    if not wanted:
        return
    record.last_step = Kind.NOT_DESCRIBED
    await refresh(run, state)
    told: dict[str, Mapping[str, str | None]] = {}
    problems: list[str] = []
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            if record.listed_run_tests is None:
                record.listed_run_tests = await run_tests_by_name(run.client, page_limit=run.settings.api.page_limit)
            async with asyncio.TaskGroup() as group:
                for name, places in wanted.items():
                    group.create_task(_describe(run, record.listed_run_tests.get(name, ()), places, told, problems))
    except (ExporterError, TimeoutError) as error:
        problems.append(str(error) or "reading the lists took too long")
    finally:
        asked = {key for places in wanted.values() for key in places} & state.executions.keys()
        parts: dict[Part, dict[str, Mapping[str, str | None]]] = {}
        for execution_id in asked & told.keys():
            stored = state.executions[execution_id]
            if stored.has_row:
                parts.setdefault(Part(stored.run_test_key, stored.place), {})[execution_id] = told[execution_id]
        for part in sorted(parts):
            await to_the_end(partial(write_descriptions, run.dataset, part, parts[part], run.stamp()))
        if lacking := len(asked - told.keys()):
            why = first_few(problems) if problems else "the lists do not show them"
            unknown = f"the agent and the judge of {counted(lacking, 'execution')} are unknown"
            record.find(Kind.NOT_DESCRIBED, "", f"{unknown}: {why}")


async def _describe(
    run: Run,
    run_tests: Collection[ListedRunTest],
    places: Mapping[str, int],
    told: dict[str, Mapping[str, str | None]],
    problems: list[str],
) -> None:
    """Add to ``told`` what the lists of these run tests, which have one name, say of executions."""
    for run_test in run_tests:
        left = {key: place for key, place in places.items() if key not in told}
        async for page in describe(run.client, run_test, left, problems, is_alone=len(run_tests) == 1):
            told |= page


def requests_to_describe(record: Record) -> int:
    """How many requests ``describe_executions`` takes, if each name is that of one run test."""
    pages = sum(len(pages_of(places, is_alone=True)) for places in _undescribed(record).values())
    return pages + bool(pages and record.listed_run_tests is None)


def _undescribed(record: Record) -> dict[str, dict[str, int]]:
    """Of run tests with news, the ended executions of which nothing is known, each with its place in the list.

    News is one of them that is fetched, and not only compared once more. The list begins with the newest, from 0.
    """
    wanted: dict[str, dict[str, int]] = {}
    for name, planned in record.planned.items():
        ended = [item for item in planned if item.execution.status in TERMINAL_EXECUTION]
        new = {item.execution.execution_id: item for item in ended if not (item.stored and item.stored.is_described)}
        if any(item.is_awaited for item in new.values()):
            listed = record.lists[name].executions.values()
            newest_first = sorted(listed, key=lambda each: each.started_at or LONG_AGO, reverse=True)
            in_order = enumerate(each.execution_id for each in newest_first)
            wanted[name] = {key: place for place, key in in_order if key in new}
    return wanted
