"""`verify --against-api`: what the API computes is what the exported calls say, but for causes that are known."""

import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etl.dataset.layout import Scope
from etl.errors import KeyRefusedError, SourceUnavailableError
from etl.inspect.reconcile import Reconciliation, Skipped, reconcile
from etl.inspect.verify import VerifyReport, verify
from etl.model.findings import Kind
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox, World
from etl.sandbox.generate import add_execution, finish_execution
from etl.sandbox.world import rerun_execution
from etl.settings import Settings
from tests.support import settings_for
from tests.worlds import settled_world

END = datetime(2026, 10, 30, 15, tzinfo=UTC)


async def against_api(settings: Settings) -> tuple[VerifyReport, Reconciliation]:
    report = verify(settings, Scope(), needs_aggregates=True)
    reconciliation = await reconcile(settings, report.executions, unsound=report.unsound, on_hold=lambda _: None)
    report.reconciliation = reconciliation
    report.findings += reconciliation.findings
    return report, reconciliation


def eventful_world(executions: int) -> World:
    """Hundreds of executions with all that makes an aggregate something else than the mean of a column."""
    world = settled_world(
        run_tests=6, executions=executions, calls=4, calls_spread=3, quirks=True, include_unfinished=True
    )
    rng = random.Random(7)
    finished = [each for run_test in world.run_tests for each in run_test.executions if each.status == "completed"]
    for number, execution in enumerate(finished):
        calls = execution.calls
        match number % 8:
            case 0 if calls:
                calls[0].is_deleted = True
            case 1:
                for call in calls:
                    call.avg_agent_latency_ms = call.response_time_ms = None
                    call.chat_metrics = {}
            case 2 if calls:
                calls[0].avg_agent_latency_ms = calls[0].duration_seconds = calls[0].talk_ratio = 0
            case 3:
                rerun_execution(execution, END)
                finish_execution(execution, rng, END + timedelta(minutes=5))
            case 4 if calls:
                calls[0].chat_metrics = {"turn_count": 4.5, "avg_latency_ms": "1500", "total_tokens": "12"}
            case 5:
                for call in calls:
                    call.is_deleted = True
    return world


@pytest.mark.parametrize("executions", [15, pytest.param(60, marks=pytest.mark.slow)])
async def test_every_difference_of_hundreds_of_executions_is_explained(tmp_path: Path, executions: int) -> None:
    world = eventful_world(executions)
    broken = next(call for call in world.run_tests[0].executions[7].calls if not call.is_deleted).call_execution_id
    async with Sandbox(world) as server:
        server.fault = lambda request, _nth: Fault(status=500) if broken in request.target else None
        settings = settings_for(server, tmp_path / "data", api={"max_tries": 1}, export={"metrics": "calls"})
        assert (await job.export(settings)).exit_code == 3
        server.fault = None
        asked = len(server.requests)
        report, reconciliation = await against_api(settings)

        assert len(server.requests) - asked == reconciliation.requests == 6
        assert [each.kind for each in report.findings] == [Kind.DEAD_LETTER]
        assert (reconciliation.unexplained, reconciliation.findings) == (0, [])
        assert reconciliation.compared >= 5 * executions
        assert reconciliation.same > reconciliation.values / 4
        causes = {"zero_for_null", "rounding", "deleted_calls", "dead_letter", "misfit", "bot_messages"}
        assert causes == set(reconciliation.explained)
        assert set(reconciliation.skipped) == {Skipped.IN_FLIGHT}

        first, second = world.run_tests[:2]
        next(call for call in first.executions[1].calls if not call.is_deleted).is_deleted = True
        first.executions[2].is_deleted = True
        rerun_execution(first.executions[3], END)
        changed = next(each for each in second.executions if each.status == "completed" and each.calls)
        changed.calls[0].duration_seconds = 10_000
        new = add_execution(world, second, random.Random(1), END, 3)
        _, later = await against_api(settings)

    assert (later.unexplained, later.findings) == (0, [])
    assert first.executions[3].execution_id in later.skipped.pop(Skipped.IN_FLIGHT)
    assert later.skipped == {
        Skipped.NOT_LISTED: [first.executions[2].execution_id],
        Skipped.CHANGED: [changed.execution_id],
        Skipped.NEW: [new.execution_id],
    }


async def exported(server: Sandbox, folder: Path) -> Settings:
    settings = settings_for(server, folder / "data", export={"metrics": "calls"})
    assert (await job.export(settings)).exit_code == 0
    return settings


async def test_value_that_the_api_never_gave_is_one_difference_even_where_every_hash_holds(tmp_path: Path) -> None:
    """As a fault of the exporter would store it."""
    async with Sandbox(settled_world(run_tests=2, executions=4, calls=3)) as server:
        execution = server.world.run_tests[0].executions[1]
        call_id = execution.calls[0].call_execution_id

        def edit(body: bytes) -> bytes:
            return re.sub(rb'"duration_seconds": ?[0-9.]+', b'"duration_seconds":100000', body)

        server.fault = lambda request, _nth: Fault(edit=edit) if call_id in request.target else None
        settings = await exported(server, tmp_path)
        server.fault = None
        report, reconciliation = await against_api(settings)

    (finding,) = report.findings
    assert (finding.kind, finding.subject) == (Kind.DIFFERENCE, execution.execution_id)
    assert finding.text.startswith("cost.total_duration_seconds is ")
    assert reconciliation.unexplained == 1
    assert report.exit_code == 3


async def test_executions_whose_rows_are_not_all_there_are_not_compared(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=3, calls=2)) as server:
        settings = await exported(server, tmp_path)
        min((tmp_path / "data" / "calls").rglob("*.parquet")).unlink()
        report, reconciliation = await against_api(settings)

    assert Kind.DAMAGED in {each.kind for each in report.findings}
    assert set(reconciliation.skipped) == {Skipped.UNSOUND}


async def test_list_is_read_no_further_than_the_day_that_is_asked_for(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=12, calls=1)) as server:
        settings = settings_for(server, tmp_path / "data", api={"base_url": server.base_url, "page_limit": 2})
        await job.export(settings)
        days = sorted(execution.started_at.date() for execution in server.world.run_tests[0].executions)
        since = days[-3]
        report = verify(settings, Scope(since=since), needs_aggregates=True)
        reconciliation = await reconcile(
            settings.only(since=since), report.executions, unsound=(), on_hold=lambda _: None
        )

    wanted = sum(day >= since for day in days)
    assert reconciliation.compared == wanted
    assert reconciliation.skipped == {}
    assert reconciliation.requests <= wanted // 2 + 1


async def test_run_test_that_cannot_be_listed_is_a_finding_unless_none_can(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=2, executions=2, calls=1)) as server:
        settings = await exported(server, tmp_path)
        names = [run_test.name for run_test in server.world.run_tests]
        server.world.run_tests[0].name = "Another name"
        report, reconciliation = await against_api(settings)
        assert [(each.kind, each.subject) for each in report.findings] == [(Kind.NO_SUCH_RUN_TEST, names[0])]
        assert reconciliation.compared == 2

        server.fault = lambda _request, _nth: Fault(status=503)
        hasty = settings_for(server, tmp_path / "data", api={"base_url": server.base_url, "max_tries": 1})
        with pytest.raises(SourceUnavailableError):
            await against_api(hasty)
        server.fault = lambda _request, _nth: Fault(status=401)
        with pytest.raises(KeyRefusedError):
            await against_api(settings)


async def test_execution_whose_aggregates_the_list_cannot_give_is_left_out_and_a_finding(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=4, calls=2)) as server:
        settings = await exported(server, tmp_path)
        poisoned = server.world.run_tests[0].executions[1]
        poisoned.calls[0].chat_metrics = {"total_tokens": 12.5}
        report, reconciliation = await against_api(settings)

    assert reconciliation.skipped == {Skipped.UNREADABLE: [poisoned.execution_id]}
    assert reconciliation.compared == 3
    [finding] = report.findings
    assert finding.kind is Kind.ROW_UNREADABLE
    assert finding.text.startswith("1 row of its list cannot be read: ")
