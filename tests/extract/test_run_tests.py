"""``run_tests = "all"``: what the key sees is what is exported, whatever it is called, and nothing else is touched."""

import json
import random
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from etl.errors import ExporterError
from etl.model.findings import Kind
from etl.model.keys import default_key
from etl.model.records import RUN_TESTS
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox, SandboxRequest, world
from etl.sandbox.generate import new_id
from etl.sandbox.world import SimulatedRunTest
from tests.e2e.truth import assert_equals_world, rows_of
from tests.pipeline.nights import NIGHT, Nights, kinds
from tests.support import settings_for
from tests.worlds import a_sandbox, settled_world

Export = Callable[..., Any]
server = a_sandbox(run_tests=3, executions=4, calls=3)


@pytest.fixture
def export(server: Sandbox, tmp_path: Path) -> Export:
    """One night's export of everything; each one is a day later than the one before."""
    return partial(Nights(server, tmp_path).export, names="all")


def add_run_test(server: Sandbox, name: str, seed: int = 7) -> SimulatedRunTest:
    """One more run test of this name, with an execution of its own."""
    (made,) = settled_world(seed=seed, run_tests=1, executions=1, calls=2).run_tests
    made.name, made.created_at = name, NIGHT
    made.run_test_id = new_id(random.Random(seed))
    world.add_run_test(server.world, made)
    return made


def refuse_row(row: int) -> Callable[[SandboxRequest, int], Fault | None]:
    """A fault of every page of run tests that holds the row."""

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        if request.path != RUN_TESTS:
            return None
        limit, page = int(request.query["limit"]), int(request.query["page"])
        return Fault(status=500) if (page - 1) * limit <= row < page * limit else None

    return fault


async def test_everything_that_the_key_sees_is_exported_under_the_keys_of_its_names(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    first = await export()
    assert (first.exit_code, first.problems, first.notices) == (0, [], [])
    assert_equals_world(tmp_path, server.world)
    keys = {default_key(run_test.name) for run_test in server.world.run_tests}
    assert {row["run_test"] for row in rows_of(tmp_path, "calls")} == keys

    new = add_run_test(server, "Brand new")
    second = await export()

    assert second.exit_code == 0
    assert [(each.name, each.calls) for each in second.run_tests if each.calls] == [(new.name, 2)]
    assert_equals_world(tmp_path, server.world)


async def test_run_tests_of_one_name_are_exported_as_one_and_told(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    name = server.world.run_tests[0].name
    add_run_test(server, name)

    summary = await export()

    assert (summary.exit_code, len(summary.run_tests)) == (0, 3)
    assert summary.notices == [f"{name!r}: 2 run tests have this name, and the API lists their executions together"]
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("name", ["", "  ", " Checkout flow", "Refund chat\n", "\ud800"])
async def test_name_by_which_nothing_can_be_asked_for_is_a_problem(
    server: Sandbox, export: Export, tmp_path: Path, name: str
) -> None:
    nameless = add_run_test(server, "Soon without a name")
    renamed = f'"name":{json.dumps(name)}'.encode()
    odd = Fault(edit=lambda body: body.replace(b'"name":"Soon without a name"', renamed))
    server.fault = lambda _request, _nth: odd

    summary = await export()

    assert summary.exit_code == 3
    (problem,) = summary.problems
    assert problem.startswith(f"run test {nameless.run_test_id} was left out, because the API cannot")
    assert f"the API cannot find it by its name {name!r}. Rename it at the source" in problem
    assert len(rows_of(tmp_path, "executions")) == 12


async def test_list_that_is_never_proved_is_a_problem_and_what_it_showed_is_exported(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """It counts one more than it shows."""
    odd = Fault(edit=lambda body: re.sub(rb'"count":(\d+)', lambda match: b'"count":%d' % (int(match[1]) + 1), body))
    server.fault = lambda request, _nth: odd if request.path == RUN_TESTS else None

    summary = await export()

    assert (summary.exit_code, kinds(summary)) == (3, [Kind.RUN_TESTS_UNKNOWN])
    assert all(each.is_complete for each in summary.run_tests)
    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_plan_discovers_too_and_says_what_it_could_not(server: Sandbox, tmp_path: Path) -> None:
    settings = settings_for(server, tmp_path / "data", run_tests="all", api={"max_tries": 1})
    whole = await job.plan(settings)
    server.fault = refuse_row(0)
    lacking = await job.plan(settings)

    assert (len(whole.run_tests), len(whole.planned), whole.problems) == (3, 12, [])
    assert "of the list of run tests cannot be read" in lacking.problems[0]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("fault", "exit_code", "words"),
    [
        (Fault(status=401), 4, "FI_API_KEY"),
        (Fault(status=503), 5, "the run tests could not be listed: run tests, page 1: /"),
        (
            Fault(status=404, body=b"<html>"),
            5,
            "the server does not have this path. Check [api] base_url or FI_BASE_URL",
        ),
        (Fault(body=b'{"count":0,"total_pages":1,"current_page":1,"results":[]}'), 2, "the key sees no run test"),
    ],
    ids=["401", "503", "404 HTML", "no run test"],
)
async def test_discovery_that_fails_ends_a_plan_and_a_run_which_leaves_a_summary(
    server: Sandbox, tmp_path: Path, export: Export, fault: Fault, exit_code: int, words: str
) -> None:
    server.fault = lambda request, _nth: fault if request.path == RUN_TESTS else None

    summary = await export(api={"max_tries": 1})
    with pytest.raises(ExporterError) as planned:
        await job.plan(settings_for(server, tmp_path / "data", run_tests="all", api={"max_tries": 1}))

    assert (summary.exit_code, planned.value.exit_code) == (exit_code, exit_code)
    assert words in str(planned.value)
    (problem,) = summary.problems
    assert words in problem
    left = json.loads((tmp_path / "data" / "_state" / "last_run.json").read_bytes())
    assert (left["exit_code"], left["run_tests"]) == (exit_code, [])
    (row,) = rows_of(tmp_path, "runs")
    assert row["exit_code"] == exit_code
