"""Which run tests an export is about, what their lists say, and whether the key sees the right workspace."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from etl.model.findings import Kind
from etl.model.records import METRICS, RUN_TESTS
from etl.pipeline import lists
from etl.sandbox import Fault, SandboxRequest
from etl.sandbox.dispatch import not_found
from etl.sandbox.generate import add_execution
from etl.sandbox.world import SimulatedCall
from tests.e2e.truth import assert_equals_world
from tests.pipeline.nights import NIGHT, Nights, kinds
from tests.worlds import settled_world


async def test_source_without_any_stored_execution_is_refused_until_that_is_said_to_be_right(nights: Nights) -> None:
    await nights.export()
    files = nights.files()
    for run_test in nights.world.run_tests:
        for execution in run_test.executions:
            execution.is_deleted = True

    refused = await nights.export()
    assert (refused.exit_code, nights.files() == files) == (2, True)
    assert "Check the key's workspace" in refused.problems[0]

    accepted, quiet = await nights.export(accept_deletions=True), await nights.export()
    assert (accepted.exit_code, nights.marked("executions"), quiet.exit_code) == (0, 14, 0)


@pytest.mark.parametrize("names", ["all", None])
async def test_key_of_another_workspace_brings_nothing_into_the_dataset_though_ids_are_answered(
    nights: Nights, names: Any
) -> None:
    """By id the API answers for the whole organization. A night that fails between the two forgets nothing."""
    names = names or [each.name for each in nights.world.run_tests]
    await nights.export(names=names)
    files, own = nights.files(), nights.world.run_tests
    for run_test in own:
        for execution in run_test.executions:
            assert nights.world.execution(execution.execution_id)
    other = settled_world(seed=5, run_tests=2, executions=3, calls=1).run_tests
    if names != "all":
        for mine, theirs in zip(own, other, strict=True):
            theirs.name = mine.name
    nights.world.run_tests = other
    nights.server.fault = lambda _request, _nth: Fault(status=503)
    failed = await nights.export(names=names, api={"max_tries": 1})
    nights.server.fault = None

    refused = await nights.export(names=names)

    assert (failed.exit_code, refused.exit_code) == (5, 2)
    assert nights.files() == files


async def test_what_exists_of_other_run_tests_speaks_for_the_key_also_without_a_note_of_the_last_run(
    nights: Nights,
) -> None:
    await nights.export(names="all")
    (nights.folder / "data" / "_state" / "last_run.json").unlink()
    emptied = nights.world.run_tests[0]
    for execution in emptied.executions:
        execution.is_deleted = True
    assert (await nights.export(names="all", only=[emptied.name])).exit_code == 0


async def test_night_goes_on_where_the_api_does_not_say_whether_any_stored_execution_exists(nights: Nights) -> None:
    await nights.export()
    for run_test in nights.world.run_tests:
        for execution in run_test.executions:
            execution.is_deleted = True
    nights.server.fault = lambda request, _nth: Fault(status=500) if "execution_id" in request.query else None
    unsure = await nights.export(api={"max_tries": 1})
    assert (unsure.exit_code, {*kinds(unsure)}) == (3, {Kind.LOOK_UP_FAILED})
    assert not nights.marked("executions")


async def test_rows_of_a_deleted_run_test_stay_as_they_are(nights: Nights) -> None:
    await nights.export(names="all")
    gone = nights.world.run_tests.pop()

    told = await nights.export(names="all")

    assert (told.exit_code, kinds(told)) == (0, [Kind.RUN_TEST_GONE])
    assert told.notices[0].startswith(repr(gone.name))
    assert (nights.marked("executions"), len(nights.rows("executions"))) == (0, 14)
    assert nights.server.count(METRICS, run_test_name=gone.name) == 1, "its name is asked for once"
    await nights.export(names="all")
    assert nights.server.count(METRICS, run_test_name=gone.name) == 0


async def test_run_test_that_exists_and_is_missing_from_the_list_of_run_tests_is_exported_as_ever(
    nights: Nights, tmp_path: Path
) -> None:
    await nights.export(names="all")
    hidden = nights.world.run_tests[0]
    add_execution(nights.world, hidden, random.Random(1), NIGHT, 2, status="completed")
    nights.server.fault = lambda request, _nth: (
        Fault(edit=lambda body: _without(body, hidden.name)) if request.path == RUN_TESTS else None
    )

    summary = await nights.export(names="all")

    assert (summary.exit_code, len(summary.run_tests)) == (0, 2)
    assert_equals_world(tmp_path, nights.world)


def _without(body: bytes, name: str) -> bytes:
    document = msgspec.json.decode(body)
    document["results"] = [each for each in document["results"] if each["name"] != name]
    document["count"] = len(document["results"])
    return msgspec.json.encode(document)


@pytest.mark.parametrize("is_first", [True, False])
async def test_list_that_is_slow_holds_back_no_other_run_test(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_first: bool
) -> None:
    """Its answer comes only once the calls of the other run test were fetched, of which one execution was deleted."""
    monkeypatch.setattr(lists, "LIST_PATIENCE_SECONDS", 0.05)
    first, second = nights.world.run_tests
    if not is_first:
        await nights.export()
        second.executions[1].is_deleted = True
        add_execution(nights.world, second, random.Random(1), NIGHT, 2, status="completed")
        second.executions[0], second.executions[-1] = second.executions[-1], second.executions[0]
    last = second.executions[0].calls[0]

    def wait(request: SandboxRequest, _nth: int) -> Fault | None:
        is_slow = request.query.get("run_test_name") == first.name and not is_fetched(last)
        return Fault(is_hanging=True) if is_slow else None

    def is_fetched(call: SimulatedCall) -> bool:
        return nights.server.count(METRICS, call_execution_id=call.call_execution_id) > 0

    nights.server.fault = wait
    api = {"max_tries": 20, "read_timeout_seconds": 0.3}
    summary = await nights.export(api=api, export={"metrics": "calls"})

    assert summary.exit_code == 0
    assert_equals_world(tmp_path, nights.world)


async def test_key_of_another_workspace_is_refused_where_one_of_its_lists_fails(nights: Nights) -> None:
    await nights.export()
    before, mine = nights.files(), nights.world
    other = settled_world(seed=99, run_tests=2, executions=3, calls=2)
    for own, run_test in zip(mine.run_tests, other.run_tests, strict=True):
        run_test.name = own.name
    names = [run_test.name for run_test in mine.run_tests]
    nights.server.world = other
    nights.server.fault = lambda request, _nth: (
        Fault(status=500) if request.query.get("run_test_name") == names[1] else None
    )
    assert (await nights.export(names=names, api={"base_url": nights.server.base_url, "max_tries": 1})).exit_code == 2
    assert nights.files() == before


async def test_404_of_a_run_test_that_is_listed_suggests_no_other_name(nights: Nights) -> None:
    body = msgspec.json.encode(not_found("Run test"))
    nights.server.fault = lambda request, _nth: (
        Fault(status=404, body=body) if "run_test_name" in request.query else None
    )
    problems = (await nights.export()).problems
    assert len(problems) == 2
    assert all("although it is in the API's list of run tests" in each for each in problems)
