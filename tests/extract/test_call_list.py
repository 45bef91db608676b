"""An execution's list of calls, in whichever way the server can give it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from etl.errors import ServerFaultError
from etl.extract.call_list import CallList, by_id, read_call_list
from etl.extract.plan import Planned, Route
from etl.model.records import DETAIL, RUNS, DetailedCall, Page
from etl.sandbox import Fault, Sandbox, SandboxRequest
from tests.bundles import planned
from tests.support import client_of
from tests.worlds import a_sandbox

server = a_sandbox(run_tests=1, executions=1, calls=4)


def item(server: Sandbox, route: Route = Route.WHOLE) -> Planned:
    execution = server.world.run_tests[0].executions[0]
    return replace(planned(execution.execution_id), route=route, estimated_calls=len(execution.calls))


def fail(server: Sandbox, is_broken: Callable[[SandboxRequest], bool]) -> None:
    server.fault = lambda request, _nth: Fault(status=500) if is_broken(request) else None


async def read(server: Sandbox, route: Route = Route.WHOLE) -> CallList:
    async with client_of(server.base_url, max_tries=2) as client:
        return await read_call_list(client, item(server, route), page_limit=64)


def is_list_with_evals(request: SandboxRequest) -> bool:
    return request.path == RUNS and "eval_name" not in request.query


async def test_list_of_one_page_needs_no_count(server: Sandbox) -> None:
    calls = await read(server)
    assert (len(calls.calls), calls.count, calls.lacks_evals, calls.details) == (4, None, False, None)


async def test_list_that_stays_500_is_made_of_the_detail(server: Sandbox) -> None:
    fail(server, is_list_with_evals)
    calls = await read(server)
    assert calls.lacks_evals
    assert calls.details is not None
    assert calls.calls.keys() == calls.details.keys()
    assert [request.path == RUNS for request in server.requests] == [True, False, True], "the list gets a second chance"


async def test_list_that_fails_once_is_believed_the_second_time(server: Sandbox) -> None:
    first = iter([True])
    fail(server, lambda request: is_list_with_evals(request) and next(first, False))
    calls = await read(server)
    assert not calls.lacks_evals
    assert calls.details is not None


async def test_detail_suffices_where_stored_calls_may_stay(server: Sandbox) -> None:
    first = iter([True])
    fail(server, lambda request: is_list_with_evals(request) and next(first, False))
    assert (await read(server, Route.COMPARE)).lacks_evals
    assert len(server.requests) == 2


async def test_list_is_read_without_evals_where_the_detail_fails_too(server: Sandbox) -> None:
    fail(server, lambda request: is_list_with_evals(request) or request.path.startswith(DETAIL))
    calls = await read(server)
    assert (len(calls.calls), calls.lacks_evals, calls.details) == (4, True, None)


async def test_preview_is_left_to_the_exact_fetch_where_its_list_fails(server: Sandbox) -> None:
    fail(server, is_list_with_evals)
    with pytest.raises(ServerFaultError):
        await read(server, Route.PREVIEW)
    assert len(server.requests) == 1


async def test_list_that_fails_in_every_way_fails_with_its_first_error(server: Sandbox) -> None:
    fail(server, lambda _request: True)
    with pytest.raises(ServerFaultError, match=r"500 on /sdk/api/v1/simulation/runs/"):
        await read(server)


def test_call_that_a_detail_has_twice_counts_as_unknown() -> None:
    calls = tuple(DetailedCall(call_execution_id=key, payload={}) for key in "aba")
    assert by_id(Page(total_pages=1, count=3, results=calls)).keys() == {"b"}
