"""What a power cut leaves is a sound dataset: everything is forced to the disk in the right order."""

import random
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from etl.pipeline import job
from etl.sandbox import Sandbox
from tests.datasets import assert_kept, assert_sound, fill_parts_early, staged
from tests.e2e.truth import assert_equals_world
from tests.files.powercut import Disk
from tests.files.watched import Step, watched
from tests.support import settings_for
from tests.worlds import go_on, settled_world


async def export(server: Sandbox, folder: Path, after: Callable[[Step], None] = lambda _step: None) -> None:
    settings = settings_for(server, folder / "data", export={"commit_interval_seconds": 1e-9})
    with watched(folder, after=after):
        summary = await job.export(settings)
    assert summary.exit_code == 0, summary.problems


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A server whose world lies exported in ``old``, and has changed since: a run replaces rows and adds a part."""
    fill_parts_early(monkeypatch, rows=1)
    async with Sandbox(settled_world(run_tests=2, executions=3, calls=2, days=2)) as running:
        (tmp_path / "old").mkdir()
        (tmp_path / "new").mkdir()
        await export(running, tmp_path / "old")
        go_on(running.world)
        yield running


async def test_calls_and_evals_are_on_the_disk_before_the_executions_and_the_account_of_the_run_comes_last(
    server: Sandbox, tmp_path: Path
) -> None:
    steps: list[Step] = []
    await export(server, tmp_path / "new", steps.append)
    targets = [step.target.split("/") for step in steps if step.name == "rename"]

    assert [target[1] for target in targets[-3:]] == ["_state", "runs", "_state"]
    assert targets[-3][2] == "index.parquet"
    assert [target[1:] for target in targets[:2]] == [["_state", "dataset.json"], ["_state", "last_run.json"]]
    assert targets[-4][1] == "errors", "which has no rows"
    written = [(target[1], tuple(target[2:])) for target in targets[2:-4]]
    parts, described = written[: len(written) * 3 // 4], written[len(written) * 3 // 4 :]
    assert {table for table, _ in described} == {"executions"}
    for calls, evals, executions in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        assert [table for table, _ in (calls, evals, executions)] == ["calls", "evals", "executions"]
        assert calls[1] == evals[1] == executions[1]


async def test_a_folder_that_a_killed_run_made_is_forced_to_the_disk_too(server: Sandbox, tmp_path: Path) -> None:
    """The run that made it did not live to do so."""
    for name in ("_state", "calls"):
        (tmp_path / "new" / "data" / name).mkdir(parents=True)
    steps: list[Step] = []
    await export(server, tmp_path / "new", steps.append)

    names = [(step.name, step.path) for step in steps]
    first = next(number for number, step in enumerate(steps) if step.target.startswith("data/calls/"))
    assert ("fsync", "data") in names[names.index(("fsync", "data/_state")) : first]


@pytest.mark.parametrize("folder", ["old", "new"])
async def test_what_a_finished_run_wrote_survives_a_power_cut(server: Sandbox, tmp_path: Path, folder: str) -> None:
    disk = Disk(tmp_path / folder)
    for step in await steps_of_a_run(server, tmp_path / folder):
        disk.take(step)
    disk.survivors(tmp_path / "cut", random.Random(1), luck=0)

    assert_sound(tmp_path / "cut" / "data")
    assert_equals_world(tmp_path / "cut", server.world)
    assert (tmp_path / "cut" / "data" / "_state" / "last_run.json").exists()


@pytest.mark.parametrize("cuts", [4, pytest.param(300, marks=pytest.mark.slow)])
async def test_what_a_power_cut_leaves_is_sound_and_completed_by_the_next_run(
    server: Sandbox, tmp_path: Path, cuts: int
) -> None:
    rng = random.Random(cuts)
    changed = {run_test.executions[1].execution_id for run_test in server.world.run_tests}
    before = assert_sound(tmp_path / "old" / "data")
    runs = [(name, await steps_of_a_run(server, tmp_path / name)) for name in ("old", "new")]
    for name, steps in runs * (cuts // 2):
        disk = Disk(tmp_path / name)
        for step in steps[: rng.randint(1, len(steps))]:
            disk.take(step)
        disk.survivors(tmp_path / "cut", rng, luck=rng.choice([0.0, 0.0, 0.5, 0.9]))

        now = assert_sound(tmp_path / "cut" / "data")
        if name == "old":
            assert_kept(before, now, changed=changed)
        await export(server, tmp_path / "cut")
        assert_equals_world(tmp_path / "cut", server.world)
        assert staged(tmp_path / "cut" / "data") == []
        shutil.rmtree(tmp_path / "cut")


async def steps_of_a_run(server: Sandbox, folder: Path) -> Sequence[Step]:
    steps: list[Step] = []
    await export(server, shutil.copytree(folder, folder.with_name(f"exported-{folder.name}")), steps.append)
    return steps
