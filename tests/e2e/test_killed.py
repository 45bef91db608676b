"""SIGKILL at any moment: nothing is lost, doubled or broken, and the next run completes the dataset."""

import asyncio
import random
import re
import shutil
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etl.sandbox import Fault, Sandbox
from etl.sandbox.generate import add_execution
from tests.datasets import assert_kept, assert_sound, staged
from tests.e2e.command import environment, metrics_etl, start, write_settings
from tests.e2e.dying import kinds_of_steps, run_dying
from tests.e2e.truth import assert_equals_world
from tests.worlds import run_again, settled_world

# One execution after the other, committed when it is whole and at no time of the clock.
IN_ORDER = ["[export]", "commit_interval_seconds = 3600", "[api]", "concurrency = 1"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """A server whose world lies exported in ``old``, and has changed since: a run replaces rows and adds two parts."""
    rng = random.Random(1)
    now = datetime.now(UTC)
    async with Sandbox(settled_world(run_tests=1, executions=2, calls=2, days=1)) as running:
        folder = tmp_path / "old"
        folder.mkdir()
        write_settings(folder, [running.world.run_tests[0].name], *IN_ORDER)
        assert await run_dying(folder, environment(running)) == 0
        run_again(running.world.run_tests[0].executions[1], rng, now)
        for days in (1, 2):
            add_execution(running.world, running.world.run_tests[0], rng, now - timedelta(days=9, hours=days), 2)
        (folder / "data" / "_state" / "staging" / "left-by-a-dead-run").write_bytes(b"PAR1")
        yield running


def copied(folder: Path, to: Path, *, without_data: bool = False) -> Path:
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("data") if without_data else None)
    return to


at_any_moment = pytest.mark.parametrize(
    ("is_new", "is_every"),
    [
        (False, False),
        pytest.param(False, True, marks=pytest.mark.slow),
        pytest.param(True, True, marks=pytest.mark.slow),
    ],
)
"""Over an older dataset at some moment; in full at every one, and where there is no dataset yet."""


@at_any_moment
async def test_a_command_that_is_killed_before_any_step_on_its_files_is_completed_by_the_next(
    server: Sandbox, tmp_path: Path, is_new: bool, is_every: bool
) -> None:
    """Before one step is after the other: between the two nothing happens to the files."""
    env = environment(server)
    whole = copied(tmp_path / "old", tmp_path / "whole", without_data=is_new)
    assert await run_dying(whole, env) == 0, (whole / "stderr").read_text()
    kinds = kinds_of_steps(whole)
    first_of_each_kind = sorted({kind: step for step, kind in reversed(list(enumerate(kinds)))}.values())[::8]
    before = assert_sound(tmp_path / "old" / "data")
    changed = {server.world.run_tests[0].executions[1].execution_id}

    for step in range(len(kinds)) if is_every else first_of_each_kind:
        folder = copied(tmp_path / "old", tmp_path / "killed", without_data=is_new)
        assert await run_dying(folder, env, at=step) == -9
        assert kinds_of_steps(folder)[-1] == kinds[step]
        now = assert_sound(folder / "data")
        if not is_new:
            assert_kept(before, now, changed=changed)
        assert await run_dying(folder, env) == 0, (folder / "stderr").read_text()
        assert_equals_world(folder, server.world)
        assert staged(folder / "data") == []
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "spelling", ["link", *(pytest.param(each, marks=pytest.mark.slow) for each in ("data", "config/../data"))]
)
async def test_a_second_run_touches_nothing_and_asks_nothing_and_a_killed_holder_blocks_nobody(
    server: Sandbox, tmp_path: Path, spelling: str
) -> None:
    folder = tmp_path / "old"
    (folder / "link").symlink_to("data")
    asked = asyncio.Event()
    server.on_request = lambda _request: asked.set()
    server.fault = lambda _request, _nth: None if asked.is_set() else Fault(is_hanging=True)
    first = await start("run", "--quiet", cwd=folder, env=environment(server))
    await asked.wait()
    being_staged = folder / "data" / "_state" / "staging" / "of-the-first"
    being_staged.write_bytes(b"PAR1")
    sent = len(server.requests)

    env = environment(server, METRICS_ETL_DESTINATION__PATH=spelling)
    second = await metrics_etl("run", "--quiet", cwd=folder, env=env)
    sent_by_second = len(server.requests) - sent
    assert being_staged.exists()
    first.kill()
    await first.wait()
    server.fault = server.on_request = None
    third = await metrics_etl("run", "--quiet", cwd=folder, env=env)

    assert second.exit_code == 75
    assert re.search(rf"\(pid {first.pid} on {socket.gethostname()} since \d{{4}}-", second.stderr), second.stderr
    assert sent_by_second == 0
    assert third.exit_code == 0
    assert_equals_world(folder, server.world)
    assert staged(folder / "data") == []
