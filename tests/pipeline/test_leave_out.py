"""What ``[export] leave_out`` names is null, as if the source did not have it; nothing else differs, nothing alarms."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from etl.dataset.layout import Scope
from etl.inspect.verify import verify
from etl.model.findings import Kind
from etl.model.leave_out import COLUMNS
from etl.sandbox import Sandbox
from etl.sandbox.generate import add_execution
from tests.pipeline.nights import FOLLOWED, NIGHT, Nights, kinds
from tests.support import settings_for
from tests.worlds import executions_of, settled_world

LEFT_OUT: dict[str, Any] = {"leave_out": [*COLUMNS]}
SWEPT = {"sweep_days": 1}
SAID, FREE = "she said 4711", {"reason": "a free object", "ended_reason": "another"}
IDS = ("execution_id", "call_execution_id", "eval_config_id")
OF_VERSION = {"export_run_id", "exported_at", "verified_at", "export_state", "calls_digest"}


@pytest.fixture
async def nights(tmp_path: Path) -> AsyncIterator[Nights]:
    """Voice calls and chats, which ran twice; of each run test, one execution has just ended."""
    world = settled_world(run_tests=2, executions=2, calls=2, calls_spread=0)
    world.run_tests[1].profile = replace(world.run_tests[1].profile, is_chat=True)
    for run_test in world.run_tests:
        add_execution(world, run_test, Random(1), NIGHT + timedelta(hours=20), 2)
    for execution in executions_of(world):
        execution.error_reason = SAID
        for call in execution.calls:
            call.ended_reason, call.tool_outputs, call.cost_breakdown = SAID, {"book": SAID}, FREE
            call.eval_outputs = {key: {**output, "reason": SAID} for key, output in call.eval_outputs.items()}
            call.rerun_snapshots = [{"status": "failed", "eval_outputs": call.eval_outputs}]
    async with Sandbox(world) as server:
        yield Nights(server, tmp_path)


def stored(nights: Nights) -> list[dict[str, Any]]:
    """All rows, but for what tells when they were written."""
    rows = [row | {"table": table} for table in FOLLOWED for row in nights.rows(table)]
    rows.sort(key=lambda row: tuple(row.get(name, "") for name in ("table", *IDS)))
    return [{name: row[name] for name in row.keys() - OF_VERSION} for row in rows]


def emptied(row: dict[str, Any]) -> dict[str, Any]:
    """The row without what is left out; of an execution that was described before, nothing is."""
    names = [name for table, name in (each.split(".") for each in COLUMNS) if table == row["table"] != "executions"]
    snapshots = {"rerun_snapshots": row.get("rerun_snapshots", "").replace(f'"{SAID}"', "null")}
    return row | dict.fromkeys(names) | (snapshots if row["table"] == "calls" else {})


@pytest.mark.parametrize(
    ("own", "is_fetched"),
    [*(({"metrics": each, **SWEPT}, False) for each in ("exact", "calls", "listed")), ({}, True)],
    ids=["exact", "calls", "listed", "full refresh"],
)
async def test_stored_values_go_once_their_execution_is_compared_and_come_back(
    nights: Nights, own: dict[str, Any], *, is_fetched: bool
) -> None:
    await nights.export(export=own)
    before = stored(nights)
    for switched, rows in ((LEFT_OUT, [*map(emptied, before)]), ({}, before)):
        summary = await nights.export(export=own | switched, full_refresh=is_fetched)
        told = {Kind.VALUES_STAY} if switched and not is_fetched else set[Kind]()
        assert (summary.exit_code, {*kinds(summary)} - {Kind.SWEPT}) == (0, told)
        assert any("call_execution_id" in each.query for each in nights.server.requests) is is_fetched
        assert stored(nights) == rows
        await nights.export(export=own | switched)
        settled = nights.files()
        assert kinds(await nights.export(export=own | switched)) == []
        assert nights.files() == settled
        assert verify(settings_for(nights.server, nights.folder / "data"), Scope()).findings == []


async def test_no_value_gets_into_another_column_and_a_reason_that_was_left_out_stays_so(nights: Nights) -> None:
    odd, other = nights.world.run_tests[0].executions[0].calls
    odd.ended_reason = {"words": SAID}  # type: ignore[assignment]
    other.eval_outputs = [{"reason": SAID}]  # type: ignore[assignment]
    assert (await nights.export(export=LEFT_OUT | {"include_raw": True})).exit_code == 0
    assert str(stored(nights)).count(SAID) == 0
    await nights.export(full_refresh=True)
    assert {row["error_reason"] for row in nights.rows("executions")} == {None}


async def test_column_goes_that_only_a_list_filled_which_is_read_no_more(nights: Nights) -> None:
    await nights.export()
    assert {row["agent_version"] for row in nights.rows("calls")} == {"v2", None}
    summary = await nights.export(export={"metrics": "calls", "leave_out": ["calls.agent_version"], **SWEPT})
    assert (summary.exit_code, {row["agent_version"] for row in nights.rows("calls")}) == (0, {None})
    assert None not in {row["agent_version"] for row in nights.rows("executions")}
