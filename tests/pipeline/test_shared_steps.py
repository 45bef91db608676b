"""What a plan and an export share: what is gone, where new rows go, and a plan that predicts what a run sends."""

import random
from contextlib import suppress
from pathlib import Path

import pytest

from etl.sandbox.generate import add_execution
from tests.dataset.killed import killed_before
from tests.datasets import published
from tests.e2e.truth import assert_equals_world
from tests.pipeline.nights import NIGHT, Nights


@pytest.mark.parametrize("table", ["evals", "executions"])
async def test_rows_that_a_failed_run_left_without_an_execution_are_marked_when_that_is_gone(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    published(monkeypatch, failing=table)
    assert (await nights.export()).exit_code == 6
    monkeypatch.undo()
    gone = nights.world.run_tests[0].executions[0]
    gone.is_deleted = True

    first, quiet = await nights.export(), await nights.export()

    assert (first.exit_code, quiet.exit_code, quiet.requests) == (0, 0, 2)
    assert nights.marked("calls", gone) == 3 == nights.marked("calls")


async def test_execution_that_a_killed_run_marked_by_half_is_marked_whole_though_its_run_test_is_gone(
    nights: Nights,
) -> None:
    await nights.export(names="all")
    run_test = nights.world.run_tests[0]
    gone = run_test.executions[0]
    gone.is_deleted = True
    with suppress(BaseExceptionGroup), killed_before(2):  # after the note of its start and the marks of calls
        await nights.export(names="all")
    assert (nights.marked("calls", gone), nights.marked("executions", gone)) == (3, 0)
    nights.world.run_tests.remove(run_test)

    assert (await nights.export(names="all")).exit_code == 0
    assert (nights.marked("evals", gone) > 0, nights.marked("executions")) == (True, 1)


async def test_execution_that_a_killed_run_unmarked_by_half_is_marked_whole_when_it_is_gone_again(
    nights: Nights,
) -> None:
    await nights.export()
    gone = nights.world.run_tests[0].executions[0]
    gone.is_deleted = True
    await nights.export()
    gone.is_deleted = False
    with suppress(BaseExceptionGroup), killed_before(2):  # after the note of its start and its calls
        await nights.export()
    assert (nights.marked("calls", gone), nights.marked("executions", gone)) == (0, 1)
    gone.is_deleted = True

    with suppress(BaseExceptionGroup), killed_before(2):  # and once more, after its calls were marked
        await nights.export()
    assert nights.marked("calls", gone) == 3

    await nights.export()
    quiet = await nights.export()
    assert (quiet.exit_code, quiet.requests) == (0, 2)
    assert nights.marked("calls", gone) == 3


async def test_configured_key_counts_for_what_is_new_alone(nights: Nights, tmp_path: Path) -> None:
    first, second = nights.world.run_tests
    await nights.export()
    new = add_execution(nights.world, first, random.Random(1), NIGHT, 2, status="completed")

    summary = await nights.export(names=[{"name": first.name, "key": "short"}, second.name])

    assert summary.exit_code == 0
    places = {row["execution_id"]: row["run_test"] for row in nights.rows("executions")}
    assert [each for each, key in places.items() if key == "short"] == [new.execution_id]
    assert_equals_world(tmp_path, nights.world)


async def test_execution_that_two_lists_have_is_exported_once(nights: Nights) -> None:
    first, second = nights.world.run_tests
    second.executions.append(first.executions[0])

    for _ in range(2):
        assert (await nights.export()).exit_code == 0
    ids = [row["execution_id"] for row in nights.rows("executions")]
    assert len(ids) == len({*ids}) == 14
