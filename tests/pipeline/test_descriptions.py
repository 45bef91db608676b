"""What lists of run tests say of executions is asked for once, kept, and missed without an alarm."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from etl.extract.endpoints import Slice, list_run_test_executions
from etl.model.findings import Kind
from etl.model.schema import DESCRIBED
from etl.sandbox import Fault, Sandbox
from etl.sandbox.generate import add_execution
from tests.pipeline.nights import NIGHT, Nights, kinds
from tests.worlds import settled_world

SAMPLES = Path(__file__).parents[1] / "samples" / "detail"


@pytest.fixture
async def nights(tmp_path: Path) -> Any:
    async with Sandbox(settled_world(run_tests=1, executions=3, calls=2)) as server:
        yield Nights(server, tmp_path)


@pytest.fixture
def few_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.extract.descriptions.PAGE_ROWS", 2)


def described(nights: Nights) -> dict[str, tuple[Any, ...]]:
    names = ("agent_version", "agent_name", "error_reason", "judged_by")
    return {row["execution_id"]: tuple(row[name] for name in names) for row in nights.rows("executions")}


async def test_what_was_told_first_stays_though_the_source_tells_another_version_and_judge(nights: Nights) -> None:
    """The API names the newest version for an execution without one."""
    (run_test,) = nights.world.run_tests
    first, second, third = run_test.executions
    first.agent_version = second.agent_version = None
    third.error_reason = "a\nlong " + 300 * "x"
    assert (await nights.export()).exit_code == 0
    told = described(nights)
    assert {each[:2] for each in told.values()} == {("v2", "Voice agent")}
    assert {key: each[2] for key, each in told.items()} == dict.fromkeys(told) | {
        third.execution_id: "a long " + 193 * "x"
    }
    judges = json.loads(told[first.execution_id][3])
    assert {key: each["name"] for key, each in judges.items()} == {c.config_id: c.name for c in run_test.eval_configs}

    run_test.eval_configs = [replace(each, model="other") for each in run_test.eval_configs]
    fresh = add_execution(nights.world, run_test, random.Random(1), NIGHT, 2)
    fresh.agent_version = "v9"
    first.calls[0].duration_seconds = 999.0
    assert (await nights.export(full_refresh=True)).exit_code == 0
    assert {key: described(nights)[key] for key in told} == told
    assert described(nights)[fresh.execution_id][0] == "v9"
    assert '"model":"other"' in described(nights)[fresh.execution_id][3]


@pytest.mark.parametrize("path", ["/simulate/run-tests/", "/executions/"])
async def test_list_that_fails_is_a_notice_and_is_asked_for_again_while_the_executions_settle(
    nights: Nights, path: str
) -> None:
    fresh = add_execution(nights.world, nights.world.run_tests[0], random.Random(1), nights.now, 2)
    nights.server.fault = lambda request, _nth: Fault(status=403) if request.path.endswith(path) else None
    failed = await nights.export()
    assert (failed.exit_code, kinds(failed)) == (0, [Kind.NOT_DESCRIBED])
    nights.server.fault = None
    assert (await nights.export()).exit_code == 0
    assert described(nights)[fresh.execution_id][0] == "v2"


@pytest.mark.parametrize("cap", [None, 1])
async def test_pages_are_read_on_which_new_executions_are_and_none_in_a_quiet_night(
    tmp_path: Path, few_a_page: None, cap: int | None
) -> None:
    """Also if the server gives smaller pages than it is asked for."""
    async with Sandbox(settled_world(run_tests=1, executions=6, calls=2), max_limit=cap) as server:
        nights, executions = Nights(server, tmp_path), server.world.run_tests[0].executions
        for late in executions[:2]:
            late.status = "running"
        await nights.export()
        assert server.count("/executions/") == (2 if cap is None else 4)
        for late in executions[:2]:
            late.status = "completed"
        await nights.export()
        assert server.count("/executions/") == (1 if cap is None else 3)
        assert {each[0] for each in described(nights).values()} == {"v1", "v2"}
        await nights.export()
        assert server.count("/run-tests/") == 0


@pytest.mark.parametrize("path", ["/simulate/run-tests/", "/executions/"])
async def test_list_that_hangs_holds_nothing_back(nights: Nights, path: str) -> None:
    nights.server.fault = lambda request, _nth: Fault(is_hanging=True) if request.path.endswith(path) else None
    summary = await nights.export(api={"concurrency": 1}, export={"max_runtime_minutes": 0.05})
    assert (summary.exit_code, {*kinds(summary)}) == (0, {Kind.NOT_DESCRIBED})
    assert [len(nights.rows(table)) for table in ("executions", "calls")] == [3, 6]


async def test_sweep_that_hangs_leaves_no_new_execution_undescribed(nights: Nights) -> None:
    await nights.export()
    old = [execution.execution_id for execution in nights.world.run_tests[0].executions]
    fresh = add_execution(nights.world, nights.world.run_tests[0], random.Random(1), nights.now, 2)
    nights.server.fault = lambda request, _nth: (
        Fault(is_hanging=True) if any(key in request.path for key in old) else None
    )
    summary = await nights.export(export={"sweep_days": 1, "max_runtime_minutes": 0.05})
    assert (summary.exit_code, kinds(summary)) == (0, [Kind.NOT_COMPARED])
    assert described(nights)[fresh.execution_id][0] == "v2"


async def test_page_that_fails_takes_nothing_from_others_and_is_asked_for_again_with_the_next_news(
    nights: Nights, few_a_page: None
) -> None:
    """Also for rows that are final."""
    nights.server.fault = lambda request, _nth: (
        Fault(status=500) if request.path.endswith("/executions/") and request.query["page"] == "1" else None
    )
    assert kinds(await nights.export()) == [Kind.NOT_DESCRIBED]
    versions = sorted(str(told[0]) for told in described(nights).values())
    assert versions == ["None", "None", "v1"]
    nights.server.fault = None
    assert kinds(await nights.export()) == []
    assert nights.server.count("/run-tests/") == 0
    add_execution(nights.world, nights.world.run_tests[0], random.Random(1), nights.now, 2)
    assert kinds(await nights.export()) == []
    assert None not in {told[0] for told in described(nights).values()}


async def test_run_tests_of_one_name_are_each_read_as_far_as_their_common_list_goes(
    tmp_path: Path, few_a_page: None
) -> None:
    """And never beyond the last page of their own."""
    async with Sandbox(settled_world(run_tests=2, executions=5, calls=1)) as server:
        nights, (first, second) = Nights(server, tmp_path), server.world.run_tests
        second.name = first.name
        summary = await nights.export(names=[first.name])
        assert kinds(summary) == []
        ids = {row["execution_id"]: row["run_test_id"] for row in nights.rows("executions")}
        assert ids == {each.execution_id: test.run_test_id for test in (first, second) for each in test.executions}
        assert {request.status for request in server.requests if request.path.endswith("/executions/")} == {200}


async def test_version_is_not_stored_without_what_judged_the_execution(nights: Nights) -> None:
    """Else nothing would tell that it is to be asked for again."""
    fresh = add_execution(nights.world, nights.world.run_tests[0], random.Random(1), nights.now, 2)
    nights.server.fault = changed("/simulate/run-tests/", lambda row: row.pop("simulate_eval_configs_detail"))
    assert kinds(await nights.export()) == [Kind.NOT_DESCRIBED]
    nights.server.fault = None
    await nights.export()
    assert described(nights)[fresh.execution_id][0] == "v2"
    assert None not in {told[3] for told in described(nights).values()}


async def test_nothing_is_stored_of_an_execution_that_no_list_has_and_it_is_asked_for_again(nights: Nights) -> None:
    """The list may have lacked it for a moment, or the list of run tests one of the same name, which it is of."""
    nights.server.fault = changed("/executions/", lambda row: row.update(id=None))
    assert kinds(await nights.export()) == [Kind.NOT_DESCRIBED]
    nights.server.fault = None
    add_execution(nights.world, nights.world.run_tests[0], random.Random(1), nights.now, 2)
    assert kinds(await nights.export()) == []
    assert None not in {told[0] for told in described(nights).values()}


async def test_odd_value_of_one_execution_is_null_there_and_elsewhere_all_is_told(nights: Nights) -> None:
    odd, *_ = nights.world.run_tests[0].executions

    def edit(row: dict[str, Any]) -> None:
        if row["id"] == odd.execution_id:
            row["agent_version"] = 5
            del row["error_reason"]

    nights.server.fault = changed("/executions/", edit)
    assert kinds(await nights.export()) == []
    versions = {key: told[0] for key, told in described(nights).items()}
    assert versions.pop(odd.execution_id) is None
    assert None not in versions.values()


def changed(path: str, edit: Callable[[dict[str, Any]], Any]) -> Callable[..., Fault | None]:
    """Answers of this endpoint come with each row edited."""

    def apply(body: bytes) -> bytes:
        document = json.loads(body)
        for row in document["results"]:
            edit(row)
        return json.dumps(document).encode()

    return lambda request, _nth: Fault(edit=apply) if request.path.endswith(path) else None


def test_recorded_list_has_no_version_where_the_source_says_it_has_none() -> None:
    sample = json.loads((SAMPLES / "executions_of_a_run_test.json").read_text(encoding="utf-8"))
    run_test_id = sample["request"]["target"].split("/")[3]
    page = list_run_test_executions(run_test_id, Slice(1, 6)).decode(sample["body"])
    assert [each.execution_id for each in page.results] == [each["id"] for each in sample["body"]["results"]]
    told = {"run_test_id": run_test_id, "agent_name": "Ägent V", "agent_version": None, "error_reason": None}
    assert all(each.columns == told for each in page.results)
    assert told.keys() < {column.name for column in DESCRIBED}
