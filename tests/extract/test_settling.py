"""Executions that only settle are compared by two lists, and what is dead is fetched alone."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.extract.settling import Counts
from etl.model.findings import Kind
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Sandbox
from etl.sandbox.server import Fault
from etl.sandbox.world import Scenario, World
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import settings_for
from tests.worlds import settled_world

CALLS = 6
DETAIL = "/simulate/test-executions/"
ENDED = datetime(2026, 10, 30, 15, tzinfo=UTC)
FIRST_NIGHT, LATER, DAY = ENDED + timedelta(hours=2), ENDED + timedelta(days=4), timedelta(days=1)


async def night(server: Sandbox, folder: Path, now: datetime, **export: object) -> Summary:
    """An export at that time, by the source's clock, too."""
    server.requests.clear()
    return await job.export(settings_for(server, folder / "data", export=export), clock=lambda: now)


def asked(server: Sandbox) -> dict[str, int]:
    """How many requests of each kind."""
    kinds = {"detail": DETAIL, "list": "runs/", "call": "call_execution_id="}
    return {name: sum(mark in request.target for request in server.requests) for name, mark in kinds.items()}


@pytest.fixture
def world() -> World:
    return settled_world(run_tests=1, days=1, executions=3, calls=CALLS)


def with_a_new_field(body: bytes) -> bytes:
    """The list of executions as a newer server may write it."""
    return body.replace(b'"total_calls":', b'"novel":1,"total_calls":')


async def test_list_that_is_written_in_another_way_costs_two_requests_an_execution_in_two_nights(
    world: World, tmp_path: Path
) -> None:
    async with Sandbox(world) as server:
        for now in (FIRST_NIGHT, LATER):
            await night(server, tmp_path, now)
        server.fault = lambda request, _nth: Fault(edit=with_a_new_field) if "run_test_name" in request.query else None
        odd = await night(server, tmp_path, LATER)
        sent = asked(server)
        again, after = [await night(server, tmp_path, LATER + timedelta(days=days)) for days in (1, 2)]

    assert (odd.exit_code, odd.problems) == (0, [])
    assert sent == {"detail": 3, "list": 3, "call": 0}
    assert (again.requests, after.requests) == (1 + 2 * 3, 1)
    assert_equals_world(tmp_path, world)


async def test_detail_that_is_never_to_be_had_is_soon_asked_for_no_more(tmp_path: Path) -> None:
    world = settled_world(run_tests=1, days=1, executions=12, calls=1)
    async with Sandbox(world) as server:
        await night(server, tmp_path, FIRST_NIGHT)
        server.fault = lambda request, _nth: Fault(status=502) if request.path.startswith(DETAIL) else None
        second = await job.export(settings_for(server, tmp_path / "data", api={"concurrency": 1}), clock=lambda: LATER)
    assert sum(request.path.startswith(DETAIL) for request in server.requests) == 12 + 5 * 2
    assert "the details of 10 executions could not be read" in "\n".join(second.notices)


async def test_execution_whose_detail_fails_settles_on_and_is_fetched_once_it_has_settled_for_long(
    world: World, tmp_path: Path
) -> None:
    first, second, _ = world.run_tests[0].executions
    async with Sandbox(world) as server:
        await night(server, tmp_path, FIRST_NIGHT)
        server.fault = lambda request, _nth: Fault(status=502) if request.path.startswith(DETAIL) else None
        first.calls[0].total_cost_cents = 4321  # only the detail shows it
        second.calls[1].scenario = Scenario("another", "Another")
        waiting = await night(server, tmp_path, FIRST_NIGHT + DAY)
        asked_while_waiting = asked(server)
        overdue = await night(server, tmp_path, FIRST_NIGHT + 2 * DAY)

    assert asked_while_waiting == {"detail": 3 * 2, "list": 3, "call": 0}
    assert [each.kind for each in waiting.findings] == [Kind.NO_DETAIL]
    states = sorted(row["export_state"] for row in rows_of(tmp_path, "executions"))
    assert states == ["exported", "settling", "settling"]
    assert asked(server)["call"] == 3 * CALLS
    assert (waiting.exit_code, overdue.exit_code) == (0, 0)
    assert_equals_world(tmp_path, world)


async def test_dead_letter_costs_its_own_request_and_a_list_and_its_execution_settles(
    world: World, tmp_path: Path
) -> None:
    execution = world.run_tests[0].executions[0]
    dead = execution.calls[3].call_execution_id
    async with Sandbox(world) as server:
        server.fault = lambda request, _nth: Fault(status=400) if dead in request.target else None
        first = await night(server, tmp_path, LATER)
        server.fault = None
        second = await night(server, tmp_path, LATER + DAY)
        resumed = asked(server)
        await night(server, tmp_path, LATER + 2 * DAY)
        compared = asked(server)
        await night(server, tmp_path, LATER + 3 * DAY)
        amended = asked(server)
        await night(server, tmp_path, LATER + 4 * DAY)

    assert (first.exit_code, second.exit_code) == (3, 0)
    assert resumed == {"detail": 0, "list": 1, "call": 1}
    # The first of these two nights brought what the detail alone has of the call.
    assert compared == amended == {"detail": 1, "list": 1, "call": 0}
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


def test_all_counts_add_up() -> None:
    numbers = [each.name for each in fields(Counts) if each.name not in ("deleted_executions", "failure")]
    some: dict[str, Any] = {name: index + 1 for index, name in enumerate(numbers)}
    total = Counts(**some, deleted_executions={"a"}, failure="first")
    total.add(Counts(**some, deleted_executions={"a", "b"}, failure="last"))
    total.add(Counts())
    assert [getattr(total, name) for name in numbers] == [2 * value for value in some.values()]
    assert total.deleted_executions == {"a", "b"}
    assert total.failure == "last"
