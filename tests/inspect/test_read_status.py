"""How a status is read from a dataset, whatever state it is in.

The verdict on it: ``test_status.py``; how it is shown: ``tests/e2e/test_status.py``.
"""

import asyncio
import shutil
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import etl
from etl.dataset.last_run import Attempt, update_last_run
from etl.files import local
from etl.files.local import LocalFiles
from etl.files.names import INDEX
from etl.inspect.read_status import read_status
from etl.inspect.status import Status
from etl.model.findings import Kind
from etl.model.keys import default_key
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox
from etl.sandbox.world import add_run_test
from tests.support import settings_for
from tests.warehouses import Place
from tests.worlds import a_sandbox, settled_world

NIGHT = datetime(2026, 11, 1, 2, tzinfo=UTC)
server = a_sandbox(run_tests=2, executions=6, calls=3, include_unfinished=True)


async def export(server: Sandbox, tmp_path: Path, *, night: int = 0, **options: Any) -> None:
    settings = settings_for(server, tmp_path / "data", api={"max_tries": 1}, **options)
    await job.export(settings, clock=lambda: NIGHT + timedelta(days=night))


def status_of(tmp_path: Path, *, now: datetime = NIGHT + timedelta(hours=5)) -> Status:
    return read_status(LocalFiles(tmp_path / "data"), now=now)


async def test_counts_are_those_of_the_tables(server: Sandbox, tmp_path: Path) -> None:
    """With executions that wait, settle, lack a call, were deleted."""
    first, second = server.world.run_tests
    await export(server, tmp_path)
    next(each for each in first.executions if each.completed_at).is_deleted = True
    poisoned = next(each for each in second.executions if each.completed_at)
    letters = {call.call_execution_id for call in poisoned.calls[:2]}
    for call in poisoned.calls[:3]:
        call.duration_seconds = 77.0
    poisoned.completed_calls += 1
    failure = Fault(status=500)
    server.fault = lambda request, _nth: failure if request.query.get("call_execution_id") in letters else None
    await export(server, tmp_path, night=1, export={"metrics": "calls"})

    found = status_of(tmp_path, now=NIGHT + timedelta(days=1, hours=5))

    tables = {name: all_rows(tmp_path, name) for name in ("executions", "calls", "evals", "errors", "runs")}
    assert {table.name: table.rows for table in found.tables} == {name: len(rows) for name, rows in tables.items()}
    sizes = [path.stat().st_size for path in (tmp_path / "data").rglob("*=*/*.parquet")]
    assert sum(table.size_bytes for table in found.tables) == sum(sizes)
    assert len(found.run_tests) == 2
    for run_test in found.run_tests:
        rows = [row for row in tables["executions"] if row["run_test"] == run_test.key]
        calls = [row for row in tables["calls"] if row["run_test"] == run_test.key and row["deleted_at"] is None]
        assert (run_test.executions, run_test.calls) == (len(rows), len(calls))
        assert run_test.exported_at == max(row["exported_at"] for row in rows)
    requests = {(row["export_run_id"], row["requests"], row["call_requests"]) for row in tables["runs"]}
    assert {(run.export_run_id, run.requests, run.call_requests) for run in found.runs} == requests
    assert all(call_requests for _, _, call_requests in requests)
    by_key = {run_test.key: run_test for run_test in found.run_tests}
    assert (by_key[default_key(first.name)].deleted, by_key[default_key(second.name)].incomplete) == (1, 1)
    assert by_key[default_key(first.name)].waiting >= 1
    assert by_key[default_key(first.name)].complete_at == NIGHT + timedelta(days=1)
    assert by_key[default_key(second.name)].complete_at == NIGHT
    (letters_given_up,) = found.findings
    assert (letters_given_up.kind, letters_given_up.subject) == (Kind.DEAD_LETTER, second.name)
    assert letters_given_up.text.startswith("2 requests failed: ")
    assert [run.exit_code for run in found.runs] == [3, 0]
    assert found.runs[0].message == str(letters_given_up)
    assert (found.complete_at, found.at_work) == (NIGHT, None)


async def test_rows_that_somebody_took_away_are_told_until_a_run_has_fetched_them(
    server: Sandbox, tmp_path: Path
) -> None:
    await export(server, tmp_path)
    good = status_of(tmp_path).verdict
    folder = min((tmp_path / "data" / "calls").iterdir())
    paths = [path.relative_to(tmp_path / "data").as_posix() for path in sorted(folder.rglob("*.parquet"))]
    shutil.rmtree(folder)
    found = status_of(tmp_path)
    again = await job.export(settings_for(server, tmp_path / "data"), clock=lambda: NIGHT)

    assert good.is_good
    assert [(each.kind, each.subject) for each in found.findings] == [(Kind.LOST_ROWS, path) for path in paths]
    assert found.verdict.text.startswith(f"Not good: '{paths[0]}': ")
    assert found.verdict.next_step == found.findings[0].kind.next_step
    assert again.exit_code == 0
    assert Kind.FETCHED_AGAIN in {each.kind for each in again.findings}
    assert status_of(tmp_path).verdict.is_good


async def test_what_the_index_knows_needs_no_file_and_without_it_nothing_else_is_told(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_TICK_NS", 0)  # as if the nights had been long ago
    await export(server, tmp_path)
    await export(server, tmp_path, night=1)
    files, opened = LocalFiles(tmp_path / "data"), list[str]()
    read = files.read

    def note(path: str, **bounds: Any) -> bytes:
        opened.append(path)
        return read(path, **bounds)

    monkeypatch.setattr(files, "read", note)
    monkeypatch.setattr(files, "open", opened.append)
    now = NIGHT + timedelta(days=2)

    from_index = read_status(files, now=now)

    assert not {path.partition("/")[0] for path in opened} & {"executions", "calls", "evals"}
    (tmp_path / "data" / INDEX).unlink()
    assert status_of(tmp_path, now=now) == from_index


async def test_runs_within_a_second_are_told_newest_first(server: Sandbox, tmp_path: Path) -> None:
    """The names of their files begin with the second and end at random."""
    second = datetime(2026, 11, 25, 2, tzinfo=UTC)
    times = [second + timedelta(milliseconds=number) for number in range(7)]
    for time in times:
        await job.export(settings_for(server, tmp_path / "data"), clock=iter([time] * 99).__next__)

    assert [run.started_at for run in status_of(tmp_path, now=times[-1]).runs] == times[::-1]


async def test_status_while_an_export_rewrites_everything_finds_nothing_wrong(server: Sandbox, tmp_path: Path) -> None:
    """Each look sees whole files, before or after."""
    await export(server, tmp_path)
    done = asyncio.Event()
    looks = 0

    async def look() -> None:
        nonlocal looks
        while not done.is_set():
            assert (await asyncio.to_thread(status_of, tmp_path)).findings == ()
            looks += 1

    async def rewrite() -> None:
        night = 0
        while night < 5 or looks < 2:
            night += 1
            for number, run_test in enumerate(server.world.run_tests):
                run_test.name = f"Name {night}-{number}"
            await export(server, tmp_path, night=night)
        done.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(look())
        group.create_task(rewrite())
    assert looks > 1


async def test_damaged_and_foreign_files_are_named_and_the_rest_is_counted(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    rows = len(all_rows(tmp_path, "calls"))
    damaged = min((tmp_path / "data" / "calls").rglob("*.parquet"))
    lost = pq.read_metadata(damaged).num_rows
    damaged.write_bytes(damaged.read_bytes()[:-8])
    (tmp_path / "data" / "evals" / "notes.parquet").write_text("mine")

    found = status_of(tmp_path)

    path = damaged.relative_to(tmp_path / "data").as_posix()
    named = [(each.kind, each.subject) for each in found.findings]
    assert named == [(Kind.UNREADABLE, path), (Kind.FOREIGN_FILE, "evals/notes.parquet")]
    assert next(each.rows for each in found.tables if each.name == "calls") == rows - lost
    assert found.verdict.text.startswith(f"Not good: '{path}': cannot be read: ")


async def test_damaged_record_of_a_run_is_set_aside_by_the_next_one_and_is_no_alarm(
    server: Sandbox, tmp_path: Path, in_duckdb: Place
) -> None:
    """Laws 3 and 9: no row of the source is in it, and no night needs it."""
    to_warehouse: dict[str, Any] = {"warehouse": in_duckdb.settings}
    await export(server, tmp_path, **to_warehouse)
    await export(server, tmp_path, night=1, **to_warehouse)
    first, second = sorted((tmp_path / "data" / "runs").rglob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-8])
    now = NIGHT + timedelta(days=2, hours=5)
    damaged = status_of(tmp_path, now=now)
    settings = settings_for(server, tmp_path / "data", **to_warehouse)
    summary = await job.export(settings, clock=lambda: NIGHT + timedelta(days=2))
    healed = status_of(tmp_path, now=now)

    path = first.relative_to(tmp_path / "data").as_posix()
    assert [(each.kind, each.is_alarm) for each in damaged.findings] == [(Kind.DOCUMENT_SET_ASIDE, False)]
    assert damaged.findings[0].subject == path
    assert (summary.exit_code, summary.load_failure) == (0, None)
    assert [each.kind for each in summary.findings] == [Kind.DOCUMENT_SET_ASIDE]
    assert (healed.findings, healed.set_aside, first.exists(), second.exists()) == ((), 1, False, True)
    assert healed.verdict.is_good
    assert len(all_rows(tmp_path, "runs")) == 2


async def test_file_of_a_newer_version_is_counted_all_the_same(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    before = status_of(tmp_path)
    path = min((tmp_path / "data" / "executions").rglob("*.parquet"))
    rows = pq.ParquetFile(path).read()
    pq.write_table(rows.append_column("mood", pa.nulls(len(rows), pa.string())), path)
    found = status_of(tmp_path)
    assert [each.executions for each in found.run_tests] == [each.executions for each in before.run_tests]
    assert found.findings == ()


# a run that was lost, or could not say how it ended


async def test_run_that_begins_while_status_reads_is_not_a_lost_one(server: Sandbox, tmp_path: Path) -> None:
    await job.export(settings_for(server, tmp_path / "data"))
    now = datetime.now(UTC) + timedelta(seconds=2)

    class BeginsLate(LocalFiles):
        def lock_holder(self) -> str | None:
            holder = super().lock_holder()
            if not begun.is_set():
                begun.set()
                export.enter_context(LocalFiles(self.root).lock(now))
                update_last_run(self, {"attempt": Attempt(started_at=now, export_run_id="a")})
            return holder

    with ExitStack() as export:
        begun = asyncio.Event()
        found = read_status(BeginsLate(tmp_path / "data"), now=now)

    assert found.verdict.text.startswith("Good")


async def test_other_settings_files_of_the_dataset_make_a_status_neither_fresh_nor_stale(
    server: Sandbox, tmp_path: Path
) -> None:
    """Law 9: a scope has its own alarms. Whatever becomes of the runs over another one, also of one that was killed."""
    mine, theirs = ([each.name] for each in server.world.run_tests)

    def told(names: list[str], *, day: int) -> Status:
        settings = settings_for(server, tmp_path / "data", run_tests=names)
        now = NIGHT + timedelta(days=day, hours=5)
        return read_status(LocalFiles(tmp_path / "data"), now=now, settings=settings)

    await export(server, tmp_path, run_tests=mine)
    for night, status in ((0, None), (1, 500), (1, 401), (1, None)):
        server.fault = lambda _request, _nth, status=status: Fault(status=status) if status else None
        await export(server, tmp_path, run_tests=theirs, night=night)
        verdict = told(mine, day=0).verdict
        assert verdict.text == "Good: the last complete export was 5 h ago"
        other = told(theirs, day=night).verdict
        assert other.is_good is (status is None)
        assert status != 401 or other.text.startswith("Not good: the API refused the key (401 on ")
    killed = Attempt(started_at=NIGHT, export_run_id="killed")
    scope = settings_for(server, tmp_path / "data", run_tests=theirs).scope
    update_last_run(LocalFiles(tmp_path / "data"), {"scope": scope, "attempt": killed})

    assert told(mine, day=0).verdict.is_good
    assert told(theirs, day=1).lost_run == killed
    assert [each.kind for each in told(theirs, day=1).findings] == [Kind.RUN_LOST]
    stale = told(mine, day=2).verdict
    assert stale.text == "Not good: the last complete export was 2 days ago"
    await export(server, tmp_path, run_tests=[*mine, *theirs], night=2)
    assert told([*mine, *theirs], day=2).complete_at == NIGHT + timedelta(days=2)
    assert told(mine, day=2).verdict == stale


async def test_narrowed_run_does_not_hide_what_is_wrong_with_the_list_of_run_tests(
    server: Sandbox, tmp_path: Path
) -> None:
    settings = settings_for(server, tmp_path / "data", run_tests="all")
    await job.export(settings)
    add_run_test(server.world, settled_world(seed=3, names=["Cannot be listed "], executions=1).run_tests[0])
    whole = await job.export(settings)
    narrowed = [await job.export(settings.only([server.world.run_tests[0].name])) for _ in range(2)]
    found = status_of(tmp_path, now=datetime.now(UTC))
    server.world.run_tests.pop()
    healed = await job.export(settings)

    assert [run.exit_code for run in (whole, *narrowed, healed)] == [3, 0, 0, 0]
    assert found.verdict.text.startswith("Not good: the last run over all run tests could not list them all")
    assert status_of(tmp_path, now=datetime.now(UTC)).verdict.is_good


async def test_first_day_of_all_run_tests_counts_as_complete_until_it_moves_back(
    server: Sandbox, tmp_path: Path
) -> None:
    days = sorted(execution.created_at.date() for test in server.world.run_tests for execution in test.executions)
    data = tmp_path / "data"
    for day, rows in ((days[-2], sum(each >= days[-2] for each in days)), (None, len(days))):
        settings = settings_for(server, data, run_tests="all", export={"since": day})
        assert day or etl.status(settings).complete_at is None
        assert (await job.export(settings)).exit_code == 0
        assert etl.status(settings).verdict.is_good
        assert ds.dataset(data / "executions").count_rows() == rows


async def test_run_that_could_not_write_its_row_is_told_with_its_reason(server: Sandbox, tmp_path: Path) -> None:
    """As in a folder ``runs`` that may not be written."""
    await export(server, tmp_path, night=-1)
    (tmp_path / "data" / "runs" / f"month={NIGHT:%Y-%m}").write_text("in the way")
    summary = await job.export(settings_for(server, tmp_path / "data"), clock=lambda: NIGHT)

    found = status_of(tmp_path)
    verdict = found.verdict

    assert (summary.exit_code, found.lost_run) == (6, None)
    assert (found.runs[0].export_run_id, found.runs[0].exit_code) == (summary.export_run_id, 6)
    assert found.runs[0].message == "\n".join(summary.problems)
    assert (verdict.is_good, verdict.next_step) == (False, "metrics-etl check, then metrics-etl run")
    assert [each.is_complete for each in found.run_tests] == [False, False]


def all_rows(folder: Path, table: str) -> list[dict[str, Any]]:
    """Those that the source no longer has, too."""
    rows: list[dict[str, Any]] = ds.dataset(folder / "data" / table, partitioning="hive").to_table().to_pylist()
    return rows
