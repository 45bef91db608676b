"""The steps that ``plan`` and ``export`` share: what the API lists beside what the dataset holds.

They run in the order in which they stand here, and note in the run's ``Record`` what a summary will tell. Nothing is written, but
an export moves damaged files to the quarantine while it loads.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from etl.errors import NotFoundError, SourceError
from etl.extract.endpoints import get_execution
from etl.extract.plan import (
    Planned,
    is_mass_vanishing,
    order_by_worth,
    plan_run_test,
    requests_to_fetch,
    scrub,
)
from etl.extract.run_tests import discover
from etl.load.layout import Part
from etl.load.relocate import Moves, as_if_dropped, find_doubled, find_moves, surplus
from etl.load.state import StoredState, forget_the_future, load_missing, load_state
from etl.model.listed_execution import ListedExecution
from etl.model.wording import first_few
from etl.pipeline.left_behind import (
    ACCEPT,
    NEXT_TIME,
    SAMPLE_EXECUTIONS,
    find_existing,
    find_left_behind,
    refuse_another_workspace,
)
from etl.pipeline.lists import fail, gives_nothing_to_do, raise_if_none_is_listed
from etl.pipeline.record import Record, VanishedCounts, count_reasons
from etl.pipeline.run import Run
from etl.pipeline.tasks import to_the_end
from etl.settings import RunTest


@dataclass(frozen=True, slots=True)
class Survey:
    """What the API lists beside what the dataset holds.

    ``drops`` and ``moves`` are what must change for each execution to lie in one place, the right one; ``state`` already says what
    it will say after the drops. ``vanished`` are stored executions that no list has any more, by the key of their run test.
    ``left_behind`` are those of run tests that are not exported, see ``find_left_behind``.
    """

    state: StoredState
    drops: Mapping[Part, set[str]]
    moves: Moves
    vanished: Mapping[str, set[str]]
    left_behind: Mapping[str, set[str]]

    def look_ups(self) -> int:
        """How many executions an export asks for by id, since no list has them."""
        return sum(map(len, chain(self.vanished.values(), self.left_behind.values())))


async def discover_and_load(run: Run, record: Record, *, set_aside: bool) -> StoredState:
    """Let the run be about all run tests that the key sees; returns what the dataset holds of them."""
    found = await discover(run.client, page_limit=run.settings.api.page_limit)
    record.run_tests = run.settings.with_run_tests(found.run_tests).run_tests
    record.discovered = found
    record.necessary_requests += found.necessary_requests
    run.notify("discovered", run_tests=len(found.run_tests))
    return await to_the_end(partial(load, run, record, set_aside=set_aside))


async def survey(run: Run, record: Record, state: StoredState) -> Survey:
    """Compare the lists, which are read, with the state.

    Raises:
        DestinationError, KeyRefusedError, SourceUnavailableError: the run cannot go on.
    """
    raise_if_none_is_listed(record)
    forget_the_future(state, run.by_source(run.clock()))
    give_one_place_each(run, record, state)
    await refuse_another_workspace(run, record, state)
    everywhere = record.listed_ids()
    vanished = {}
    for run_test in record.run_tests:
        found = record.lists.get(run_test.key)
        if found is not None and found.is_complete:
            ids = await _find_vanished(run, record, run_test, state, everywhere)
            if ids is not None:
                vanished[run_test.key] = ids
    drops, moves = _find_places(run, record, state)
    left_behind, moves = await find_left_behind(run, record, state, moves)
    vanished = {key: vanished[key] for key in vanished.keys() & record.lists.keys()}
    return Survey(state, drops, moves, vanished, left_behind)


def load(run: Run, record: Record, *, set_aside: bool) -> StoredState:
    """What the dataset holds of the run tests; files that cannot be read are recorded."""
    state = load_state(run.dataset, [run_test.key for run_test in record.run_tests], set_aside=set_aside)
    record.quarantined += state.unreadable
    state.index.trust(record.last_attempt.export_run_id if record.last_attempt else None)
    record.index = state.index
    return state


def give_one_place_each(run: Run, record: Record, state: StoredState) -> None:
    """Leave each execution in one of the lists, and note which lists have it.

    One that is in two was moved while they were read, or a list has what belongs to another run test. Nothing tells which: it stays
    where the dataset has it, else in the first. What is stored under a run test whose list was not read counts as listed there; of
    "all", those that were named know none of the others.
    """
    stored, mine = state.places(), {each.key for each in record.run_tests}
    configured = {each.key for each in run.settings.configured} or (stored.keys() if run.settings.run_tests else set())
    unread = (configured - mine) | (record.failures.keys() - record.not_found)
    places = {execution_id: key for key in sorted(unread) for execution_id in stored.get(key, ())}
    for key, found in record.lists.items():
        for execution_id in found.executions:
            if (other := places.setdefault(execution_id, key)) == key:
                continue
            is_stored = execution_id in state.executions[key]
            if not (is_stored and other in unread):
                record.in_two_lists[other, key].add(execution_id)
            if is_stored:
                places[execution_id] = key
    for key, found in record.lists.items():
        own = {each: execution for each, execution in found.executions.items() if places[each] == key}
        if len(own) < len(found.executions):
            record.lists[key] = replace(found, executions=own)


async def _find_vanished(
    run: Run, record: Record, run_test: RunTest, state: StoredState, everywhere: AbstractSet[str]
) -> set[str] | None:
    """Stored executions that no list has any more. None if they are suspiciously many: then the run test is left alone.

    Where one of them exists, a run test whose list was not read may have them: a list that lacks many is believed when it lacked
    them the night before, too, and never one that is empty, or holds nothing but what is in the list of another one.
    """
    key = run_test.key
    stored = state.executions[key]
    living = sum(known.deleted_at is None for known in stored.values())
    vanished = {each for each, known in stored.items() if known.deleted_at is None and each not in everywhere}
    is_suspicious = is_mass_vanishing(vanished=len(vanished), living=living) and not run.accept_deletions
    if is_suspicious:
        existing = await find_existing(run, sorted(vanished)[:SAMPLE_EXECUTIONS])
        error = None
        if not existing:
            error = (
                f"{len(vanished)} of its {living} stored executions are no longer listed; nothing was changed: {ACCEPT}"
            )
        elif not record.lists[key].executions:
            shown = first_few(existing, shown=1)
            error = (
                f"its list shows none of its {living} executions, which exist: {shown}; nothing was changed: run again; if the "
                "list stays so, run with --accept-deletions, which keeps the executions that exist"
            )
        elif is_mass_vanishing(vanished=len(vanished) - record.not_listed_before(key), living=living):
            record.vanished[key] = VanishedCounts(not_listed=len(vanished), not_answered=0)
            error = (
                f"{len(vanished)} of its {living} stored executions are missing from its list, although they exist: "
                f"{first_few(existing, shown=1)}; nothing was changed, {NEXT_TIME}"
            )
        if error:
            del record.lists[key]
            fail(run, record, run_test, error)
            return None
    # Nothing else could resolve a dead letter whose execution was deleted before it had a row.
    vanished |= state.orphans[key].keys() - everywhere
    record.necessary_requests += len(vanished)
    return vanished


def _find_places(run: Run, record: Record, state: StoredState) -> tuple[dict[Part, set[str]], Moves]:
    """What to drop for every execution to lie in one place only, which the state then says, and what to move from there."""
    homes: dict[str, Collection[str]] = {key: found.executions.keys() for key, found in record.lists.items()}
    doubled = find_doubled(state)
    load_missing({part.run_test_key for parts in doubled.values() for part in parts}, state)
    drops = surplus(doubled, state, {each.key: () for each in run.settings.configured} | homes)
    as_if_dropped(state, drops)
    listed, dropped = record.listed_ids(), {(part.run_test_key, each) for part, ids in drops.items() for each in ids}
    for part, execution_ids in state.scattered.items():
        # Those that no list has may be all that is left of them, unless they are the same elsewhere.
        with_others = {each for each in execution_ids if (part.run_test_key, each) in dropped}
        if going := with_others | execution_ids & listed | _same_elsewhere(state, part, execution_ids):
            drops[part] = drops.get(part, set()) | going
    return drops, find_moves(state, homes, record.names())


def _same_elsewhere(state: StoredState, part: Part, execution_ids: AbstractSet[str]) -> set[str]:
    """Those of these executions without a row of which the part holds the same calls and evals as the part where they stay."""
    places = state.stray_places[part.run_test_key]
    homes = {each: Part(part.run_test_key, places[each]) for each in execution_ids & places.keys()}
    digests = {found: state.index.parts[found].held_digests() for found in {part, *homes.values()}}
    return {each for each, home in homes.items() if digests[part][each] == digests[home].get(each)}


async def read_missing_payloads(run: Run, record: Record, state: StoredState) -> None:
    """Read the payloads of executions that seemed to say nothing new until stored rows were moved or dropped.

    One that cannot be read makes its run test's list incomplete, and is left as it is.
    """
    for key, found in list(record.lists.items()):
        missing = [
            row
            for row in found.executions.values()
            if row.packed is None and not gives_nothing_to_do(run, row, key, state)
        ]
        if not missing:
            continue
        record.necessary_requests += len(missing)
        listed, unreadable = dict(found.executions), list[str]()
        try:
            for row in missing:
                try:
                    execution = await run.client.get(get_execution(row.execution_id))
                except NotFoundError:
                    del listed[row.execution_id]
                    record.not_found_by_id[key].add(row.execution_id)
                except SourceError as error:
                    del listed[row.execution_id]
                    unreadable.append(str(error))
                else:
                    listed[row.execution_id] = ListedExecution.of(execution).with_payload(execution.payload)
        finally:
            record.lists[key] = replace(
                found,
                executions=listed,
                is_complete=found.is_complete and not unreadable,
                unreadable=(*found.unreadable, *unreadable),
            )


def make_plan(run: Run, record: Record, state: StoredState, *, keys: AbstractSet[str] | None = None) -> list[Planned]:
    """What to do with each listed execution that was not begun, most valuable first; recorded, too.

    With ``keys``, only those run tests are planned, without anything to scrub: that is for the end, when all is known.
    """
    page_limit, begun = run.settings.api.page_limit, {item.execution.execution_id for item in record.begun}
    planned = [item for item in record.all_planned() if item.execution.execution_id not in begun]
    new = [each for each in record.run_tests if each.key in record.lists and each.key not in record.planned]
    for run_test in new:
        if keys is None or run_test.key in keys:
            planned += plan_run_test(
                run_test,
                record.lists[run_test.key],
                state.executions[run_test.key],
                policy=run.policy,
                strays=state.stray_places[run_test.key],
            )
            record.planned[run_test.key] = []
    scrub_requests = run.settings.export.scrub_requests if keys is None else 0
    planned = order_by_worth(scrub(planned, requests=scrub_requests, page_limit=page_limit))
    record.note_planned([*record.begun, *planned])
    for run_test in new:
        if run_test.key in record.planned:
            reasons = dict(count_reasons(record.planned[run_test.key]))
            run.notify("listed", run_test=run_test.name, executions=record.listed[run_test.key], reasons=reasons)
    run.progress.planned_executions = sum(item.is_fetched for item in record.all_planned())
    run.progress.planned_requests = sum(requests_to_fetch(record.all_planned(), page_limit=page_limit).values())
    run.notify("planned", executions=run.progress.planned_executions, requests=run.progress.planned_requests)
    return planned
