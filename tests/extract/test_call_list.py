"""An execution's list of calls, in whichever way the server can give it."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from etl.errors import ServerFaultError
from etl.extract.call_list import CallList, Details, read_call_list, read_details
from etl.extract.plan import Planned, Route
from etl.model.records import DETAIL, RUNS
from etl.sandbox import Fault, Sandbox, SandboxRequest
from etl.sandbox.world import listable_calls
from tests.bundles import planned
from tests.support import cap_pages, client_of, poison_details
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
    assert calls.calls.keys() == calls.details.calls.keys()
    assert [request.path == RUNS for request in server.requests] == [True, False, True], "the list gets a second chance"


@pytest.mark.parametrize(("route", "requests"), [(Route.WHOLE, 3), (Route.COMPARE, 2)])
async def test_list_that_fails_once_is_read_again_unless_stored_calls_may_stay(
    server: Sandbox, route: Route, requests: int
) -> None:
    """Then the detail suffices."""
    first = iter([True])
    fail(server, lambda request: is_list_with_evals(request) and next(first, False))
    calls = await read(server, route)
    assert (calls.lacks_evals, len(server.requests)) == (route is Route.COMPARE, requests)
    assert calls.details is not None


async def test_list_is_read_without_evals_where_the_detail_fails_too(server: Sandbox) -> None:
    fail(server, lambda request: is_list_with_evals(request) or request.path.startswith(DETAIL))
    calls = await read(server)
    assert (len(calls.calls), calls.lacks_evals) == (4, True)
    assert calls.details is not None
    assert calls.details.failure is not None


async def test_preview_is_left_to_the_exact_fetch_where_its_list_fails(server: Sandbox) -> None:
    fail(server, is_list_with_evals)
    with pytest.raises(ServerFaultError):
        await read(server, Route.PREVIEW)
    assert len(server.requests) == 1


async def test_list_that_fails_in_every_way_fails_with_its_first_error(server: Sandbox) -> None:
    fail(server, lambda _request: True)
    with pytest.raises(ServerFaultError, match="/sdk/api/v1/simulation/runs/ answered 500"):
        await read(server)


async def detail(server: Sandbox) -> Details:
    async with client_of(server.base_url) as client:
        return await read_details(client, item(server), rows=4)


async def test_detail_is_one_request(server: Sandbox) -> None:
    found = await detail(server)
    assert (len(found.calls), found.failure, len(server.requests)) == (4, None, 1)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("says_so", [True, False], ids=["paged", "cut"])
async def test_detail_in_smaller_pages_is_read_to_its_end(server: Sandbox, rows: int, says_so: bool) -> None:
    """Whether or not the server says that there are more pages than the one that was requested."""
    cap_pages(server, rows)
    pages = re.compile(rb'"total_pages":\d+')
    edit = Fault(edit=lambda body: body if says_so else pages.sub(b'"total_pages":1', body))
    server.fault = lambda _request, _nth: edit
    found = await detail(server)
    assert (len(found.calls), found.failure) == (4, None)


@pytest.mark.parametrize("position", range(4))
async def test_call_that_makes_its_page_fail_costs_the_detail_no_other_call(server: Sandbox, position: int) -> None:
    poisoned = listable_calls(server.world.run_tests[0].executions[0])[position].call_execution_id
    server.fault = poison_details(server, [poisoned])
    found = await detail(server)
    calls = {call.call_execution_id for call in server.world.run_tests[0].executions[0].calls}
    assert found.calls.keys() == calls - {poisoned}
    assert "answered 500" in str(found.failure)
    assert len(server.requests) <= 10


async def test_detail_that_is_refused_costs_two_requests(server: Sandbox) -> None:
    server.fault = lambda _request, _nth: Fault(status=502)
    found = await detail(server)
    assert (found.calls, len(server.requests)) == ({}, 2)
    assert "502" in str(found.failure)


async def test_detail_that_lacks_calls_or_has_one_twice_says_so(server: Sandbox) -> None:
    """Of a call that it has twice it does not say which entry counts."""
    ids = [call.call_execution_id.encode() for call in server.world.run_tests[0].executions[0].calls]
    server.fault = lambda _request, _nth: Fault(edit=lambda body: body.replace(ids[0], ids[1]))
    found = await detail(server)
    assert found.calls.keys() == {key.decode() for key in ids[2:]}
    assert "shows 2 of 4 calls" in str(found.failure)
