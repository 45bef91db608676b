"""A night that sweeps, beside one that does not, and beside a bare loop that only reads the same lists, on the sandbox.

``python -m benchmarks.sweep night URL FOLDER SWEEP_DAYS``, and ``… bare URL IDS``, are the processes that it measures.
"""

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.baselines import lists
from benchmarks.measure import Sample, middle, ratio, run, table
from benchmarks.settling import ENDED, NIGHTS, same, settings_of
from etl.files.names import COMPARED
from etl.pipeline import job
from etl.sandbox import Sandbox
from etl.sandbox.generate import make_world
from etl.settings import Settings

RUN_TESTS, CALLS = 10, 30


def measure(folder: Path, *, is_quick: bool) -> dict[str, str]:
    """Tables by name."""
    executions, rounds = (20, 1) if is_quick else (1_200, 3)
    samples = asyncio.run(_samples(folder, executions, rounds))
    calls = executions * CALLS
    bare = samples["the same lists, read by a bare loop"]
    rows = [
        [
            name,
            *(f"{middle(each, figure):.2f}" for figure in ("cpu_seconds", "wall_seconds")),
            f"{middle(each, 'peak_mb'):.0f}",
            each[0].output.strip(),
            f"{middle(each, 'cpu_seconds') / calls * 1e6:.0f}",
            f"{ratio(each, bare, 'cpu_seconds'):.2f}",
        ]
        for name, each in samples.items()
    ]
    return {"the sweep": table(["", "CPU s", "wall s", "peak MB", "requests", "CPU µs a call", "ratio"], rows)}


async def _samples(folder: Path, executions: int, rounds: int) -> dict[str, list[Sample]]:
    rng = Random(1)  # noqa: S311 no secret
    per_run_test = executions // RUN_TESTS
    world = make_world(
        rng, end=ENDED, run_tests=RUN_TESTS, executions=per_run_test, calls=CALLS, days=12, include_unfinished=False
    )
    for run_test in world.run_tests:
        for execution in run_test.executions:
            for call in execution.calls:
                call.chat_metrics = None
    found: dict[str, list[Sample]] = {}
    async with Sandbox(world, api_key="key", secret_key="secret") as server:  # noqa: S106 of the sandbox alone
        for at in (*NIGHTS, NIGHTS[-1]):
            await job.export(settings_of(server, folder / "data", {"sweep_days": 0}), clock=partial(same, at))
        ids = json.dumps([each.execution_id for test in world.run_tests for each in test.executions])
        names = json.dumps([run_test.name for run_test in world.run_tests])

        async def note(name: str, *arguments: str) -> None:
            command = [sys.executable, "-m", "benchmarks.sweep", *arguments]
            found.setdefault(name, []).append(await asyncio.to_thread(run, command))

        for _ in range(rounds):
            await note("nothing swept", "night", server.base_url, str(folder / "data"), names, "0")
            (folder / "data" / COMPARED).unlink(missing_ok=True)
            await note("all of it swept", "night", server.base_url, str(folder / "data"), names, "1")
            await note("swept again", "night", server.base_url, str(folder / "data"), names, "1")
            await note("the same lists, read by a bare loop", "bare", server.base_url, ids)
    return found


async def _night(url: str, folder: str, names: str, sweep_days: str) -> int:
    sections: dict[str, Any] = {
        "run_tests": json.loads(names),
        "api": {"base_url": url},
        "export": {"sweep_days": int(sweep_days)},
        "destination": {"path": folder},
        "api_key": "key",
        "secret_key": "secret",
    }
    return (await job.export(Settings.model_validate(sections), clock=partial(same, NIGHTS[-1]))).requests


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "night":
        print(asyncio.run(_night(*arguments)))
    else:
        asyncio.run(lists.main(*arguments))
