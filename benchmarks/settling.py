"""Requests over the life of a call: first export, the night in which its execution settles, and a sweep of it."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
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
SWEEP = ENDED + timedelta(days=30)
SIZES = (5, 30)
WAYS: dict[str, dict[str, Any]] = {
    "exact": {},
    "exact, chats": {},
    "calls": {"metrics": "calls"},
    "calls, refetch": {"metrics": "calls", "settle_by": "refetch"},
    "listed": {"metrics": "listed"},
}


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    executions = 10 if is_quick else 200
    rows = [asyncio.run(_row(folder / f"{calls}-{way}", executions, calls, way)) for calls in SIZES for way in WAYS]
    header = ["calls an execution", "metrics", "first export", "settling", "sweep", "requests a call"]
    return {"settling": table([*header, "calls and evals files written"], rows)}


async def _row(folder: Path, executions: int, calls: int, way: str) -> list[str]:
    world = world_of(executions, calls, days=1)
    if way == "exact, chats":
        for run_test in world.run_tests:
            run_test.profile = replace(run_test.profile, is_chat=True)
    async with Sandbox(world, api_key="key", secret_key="secret") as server:  # noqa: S106 of the sandbox alone
        settings = settings_of(server, folder, WAYS[way])
        nights: list[Summary] = [await job.export(settings, clock=partial(same, at)) for at in NIGHTS]
        swept = settings.model_copy(update={"export": settings.export.model_copy(update={"sweep_days": 1})})
        nights.append(await job.export(swept, clock=partial(same, SWEEP)))
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
