"""The snippets for Airflow, Dagster and Prefect, each run by its tool in its own environment, against the sandbox.

An installation takes minutes and hundreds of megabytes: all of it is slow.
"""

import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from etl.sandbox import Sandbox
from tests.deploy.test_files import here, install, locked
from tests.e2e.command import shell
from tests.worlds import a_sandbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
SNIPPETS = ROOT / "docs" / "deploy"
TOOLS = {
    "airflow": ["apache-airflow==3.3.2"],
    "dagster": ["dagster==1.13.28", str(ROOT)],
    "prefect": ["prefect==3.9.1", str(ROOT)],
}
FILES = {"airflow": "airflow_dag.py", "dagster": "dagster_job.py", "prefect": "prefect_flow.py"}
EXPECTED = {
    "complete": "done",
    "partial": "failed",
    "configuration": "failed",
    "refused": "failed",
    "destination": "failed",
    "unavailable": "tried again",
    "locked": "skipped",
}


async def run(*command: str | Path, env: dict[str, str] | None = None) -> tuple[str, str]:
    bare = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    result = await shell(*command, cwd=Path.cwd(), env=bare | (env or {}))
    assert result.exit_code == 0, (result.stdout + result.stderr)[-5000:]
    return result.stdout, result.stderr


async def install_tool(tool: str, folder: Path) -> Path:
    """An environment of its own; returns its folder of programs."""
    await run(sys.executable, "-m", "venv", folder / "venv")
    await run(folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", *TOOLS[tool])
    return folder / "venv" / "bin"


server = a_sandbox(run_tests=1, executions=2, calls=3)


def as_a_user_edits_it(tool: str, folder: Path) -> Path:
    """The snippet with this machine's paths, and without waits between tries."""
    text = here((SNIPPETS / FILES[tool]).read_text(), folder)
    path = folder / FILES[tool]
    path.write_text(re.sub(r"(retry_delay_seconds|seconds_to_wait)=900", r"\1=0", text))
    return path


def write_cases(folder: Path, server: Sandbox, other: Sandbox) -> dict[str, Path]:
    """A settings file for each way in which a run may end."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}"
    name = server.world.run_tests[0].name
    (folder / "in-the-way").touch()
    cases = {
        "complete": (server.base_url, [name], "complete"),
        "partial": (server.base_url, [name, "Nobody"], "partial"),
        "configuration": (server.base_url, [], "configuration"),
        "refused": (other.base_url, [name], "refused"),
        "destination": (server.base_url, [name], "in-the-way"),
        "unavailable": (closed, [name], "unavailable"),
        "locked": (server.base_url, [name], "locked"),
    }
    paths = {}
    for case, (base_url, names, dataset) in cases.items():
        paths[case] = folder / f"{case}.toml"
        paths[case].write_text(
            f'run_tests = {json.dumps(names)}\n[api]\nbase_url = "{base_url}"\nmax_tries = 1\n'
            f'[destination]\npath = "{folder / dataset}"\n'
        )
    return paths


@pytest.mark.parametrize("tool", TOOLS)
async def test_each_tool_does_what_the_exit_code_asks_for(tool: str, server: Sandbox, tmp_path: Path) -> None:
    programs = await install_tool(tool, tmp_path)
    install(tmp_path, server)
    async with Sandbox(server.world, api_key="another") as other:
        cases = write_cases(tmp_path, server, other)
        with locked(tmp_path / "locked"):
            answer, _ = await run(
                programs / "python",
                *(ROOT / "tests" / "deploy" / "drive_tools.py", tool, as_a_user_edits_it(tool, tmp_path)),
                *cases.values(),
                env={f"FI_{key}_KEY_FILE": str(tmp_path / f"{key.lower()}-key") for key in ("API", "SECRET")}
                | dict.fromkeys(("AIRFLOW_HOME", "DAGSTER_HOME", "PREFECT_HOME"), str(tmp_path)),
            )

    found = json.loads(answer.splitlines()[-1])
    assert {case: outcome for case, (outcome, _) in found.items()} == EXPECTED
    assert "has no run test with this name" in found["partial"][1], "the alert tells what is missing"
    if tool != "airflow":
        assert found["unavailable"][1] == "4 times"
