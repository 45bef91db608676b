"""A name is not an identity: executions that belong to another name now, and run tests that take over a name."""

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from etl.model.findings import Kind
from etl.model.keys import default_key
from etl.model.records import ANALYTICS, METRICS
from etl.pipeline import lists
from etl.sandbox import Fault, World
from etl.sandbox.generate import add_execution, new_run_test
from etl.sandbox.world import SimulatedRunTest, add_run_test
from tests.e2e.truth import assert_equals_world
from tests.pipeline.nights import NIGHT, Nights, kinds


def clone(nights: Nights, *, executions: int) -> SimulatedRunTest:
    """The first run test gets another name, and a new one its old name, with so many executions of its own.

    Some of them are older than all that is stored.
    """
    old = nights.world.run_tests[0]
    new = new_run_test(random.Random(3), old.name, NIGHT, old.profile)
    add_run_test(nights.world, new)
    old.name = f"{old.name} old"
    for number in range(executions):
        began_at = NIGHT - timedelta(days=200 * number)
        add_execution(nights.world, new, random.Random(number), began_at, 2, status="completed")
    return new


def homes(nights: Nights) -> Counter[tuple[str, str]]:
    """How many executions have each name, and lie in each folder."""
    return Counter((row["run_test_name"], row["run_test"]) for row in nights.rows("executions"))


@pytest.mark.parametrize(
    ("scope", "executions"),
    [
        *(("both", 3), ("alone", 0), ("--run-test", 3)),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("both", 0), ("alone", 3), ("--run-test", 0))),
    ],
)
async def test_executions_of_a_renamed_run_test_take_its_name_and_a_clone_is_exported_beside_them(
    nights: Nights, tmp_path: Path, executions: int, scope: str
) -> None:
    first, second = (each.name for each in nights.world.run_tests)
    names, narrowed = [first, second], [first] if scope == "--run-test" else []
    others = {(second, default_key(second)): 4}
    if scope == "alone":
        names, others = [first], {}
        del nights.world.run_tests[1]
    await nights.export(names=names)
    new = clone(nights, executions=executions)

    moved = await nights.export(names=names, only=narrowed)

    assert (moved.exit_code, kinds(moved), nights.marked("executions")) == (0, [Kind.NOT_EXPORTED], 0)
    assert f"10 executions now belong to '{first} old'" in moved.notices[0]
    assert nights.server.count(ANALYTICS) == 1
    key = default_key(first)
    own = {(first, f"{key}-2"): executions} if executions else {}
    assert homes(nights) == {(f"{first} old", key): 10} | others | own
    assert_equals_world(tmp_path, nights.world)

    quiet = await nights.export(names=names)
    assert (quiet.exit_code, kinds(quiet), nights.server.count(ANALYTICS)) == (0, [], 0)
    add_execution(nights.world, new, random.Random(9), NIGHT, 1, status="completed")
    add_execution(nights.world, nights.world.run_tests[0], random.Random(8), NIGHT, 1, status="completed")
    both = await nights.export(names=[*names, f"{first} old"])
    assert both.exit_code == 0
    assert homes(nights)[f"{first} old", key] == 11
    assert homes(nights)[first, f"{key}-2"] == executions + 1
    assert_equals_world(tmp_path, nights.world)


@pytest.mark.parametrize("how", ["executions", "run test", "what is in scope"])
async def test_new_executions_after_all_stored_ones_were_deleted_need_no_option(
    nights: Nights, tmp_path: Path, how: str
) -> None:
    """The run test may be deleted with them, and made anew. Older ones, which the settings leave out, say nothing."""
    del nights.world.run_tests[1]
    run_test = nights.world.run_tests[0]
    since = run_test.executions[4].created_at.date() if how == "what is in scope" else None
    names = [{"name": run_test.name, "since": since}]
    await nights.export(names=names)
    stored = len(nights.rows("executions"))
    if how == "run test":
        nights.world.run_tests[0] = new_run_test(random.Random(3), run_test.name, NIGHT, run_test.profile)
    else:
        for execution in run_test.executions:
            execution.is_deleted = since is None or execution.created_at.date() >= since
    new = add_execution(nights.world, nights.world.run_tests[0], random.Random(9), NIGHT, 2, status="completed")

    summary = await nights.export(names=names)

    assert (summary.exit_code, nights.marked("executions")) == (0, stored)
    assert homes(nights) == {(run_test.name, default_key(run_test.name)): stored + 1}
    assert_equals_world(tmp_path, World("", [replace(nights.world.run_tests[0], executions=[new])]))


async def test_run_test_that_moves_to_another_workspace_is_marked_until_it_returns(nights: Nights) -> None:
    """By id, the API still returns its executions; a detail denies them. Another run test has its name meanwhile."""
    first = nights.world.run_tests[0]
    await nights.export()
    nights.world.run_tests[0] = new_run_test(random.Random(3), first.name, NIGHT, first.profile)
    gone = await nights.export()
    assert (gone.exit_code, nights.marked("executions"), nights.server.count(ANALYTICS)) == (0, 10, 0)
    nights.world.run_tests[0] = first
    back = await nights.export()
    assert (back.exit_code, nights.marked("executions")) == (0, 0)


@pytest.mark.parametrize(
    ("refused", "exit_code"),
    [
        ((ANALYTICS, "eval_name"), 0),
        ((ANALYTICS, "execution_id"), 3),
        ((METRICS, "run_test_name=Checkout%20flow%20old"), 3),
    ],
    ids=["without evals", "analytics", "the other list"],
)
async def test_where_the_api_does_not_say_to_whom_an_execution_belongs_nothing_changes_and_the_run_says_so(
    nights: Nights, refused: tuple[str, str], exit_code: int
) -> None:
    path, part = refused
    names = [each.name for each in nights.world.run_tests]
    await nights.export(names=names)
    before = homes(nights)
    clone(nights, executions=0)
    nights.world.run_tests[0].executions[0].is_deleted = True
    nights.server.fault = lambda request, _nth: (
        Fault(status=503) if request.path == path and part in request.target else None
    )

    summary = await nights.export(names=names, api={"max_tries": 1})

    unknown = exit_code == 3
    assert (summary.exit_code, kinds(summary)[0] is Kind.LOOK_UP_FAILED) == (exit_code, unknown)
    assert (homes(nights) == before, nights.marked("executions")) == (unknown, 0 if unknown else 1)


async def test_execution_whose_evals_cannot_be_summed_up_is_found_by_one_request(nights: Nights) -> None:
    names = [each.name for each in nights.world.run_tests]
    await nights.export(names=names)
    for execution in nights.world.run_tests[0].executions:
        config = execution.run_test.eval_configs[0].config_id
        execution.calls[0].eval_outputs = {config: {"name": "n", "output": 0.5, "output_type": "numeric"}}
    clone(nights, executions=0)
    assert (await nights.export(names=names)).exit_code == 0
    assert nights.server.count(ANALYTICS) == 1


async def test_a_clone_waits_for_the_list_of_those_that_it_lacks(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs is the folder that has its name."""
    monkeypatch.setattr(lists, "LIST_PATIENCE_SECONDS", 0.1)
    names = [each.name for each in nights.world.run_tests]
    await nights.export(names=names)
    clone(nights, executions=3)
    names.append(f"{names[0]} old")
    nights.server.fault = lambda request, _nth: (
        Fault(delay_seconds=0.5) if request.query.get("run_test_name") == names[2] else None
    )
    assert "got 10 executions of" in (await nights.export(names=names)).notices[0]
    key = default_key(names[0])
    assert homes(nights) == {(names[2], key): 10, (names[1], default_key(names[1])): 4, (names[0], f"{key}-2"): 3}


async def test_a_new_name_is_no_news_of_rows_that_somebody_removed(nights: Nights, tmp_path: Path) -> None:
    await nights.export()
    nights.world.run_tests[0].name = "Till"
    for path in (nights.folder / "data" / "executions").rglob("*.parquet"):
        path.unlink()
    found = await nights.export()
    assert (found.exit_code, {*kinds(found)}) == (0, {Kind.FETCHED_AGAIN})
    assert_equals_world(tmp_path, nights.world)
