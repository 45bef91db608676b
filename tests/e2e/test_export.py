"""The main job, with the installed command against the sandbox over loopback."""

import json
import re
from pathlib import Path

from etl.sandbox import Sandbox
from tests.e2e.command import environment, export, metrics_etl, write_settings
from tests.e2e.truth import assert_equals_world, rows_of
from tests.meanings import FIELDS
from tests.reference import json_paths
from tests.worlds import a_sandbox

server = a_sandbox(run_tests=3, executions=6, calls=10, days=90)


def data_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and bytes of every file but those that tell of runs."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes())
        for path in (folder / "data").rglob("*=*/*.parquet")
        if "runs" not in path.relative_to(folder / "data").parts
    }


async def test_every_row_arrives_once_the_run_is_recorded_and_nothing_but_final_files_lies_under_the_tables(
    server: Sandbox, tmp_path: Path
) -> None:
    result = await export(server, tmp_path)
    data = tmp_path / "data"

    assert (result.exit_code, result.document["outcome"]) == (0, "complete")
    assert (result.document["rows"]["executions"], result.document["rows"]["calls"]) == (18, 180)
    assert_equals_world(tmp_path, server.world)
    assert json.loads((data / "_state" / "last_run.json").read_text()).items() >= result.document.items()
    (row,) = rows_of(tmp_path, "runs")
    assert row["export_run_id"] == result.document["export_run_id"]
    assert (row["calls"], row["requests"], row["exit_code"]) == (180, len(server.requests), 0)
    assert json.loads(row["run_tests"]) == result.document["run_tests"]
    tables = ("executions", "calls", "evals", "errors")
    assert {row["export_run_id"] for table in tables for row in rows_of(tmp_path, table)} == {row["export_run_id"]}
    assert {path.name for path in data.iterdir()} == {"_state", "runs", *tables}
    assert {path.name for table in tables for path in (data / table).rglob("*.*")} == {"part-0.parquet"}
    documents = {"dataset.json", "last_run.json"}
    files = {path.name for path in (data / "_state").rglob("*") if not path.is_dir()}
    assert files == {*documents, "index.parquet", "lock"}


async def test_dataset_that_was_not_there_before_is_told_so(server: Sandbox, tmp_path: Path) -> None:
    """A volume that is not mounted looks like this."""
    write_settings(tmp_path, [server.world.run_tests[0].name])
    told = [(await metrics_etl("run", cwd=tmp_path, env=environment(server))).stdout for _ in range(2)]
    assert [re.findall(r"^dataset    (.*)$", each, re.MULTILINE) for each in told] == [
        [f"{tmp_path / 'data'} (new)"],
        [f"{tmp_path / 'data'}"],
    ]


async def test_run_test_and_since_narrow_the_run(server: Sandbox, tmp_path: Path) -> None:
    first, second, _third = server.world.run_tests
    day = sorted(execution.started_at.date() for execution in first.executions)[3]

    result = await export(server, tmp_path, "--run-test", first.name, "--since", str(day))
    unknown = await export(server, tmp_path, "--run-test", second.name.lower())

    wanted = {execution.execution_id for execution in first.executions if execution.started_at.date() >= day}
    assert {row["execution_id"] for row in rows_of(tmp_path, "executions")} == wanted
    assert [run_test["name"] for run_test in result.document["run_tests"]] == [first.name]
    assert unknown.exit_code == 2
    assert f"Did you mean '{second.name}'?" in unknown.stderr


async def test_plan_tells_what_run_sends(server: Sandbox, tmp_path: Path) -> None:
    write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests])
    planned = await metrics_etl("plan", "--json", cwd=tmp_path, env=environment(server))
    lists = len(server.requests)
    one = server.world.run_tests[0].name
    narrowed = await metrics_etl("plan", "--json", "--run-test", one, cwd=tmp_path, env=environment(server))
    result = await export(server, tmp_path)

    assert [each["name"] for each in narrowed.document["run_tests"]] == [one]
    assert set(json_paths(planned.document, FIELDS["plan"])) == FIELDS["plan"].keys()
    assert planned.document["requests"] == 12 * 3 + 6 * (2 + 10)  # voice calls of two run tests, chats of one
    assert result.document["requests"] == planned.document["requests"] + lists + 4, "what lists of run tests say"


async def test_full_refresh_fetches_final_executions_again(server: Sandbox, tmp_path: Path) -> None:
    first = await export(server, tmp_path)
    before = data_files(tmp_path)
    result = await export(server, tmp_path, "--full-refresh")

    assert result.document["requests"] == first.document["requests"] - 4, "what lists of run tests say is kept"
    assert result.document["run_tests"][0]["reasons"] == {"requested": 6}
    assert data_files(tmp_path) == before, "nothing has changed"
