"""A year of twenty run tests, in which people, a provider and the API change things.

Each red night has a cause that somebody can act on, and what it says names that cause; it ends when they act. What
nobody need act on (a clone, swapped names, another provider) makes no night red.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import pytest

from etl.errors import ExitCode
from etl.model.findings import Kind
from etl.sandbox import Fault, SandboxRequest
from etl.sandbox.generate import new_run_test
from etl.sandbox.world import SimulatedExecution, SimulatedRunTest, add_run_test
from tests.forms import LOST
from tests.machine.driver import History, Night, told
from tests.machine.oracle import judge
from tests.machine.source import FORMS, Entry

RUN_TESTS = 20
NIGHTS = 365
_PROVIDER_CHANGES = {90: "a block", 100: "", 210: "a field", 220: ""}
"""On which days the answers take another form, of which the executions' details have the values, too."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that makes nights red until somebody acts."""

    kind: Kind | None
    """What a finding says of it; None if the run is refused."""
    act: Callable[[], None]
    """What people do."""
    nights: int = 3
    """How many nights they need."""
    code: ExitCode = ExitCode.PARTIAL
    """How these nights end."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_each_red_night_of_a_year_names_a_cause_that_somebody_ends() -> None:
    rng = random.Random(7)
    with told(7, judge) as history:
        _twenty_run_tests(history)
        trouble: Trouble | None = None
        red = 0
        for day in range(NIGHTS):
            _a_day(history, rng)
            if day in _PROVIDER_CHANGES and trouble is None:
                history.source.form = _PROVIDER_CHANGES[day]
                history.source.formed = [*history.source.world.run_tests]
            if trouble is None and day % 12 == 5 and not history.source.form:
                trouble, begun, told_on = _something_goes_wrong(history, rng, day), day, 0
            elif trouble and day == begun + trouble.nights:
                trouble.act()
                assert told_on, f"day {day}: nobody was told of {trouble}"
                trouble = None
            night = _night(history)
            alarms = {each.kind for each in night.summary.findings if each.is_alarm} if night.summary else set()
            if night.exit_code:
                assert trouble is not None, f"day {day}: red without a cause: {night}"
                assert alarms <= {trouble.kind}, f"day {day}: red for another cause: {night}"
                assert night.exit_code == trouble.code, f"day {day}: {night}"
                red, told_on = red + 1, told_on + 1
        assert 0 < red < NIGHTS / 3


def _twenty_run_tests(history: History) -> None:
    world, source = history.source.world, history.source
    while len(world.run_tests) < RUN_TESTS:
        name, profile = f"Agent {len(world.run_tests) + 1}", world.run_tests[0].profile
        add_run_test(world, new_run_test(source.rng, name, source.now, profile))
    source.entries[:] = [Entry(run_test, run_test.name) for run_test in world.run_tests]


def _night(history: History) -> Night:
    history.source.now += timedelta(hours=16)
    night = history.night()
    assert night is not None
    return night


def _a_day(history: History, rng: random.Random) -> None:  # noqa: C901, PLR0912 a case for each thing that people do
    """Executions begin and end, and people do what nobody need be told of."""
    source = history.source
    for execution in source.executions(is_finished=False):
        source.finish(execution)
    for run_test in rng.sample(source.world.run_tests, 4):
        source.begin(run_test, rng.randint(1, 4), is_finished=rng.random() < 0.8)
    run_test = rng.choice([each for each in source.world.run_tests if _living(each)])
    execution = rng.choice(_living(run_test))
    match rng.choice(("rerun", "late", "delete call", "delete", "backfill", "clone", "swap", "nothing")):
        case "rerun":
            source.rerun(execution)
        case "late":
            source.come_late(execution)
        case "delete call":
            for _, call in source.calls([execution])[:1]:
                source.delete_call(execution, call)
        case "delete" if len(_living(run_test)) > 1:
            execution.is_deleted = True
        case "backfill":
            source.begin(run_test, 2, is_finished=True, age=timedelta(days=40))
        case "clone" if len(source.world.run_tests) < 2 * RUN_TESTS:
            old_name, run_test.name = run_test.name, f"{run_test.name} old"
            new = new_run_test(source.rng, old_name, source.now, run_test.profile)
            add_run_test(source.world, new)
            for entry in source.entries:
                entry.run_test = new if entry.run_test is run_test else entry.run_test
            if source.formed:
                source.formed.append(new)
        case "swap":
            other = rng.choice(source.world.run_tests)
            run_test.name, other.name = other.name, run_test.name
            for entry in source.entries:
                entry.run_test = {id(run_test): other, id(other): run_test}.get(id(entry.run_test), entry.run_test)


def _living(run_test: SimulatedRunTest) -> list[SimulatedExecution]:
    return [each for each in run_test.executions if not each.is_deleted and each.status != "running"]


def _something_goes_wrong(history: History, rng: random.Random, day: int) -> Trouble:
    source = history.source
    entry = rng.choice(source.configured())
    run_test = entry.run_test

    def repair() -> None:
        source.fault, source.form = None, ""

    match ("rename", "delete", "call", "form", "detail", "down", "key")[day // 12 % 7]:
        case "rename":
            run_test.name = f"{run_test.name} renamed on day {day}"
            return Trouble(Kind.NO_SUCH_RUN_TEST, source.follow)
        case "delete":
            source.world.run_tests.remove(run_test)
            source.deleted.append(run_test)

            return Trouble(Kind.NO_SUCH_RUN_TEST, partial(source.entries.remove, entry))
        case "call" | "detail" as subject:
            execution = source.begin(run_test, 3, is_finished=True)
            # Lists would show a voice call whole.
            failing = (
                (execution.calls[0].call_execution_id, f"test_execution_id={execution.execution_id}")
                if subject == "call"
                else (f"executions/{execution.execution_id}",)
            )

            def fail(request: SandboxRequest, _nth: int) -> Fault | None:
                return Fault(status=500) if any(each in request.target for each in failing) else None

            source.fault = fail
            return Trouble(Kind.DEAD_LETTER, repair)
        case "form":
            source.form = rng.choice(sorted(LOST.keys() & FORMS.keys()))
            source.formed = [*source.world.run_tests]

            return Trouble(Kind.ANSWERS_CHANGED, repair, nights=6)
        case "down":
            source.fault = lambda _request, _nth: Fault(status=503)
            return Trouble(Kind.LIST_FAILED, repair, nights=1, code=ExitCode.SOURCE_UNAVAILABLE)
        case _:
            source.fault = lambda _request, _nth: Fault(status=401)
            return Trouble(None, repair, nights=2, code=ExitCode.KEY_REFUSED)
