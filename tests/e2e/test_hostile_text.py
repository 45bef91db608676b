"""Text from outside (names, paths, files, what a server says) reaches a terminal with control characters escaped."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etl.files.local import LocalFiles
from etl.files.names import LOCK
from etl.sandbox import Fault, Sandbox
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.e2e.terminal import Terminal
from tests.worlds import settled_world

FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"
HOSTILE = f"n\x1b[2J\x9b31m\x07\u202e{FAMILY}[red]"
CONTROL = re.compile("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
COMMANDS = (
    *("run --verbose", "status"),
    *(
        pytest.param(words, marks=pytest.mark.slow)
        for words in ("check", "discover", "run --quiet", "verify", "verify --quiet", "plan")
    ),
)


@pytest.fixture
async def server():
    world = settled_world(run_tests=2, executions=2, calls=3)
    world.run_tests[0].name = HOSTILE
    for call in world.run_tests[0].executions[0].calls:
        call.status = HOSTILE
    async with Sandbox(world) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where even the folder has such a name."""
    (tmp_path / HOSTILE).mkdir()
    write_settings(tmp_path / HOSTILE, [HOSTILE, f"unknown {HOSTILE}"])
    return tmp_path / HOSTILE


async def written(server: Sandbox, folder: Path, words: str) -> str:
    """What the command writes on a terminal that gets no colors, and elsewhere."""
    piped = await metrics_etl(*words.split(), cwd=folder, env=environment(server))
    terminal = Terminal(*words.split(), cwd=folder, env=environment(server, TERM="dumb", NO_COLOR="1"))
    await terminal.ended()
    return piped.stdout + piped.stderr + terminal.written


def assert_harmless(text: str) -> None:
    assert not CONTROL.search(text.replace("\r\n", "\n")), repr(text)
    assert "a bug" not in text


@pytest.mark.parametrize("words", COMMANDS)
async def test_names_and_paths_are_escaped_in_every_command(server: Sandbox, folder: Path, words: str) -> None:
    await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))
    data = folder / "data"
    next((data / "evals").rglob("*.parquet")).write_bytes(b"damaged")
    (data / "calls" / f"{HOSTILE}.parquet").touch()
    (data / "errors").mkdir(exist_ok=True)
    (data / "errors" / "\udc80.parquet").touch()
    (data / "_state" / "last_run.json").write_text(json.dumps({"last_complete_at": {HOSTILE: HOSTILE}}))
    message = json.dumps({"status": False, "message": HOSTILE, "detail": HOSTILE}).encode()
    server.fault = lambda _request, _nth: Fault(status=400, body=message) if words != "discover" else None

    text = await written(server, folder, words)

    assert_harmless(text)
    if words not in ("run --quiet", "verify --quiet"):
        assert FAMILY in text
        assert r"n\x1b[2J\x9b31m\x07\u202e" in text or words == "discover"


@pytest.mark.parametrize(
    "words", ["run", *(pytest.param(words, marks=pytest.mark.slow) for words in ("status", "check", "verify"))]
)
async def test_text_of_a_lock_is_escaped(server: Sandbox, folder: Path, words: str) -> None:
    await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))
    data = folder / "data"
    with LocalFiles(data).lock(datetime.now(UTC)):
        (data / LOCK).write_text(json.dumps({"pid": HOSTILE, "host": HOSTILE, "since": HOSTILE}))
        text = await written(server, folder, words)
    assert_harmless(text)
    assert rf"pid n\x1b[2J\x9b31m\x07\u202e{FAMILY}[red] on n" in text


@pytest.mark.parametrize("encoding", [pytest.param("utf-8", marks=pytest.mark.slow), "ascii"])
async def test_json_is_escaped_and_says_the_same(server: Sandbox, folder: Path, encoding: str) -> None:
    env = environment(server, PYTHONIOENCODING=encoding)
    await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))
    (folder / "data" / "errors" / "\udc80").mkdir(parents=True)
    (folder / "data" / "errors" / "\udc80" / "stray").touch()

    status = await metrics_etl("discover", "--json", cwd=folder, env=env)
    findings = await metrics_etl("verify", "--json", cwd=folder, env=env)

    assert_harmless(status.stdout + findings.stdout)
    assert status.document["run_tests"][-1]["name"] == HOSTILE
    assert [each["subject"] for each in findings.document["findings"] if each["kind"] == "foreign_file"] == [
        "errors/\udc80/stray"
    ]
