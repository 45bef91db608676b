"""Worlds for the sandbox, each the same at any hour of any day."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from etl.sandbox import Sandbox, World
from etl.sandbox.generate import add_execution, finish_execution, make_world
from etl.sandbox.measures import eval_output
from etl.sandbox.world import (
    SimulatedCall,
    SimulatedExecution,
    SimulatedRunTest,
    listable_calls,
    rerun_execution,
    touch_call,
)

END = datetime(2026, 11, 1, 12, tzinfo=UTC)
CALL_STATUSES = ("pending", "queued", "ongoing", "completed", "failed", "analyzing", "cancelled")
EXECUTION_STATUSES = ("pending", "running", "completed", "failed", "cancelled", "cancelling", "evaluating")


def world_of(seed: int = 1, *, quirks: bool = False, **options: Any) -> World:
    """A world that ends at ``END``, with executions that are still running.

    With quirks some numbers are sent as text, integers as floats, and values as null: the API passes them on unchecked.
    """
    world = make_world(Random(seed), **({"end": END} | options))
    rng = Random(seed)
    for execution in executions_of(world) if quirks else ():
        for call in execution.calls:
            if call.ended_reason and call.status != "failed" and rng.random() < 0.06:
                _add_quirk(call, rng)
    return world


def _add_quirk(call: SimulatedCall, rng: Random) -> None:
    quirk = rng.choice(["text", "float", "null"])
    chat = call.chat_metrics or {}
    if quirk == "float":
        call.duration_seconds = float(call.duration_seconds or 0)
        call.chat_metrics = chat | {"csat_score": 4.25}
    else:
        call.chat_metrics = chat | {"total_tokens": "1500" if quirk == "text" else None}


def settled_world(seed: int = 1, **options: Any) -> World:
    """A world whose executions have all finished long ago."""
    settled: dict[str, Any] = {"end": datetime(2026, 10, 30, 15, tzinfo=UTC), "include_unfinished": False}
    return world_of(seed, **(settled | options))


def small_world(**options: Any) -> World:
    """A world of two run tests, six executions each, five calls each, unless the options say otherwise."""
    return world_of(4, **({"run_tests": 2, "executions": 6, "calls": 5} | options))


def a_sandbox(**options: Any) -> Any:
    """A fixture, as a module of tests names it: a running sandbox whose world is settled, with these options."""

    @pytest.fixture
    async def running() -> AsyncIterator[Sandbox]:
        async with Sandbox(settled_world(**options)) as sandbox:
            yield sandbox

    return running


def executions_of(world: World) -> Iterator[SimulatedExecution]:
    """Every execution that is not deleted, run test by run test."""
    return (each for run_test in world.run_tests for each in run_test.executions if not each.is_deleted)


def run_again(execution: SimulatedExecution, rng: Random, now: datetime) -> None:
    """Yesterday, with other calls."""
    rerun_execution(execution, now - timedelta(hours=29))
    finish_execution(execution, rng, now - timedelta(hours=28))


def go_on(world: World) -> None:
    """In each run test one execution runs again, and in the first one a new execution began long ago."""
    rng, now = Random(1), datetime.now(UTC)
    for run_test in world.run_tests:
        run_again(run_test.executions[1], rng, now)
    add_execution(world, world.run_tests[0], rng, now - timedelta(days=9), 2)


def add_mixed_execution(
    world: World, run_test: SimulatedRunTest, rng: Random, now: datetime, calls: int, *, chats: int
) -> SimulatedExecution:
    """A finished execution of so many calls, some of which are chats, whatever its run test's are."""
    execution = add_execution(world, run_test, rng, now, calls, status="pending")
    for call in rng.sample(execution.calls, min(chats, calls)):
        call.is_chat = True
    finish_execution(execution, rng, now + timedelta(minutes=20))
    return execution


def add_late_data(execution: SimulatedExecution, rng: Random, now: datetime) -> SimulatedCall | None:
    """A cost or an eval output of a call changes after its end; the execution's own metrics do not show it.

    Returns the changed call, or None if the execution lists no call.
    """
    calls = listable_calls(execution)
    measured = [call for call in calls if call.status == "completed"] or calls
    if not measured:
        return None
    call = rng.choice(measured)
    configs = execution.run_test.eval_configs
    if configs and rng.random() < 0.5:
        config = rng.choice(configs)
        output = eval_output(rng, config, now, passes=rng.random() < 0.5)
        call.eval_outputs = {
            **call.eval_outputs,
            config.config_id: {**output, "reason": f"Evaluated again at {now.isoformat()}"},
        }
    else:
        call.total_cost_cents = (call.total_cost_cents or 0) + rng.randint(1, 9)
    touch_call(call, now)
    return call
