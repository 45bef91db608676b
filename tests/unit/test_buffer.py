"""When arrived bundles are committed, and that no commit is ever cut short or run beside another."""

import asyncio
import threading

import pytest

from etl.api.models import Execution, ExecutionBundle
from etl.store import buffer as module
from etl.store.buffer import CommitBuffer
from tests.bundles import bundle_of, execution, fetched_call


def bundle(number: int) -> ExecutionBundle:
    execution = Execution(execution_id=f"e{number}", status="completed", payload={})
    return ExecutionBundle(run_test_name="A", run_test_key="a", execution=execution, date="2026-01-01")


class Commits(list[list[ExecutionBundle]]):
    """What was committed, to files whose largest has so many rows."""

    def __init__(self, largest_rows: int = 0) -> None:
        super().__init__()
        self.largest_rows = largest_rows

    def commit(self, bundles: list[ExecutionBundle]) -> int:
        self.append(bundles)
        return self.largest_rows


async def test_bundles_wait_for_the_interval_and_the_end() -> None:
    commits = Commits()
    patient = CommitBuffer(commits.commit, interval_seconds=3600)
    await patient.add(bundle(1))
    await patient.add(bundle(2))
    assert commits == []
    await patient.flush()
    await patient.flush()
    assert commits == [[bundle(1), bundle(2)]]

    hasty = CommitBuffer(commits.commit, interval_seconds=0)
    await hasty.add(bundle(3))
    assert commits[1:] == [[bundle(3)]]


def whole(number: int, calls: int) -> ExecutionBundle:
    fetched = (fetched_call(f"c{number}-{call}") for call in range(calls))
    return bundle_of(*fetched, of=execution(f"e{number}"))


@pytest.mark.parametrize(("largest_rows", "sizes"), [(0, [40, 40, 20]), (200, [40, 50, 10]), (1000, [40, 60])])
async def test_many_calls_are_committed_before_the_interval_and_more_where_files_are_large(
    monkeypatch: pytest.MonkeyPatch, largest_rows: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(module, "_MANY_CALLS", 40)
    commits = Commits(largest_rows)
    buffer = CommitBuffer(commits.commit, interval_seconds=3600)
    for number in range(10):
        await buffer.add(whole(number, 10))
    await buffer.flush()
    assert [sum(len(each.calls) for each in bundles) for bundles in commits] == sizes


async def test_cancelled_crawl_waits_for_the_commit_in_hand() -> None:
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def commit(_bundles: list[ExecutionBundle]) -> int:
        began.set()
        may_end.wait()
        ended.set()
        return 0

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

    def commit(bundles: list[ExecutionBundle]) -> int:
        assert running.acquire(blocking=False), "two commits at once"
        commits.extend(bundles)
        running.release()
        return 0

    buffer = CommitBuffer(commit, interval_seconds=0)
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(buffer.add(bundle(number)))
    assert sorted(each.execution.execution_id for each in commits) == sorted(f"e{number}" for number in range(200))
