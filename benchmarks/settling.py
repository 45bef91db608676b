"""Requests over the life of a call: first export, and the night in which its execution settles, on the sandbox."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import etl
from benchmarks.measure import table
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Sandbox, World
from etl.sandbox.generate import make_world
from etl.settings import Settings

ENDED = datetime(2026, 10, 30, 15, tzinfo=UTC)
NIGHTS = (ENDED + timedelta(minutes=1), ENDED + timedelta(days=4))
SIZES = (5, 30)
WAYS: dict[str, dict[str, Any]] = {
    "exact": {},
    "calls": {"metrics": "calls"},
    "calls, refetch": {"metrics": "calls", "settle_by": "refetch"},
    "listed": {"metrics": "listed"},
}


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    executions = 10 if is_quick else 200
    rows = [asyncio.run(_row(folder / f"{calls}-{way}", executions, calls, way)) for calls in SIZES for way in WAYS]
    header = ["voice calls an execution", "metrics", "first export", "settling", "requests a call"]
    return {"settling": table([*header, "calls and evals files written"], rows)}


async def _row(folder: Path, executions: int, calls: int, way: str) -> list[str]:
    world = world_of(executions, calls, days=1)
    async with Sandbox(world, api_key="key", secret_key="secret") as server:  # noqa: S106 of the sandbox alone
        settings = settings_of(server, folder, WAYS[way])
        nights: list[Summary] = [await job.export(settings, clock=partial(same, at)) for at in NIGHTS]
    written = sum(nights[1].rows.get(name, 0) > 0 for name in ("calls", "evals"))
    total = len(etl.read_table(folder, "calls"))
    requests = [night.requests for night in nights]
    return [str(calls), way, *(f"{each:,}" for each in requests), f"{sum(requests) / total:.3f}", str(written)]


def world_of(executions: int, calls: int, *, days: int) -> World:
    """One run test whose executions have all finished by ``ENDED``."""
    return make_world(
        Random(1),  # noqa: S311 no secret
        end=ENDED,
        run_tests=1,
        executions=executions,
        calls=calls,
        days=days,
        include_unfinished=False,
    )


def settings_of(server: Sandbox, folder: Path, export: Mapping[str, Any]) -> Settings:
    """Of an export of all that the sandbox has."""
    return Settings.model_validate(
        {
            "run_tests": [run_test.name for run_test in server.world.run_tests],
            "api": {"base_url": server.base_url},
            "export": export,
            "destination": {"path": str(folder)},
            "api_key": "key",
            "secret_key": "secret",
        }
    )


def same(moment: datetime) -> datetime:
    """A clock that stands, once its moment is given."""
    return moment
