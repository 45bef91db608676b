"""What a plan and an export share: what is gone, where new rows go, and a plan that predicts what a run sends."""

import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.errors import DestinationError
from etl.files.local import LocalFiles
from etl.model.findings import Kind
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox
from etl.sandbox.dispatch import HTML_404
from etl.sandbox.generate import add_execution
from tests.dataset.killed import killed_before
from tests.e2e.truth import assert_equals_world
from tests.pipeline.nights import NIGHT, Nights, kinds
from tests.support import settings_for
from tests.worlds import settled_world

OLD, SETTLING, CALLS = 4, 12, 5
NOW = datetime.now(UTC)


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    """An API without details of executions: some are old, others settle, and of these every other one has chats."""
    world = settled_world(run_tests=1, executions=OLD, calls=CALLS, calls_spread=0)
    for number in range(SETTLING):
        ended_at = NOW - timedelta(hours=2)
        made = add_execution(world, world.run_tests[0], random.Random(number), ended_at, CALLS)
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
        pytest.param(300, {"export": {"settle_by": "refetch", "sweep_days": 0}}, id="refetch"),
        pytest.param(300, {"export": {"metrics": "listed"}}, id="listed"),
        pytest.param(0, {"api": {"requests_per_minute": 1_000_000}}, id="lists first"),
    ],
)
async def test_plan_tells_what_run_sends_in_each_night(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int, options: dict[str, Any]
) -> None:
    """The first detail is refused, and that is confirmed once; no other is requested.

    It is believed in the second night, so that what ended long ago need not be fetched again.
    """
    monkeypatch.setattr("etl.pipeline.shared_steps.PATIENCE_SECONDS", patience)
    settings, sent = settings_for(server, tmp_path / "data", **options), []
    is_compared = "settle_by" not in options.get("export", {})
    for night in range(4):
        now = NOW + timedelta(days=night)
        planned = await job.plan(settings, clock=lambda now=now: now)  # type: ignore[misc]
        server.requests.clear()
        summary = await job.export(settings, clock=lambda now=now: now)  # type: ignore[misc]
        assert summary.requests_by_purpose == planned.requests_by_purpose
        is_unknown = Kind.DEAD_LETTER in kinds(summary)
        assert (summary.exit_code, is_unknown) == ((3, True) if night == 0 and is_compared else (0, False))
        assert server.count("/test-executions/") == 2 * (is_unknown or Kind.NO_DETAIL in kinds(summary))
        sent.append(len(server.requests))
    refused, first, whole = 2, (OLD + SETTLING) * (1 + CALLS), SETTLING * (1 + CALLS)
    compared = [1 + refused + first, 1 + refused + OLD + SETTLING, 1 + refused + whole, 1]
    assert sent == (compared if is_compared else [1 + first, 1 + whole, 1, 1])
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("table", ["evals", "executions"])
async def test_rows_that_a_failed_run_left_without_an_execution_are_marked_when_that_is_gone(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    publish = LocalFiles.publish

    def fail(files: LocalFiles, path: str, data: bytes) -> None:
        if path.startswith(f"{table}/"):
            raise DestinationError(f"{path}: No space left on device")
        publish(files, path, data)

    monkeypatch.setattr(LocalFiles, "publish", fail)
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
