"""What docs/operations.md promises of a dataset that is copied, moved, lost in part, or exported again."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from etl.sandbox import Sandbox
from tests.datasets import assert_sound
from tests.e2e.command import Ended, environment, metrics_etl, write_settings
from tests.e2e.truth import assert_equals_world
from tests.worlds import settled_world


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=2, executions=3, calls=4)) as running:
        yield running


async def export(server: Sandbox, folder: Path, *arguments: str) -> Ended:
    write_settings(folder, [run_test.name for run_test in server.world.run_tests])
    return await metrics_etl("run", "--json", *arguments, cwd=folder, env=environment(server))


def reasons_told(result: Ended) -> list[dict[str, int]]:
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, int]] = [run_test["reasons"] for run_test in result.document["run_tests"]]
    return found


def keys(result: Ended) -> list[str]:
    found: list[Any] = [run_test["key"] for run_test in result.document["run_tests"]]
    return found


def files_of_run_test(folder: Path, key: str) -> dict[str, tuple[int, bytes]]:
    paths = (folder / "data").glob(f"*/run_test={key}/*/*.parquet")
    return {str(path): (path.stat().st_ino, path.read_bytes()) for path in paths}


@pytest.mark.parametrize("left_out", [(), ("_state",), ("_state", "runs", "errors")])
async def test_copied_dataset_goes_on_without_fetching_anything_again(
    left_out: tuple[str, ...], server: Sandbox, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    await export(server, here)
    shutil.copytree(here / "data", there / "data", ignore=shutil.ignore_patterns(*left_out))
    sent = len(server.requests)

    result = await export(server, there)

    assert reasons_told(result) == [{"final": 3}] * 2
    assert len(server.requests) - sent == 2
    assert_equals_world(there, server.world)


@pytest.mark.parametrize(
    ("lost", "reason"), [("executions", "new"), ("calls", "damaged"), ("evals", "damaged"), ("*", "new")]
)
async def test_what_a_copy_lacks_is_fetched_again_and_nothing_else(
    lost: str, reason: str, server: Sandbox, tmp_path: Path
) -> None:
    """Also how to export one run test anew: remove its folders."""
    first, second = keys(await export(server, tmp_path))
    kept = files_of_run_test(tmp_path, second)
    for folder in (tmp_path / "data").glob(f"{lost}/run_test={first}"):
        shutil.rmtree(folder)

    result = await export(server, tmp_path)

    assert reasons_told(result) == [{reason: 3}, {"final": 3}]
    assert files_of_run_test(tmp_path, second) == kept
    assert_sound(tmp_path / "data")
    assert_equals_world(tmp_path, server.world)


async def test_one_run_test_is_exported_again_and_files_of_equal_rows_stay(server: Sandbox, tmp_path: Path) -> None:
    first, second = keys(await export(server, tmp_path))
    calls = {
        path: content for path, content in files_of_run_test(tmp_path, first).items() if "/executions/" not in path
    }
    kept, sent = files_of_run_test(tmp_path, second), len(server.requests)

    result = await export(server, tmp_path, "--run-test", first, "--full-refresh")

    assert reasons_told(result) == [{"requested": 3}]
    assert len(server.requests) - sent == 1 + 3 * (1 + 4)
    assert files_of_run_test(tmp_path, second) == kept
    assert {path: content for path, content in files_of_run_test(tmp_path, first).items() if path in calls} == calls
    assert_equals_world(tmp_path, server.world)


async def test_backfill_in_parts_fetches_nothing_twice(server: Sandbox, tmp_path: Path) -> None:
    """``--since`` first, the whole history later."""
    days = sorted(
        execution.started_at.date() for run_test in server.world.run_tests for execution in run_test.executions
    )
    recent = await export(server, tmp_path, "--since", days[3].isoformat())
    rest = await export(server, tmp_path)

    fetched = [sum(each.get("new", 0) for each in reasons_told(result)) for result in (recent, rest)]
    assert fetched == [sum(day >= days[3] for day in days), sum(day < days[3] for day in days)]
    assert sum("call_execution_id" in request.query for request in server.requests) == 2 * 3 * 4
    assert_equals_world(tmp_path, server.world)
