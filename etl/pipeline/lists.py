"""The run tests' lists, all read at once, and which of them can be used while another is held up."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from etl.errors import NotFoundError, SourceError, SourceUnavailableError, UnexpectedAnswerError
from etl.extract.executions import list_executions_completely
from etl.extract.plan import pages, says_nothing_new
from etl.load.relocate import find_doubled
from etl.load.state import StoredState
from etl.model.listed_execution import ListedExecution
from etl.pipeline.record import Record
from etl.pipeline.run import Run
from etl.settings import RunTest

_PATIENCE_SECONDS = 1.0
"""For so long all lists are waited for after one of them: then what the others have need not wait any more."""


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists that are being read, a task for each."""

    tasks: Sequence[asyncio.Task[None]]

    @property
    def read(self) -> int:
        """How many were read, or are known as failed."""
        return sum(task.done() for task in self.tasks)

    async def are_held_up(self) -> bool:
        """Wait until all are read, or until some are and no other has been for a while: then True."""
        while pending := [task for task in self.tasks if not task.done()]:
            timeout = _PATIENCE_SECONDS if self.read else None
            done, _ = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return True
        return False

    async def another(self, read: int) -> None:
        """Wait until more than so many are read."""
        while self.read == read:
            pending = [task for task in self.tasks if not task.done()]
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)


def start_lists(group: asyncio.TaskGroup, run: Run, record: Record, state: StoredState) -> Lists:
    """Begin to list the executions of each run test; one that cannot be listed is recorded as failed, and left alone."""
    known = {execution_id for places in state.places().values() for execution_id in places}

    async def list_one(run_test: RunTest) -> None:
        try:
            found = await list_executions_completely(
                run.client,
                run_test.name,
                known=known,
                page_limit=run.settings.api.page_limit,
                says_nothing_new=lambda row: gives_nothing_to_do(run, row, run_test.key, state),
            )
        except NotFoundError:
            record.not_found.add(run_test.key)
            fail(
                run,
                record,
                run_test,
                "the API knows no run test of this name: check run_tests and the key's workspace, or use its new name",
            )
        except SourceError as error:
            fail(run, record, run_test, str(error))
            if not isinstance(error, UnexpectedAnswerError):
                record.unreachable.append(str(error))
        else:
            record.lists[run_test.key] = found
            record.listed[run_test.key] = len(found.executions)
            record.relisted |= found.executions.keys() & state.index.deleted.keys()
            has_news = not found.executions.keys() <= known
            record.necessary_requests += pages(len(found.executions), run.settings.api.page_limit) + has_news
            run.progress.listed_executions += len(found.executions)

    return Lists([group.create_task(list_one(run_test)) for run_test in record.run_tests])


async def read_again_where_some_were_gone(run: Run, record: Record) -> None:
    """Read each list again of which executions were not found when their calls were asked for: they must not be listed any more."""
    for run_test in record.run_tests:
        planned = record.planned.get(run_test.key, ())
        gone = {item.execution.execution_id for item in planned if item.is_fetched} - record.committed
        gone |= record.not_found_by_id[run_test.key]
        if not gone or run_test.key not in record.lists:
            continue
        before = record.lists[run_test.key]
        try:
            again = await list_executions_completely(
                run.client,
                run_test.name,
                known=gone | before.executions.keys(),
                page_limit=run.settings.api.page_limit,
                says_nothing_new=lambda _: True,
            )
        except NotFoundError:
            continue
        except SourceError as error:
            problems, is_complete = [str(error)], False
        else:
            record.necessary_requests += pages(len(again.executions), run.settings.api.page_limit)
            listed = sorted(gone & again.executions.keys())
            problems = [f"execution {each}: listed, but not found by its id" for each in listed]
            is_complete = again.is_complete and not listed
        record.lists[run_test.key] = replace(
            before,
            is_complete=before.is_complete and is_complete,
            unreadable=(*before.unreadable, *problems),
        )


def raise_if_none_is_listed(record: Record) -> None:
    """Raise SourceUnavailableError when the source failed for every list."""
    if len(record.unreachable) == len(record.run_tests):
        raise SourceUnavailableError(f"no run test could be listed: {record.unreachable[0]}")


def gives_nothing_to_do(run: Run, row: ListedExecution, key: str, state: StoredState) -> bool:
    """Whether the execution, listed under this key, needs neither a request nor a row."""
    is_scrubbed = run.settings.export.scrub_requests > 0
    return not is_scrubbed and says_nothing_new(row, state.executions[key].get(row.execution_id), run.policy)


def fail(run: Run, record: Record, run_test: RunTest, error: str) -> None:
    """Record that the run test is left alone."""
    record.failures[run_test.key] = error
    run.notify("run_test_failed", run_test=run_test.name, error=error)


def may_be_of_another_workspace(run: Run, record: Record, state: StoredState) -> bool:
    """Whether "all" run tests are exported, or some of them, and no list has any of the stored executions."""
    if run.settings.configured:
        return False
    stored = state.places().values()
    return any(stored) and record.listed_ids().isdisjoint(chain.from_iterable(stored))


def independent(record: Record, state: StoredState) -> set[str]:
    """Keys of the listed run tests of which no other list can tell anything: nothing has moved there or vanished from there."""
    if state.surplus or state.scattered or find_doubled(state):
        return set()
    stored = state.places()
    living = {
        key: {
            each
            for each in places
            if (known := state.executions.get(key, {}).get(each)) is None or not known.deleted_at
        }
        for key, places in stored.items()
    }
    return {
        key
        for key, found in record.lists.items()
        if found.is_complete
        and (living[key] | state.orphans[key].keys()) <= found.executions.keys()
        and all(places.keys().isdisjoint(found.executions) for other, places in stored.items() if other != key)
    }
