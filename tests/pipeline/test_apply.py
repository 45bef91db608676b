"""What an export changes in the dataset: names of run tests, marks of what is gone, and what arrives."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etl.dataset import commit as commit_module
from etl.dataset import parts as dataset_module
from etl.errors import ExitCode, InterruptedRunError
from etl.files.local import LocalFiles
from etl.pipeline import apply, job
from etl.sandbox import Sandbox
from etl.transform import frames
from tests.e2e.truth import rows_of
from tests.pipeline.nights import Nights, kinds
from tests.support import settings_for
from tests.worlds import settled_world


async def test_call_that_two_executions_list_belongs_to_the_one_that_it_names(nights: Nights) -> None:
    first, second = nights.world.run_tests[0].executions[:2]
    first.calls.append(second.calls[0])
    await nights.export(names=[nights.world.run_tests[1].name])

    for is_full in (False, False, True):
        summary = await nights.export(full_refresh=is_full, export={"metrics": "calls"})
        assert (summary.exit_code, kinds(summary)) == (0, [])
    ids = [row["call_execution_id"] for row in nights.rows("calls")]
    assert len(ids) == len({*ids}) == 14 * 3


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


async def test_nothing_of_a_commit_is_done_in_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it would hold up the crawl, signals and the time limit: into a large file it takes seconds."""
    done_by: dict[str, set[int]] = {}

    def note(owner: Any, name: str) -> None:
        work = getattr(owner, name)

        def noted(*given: Any, **options: Any) -> Any:
            done_by.setdefault(name, set()).add(threading.get_ident())
            return work(*given, **options)

        monkeypatch.setattr(owner, name, noted)

    steps: list[tuple[Any, tuple[str, ...]]] = [
        (commit_module, ("calls_frame", "executions_frame", "held_rows")),
        (dataset_module, ("merge", "encode")),
        (LocalFiles, ("read", "publish")),
    ]
    async with Sandbox(settled_world(run_tests=1, executions=2, calls=2)) as server:
        await job.export(settings_for(server, tmp_path / "data"))
        for owner, names in steps:
            for name in names:
                note(owner, name)
        server.world.run_tests[0].executions[1].calls[1].total_cost_cents = 77
        await job.export(settings_for(server, tmp_path / "data"), full_refresh=True)

    assert done_by.keys() == {name for _, names in steps for name in names}
    assert threading.get_ident() not in set().union(*done_by.values())


async def test_run_that_is_stopped_during_a_commit_counts_what_it_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    monkeypatch.setattr(commit_module, "errors_frame", stop.before(frames.errors_frame))
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=3)) as server:
        settings = settings_for(server, tmp_path / "data", export={"commit_interval_seconds": 1e-9})
        summary = await job.export(settings, stop=stop.signal)

    assert (summary.exit_code, summary.run_tests[0].calls, summary.run_tests[0].missed) == (143, 3, 0)
    assert len(rows_of(tmp_path, "calls")) == 3


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
