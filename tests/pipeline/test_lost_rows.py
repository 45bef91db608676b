"""Rows that a run left and that are gone: exported again, or a problem of every run until they are back or accepted."""

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etl.inspect.status import read_status
from etl.inspect.verdict import judge
from etl.load.files.local import LocalFiles
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Sandbox, delete_execution
from tests.e2e.truth import assert_equals_world
from tests.support import settings_for
from tests.worlds import settled_world

EXECUTIONS = 6
NIGHT, DAY = datetime(2026, 11, 5, 2, tzinfo=UTC), timedelta(days=1)


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=2, executions=EXECUTIONS, calls=2, days=3)) as running:
        yield running


@pytest.fixture
def first(server: Sandbox) -> str:
    return server.world.run_tests[0].name


async def night(
    server: Sandbox, folder: Path, number: int, *, only: list[str] | None = None, accept_deletions: bool = False
) -> Summary:
    settings = settings_for(server, folder / "data")
    settings = settings.only(only) if only else settings
    return await job.export(settings, accept_deletions=accept_deletions, clock=lambda: NIGHT + number * DAY)


def lose(folder: Path, run_test: str) -> None:
    """Move away what the dataset holds of the run test."""
    for table in ("executions", "calls", "evals"):
        for each in (folder / "data" / table).glob(f"run_test={run_test}*"):
            shutil.move(each, folder / f"{table}.{each.name}")


def restore(folder: Path) -> None:
    for each in folder.glob("*.run_test=*"):
        table, _, name = each.name.partition(".")
        shutil.move(each, folder / "data" / table / name)


def is_good(folder: Path, number: int) -> bool:
    now = NIGHT + number * DAY + timedelta(hours=1)
    return judge(read_status(LocalFiles(folder / "data"), now=now)).is_good


def lost(summary: Summary) -> list[tuple[str, int]]:
    told = [problem for problem in summary.problems if "are gone" in problem]
    assert len(told) == len(summary.lost)
    return list(summary.lost.values())


async def test_lost_rows_that_a_run_does_not_export_are_its_problem_until_one_does(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    for number in (1, 2):
        narrowed = await night(server, tmp_path, number, only=[first])
        assert (narrowed.exit_code, lost(narrowed)) == (3, [("Support triage", EXECUTIONS)])
        assert not is_good(tmp_path, number)
    whole = await night(server, tmp_path, 3)

    assert (whole.exit_code, lost(whole), is_good(tmp_path, 3)) == (0, [], True)
    assert_equals_world(tmp_path, server.world)


async def test_lost_rows_of_what_is_deleted_at_the_source_are_missed_until_they_are_restored(
    server: Sandbox, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    for execution in server.world.run_tests[1].executions:
        delete_execution(execution)
    for number in (1, 2):
        assert (await night(server, tmp_path, number)).exit_code == 3
    restore(tmp_path)
    back = await night(server, tmp_path, 3, accept_deletions=True)

    assert (back.exit_code, back.forgotten, is_good(tmp_path, 3)) == (0, 0, True)


async def test_lost_rows_that_are_accepted_are_forgotten(server: Sandbox, first: str, tmp_path: Path) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    for execution in server.world.run_tests[1].executions:
        delete_execution(execution)
    narrowed = await night(server, tmp_path, 1, only=[first], accept_deletions=True)
    accepted = await night(server, tmp_path, 2, accept_deletions=True)
    after = await night(server, tmp_path, 3)

    assert (narrowed.exit_code, lost(narrowed)) == (3, [("Support triage", EXECUTIONS)]), "it is not of this run"
    assert (accepted.exit_code, accepted.forgotten, after.exit_code, is_good(tmp_path, 3)) == (0, EXECUTIONS, 0, True)
    assert any("forgotten" in notice for notice in accepted.notices)


async def test_lost_rows_from_before_since_are_missed(server: Sandbox, first: str, tmp_path: Path) -> None:
    run_tests = [{"name": first, "since": "2030-01-01"}]
    await night(server, tmp_path, 0)
    lose(tmp_path, "checkout")
    later = await job.export(settings_for(server, tmp_path / "data", run_tests=run_tests), clock=lambda: NIGHT + DAY)
    assert (later.exit_code, lost(later)) == (3, [("Checkout flow", EXECUTIONS)])
    assert later.last_complete_at[later.run_tests[0].key] != later.finished_at


async def test_rows_that_were_lost_and_come_again_do_not_settle_anew(server: Sandbox, tmp_path: Path) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    await night(server, tmp_path, 1)
    assert (await night(server, tmp_path, 2)).requests == 2


async def test_memory_of_lost_rows_outlives_a_run_that_cannot_read_the_last_summary(
    server: Sandbox, first: str, tmp_path: Path
) -> None:
    await night(server, tmp_path, 0)
    lose(tmp_path, "support")
    await night(server, tmp_path, 1, only=[first])
    (tmp_path / "data" / "_state" / "last_run.json").unlink()
    assert not is_good(tmp_path, 1)
    assert lost(await night(server, tmp_path, 2, only=[first])) == [("Support triage", EXECUTIONS)]
