"""Run the installed command as its users do: another process, a settings file, keys in the environment."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etl.sandbox import Sandbox
from tests.e2e import warm
from tests.meanings import FIELDS
from tests.reference import json_paths
from tests.support import API_KEY, IS_FULL, SECRET_KEY

COMMAND = Path(sys.executable).with_name("metrics-etl")
# What neither the interpreter nor an import reads.
READ_LATE = ("PATH", "FI_", "METRICS_ETL_", "AWS_", "COLUMNS", "TERM", "NO_COLOR", "PYTHONASYNCIODEBUG")


@dataclass(frozen=True)
class Ended:
    """How a process ended and what it wrote."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        return json.loads(self.stdout)


def environment(server: Sandbox | None = None, /, **changes: str | None) -> dict[str, str]:
    """A cron job's bare environment with the keys; None takes a variable away."""
    base: dict[str, str | None] = {
        "PATH": os.environ["PATH"],
        "FI_API_KEY": API_KEY,
        "FI_SECRET_KEY": SECRET_KEY,
        "FI_BASE_URL": server.base_url if server else None,
    }
    return {name: value for name, value in (base | changes).items() if value is not None}


def without_uvloop(folder: Path) -> dict[str, str]:
    """The variables with which the command does not find uvloop."""
    folder.mkdir()
    (folder / "uvloop.py").write_text('raise ImportError("not installed")')
    return {"PYTHONPATH": str(folder)}


def is_warm(env: dict[str, str]) -> bool:
    """Whether a command with this environment may start from ``warm``, unless in full."""
    return not IS_FULL and all(name.startswith(READ_LATE) for name in env)


async def start_program(*command: str | Path, cwd: Path, env: dict[str, str]) -> asyncio.subprocess.Process:
    """Any command in a process of its own."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, cwd=cwd, env=env, stdout=pipe, stderr=pipe)


async def start_cold(*arguments: str, cwd: Path, env: dict[str, str]) -> asyncio.subprocess.Process:
    """The command in a process of its own, from its first import on."""
    return await start_program(COMMAND, *arguments, cwd=cwd, env=env)


async def start(*arguments: str, cwd: Path, env: dict[str, str]) -> asyncio.subprocess.Process | warm.Process:
    """The command at work; from ``warm`` where it may: its start is not what is tested."""
    if is_warm(env):
        return await warm.start([os.fspath(COMMAND), *arguments], cwd, env)
    return await start_cold(*arguments, cwd=cwd, env=env)


async def _outcome(process: asyncio.subprocess.Process | warm.Process) -> Ended:
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


async def ended(process: asyncio.subprocess.Process | warm.Process) -> Ended:
    """How the command ended, which was not with a traceback."""
    result = await _outcome(process)
    assert "Traceback" not in result.stdout + result.stderr, result.stderr
    return result


async def metrics_etl(*arguments: str, cwd: Path, env: dict[str, str], under: Sequence[str] = ()) -> Ended:
    """The installed command from start to end; ``under`` are the words of a command that runs it."""
    if under:
        return await ended(await start_program(*under, COMMAND, *arguments, cwd=cwd, env=env))
    return await ended(await start(*arguments, cwd=cwd, env=env))


async def shell(*command: str | Path, cwd: Path, env: dict[str, str]) -> Ended:
    """Any other command, with its output as it comes."""
    return await _outcome(await start_program(*command, cwd=cwd, env=env))


async def type_in(script: str, cwd: Path, server: Sandbox) -> Ended:
    """What a shell makes of a script that a page shows."""
    return await shell(
        "sh", "-ec", script, cwd=cwd, env=environment(server, PATH=f"{COMMAND.parent}:{os.environ['PATH']}")
    )


def names(server: Sandbox) -> list[str]:
    """Those of the run tests that it has."""
    return [run_test.name for run_test in server.world.run_tests]


async def export(server: Sandbox, folder: Path, *arguments: str) -> Ended:
    """``run --json`` of all run tests of the server."""
    write_settings(folder, names(server))
    return await metrics_etl("run", "--json", *arguments, cwd=folder, env=environment(server))


def assert_documented(command: str, document: Any) -> None:
    """Every field of the command's ``--json`` is in the reference, and at its top none is missing."""
    fields = FIELDS[command]
    assert set(json_paths(document, fields)) <= fields.keys()
    assert document.keys() == {re.split(r"[.[]", name)[0] for name in fields}


def write_settings(folder: Path, run_tests: Any, *lines: str) -> Path:
    """config/metrics-etl.toml in the folder, where the command looks by itself."""
    path = folder / "config" / "metrics-etl.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([f"run_tests = {_toml(run_tests)}", *lines]), encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(each)}' for name, each in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)
