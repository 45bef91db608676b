"""A client whose clock is wrong: times of the source are compared with the source's clock."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from etl.compare.comparison import compare
from etl.dataset.last_run import last_load_into
from etl.files.local import LocalFiles
from etl.inspect.read_status import read_status
from etl.pipeline import context, job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox
from etl.sandbox.world import SimulatedRunTest, add_run_test
from etl.settings.results import Compare
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import settings_for
from tests.worlds import a_sandbox

ENDED = datetime(2026, 10, 30, 15, tzinfo=UTC)
Export = Callable[..., Any]
server = a_sandbox(run_tests=1, executions=6, calls=3, days=1)


@pytest.fixture
def export(server: Sandbox, tmp_path: Path) -> Export:
    """An export at a time by the source's clock, from a client whose clock is ``ahead``."""

    async def run(at: datetime, *, ahead: timedelta = timedelta(0), **export: Any) -> Summary:
        date = Fault(headers={"Date": format_datetime(datetime.now(UTC) - ahead, usegmt=True)})
        server.fault = lambda _request, _nth: date
        settings = settings_for(server, tmp_path / "data", export=export)
        return await job.export(settings, clock=lambda: at + ahead)

    return run


def column(folder: Path, name: str) -> list[Any]:
    return [row[name] for row in rows_of(folder, "executions")]


DAY, YEAR = timedelta(days=1), timedelta(days=365)


@pytest.mark.parametrize(("ahead", "has_end"), [(2 * DAY, True), (YEAR, False)])
async def test_clock_that_is_ahead_makes_nothing_final_early(
    server: Sandbox, export: Export, tmp_path: Path, ahead: timedelta, *, has_end: bool
) -> None:
    if not has_end:
        for execution in server.world.run_tests[0].executions:
            execution.completed_at = None
    first = ENDED + timedelta(hours=2)
    for at in (first, first + timedelta(hours=3)):
        summary = await export(at, ahead=ahead, settle_hours=48)
        assert (summary.exit_code, set(column(tmp_path, "export_state"))) == (0, {"settling"})
    assert abs(summary.finished_at - at) < timedelta(minutes=1)
    assert max(column(tmp_path, "exported_at")) <= at

    server.world.run_tests[0].executions[0].calls[0].total_cost_cents = 77
    for night in (2, 4):
        await export(first + night * DAY, settle_hours=48)
    assert set(column(tmp_path, "export_state")) == {"exported"}
    assert_equals_world(tmp_path, server.world)


async def test_clock_that_is_set_before_the_first_answer_makes_nothing_final_early(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a boot with a wrong hardware clock. Only root could set the real one, for all programs."""
    ahead = 30 * DAY

    class Clock:
        @staticmethod
        def now(tz: tzinfo) -> datetime:
            return datetime.now(tz) + ahead

    def set_right(_request: Any) -> None:
        nonlocal ahead
        ahead = timedelta(0)

    for execution in server.world.run_tests[0].executions:
        execution.completed_at = datetime.now(UTC) - timedelta(hours=14)
    monkeypatch.setattr(context, "datetime", Clock)
    server.on_request = set_right
    await job.export(settings_for(server, tmp_path / "data", export={"settle_hours": 24}))
    assert set(column(tmp_path, "export_state")) == {"settling"}
    assert abs(max(column(tmp_path, "exported_at")) - datetime.now(UTC)) < timedelta(minutes=2)


async def test_clock_that_is_behind_makes_final_what_has_settled(export: Export, tmp_path: Path) -> None:
    """As much later: by what the two say, the source's may as well be ahead."""
    for night in (1, 2, 3):
        await export(ENDED + night * DAY, ahead=-DAY)
    assert set(column(tmp_path, "export_state")) == {"exported"}


@pytest.mark.parametrize("ahead", [timedelta(hours=-20), timedelta(hours=20)], ids=["source ahead", "source behind"])
async def test_age_counts_from_the_clock_that_is_behind(export: Export, tmp_path: Path, ahead: timedelta) -> None:
    """If the source is ahead, its time comes once this machine's clock reaches it: the dataset gets no fresher."""
    here = ENDED + 4 * DAY
    summary = await export(here - ahead, ahead=ahead)
    counted = min(here, here - ahead)

    assert summary.exit_code == 0
    for hours in (1, 19, 21, 27, 45):
        now = here + timedelta(hours=hours)
        found = read_status(LocalFiles(tmp_path / "data"), now=now)
        assert found.complete_at is not None
        assert abs(found.complete_at - counted) < timedelta(minutes=1)
        assert found.verdict.is_good == (now - counted < timedelta(hours=26))


async def test_deletion_is_dated_by_the_source(server: Sandbox, export: Export, tmp_path: Path) -> None:
    await export(ENDED + 2 * DAY)
    server.world.run_tests[0].executions[0].is_deleted = True
    await export(ENDED + 3 * DAY, ahead=YEAR)
    rows = ds.dataset(tmp_path / "data" / "calls").to_table(columns=["deleted_at"]).to_pylist()
    times = {row["deleted_at"] for row in rows if row["deleted_at"]}
    assert times
    assert all(abs(deleted_at - (ENDED + 3 * DAY)) < timedelta(minutes=1) for deleted_at in times)


async def test_load_is_dated_by_the_clock_that_is_behind(server: Sandbox, tmp_path: Path) -> None:
    database, here = tmp_path / "metrics.duckdb", datetime.now(UTC)
    settings = settings_for(server, tmp_path / "data", warehouse={"url": f"duckdb://{database}"})
    date = Fault(headers={"Date": format_datetime(here - YEAR, usegmt=True)})
    server.fault = lambda _request, _nth: date
    files, place = LocalFiles(tmp_path / "data"), settings.warehouse.place or ""
    await job.export(settings, clock=lambda: here)
    loaded_at = last_load_into(files, place, here).loaded_at
    database.write_bytes(b"something else")
    await job.export(settings, clock=lambda: here + DAY)

    assert loaded_at is not None
    assert abs(loaded_at - (here - YEAR)) < timedelta(hours=1), "the source's clock"
    assert last_load_into(files, place, here).loaded_at == loaded_at


@pytest.mark.parametrize(("ahead", "is_right_again"), [(timedelta(minutes=4), True), (timedelta(hours=30), False)])
async def test_failure_of_the_newest_run_is_told_although_the_clock_of_the_source_was_ahead(
    server: Sandbox, tmp_path: Path, ahead: timedelta, *, is_right_again: bool
) -> None:
    """The run leaves no run test incomplete: nothing but its exit code tells of it."""

    async def run(at: datetime, ahead: timedelta) -> Summary:
        date = Fault(headers={"Date": format_datetime(datetime.now(UTC) + ahead, usegmt=True)})
        server.fault = lambda _request, _nth: date
        return await job.export(settings, clock=lambda: at)

    settings = settings_for(server, tmp_path / "data", run_tests="all")
    first = ENDED + 4 * DAY
    await run(first, ahead)
    await run(first + timedelta(hours=1), timedelta(0))
    odd = SimulatedRunTest(run_test_id="22222222-2222-4222-8222-222222222222", name="odd ", created_at=ENDED)
    add_run_test(server.world, odd)
    last = first + timedelta(hours=2)
    failed = await run(last, timedelta(0) if is_right_again else ahead)

    for hours in (1, 6, 23, 31):
        found = read_status(LocalFiles(tmp_path / "data"), now=last + timedelta(hours=hours), settings=settings)
        assert found.runs[0].export_run_id == failed.export_run_id
        assert not found.verdict.is_good


async def test_execution_that_began_after_it_was_exported_is_newest_nowhere(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """A few minutes are within what two correct clocks differ by."""
    at = ENDED + timedelta(hours=2)
    wrong, right, *_ = server.world.run_tests[0].executions
    wrong.started_at, right.started_at = datetime(2099, 1, 1, tzinfo=UTC), at + timedelta(minutes=4)
    files = LocalFiles(tmp_path / "data")
    for night in (at, at + DAY):
        await export(night)
        [run_test] = read_status(files, now=night).run_tests
        assert run_test.newest_started_at == right.started_at
        last = compare(files, "previous", "last", limits={}, rules=Compare()).candidate
        assert [each.execution_id for each in last.executions] == [right.execution_id]
