"""One export in this process, with a clock of its own and a destination that fails."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from etl.errors import DestinationError, ExitCode, InterruptedRunError
from etl.load import commit as commit_module
from etl.load import dataset as dataset_module
from etl.load.files.local import LocalFiles
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox, delete_execution, rerun_execution
from etl.transform import frames
from tests.support import settings_for
from tests.worlds import settled_world


def calls_in(dataset: Path) -> list[str]:
    ids: list[str] = ds.dataset(dataset / "calls").to_table()["call_execution_id"].to_pylist()
    return ids


async def test_execution_without_a_start_stays_in_the_partition_where_its_calls_were_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run fails between the calls and the execution row; the next one, a day later, must not put them there twice."""
    world = settled_world(run_tests=1, executions=1, calls=5)
    world.run_tests[0].executions[0].started_at = None  # type: ignore[assignment]
    publish, today = LocalFiles.publish, datetime.now(UTC)

    def fail_at_executions(files: LocalFiles, path: str, data: bytes) -> None:
        if path.startswith("executions/"):
            raise DestinationError(f"{path}: No space left on device")
        publish(files, path, data)

    async with Sandbox(world) as server:
        settings = settings_for(server, tmp_path / "data")
        monkeypatch.setattr(LocalFiles, "publish", fail_at_executions)
        failed = await job.export(settings, clock=lambda: today)
        monkeypatch.undo()
        healed = await job.export(settings, clock=lambda: today + timedelta(days=1))

    assert (failed.exit_code, healed.exit_code) == (6, 0)
    assert len(calls_in(tmp_path / "data")) == len(set(calls_in(tmp_path / "data"))) == 5


async def test_run_that_ends_before_it_has_a_plan_calls_nothing_complete(tmp_path: Path) -> None:
    """The list was read whole; then the key is refused while it asks for an execution that the list lacks."""
    world = settled_world(run_tests=1, executions=3, calls=2)
    async with Sandbox(world) as server:
        await job.export(settings_for(server, tmp_path / "data"))
        gone = world.run_tests[0].executions[0]
        delete_execution(gone)
        server.fault = lambda request, _nth: (
            Fault(status=401) if request.query.get("execution_id") == gone.execution_id else None
        )
        refused = await job.export(settings_for(server, tmp_path / "data"))

    assert (refused.exit_code, refused.run_tests[0].is_whole) == (4, False)


async def test_run_test_of_which_a_waiting_row_could_not_be_saved_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = settled_world(run_tests=1, executions=1, calls=2)
    rerun_execution(world.run_tests[0].executions[0], datetime.now(UTC))

    def fail_at_executions(files: LocalFiles, path: str, data: bytes) -> None:
        if path.startswith("executions/"):
            raise DestinationError(f"{path}: No space left on device")
        publish(files, path, data)

    publish = LocalFiles.publish
    monkeypatch.setattr(LocalFiles, "publish", fail_at_executions)
    async with Sandbox(world) as server:
        failed = await job.export(settings_for(server, tmp_path / "data"))

    assert (failed.exit_code, failed.run_tests[0].reasons) == (6, {"waiting": 1})
    assert not failed.run_tests[0].is_whole


async def test_a_bug_is_recorded_and_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.load.commit.calls_frame", lambda *_: 1 / 0)
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1)) as server:
        with pytest.raises(ZeroDivisionError):
            await job.export(settings_for(server, tmp_path / "data"))

    (row,) = ds.dataset(tmp_path / "data" / "runs").to_table().to_pylist()
    assert (row["outcome"], row["exit_code"], row["message"]) == (
        "error",
        1,
        "a bug: ZeroDivisionError: division by zero",
    )


async def test_nothing_of_a_commit_is_done_in_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it would hold up the crawl, signals and the time limit: into a large file it takes seconds."""
    done_by: dict[str, set[int]] = {}

    def note(owner: Any, name: str) -> None:
        work = getattr(owner, name)

        def noted(*given: Any, **options: Any) -> Any:
            done_by.setdefault(name, set()).add(threading.get_ident())
            return work(*given, **options)

        monkeypatch.setattr(owner, name, noted)

    parts: list[tuple[Any, str]] = [
        (commit_module, "calls_frame"),
        (commit_module, "executions_frame"),
        (commit_module, "held_rows"),
    ]
    parts += [(dataset_module, "merge"), (dataset_module, "encode"), (LocalFiles, "read"), (LocalFiles, "publish")]
    async with Sandbox(settled_world(run_tests=1, executions=2, calls=2)) as server:
        await job.export(settings_for(server, tmp_path / "data"))
        for part in parts:
            note(*part)
        server.world.run_tests[0].executions[1].calls[1].total_cost_cents = 77
        await job.export(settings_for(server, tmp_path / "data"), full_refresh=True)

    assert done_by.keys() == {name for _, name in parts}
    assert threading.get_ident() not in set().union(*done_by.values())


async def test_run_that_is_stopped_during_a_commit_counts_what_it_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, stop, errors_frame = asyncio.get_running_loop(), asyncio.Future[InterruptedRunError](), frames.errors_frame

    async def stop_and_let_the_loop_turn() -> None:
        stop.set_result(InterruptedRunError("stop", exit_code=ExitCode.SIGTERM))
        for _ in range(20):  # turns, in which the crawl is cancelled
            await asyncio.sleep(0)

    def stop_meanwhile(*given: Any) -> Any:
        asyncio.run_coroutine_threadsafe(stop_and_let_the_loop_turn(), loop).result()
        return errors_frame(*given)

    monkeypatch.setattr(commit_module, "errors_frame", stop_meanwhile)
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=3)) as server:
        settings = settings_for(server, tmp_path / "data")
        settings = settings.model_copy(
            update={"export": settings.export.model_copy(update={"commit_interval_seconds": 0})}
        )
        summary = await job.export(settings, stop=stop)

    assert (summary.exit_code, summary.run_tests[0].calls, summary.run_tests[0].missed) == (143, 3, 0)
    assert len(calls_in(tmp_path / "data")) == 3


async def test_rows_count_what_is_new_or_changed_not_what_was_fetched(tmp_path: Path) -> None:
    world = settled_world(run_tests=1, executions=3, calls=4)
    async with Sandbox(world) as server:
        settings = settings_for(server, tmp_path / "data")
        await job.export(settings)
        world.run_tests[0].executions[1].calls[2].total_cost_cents = 77
        summary = await job.export(settings, full_refresh=True)

    assert summary.run_tests[0].calls == 12
    assert summary.rows == {"calls": 1, "executions": 1}


async def test_a_night_in_which_nothing_changed_reads_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the run test that is exported and of the others, whose executions might belong to it now."""
    async with Sandbox(settled_world(run_tests=2, executions=6, calls=2)) as server:
        everything = settings_for(server, tmp_path / "data")
        await job.export(everything)
        paths = [path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("part-0.parquet")]
        read, reads = LocalFiles.read, list[str]()

        def read_and_note(files: LocalFiles, path: str) -> bytes:
            reads.append(path)
            return read(files, path)

        monkeypatch.setattr(LocalFiles, "read", read_and_note)
        for settings in (everything, everything.only([server.world.run_tests[0].name])):
            reads.clear()
            assert (await job.export(settings)).exit_code == 0
            assert sorted(reads) == sorted(["_state/last_run.json", *paths])


async def test_text_of_a_plan_does_not_grow_with_what_it_lists(tmp_path: Path) -> None:
    """``asyncio.Runner`` makes one of every result, to cut it: of 100,000 executions it takes 200 MB."""
    async with Sandbox(settled_world(run_tests=1, executions=3, calls=1)) as server:
        plan = await job.plan(settings_for(server, tmp_path / "data"))
        assert len(plan.planned) == 3
        assert "execution_id" not in repr(plan)
