"""One export in this process, with a clock of its own and a destination that fails."""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from etl.dataset import commit as commit_module
from etl.dataset import parts as dataset_module
from etl.errors import DestinationError, ExitCode, InterruptedRunError
from etl.files import local
from etl.files.local import LocalFiles
from etl.files.names import INDEX
from etl.model import schema
from etl.model.findings import Kind
from etl.pipeline import apply, job
from etl.sandbox import Fault, Sandbox, rerun_execution
from etl.transform import frames
from tests.support import settings_for
from tests.worlds import settled_world


def calls_in(dataset: Path) -> list[str]:
    ids: list[str] = ds.dataset(dataset / "calls").to_table()["call_execution_id"].to_pylist()
    return ids


async def test_run_that_ends_before_it_has_a_plan_calls_nothing_complete(tmp_path: Path) -> None:
    """The list was read whole; then the key is refused while it asks for an execution that the list lacks."""
    world = settled_world(run_tests=1, executions=3, calls=2)
    async with Sandbox(world) as server:
        await job.export(settings_for(server, tmp_path / "data"))
        gone = world.run_tests[0].executions[0]
        gone.is_deleted = True
        server.fault = lambda request, _nth: (
            Fault(status=401) if request.query.get("execution_id") == gone.execution_id else None
        )
        refused = await job.export(settings_for(server, tmp_path / "data"))

    assert (refused.exit_code, refused.run_tests[0].is_complete) == (4, False)


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
    assert not failed.run_tests[0].is_complete


async def test_a_bug_is_recorded_and_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.dataset.commit.calls_frame", lambda *_: 1 / 0)
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1)) as server:
        with pytest.raises(ZeroDivisionError):
            await job.export(settings_for(server, tmp_path / "data"))

    (row,) = ds.dataset(tmp_path / "data" / "runs").to_table().to_pylist()
    assert (row["outcome"], row["exit_code"]) == ("error", 1)
    assert "please report it: ZeroDivisionError: division by zero" in row["message"]


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


class Stop:
    """Stops a run from the thread in which it does something, and lets it go on when the run was cancelled."""

    def __init__(self) -> None:
        self.signal = asyncio.Future[InterruptedRunError]()
        self._loop = asyncio.get_running_loop()

    def before(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def stop_and_work(*given: Any, **options: Any) -> Any:
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
            return work(*given, **options)

        return stop_and_work

    async def _stop(self) -> None:
        if not self.signal.done():
            self.signal.set_result(InterruptedRunError("stop", exit_code=ExitCode.SIGTERM))
        for _ in range(20):  # turns of the loop, in which the run is cancelled
            await asyncio.sleep(0)


async def test_run_that_is_stopped_during_a_commit_counts_what_it_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    monkeypatch.setattr(commit_module, "errors_frame", stop.before(frames.errors_frame))
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=3)) as server:
        settings = settings_for(server, tmp_path / "data", export={"commit_interval_seconds": 1e-9})
        summary = await job.export(settings, stop=stop.signal)

    assert (summary.exit_code, summary.run_tests[0].calls, summary.run_tests[0].missed) == (143, 3, 0)
    assert len(calls_in(tmp_path / "data")) == 3


async def test_run_that_is_stopped_while_it_marks_deletions_says_what_it_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, events = Stop(), list[str]()
    async with Sandbox(settled_world(run_tests=1, executions=30, calls=1)) as server:
        settings = settings_for(server, tmp_path / "data")
        await job.export(settings)
        for execution in server.world.run_tests[0].executions[:2]:
            execution.is_deleted = True
        monkeypatch.setattr(apply, "mark_deleted", stop.before(commit_module.mark_deleted))
        summary = await job.export(settings, stop=stop.signal, notify=lambda event, **_: events.append(event))

    assert (summary.exit_code, summary.run_tests[0].deleted) == (143, 2)
    assert "deleted" in events


async def test_files_of_an_older_version_are_completed_before_the_api_is_asked(tmp_path: Path) -> None:
    """A file that cannot be completed must cost no request."""
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1)) as server:
        settings = settings_for(server, tmp_path / "data")
        await job.export(settings)
        for path in (tmp_path / "data" / "calls").rglob("*.parquet"):
            pq.write_table(pq.ParquetFile(path).read().drop_columns(["raw"]), path)
        server.fault = lambda _request, _nth: Fault(status=401)
        refused = await job.export(settings)

    assert (refused.exit_code, [each.kind for each in refused.findings]) == (4, [Kind.COLUMNS_ADDED])


async def test_a_night_in_which_nothing_changed_reads_no_part_and_one_without_its_index_each_part_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the run test that is exported and of the others, whose executions might belong to it now."""
    async with Sandbox(settled_world(run_tests=2, executions=6, calls=2)) as server:
        everything = settings_for(server, tmp_path / "data")
        monkeypatch.setattr(local, "_TICK_NS", 0)  # else a part that was written a moment ago is read again
        await job.export(everything)
        paths = [path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("part-0.parquet")]
        read, reads = LocalFiles.read, list[str]()

        def read_and_note(files: LocalFiles, path: str, **bounds: int) -> bytes:
            reads.append(path)
            return read(files, path, **bounds)

        monkeypatch.setattr(LocalFiles, "read", read_and_note)
        for settings in (everything, everything.only([server.world.run_tests[0].name])):
            for wanted in ([], sorted(paths)):
                reads.clear()
                assert (await job.export(settings)).exit_code == 0
                assert sorted({*reads} & {*paths}) == wanted
                if not wanted:
                    (tmp_path / "data" / INDEX).unlink()


async def test_text_of_a_plan_does_not_grow_with_what_it_lists(tmp_path: Path) -> None:
    """``asyncio.Runner`` makes one of every result, to cut it: of 100,000 executions it takes 200 MB."""
    async with Sandbox(settled_world(run_tests=1, executions=3, calls=1)) as server:
        plan = await job.plan(settings_for(server, tmp_path / "data"))
        assert len(plan.planned) == 3
        assert "execution_id" not in repr(plan)


async def test_each_table_has_a_file_though_the_source_has_nothing(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=0, calls=0)) as server:
        settings = settings_for(server, tmp_path / "data")
        first, second = [await job.export(settings) for _ in range(2)]

    assert (first.exit_code, first.files, second.exit_code, second.files) == (0, 4, 0, 0)
    for table in schema.OF_EXECUTIONS:
        [path] = (tmp_path / "data" / table.name).rglob("*.parquet")
        assert pq.read_schema(path).equals(table.arrow_schema)
