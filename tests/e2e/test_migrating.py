"""``metrics-etl migrate``: a dataset of days becomes one of months, in one go or killed a hundred times."""

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest

import etl
from etl.load.layout import Layout
from etl.pipeline import job
from etl.sandbox import Sandbox
from tests.datasets import assert_sound
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.e2e.dying import fork_server, kinds_of_steps, run_dying
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import settings_for
from tests.worlds import settled_world

BARE = environment()


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=2, executions=6, calls=2, days=50)) as running:
        yield running


@pytest.fixture
async def folder(server: Sandbox, tmp_path: Path) -> Path:
    """A dataset that began in the layout of days: a run goes on with it."""
    folder = tmp_path / "by-day"
    (folder / "data" / "runs" / "date=2026-01-01").mkdir(parents=True)
    (folder / "data" / "runs" / "date=2026-01-01" / "20260101T000000Z-0.parquet").write_bytes(b"")
    write_settings(folder, [run_test.name for run_test in server.world.run_tests])
    summary = await job.export(settings_for(server, folder / "data"), clock=lambda: datetime(2026, 11, 2, tzinfo=UTC))
    assert (summary.exit_code, summary.layout) == (0, Layout.BY_DAY)
    assert ["metrics-etl migrate makes them monthly" in notice for notice in summary.notices] == [True]
    (folder / "data" / "runs" / "date=2026-01-01" / "20260101T000000Z-0.parquet").unlink()
    return folder


async def test_warehouse_of_a_dataset_of_days_is_told_to_migrate_before_and_after(
    server: Sandbox, folder: Path
) -> None:
    names = [run_test.name for run_test in server.world.run_tests]
    write_settings(folder, names, "[warehouse]", 'url = "duckdb://metrics.duckdb"')
    commands = ("check", "run", "status", "migrate", "status", "load", "check")
    check, run, status, *after = [await metrics_etl(each, cwd=folder, env=environment(server)) for each in commands]

    assert (check.exit_code, run.exit_code) == (6, 6)
    assert "it has a folder for each day: run metrics-etl migrate" in check.stdout
    assert "run metrics-etl migrate" in status.stdout.splitlines()[0]
    assert [each.exit_code for each in after] == [0, 0, 0, 0]
    assert after[1].stdout.splitlines()[-1] == "next       metrics-etl load"


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder / "data").as_posix() for path in (folder / "data").rglob("*=*/*.parquet"))


async def test_run_goes_on_by_day_until_it_is_migrated_and_by_month_afterwards(server: Sandbox, folder: Path) -> None:
    asked = len(server.requests)
    night, next_night = [await metrics_etl("run", "--json", cwd=folder, env=environment(server)) for _ in range(2)]
    assert (night.exit_code, len(server.requests) - asked) == (0, 4)
    assert [each.document["notices"] for each in (night, next_night)] == [[], []]
    before = files_of(folder)
    assert all("/date=" in path for path in before)
    assert len(before) > 20

    result = await metrics_etl("migrate", cwd=folder, env=BARE)

    assert result.exit_code == 0
    assert result.stdout == f"{len(before)} files with daily rows, now {len(files_of(folder))} with monthly rows\n"
    assert [path for path in files_of(folder) if "/date=" in path] == []
    assert_equals_world(folder, server.world)
    assert (await metrics_etl("verify", cwd=folder, env=BARE)).exit_code == 0
    again = await metrics_etl("migrate", cwd=folder, env=BARE)
    assert (again.exit_code, again.stdout, again.stderr) == (0, "the dataset already has monthly folders\n", "")
    asked = len(server.requests)
    night = await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))
    assert (night.exit_code, len(server.requests) - asked) == (0, 2), "nothing is fetched again"
    assert [path for path in files_of(folder) if "/date=" in path] == []
    assert len(rows_of(folder, "runs")) == 4


@pytest.mark.parametrize("kills", [2, pytest.param(100, marks=pytest.mark.slow)])
async def test_migration_that_is_killed_loses_and_doubles_nothing(server: Sandbox, folder: Path, kills: int) -> None:
    context, before = fork_server(), assert_sound(folder / "data")
    whole = Path(shutil.copytree(folder, folder.parent / "whole"))
    assert await run_dying(context, whole, BARE, command="migrate") == 0, (whole / "stderr").read_text()
    assert assert_sound(whole / "data") == before
    steps = len(kinds_of_steps(whole))

    has_doubled = False
    for kill in range(kills):
        killed = Path(shutil.copytree(folder, folder.parent / "killed"))
        assert await run_dying(context, killed, BARE, at=kill * steps // kills, command="migrate") == -9
        ids = [row["execution_id"] for row in rows_of(killed, "executions")]
        told = (await metrics_etl("status", cwd=killed, env=BARE)).stdout
        assert "stand twice" in told or len(ids) == len({*ids})
        has_doubled |= len(ids) > len({*ids})
        # A run in between goes on with what it finds, and so does the next migration.
        if kill % 2:
            assert (await metrics_etl("run", "--quiet", cwd=killed, env=environment(server))).exit_code == 0
            assert_equals_world(killed, server.world)
        assert await run_dying(context, killed, BARE, command="migrate") == 0, (killed / "stderr").read_text()
        assert_equals_world(killed, server.world)
        assert (await metrics_etl("verify", cwd=killed, env=BARE)).exit_code == 0
        assert [path for path in files_of(killed) if "/date=" in path] == []
        shutil.rmtree(killed)
    assert has_doubled, "else the law was not tried"


async def test_dataset_by_day_is_read_by_its_own_statements_and_by_the_same_functions(
    server: Sandbox, folder: Path
) -> None:
    statement = await metrics_etl("schema", "calls", "--ddl", "duckdb", "--by-day", cwd=folder, env=BARE)
    days = set(read_calls(folder)["execution_started_at"].dt.date)
    with duckdb.connect() as connection:
        connection.execute(f"SET file_search_path = '{folder}'; {statement.stdout}")
        found = connection.sql("SELECT DISTINCT date FROM calls WHERE date IS NOT NULL").fetchall()
        assert {day for (day,) in found} == days
    before = read_calls(folder)
    assert set(before["date"]) == days
    since = sorted(days)[len(days) // 2]
    some = etl.read_calls(folder / "data", since=since)
    assert (await metrics_etl("migrate", cwd=folder, env=BARE)).exit_code == 0
    assert read_calls(folder).equals(before)
    assert set(etl.read_calls(folder / "data", since=since)["call_execution_id"]) == set(some["call_execution_id"])


def read_calls(folder: Path) -> pd.DataFrame:
    calls: pd.DataFrame = etl.read_calls(folder / "data")
    return calls.sort_values("call_execution_id", ignore_index=True)
