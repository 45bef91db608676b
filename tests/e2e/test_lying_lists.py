"""Lists that lie: those that never end are left after a bounded number of pages, and those that are malformed say how."""

import random
from collections.abc import AsyncIterator, Callable
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from etl import sandbox
from etl.model.records import DETAIL, METRICS, RUN_TESTS, RUNS
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, SandboxRequest
from etl.sandbox.answers.metrics import execution_page
from etl.sandbox.answers.run_tests import run_tests_page
from etl.sandbox.answers.runs import run_execution
from etl.sandbox.error_bodies import not_found
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import cap_pages, settings_for
from tests.worlds import END, settled_world

Edit = Callable[[dict[str, Any], int], dict[str, Any]]


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=2, executions=4, calls=3)) as running:
        yield running


def page_of(server: Sandbox, request: SandboxRequest, kind: str, edit: Edit) -> Fault | None:
    """An answer to a request for a page of this kind of list: its first page, edited; None for another request."""
    query, world = request.query, server.world
    number = int(query.get("page", "0"))
    limit = query.get("limit")
    if kind == RUN_TESTS and request.path == RUN_TESTS:
        document = edit(run_tests_page(world, "http://localhost/", {"limit": limit or ""}), number)
    elif kind == METRICS and request.path == METRICS and "run_test_name" in query:
        document = {"status": True, "result": edit(execution_page(world, query["run_test_name"], limit=limit), number)}
    elif kind == RUNS and request.path == RUNS and (execution := world.execution(query.get("execution_id", ""))):
        result = run_execution(execution, limit=limit)
        document = {"status": True, "result": result | {"call_results": edit(result["call_results"], number)}}
    else:
        return None
    return Fault(status=200, body=msgspec.json.encode(document))


async def export(server: Sandbox, folder: Path, **options: Any) -> Summary:
    settings = settings_for(server, folder / "data", api={"max_tries": 2}, run_tests=options.get("run_tests"))
    return await job.export(settings)


ENDLESS = {"total_pages": 10**9, "count": 10**9}


def repeating(page: dict[str, Any], number: int) -> dict[str, Any]:
    return page | ENDLESS | {"current_page": number}


def empty(page: dict[str, Any], number: int) -> dict[str, Any]:
    return page | ENDLESS | {"current_page": number} | ({"results": []} if number > 1 else {})


@pytest.mark.parametrize(
    ("is_broken_at_first", "kind", "edit"),
    [
        pytest.param(*case, marks=() if case[0] == (case[2] is empty) else pytest.mark.slow)
        for case in product([False, True], [METRICS, RUNS, RUN_TESTS], [repeating, empty])
    ],
)
async def test_list_that_never_ends_is_left_and_what_it_holds_is_exported(
    server: Sandbox, tmp_path: Path, kind: str, edit: Edit, *, is_broken_at_first: bool
) -> None:
    """Also where a bad row is skipped, so that other pages are requested."""
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
    text = (
        " ".join([*odd.problems, *(row["message"] for row in rows_of(tmp_path, "errors"))])
        if kind == RUNS
        else " ".join(odd.problems)
    )
    assert "the list says that it has 1,000,000,000 rows, but 50 pages in a row hold nothing new" in text
    assert len(rows_of(tmp_path, "calls")) == 2 * 4 * 3
    server.fault = None
    assert (await export(server, tmp_path)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("kind", [METRICS, RUNS, RUN_TESTS])
async def test_list_that_goes_on_with_other_rows_than_it_counts_is_left(
    server: Sandbox, tmp_path: Path, kind: str
) -> None:
    """Each of its pages holds news, so nothing else would end it."""
    id_name = {METRICS: "execution_id", RUNS: "call_execution_id", RUN_TESTS: "id"}[kind]

    def going_on(page: dict[str, Any], number: int) -> dict[str, Any]:
        rows = [row | {id_name: f"{row[id_name][:-6]}{number:06}"} for row in page["results"]] if number > 1 else []
        return page | {"total_pages": 10**9, "current_page": number} | ({"results": rows} if rows else {})

    server.fault = lambda request, _nth: page_of(server, request, kind, going_on)
    odd = await export(server, tmp_path, run_tests="all" if kind == RUN_TESTS else None)

    assert odd.exit_code == 3
    assert len(server.requests) < 2_500
    found = [row["message"] for row in rows_of(tmp_path, "errors")] if kind == RUNS else odd.problems
    goes_on = "rows, but its pages go on with other ones: what may come after row "
    assert ("listed, but not found by its id" if kind == METRICS else goes_on) in " ".join(found)
    assert len(rows_of(tmp_path, "calls")) == 2 * 4 * 3
    server.fault = None
    assert (await export(server, tmp_path)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


MALFORMED: dict[str, tuple[Edit, str]] = {
    "total_pages is text": (lambda page, _n: page | {"total_pages": "1"}, "expected int, got str at total_pages"),
    "total_pages is missing": (
        lambda page, _n: {name: value for name, value in page.items() if name != "total_pages"},
        "no field total_pages",
    ),
    "current_page is wrong": (lambda page, _n: page | {"current_page": 7}, "asked for page 1, got page 7"),
    "results is an object": (lambda page, _n: page | {"results": {}}, "expected list, got dict at results"),
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("kind", [METRICS, RUNS, RUN_TESTS])
async def test_malformed_list_says_what_is_wrong_with_it_and_where(
    server: Sandbox, tmp_path: Path, kind: str, name: str
) -> None:
    """The source is there: that is another thing to do something about than one that is down."""
    edit, reason = MALFORMED[name]
    server.fault = lambda request, _nth: page_of(server, request, kind, edit)

    odd = await export(server, tmp_path, run_tests="all" if kind == RUN_TESTS else None)

    assert odd.exit_code == 3
    found = [row["message"] for row in rows_of(tmp_path, "errors")] if kind == RUNS else odd.problems
    assert found
    assert all(f"unexpected answer from {kind}: {reason}" in message for message in found)
    server.fault = None
    assert (await export(server, tmp_path)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("run_tests", [None, "all"])
async def test_empty_list_of_executions_that_exist_is_not_believed(
    server: Sandbox, tmp_path: Path, run_tests: Any
) -> None:
    first, second = server.world.run_tests
    await export(server, tmp_path, run_tests=run_tests)
    before = rows_of(tmp_path, "executions")

    def emptied(page: dict[str, Any], _number: int) -> dict[str, Any]:
        return page | {"count": 0, "total_pages": 1, "results": []}

    server.fault = lambda request, _nth: (
        page_of(server, request, METRICS, emptied) if request.query.get("run_test_name") == first.name else None
    )
    odd = await export(server, tmp_path, run_tests=run_tests)

    assert (odd.exit_code, [each.is_whole for each in odd.run_tests if each.name == second.name]) == (3, [True])
    [problem] = odd.problems
    assert problem.startswith(f"'{first.name}': its list shows none of its 4 executions, which exist: ")
    assert "; nothing was changed: run again" in problem
    assert rows_of(tmp_path, "executions") == before
    server.fault = None
    assert (await export(server, tmp_path, run_tests=run_tests)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_list_that_is_short_for_a_night_hides_nothing_new_behind_exit_0(server: Sandbox, tmp_path: Path) -> None:
    run_test, other = server.world.run_tests
    await export(server, tmp_path)
    new = sandbox.add_execution(server.world, run_test, random.Random(1), END, 2)
    hidden = [each for each in run_test.executions if each is not run_test.executions[0]]
    shown, run_test.executions[:] = run_test.executions[:1], run_test.executions[:1]
    other.executions += hidden

    short = await job.export(settings_for(server, tmp_path / "data", run_tests=[run_test.name]))
    run_test.executions[:] = [*shown, *hidden]
    del other.executions[-len(hidden) :]
    again = await job.export(settings_for(server, tmp_path / "data", run_tests=[run_test.name]))

    assert (short.exit_code, again.exit_code) == (3, 0)
    assert short.problems[0].endswith("if the next list says the same, the run accepts it")
    assert new.execution_id in {row["execution_id"] for row in rows_of(tmp_path, "executions")}


@pytest.mark.parametrize("is_dead", [False, True], ids=["counts one less", "names one that is gone"])
async def test_calls_of_a_list_that_contradicts_them_are_fetched_once(tmp_path: Path, *, is_dead: bool) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=20, days=1)) as server:
        cap_pages(server, 8)
        dead, alive = (call.call_execution_id for call in server.world.run_tests[0].executions[0].calls[:2])

        def contradict(request: SandboxRequest, _nth: int) -> Fault | None:
            if is_dead:
                is_asked = request.query.get("call_execution_id") == dead
                return Fault(status=404, body=msgspec.json.encode(not_found("Call"))) if is_asked else None
            if request.path != RUNS or "execution_id" not in request.query:
                return None
            return Fault(edit=lambda body: body.replace(b'"count":20,', b'"count":19,'))

        server.fault = contradict
        summary = await job.export(settings_for(server, tmp_path / "data", api={"page_limit": 8}))

    assert summary.exit_code == 3
    assert server.count(METRICS, call_execution_id=alive) == 1
    assert len(rows_of(tmp_path, "calls")) == 20 - is_dead


async def test_list_of_a_run_test_that_lost_some_to_another_is_believed(server: Sandbox, tmp_path: Path) -> None:
    """Narrowed to one run test, the run does not know where they are."""
    first, second = server.world.run_tests
    await export(server, tmp_path, run_tests="all")
    moved = first.executions[:3]
    first.executions[:3] = []
    second.executions += moved

    settings = settings_for(server, tmp_path / "data", run_tests="all")
    narrow = [await job.export(settings.only([first.name], since=None)) for _ in range(2)]

    assert [(each.exit_code, each.run_tests[0].not_listed) for each in narrow] == [(3, 3), (0, 3)]
    assert (await job.export(settings)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


def list_of_another(server: Sandbox) -> Callable[[SandboxRequest, int], Fault | None]:
    """The list of the second run test is that of the first."""
    first, second = server.world.run_tests

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        query = request.query
        if request.path != METRICS or query.get("run_test_name") != second.name:
            return None
        page = execution_page(server.world, first.name, query.get("page"), query.get("limit"))
        return Fault(status=200, body=msgspec.json.encode({"status": True, "result": page}))

    return fault


async def test_execution_that_two_run_tests_list_is_a_problem_each_night(server: Sandbox, tmp_path: Path) -> None:
    server.fault = list_of_another(server)
    first, second = (run_test.name for run_test in server.world.run_tests)
    for _ in range(2):
        night = await export(server, tmp_path)
        assert night.exit_code == 3
        for mine, theirs in ((first, second), (second, first)):
            told = f"{mine!r}: 4 executions of its list also in the list of {theirs!r}, "
            assert any(problem.startswith(told) for problem in night.problems)
        assert set(night.last_complete_at.values()) == {None}
    server.fault = None
    healed = await export(server, tmp_path)
    assert (healed.exit_code, healed.problems) == (0, [])
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize(
    ("configured", "is_narrowed"),
    [(None, True), ("all", True), (None, False)],
    ids=["left out", "left out of all", "failed"],
)
async def test_list_of_another_run_test_that_was_not_read_takes_nothing_from_it(
    server: Sandbox, tmp_path: Path, configured: str | None, *, is_narrowed: bool
) -> None:
    first, second = (run_test.name for run_test in server.world.run_tests)
    settings = settings_for(server, tmp_path / "data", run_tests=configured, api={"max_tries": 1})
    await job.export(settings.only([first]))
    before, wrong = rows_of(tmp_path, "executions"), list_of_another(server)
    server.fault = lambda request, nth: (
        Fault(status=500) if request.query.get("run_test_name") == first else wrong(request, nth)
    )
    night = await job.export(settings.only([second]) if is_narrowed else settings)

    assert (night.exit_code, rows_of(tmp_path, "executions")) == (3, before)
    assert any(problem.startswith(f"{second!r}: 4 executions of its list") for problem in night.problems)
    server.fault = None
    assert (await job.export(settings)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_list_that_has_nothing_but_what_another_has_is_never_believed(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    server.fault = list_of_another(server)
    for _ in range(3):
        night = await export(server, tmp_path)
        assert night.exit_code == 3
        assert "its list shows none of its 4 executions, which exist" in "\n".join(night.problems)
    assert_equals_world(tmp_path, server.world)
