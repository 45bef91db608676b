"""The main job, with the installed command against the sandbox over loopback."""

import json
import random
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from etl import sandbox
from etl.model import schema
from etl.model.keys import default_key
from etl.sandbox import Sandbox
from tests.e2e import command, truth
from tests.e2e.command import Ended, environment, metrics_etl, write_settings
from tests.e2e.truth import assert_equals_world, rows_of
from tests.reference import FIELDS, json_paths
from tests.stores import KEYS, Store, mirror
from tests.worlds import settled_world


@pytest.fixture(autouse=True, params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all of it happens; what lies in a bucket is looked at in a copy."""
    if request.param == "folder":
        return
    store: Store = request.getfixturevalue("seaweed_store")
    request.getfixturevalue("keys")
    places: dict[Path, str] = {}

    async def in_a_bucket(*arguments: str, cwd: Path, env: dict[str, str]) -> Ended:
        url = places.setdefault(cwd, store.url())
        options = {f"METRICS_ETL_DESTINATION__OPTIONS__{name.upper()}": value for name, value in store.options.items()}
        ended = await command.metrics_etl(
            *arguments, cwd=cwd, env=env | KEYS | options | {"METRICS_ETL_DESTINATION__PATH": url}
        )
        mirror(url, store.options, cwd / "data")
        return ended

    monkeypatch.setattr(request.module, "metrics_etl", in_a_bucket)


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=3, executions=6, calls=10, days=90)) as running:
        yield running


async def export(server: Sandbox, folder: Path, *arguments: str) -> Ended:
    write_settings(folder, [run_test.name for run_test in server.world.run_tests])
    return await metrics_etl("run", "--json", *arguments, cwd=folder, env=environment(server))


def data_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and bytes of every file but those that tell of runs."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes())
        for path in (folder / "data").rglob("*=*/*.parquet")
        if "runs" not in path.relative_to(folder / "data").parts
    }


async def test_every_row_arrives_once_with_the_worlds_values(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=3, executions=20, calls=30, days=90)) as server:
        result = await export(server, tmp_path)

    assert (result.exit_code, result.document["outcome"]) == (0, "complete")
    assert result.document["rows"]["executions"] == 60
    assert result.document["rows"]["calls"] == 1800
    assert_equals_world(tmp_path, server.world)
    for table in schema.TABLES.values():
        for path in (tmp_path / "data" / table.name).rglob("*.parquet"):
            assert pq.read_schema(path).equals(table.arrow_schema, check_metadata=True), path


async def test_first_export_sends_no_request_too_many(server: Sandbox, tmp_path: Path) -> None:
    result = await export(server, tmp_path)

    assert result.document["necessary_requests"] == len(server.requests)
    lists = server.count("/metrics/", page=1) + server.count("/runs/", page=1)
    assert lists == 2 * 3 + 18, "one list per run test, one more since it brought news, one per execution"
    assert len(server.requests) == lists + 180


async def test_second_run_on_an_unchanged_world_lists_only_and_writes_nothing(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    before, sent = data_files(tmp_path), len(server.requests)

    result = await export(server, tmp_path)

    assert result.exit_code == 0
    assert len(server.requests) - sent == 3
    assert result.document["requests"] == result.document["necessary_requests"] == 3
    assert data_files(tmp_path) == before


async def test_dataset_that_was_not_there_before_is_told_so(server: Sandbox, tmp_path: Path) -> None:
    """A volume that is not mounted looks like this."""
    write_settings(tmp_path, [server.world.run_tests[0].name])
    told = [(await metrics_etl("run", cwd=tmp_path, env=environment(server))).stdout for _ in range(2)]
    assert [re.findall(r"^dataset    (.*)$", each, re.MULTILINE) for each in told] == [
        [f"{tmp_path / 'data'} (new)"],
        [f"{tmp_path / 'data'}"],
    ]


async def test_only_changed_executions_are_fetched_again(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    rng, now = random.Random(5), datetime.now(UTC)
    changed = [sandbox.listable_executions(server.world, run_test.name)[3] for run_test in server.world.run_tests[:2]]
    for execution in changed:
        sandbox.rerun_execution(execution, now - timedelta(hours=40))
        sandbox.finish_execution(execution, rng, now - timedelta(hours=39))
    before, sent = data_files(tmp_path), len(server.requests)

    result = await export(server, tmp_path)

    requests = server.requests[sent:]
    assert {request.query["execution_id"] for request in requests if "execution_id" in request.query} == {
        execution.execution_id for execution in changed
    }
    assert (
        len(requests) == result.document["necessary_requests"] == 3 + 2 * (2 + 10)
    )  # two lists each, and all calls, since they ran again
    assert result.exit_code == 0
    assert_equals_world(tmp_path, server.world)
    rewritten = {path for path, content in data_files(tmp_path).items() if before[path] != content}
    months = [
        f"run_test={default_key(execution.run_test.name)}/month={execution.started_at:%Y-%m}/" for execution in changed
    ]
    assert rewritten == {path for path in before if any(month in path for month in months)} < before.keys()


async def test_running_execution_waits_and_is_exported_once_finished(server: Sandbox, tmp_path: Path) -> None:
    rng, now = random.Random(5), datetime.now(UTC)
    execution = sandbox.add_execution(
        server.world, server.world.run_tests[0], rng, now - timedelta(hours=30), 12, status="running"
    )

    first = await export(server, tmp_path)
    waiting = {row["execution_id"]: row for row in rows_of(tmp_path, "executions")}[execution.execution_id]
    sandbox.finish_execution(execution, rng, now - timedelta(hours=26))
    second = await export(server, tmp_path)
    finished = {row["execution_id"]: row for row in rows_of(tmp_path, "executions")}[execution.execution_id]

    assert first.document["run_tests"][0]["reasons"] == {"new": 6, "waiting": 1}
    assert (waiting["export_state"], waiting["listed_calls"], waiting["exported_calls"]) == ("waiting", None, 0)
    assert second.document["run_tests"][0]["reasons"] == {"final": 6, "changed": 1}
    assert (finished["export_state"], finished["listed_calls"], finished["exported_calls"]) == ("settling", 12, 12), (
        "a run has just seen that it finished, however long ago that was"
    )
    assert_equals_world(tmp_path, server.world)


async def test_late_cost_within_the_settle_window_arrives_with_the_next_run(server: Sandbox, tmp_path: Path) -> None:
    """The execution's own listing does not show it: only fetching its calls again does."""
    rng, now = random.Random(5), datetime.now(UTC)
    execution = sandbox.add_execution(server.world, server.world.run_tests[0], rng, now - timedelta(hours=2), 12)

    first = await export(server, tmp_path)
    late = sandbox.add_late_data(execution, rng, now)
    second = await export(server, tmp_path)

    assert late is not None
    assert first.exit_code == second.exit_code == 0
    assert second.document["run_tests"][0]["reasons"] == {"final": 6, "settling": 1}
    assert_equals_world(tmp_path, server.world)


async def test_settling_execution_that_did_not_change_is_not_written_again(server: Sandbox, tmp_path: Path) -> None:
    sandbox.add_execution(
        server.world, server.world.run_tests[0], random.Random(5), datetime.now(UTC) - timedelta(hours=2), 12
    )
    await export(server, tmp_path)
    before = data_files(tmp_path)

    result = await export(server, tmp_path)

    assert result.document["run_tests"][0]["reasons"]["settling"] == 1
    assert data_files(tmp_path) == before


async def test_unknown_run_test_fails_by_name_and_the_others_are_exported(server: Sandbox, tmp_path: Path) -> None:
    names = [run_test.name for run_test in server.world.run_tests]
    write_settings(tmp_path, ["No Such Test", *names])

    result = await metrics_etl("run", "--json", cwd=tmp_path, env=environment(server))

    assert (result.exit_code, result.document["outcome"]) == (3, "partial")
    assert len(result.document["problems"]) == 1
    assert "'No Such Test'" in result.document["problems"][0]
    assert_equals_world(tmp_path, server.world)


async def test_documented_spelling_gives_the_same_dataset(tmp_path: Path) -> None:
    world = settled_world(run_tests=2, executions=4, calls=10)
    async with Sandbox(world, spelling="documented") as server:
        result = await export(server, tmp_path)

    assert result.exit_code == 0
    assert_equals_world(tmp_path, world)


async def test_server_that_caps_pages_at_seven_loses_nothing(tmp_path: Path) -> None:
    world = settled_world(run_tests=2, executions=20, calls=15)
    async with Sandbox(world, max_limit=7) as server:
        result = await export(server, tmp_path)

    assert result.exit_code == 0
    assert_equals_world(tmp_path, world)


async def test_awkward_numbers_arrive_exactly_or_in_extra(tmp_path: Path) -> None:
    """A world with strings for numbers, floats for counts and nulls: see ``make_world(quirks=True)``."""
    world = settled_world(run_tests=3, executions=6, calls=30, quirks=True)
    async with Sandbox(world) as server:
        result = await export(server, tmp_path)

    assert result.exit_code == 0
    rows = {row["call_execution_id"]: row for row in rows_of(tmp_path, "calls")}
    misfits = 0
    for (call_id,), wanted in truth.call_rows(world).items():
        extra = json.loads(rows[call_id]["extra"] or "{}")
        for name in ("input_tokens", "output_tokens", "total_tokens", "message_count", "turn_count", "csat_score"):
            value, cell = wanted[f"chat_metrics_{name}"], rows[call_id][f"chat_metrics_{name}"]
            kept = extra.get("chat_metrics", {}).get(name)
            misfits += kept is not None
            assert (
                (cell == float(value) if kept is None else kept == value) if value is not None else cell is kept is None
            )
    assert result.document["run_tests"][2]["misfits"] == misfits


async def test_run_is_recorded_in_the_runs_table_and_as_json(server: Sandbox, tmp_path: Path) -> None:
    result = await export(server, tmp_path)

    assert json.loads((tmp_path / "data" / "_state" / "last_run.json").read_text()) == result.document
    (row,) = rows_of(tmp_path, "runs")
    assert row["export_run_id"] == result.document["export_run_id"]
    assert (row["calls"], row["requests"], row["exit_code"]) == (180, len(server.requests), 0)
    assert json.loads(row["run_tests"]) == result.document["run_tests"]
    exported_by = {
        row["export_run_id"] for table in ("executions", "calls", "evals") for row in rows_of(tmp_path, table)
    }
    assert exported_by == {result.document["export_run_id"]}


async def test_nothing_but_final_files_lies_under_the_tables(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)

    data = tmp_path / "data"
    assert {path.name for path in data.iterdir()} == {"_state", "calls", "evals", "executions", "runs"}
    assert {path.name for table in ("calls", "evals", "executions") for path in (data / table).rglob("*.*")} == {
        "part-0.parquet"
    }
    documents = {"attempt.json", "dataset.json", "last_run.json"}
    files = {path.name for path in (data / "_state").rglob("*") if not path.is_dir()}
    assert files == {*documents, "index.parquet", "lock"}


async def test_plan_says_what_run_does_and_changes_nothing(server: Sandbox, tmp_path: Path) -> None:
    write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests])

    planned = await metrics_etl("plan", "--json", cwd=tmp_path, env=environment(server))
    assert not (tmp_path / "data").exists()
    sent = len(server.requests)
    await export(server, tmp_path)

    assert planned.exit_code == 0
    assert set(json_paths(planned.document, FIELDS["plan"])) == FIELDS["plan"].keys()
    assert planned.document["requests"] == len(server.requests) - sent - 2 * 3
    assert len(planned.document["executions"]) == 18
    assert {item["reason"] for item in planned.document["executions"]} == {"new"}


async def test_rate_limited_server_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    """A window of one second stands for the real minute; without headers the first refusal teaches the limit."""
    world = settled_world(run_tests=1, executions=4, calls=20)
    async with Sandbox(world, rate_limit=60, rate_window_seconds=1.0) as server:
        result = await export(server, tmp_path)

    assert result.exit_code == 0
    assert result.document["rejections"] == 0
    assert_equals_world(tmp_path, world)


async def test_run_test_and_since_narrow_the_run(server: Sandbox, tmp_path: Path) -> None:
    first, second, _third = server.world.run_tests
    day = sorted(execution.started_at.date() for execution in first.executions)[3]

    result = await export(server, tmp_path, "--run-test", first.name, "--since", str(day))
    unknown = await export(server, tmp_path, "--run-test", second.name.lower())

    wanted = {execution.execution_id for execution in first.executions if execution.started_at.date() >= day}
    assert {row["execution_id"] for row in rows_of(tmp_path, "executions")} == wanted
    assert [run_test["name"] for run_test in result.document["run_tests"]] == [first.name]
    assert unknown.exit_code == 2
    assert f"did you mean {second.name}?" in unknown.stderr


async def test_full_refresh_fetches_final_executions_and_dry_run_only_says_so(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    before, sent = data_files(tmp_path), len(server.requests)

    planned = await export(server, tmp_path, "--full-refresh", "--dry-run")
    assert len(server.requests) - sent == 3
    result = await export(server, tmp_path, "--full-refresh")

    assert planned.document["requests"] == 18 * 11
    assert result.document["requests"] == 3 + 18 * 11
    assert result.document["run_tests"][0]["reasons"] == {"requested": 6}
    changed = {path for path, content in data_files(tmp_path).items() if before[path] != content}
    assert {path.split("/")[1] for path in changed} == {"executions"}, "they say when they were verified"
    assert {row["export_run_id"] for row in rows_of(tmp_path, "executions")} == {result.document["export_run_id"]}
