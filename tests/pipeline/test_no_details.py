"""An API without details of executions: what a plan predicts is what a run then sends, night after night."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl import sandbox
from etl.model.findings import Kind
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox
from etl.sandbox.dispatch import HTML_404
from tests.e2e.truth import assert_equals_world
from tests.pipeline.nights import kinds
from tests.support import settings_for
from tests.worlds import settled_world

OLD, SETTLING, CALLS = 4, 12, 5
NOW = datetime.now(UTC)


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    """Old executions, and some that settle, of which every other one has chats."""
    world = settled_world(run_tests=1, executions=OLD, calls=CALLS, calls_spread=0)
    for number in range(SETTLING):
        ended_at = NOW - timedelta(hours=2)
        made = sandbox.add_execution(world, world.run_tests[0], random.Random(number), ended_at, CALLS)
        for call in made.calls:
            call.chat_metrics = {"total_tokens": 900, "message_count": number} if number % 2 else None
    async with Sandbox(world) as running:
        running.fault = lambda request, _nth: (
            Fault(status=404, body=HTML_404) if "/test-executions/" in request.path else None
        )
        yield running


@pytest.mark.parametrize(
    ("patience", "options"),
    [
        pytest.param(300, {}, id="exact"),
        pytest.param(300, {"export": {"settle_by": "refetch"}}, id="refetch"),
        pytest.param(300, {"export": {"metrics": "listed"}}, id="listed"),
        pytest.param(0, {"api": {"requests_per_minute": 1_000_000}}, id="lists first"),
    ],
)
async def test_plan_tells_what_run_sends_in_each_night(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int, options: dict[str, Any]
) -> None:
    """The first detail is refused, and that is confirmed once; no other is requested."""
    monkeypatch.setattr("etl.pipeline.shared_steps.PATIENCE_SECONDS", patience)
    settings, sent = settings_for(server, tmp_path / "data", **options), []
    for night in range(4):
        now = NOW + timedelta(days=night)
        planned = await job.plan(settings, clock=lambda now=now: now)  # type: ignore[misc]
        server.requests.clear()
        summary = await job.export(settings, clock=lambda now=now: now)  # type: ignore[misc]
        assert summary.requests_by_purpose == planned.requests_by_purpose
        assert summary.exit_code == 0
        assert server.count("/test-executions/") == 2 * (Kind.NO_DETAIL in kinds(summary))
        sent.append(len(server.requests))
    refused, first, whole = 2, (OLD + SETTLING) * (1 + CALLS), SETTLING * (1 + CALLS)
    is_compared = "settle_by" not in options.get("export", {})
    assert sent == (
        [1 + refused + first, 1 + refused + SETTLING, 1 + refused + whole, 1]
        if is_compared
        else [1 + first, 1 + whole, 1, 1]
    )
    assert_equals_world(tmp_path, server.world)
