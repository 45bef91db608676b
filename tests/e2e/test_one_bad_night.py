"""Whatever becomes of an execution, and whatever one night lacks of it: the nights after it bring all of it, without a scrub.

Each sequence of events happens to an execution of its own, all in one dataset.
"""

import copy
import itertools
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from etl import sandbox
from etl.model.records import DETAIL, METRICS
from etl.pipeline import job
from etl.sandbox import Execution, Fault, Sandbox, SandboxRequest
from tests.e2e.faults import edited_calls
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import settings_for

FIRST_NIGHT = datetime(2026, 10, 30, 2, tzinfo=UTC)
NOTHING, CHANGES = "nothing", ("rerun begins", "rerun", "late data", "call deleted")
CALLS = 4

Calls = list[dict[str, Any]]


def without_evals(calls: Calls, *, of_every: int = 1) -> Calls:
    return [call if number % of_every else call | {"eval_outputs": {}} for number, call in enumerate(calls)]


def without_one_eval(calls: Calls) -> Calls:
    return [call | {"eval_outputs": dict(sorted(call["eval_outputs"].items())[1:])} for call in calls]


LISTS: dict[str, Callable[[Calls], Calls]] = {
    "no evals": without_evals,
    "evals of half of the calls": lambda calls: without_evals(calls, of_every=2),
    "one eval of each call less": without_one_eval,
    "a call less": lambda calls: calls[1:],
    "no calls": lambda _calls: [],
}
BAD = (*LISTS, "metrics of a call fail", "detail fails")


@dataclass
class Story:
    """An execution and what happens to it, night by night."""

    execution: Execution
    events: Sequence[str]


def stories_of(world: sandbox.World, rng: random.Random, nights: int) -> list[Story]:
    """All with one bad night at most. After its second comparison an execution is final: late changes then wait for a scrub."""
    happenings = (
        events
        for events in itertools.product((NOTHING, *CHANGES, *BAD), repeat=nights)
        if sum(event in BAD for event in events) <= 1
        and events.count("call deleted") <= 1  # two of four are many
        and not {"late data", "call deleted"}.intersection(events[2:])
    )
    stories = []
    for events, has_end in itertools.product(happenings, (True, False)):
        begins_at = FIRST_NIGHT - timedelta(hours=7 if has_end else 60)
        execution = sandbox.add_execution(world, world.run_tests[0], rng, begins_at, CALLS)
        execution.completed_at = execution.completed_at if has_end else None
        stories.append(Story(execution, events))
    return stories


def happen(event: str, execution: Execution, rng: random.Random, now: datetime) -> None:
    ended_at, living = execution.completed_at, sandbox.listable_calls(execution)
    match event:
        case "rerun begins" if execution.status != "running":
            sandbox.rerun_execution(execution, now)
        case "rerun":
            sandbox.rerun_execution(execution, now - timedelta(hours=3))
            sandbox.finish_execution(execution, rng, now - timedelta(hours=2))
            execution.completed_at = ended_at  # a rerun keeps it
        case "late data":
            sandbox.add_late_data(execution, rng, now)
        case "call deleted":
            sandbox.delete_call(living[0])


@pytest.mark.parametrize("nights", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("settle_by", ["detail", pytest.param("refetch", marks=pytest.mark.slow)])
async def test_what_one_bad_night_lacks_comes_with_the_next(tmp_path: Path, nights: int, settle_by: str) -> None:
    rng, tonight = random.Random(nights), dict[str, str]()
    world = sandbox.make_world(
        rng, end=FIRST_NIGHT - timedelta(days=9), run_tests=1, executions=1, include_unfinished=False
    )
    stories = stories_of(world, rng, nights)

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        name = (
            request.query.get("execution_id") or request.query.get("call_execution_id") or request.path.split("/")[-2]
        )
        event = tonight.get(name, NOTHING)
        if event in LISTS:
            return edited_calls(world, request, LISTS[event])
        fails = {"metrics of a call fail": METRICS, "detail fails": DETAIL}.get(event)
        return Fault(status=500) if fails and request.path.startswith(fails) else None

    async with Sandbox(world) as server:
        server.fault = fault
        sections = {"api": {"max_tries": 1, "concurrency": 8}, "export": {"settle_by": settle_by}}
        settings = settings_for(server, tmp_path / "data", **sections)
        for night in range(nights + 4):
            now, tonight = FIRST_NIGHT + timedelta(days=night), {}
            for story in stories:
                event = story.events[night] if night < nights else NOTHING
                happen(event, story.execution, rng, now)
                if event == "metrics of a call fail":
                    tonight[story.execution.calls[-1].call_execution_id] = event
                else:
                    tonight[story.execution.execution_id] = event
                if night == nights and story.execution.status == "running":
                    sandbox.finish_execution(story.execution, rng, now)
            summary = await job.export(settings, clock=partial(FIRST_NIGHT.__add__, timedelta(days=night)))

    assert (summary.exit_code, summary.requests) == (0, 1)
    assert {row["export_state"] for row in rows_of(tmp_path, "executions")} == {"exported"}
    assert_equals_world(tmp_path, world)


@pytest.mark.parametrize("lagging", [("runs/?execution_id",), ("runs/?execution_id", "call_execution_id", DETAIL)])
@pytest.mark.parametrize("settle_by", ["detail", pytest.param("refetch", marks=pytest.mark.slow)])
async def test_what_is_answered_from_the_day_before_for_a_night_comes_with_the_next(
    tmp_path: Path, lagging: tuple[str, ...], settle_by: str
) -> None:
    """The list of executions tells of changes to final ones that the lists of their calls do not have yet."""
    rng = random.Random(7)
    world = sandbox.make_world(rng, end=FIRST_NIGHT - timedelta(days=9), run_tests=1, executions=8)
    called, rerun, measured, *_ = world.run_tests[0].executions[2:]

    async with Sandbox(world) as server:
        settings = settings_for(server, tmp_path / "data", api={"max_tries": 1}, export={"settle_by": settle_by})

        async def export(day: int) -> int:
            return int((await job.export(settings, clock=partial(FIRST_NIGHT.__add__, timedelta(days=day)))).exit_code)

        assert [await export(day) for day in (0, 1)] == [0, 0]
        before = copy.deepcopy(world)
        called.calls.append(replace(called.calls[0], call_execution_id=str(uuid.UUID(int=7))))
        world.index_execution(called)
        happen("rerun", rerun, rng, FIRST_NIGHT)
        measured.calls[0].duration_seconds = 77.0

        def fault(request: SandboxRequest, _nth: int) -> None:
            server.world = before if any(each in request.target for each in lagging) else world

        server.fault = fault
        assert await export(2) in (0, 3)
        lagging = ()
        assert [await export(day) for day in (3, 4, 5)] == [0, 0, 0]
    assert_equals_world(tmp_path, world)


@pytest.mark.parametrize("before", ["never complete", "renamed", "last run forgotten"])
async def test_what_appears_after_missed_nights_is_looked_at_twice(tmp_path: Path, before: str) -> None:
    """Whatever is known of the runs before: only a first export believes a list at once."""
    rng = random.Random(before)
    world = sandbox.make_world(
        rng, end=FIRST_NIGHT - timedelta(days=9), run_tests=1, executions=2, include_unfinished=False
    )
    [run_test] = world.run_tests
    poisoned = run_test.executions[0].calls[0].call_execution_id
    appeared = set[str]()

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        if request.query.get("execution_id") in appeared:
            return edited_calls(world, request, LISTS["evals of half of the calls"])
        is_poisoned = before == "never complete" and request.query.get("call_execution_id") == poisoned
        return Fault(status=500) if is_poisoned else None

    async with Sandbox(world) as server:
        server.fault = fault

        async def export(day: int) -> int:
            settings = settings_for(server, tmp_path / "data", api={"max_tries": 1})
            summary = await job.export(settings, clock=partial(FIRST_NIGHT.__add__, timedelta(days=day)))
            return int(summary.exit_code)

        assert await export(0) == (3 if before == "never complete" else 0)
        begins_at = FIRST_NIGHT + timedelta(days=2)
        appeared = {sandbox.add_execution(world, run_test, rng, begins_at, CALLS).execution_id for _ in range(3)}
        if before == "renamed":
            run_test.name = "Another name"
        if before == "last run forgotten":
            (tmp_path / "data" / "_state" / "last_run.json").unlink()
        assert await export(7) == (3 if before == "never complete" else 0)

        server.fault = None
        assert [await export(day) for day in (8, 9)] == [0, 0]
    assert {row["export_state"] for row in rows_of(tmp_path, "executions")} == {"exported"}
    assert_equals_world(tmp_path, world)
