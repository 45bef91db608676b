"""A command that starts warm ends, prints, and sees its folder and environment as one that starts cold."""

import os
from pathlib import Path

import pytest

from tests.e2e import warm
from tests.e2e.command import COMMAND, ended, environment, start_cold


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        *(("schema calls", 0), ("status", 2)),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("--version", 0), ("run --nonsense", 2), ("verify", 2))
        ),
    ],
)
async def test_command_that_starts_warm_ends_and_prints_as_one_that_starts_cold(
    tmp_path: Path, words: str, exit_code: int
) -> None:
    env = environment(METRICS_ETL_API__CONCURRENCY="0")

    found = await ended(await warm.start([os.fspath(COMMAND), *words.split()], tmp_path, env))

    assert found == await ended(await start_cold(*words.split(), cwd=tmp_path, env=env))
    assert found.exit_code == exit_code
