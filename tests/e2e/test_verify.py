"""``metrics-etl verify`` as a command.

What it finds is tested in ``tests/inspect/test_verify.py``.
"""

from pathlib import Path

import pytest

from etl.model.keys import default_key
from etl.sandbox import Sandbox
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.worlds import a_sandbox

BARE = environment(FI_API_KEY=None, FI_SECRET_KEY=None)
server = a_sandbox(run_tests=2, executions=3, calls=2)


@pytest.fixture
async def folder(server: Sandbox, tmp_path: Path) -> Path:
    write_settings(tmp_path, "all")
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    server.requests.clear()
    return tmp_path


async def test_command_needs_no_key_and_no_network(folder: Path) -> None:
    whole = await metrics_etl("verify", cwd=folder, env=BARE)
    (damaged, *_) = (folder / "data" / "calls").rglob("*.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-8])
    broken = await metrics_etl("verify", "--json", cwd=folder, env=BARE)
    quiet = await metrics_etl("verify", "--quiet", cwd=folder, env=BARE)

    assert (whole.exit_code, broken.exit_code, quiet.exit_code) == (0, 3, 3)
    assert "nothing is wrong (exit 0)" in whole.stdout
    (finding,) = broken.document["findings"]
    path = damaged.relative_to(folder / "data").as_posix()
    assert (finding["kind"], finding["subject"]) == ("unreadable", path)
    text = finding["text"].rstrip(".")
    assert (quiet.stdout, quiet.stderr) == ("", f"unreadable: '{path}': {text}; next: {finding['next_step']}\n")


async def test_run_test_of_which_there_is_nothing_is_no_green_light(server: Sandbox, folder: Path) -> None:
    name = server.world.run_tests[0].name
    for configured in ("all", [name, "Nope"]):
        write_settings(folder, configured)
        for arguments in (["--run-test", "Nope"], ["--run-test", name, "--run-test", "Nope"]):
            ended = await metrics_etl("verify", *arguments, cwd=folder, env=BARE)
            assert (ended.exit_code, ended.stdout) == (2, "")
            assert "has no run test 'Nope'. Choose from " in ended.stderr
        assert (await metrics_etl("verify", "--run-test", name, cwd=folder, env=BARE)).exit_code == 0


async def test_command_says_that_there_is_no_dataset(tmp_path: Path) -> None:
    write_settings(tmp_path, ["A"])
    ended = await metrics_etl("verify", cwd=tmp_path, env=BARE)
    assert ended.exit_code == 6
    assert ended.stderr.startswith(f"error: there is no dataset at {tmp_path / 'data'}. ")


async def test_run_test_is_chosen_by_its_name_or_its_folder(server: Sandbox, folder: Path) -> None:
    name = server.world.run_tests[0].name
    by_name, by_key = [
        await metrics_etl("verify", "--json", "--run-test", each, cwd=folder, env=BARE)
        for each in (name, default_key(name))
    ]
    rows = {table["name"]: table["rows"] for table in by_name.document["tables"]}
    assert (rows["executions"], rows["calls"]) == (3, 6)
    assert by_key.document["tables"] == by_name.document["tables"]
