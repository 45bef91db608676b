"""What changes in a final execution is in the dataset within ``sweep_days``, whatever a night of the sweep meets."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest

from etl.dataset.state import CallReader
from etl.extract.endpoints import Purpose
from etl.files.names import COMPARED
from etl.inspect.read_status import status
from etl.model.findings import Kind
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, SandboxRequest
from etl.sandbox.generate import add_execution
from tests.e2e.truth import assert_equals_world
from tests.loads import compared
from tests.pipeline.nights import Nights, kinds
from tests.support import settings_for
from tests.warehouses import Place

EXECUTIONS = 14
ALL, MONTH = {"sweep_days": 1}, {"sweep_days": 30}
NEW_EVAL = "9f6f1f0e-0000-4000-8000-000000000001"


def swept(summary: Summary) -> int:
    """How many requests compared final executions."""
    return summary.requests_by_purpose[Purpose.SWEEP]


def change(nights: Nights) -> set[str]:
    """In final executions a call is deleted, an eval is added, a call or one of its stages costs more; their ids."""
    deleted, judged, billed, corrected = nights.world.run_tests[0].executions[:4]
    deleted.calls[0].is_deleted = True
    outputs = judged.calls[0].eval_outputs
    judged.calls[0].eval_outputs = outputs | {NEW_EVAL: next(iter(outputs.values()))}
    billed.calls[0].total_cost_cents = 4321
    corrected.calls[0].stt_cost_cents = 4321
    return {each.execution_id for each in (deleted, judged, billed, corrected)}


@pytest.mark.parametrize("sweeps_before", [0, pytest.param(1, marks=pytest.mark.slow)])
async def test_what_changes_in_final_executions_is_there_within_thirty_nights_and_told_once(
    nights: Nights, sweeps_before: int
) -> None:
    place = Place(f"duckdb://{nights.folder / 'warehouse.duckdb'}")
    loads = {"url": place.url}
    for export in ({}, *[ALL] * sweeps_before):
        await nights.export(export=export, warehouse=loads)
    changed = change(nights)
    summaries = [await nights.export(export=MONTH, warehouse=loads if number % 10 == 9 else {}) for number in range(30)]
    assert {summary.exit_code for summary in summaries} == {0}
    assert compared(place, nights.folder / "data").findings == []
    assert_equals_world(nights.folder, nights.world)
    assert {row["export_state"] for row in nights.rows("executions")} == {"exported"}
    told = [each.text for summary in summaries for each in summary.findings if each.kind is Kind.SWEPT]
    assert sorted(told) == [f"1 final execution had changed at the source: {each}" for each in sorted(changed)]
    requests = [swept(summary) for summary in summaries]
    assert sum(requests) <= 2 * (EXECUTIONS + 1) + 3, "each in two, a look-up, and two calls that cost more"
    assert max(requests) == 2 + 1, "an even pace"


@pytest.mark.parametrize("options", [{}, {"metrics": "listed"}, {"settle_by": "refetch"}])
async def test_what_is_as_it_was_is_compared_once_and_no_row_changes(nights: Nights, options: dict[str, Any]) -> None:
    await nights.export(export={"metrics": options.get("metrics", "exact")})
    before = nights.files()
    for _ in range(2):
        summary = await nights.export(export=ALL | options)
        each = {"listed": 1, "refetch": 1 + 3}.get(next(iter(options.values()), ""), 2)
        assert (summary.exit_code, swept(summary), nights.files()) == (0, each * EXECUTIONS, before)
        assert sum(each["verified"] for each in summary.receipt.as_json()["executions"].values()) == EXECUTIONS
    assert Kind.SWEPT not in kinds(summary)
    assert swept(await nights.export(export=MONTH | options)) == 0, "the next ones are due days later"


@pytest.mark.parametrize("is_new", [False, True], ids=["swept before", "settled"])
async def test_lists_that_say_what_they_said_need_no_stored_rows(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, *, is_new: bool
) -> None:
    number = EXECUTIONS
    if is_new:
        first, second = nights.world.run_tests
        number = 2
        second.profile = replace(second.profile, is_chat=True)
        for each in (first, second):
            each.executions.clear()
            add_execution(nights.world, each, Random(each.name), nights.now + timedelta(hours=20), 3)
    for export in ({}, {}, {}, {} if is_new else ALL):
        await nights.export(export=export)
    monkeypatch.delattr(CallReader, "read")
    assert swept(await nights.export(export=ALL)) == 2 * number


async def test_what_lists_said_proves_nothing_beside_other_rows(nights: Nights) -> None:
    """As where a source has its old values again, and the note of when it had them is restored."""
    for export in ({}, ALL):
        await nights.export(export=export)
    note, call = nights.folder / "data" / COMPARED, nights.world.run_tests[0].executions[0].calls[0]
    before, cost = note.read_bytes(), call.total_cost_cents
    call.total_cost_cents = 4321
    for export in (ALL, {}, {}):
        await nights.export(export=export)
    call.total_cost_cents = cost
    note.write_bytes(before)
    assert kinds(await nights.export(export=ALL)) == [Kind.SWEPT]
    assert_equals_world(nights.folder, nights.world)


async def test_without_the_note_of_earlier_comparisons_they_come_early_and_nothing_else_differs(nights: Nights) -> None:
    await nights.export()
    nights.now += timedelta(days=40)
    for _ in range(14):
        await nights.export(export=MONTH)
    note, rows = nights.folder / "data" / COMPARED, nights.files()
    assert len({each for ids in json.loads(note.read_text()).values() for each in ids}) == EXECUTIONS
    assert swept(await nights.export(export=MONTH)) == 0
    for spoil in (note.unlink, lambda: note.write_text("{")):
        spoil()
        summary = await nights.export(export=MONTH)
        assert (summary.exit_code, swept(summary), nights.files()) == (0, 2, rows)


def _details(request: SandboxRequest) -> bool:
    return "/test-executions/" in request.path


def _lists_of_calls(request: SandboxRequest) -> bool:
    return request.path.endswith("/runs/")


@pytest.mark.parametrize("is_struck", [_details, _lists_of_calls, lambda each: _details(each) or _lists_of_calls(each)])
async def test_failed_comparison_changes_nothing_is_a_notice_and_comes_again(
    nights: Nights, is_struck: Callable[[SandboxRequest], bool]
) -> None:
    await nights.export()
    before = nights.files()
    nights.server.fault = lambda request, _nth: Fault(status=500) if is_struck(request) else None
    for _ in range(2):
        summary = await nights.export(export=ALL, api={"max_tries": 1})
        assert (summary.exit_code, nights.files()) == (0, before)
        if is_struck is not _lists_of_calls:  # which the detail stands in for
            assert kinds(summary) == [Kind.NOT_COMPARED]
            assert summary.notices[0].startswith(f"{EXECUTIONS} executions could not be compared with the API: ")
    assert all(run_test.is_complete for run_test in summary.run_tests)


async def test_new_call_that_cannot_be_fetched_is_missing(nights: Nights) -> None:
    call = nights.world.run_tests[0].executions[0].calls[0]
    call.is_deleted = True
    for _ in range(3):
        await nights.export()
    call.is_deleted = False
    nights.server.fault = lambda request, _nth: (
        Fault(status=500) if request.query.get("call_execution_id") == call.call_execution_id else None
    )
    summary = await nights.export(export=ALL, api={"max_tries": 1})
    assert (summary.exit_code, kinds(summary)) == (3, [Kind.DEAD_LETTER, Kind.SWEPT])


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        (Fault(is_hanging=True), {"export": ALL | {"max_runtime_minutes": 0.02}}),
        (Fault(status=503, headers={"Retry-After": "0"}), {"export": ALL, "api": {"max_tries": 2, "concurrency": 1}}),
    ],
)
async def test_sweep_that_is_cut_short_leaves_the_night_complete(
    nights: Nights, fault: Fault, options: dict[str, Any]
) -> None:
    await nights.export()
    before = nights.files()
    add_execution(nights.world, nights.world.run_tests[1], Random(5), nights.now, 2)
    ids = {each.execution_id for each in nights.world.run_tests[0].executions}
    nights.server.fault = lambda request, _nth: fault if any(each in request.target for each in ids) else None
    summary = await nights.export(**options)
    assert (summary.exit_code, kinds(summary)) == (0, [Kind.NOT_COMPARED])
    assert (summary.rows["executions"], nights.files() == before) == (1, False)
    assert all(run_test.is_complete for run_test in summary.run_tests)


async def test_plan_says_what_it_takes_within_a_tenth_of_a_night_and_the_scope(nights: Nights) -> None:
    await nights.export()

    async def planned(name: str = "", since: date | None = None, **export: Any) -> int:
        api = {"requests_per_minute": 60}
        settings = settings_for(nights.server, nights.folder / "data", api=api, export={"sweep_days": 1} | export)
        settings = settings.only([name] if name else (), since=since)
        plan = await job.plan(settings, clock=lambda: nights.now + timedelta(days=1))
        assert plan.requests == plan.requests_by_purpose[Purpose.SWEEP]
        return plan.requests

    assert [await planned(), await planned(sweep_days=0)] == [2 * EXECUTIONS, 0]
    assert await planned(nights.world.run_tests[1].name) == 2 * 4
    days = sorted(each.started_at.date() for run_test in nights.world.run_tests for each in run_test.executions)
    assert await planned(since=days[-2]) == 2 * sum(day >= days[-2] for day in days) < 2 * EXECUTIONS
    assert await planned(max_runtime_minutes=1) == 60 // 10


async def test_status_says_how_old_the_oldest_comparison_is_and_how_old_it_may_get(nights: Nights) -> None:
    nights.now = datetime.now(UTC) - timedelta(days=4)
    await nights.export()

    def line(**export: Any) -> str:
        now = settings_for(nights.server, nights.folder / "data", export=export)
        return dict(status(now).lines())["final"].removeprefix("all were compared with the API at most ")

    assert [line(), line(sweep_days=0)] == ["3 days ago (limit: 30 days)", "3 days ago"]
    await nights.export(export=ALL)
    assert line() == "2 days ago (limit: 30 days)"
