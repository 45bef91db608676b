"""``metrics-etl discover``: what it prints can be pasted, with and without settings."""

import tomllib
from pathlib import Path

from etl.model.records import RUN_TESTS
from etl.sandbox import Fault, Sandbox
from tests.e2e.command import environment, metrics_etl
from tests.worlds import settled_world

HOSTILE = ['quo"te \\ back', "line\nbreak \x1b[2J\x7f", "Ünïcode ナイトリー \u202e", "A", "A"]


async def test_what_is_printed_can_be_pasted_and_run(tmp_path: Path) -> None:
    """With the keys in the environment and nothing else."""
    async with Sandbox(settled_world(run_tests=5, names=HOSTILE, executions=1, calls=2)) as server:
        printed = await metrics_etl("discover", cwd=tmp_path, env=environment(server))
        as_json = await metrics_etl("discover", "--json", cwd=tmp_path, env=environment(server))
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "metrics-etl.toml").write_text(printed.stdout, encoding="utf-8")
        run = await metrics_etl("run", "--json", cwd=tmp_path, env=environment(server))

    assert (printed.exit_code, printed.stderr) == (0, "")
    assert set(tomllib.loads(printed.stdout)["run_tests"]) == set(HOSTILE)
    assert "2 run tests have this name" in printed.stdout
    assert [each["name"] for each in as_json.document["run_tests"]] == tomllib.loads(printed.stdout)["run_tests"]
    assert as_json.document["problems"] == []
    assert set(as_json.document["run_tests"][0]) == {"name", "key", "run_test_ids"}
    assert run.exit_code == 0
    assert run.document["rows"]["calls"] == 10


async def test_what_the_list_lacks_is_said_and_exits_3(tmp_path: Path) -> None:

    async with Sandbox(settled_world(run_tests=3, executions=1, calls=1)) as server:
        server.fault = lambda request, _nth: Fault(status=500) if request.query["page"] == "1" else None
        result = await metrics_etl("discover", cwd=tmp_path, env=environment(server, METRICS_ETL_API__MAX_TRIES="1"))

    assert result.exit_code == 3
    assert len(tomllib.loads(result.stdout)["run_tests"]) == 2
    assert result.stderr.startswith("problem: 1 row of the list of run tests cannot be read")


async def test_nothing_to_see_wrong_key_and_no_key(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1)) as server:
        refused = await metrics_etl("discover", cwd=tmp_path, env=environment(server, FI_API_KEY="wrong"))
        keyless = await metrics_etl("discover", cwd=tmp_path, env=environment(server, FI_API_KEY=None))
        server.world.run_tests.clear()
        empty = await metrics_etl("discover", cwd=tmp_path, env=environment(server))
        assert server.count(RUN_TESTS) == 2

    assert (refused.exit_code, keyless.exit_code, empty.exit_code) == (4, 2, 2)
    assert "the key sees no run test" in empty.stderr
    assert refused.stdout == keyless.stdout == empty.stdout == ""
