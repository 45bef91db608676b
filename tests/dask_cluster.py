"""A Dask scheduler and workers as processes of their own, each with its own environment and log."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import API_KEY, SECRET_KEY

WITH_KEYS = {"FI_API_KEY": API_KEY, "FI_SECRET_KEY": SECRET_KEY}
WITHOUT_KEYS = dict.fromkeys(WITH_KEYS, "")


@dataclass(slots=True)
class Cluster:
    """``processes`` are the workers in order of their start; ``address`` is the scheduler's."""

    folder: Path
    scheduler: asyncio.subprocess.Process
    address: str
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def add_worker(self, env: Mapping[str, str] = WITH_KEYS, *, preload: str = "") -> None:
        """Start a worker that runs ``preload`` before anything else, and wait until the scheduler has it."""
        number = len(self.processes)
        (self.folder / f"preload{number}.py").write_text(preload, encoding="utf-8")
        arguments = ["worker", self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard"]
        preload_it = ["--preload", str(self.folder / f"preload{number}.py"), "--local-directory", str(self.folder)]
        self.processes.append(await self._start(f"worker{number}.log", *arguments, *preload_it, env=env))
        await _found(self.folder / f"worker{number}.log", r"Registered to:")

    def logs(self) -> str:
        """All that scheduler and workers have logged."""
        return "".join(path.read_text(encoding="utf-8") for path in self.folder.glob("*.log"))

    async def _start(self, log: str, *arguments: str, env: Mapping[str, str]) -> asyncio.subprocess.Process:
        return await _start(self.folder / log, *arguments, env=env)


@asynccontextmanager
async def cluster(folder: Path, *, workers: int = 2) -> AsyncIterator[Cluster]:
    """A scheduler with so many workers that have the sandbox's keys."""
    folder.mkdir()  # noqa: ASYNC240 nothing else runs yet
    log = folder / "scheduler.log"
    scheduler = await _start(
        log, "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", env=WITHOUT_KEYS
    )
    running = Cluster(folder, scheduler, await _found(log, r"Scheduler at:\s+(tcp://\S+)"))
    try:
        for _ in range(workers):
            await running.add_worker()
        yield running
    finally:
        for process in (*running.processes, scheduler):
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _start(log: Path, *arguments: str, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    with log.open("w", encoding="utf-8") as file:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "dask", *arguments),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **env},
            stdout=file,
            stderr=file,
        )


async def _found(log: Path, pattern: str) -> str:
    """What matches in the log, or its first group, once it is there."""
    async with asyncio.timeout(60):
        while not (found := re.search(pattern, log.read_text(encoding="utf-8"))):  # noqa: ASYNC110, ASYNC240 it is a file
            await asyncio.sleep(0.05)
    return found[found.re.groups]
