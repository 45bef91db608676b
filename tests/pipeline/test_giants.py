"""An execution larger than what a night can fetch: what has arrived is saved, and the next night fetches the rest."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from etl.dataset.layout import Scope
from etl.errors import ExitCode, InterruptedRunError
from etl.extract import crawl as crawl_module
from etl.inspect.verify import verify
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, SandboxRequest
from etl.sandbox.world import listable_calls
from tests.datasets import assert_sound
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import settings_for
from tests.worlds import a_sandbox, executions_of

CALLS = 40
NIGHT = datetime(2026, 11, 2, tzinfo=UTC)
server = a_sandbox(run_tests=1, executions=1, calls=CALLS, calls_spread=0)


def calls_in(requests: list[SandboxRequest]) -> Counter[str]:
    """How often the metrics of each call were asked for."""
    return Counter(each.query["call_execution_id"] for each in requests if "call_execution_id" in each.query)


async def night_that_ends_after(calls: int, server: Sandbox, folder: Path, **options: Any) -> Summary:
    """An export that a signal ends once so many calls were asked for."""
    stop: asyncio.Future[InterruptedRunError] = asyncio.get_running_loop().create_future()
    asked = 0

    def count(request: SandboxRequest) -> None:
        nonlocal asked
        asked += "call_execution_id" in request.query
        if asked >= calls and not stop.done():
            stop.set_result(InterruptedRunError("stopped by a signal", exit_code=ExitCode.SIGTERM))

    server.on_request = count
    options["export"] = {"metrics": "calls", **options.get("export", {})}
    settings = settings_for(server, folder / "data", api={"concurrency": 2}, **options)
    try:
        return await job.export(settings, stop=stop, clock=lambda: NIGHT)
    finally:
        server.on_request = None


async def test_giant_is_whole_after_as_many_nights_as_it_takes_and_no_call_is_fetched_twice(
    server: Sandbox, tmp_path: Path
) -> None:
    nights = 0
    while (summary := await night_that_ends_after(CALLS // 4, server, tmp_path)).exit_code == 143:
        nights += 1
        (row,) = rows_of(tmp_path, "executions")
        assert (row["export_state"], row["listed_calls"]) == ("incomplete", CALLS)
        assert row["exported_calls"] == len(rows_of(tmp_path, "calls")) >= nights * (CALLS // 4 - 2)
        assert_sound(tmp_path / "data")
        assert nights < 6
    assert (summary.exit_code, nights) in {(0, 3), (0, 4)}
    assert_equals_world(tmp_path, server.world)
    # Two requests may have been under way when the night ended.
    twice = [call for call, times in calls_in(server.requests).items() if times > 1]
    assert len(twice) <= 2 * nights
    assert rows_of(tmp_path, "executions")[0]["export_state"] == "settling", "no time has passed between these nights"
    assert verify(settings_for(server, tmp_path / "data"), Scope()).findings == []


@pytest.mark.parametrize("calls", [CALLS // 2, 10_000])
async def test_dead_letter_of_an_execution_that_is_saved_in_pieces_counts_once(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Each piece brings it, and in a night that ends early nothing but pieces comes."""
    monkeypatch.setattr(crawl_module, "_MOST_IN_HAND", 7)
    (execution,) = executions_of(server.world)
    first = listable_calls(execution)[0].call_execution_id
    server.fault = lambda request, _nth: Fault(status=400) if request.query.get("call_execution_id") == first else None
    summary = await night_that_ends_after(calls, server, tmp_path, export={"commit_interval_seconds": 1e-6})
    assert (summary.run_tests[0].dead_letters, len(rows_of(tmp_path, "errors"))) == (1, 1)
