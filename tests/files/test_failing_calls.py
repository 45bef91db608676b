"""Each system call of an export fails once: old files are unharmed, staging is empty, and the next run completes."""

import errno
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from etl.errors import DestinationError
from etl.files import local
from etl.pipeline import job
from etl.sandbox import Sandbox
from tests.datasets import assert_sound, fill_parts_early, staged
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.e2e.truth import assert_equals_world
from tests.files.kernel import failing_calls, small_disk
from tests.files.watched import Step, watched
from tests.support import settings_for
from tests.worlds import go_on, settled_world

FULL = ["create", "write", "fsync", "rename", "mkdir", "ftruncate", "pwrite"]
FORBIDDEN = ["create", "open", "rename", "mkdir", "unlink", "scandir"]
FITTING = {
    errno.EIO: None,
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: ["create", "rename", "mkdir", "unlink"],
    errno.EACCES: FORBIDDEN,
}
KERNEL_CALLS = {"fsync": 12, "/^rename": 5, "pwrite64": 1, "/^mkdir": 6, "ftruncate": 1, "/^unlink": 1}
"""System calls by the name that strace knows, and how many times a run makes each."""
# Without flock the lock file alone keeps others out, and no night needs the row of an earlier run.
HARMLESS = {"flock .", "open runs/month/*.parquet", "read runs/month/*.parquet"}


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A server whose world lies exported in ``old``, and has changed since: a run replaces rows and adds a part."""
    fill_parts_early(monkeypatch, rows=1)
    monkeypatch.setattr(local, "_TICK_NS", 0)  # what is read again must not depend on the time that a run takes
    async with Sandbox(settled_world(run_tests=1, executions=2, calls=2, days=1)) as running:
        folder = tmp_path / "old"
        await job.export(settings_for(running, folder / "data"))
        go_on(running.world)
        (folder / "data" / "_state" / "staging" / "left-by-a-dead-run").write_bytes(b"PAR1")
        yield running


@dataclass
class Failing:
    """Lets one step fail, and notes those that were taken."""

    at: int | None = None
    error: int = 0
    steps: list[Step] = field(default_factory=list)
    taken: list[Step] = field(default_factory=list)

    def before(self, step: Step) -> None:
        self.steps.append(step)
        if len(self.steps) - 1 == self.at:
            raise OSError(self.error, os.strerror(self.error), step.path)


async def export(server: Sandbox, data: Path, failing: Failing) -> tuple[int, list[str]]:
    """The exit code and what is said."""
    with watched(data, before=failing.before, after=failing.taken.append):
        try:
            settings = settings_for(server, data, api={"concurrency": 1}, export={"commit_interval_seconds": 1e-9})
            summary = await job.export(settings)
        except DestinationError as error:
            return error.exit_code, [str(error)]
    return summary.exit_code, summary.problems


def parts(data: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(data).as_posix(): (path.stat().st_ino, path.read_bytes()) for path in data.rglob("*.parquet")
    }


@pytest.mark.parametrize("is_every_step", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_a_system_call_that_fails_harms_no_old_file_and_the_next_run_completes(
    server: Sandbox, tmp_path: Path, is_every_step: bool
) -> None:
    whole = Failing()
    shutil.copytree(tmp_path / "old", tmp_path / "whole")
    assert await export(server, tmp_path / "whole" / "data", whole) == (0, [])
    first_of_each_kind = {step.kind: number for number, step in reversed(list(enumerate(whole.steps)))}

    for number in range(len(whole.steps)) if is_every_step else sorted(first_of_each_kind.values())[::8]:
        step = whole.steps[number]
        fitting = [error for error, names in FITTING.items() if names is None or step.name in names]
        for error in fitting if is_every_step else [fitting[number % len(fitting)]]:
            await assert_survives(server, tmp_path, Failing(number, error), step)


async def assert_survives(server: Sandbox, folder: Path, failing: Failing, step: Step) -> None:
    broken = folder / "broken"
    data = broken / "data"
    shutil.copytree(folder / "old", broken)
    before = parts(data)
    what = f"{step.kind}: {errno.errorcode[failing.error]}"

    code, said = await export(server, data, failing)

    replaced = {each.target for each in failing.taken if each.name == "rename"}
    now = parts(data)
    kept = before.keys() - replaced
    assert {path: now[path] for path in kept} == {path: before[path] for path in kept}, what
    assert_sound(data)
    is_first = all(each.kind != step.kind for each in failing.steps[: failing.at])
    if step.kind in HARMLESS and is_first:
        assert (code, said) == (0, []), what
    else:
        assert code == 6, what
        assert str(data) in said[0], what
        assert os.strerror(failing.error) in said[0], what
        assert "\n" not in said[0], what
    if step.kind == "fsync _state/staging/*":
        # The kernel may hold pages for clean that it failed to write: a second fsync would lie.
        struck = failing.steps[failing.at or 0]
        later = [each.name for each in failing.steps[(failing.at or 0) + 1 :] if each.path == struck.path]
        assert later == ["unlink"], what
    if step.name != "unlink":
        assert [path for path in staged(data) if path.name != "left-by-a-dead-run"] == [], what
    assert await export(server, data, Failing()) == (0, []), what
    assert staged(data) == [], what
    assert_equals_world(broken, server.world)
    shutil.rmtree(broken)


@pytest.mark.slow  # under strace, each takes seconds
@pytest.mark.parametrize(
    ("call", "nth"), [(call, nth) for call, times in KERNEL_CALLS.items() for nth in range(1, times + 1)]
)
async def test_a_call_that_the_kernel_refuses_harms_nothing_and_the_next_run_completes(
    server: Sandbox, tmp_path: Path, call: str, nth: int
) -> None:
    folder = tmp_path / "old"
    write_settings(folder, [server.world.run_tests[0].name], "[export]", "commit_interval_seconds = 0.001")
    env = environment(server)

    broken = await metrics_etl("run", "--quiet", cwd=folder, env=env, under=failing_calls(call, "EIO", nth))
    assert_sound(folder / "data")
    mended = await metrics_etl("run", "--quiet", cwd=folder, env=env)

    assert broken.exit_code == 6
    assert "Input/output error" in broken.stderr
    assert mended.exit_code == 0
    assert_equals_world(folder, server.world)


async def test_a_disk_that_runs_full_during_a_run_keeps_what_it_held_and_the_next_run_completes(
    server: Sandbox, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 66 << 20) as disk:
        folder = disk / "old"
        shutil.copytree(tmp_path / "old", folder)
        write_settings(folder, [server.world.run_tests[0].name])
        before = parts(folder / "data")

        def fill(_request: object) -> None:
            with suppress(OSError), (disk / "filler").open("ab", buffering=0) as filler:
                while filler.write(bytes(1 << 16)):
                    pass

        server.on_request = fill
        broken = await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))
        after = parts(folder / "data")
        left = staged(folder / "data")
        server.on_request = None
        (disk / "filler").unlink()
        mended = await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))

        assert broken.exit_code == 6
        assert "No space left on device" in broken.stderr
        assert after == before
        assert left == []
        assert mended.exit_code == 0
        assert_equals_world(folder, server.world)
