"""Law 9.

9. A finding is the only alarm. Everything worth saying is a ``Finding`` with a kind and a next step. A run that
   finishes exits with 3 if and only if a finding says that something is missing or unknown.
"""

from datetime import datetime, timedelta

from etl.dataset.layout import Scope
from etl.errors import DestinationError, ExitCode
from etl.inspect.read_status import read_status
from etl.inspect.verify import verify
from etl.model.findings import Kind
from etl.model.lifecycle import LONG_AGO
from tests.e2e.truth import outputs_of
from tests.machine.dataset import Key, is_vouched_for
from tests.machine.driver import ROOT, SHOWN, History, Night, alarms
from tests.machine.expected.details import missing_details
from tests.machine.expected.drift import drift_that_must_be_told
from tests.machine.expected.truth import Truth, living_in
from tests.machine.in_process import MemoryFiles
from tests.machine.source import FINISHED, has_unknown_status

_VERIFIED = 12
"""Dataset and source are compared by ``verify`` after one night of so many: it reads everything."""


def moves_are_told(history: History, night: Night) -> None:
    """If stored executions belong to a run test that is not configured, a notice says so, and their rows have its name.

    Once: the rows of the next night have that name.
    """
    if not night.is_complete or night.is_all:
        return
    names = {each.execution_id: each.run_test.name for each in history.source.executions()}
    moved = {each for each in living_in(night.before, night.names) - night.changed if each in names}
    moved = {each for each in moved if names[each] not in night.names | night.configured}
    for each in moved:
        name = night.after.executions[each].row["run_test_name"]
        assert name == names[each], f"L7: {each} belongs to {names[each]}, and its row says {name}"
    told = [each for each in night.summary.findings if each.kind is Kind.NOT_EXPORTED] if night.summary else []
    assert bool(told) >= bool(moved), f"L9: nobody says that {len(moved)} executions are exported no more"


def findings_say_what_to_do(_history: History, night: Night) -> None:
    """Each finding of a run has a next step."""
    for finding in night.summary.findings if night.summary else ():
        assert finding.kind.next_step, f"L9: nobody says what to do about {finding.kind}"


def no_dead_letter_is_left(history: History, night: Night) -> None:
    """After exit 0 nothing that was compared has a dead letter."""
    if night.is_complete:
        compared = Truth.of(history, night).compared
        errors = [held.row for held in night.after.tables["errors"].values()]
        left = [row for row in errors if row["execution_id"] in compared]
        assert not left, f"L9: exit 0 beside a dead letter: {left[0]}"


def codes_are_true(history: History, night: Night) -> None:
    if night.is_killed:
        return
    code, why = night.exit_code, reasons_for_an_alarm(history, night)
    told = f"exit {code}: {night.refused or (night.summary and (night.summary.failure or alarms(night.summary)))}"
    if code == ExitCode.CONFIGURATION:
        # A request that fails may be the one that would have shown what lives: then nothing is changed either.
        is_failing = night.struck or history.source.poisoned
        assert _may_be_wrong_workspace(night) or night.was_changing or is_failing, f"L5: {told}"
        assert history.memory.is_struck or night.versions_after.items() >= {
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
    found += ["answers were wrong"] if night.struck_lists else []
    found += ["a detail is missing"] if night.struck and missing_details(night) else []
    found += ["the source changed meanwhile"] if night.was_changing else []
    found += ["files were damaged"] if history.memory.is_struck else []
    found += ["the run was out of time"] if "minutes" in night.options else []
    executions = [each for each in source.executions() if each.run_test.name in names]
    stored = night.before.called(names)
    by_id = [each for each in source.everything() if each.run_test.name in names or each.execution_id in stored]
    found += ["a call is poisoned"] if any(map(source.is_poisoned, by_id)) else []
    found += ["only details say what a deleted run test had"] if night.struck and source.deleted else []
    found += ["a status is unknown"] if any(map(has_unknown_status, executions)) else []
    found += ["the API's answers changed"] if night.names & source.formed_names() else []
    found += ["values are still to come that the API gave in another form"] if history.memory.healing else []
    found += ["several verdicts say neither"] if len(source.odd_verdicts()) > 1 else []
    unfinished = {each.execution_id for each in executions if each.status not in FINISHED}
    lettered = {held.row["execution_id"] for held in night.before.tables["errors"].values()}
    found += ["a request of an execution that runs was given up before"] if unfinished & lettered else []
    return found


def reasons_that_must_be_told(history: History, night: Night) -> list[str]:
    there = {test.name for test in history.source.world.run_tests}
    unlisted = living_in(night.before, night.names) - night.listed_before.keys()
    exist = {each.execution_id for each in history.source.executions()} - night.changed
    found = [f"no run test is called {name}" for name in night.names - there]
    found += [f"{each} is not listed and exists" for each in unlisted & exist]
    found += drift_that_must_be_told(history, night)
    if night.is_full and not night.lie.executions:
        tables = night.after.tables
        calls = [call for _, call in history.source.calls(history.source.executions(is_finished=True))]
        at_source: dict[str, set[Key]] = {
            "calls": {(call.call_execution_id,) for call in calls},
            "evals": {(call.call_execution_id, config_id) for call in calls for config_id in outputs_of(call)},
        }
        # What somebody takes away after the source has deleted it is gone: that is not defended.
        lost = [(table, key) for table, key in history.memory.lost if table not in at_source or key in at_source[table]]
        found += [f"{key} of {table} was lost" for table, key in lost if key not in tables[table]][:1]
    return found


def _is_wrong_workspace(history: History, night: Night) -> bool:
    """None of the living executions that it covers is listed, and none exists, and what is listed is not new.

    Nobody said that this is right.
    """
    living = living_in(night.before, night.names)
    listed = [each for each in history.source.executions() if night.listed_before.get(each.execution_id) in night.names]
    newest = max(filter(None, (held.row["started_at"] for held in night.before.executions.values())), default=LONG_AGO)
    starts: list[datetime | None] = [each.started_at for each in listed]
    is_new = bool(starts) and all((start or LONG_AGO) > newest for start in starts)
    at_source = {each.execution_id for each in history.source.executions()}
    exist = {each for each in _configured(night) & at_source if not night.source_before[each][1]}
    is_sure = not (
        night.struck or night.was_changing or night.is_narrowed or night.lie.executions or "minutes" in night.options
    )
    # A row that cannot be read may be one of them, and a forgotten one that is listed belongs to the workspace.
    is_sure = is_sure and not (history.source.poisoned or history.source.forgotten)
    is_known = any(test.name in night.names for test in history.source.world.run_tests)  # else that is what it says
    return bool(
        living
        and is_sure
        and is_known
        and not is_new
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
    """The living executions of the configured run tests; with "all", also those that are stored under other names."""
    names = {held.row["run_test_name"] for held in night.before.executions.values()} if night.is_all else night.names
    return living_in(night.before, names | night.configured)


# what status and verify say of it


def light_is_true(history: History, night: Night) -> None:
    """Status is good after a run over everything that left nothing out, and not after one that did (L9)."""
    if history.nights % SHOWN or not any(path.startswith("runs/") for path in night.versions_after):
        return
    settings = night.settings
    assert settings is not None
    now = history.source.now + timedelta(hours=1)
    try:
        status = read_status(MemoryFiles(ROOT), now=now, settings=settings)
    except DestinationError as error:
        # The night was killed before it had finished what a killed ``forget`` has left, and nobody reads meanwhile.
        if night.is_killed and "forget is removing rows" in str(error):
            return
        raise
    verdict = status.verdict
    if night.is_killed:
        has_told = any(path.startswith("runs/") for path in night.versions_after.keys() - night.versions_before.keys())
        has_left_traces = not has_told and night.versions_after != night.versions_before
        assert not has_left_traces or not verdict.is_good, "L9: status is good after a run that was killed"
    elif night.exit_code:
        assert not verdict.is_good, f"L9: status is good after exit {night.exit_code}"
    elif night.is_full:
        assert verdict.is_good, f"L9: exit 0, but {verdict.text}"
        if not history.nights % _VERIFIED:
            findings = verify(settings, Scope()).findings
            # What a killed run left of a run test that was deleted since stays so, or that only other settings name.
            others = night.after.of.keys() - night.after.called(night.names)
            is_left = not all(is_vouched_for(night.after.of[each]) for each in others)
            hand_made = {"damaged"} if history.memory.hurt or history.source.deleted or is_left else set[str]()
            assert {each.kind.value for each in findings} <= {"dead_letter"} | hand_made, (
                f"L9: exit 0, but verify finds {findings}"
            )
