"""The crawl over loopback: every planned execution comes out once and whole, or says what is missing."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pytest

from etl.errors import DestinationError
from etl.extract.crawl import LAG, Crawl
from etl.model.records import DETAIL, METRICS, RUNS, ExecutionBundle
from etl.sandbox import Fault, Sandbox
from etl.sandbox.world import SimulatedExecution as SandboxExecution
from tests.bundles import planned
from tests.extract.held import resumed, settling_of
from tests.support import cap_pages, client_of
from tests.worlds import a_sandbox

server = a_sandbox(run_tests=1, executions=6, calls=5)


def executions(server: Sandbox) -> list[SandboxExecution]:
    return server.world.run_tests[0].executions


async def crawl(
    server: Sandbox,
    plan: Iterable[str] | None = None,
    *,
    emit: Any = None,
    concurrency: int = 4,
    page_limit: int = 1024,
    max_tries: int = 2,
    stored: Mapping[str, bool] | None = None,
    failed: Collection[str] = (),
    stale: Collection[str] = (),
    is_resumed: bool = False,
) -> tuple[dict[str, ExecutionBundle], Crawl]:
    """The bundles by execution, each emitted once, and the crawl."""
    bundles: dict[str, ExecutionBundle] = {}

    async def collect(bundle: ExecutionBundle) -> None:
        assert bundle.execution.execution_id not in bundles
        bundles[bundle.execution.execution_id] = bundle

    ids = [each.execution_id for each in executions(server)] if plan is None else plan
    async with client_of(server.base_url, concurrency=concurrency, max_tries=max_tries) as client:
        work = Crawl(
            client,
            map(resumed if is_resumed else planned, ids),
            emit or collect,
            concurrency=concurrency,
            page_limit=page_limit,
            settling=settling_of(client, stored, failed=failed, stale=stale),
        )
        await asyncio.wait_for(work.run(), 30)
    return bundles, work


def fetched_ids(bundle: ExecutionBundle) -> list[str]:
    return sorted(call.metrics.call_execution_id for call in bundle.calls)


def call_ids(execution: SandboxExecution) -> list[str]:
    return sorted(call.call_execution_id for call in execution.calls if not call.is_deleted)


def listed_ids(bundle: ExecutionBundle) -> list[str]:
    return sorted(call.call_execution_id for call in bundle.listed or ())


@pytest.mark.parametrize("concurrency", [1, 2, 32])
@pytest.mark.parametrize(("page_limit", "max_limit", "reads"), [(1024, None, 1), (2, None, 2), (2, 2, 3 + 1)])
async def test_each_planned_execution_comes_out_once_with_all_its_calls(
    server, concurrency, page_limit, max_limit, reads
):
    cap_pages(server, max_limit)
    bundles, _work = await crawl(server, concurrency=concurrency, page_limit=page_limit)
    assert len(bundles) == len(executions(server))
    for execution in executions(server):
        bundle = bundles[execution.execution_id]
        assert fetched_ids(bundle) == call_ids(execution)
        assert (bundle.run_test_name, bundle.run_test_key) == ("A", "a")
        assert not bundle.dead_letters
        assert bundle.listed is not None
        for call in bundle.calls:
            assert call.listed.call_execution_id == call.metrics.call_execution_id
            assert call.listed in bundle.listed
    trials = server.count(RUNS, limit="8")
    assert 0 < trials <= 6 if page_limit == 2 else trials == 0
    assert server.count(RUNS) - trials == 6 * (reads - (reads == 2))
    assert server.count(METRICS) == 30


async def test_executions_are_begun_in_the_order_of_the_plan(server):
    await crawl(server, concurrency=1)
    listed = [request.query["execution_id"] for request in server.requests if request.path == RUNS]
    assert listed == [each.execution_id for each in executions(server)]


def unknown_by_id(calls: Collection[str], times: int = 99) -> Any:
    """A replica that does not have these calls yet, for the first requests of each."""
    body = b'{"status": false, "result": "Call execution not found."}'

    def answer(request: Any, nth: int) -> Fault | None:
        is_lagging = request.query.get("call_execution_id") in calls and nth <= times
        return Fault(status=404, body=body) if is_lagging else None

    return answer


@pytest.mark.parametrize("max_limit", [None, 2])
@pytest.mark.parametrize("is_stored", [True, False])
async def test_calls_that_are_listed_and_unknown_by_id_are_one_dead_letter_and_marked_by_none(
    server, max_limit, is_stored
):
    cap_pages(server, max_limit)
    execution = executions(server)[0]
    lagging = call_ids(execution)[:3]
    server.fault = unknown_by_id(lagging)
    stored = dict.fromkeys(lagging, False) if is_stored else {}
    bundles, _ = await crawl(server, [execution.execution_id], stored=stored)
    bundle = bundles[execution.execution_id]
    assert fetched_ids(bundle) == listed_ids(bundle) == call_ids(execution)[3:]
    tries = 1 if max_limit else 2
    (letter,) = bundle.dead_letters
    assert (letter.endpoint, letter.status, letter.tries, bundle.deleted) == (RUNS, 404, tries, frozenset())
    assert letter.message == f"the API answered 404 for 3 listed calls, {LAG}"
    assert server.count(METRICS, call_execution_id=lagging[0]) == tries


async def test_call_that_is_unknown_once_is_fetched(server):
    execution = executions(server)[0]
    server.fault = unknown_by_id(call_ids(execution)[1:3], times=1)
    bundles, _ = await crawl(server, [execution.execution_id])
    bundle = bundles[execution.execution_id]
    assert fetched_ids(bundle) == call_ids(execution)
    assert (bundle.dead_letters, bundle.deleted) == ((), frozenset())


@pytest.mark.parametrize("max_limit", [None, 2])
@pytest.mark.parametrize("is_disturbed", [False, True])
async def test_what_is_stored_of_an_incomplete_execution_is_not_fetched_again(server, max_limit, is_disturbed):
    """Over many pages, too, read once more where a call goes. What is older, or has a dead letter, is fetched."""
    cap_pages(server, max_limit)
    execution = executions(server)[0]
    ids = call_ids(execution)
    last = next(call for call in execution.calls if call.call_execution_id == ids[-1])

    def disturb(request: Any) -> None:
        if request.path == METRICS and not last.is_deleted:
            last.is_deleted = True

    server.on_request = disturb if is_disturbed else server.on_request
    stored = dict.fromkeys(ids[:4], False)
    bundles, _work = await crawl(
        server, [execution.execution_id], stored=stored, failed=[ids[2]], stale=[ids[3]], is_resumed=True
    )
    bundle = bundles[execution.execution_id]
    assert (sorted(bundle.kept), [*sorted(bundle.kept), *fetched_ids(bundle)]) == (ids[:2], call_ids(execution))
    assert (listed_ids(bundle), bundle.dead_letters) == (call_ids(execution), ())
    assert [server.count(METRICS, call_execution_id=each) for each in ids[:2]] == [0, 0]
    assert not [request for request in server.requests if request.path.startswith(DETAIL)]


async def test_emit_that_blocks_bounds_the_open_executions(server):
    gate, is_blocked = asyncio.Event(), asyncio.Event()
    taken, emitted = [], []

    def plan() -> Iterable[str]:
        for execution in executions(server):
            taken.append(execution.execution_id)
            yield execution.execution_id

    async def emit(bundle: ExecutionBundle) -> None:
        emitted.append(bundle.execution.execution_id)
        if len(emitted) == 2:
            is_blocked.set()
        await gate.wait()

    work = asyncio.create_task(crawl(server, plan(), emit=emit, concurrency=2))
    await is_blocked.wait()
    before = len(server.requests)
    done, _ = await asyncio.wait([work], timeout=0.05)
    assert not done
    assert len(taken) == 2
    assert len(server.requests) == before
    gate.set()
    await work
    assert sorted(emitted) == sorted(each.execution_id for each in executions(server))


async def test_emit_that_fails_stops_the_crawl(server):
    async def emit(_bundle: ExecutionBundle) -> None:
        raise DestinationError("disk full")

    with pytest.raises(ExceptionGroup) as caught:
        await crawl(server, emit=emit, concurrency=1)
    assert {type(error) for error in caught.value.exceptions} == {DestinationError}
