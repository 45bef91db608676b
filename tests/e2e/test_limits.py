"""A process that may open few files exports nevertheless, or says before its first request what it needs."""

from pathlib import Path

import pyarrow.dataset as ds
import pytest

from etl.sandbox import Sandbox
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.support import API_KEY, SECRET_KEY
from tests.worlds import settled_world


@pytest.fixture
async def server():
    world = settled_world(run_tests=1, executions=8, calls=16)
    async with Sandbox(world, api_key=API_KEY, secret_key=SECRET_KEY) as running:
        yield running


def limited(files: str) -> tuple[str, ...]:
    return ("bash", "-c", f'ulimit {files}; exec "$0" "$@"')


@pytest.mark.parametrize("files", ["-n 64", pytest.param("-n 50", marks=pytest.mark.slow), "-Sn 16"])
async def test_few_files_slow_an_export_down_and_harm_it_not(server: Sandbox, tmp_path: Path, files: str) -> None:
    write_settings(tmp_path, [server.world.run_tests[0].name], "api.concurrency = 256")
    result = await metrics_etl("run", cwd=tmp_path, env=environment(server), under=limited(files))

    assert result.exit_code == 0
    assert ("concurrency_reduced" in result.stderr) == (files != "-Sn 16")
    assert ds.dataset(tmp_path / "data" / "calls").count_rows() == 128


@pytest.mark.parametrize(
    "command", ["run", "check", *(pytest.param(name, marks=pytest.mark.slow) for name in ("plan", "discover"))]
)
@pytest.mark.parametrize("files", ["-n 32", pytest.param("-n 12", marks=pytest.mark.slow)])
async def test_too_few_files_are_a_mistake_of_the_configuration(
    server: Sandbox, tmp_path: Path, command: str, files: str
) -> None:
    write_settings(tmp_path, [server.world.run_tests[0].name])
    result = await metrics_etl(command, cwd=tmp_path, env=environment(server), under=limited(files))

    assert result.exit_code == 2
    assert "raise the limit, such as with ulimit -n 1024" in result.stderr
    assert result.stderr.count("\n") == 1
    assert server.requests == []
    if command == "run":
        shown = await metrics_etl("status", cwd=tmp_path, env=environment())
        assert f"could not start (exit 2): {result.stderr.removeprefix('error: ').strip()}" in shown.stdout
