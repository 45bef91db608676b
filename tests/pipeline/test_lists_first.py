"""Rows from lists first: what is new can be read long before its calls have been fetched, and is exact at the end."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from etl.model import schema
from etl.model.schema import NOT_IN_LISTS
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, SandboxRequest
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import settings_for
from tests.worlds import a_sandbox

EXECUTIONS, CALLS = 8, 5
VERSION = {"export_run_id", "exported_at", "verified_at"}
server = a_sandbox(run_tests=1, days=4, executions=EXECUTIONS, calls=CALLS)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists come first, however little is new."""
    monkeypatch.setattr("etl.pipeline.shared_steps.PATIENCE_SECONDS", 0.0)


def settings(server: Sandbox, folder: Path, **export: Any) -> Any:
    export = {"metrics": "calls"} | export
    return settings_for(server, folder / "data", api={"requests_per_minute": 1_000_000}, export=export)


async def export(server: Sandbox, folder: Path, **options: Any) -> Summary:
    server.requests.clear()
    return await job.export(settings(server, folder, **options))


def asked(server: Sandbox) -> Counter[str]:
    """How many requests of each kind: lists of calls, details and calls' metrics."""

    def kind(request: SandboxRequest) -> str:
        if request.path.startswith("/simulate/"):
            return "" if "/run-tests/" in request.path else "detail"
        return "list" if "execution_id" in request.query else "call" if "call_execution_id" in request.query else ""

    return Counter(filter(None, map(kind, server.requests)))


def without_versions(folder: Path, table: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    key = schema.TABLES[table].key
    rows = rows_of(folder, table)
    return {tuple(row[name] for name in key): {k: v for k, v in row.items() if k not in VERSION} for row in rows}


@pytest.mark.usefixtures("at_once")
async def test_all_rows_can_be_read_before_a_call_is_fetched_and_are_exact_at_the_end(
    server: Sandbox, tmp_path: Path
) -> None:
    early: list[dict[str, Any]] = []
    states: set[str] = set()

    def look(request: SandboxRequest) -> None:
        if not early and "call_execution_id" in request.query:
            early.extend(rows_of(tmp_path, "calls"))
            states.update(row["export_state"] for row in rows_of(tmp_path, "executions"))

    planned = await job.plan(settings(server, tmp_path))
    server.on_request = look
    summary = await export(server, tmp_path)

    assert (summary.exit_code, states, asked(server)["detail"]) == (0, {"listed"}, EXECUTIONS)
    assert_equals_world(tmp_path, server.world)
    assert len({row["call_execution_id"] for row in early}) == len(early) == EXECUTIONS * CALLS
    exact = {row["call_execution_id"]: row for row in rows_of(tmp_path, "calls")}
    for row in early:
        differs = {name for name, value in exact[row["call_execution_id"]].items() if value != row[name]} - VERSION
        assert differs <= {*NOT_IN_LISTS, "metrics_from"}
        assert all(row[name] is None for name in NOT_IN_LISTS)
    assert {row["metrics_from"] for row in early} == {"detail"}
    assert {row["metrics_from"] for row in exact.values()} == {"metrics"}
    assert summary.requests_by_purpose == planned.requests_by_purpose
    assert summary.requests_per_minute == planned.requests_per_minute == 1_000_000
    assert planned.requests_to_use == 1 + 2 + 2 * EXECUTIONS
    assert (summary.rows["executions"], summary.rows["calls"]) == (EXECUTIONS, EXECUTIONS * CALLS), "each counts once"

    await job.export(settings_for(server, tmp_path / "plain" / "data", export={"metrics": "calls"}))
    for table in ("executions", "calls", "evals"):
        assert without_versions(tmp_path, table) == without_versions(tmp_path / "plain", table)


@pytest.mark.usefixtures("at_once")
async def test_run_that_ends_in_between_is_continued_where_it_stood(server: Sandbox, tmp_path: Path) -> None:
    sent = iter(range(100))
    server.fault = lambda request, _nth: (
        Fault(status=401) if "call_execution_id" in request.query and next(sent) >= 12 else None
    )
    first = await export(server, tmp_path)
    states = Counter(row["export_state"] for row in rows_of(tmp_path, "executions"))
    calls = [row for row in rows_of(tmp_path, "calls") if row["metrics_from"] == "metrics"]
    begun = {row["execution_id"] for row in calls} - {
        row["execution_id"] for row in rows_of(tmp_path, "executions") if row["export_state"] == "exported"
    }
    assert (first.exit_code, first.run_tests[0].previewed, states["listed"] > 0) == (4, first.run_tests[0].missed, True)
    assert states["listed"] + states["exported"] == EXECUTIONS
    assert len(rows_of(tmp_path, "calls")) == EXECUTIONS * CALLS

    server.fault = None
    second = await export(server, tmp_path)
    assert second.exit_code == 0
    assert asked(server) == dict.fromkeys(("list", "detail"), states["listed"]) | {
        "call": EXECUTIONS * CALLS - len(calls)
    }
    assert second.run_tests[0].reasons["listed"] == states["listed"]
    assert_equals_world(tmp_path, server.world)
    third = await export(server, tmp_path)
    assert third.requests == 1 + 2 * len(begun), "what is old is final at once; what was begun before is compared"


@pytest.mark.parametrize("limit", [None, EXECUTIONS * CALLS])
async def test_what_takes_little_of_the_quota_is_fetched_at_once(
    server: Sandbox, tmp_path: Path, limit: int | None
) -> None:
    api = {"requests_per_minute": limit} if limit else {}
    planned = await job.plan(settings_for(server, tmp_path / "data", api=api, export={"metrics": "calls"}))
    assert (planned.previews, planned.requests_to_use) == ((), 0) or not planned.previews
    assert planned.requests == EXECUTIONS * (2 + CALLS)


class TestListsAlone:
    async def test_rows_come_from_two_requests_an_execution_and_settle_with_one_more(
        self, server: Sandbox, tmp_path: Path
    ) -> None:
        summary = await export(server, tmp_path, metrics="listed")
        assert (summary.exit_code, asked(server)) == (0, {"list": EXECUTIONS, "detail": EXECUTIONS})
        assert {row["export_state"] for row in rows_of(tmp_path, "executions")} == {"exported"}
        assert_equals_world(tmp_path, server.world)
        assert (await export(server, tmp_path, metrics="listed")).requests == 1

        call = server.world.run_tests[0].executions[0].calls[0]
        call.total_cost_cents = 4321
        server.world.run_tests[0].executions[0].total_calls += 1  # so that the list shows that something changed
        changed = await export(server, tmp_path, metrics="listed")
        assert (changed.rows["calls"], asked(server)) == (1, {"list": 1, "detail": 1})
        assert_equals_world(tmp_path, server.world)
        assert (await export(server, tmp_path, metrics="listed")).exit_code == 0
        assert asked(server) == {"detail": 1}, "it shows that nothing has changed since"

    async def test_exact_values_stay_where_nothing_has_changed(self, server: Sandbox, tmp_path: Path) -> None:
        await export(server, tmp_path)
        swept = await export(server, tmp_path, metrics="listed", sweep_days=1)
        assert swept.run_tests[0].reasons == {"sweep": EXECUTIONS}
        assert {row["metrics_from"] for row in rows_of(tmp_path, "calls")} == {"metrics"}
        assert_equals_world(tmp_path, server.world)

    async def test_evals_that_the_list_cannot_give_come_with_each_call(self, server: Sandbox, tmp_path: Path) -> None:
        """A numeric eval makes the list a 500; what is saved early is nothing without its evals."""
        execution, config = server.world.run_tests[0].executions[0], server.world.run_tests[0].eval_configs[0]
        for call in execution.calls:
            call.status = "completed"
            output = {"name": config.name, "output": 0.5, "output_type": "numeric", "reason": "r"}
            call.eval_outputs = call.eval_outputs | {config.config_id: output}
        await export(server, tmp_path)
        execution.total_calls += 1  # so that the list shows that something changed
        for call in execution.calls:
            call.total_cost_cents = 4321
        server.fault = lambda request, _nth: (
            Fault(status=500) if request.path.endswith("/runs/") and "call_execution_id" in request.query else None
        )
        assert (await export(server, tmp_path, metrics="listed", commit_interval_seconds=1e-6)).exit_code == 3
        assert len(rows_of(tmp_path, "evals")) == sum(
            len(call.eval_outputs) for each in server.world.run_tests[0].executions for call in each.calls
        )
        server.fault = None
        assert (await export(server, tmp_path, metrics="listed")).exit_code == 0
        assert_equals_world(tmp_path, server.world)
