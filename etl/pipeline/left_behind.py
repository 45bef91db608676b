"""Stored executions of run tests that are not exported: whose others move away, that have another key now, or that are gone.

Nothing else looks for what was deleted of them. They are asked for by id once; nothing is written here.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import chain

import pyarrow.compute as pc

from etl.errors import ConfigurationError, NotFoundError, SourceError
from etl.extract.client import Client
from etl.extract.endpoints import get_execution, list_executions
from etl.extract.executions import look_up
from etl.extract.plan import is_mass_vanishing
from etl.load.relocate import Moves
from etl.load.state import StoredState, load_missing
from etl.model.lifecycle import StoredExecution
from etl.model.wording import counted, first_few, quoted
from etl.pipeline.lists import fail, may_be_of_another_workspace
from etl.pipeline.record import Record, VanishedCounts
from etl.pipeline.run import Run

SAMPLE_EXECUTIONS = 5
_MOST_SOUGHT = 20
NEXT_TIME = "because new ones may be missing, too; if the next list says the same, the run accepts it"
ACCEPT = "check the key's workspace, or run with --accept-deletions if they were deleted on purpose"


async def find_left_behind(
    run: Run, record: Record, state: StoredState, moves: Moves
) -> tuple[dict[str, set[str]], Moves]:
    """The executions to ask for, by the key under which they lie, and what still moves.

    Where suspiciously many would be left behind, that run test and the one that takes the others are left alone.
    """
    sources = {source.run_test_key for source, _ in moves} - {run_test.key for run_test in record.run_tests}
    heirs = {key: {target for source, target in moves if source.run_test_key == key} for key in sources}
    for key, heir in _with_another_key(run, record, state).items():
        heirs.setdefault(key, set()).add(heir)
    left_behind, places, everywhere = dict[str, set[str]](), state.places(), record.listed_ids()
    for key, targets in sorted(heirs.items()):
        load_missing({key}, state)
        left = not_known_as_deleted(places[key].keys() - everywhere, state.executions[key])
        homes = {key} if key in sources else {key} | targets
        living = sum(known.deleted_at is None for each in homes for known in state.executions[each].values())
        if left and await _is_believed(run, record, key, left, living, targets & record.lists.keys()):
            left_behind[key] = {*left}
    record.left_behind = {key: len(left) for key, left in left_behind.items()}
    moves = {(source, key): ids for (source, key), ids in moves.items() if key in record.lists}
    if record.discovered and record.discovered.is_complete:
        with_living = {
            part.run_test_key for part, each in state.index.parts.items() if each.rows["deleted_at"].null_count
        }
        record.keys_without_run_test = sorted(state.elsewhere.keys() & with_living - heirs.keys())
    await _confirm_gone(run, record, state)
    _doubt_many_gone(run, record, state)
    return left_behind | await _left_by_deleted_run_tests(run, record, state), moves


async def refuse_another_workspace(run: Run, record: Record, state: StoredState) -> None:
    """Refuse to export "all" run tests, or some of them, where the key sees none of the executions that the dataset holds.

    What it sees in their place must not come into this dataset: the next run would take all that is stored for deleted.

    Raises:
        ConfigurationError: it does not, and nobody accepts that.
        KeyRefusedError, SourceUnavailableError: the run cannot go on.
    """
    if run.accept_deletions or not may_be_of_another_workspace(run, record, state):
        return
    load_missing(state.elsewhere.keys(), state)
    # But for those of which a run before has asked: what a deleted run test had can be had by its id for ever.
    living = {
        execution_id: key
        for key in state.executions.keys() - record.asked_before()
        for execution_id, known in state.executions[key].items()
        if known.deleted_at is None
    }
    if not living:
        return
    # By id the API may answer for all workspaces of an organization: that executions exist proves nothing where their run tests are
    # not listed, or one of their names lists others.
    keys = {*living.values()}
    lists = [found for key in keys if (found := record.lists.get(key)) and found.is_complete]
    is_gone = not keys <= {each.key for each in record.run_tests}
    has_others = len(lists) == len(keys) and any(found.executions for found in lists)
    is_foreign = record.discovered is not None and (is_gone or has_others)
    if is_foreign or await sees_none(run.client, living):
        record.run_tests = ()  # these are not the dataset's: what was complete of its own is not forgotten for them
        raise another_workspace(len(living))


async def sees_none(client: Client, execution_ids: Collection[str]) -> bool:
    """Whether up to twenty of these executions, if there are any, do not exist, as far as the API answers.

    Raises:
        KeyRefusedError, SourceUnavailableError: nothing can be asked.
    """
    ids = sorted(execution_ids)
    for execution_id in ids[:: max(1, len(ids) // _MOST_SOUGHT)][:_MOST_SOUGHT]:
        try:
            await client.get(get_execution(execution_id))
        except NotFoundError:
            continue
        except SourceError:
            return False
        return False
    return bool(ids)


def another_workspace(living: int) -> ConfigurationError:
    """What to raise where the key sees none of so many stored executions."""
    return ConfigurationError(
        f"the key sees none of the {counted(living, 'execution')} that the dataset holds: it may belong to another workspace; "
        f"nothing was changed: {ACCEPT}"
    )


def _with_another_key(run: Run, record: Record, state: StoredState) -> dict[str, str]:
    """The keys under which rows lie that have the name of a run test with another key now, each with that one.

    None that a run before has asked for.
    """
    heirs = {each.name: each.key for each in record.run_tests if each.key in record.lists}
    keys = state.elsewhere.keys() - (set() if run.accept_deletions else record.asked_before())
    found = dict[str, str]()
    for part, each in state.index.parts.items():
        if part.run_test_key in keys:
            for name in heirs.keys() & pc.unique(each.rows["run_test_name"]).to_pylist():
                found[part.run_test_key] = heirs[name]
    return found


async def _is_believed(
    run: Run, record: Record, key: str, left: Sequence[str], living: int, targets: AbstractSet[str]
) -> bool:
    """Whether so few are left behind under the key that they may be gone; else the run tests of ``targets`` are left alone."""
    if not is_mass_vanishing(vanished=len(left), living=living) or run.accept_deletions:
        return True
    existing = await find_existing(run, left[:SAMPLE_EXECUTIONS])
    known = max((record.not_listed_before(target) for target in targets), default=0)
    if existing and not is_mass_vanishing(vanished=len(left) - known, living=living):
        return True
    why = f"no longer listed; nothing was changed: {ACCEPT}"
    if existing:
        why = f"in no list, although they exist: {first_few(existing, shown=1)}; nothing was changed, {NEXT_TIME}"
    for run_test in [each for each in record.run_tests if each.key in targets]:
        del record.lists[run_test.key]
        if existing:
            record.vanished[run_test.key] = VanishedCounts(not_listed=len(left), not_answered=0)
        where = f"stored under run_test={key}, from where the others move"
        fail(run, record, run_test, f"{len(left)} of the {living} executions {where}, are {why}")
    return False


async def find_existing(run: Run, execution_ids: Sequence[str]) -> list[str]:
    """Those that exist. One that does proves that the key sees the right workspace."""
    found = await look_up(run.client, execution_ids, workers=len(execution_ids))
    missing = found.deleted | found.unknown
    return [each for each in execution_ids if each not in missing]


async def _confirm_gone(run: Run, record: Record, state: StoredState) -> None:
    """Ask by its name for each run test that the list of run tests has no more; one that exists makes the list incomplete.

    Unless a run before has told of it, and that is accepted: the name may answer although another workspace has the run test now.
    """
    accepted = record.before.undiscovered if record.before and run.accept_deletions else ()
    asked_for = record.asked_before()
    for key in [each for each in record.keys_without_run_test if each not in asked_for]:
        load_missing({key}, state)
        names = {known.run_test_name for known in state.executions[key].values()} - {*record.names().values()}
        for name in filter(None, names):
            record.necessary_requests += 1
            try:
                await run.client.get(list_executions(name, page=1, limit=1))
            except NotFoundError:
                continue
            except SourceError as error:
                problem = (
                    f"{quoted(name)}: missing from the list of run tests, and the look-up by its name failed; the next run tries "
                    f"again: {error}"
                )
            else:
                problem = (
                    f"{quoted(name)}: missing from the list of run tests, although it exists; run again to export it, or with "
                    "--accept-deletions if another workspace has it now"
                )
            if problem in accepted:
                continue
            record.keys_without_run_test.remove(key)
            _note_incomplete(record, problem)
            break


def _doubt_many_gone(run: Run, record: Record, state: StoredState) -> None:
    """Where suspiciously many run tests are gone at once, the key may see less than before: they are left alone, and a problem."""
    if record.discovered is None or run.accept_deletions:
        return
    gone = {*record.keys_without_run_test} - record.asked_before()
    load_missing(gone, state)
    gone = {key for key in gone if any(known.deleted_at is None for known in state.executions[key].values())}
    if is_mass_vanishing(vanished=len(gone), living=len(gone) + len(record.run_tests)):
        record.keys_without_run_test = sorted({*record.keys_without_run_test} - gone)
        run_tests = f"{len(gone)} run tests in the dataset, such as {min(gone)},"
        _note_incomplete(record, f"{run_tests} are no longer listed; nothing was changed there: {ACCEPT}")


def _note_incomplete(record: Record, problem: str) -> None:
    """The list of run tests may lack some, as this problem says."""
    if record.discovered:
        problems = (*record.discovered.problems, problem)
        record.discovered = replace(record.discovered, problems=problems, is_complete=False)


async def _left_by_deleted_run_tests(run: Run, record: Record, state: StoredState) -> dict[str, set[str]]:
    """Executions of run tests that the source no longer has, or that moved away, by key, unless a run before has asked for all.

    Where no stored execution is listed any more, the key may see another workspace now: they are left alone.
    """
    gone = record.gone - (set() if run.accept_deletions else record.asked_before()) | record.unanswered_before()
    if not run.accept_deletions and record.listed_ids().isdisjoint(chain.from_iterable(state.places().values())):
        gone = set()
    load_missing(gone, state)
    everywhere = record.listed_ids()
    return {
        key: {*not_known_as_deleted(state.places()[key].keys() - everywhere, state.executions[key])} for key in gone
    }


def not_known_as_deleted(execution_ids: Iterable[str], stored: Mapping[str, StoredExecution]) -> list[str]:
    """The executions of which the dataset does not say already that they were deleted."""
    return [each for each in sorted(execution_ids) if each not in stored or stored[each].deleted_at is None]
