"""One bad row of the server spoils each page that holds it; all others are listed, and it is told which one is bad."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from etl.extract.crawl import Crawl
from etl.extract.executions import list_executions_completely
from etl.extract.plan import Planned
from etl.model.lifecycle import ExecutionList
from etl.model.records import METRICS, RUNS, DeadLetter, ExecutionBundle
from etl.sandbox import Fault, Sandbox, SandboxRequest, World
from etl.sandbox.world import SimulatedExecution as SandboxExecution
from etl.sandbox.world import listable_executions, touch_call
from tests.bundles import planned
from tests.extract.held import settling_of
from tests.support import client_of
from tests.worlds import settled_world

BEGUN_AT = datetime(2027, 1, 1, tzinfo=UTC)


def one_run_test(executions: int, calls: int = 1) -> World:
    return settled_world(run_tests=1, executions=executions, calls=calls)


def in_order(world: World) -> list[SandboxExecution]:
    return listable_executions(world, world.run_tests[0].name)


def poison(execution: SandboxExecution) -> str:
    """The server fails at what it sums up over the execution's calls."""
    execution.calls[0].chat_metrics = {"total_tokens": 12.5}
    return execution.execution_id


async def listed(server: Sandbox, page_limit: int) -> ExecutionList:
    name = server.world.run_tests[0].name
    async with client_of(server.base_url, max_tries=3) as client:
        return await list_executions_completely(client, name, page_limit=page_limit, begun_at=lambda: BEGUN_AT)


@pytest.mark.parametrize(
    ("size", "position", "page_limit", "max_limit"),
    [(1, 0, 1024, None), (7, 6, 4, None), (40, 20, 16, 7), (40, 39, 1024, 7)],
)
async def test_one_bad_execution_is_identified_and_all_others_are_listed(size, position, page_limit, max_limit):
    async with Sandbox(one_run_test(size), max_limit=max_limit) as server:
        order = in_order(server.world)
        bad = poison(order[position])
        found = await listed(server, page_limit)
    assert found.executions.keys() == {each.execution_id for each in order}
    assert {key for key, row in found.executions.items() if "metrics" not in row.unpack().payload} == {bad}
    assert found.heads.keys() == {bad}
    assert (found.heads[bad].endpoint, found.heads[bad].status) == (METRICS, 500)
    assert not found.is_complete
    assert not found.unreadable


async def test_bad_execution_whose_head_fails_as_well_is_told_by_the_error():
    async with Sandbox(one_run_test(7)) as server:
        bad = poison(in_order(server.world)[3])
        server.fault = lambda request, _nth: Fault(status=500) if request.path == RUNS else None
        found = await listed(server, 1024)
    assert found.executions.keys() == {each.execution_id for each in in_order(server.world)} - {bad}
    assert not found.heads
    assert ["answered 500" in line for line in found.unreadable] == [True]


# Calls


async def fetched(server: Sandbox, plan: Planned, page_limit: int) -> ExecutionBundle:
    bundles: list[ExecutionBundle] = []

    async def emit(bundle: ExecutionBundle) -> None:
        bundles.append(bundle)

    async with client_of(server.base_url, max_tries=3) as client:
        await Crawl(
            client, iter([plan]), emit, concurrency=2, page_limit=page_limit, settling=settling_of(client)
        ).run()
    [bundle] = bundles
    return bundle


@pytest.mark.parametrize("page_limit", [4, 1024])
@pytest.mark.parametrize("has_detail", [True, False])
async def test_call_that_cannot_be_listed_is_a_dead_letter_and_the_others_are_fetched(page_limit, has_detail):
    """Each answer that holds its entry is a 500, as when a value of it cannot be rendered."""
    async with Sandbox(one_run_test(1, calls=13)) as server:
        [execution] = in_order(server.world)
        for number, call in enumerate(execution.calls):
            touch_call(call, execution.started_at + timedelta(seconds=-number))
        bad, *others = [call.call_execution_id for call in execution.calls]

        def spoil(request: SandboxRequest, _nth: int) -> Fault | None:
            if request.path == RUNS:
                is_spoiled = (
                    request.query.get("call_execution_id", bad) == bad and request.query.get("page", "1") == "1"
                )
            else:
                is_spoiled = request.path != METRICS and not has_detail
            return Fault(status=500, body=b"<html><h1>Server Error (500)") if is_spoiled else None

        server.fault = spoil
        bundle = await fetched(server, planned(execution.execution_id), page_limit)
    [letter] = bundle.dead_letters
    subject = bad if has_detail else execution.execution_id
    assert (letter.endpoint, letter.subject_id, letter.status) == (RUNS, subject, 500)
    assert letter.excerpt == "HTML page: Server Error (500)"
    assert has_detail or letter.message.startswith("cannot list 1 of the calls of execution ")
    assert not server.count(METRICS, call_execution_id=bad)
    assert sorted(call.metrics.call_execution_id for call in bundle.calls) == sorted(others)
    evals = {each.call_execution_id: each.payload["eval_outputs"] for each in bundle.listed or ()}
    assert evals == {
        call.call_execution_id: call.eval_outputs for call in execution.calls if call.call_execution_id != bad
    }


UNREADABLE = DeadLetter(endpoint=METRICS, subject_id="e", status=500, message="500", excerpt="", tries=2)


async def test_bad_execution_whose_calls_are_not_found_tells_of_both():
    """Whether it is gone is asked of the endpoint that fails for it."""
    body = b'{"status": false, "result": "Test execution not found."}'
    async with Sandbox(one_run_test(1, calls=3)) as server:
        [execution] = in_order(server.world)
        poison(execution)
        server.fault = lambda request, _nth: Fault(status=404, body=body) if request.path == RUNS else None
        bundle = await fetched(server, replace(planned(execution.execution_id), unreadable=UNREADABLE), 2)
    assert [(each.endpoint, each.status) for each in bundle.dead_letters] == [(RUNS, 404), (METRICS, 500)]
    assert bundle.listed is None
