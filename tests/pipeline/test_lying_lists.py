"""Lists that lie: those that never end are left after a bounded number of pages, malformed ones say how."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from etl.model.records import DETAIL, METRICS, RUN_TESTS, RUNS
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, SandboxRequest, dispatch
from etl.sandbox.sdk import run_execution
from etl.sandbox.simulate import run_tests_page
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import cap_pages, settings_for
from tests.worlds import a_sandbox, settled_world

Edit = Callable[[dict[str, Any], int], dict[str, Any]]
server = a_sandbox(run_tests=2, executions=4, calls=3)


def page_of(server: Sandbox, request: SandboxRequest, kind: str, edit: Edit) -> Fault | None:
    """An answer to a request for a page of this kind of list: its first page, edited; None for another request."""
    query, world = request.query, server.world
    number = int(query.get("page", "0"))
    first = {name: value for name, value in query.items() if name != "page"}
    if kind == RUN_TESTS and request.path == RUN_TESTS:
        document = edit(run_tests_page(world, "http://localhost/", first), number)
    elif kind == METRICS and request.path == METRICS and "run_test_name" in query:
        document = {"status": True, "result": edit(dispatch._result(world, METRICS, first, None), number)}
    elif kind == RUNS and request.path == RUNS and (execution := world.execution(query.get("execution_id", ""))):
        result = run_execution(execution, first, None)
        document = {"status": True, "result": result | {"call_results": edit(result["call_results"], number)}}
    else:
        return None
    return Fault(status=200, body=msgspec.json.encode(document))


async def export(server: Sandbox, folder: Path, **options: Any) -> Summary:
    options = {"run_tests": options.get("run_tests"), "export": {"metrics": "calls"}}
    return await job.export(settings_for(server, folder / "data", api={"max_tries": 2}, **options))


ENDLESS = {"total_pages": 10**9, "count": 10**9}


def repeating(page: dict[str, Any], number: int) -> dict[str, Any]:
    return page | ENDLESS | {"current_page": number}


def empty(page: dict[str, Any], number: int) -> dict[str, Any]:
    return page | ENDLESS | {"current_page": number} | ({"results": []} if number > 1 else {})


QUICK = (False, METRICS, repeating), (False, RUNS, repeating), (True, RUN_TESTS, empty)


@pytest.mark.parametrize(
    ("is_broken_at_first", "kind", "edit"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in product([False, True], [METRICS, RUNS, RUN_TESTS], [repeating, empty])
        if case[:2] != (True, RUNS)
    ],
)
async def test_list_that_never_ends_is_left_and_what_it_holds_of_executions_is_exported(
    server: Sandbox, tmp_path: Path, kind: str, edit: Edit, *, is_broken_at_first: bool
) -> None:
    """Also where a bad row is skipped, so that other pages are requested; that is not done for calls."""
    broken = Fault(status=500, body=b"<html>")

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        if request.path.startswith(DETAIL):
            return Fault(status=404)  # the ids would be had from there
        answer = page_of(server, request, kind, edit)
        is_broken = is_broken_at_first and request.query.get("limit") == "1024" and request.query.get("page") == "1"
        return broken if answer and is_broken else answer

    server.fault = fault
    odd = await export(server, tmp_path, run_tests="all" if kind == RUN_TESTS else None)

    lists = {METRICS: 2, RUNS: 8, RUN_TESTS: 1}[kind]
    assert len(server.requests) < lists * 90 + 100
    assert odd.exit_code == 3
    messages = [row["message"] for row in rows_of(tmp_path, "errors")] if kind == RUNS else []
    text = " ".join([*odd.problems, *messages])
    assert "the list claims 1,000,000,000 rows, but 50 consecutive pages had nothing new" in text
    assert kind == RUNS or len(rows_of(tmp_path, "calls")) == 2 * 4 * 3
    server.fault = None
    assert (await export(server, tmp_path)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("kind", [METRICS, RUNS, RUN_TESTS])
async def test_malformed_list_says_what_is_wrong_with_it_and_where(server: Sandbox, tmp_path: Path, kind: str) -> None:
    """The source is there: that is another thing to do something about than one that is down."""
    server.fault = lambda request, _nth: page_of(server, request, kind, lambda page, _n: page | {"total_pages": "1"})

    odd = await export(server, tmp_path, run_tests="all" if kind == RUN_TESTS else None)

    assert odd.exit_code == 3
    found = [row["message"] for row in rows_of(tmp_path, "errors")] if kind == RUNS else odd.problems
    assert found
    reason = "the field total_pages is str instead of int"
    assert all(f"the answer from {kind} is unexpected: {reason}" in message for message in found)
    server.fault = None
    assert (await export(server, tmp_path)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("is_dead", [False, True], ids=["counts one less", "names one that is gone"])
async def test_calls_of_a_list_that_contradicts_them_are_fetched_once(tmp_path: Path, *, is_dead: bool) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=20, days=1)) as server:
        cap_pages(server, 8)
        dead, alive = (call.call_execution_id for call in server.world.run_tests[0].executions[0].calls[:2])

        def contradict(request: SandboxRequest, _nth: int) -> Fault | None:
            if is_dead:
                is_asked = request.query.get("call_execution_id") == dead
                return Fault(status=404, body=msgspec.json.encode(dispatch.not_found("Call"))) if is_asked else None
            if request.path != RUNS or "execution_id" not in request.query:
                return None
            return Fault(edit=lambda body: body.replace(b'"count":20,', b'"count":19,'))

        server.fault = contradict
        settings = settings_for(server, tmp_path / "data", api={"page_limit": 8}, export={"metrics": "calls"})
        summary = await job.export(settings)

    assert summary.exit_code == 3
    assert server.count(METRICS, call_execution_id=alive) == 1
    assert len(rows_of(tmp_path, "calls")) == 20 - is_dead
