"""What must hold after each night, by the laws of the design; each assertion names its law.

``judge`` compares what the source was, what the dataset was, and what became of both. It knows nothing of how the exporter works.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta

from etl.dataset.index import Index, read_index, update_index
from etl.dataset.layout import Scope
from etl.dataset.parts import Dataset
from etl.errors import ExitCode
from etl.files.names import INDEX
from etl.inspect.read_status import read_status
from etl.inspect.status import judge_status as verdict_of
from etl.inspect.verify import verify
from etl.model.records import METRICS
from etl.sandbox import SimulatedExecution, World
from tests.e2e.truth import assert_same_rows, call_rows, eval_rows, execution_rows, outputs_of
from tests.machine.dataset import DATA, Key, Row, Rows, is_from_lists, is_marked, is_vouched_for
from tests.machine.driver import EVERYTHING, ROOT, History, Night, alarms
from tests.machine.in_process import MemoryFiles
from tests.machine.requests import requests_are_few
from tests.machine.source import FINISHED, has_unknown_status

VERSION = {"export_run_id", "exported_at"}
OF_A_NAME = {"run_test_name", "calls_digest"}
NIGHTS_TO_HEAL = 2
_BEGUN = ("incomplete", "listed")  # such an execution goes on with what was fetched, and is compared in the next night
SHOWN, VERIFIED = 3, 12
"""After one night of so many the status is read, and verify: they read everything."""

IGNORED = {*os.environ.get("IGNORED_LAWS", "").split(",")}
"""Laws that are not judged, as "L7,L10": to see what else is broken while one is."""


def judge(history: History, night: Night) -> None:
    """All laws, after one night."""
    is_clean = not (night.struck or night.was_changing)
    is_complete = night.exit_code == ExitCode.COMPLETE
    if is_complete:
        _count_healing(history, night, is_clean=is_clean)
    history.follower.follow(night.after)
    laws: list[Callable[[History, Night], None]] = [
        nothing_is_lost,
        nothing_moves,
        marks_are_true,
        marked_rows_stay,
        vouchers_came_last,
        index_is_a_cache,
        final_stays_whole,
        *(() if night.is_killed else (codes_are_true,)),
        feed_tells_everything,
        *((dataset_is_the_source, everything_is_vouched_for, requests_are_few) if is_complete else ()),
        light_is_true,
    ]
    for law in laws:
        try:
            law(history, night)
        except AssertionError as error:
            if str(error).partition(":")[0] not in IGNORED:
                raise
    if is_complete:
        _forget_what_was_seen(history, night, is_clean=is_clean)
    _remember(history, night, is_clean=is_clean)


# L6, L7, L5


def nothing_is_lost(_history: History, night: Night) -> None:
    for table in DATA:
        lost = night.before.tables[table].keys() - night.after.tables[table].keys()
        assert not lost, f"L6: {table}: {len(lost)} rows are gone, as {min(lost)}"


def nothing_moves(history: History, night: Night) -> None:
    for execution_id, rows in night.after.of.items():
        parts = {held.part for held in rows.values()}
        if execution_id in history.hurt:
            continue
        assert len(parts) == 1, f"L7: {execution_id} lies in {len(parts)} parts"
        if before := night.before.of.get(execution_id):
            assert parts == {held.part for held in before.values()}, f"L7: {execution_id} has moved"


def marks_are_true(history: History, night: Night) -> None:
    """A mark is new only where the subject is gone, also in a night of faults and lying lists; and goes only where it is back."""
    executions = {each.execution_id: each for each in history.source.all_executions()}
    for table in DATA:
        before = night.before.tables[table]
        for key, held in night.after.tables[table].items():
            if (old := before.get(key)) is held or is_marked(held.row) == (old is not None and is_marked(old.row)):
                continue
            execution = executions[held.row["execution_id"]]
            if execution.execution_id in night.changed:
                continue
            is_in_deleted = any(execution.run_test is each for each in history.source.deleted)
            exists = not is_in_deleted and _exists(table, key, execution)
            assert exists != is_marked(held.row), f"L5: {table}: {key} is{'' if exists else ' not'} there"


def _exists(table: str, key: Key, execution: SimulatedExecution) -> bool:
    if table == "executions" or execution.is_deleted:
        return not execution.is_deleted
    call = next((each for each in execution.calls if each.call_execution_id == key[0]), None)
    if call is None or call.is_deleted:
        return False
    return table == "calls" or key[1] in outputs_of(call)


def marked_rows_stay(_history: History, night: Night) -> None:
    for table in DATA:
        after = night.after.tables[table]
        for key, old in night.before.tables[table].items():
            if (new := after.get(key, old)) is old or not (is_marked(old.row) and is_marked(new.row)):
                continue
            stays = [name for name in old.row if name not in VERSION | OF_A_NAME | _OF_AN_EXECUTION]
            other = [name for name in stays if old.row[name] != new.row[name]]
            assert not other, f"L6: {table}: {key} was deleted, and has another {other}"


_OF_AN_EXECUTION = {"exported_calls", "listed_calls", "export_state", "verified_at"}


# L2


def vouchers_came_last(_history: History, night: Night) -> None:
    """At whatever step a run is killed: an execution's row is published when its calls and evals are there."""
    assert not night.unvouched, f"L2: {night.unvouched[0]} vouched for calls that were not there"


def everything_is_vouched_for(history: History, night: Night) -> None:
    ids = _in_scope(history, night)
    broken = [each for each in ids & night.after.of.keys() if not is_vouched_for(night.after.of[each])]
    assert not broken, f"L2: {broken[0]} vouches for calls that are not there"


# L8


def final_stays_whole(history: History, night: Night) -> None:
    """What was final and is as the last good run found it is not incomplete, however a night without faults ends."""
    if night.struck or night.was_changing or history.is_struck:
        return
    unsure = history.source.unseen | history.source.nameless
    for execution_id, state in history.last_good_state.items():
        if execution_id in unsure or state != night.source_before[execution_id]:
            continue
        before, after = (rows.executions.get(execution_id) for rows in (night.before, night.after))
        has_detail = all(
            held.row["rerun_snapshots"] is not None
            for (table, _), held in night.before.of.get(execution_id, {}).items()
            if table == "calls"
        )
        if before and after and before.row["export_state"] == "exported" and has_detail:
            assert after.row["export_state"] != "incomplete", f"L8: {execution_id}, which was final, is incomplete"


# L9


def codes_are_true(history: History, night: Night) -> None:
    code, why = night.exit_code, reasons_for_an_alarm(history, night)
    told = f"exit {code}: {night.refused or (night.summary and (night.summary.failure or alarms(night.summary)))}"
    if code == ExitCode.CONFIGURATION:
        # A request that fails may be the one that would have shown what lives: then nothing is changed either.
        is_failing = night.struck or history.source.poisoned
        assert _may_be_wrong_workspace(night) or night.was_changing or is_failing, f"L5: {told}"
        assert history.is_struck or night.versions_after.items() >= {
            (path, version) for path, version in night.versions_before.items() if not path.startswith("runs/")
        }, "L5: the wrong workspace changed files"
        return
    assert not _is_wrong_workspace(history, night), (
        f"L5: nothing that is stored is listed or exists, and the run ends with {code}"
    )
    if night.summary is not None and night.summary.failure is None:
        assert (code == ExitCode.COMPLETE) == (not alarms(night.summary)), f"L9: {told}"
    if code == ExitCode.COMPLETE:
        assert not (must := reasons_that_must_be_told(history, night)), f"L9: exit 0, although {must[0]}"
        return
    assert why, f"L9: {told}, and nothing is wrong"
    listed = [each for each in history.source.executions() if each.run_test.name in night.names]
    is_down = all(map(history.source.is_poisoned, listed))  # it looks so where no row of any list can be read
    assert code == ExitCode.PARTIAL or night.struck or night.was_changing or is_down, f"L9: {told}"


def reasons_for_an_alarm(history: History, night: Night) -> list[str]:
    """Why a run may say that something is missing or unknown."""
    source, names = history.source, night.names
    found = [*reasons_that_must_be_told(history, night)]
    found += ["answers were wrong"] if night.struck else []
    found += ["the source changed meanwhile"] if night.was_changing else []
    found += ["files were damaged"] if history.is_struck else []
    found += ["the run was out of time"] if "minutes" in night.options else []
    living = _living(night.before, names) | _living(night.after, names)
    elsewhere = {each for each in living if night.listed_before.get(each) not in names}
    found += ["one of two run tests of a name was renamed"] if elsewhere else []
    executions = [each for each in source.executions() if each.run_test.name in names]
    found += ["a call is poisoned"] if any(map(source.is_poisoned, executions)) else []
    found += ["a status is unknown"] if any(map(has_unknown_status, executions)) else []
    unfinished = {each.execution_id for each in executions if each.status not in FINISHED}
    lettered = {held.row["execution_id"] for held in night.before.tables["errors"].values()}
    found += ["a request of an execution that runs was given up before"] if unfinished & lettered else []
    return found


def reasons_that_must_be_told(history: History, night: Night) -> list[str]:
    there = {state[0] for state in (*night.source_before.values(), *night.source_after.values())}
    there |= {test.name for test in history.source.world.run_tests}
    living = _living(night.before, night.names)
    # A narrowed run cannot tell it from one that another list has.
    unlisted = set[str]() if night.is_narrowed else living - night.listed_before.keys()
    exist = {each.execution_id for each in history.source.executions()} - night.changed
    found = [f"no run test is called {name}" for name in night.names - there]
    found += [f"{each} is not listed and exists" for each in unlisted & exist]
    if night.is_full and not night.lie.executions:
        tables = night.after.tables
        calls = [call for _, call in history.source.calls(history.source.executions(is_finished=True))]
        at_source: dict[str, set[Key]] = {
            "calls": {(call.call_execution_id,) for call in calls},
            "evals": {(call.call_execution_id, config_id) for call in calls for config_id in outputs_of(call)},
        }
        # What somebody takes away after the source has deleted it is gone: that is not defended.
        lost = [(table, key) for table, key in history.lost if table not in at_source or key in at_source[table]]
        found += [f"{key} of {table} was lost" for table, key in lost if key not in tables[table]][:1]
    return found


def _in_state(rows: Rows, *states: str) -> set[str]:
    return {each for each, held in rows.executions.items() if held.row["export_state"] in states}


def _living(rows: Rows, names: Iterable[str]) -> set[str]:
    executions = rows.executions
    return {each for each in rows.called(names) if not is_marked(executions[each].row)}


def _is_wrong_workspace(history: History, night: Night) -> bool:
    """None of the living executions that it covers is listed, and none exists; nobody said that this is right."""
    living = _living(night.before, night.names)
    at_source = {each.execution_id for each in history.source.executions()}
    exist = {each for each in _configured(night) & at_source if not night.source_before[each][1]}
    is_sure = not (
        night.struck or night.was_changing or night.is_narrowed or night.lie.executions or "minutes" in night.options
    )
    is_sure = is_sure and not history.source.poisoned  # a row that cannot be read may be one of them
    is_known = any(test.name in night.names for test in history.source.world.run_tests)  # else that is what it says
    return bool(
        living
        and is_sure
        and is_known
        and not night.options.get("accept_deletions")
        and not night.before.of.keys() & night.listed_before.keys()
        and not exist
        and night.exit_code is not None
    )


def _may_be_wrong_workspace(night: Night) -> bool:
    living, names = _configured(night), night.names | night.configured
    listed = {each for each, name in night.listed_before.items() if night.is_all or name in names}
    return bool(living) and not living & listed


def _configured(night: Night) -> set[str]:
    """The living executions of the configured run tests; with "all" of them, also those that are stored under other names."""
    names = {held.row["run_test_name"] for held in night.before.executions.values()} if night.is_all else night.names
    return _living(night.before, names | night.configured)


# L4, L5


def dataset_is_the_source(history: History, night: Night) -> None:
    """For each run test: what is not marked is what the source had when the run began, and still has; what is gone is marked."""
    unsure = night.changed | _hidden(history, night) | history.healing.keys()
    world = World("", [])
    for test in history.source.world.run_tests:
        if test.name in night.names:
            stable = [each for each in test.executions if each.execution_id not in unsure]
            world.run_tests.append(replace(test, executions=stable))
    executions = execution_rows(world)
    finished = {execution_id for (execution_id,), row in executions.items() if row["status"] in FINISHED}
    finished -= history.source.unseen
    finished -= _in_state(night.before, *_BEGUN) & _in_state(night.after, "settling")
    if night.struck:  # what could not be compared settles on, with the values of the night before
        finished -= _in_state(night.before, "settling")
    for table, truth, wanted in (
        ("executions", executions, {execution_id for (execution_id,) in executions}),
        ("calls", call_rows(world), finished),
        ("evals", eval_rows(world), finished),
    ):
        held = [row for row in _unmarked(night.after, table) if row["execution_id"] in wanted]
        try:
            assert_same_rows(table, held, {key: row for key, row in truth.items() if row["execution_id"] in wanted})
        except AssertionError as error:
            raise AssertionError(f"L4: {table} are not those of the source: {error}") from error
    if night.options.get("metrics") != "listed":
        inexact = [each for each in finished if is_from_lists(night.after, each)]
        assert not inexact, f"L4: exit 0, and calls of {inexact[0]} have no metrics of their own"
    living = _living(night.after, night.names) - unsure
    if night.is_narrowed:  # it does not see which of two run tests of a name has one now
        living = {each for each in living if night.listed_before.get(each) in night.names}
    assert living == {each for (each,) in executions}, "L4: other executions are unmarked than those of the source"
    _all_rows_have_the_name(history, night, executions)
    left = [held.row for key, held in night.after.tables["errors"].items() if (held.row["execution_id"],) in executions]
    left = [row for row in left if row["execution_id"] in finished]
    assert not left, f"L9: exit 0 beside a dead letter: {left[0]}"
    gone = {each.execution_id for each in history.source.all_executions() if each.is_deleted} - unsure
    if night.is_narrowed and any(
        night.listed_before.get(each, name) != name for name in night.names for each in _living(night.before, [name])
    ):
        gone.clear()  # one of them exists under a name whose list was not read
    for execution_id in gone & night.after.called(night.names):
        unmarked = [key for key, held in night.after.of[execution_id].items() if not is_marked(held.row)]
        assert not unmarked, f"L5: the execution of {unmarked[0]} is gone, and no mark says so"


def _unmarked(rows: Rows, table: str) -> list[Row]:
    return [held.row for held in rows.tables[table].values() if not is_marked(held.row)]


def _all_rows_have_the_name(history: History, night: Night, executions: dict[Key, Row]) -> None:
    history.unnamed |= night.before.of.keys() - night.before.executions.keys()
    nameless = history.hurt | history.unnamed  # what is marked keeps the name that only a lost row knew
    for (execution_id,), row in executions.items():
        # What a killed run left of one that runs again keeps its name until it has finished, and is fetched.
        if execution_id in history.unnamed and night.after.executions[execution_id].row["export_state"] == "waiting":
            continue
        rows = [held.row for held in night.after.of[execution_id].values()]
        names = {each["run_test_name"] for each in rows if not (execution_id in nameless and is_marked(each))}
        assert names == {row["run_test_name"]}, f"L7: rows of {execution_id} are called {names}"


def _hidden(history: History, night: Night) -> set[str]:
    """Executions of which the answers of this night did not show all."""
    return {*night.lie.executions, *(history.source.misread if history.source.renamed else ())} | {
        each.execution_id
        for each in history.source.all_executions()
        if any(call.call_execution_id in night.lie.calls for call in each.calls)
    }


def _in_scope(history: History, night: Night) -> set[str]:
    return {each for each, name in night.listed_before.items() if name in night.names} - night.changed


# the feed


def feed_tells_everything(history: History, night: Night) -> None:
    """Whoever replaces the executions that have a newer ``exported_at`` has what the dataset has."""
    if night.summary is not None and night.summary.failure is None:
        differs = history.follower.differs(night.after, said=bool(history.hurt))
        assert not differs, f"feed: {differs[0]} is another one than the feed tells"


def index_is_a_cache(history: History, night: Night) -> None:
    """What the index says of files in these versions is what these files say, whoever wrote them (L3)."""
    if history.nights % SHOWN or INDEX not in night.versions_after:
        return
    known, files = read_index(MemoryFiles(ROOT)), MemoryFiles(ROOT)
    for part, found in update_index(Dataset(files), Index(), []).parts.items():
        before = known.parts.get(part)
        if before is not None and before.versions == found.versions:
            assert before.counts == found.counts, f"L3: the index counts other rows of {part}"
            assert before.rows.equals(found.rows), f"L3: the index says something else of {part}"


# status


def light_is_true(history: History, night: Night) -> None:
    """Status is good after a run over everything that left nothing out, and not after one that did (L9)."""
    if history.nights % SHOWN or not any(path.startswith("runs/") for path in night.versions_after):
        return
    settings = night.settings
    assert settings is not None
    now = history.source.now + timedelta(hours=1)
    status = read_status(MemoryFiles(ROOT), now=now, configured=settings.configured)
    verdict = verdict_of(status)
    if night.is_killed:
        has_told = any(path.startswith("runs/") for path in night.versions_after.keys() - night.versions_before.keys())
        has_left_traces = not has_told and night.versions_after != night.versions_before
        assert not has_left_traces or not verdict.is_good, "L9: status is good after a run that was killed"
    elif night.exit_code:
        assert not verdict.is_good, f"L9: status is good after exit {night.exit_code}"
    elif night.is_full:
        assert verdict.is_good, f"L9: exit 0, but {verdict.text}"
        if not history.nights % VERIFIED:
            findings = verify(settings, Scope()).findings
            # What a killed run left of a run test that was deleted since stays so, or that only other settings name.
            others = night.after.of.keys() - night.after.called(night.names)
            is_left = not all(is_vouched_for(night.after.of[each]) for each in others)
            hand_made = {"damaged"} if history.hurt or history.source.deleted or is_left else set[str]()
            assert {each.kind.value for each in findings} <= {"dead_letter"} | hand_made, (
                f"L9: exit 0, but verify finds {findings}"
            )


# what is known from now on


def _count_healing(history: History, night: Night, *, is_clean: bool) -> None:
    """What a list hid must be right after two clean nights (L8)."""
    if is_clean and night.is_full:
        seen = _in_scope(history, night)
        history.healing = {
            each: left - (each in seen) for each, left in history.healing.items() if left > 1 or each not in seen
        }


def _forget_what_was_seen(history: History, night: Night, *, is_clean: bool) -> None:
    """A run that fetched all calls of an execution has seen what no list shows."""
    if not is_clean or not history.source.unseen:
        return
    asked = Counter(
        request.query["call_execution_id"]
        for request in night.requests
        if request.path == METRICS and "call_execution_id" in request.query
    )
    # Where lists take long, those that come last are scrubbed.
    is_slow = history.source.delays or "requests_per_minute" in night.options
    is_scrubbed = night.options.get("scrub_requests") == EVERYTHING and not is_slow
    scope = _in_scope(history, night)
    for execution in history.source.executions(is_finished=True):
        calls = [each for each in execution.calls if not each.is_deleted]
        has_all = bool(calls) and all(asked[each.call_execution_id] for each in calls)
        if execution.execution_id in scope and (night.options.get("full_refresh") or is_scrubbed or has_all):
            history.source.unseen.discard(execution.execution_id)


def _remember(history: History, night: Night, *, is_clean: bool) -> None:
    history.healing |= dict.fromkeys(_hidden(history, night), NIGHTS_TO_HEAL)
    if night.is_full and night.exit_code in (ExitCode.COMPLETE, ExitCode.PARTIAL):
        history.is_struck = False
        history.lost.clear()
    elif night.is_killed or night.exit_code:
        history.lost.clear()  # what becomes of it depends on how far that run came
    if not (is_clean and night.exit_code == ExitCode.COMPLETE):
        history.last_good_state = {}
    else:
        scope = _in_scope(history, night) - _in_state(night.before, *_BEGUN)
        if not night.is_full:  # what it saw of some may be another state
            scope = {each for each, state in history.last_good_state.items() if night.source_after.get(each) == state}
        history.last_good_state = {each: state for each, state in night.source_after.items() if each in scope}
