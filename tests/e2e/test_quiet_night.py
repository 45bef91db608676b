"""A night in which nothing changed opens no part of the dataset, as the kernel sees it."""

import re
import shutil
from pathlib import Path

import pytest

from etl.load.layout import INDEX
from etl.sandbox import Sandbox
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.worlds import settled_world

OPENED = re.compile(r'openat\([^"]*"([^"]*)"')


@pytest.mark.slow  # in process: tests/pipeline/test_job.py
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
async def test_quiet_night_opens_no_part(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=2, executions=6, calls=3, days=60)) as server:
        write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests])
        index, versions = tmp_path / "data" / INDEX, list[int]()
        while (
            len(versions) < 2 or versions[-2:] != [versions[-1]] * 2
        ):  # a part that was written a moment ago is read again
            assert len(versions) < 6, "the index is written each night"
            assert (await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))).exit_code == 0
            versions.append(index.stat().st_ino)
        log = tmp_path / "strace"
        traced = ["strace", "-f", "-qq", "-e", "trace=openat", "-o", str(log)]

        for command in ("run", "plan", "status"):
            ended = await metrics_etl(command, cwd=tmp_path, env=environment(server), under=traced)
            assert ended.exit_code == 0
            opened = [path for path in OPENED.findall(log.read_text()) if "/data/" in path]
            assert any(path.endswith(INDEX) for path in opened)
            assert [path for path in opened if re.search(r"(executions|calls|evals)/.*\.parquet$", path)] == []
