"""A signal at any moment ends the command with its exit code and one line: while it starts, works, and shuts down."""

import asyncio
import signal
from pathlib import Path

import pytest

from etl.sandbox import Fault, Sandbox
from tests.e2e.command import environment, metrics_etl, start_cold, write_settings
from tests.worlds import a_sandbox

AT_THE_END = {
    "when its last functions are called": "import atexit; atexit.register(strike)",
    "when its threads have ended": "import threading; threading._register_atexit(strike)",
}
WHEN_IT_IMPORTS = """
import sys
class Finder:
    def find_spec(name, *_):
        if name == {module!r}:
            strike()
sys.meta_path.insert(0, Finder)
"""
STRIKE = """
import os, signal
def strike(kill=os.kill, pid=os.getpid(), number={number}):
    kill(pid, number)
"""


def environment_that_strikes(
    tmp_path: Path, when: str, number: signal.Signals = signal.SIGINT, server: Sandbox | None = None
) -> dict[str, str]:
    """An environment in which the command sends itself a signal, at one exact moment."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(STRIKE.format(number=int(number)) + when)
    return environment(server, PYTHONPATH=str(tmp_path / "hook"))


server = a_sandbox(run_tests=1, executions=2, calls=3)


@pytest.mark.parametrize(
    "module",
    [
        "pydantic",
        *(
            pytest.param(module, marks=pytest.mark.slow)
            for module in (
                *("etl.cli.process", "etl.pipeline.job"),
                *("typing_extensions", "asyncio", "etl.cli.run_commands", "msgspec"),
                *("numpy", "pyarrow", "aiohttp"),
            )
        ),
    ],
)
async def test_interrupted_while_it_starts(server: Sandbox, tmp_path: Path, module: str) -> None:
    write_settings(tmp_path, [server.world.run_tests[0].name])
    env = environment_that_strikes(tmp_path, WHEN_IT_IMPORTS.format(module=module), server=server)

    result = await metrics_etl("run", "--quiet", cwd=tmp_path, env=env)

    assert (result.exit_code, result.stderr) == (130, "error: interrupted by SIGINT\n")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "moment", [*AT_THE_END][:1] + [pytest.param(each, marks=pytest.mark.slow) for each in [*AT_THE_END][1:]]
)
async def test_interrupted_while_it_shuts_down(
    server: Sandbox, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    write_settings(tmp_path, [server.world.run_tests[0].name])
    env = environment_that_strikes(tmp_path, AT_THE_END[moment], number, server)

    result = await metrics_etl("run", "--quiet", cwd=tmp_path, env=env)

    assert (result.exit_code, result.stderr) == (128 + number, f"error: interrupted by {number.name}\n")
    assert (await metrics_etl("verify", "--quiet", cwd=tmp_path, env=environment())).exit_code == 0


@pytest.mark.parametrize(
    "command", ["check", *(pytest.param(name, marks=pytest.mark.slow) for name in ("plan", "discover"))]
)
async def test_interrupted_while_it_waits_for_the_api(server: Sandbox, tmp_path: Path, command: str) -> None:
    write_settings(tmp_path, [server.world.run_tests[0].name])
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    asked = asyncio.Event()

    def hang(_request: object, _nth: int) -> Fault:
        asked.set()
        return Fault(is_hanging=True)

    server.fault = hang
    process = await start_cold(command, cwd=tmp_path, env=environment(server))
    await asked.wait()
    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()
    assert process.returncode == 130
    assert stderr.decode().splitlines()[-1] == "error: interrupted by SIGINT"


async def test_signal_that_is_ignored_by_whoever_started_it_is_ignored(tmp_path: Path) -> None:
    """As of a job in the background of a script, which a Ctrl-C in the terminal is not meant for."""
    env = environment_that_strikes(tmp_path, AT_THE_END["when its last functions are called"])
    ignoring = ("bash", "-c", 'trap \'\' INT; "$0" "$@"')

    assert (await metrics_etl("--version", cwd=tmp_path, env=env, under=ignoring)).exit_code == 0
