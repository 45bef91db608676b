"""The crawl over loopback: every planned execution comes out once and whole, or says what is missing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from etl.errors import DestinationError, KeyRefusedError, SourceUnavailableError
from etl.extract.calls import Crawl
from etl.extract.client import Client
from etl.extract.transport import Access, Limits
from etl.model.records import METRICS, RUNS, ExecutionBundle
from etl.sandbox import Execution as SandboxExecution
from etl.sandbox import Fault, Sandbox, delete_call, delete_execution, touch_call
from tests.bundles import planned
from tests.support import API_KEY, SECRET_KEY, cap_pages
from tests.worlds import settled_world

NO_CALLS = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=1, executions=6, calls=5)) as sandbox:
        yield sandbox


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
) -> tuple[dict[str, ExecutionBundle], Crawl]:
    """The bundles by execution, each emitted once, and the crawl."""
    bundles: dict[str, ExecutionBundle] = {}

    async def collect(bundle: ExecutionBundle) -> None:
        assert bundle.execution.execution_id not in bundles
        bundles[bundle.execution.execution_id] = bundle

    access = Access(server.base_url, api_key=lambda: API_KEY, secret_key=lambda: SECRET_KEY)
    ids = [each.execution_id for each in executions(server)] if plan is None else plan
    async with Client(access, version="1", limits=Limits(concurrency=concurrency, max_tries=max_tries)) as client:
        work = Crawl(client, map(planned, ids), emit or collect, concurrency=concurrency, page_limit=page_limit)
        await asyncio.wait_for(work.run(), 30)
    return bundles, work


def fetched_ids(bundle: ExecutionBundle) -> list[str]:
    return sorted(call.metrics.call_execution_id for call in bundle.calls)


def call_ids(execution: SandboxExecution) -> list[str]:
    return sorted(call.call_execution_id for call in execution.calls if not call.is_deleted)


def letters(bundle: ExecutionBundle) -> list[tuple[str, str, int, int]]:
    return [(each.endpoint, each.subject_id, each.status, each.tries) for each in bundle.dead_letters]


@pytest.mark.parametrize("concurrency", [1, 2, 32])
@pytest.mark.parametrize(("page_limit", "max_limit", "reads"), [(1024, None, 1), (2, None, 2), (2, 2, 3 + 1)])
async def test_each_planned_execution_comes_out_once_with_all_its_calls(
    server, concurrency, page_limit, max_limit, reads
):
    cap_pages(server, max_limit)
    bundles, work = await crawl(server, concurrency=concurrency, page_limit=page_limit)
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
    assert server.count(METRICS) == work.calls_fetched == 30
    assert work.listings == 6


async def test_executions_are_begun_in_the_order_of_the_plan(server):
    await crawl(server, concurrency=1)
    listed = [request.query["execution_id"] for request in server.requests if request.path == RUNS]
    assert listed == [each.execution_id for each in executions(server)]


async def test_call_deleted_between_listing_and_fetching_is_left_out(server):
    execution = executions(server)[0]
    gone = execution.calls[2]

    def delete_when_listed(request: Any) -> None:
        if request.path == METRICS and not gone.is_deleted:
            delete_call(gone)

    server.on_request = delete_when_listed
    order = [gone, *(call for call in execution.calls if call is not gone)]
    for number, call in enumerate(order):  # the one that goes is listed, and asked for, last
        touch_call(call, execution.started_at.replace(microsecond=number))
    bundles, _ = await crawl(server, [execution.execution_id], concurrency=1)
    bundle = bundles[execution.execution_id]
    assert fetched_ids(bundle) == call_ids(execution)
    assert [call.call_execution_id for call in bundle.listed or ()].count(gone.call_execution_id) == 0
    assert not bundle.dead_letters
    assert server.count(METRICS, call_execution_id=gone.call_execution_id) == 2, "a 404 is confirmed"


async def test_execution_deleted_since_it_was_planned_is_no_bundle(server):
    gone = executions(server)[1]
    delete_execution(gone)
    bundles, _ = await crawl(server)
    assert bundles.keys() == {each.execution_id for each in executions(server)} - {gone.execution_id}


async def test_execution_that_is_there_but_whose_calls_are_not_found_is_a_dead_letter(server):
    """A listed execution must never leave without a word."""
    odd = executions(server)[1].execution_id
    body = b'{"status": false, "result": "Test execution not found."}'
    server.fault = lambda request, _nth: (
        Fault(status=404, body=body) if request.path == RUNS and request.query.get("execution_id") == odd else None
    )
    bundles, _ = await crawl(server)
    assert bundles[odd].listed is None
    assert [(letter.endpoint, letter.subject_id, letter.status) for letter in bundles[odd].dead_letters] == [
        (RUNS, odd, 404)
    ]


async def test_call_that_is_listed_again_though_it_was_not_found_is_a_dead_letter(server):
    """A listed call must never leave without a word; the others are not fetched a second time."""
    execution = executions(server)[0]
    odd = execution.calls[1].call_execution_id
    body = b'{"status": false, "result": "Call execution not found."}'
    server.fault = lambda request, _nth: (
        Fault(status=404, body=body) if request.query.get("call_execution_id") == odd else None
    )
    bundles, _ = await crawl(server, [execution.execution_id])
    [bundle] = bundles.values()
    assert [(letter.endpoint, letter.subject_id, letter.status) for letter in bundle.dead_letters] == [
        (METRICS, odd, 404)
    ]
    assert sorted([odd, *fetched_ids(bundle)]) == call_ids(execution)
    assert len(server.requests) == 2 + len(execution.calls) + 1, "a 404 is confirmed"


async def test_call_that_fails_for_ever_is_a_dead_letter_and_the_rest_is_exported(server):
    execution = executions(server)[3]
    poisoned = execution.calls[0].call_execution_id
    server.fault = lambda request, _nth: (
        Fault(status=500, body=b"<html>boom") if request.query.get("call_execution_id") == poisoned else None
    )
    bundles, work = await crawl(server, max_tries=3)
    bundle = bundles[execution.execution_id]
    assert letters(bundle) == [(METRICS, poisoned, 500, 3)]
    assert bundle.dead_letters[0].excerpt == "<html>boom"
    assert sorted([*fetched_ids(bundle), poisoned]) == call_ids(execution)
    assert sorted(call.call_execution_id for call in bundle.listed or ()) == call_ids(execution)
    assert not any(other.dead_letters for other in bundles.values() if other is not bundle)
    assert work.calls_fetched == 29


async def test_listing_that_fails_is_a_dead_letter(server):
    execution = executions(server)[0]
    server.fault = lambda request, _nth: (
        Fault(status=502) if request.path == RUNS and request.query["execution_id"] == execution.execution_id else None
    )
    bundles, work = await crawl(server)
    bundle = bundles[execution.execution_id]
    assert letters(bundle) == [(RUNS, execution.execution_id, 502, 2)]
    assert (bundle.listed, bundle.calls) == (None, ())
    assert len(bundles) == 6
    assert work.listings == 5


async def test_list_that_cannot_be_read_again_is_a_dead_letter(server):
    """The second round fails: what the first one brought is not known to be whole, so nothing is claimed to be listed."""
    execution = executions(server)[0]
    first = execution.calls[0]

    def disturb(request: Any) -> None:
        if request.path == METRICS and not first.is_deleted:
            delete_call(first)
            server.fault = lambda request, _nth: None if request.path == METRICS else Fault(status=500)

    server.on_request = disturb
    bundles, _ = await crawl(server, [execution.execution_id], page_limit=2)
    bundle = bundles[execution.execution_id]
    assert letters(bundle) == [(RUNS, execution.execution_id, 500, 2)]
    assert bundle.listed is None
    assert bundle.calls == ()


async def test_call_saved_while_paging_is_still_exported(server):
    """It jumps from page 2 to page 1, which was read already."""
    execution = executions(server)[0]
    is_touched = False

    def touch(request: Any) -> None:
        nonlocal is_touched
        if request.query.get("page") == "2" and not is_touched:
            is_touched = True
            last = min(execution.calls, key=lambda call: call.updated_at)
            touch_call(last, max(call.updated_at for call in execution.calls).replace(year=2100))

    server.on_request = touch
    bundles, work = await crawl(server, [execution.execution_id], page_limit=2)
    assert fetched_ids(bundles[execution.execution_id]) == call_ids(execution)
    assert not bundles[execution.execution_id].dead_letters
    assert (work.listings, work.calls_fetched) == (1, 5)


async def test_list_that_shrinks_while_its_calls_are_fetched_is_proved_by_another_round(server):
    execution = executions(server)[0]

    def delete(request: Any) -> None:
        if request.path == METRICS and len(call_ids(execution)) == 5:
            delete_call(max(execution.calls, key=lambda call: call.call_execution_id))

    server.on_request = delete
    bundles, work = await crawl(server, [execution.execution_id], page_limit=2, concurrency=1)
    assert fetched_ids(bundles[execution.execution_id]) == call_ids(execution)
    assert not bundles[execution.execution_id].dead_letters
    assert work.calls_fetched == 4


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


@pytest.mark.parametrize("path", [RUNS, METRICS])
@pytest.mark.parametrize("status", [401, 403])
async def test_refused_key_stops_the_crawl(server, path, status):
    server.fault = lambda request, _nth: Fault(status=status) if request.path == path else None
    with pytest.raises(ExceptionGroup) as caught:
        await crawl(server, concurrency=1)
    assert {type(error) for error in caught.value.exceptions} == {KeyRefusedError}
    assert server.count(path) <= 3, "two workers, and a refusal on a kept connection is confirmed"


async def test_source_that_is_down_stops_the_crawl(server):
    await server.stop()
    ids = [f"00000000-0000-4000-8000-{number:012}" for number in range(200)]
    with pytest.raises(ExceptionGroup) as caught:
        await crawl(server, ids, concurrency=1)
    assert {type(error) for error in caught.value.exceptions} == {SourceUnavailableError}


async def test_emit_that_fails_stops_the_crawl(server):
    async def emit(_bundle: ExecutionBundle) -> None:
        raise DestinationError("disk full")

    with pytest.raises(ExceptionGroup) as caught:
        await crawl(server, emit=emit, concurrency=1)
    assert {type(error) for error in caught.value.exceptions} == {DestinationError}


# No shape of the plan leaves a worker waiting: crawl() gives up after 30 seconds.


async def test_empty_plan_ends_at_once(server):
    bundles, work = await crawl(server, [])
    assert (bundles, work.calls_fetched, work.listings) == ({}, 0, 0)
    assert not server.requests


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_executions_without_calls_come_out_empty(server, concurrency):
    for execution in executions(server):
        for call in execution.calls:
            delete_call(call)
    bundles, _ = await crawl(server, concurrency=concurrency)
    assert [(bundle.listed, bundle.calls) for bundle in bundles.values()] == [((), ())] * 6


async def test_more_executions_than_workers_and_more_calls_than_the_queue_takes():
    async with Sandbox(settled_world(run_tests=1, executions=40, calls=7)) as server:
        bundles, work = await crawl(server, concurrency=2)
    assert len(bundles) == work.listings == 40
    assert work.calls_fetched == 280


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_all_calls_failing_is_all_dead_letters(server, concurrency):
    server.fault = lambda request, _nth: Fault(status=500) if request.path == METRICS else None
    bundles, _ = await crawl(server, concurrency=concurrency)
    assert Counter(len(bundle.dead_letters) for bundle in bundles.values()) == {5: 6}
    assert not any(bundle.calls for bundle in bundles.values())


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_all_executions_gone_ends(server, concurrency):
    bundles, _ = await crawl(server, [NO_CALLS] * 20, concurrency=concurrency)
    assert not bundles
    assert 20 * 2 <= len(server.requests) <= 20 * 3, (
        "the list, its 404 confirmed, and whether the execution itself is gone"
    )
