"""The command in a process of its own that dies by SIGKILL just before a chosen step on its dataset."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from etl.cli.app import main
from etl.pipeline import buffer
from tests.datasets import fill_parts_early
from tests.e2e.warm import fork_server
from tests.files.watched import CHANGING, Step, watched

STEPS = "steps"


async def run_dying(folder: Path, env: dict[str, str], *, at: int | None = None, command: str = "run") -> int:
    """Run the command in the folder and kill it before its step ``at``; returns the exit code, -9 if it was killed.

    Each execution is committed when it is whole, at no time of the clock, so that all runs take the same steps; a new
    one comes to lie in a part of its own. The steps that it took, and the one that it did not live to take, stand in
    the file ``steps``.
    """
    process = fork_server().Process(target=_run, args=(folder, env, at, command))
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode is not None
    return process.exitcode


def kinds_of_steps(folder: Path) -> list[str]:
    return (folder / STEPS).read_text().splitlines()


def _run(folder: Path, env: dict[str, str], at: int | None, command: str) -> None:
    os.chdir(folder)
    os.environ.update(env)
    sys.argv = ["metrics-etl", command, "--quiet"]
    with (folder / "stderr").open("w") as stderr, (folder / STEPS).open("w", buffering=1) as steps:
        os.dup2(stderr.fileno(), 2)
        taken = 0

        def die_or_note(step: Step) -> None:
            nonlocal taken
            if step.name not in CHANGING:
                return
            print(step.kind, file=steps)
            if taken == at:
                os.kill(os.getpid(), signal.SIGKILL)
            taken += 1

        with pytest.MonkeyPatch.context() as patch, watched(folder / "data", before=die_or_note):
            fill_parts_early(patch, rows=1)
            patch.setattr(buffer, "_MANY_CALLS", 1)
            main()
