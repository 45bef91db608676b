"""The source holds everything back: what has arrived is saved, and nobody waits for hours."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import etl
from etl.pipeline.summary import Summary
from etl.sandbox import Sandbox
from tests.support import settings_for
from tests.worlds import settled_world

CALLS = 3


def held_for(seconds: float, *, after: int) -> Sandbox:
    """A source that answers so many requests, and no other for so long."""
    world = settled_world(run_tests=1, executions=6, calls=CALLS)
    return Sandbox(world, rate_limit=after, rate_window_seconds=time.time() + seconds)


async def export(server: Sandbox, folder: Path, **sections: Any) -> Summary:
    return await etl.export(settings_for(server, folder / "data", **sections))


def assert_says_when_to_come_back(summary: Summary, seconds: float) -> None:
    (problem,) = [each for each in summary.problems if "UTC" in each]
    moment = datetime.strptime(problem.partition("until ")[2][:20], "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)
    assert abs(moment - datetime.now(UTC) - timedelta(seconds=seconds)) < timedelta(minutes=2), problem


@pytest.mark.parametrize(("minutes", "is_ended"), [(5, True), (60, False)])
async def test_hold_that_outlasts_the_run_ends_it_at_once(tmp_path: Path, minutes: float, is_ended: bool) -> None:
    async with held_for(600, after=2 + 3 * (1 + CALLS)) as server:
        held = asyncio.Event()
        sections = {"api": {"concurrency": 1}, "export": {"max_runtime_minutes": minutes}}
        exporting = etl.export(
            settings_for(server, tmp_path / "data", **sections),
            notify=lambda event, **_: held.set() if event == "held" else None,
        )
        running = asyncio.ensure_future(exporting)
        is_held = asyncio.ensure_future(held.wait())
        await asyncio.wait([running, is_held], return_when=asyncio.FIRST_COMPLETED)
        assert (running.done(), is_held.done()) == (is_ended, not is_ended)
        for each in (running, is_held):
            each.cancel()
        await asyncio.wait([running, is_held])
    if is_ended:
        assert running.result().exit_code == 3
        assert_says_when_to_come_back(running.result(), 600)
