"""A night that did not begin, or was killed before its end, leaves a trace where ``status`` finds it."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from etl.sandbox import Fault, Sandbox
from tests.e2e.command import Ended, ended, environment, metrics_etl, start, write_settings
from tests.worlds import a_sandbox

BARE = {"PATH": os.environ["PATH"]}
server = a_sandbox(run_tests=2, executions=2, calls=2)


@pytest.fixture
async def folder(server: Sandbox, tmp_path: Path) -> Path:
    """With the dataset of one night."""
    write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests])
    assert (await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))).exit_code == 0
    return tmp_path


async def status(folder: Path) -> Ended:
    result = await metrics_etl("status", cwd=folder, env=BARE)
    assert (result.exit_code, result.stderr) == (0, "")
    return result


@pytest.mark.parametrize(
    ("changes", "arguments", "words", "is_first"),
    [
        ({"FI_API_KEY": None}, [], "the last run could not start: there is no key. Set FI_API_KEY", True),
        pytest.param(
            {},
            ["--run-test", "Renamed"],
            "the last run could not start: --run-test 'Renamed' is not in run_tests",
            False,
            marks=pytest.mark.slow,
        ),
        (
            {"FI_BASE_URL": "https://host.invalid", "METRICS_ETL_API__MAX_TRIES": "1"},
            [],
            "no list of executions could be read: ",
            True,
        ),
    ],
    ids=["no key", "renamed run test", "unknown host"],
)
async def test_night_that_did_not_begin_is_the_verdict_until_the_next_one(
    server: Sandbox, folder: Path, changes: dict[str, str | None], arguments: list[str], words: str, *, is_first: bool
) -> None:
    if is_first:
        shutil.rmtree(folder / "data")
        (folder / "data").mkdir()
    failed = await metrics_etl("run", "--quiet", *arguments, cwd=folder, env=environment(server, **changes))
    assert failed.exit_code in (2, 5)
    assert failed.stderr.count("\n") == 1

    assert (await status(folder)).stdout.startswith(f"Not good: {words}")
    assert (await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))).exit_code == 0
    assert (await status(folder)).stdout.startswith("Good: ")


@pytest.mark.parametrize("is_first", [True, False], ids=["first night", "later night"])
async def test_killed_before_its_first_commit_is_named_and_not_while_it_is_at_work(
    server: Sandbox, folder: Path, *, is_first: bool
) -> None:
    if is_first:
        shutil.rmtree(folder / "data")
    asked = asyncio.Event()
    server.on_request = lambda _request: asked.set()
    server.fault = lambda _request, _nth: Fault(is_hanging=True)
    process = await start("run", "--quiet", cwd=folder, env=environment(server))
    await asked.wait()
    during = (await status(folder)).stdout
    process.kill()
    await ended(process)
    after = (await status(folder)).stdout

    assert f"export     running: pid {process.pid} on " in during
    assert "ended without a summary" not in during
    assert after.startswith("Not good: the last run was killed or crashed, or the disk was full")
    assert ("no earlier run was complete" in after.splitlines()[0]) is is_first
    assert "(UTC) ended without a summary, because it was killed or crashed, the machine stopped, or the disk" in after
    server.fault = None
    assert (await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))).exit_code == 0
    assert "ended without a summary" not in (await status(folder)).stdout
