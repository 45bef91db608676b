"""When arrived bundles are committed, and that no commit is ever cut short or run beside another."""

import asyncio
import threading

import pytest

from etl.api.models import Execution, ExecutionBundle
from etl.store import buffer as module
from etl.store.buffer import CommitBuffer


def bundle(number: int) -> ExecutionBundle:
    execution = Execution(execution_id=f"e{number}", status="completed", payload={})
    return ExecutionBundle(run_test_name="A", run_test_key="a", execution=execution, date="2026-01-01")


async def test_bundles_wait_for_the_interval_and_the_end() -> None:
    commits: list[list[ExecutionBundle]] = []
    patient = CommitBuffer(commits.append, interval_seconds=3600)
    await patient.add(bundle(1))
    await patient.add(bundle(2))
    assert commits == []
    await patient.flush()
    await patient.flush()
    assert commits == [[bundle(1), bundle(2)]]

    hasty = CommitBuffer(commits.append, interval_seconds=0)
    await hasty.add(bundle(3))
    assert commits[1:] == [[bundle(3)]]


async def test_many_calls_are_committed_before_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CALLS", 0)
    commits: list[list[ExecutionBundle]] = []
    await CommitBuffer(commits.append, interval_seconds=3600).add(bundle(1))
    assert commits == [[bundle(1)]]


async def test_cancelled_crawl_waits_for_the_commit_in_hand() -> None:
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def commit(_bundles: list[ExecutionBundle]) -> None:
        began.set()
        may_end.wait()
        ended.set()

    adding = asyncio.ensure_future(CommitBuffer(commit, interval_seconds=0).add(bundle(1)))
    await asyncio.to_thread(began.wait)
    adding.cancel()
    done, _ = await asyncio.wait([adding], timeout=0.05)
    assert not done, "the commit was left alone"
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert ended.is_set()


async def test_commits_never_overlap_and_lose_no_bundle() -> None:
    running, commits = threading.Semaphore(1), list[ExecutionBundle]()

    def commit(bundles: list[ExecutionBundle]) -> None:
        assert running.acquire(blocking=False), "two commits at once"
        commits.extend(bundles)
        running.release()

    buffer = CommitBuffer(commit, interval_seconds=0)
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(buffer.add(bundle(number)))
    assert sorted(each.execution.execution_id for each in commits) == sorted(f"e{number}" for number in range(200))
