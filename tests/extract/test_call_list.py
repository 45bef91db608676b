"""One execution's list of calls, over loopback: whole in one page where that can be had, and proved by a count where not."""

import pytest

from etl.errors import NotFoundError
from etl.extract.call_list import CallList, read_call_list
from etl.model.records import RUNS
from etl.sandbox import Execution, Fault, Sandbox
from tests.bundles import planned
from tests.support import cap_pages, client_of
from tests.worlds import a_sandbox

CALLS = 10
server = a_sandbox(run_tests=1, executions=1, calls=CALLS)


def execution(server: Sandbox) -> Execution:
    return server.world.run_tests[0].executions[0]


async def read(server: Sandbox, execution_id: str | None = None, page_limit: int = 1024) -> CallList:
    async with client_of(server.base_url, max_tries=2) as client:
        item = planned(execution_id or execution(server).execution_id)
        return await read_call_list(client, item, page_limit=page_limit)


def limits(server: Sandbox) -> list[str]:
    return [request.query["limit"] for request in server.requests]


@pytest.mark.parametrize(("page_limit", "expected"), [(16, ["16"]), (4, ["4", "16"])])
async def test_list_is_read_in_one_page(server, page_limit, expected):
    found = await read(server, page_limit=page_limit)
    assert found.calls.keys() == {call.call_execution_id for call in execution(server).calls}
    assert found.count is None
    assert limits(server) == expected


async def test_larger_page_that_failed_once_is_tried_again(server):
    server.fault = lambda request, nth: Fault(status=502) if (request.query["limit"], nth) == ("16", 1) else None
    assert (await read(server, page_limit=4)).count is None
    assert limits(server) == ["4", "16", "16"]


async def test_list_whose_pages_are_cut_is_counted_after_them(server):
    cap_pages(server, 3)
    found = await read(server)
    assert (len(found.calls), found.count) == (CALLS, CALLS)
    assert limits(server) == ["1024"] * 4 + ["1"]


async def test_execution_that_does_not_exist_is_not_found(server):
    with pytest.raises(NotFoundError):
        await read(server, "00000000-0000-4000-8000-000000000000")
    assert server.count(RUNS) == 1
