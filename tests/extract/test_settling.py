"""Executions that only settle are compared by two lists, and what is dead is fetched alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.model.findings import Kind
from etl.model.records import DETAIL, METRICS, RUNS, VOICE_CALLS
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox
from etl.sandbox.dispatch import HTML_404
from etl.sandbox.simulate import execution_detail
from etl.sandbox.world import Scenario, World
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import poison_details, settings_for
from tests.worlds import settled_world

CALLS = 6
ENDED = datetime(2026, 10, 30, 15, tzinfo=UTC)
FIRST_NIGHT, LATER, DAY = ENDED + timedelta(hours=2), ENDED + timedelta(days=4), timedelta(days=1)


async def night(server: Sandbox, folder: Path, now: datetime, **export: object) -> Summary:
    """An export at that time, by the source's clock, too."""
    server.requests.clear()
    return await job.export(settings_for(server, folder / "data", export=export), clock=lambda: now)


def asked(server: Sandbox) -> dict[str, int]:
    """How many requests of each kind."""
    kinds = {"detail": (DETAIL,), "list": (RUNS, VOICE_CALLS), "call": ("?call_execution_id=",)}
    targets = [request.target.replace(f"{RUNS}?call", f"{METRICS}?call") for request in server.requests]
    return {name: sum(any(mark in each for mark in marks) for each in targets) for name, marks in kinds.items()}


def letters(folder: Path) -> list[dict[str, Any]]:
    """The dead letters of the dataset."""
    return rows_of(folder, "errors")


def assert_holds_details(folder: Path, world: World) -> None:
    """What only the detail shows of each call stands in its row."""
    held = {row["call_execution_id"]: row["overall_score"] for row in rows_of(folder, "calls")}
    assert held == {
        call["id"]: call["overall_score"]
        for run_test in world.run_tests
        for execution in run_test.executions
        for call in execution_detail(execution, "", {"limit": "999"})["results"]
    }


@pytest.fixture
def world() -> World:
    return settled_world(run_tests=1, days=1, executions=3, calls=CALLS)


async def test_list_that_is_written_in_another_way_costs_two_requests_an_execution_in_two_nights(
    world: World, tmp_path: Path
) -> None:
    async with Sandbox(world) as server:
        for now in (FIRST_NIGHT, LATER):
            await night(server, tmp_path, now)
        novel = Fault(edit=lambda body: body.replace(b'"total_calls":', b'"novel":1,"total_calls":'))
        server.fault = lambda request, _nth: novel if "run_test_name" in request.query else None
        odd = await night(server, tmp_path, LATER)
        sent = asked(server)
        again, after = [await night(server, tmp_path, LATER + timedelta(days=days)) for days in (1, 2)]

    assert (odd.exit_code, odd.problems) == (0, [])
    assert sent == {"detail": 3, "list": 3, "call": 0}
    assert (again.requests, after.requests) == (1 + 2 * 3, 1)
    assert_equals_world(tmp_path, world)


@pytest.mark.parametrize("fault", [Fault(status=502), Fault(status=404, body=HTML_404)])
async def test_source_that_gives_no_details_tonight_is_soon_asked_for_no_more(tmp_path: Path, fault: Fault) -> None:
    """A path that the server does not know is a failure like any other, and the dead letters name it."""
    world = settled_world(run_tests=1, days=1, executions=12, calls=1)
    async with Sandbox(world) as server:
        server.fault = lambda request, _nth: fault if request.path.startswith(DETAIL) else None
        first = await job.export(settings_for(server, tmp_path / "data", api={"concurrency": 1}), clock=lambda: LATER)
        assert sum(request.path.startswith(DETAIL) for request in server.requests) == 5 * 2
        told = [row["message"] for row in letters(tmp_path)]
        server.fault = None
        second = await night(server, tmp_path, LATER + DAY)
    assert sum("the detail was not requested, because 5 consecutive requests" in text for text in told) == 12 - 5
    assert all(f" answered {fault.status}: " in text for text in told)
    assert (first.exit_code, second.exit_code) == (3, 0)
    assert_holds_details(tmp_path, world)


async def test_details_that_fail_for_good_hold_back_no_others(tmp_path: Path) -> None:
    """Of 12 executions, which have a call each, the details of all but the first and the last to be fetched fail."""
    world = settled_world(run_tests=1, days=1, executions=12, calls=1)
    executions = sorted(world.run_tests[0].executions, key=lambda each: each.started_at)
    async with Sandbox(world) as server:
        server.fault = poison_details(server, [each.calls[0].call_execution_id for each in executions[1:-1]])
        await job.export(settings_for(server, tmp_path / "data", api={"concurrency": 1}), clock=lambda: LATER)
    assert {row["subject_id"] for row in letters(tmp_path)} == {each.execution_id for each in executions[1:-1]}


async def test_execution_whose_detail_fails_settles_on_and_is_fetched_once_it_has_settled_for_long(
    world: World, tmp_path: Path
) -> None:
    """Then a dead letter says that its rows lack the detail, which alone is requested from then on."""
    first, second, _ = world.run_tests[0].executions
    async with Sandbox(world) as server:
        await night(server, tmp_path, FIRST_NIGHT)
        server.fault = lambda request, _nth: Fault(status=502) if request.path.startswith(DETAIL) else None
        first.calls[0].total_cost_cents = 4321  # only the detail shows it
        second.calls[1].scenario = Scenario("another", "Another")
        waiting = await night(server, tmp_path, FIRST_NIGHT + DAY)
        asked_while_waiting = asked(server)
        overdue = await night(server, tmp_path, FIRST_NIGHT + 2 * DAY)
        asked_once = asked(server)
        for days in (3, 4, 5):
            still = await night(server, tmp_path, FIRST_NIGHT + days * DAY)
            assert (still.exit_code, asked(server)) == (3, asked_while_waiting)
        server.fault = None
        healed = [await night(server, tmp_path, FIRST_NIGHT + days * DAY) for days in (6, 7, 8)]

    assert asked_while_waiting == {"detail": 3 * 2, "list": 3, "call": 0}
    assert [each.kind for each in waiting.findings] == [Kind.NOT_COMPARED]
    assert asked_once["call"] == 3 * CALLS
    assert (waiting.exit_code, overdue.exit_code, *(each.exit_code for each in healed)) == (0, 3, 0, 0, 0)
    assert healed[-1].requests == 1
    assert {row["export_state"] for row in rows_of(tmp_path, "executions")} == {"exported"}
    assert_equals_world(tmp_path, world)
    assert_holds_details(tmp_path, world)


async def test_dead_letter_costs_its_own_request_and_two_lists_and_its_execution_settles(
    world: World, tmp_path: Path
) -> None:
    execution = world.run_tests[0].executions[0]
    dead = execution.calls[3].call_execution_id
    async with Sandbox(world) as server:
        server.fault = lambda request, _nth: Fault(status=400) if dead in request.target else None
        first = await night(server, tmp_path, LATER, metrics="calls")
        server.fault = None
        second = await night(server, tmp_path, LATER + DAY)
        resumed = asked(server)
        assert_holds_details(tmp_path, world)
        await night(server, tmp_path, LATER + 2 * DAY)
        compared = asked(server)
        await night(server, tmp_path, LATER + 3 * DAY)

    assert (first.exit_code, second.exit_code) == (3, 0)
    assert resumed == {"detail": 1, "list": 1, "call": 1}
    assert compared == {"detail": 1, "list": 1, "call": 0}
    assert asked(server) == {"detail": 0, "list": 0, "call": 0}
    assert_equals_world(tmp_path, world)


async def test_execution_with_evals_that_wait_is_not_final_at_once(world: World, tmp_path: Path) -> None:
    """An eval may be run again long after its execution has ended."""
    calls = world.run_tests[0].executions[0].calls
    outputs = [call.eval_outputs for call in calls]
    for call in calls:
        call.eval_outputs = {config_id: {"status": "pending"} for config_id in call.eval_outputs}
    async with Sandbox(world) as server:
        first = await night(server, tmp_path, LATER)
        for call, output in zip(calls, outputs, strict=True):
            call.eval_outputs = output
        second = await night(server, tmp_path, LATER + DAY)
        third = await night(server, tmp_path, LATER + 2 * DAY)
        fourth = await night(server, tmp_path, LATER + 3 * DAY)

    assert [each.exit_code for each in (first, second, third, fourth)] == [0, 0, 0, 0]
    assert_equals_world(tmp_path, world)
    assert fourth.requests == 1
