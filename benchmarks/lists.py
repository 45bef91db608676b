"""When rows of a first export can be read, and when they are exact: with the lists first and without, by rate limit.

A minute lasts some seconds here: the sandbox's window does, and the exporter takes its limit for one a minute.
"""

import asyncio
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import etl
from benchmarks.measure import table
from benchmarks.settling import ENDED, same, settings_of, world_of
from etl.pipeline import job, shared_steps
from etl.sandbox import Sandbox, World

LIMITS: dict[int | None, float] = {100: 1.0, 1_000: 6.0, None: 60.0}
"""Requests a minute, and how many seconds that lasts."""
WAYS: dict[str, dict[str, Any]] = {
    "calls alone": {"settle_by": "refetch"},
    "lists first": {"metrics": "calls"},
    "voice calls from lists": {},
}
"""Without details, and with as much patience as it takes: what was done before lists came first; and of voice calls."""


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    executions, calls = (50, 8) if is_quick else (500, 40)
    world = world_of(executions, calls, days=50)
    rows = []
    for limit in [1_000, None] if is_quick else LIMITS:
        for way, export in WAYS.items():
            row = asyncio.run(_row(folder / f"{limit}-{way}", world, limit, way, export))
            rows.append([f"{limit:,} a minute" if limit else "none", way, *row])
    header = [
        "rate limit",
        "way",
        "first rows",
        "all rows",
        "all exact",
        "requests",
        "requests an execution until all rows",
    ]
    return {"lists first": table(header, rows)}


async def _row(folder: Path, world: World, limit: int | None, way: str, export: Mapping[str, Any]) -> list[str]:
    rows = sum(len(execution.calls) for test in world.run_tests for execution in test.executions)
    executions = sum(len(test.executions) for test in world.run_tests)
    loop = asyncio.get_running_loop()
    readable = dict[int, tuple[float, int]]()
    limited: dict[str, Any] = {"rate_limit": limit, "rate_window_seconds": LIMITS[limit]}
    async with Sandbox(world, api_key="key", secret_key="secret", **limited) as server:  # noqa: S106 of the sandbox alone
        settings = settings_of(server, folder, {"commit_interval_seconds": 0.5, **export})
        began_at = loop.time()

        async def look() -> None:
            while True:
                await asyncio.sleep(0.25)
                count = await asyncio.to_thread(_rows_of, folder)
                readable.setdefault(count, (loop.time() - began_at, len(server.requests)))

        looking = loop.create_task(look())
        patience, many = shared_steps.PATIENCE_SECONDS, shared_steps.MANY_REQUESTS
        if way == "calls alone":
            patience = many = sys.maxsize
        with mock.patch.multiple(shared_steps, PATIENCE_SECONDS=patience, MANY_REQUESTS=many):
            summary = await job.export(settings, clock=partial(same, ENDED))
        ended_at = loop.time() - began_at
        await asyncio.sleep(0.5)
        looking.cancel()
        first = min(readable[count] for count in readable if count)
        whole = readable[rows]
    if summary.exit_code:
        raise RuntimeError(summary.problems)
    times = (first[0], min(whole[0], ended_at), ended_at)
    return [
        *(f"{each / LIMITS[limit]:.1f} min" if limit else f"{each:.1f} s" for each in times),
        f"{summary.requests:,}",
        f"{min(whole[1], summary.requests) / executions:.2f}",
    ]


def _rows_of(folder: Path) -> int:
    try:
        return len(etl.read_table(folder, "calls", columns=["call_execution_id"]))
    except etl.errors.ExporterError:
        return 0
