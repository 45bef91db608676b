"""The run tests, and their lists of executions, all read at once. Writes nothing.

It is decided here, too, whether the key belongs to the dataset's workspace, and which stored executions exist by
their ids.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator
from dataclasses import replace

from etl.dataset.state import StoredState
from etl.errors import ConfigurationError, NotFoundError, SourceError, SourceUnavailableError, UnexpectedAnswerError
from etl.extract.absence import LookedUp, look_up_ids
from etl.extract.client import Client
from etl.extract.endpoints import Slice, get_execution, list_call_details, list_executions
from etl.extract.executions import is_before, list_executions_completely
from etl.extract.plan import says_nothing_new
from etl.extract.run_tests import discover, why_unknown
from etl.model.findings import Kind
from etl.model.lifecycle import CLOCKS_DIFFER, ListedExecution
from etl.model.wording import counted
from etl.pipeline.context import Run
from etl.pipeline.record import Record
from etl.pipeline.shared_steps import absent_executions
from etl.settings import RunTest

LIST_PATIENCE_SECONDS = 60.0
"""How long to wait for slow lists before exporting what the others need."""
_SAMPLE = 20
"""So many stored executions, spread over all, are requested before the key counts as one of another workspace."""


async def discover_all(run: Run, record: Record, state: StoredState) -> None:
    """Let the run be about all run tests that the key sees; errors as for ``discover``.

    One that the last run exported and that the list does not have is requested by its name: if it exists, it is
    exported as ever.
    """
    found = await discover(run.client, page_limit=run.settings.api.page_limit, now=run.clock())
    record.listed_run_tests = found.run_tests
    for problem in found.problems:
        record.find(Kind.RUN_TESTS_UNKNOWN, "", problem)
    for name, run_tests in found.run_tests.items():
        if len(run_tests) > 1:
            text = f"{len(run_tests)} run tests have this name, and the API lists their executions together"
            record.find(Kind.NAMESAKES, name, text)
    names = [*found.run_tests]
    for name in _missing(record, state, names):
        try:
            names += [name] if await is_run_test(run.client, name) else []
        except SourceError as error:
            text = f"it is not in the list of run tests, and a request for it by name failed: {error}"
            record.find(Kind.RUN_TESTS_UNKNOWN, name, text)
    record.run_tests = run.settings.with_run_tests(names).run_tests
    run.notify("discovered", run_tests=len(names))


async def is_run_test(client: Client, name: str) -> bool:
    """Whether the API knows a run test of this name; SourceError when it did not say."""
    try:
        await client.get(list_executions(name, Slice(1, 1)))
    except NotFoundError:
        return False
    return True


def note_gone(record: Record, state: StoredState) -> None:
    """Note the run tests that the last run exported, and whose name no run test has any more, though rows have it."""
    text = "the API no longer has a run test of this name, but its rows stay as they are"
    for name in _missing(record, state, [run_test.name for run_test in record.run_tests]):
        record.find(Kind.RUN_TEST_GONE, name, text)


def _missing(record: Record, state: StoredState, names: Collection[str]) -> list[str]:
    """The run tests that the last run exported, of which living rows are left, and which are not among these."""
    stored = {known.run_test_name for known in state.executions.values() if known.deleted_at is None}
    return sorted(stored & {*record.before.run_test_names} - {*names})


async def read_lists(
    group: asyncio.TaskGroup, run: Run, record: Record, state: StoredState
) -> AsyncGenerator[tuple[list[RunTest], bool]]:
    """Read the list of each run test; gives those that were read since, and whether they are the last.

    Usually that is all of them at once. Where lists are slow, the others come first, but for those whose list has
    nothing of what is stored. None comes before the key is known to be of the right workspace. A list that cannot be
    read is a finding; that none can is an error.
    """
    pending = {group.create_task(_read_list(run, record, state, run_test)): run_test for run_test in record.run_tests}
    read: list[RunTest] = []
    while pending:
        done, _ = await asyncio.wait(pending, timeout=LIST_PATIENCE_SECONDS)
        read += [pending.pop(task) for task in [*pending] if task in done]
        if pending and not _shows_stored(record, state):
            continue
        if not pending:
            if len(record.unreachable) == len(record.run_tests):
                raise SourceUnavailableError(f"no list of executions could be read: {record.unreachable[0]}")
            await _refuse_another_workspace(run, record, state)
        # Another name may list all that is missing from one: with these executions goes the folder in which they lie.
        absent = absent_executions(record, state) if pending else {}
        stored = state.executions.keys()
        late = [
            each for each in read if absent.get(each.name) and stored.isdisjoint(record.lists[each.name].executions)
        ]
        if ready := [run_test for run_test in read if run_test not in late]:
            yield ready, not pending
            read = late


async def _read_list(run: Run, record: Record, state: StoredState, run_test: RunTest) -> None:
    begun_at = run.clock()
    page_limit = run.settings.api.page_limit
    policy = replace(run.policy, swept=record.swept)
    try:
        executions = await list_executions_completely(
            run.client,
            run_test.name,
            page_limit=page_limit,
            begun_at=lambda: run.by_source(begun_at) - CLOCKS_DIFFER,
            says_nothing_new=lambda row: says_nothing_new(row, state.executions.get(row.execution_id), policy),
        )
    except NotFoundError:
        record.not_found.add(run_test.name)
        configured = {each.name for each in run.settings.configured}
        text = await why_unknown(run.client, run_test.name, configured, page_limit=page_limit)
        _fail(run, record, run_test, Kind.NO_SUCH_RUN_TEST, text)
    except SourceError as error:
        _fail(run, record, run_test, Kind.LIST_FAILED, str(error))
        if not isinstance(error, UnexpectedAnswerError):
            record.unreachable.append(str(error))
    else:
        record.lists[run_test.name] = executions
        run.progress.listed_executions += len(executions.executions)
        forgotten = {key for key in executions.heads if (known := state.executions.get(key)) and known.is_forgotten}
        heads = (letter.message for key, letter in executions.heads.items() if key not in forgotten)
        rows = [*executions.unreadable, *heads]
        if rows:
            text = f"{counted(len(rows), 'row')} of the list of executions cannot be read: {rows[-1]}"
            record.find(Kind.ROW_UNREADABLE, run_test.name, text)
        elif not executions.is_complete:
            record.find(Kind.LIST_UNPROVED, run_test.name, "the list of executions kept changing while it was read")


def _fail(run: Run, record: Record, run_test: RunTest, kind: Kind, text: str) -> None:
    record.find(kind, run_test.name, text)
    record.failures[run_test.name] = text
    run.notify("run_test_failed", run_test=run_test.name, error=text)


def _shows_stored(record: Record, state: StoredState) -> bool:
    return not state.executions or not record.listed_ids().isdisjoint(state.executions)


async def _refuse_another_workspace(run: Run, record: Record, state: StoredState) -> None:
    """Refuse to export where the key may see another workspace: the lists have none of the stored executions.

    It is the right one if a stored execution exists there by its id, or if whatever the lists have began after
    everything that is stored: then the stored ones were deleted, and new ones made. Where nothing is listed and the API
    does not say, the run goes on, too: nothing is marked that it does not confirm.

    Raises:
        ConfigurationError: the export is refused.
    """
    names = {run_test.name for run_test in (*record.run_tests, *run.settings.configured)}
    if not run.settings.run_tests:  # those that the last run exported: a key of another workspace sees none of them
        names |= {*record.before.run_test_names}
    living = {execution_id: known for execution_id, known in state.executions.items() if known.deleted_at is None}
    mine = [execution_id for execution_id, known in living.items() if known.run_test_name in names]
    if run.accept_deletions or not mine or _shows_stored(record, state) or names <= record.not_found:
        return
    listed = [*_in_scope(record)]
    newest = state.newest_started_at()
    if listed and all(row.started_at is not None and row.started_at > newest for row in listed):
        return
    every_nth = max(1, -(-len(living) // _SAMPLE))
    answers = await look_up(run, sorted(living)[::every_nth])
    if answers.alive or not (listed or answers.gone):
        return
    others = ", although it sees others that are no newer" if listed else ""
    raise ConfigurationError(
        f"the key sees none of the {counted(len(mine), 'execution')} of the dataset{others}, so nothing was changed. "
        "Check the key's workspace. If all of these executions were deleted, run once with --accept-deletions"
    )


def _in_scope(record: Record) -> Iterator[ListedExecution]:
    """What the lists have, without what the settings leave out."""
    for run_test in record.run_tests:
        if listed := record.lists.get(run_test.name):
            rows = listed.executions.values()
            yield from (row for row in rows if not (run_test.since and is_before(row, run_test.since)))


async def look_up(run: Run, execution_ids: Collection[str]) -> LookedUp:
    """Request the executions by their ids, until one exists; no more than that is known then of the others.

    By its id the API also gives what belongs to another workspace or to a deleted run test; their details it does not.
    """

    async def exists(execution_id: str) -> bool:
        await run.client.get(get_execution(execution_id))
        try:
            await run.client.get(list_call_details(execution_id, Slice(1, 1)))
        except NotFoundError:
            raise
        except SourceError:
            pass  # it does not say
        return True

    return await look_up_ids(exists, execution_ids, workers=run.settings.api.concurrency)
