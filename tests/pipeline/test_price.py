"""What a run says that its requests were for, and what a plan said of it before, beside what the sandbox was asked."""

import random
import shutil
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.extract.endpoints import Purpose
from etl.pipeline import job
from etl.pipeline.job import Plan
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox
from etl.sandbox.generate import add_execution
from etl.sandbox.world import SimulatedExecution
from tests.e2e.truth import assert_equals_world
from tests.support import settings_for
from tests.worlds import a_sandbox, executions_of, settled_world

CALLS = 5
ONE_BY_ONE = {"metrics": "calls"}
NEWS = 2
"""The list of run tests, and what the one with news says of its executions."""
NOTHING = {"list": 0, "first_fetch": 0, "settle": 0, "dead_letters": 0, "sweep": 0}
server = a_sandbox(run_tests=1, executions=4, calls=CALLS)


def ended_lately(server: Sandbox) -> SimulatedExecution:
    """A new execution that settles for a day from now on."""
    ended_at = datetime.now(UTC) - timedelta(hours=2)
    return add_execution(server.world, server.world.run_tests[0], random.Random(5), ended_at, CALLS)


def asked_for(server: Sandbox, purposes: Mapping[str, Collection[SimulatedExecution]]) -> dict[str, int]:
    """How many requests the sandbox was sent for the calls of these executions; all others are for lists."""
    owners = {
        subject: purpose
        for purpose, executions in purposes.items()
        for execution in executions
        for subject in (execution.execution_id, *(call.call_execution_id for call in execution.calls))
    }
    counts = Counter(
        next((purpose for subject, purpose in owners.items() if subject in request.target), "list")
        for request in server.requests
    )
    return NOTHING | counts


async def night(
    server: Sandbox, folder: Path, purposes: Mapping[str, Collection[SimulatedExecution]], **options: Any
) -> tuple[Plan, Summary]:
    """A plan, and the summary of a run, which says by purpose what the sandbox was sent."""
    settings = settings_for(server, folder / "data", **{"export": ONE_BY_ONE, **options})
    planned = await job.plan(settings)
    server.requests.clear()
    summary = await job.export(settings)
    assert summary.requests_by_purpose == asked_for(server, purposes)
    assert summary.requests == len(server.requests)
    assert summary.call_requests == sum("call_execution_id" in request.query for request in server.requests)
    return planned, summary


async def refetched(server: Sandbox, folder: Path, **options: Any) -> int:
    """How many requests a run that compares nothing sends for a copy of the dataset."""
    copy = shutil.copytree(folder, folder.with_name(f"{folder.name}-refetched"))
    settings = settings_for(server, copy / "data", export={"settle_by": "refetch"}, **options)
    return (await job.export(settings)).requests


async def test_each_request_has_its_purpose_and_plan_says_so_before(server: Sandbox, tmp_path: Path) -> None:
    old = list(server.world.run_tests[0].executions)

    planned, first = await night(server, tmp_path, {"first_fetch": old})
    assert planned.requests_by_purpose == NOTHING | {"list": 1 + NEWS, "first_fetch": 4 * (2 + CALLS)}
    assert first.requests_by_purpose == planned.requests_by_purpose
    assert first.call_requests == planned.call_requests == 4 * CALLS

    lately = ended_lately(server)
    planned, second = await night(server, tmp_path, {"first_fetch": [lately]})
    assert second.requests_by_purpose == NOTHING | {"list": 1 + NEWS, "first_fetch": 2 + CALLS}
    assert planned.requests_by_purpose == second.requests_by_purpose

    planned, quiet = await night(server, tmp_path, {"settle": [lately]})
    assert quiet.requests_by_purpose == NOTHING | {"list": 1, "settle": 2}
    assert planned.requests_by_purpose == quiet.requests_by_purpose

    lately.calls[2].total_cost_cents = 4321
    lately.calls[4].is_deleted = True
    old[0].is_deleted = True
    refetching = await refetched(server, tmp_path)
    planned, settled = await night(server, tmp_path, {"settle": [lately]})
    assert settled.requests_by_purpose == NOTHING | {"list": 2, "settle": 4}, "each looked up that is gone"
    assert planned.requests_by_purpose == NOTHING | {"list": 3, "settle": 2}, "no list tells which calls differ"
    assert refetching - settled.requests == CALLS - 3

    executions = {"settle": [lately], "sweep": old}
    planned, swept = await night(server, tmp_path, executions, export=ONE_BY_ONE | {"sweep_days": 1})
    assert swept.requests_by_purpose == NOTHING | {"list": 1, "settle": 2, "sweep": 2 * 3}
    assert planned.requests_by_purpose[Purpose.SWEEP] == swept.requests_by_purpose[Purpose.SWEEP]


async def test_execution_with_a_numeric_eval_settles_in_two_requests_and_a_change_in_two_more(
    server: Sandbox, tmp_path: Path
) -> None:
    """Its list of calls stays 500: each call costs two requests once; then the detail tells which of them changed."""
    lately, config = ended_lately(server), server.world.run_tests[0].eval_configs[0]
    for call in lately.calls:
        call.status = "completed"
        output = {"name": config.name, "output": 0.5, "output_type": "numeric", "reason": "r"}
        call.eval_outputs = call.eval_outputs | {config.config_id: output}
    first = await job.export(settings_for(server, tmp_path / "data", export=ONE_BY_ONE))
    assert first.requests == 1 + NEWS + 4 * (2 + CALLS) + (3 + 2 * CALLS), "its list twice, and its detail"
    assert_equals_world(tmp_path, server.world)
    _planned, quiet = await night(server, tmp_path, {"settle": [lately]})
    lately.calls[0].total_cost_cents = 4321
    lately.calls[1].eval_outputs = lately.calls[1].eval_outputs | {config.config_id: output | {"output": 0.75}}
    _planned, changed = await night(server, tmp_path, {"settle": [lately]})
    assert (quiet.requests, changed.requests) == (1 + 2, 1 + 2 + 2 * 2)
    assert quiet.rows.get("evals", 0) == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize(("path", "requests"), [("/runs/", 1 + 2), ("/test-executions/", 1 + 3)])
async def test_one_500_costs_a_settling_execution_a_request(
    server: Sandbox, tmp_path: Path, path: str, requests: int
) -> None:
    ended_lately(server)
    await job.export(settings_for(server, tmp_path / "data", export=ONE_BY_ONE))
    fails = [Fault(status=500)]
    server.fault = lambda request, _nth: fails.pop() if path in request.target and fails else None
    settled = await job.export(settings_for(server, tmp_path / "data", export=ONE_BY_ONE))
    assert (settled.exit_code, settled.requests) == (0, requests)


async def test_dead_letters_have_their_price_and_retries_are_in_it(server: Sandbox, tmp_path: Path) -> None:
    execution = server.world.run_tests[0].executions[1]
    broken = execution.calls[3].call_execution_id
    two_tries = {"api": {"max_tries": 2}}
    fault = Fault(status=503, headers={"Retry-After": "0"})
    server.fault = lambda request, _nth: fault if broken in request.target else None
    _planned, first = await night(server, tmp_path, {"first_fetch": server.world.run_tests[0].executions}, **two_tries)
    assert (first.requests_by_purpose[Purpose.FIRST_FETCH], first.retries) == (4 * (2 + CALLS) + 1, 1)

    planned, sick = await night(server, tmp_path, {"dead_letters": [execution]}, **two_tries)
    assert planned.requests_by_purpose == NOTHING | {"list": 1, "dead_letters": 3}
    assert sick.requests_by_purpose == NOTHING | {"list": 1, "dead_letters": 3 + 1}, "its lists, two tries"

    server.fault = None
    refetching = await refetched(server, tmp_path, **two_tries)
    planned, healed = await night(server, tmp_path, {"dead_letters": [execution]}, **two_tries)
    assert healed.requests_by_purpose == planned.requests_by_purpose == NOTHING | {"list": 1, "dead_letters": 3}
    assert refetching == healed.requests - 1, "what is stored stays, however it settles"
    assert_equals_world(tmp_path, server.world)


async def test_lists_of_all_run_tests_and_of_what_moved_are_lists(server: Sandbox, tmp_path: Path) -> None:
    """Of a renamed run test one execution was deleted: it is asked for under the name that is gone."""
    executions = server.world.run_tests[0].executions
    planned, first = await night(server, tmp_path, {"first_fetch": executions}, run_tests="all")
    whole = NOTHING | {"list": 1 + NEWS, "first_fetch": 4 * (2 + CALLS)}
    assert first.requests_by_purpose == planned.requests_by_purpose == whole

    server.world.run_tests[0].name = "Another name"
    executions[0].is_deleted = True
    planned, renamed = await night(server, tmp_path, {}, run_tests="all")
    assert renamed.requests_by_purpose == NOTHING | {"list": 4}, "the old name, and the execution"
    assert "'Another name': was called" in renamed.notices[0]
    assert planned.requests_by_purpose == NOTHING | {"list": 3}, "the rows have the old name then"


async def test_look_up_takes_as_many_requests_as_the_plan_allows_for(tmp_path: Path) -> None:
    """An execution of a deleted run test answers by its id; only its detail tells that it is gone."""
    async with Sandbox(settled_world(run_tests=2, executions=2, calls=CALLS)) as server:
        await night(server, tmp_path, {"first_fetch": [*executions_of(server.world)]})
        gone = server.world.run_tests.pop(0)
        server.world.run_tests[0].name = gone.name
        planned, marked = await night(server, tmp_path, {}, run_tests=[gone.name])
    lookups = 2 * len(gone.executions)
    assert planned.requests_by_purpose == NOTHING | {"list": 1 + lookups}
    assert marked.requests_by_purpose == NOTHING | {"list": 1 + lookups + 1}, "and the old name of the other one"
