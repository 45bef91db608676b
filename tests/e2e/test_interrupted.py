"""A signal at any moment ends the command with its exit code and one line: while it starts, works, and shuts down."""

import asyncio
import signal
from pathlib import Path

import pytest

from etl.sandbox import Fault, Sandbox
from tests.e2e.command import COMMAND, environment, metrics_etl, write_settings
from tests.support import API_KEY, SECRET_KEY
from tests.worlds import settled_world

AT_THE_END = {
    "when its last functions are called": "import atexit; atexit.register(strike)",
    "when its threads have ended": "import threading; threading._register_atexit(strike)",
}
STRIKE = """
import os, signal
def strike(kill=os.kill, pid=os.getpid(), number={number}):
    kill(pid, number)
"""


async def interrupted_when_it_imports(module: str, *arguments: str, cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    """The exit code, and what the command wrote to stderr besides the list of its imports."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *arguments,
        cwd=cwd,
        env=env | {"PYTHONPROFILEIMPORTTIME": "1"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    lines = []
    async for line in process.stderr:
        if not line.startswith(b"import time:"):
            lines.append(line)
        elif line.split(b"|")[-1].strip() == module.encode():
            process.send_signal(signal.SIGINT)
    return await process.wait(), b"".join(lines).decode()


@pytest.fixture
async def server():
    world = settled_world(run_tests=1, executions=2, calls=3)
    async with Sandbox(world, api_key=API_KEY, secret_key=SECRET_KEY) as running:
        yield running


@pytest.mark.parametrize(
    "module",
    [
        "etl.cli.streams",
        "pydantic",
        "etl.pipeline.job",
        *(
            pytest.param(module, marks=pytest.mark.slow)
            for module in (
                *("typing_extensions", "asyncio", "etl.cli.run", "msgspec", "rich.console"),
                *("numpy", "pandas", "pyarrow"),
            )
        ),
    ],
)
async def test_interrupted_while_it_starts(server: Sandbox, tmp_path: Path, module: str) -> None:
    write_settings(tmp_path, [server.world.run_tests[0].name])
    ended = await interrupted_when_it_imports(module, "run", "--quiet", cwd=tmp_path, env=environment(server))
    assert ended == (130, "error: interrupted by SIGINT\n")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.parametrize("moment", AT_THE_END)
async def test_interrupted_while_it_shuts_down(
    server: Sandbox, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    write_settings(tmp_path, [server.world.run_tests[0].name])
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(STRIKE.format(number=int(number)) + AT_THE_END[moment])
    env = environment(server, PYTHONPATH=str(tmp_path / "hook"))

    result = await metrics_etl("run", "--quiet", cwd=tmp_path, env=env)

    assert (result.exit_code, result.stderr) == (128 + number, f"error: interrupted by {number.name}\n")
    assert (await metrics_etl("verify", "--quiet", cwd=tmp_path, env=environment())).exit_code == 0


@pytest.mark.parametrize(
    "command",
    ["check", "verify --against-api", *(pytest.param(name, marks=pytest.mark.slow) for name in ("plan", "discover"))],
)
async def test_interrupted_while_it_waits_for_the_api(server: Sandbox, tmp_path: Path, command: str) -> None:
    write_settings(tmp_path, [server.world.run_tests[0].name])
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    asked = asyncio.Event()

    def hang(_request: object, _nth: int) -> Fault:
        asked.set()
        return Fault(is_hanging=True)

    server.fault = hang
    process = await asyncio.create_subprocess_exec(
        COMMAND, *command.split(), cwd=tmp_path, env=environment(server), stdout=-1, stderr=-1
    )
    await asked.wait()
    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()
    assert process.returncode == 130
    assert stderr.decode().splitlines()[-1] == "error: interrupted by SIGINT"


async def test_signal_that_is_ignored_by_whoever_started_it_is_ignored(tmp_path: Path) -> None:
    """As of a job in the background of a script, which a Ctrl-C in the terminal is not meant for."""
    (tmp_path / "hook").mkdir()
    strike = STRIKE.format(number=int(signal.SIGINT)) + AT_THE_END["when its last functions are called"]
    (tmp_path / "hook" / "sitecustomize.py").write_text(strike)
    env = environment(PYTHONPATH=str(tmp_path / "hook"))
    ignoring = ("bash", "-c", 'trap \'\' INT; "$0" "$@"')

    assert (await metrics_etl("--version", cwd=tmp_path, env=env, under=ignoring)).exit_code == 0
