"""When arrived bundles are committed, and that no commit is ever cut short or run beside another."""

import asyncio
import threading

import pytest

from etl.errors import DestinationError
from etl.pipeline import buffer as module
from etl.pipeline.buffer import CommitBuffer
from etl.pipeline.tasks import to_the_end
from etl.transform.flatten import FlatBundle, flatten
from tests.bundles import bundle_of, execution, fetched_call


def bundle(number: int) -> FlatBundle:
    return whole(number, 0)


def whole(number: int, calls: int) -> FlatBundle:
    fetched = (fetched_call(f"c{number}-{call}") for call in range(calls))
    return flatten(bundle_of(*fetched, of=execution(f"e{number}")))


class Commits(list[list[FlatBundle]]):
    """What was committed."""

    async def commit(self, bundles: list[FlatBundle]) -> None:
        await to_the_end(lambda: self.append(bundles))


def ids(commits: Commits) -> list[list[str]]:
    return [[each.execution.execution_id for each in bundles] for bundles in commits]


async def test_bundles_wait_for_the_interval_and_the_end() -> None:
    commits = Commits()
    patient = CommitBuffer(commits.commit, interval_seconds=3600)
    await patient.add(bundle(1))
    await patient.add(bundle(2))
    assert commits == []
    await patient.flush()
    await patient.flush()
    assert ids(commits) == [["e1", "e2"]]

    hasty = CommitBuffer(commits.commit, interval_seconds=0)
    await hasty.add(bundle(3))
    assert ids(commits)[1:] == [["e3"]]


async def test_what_has_arrived_is_committed_when_the_interval_is_over_though_nothing_more_arrives() -> None:
    committed = asyncio.Event()
    commits = Commits()

    async def commit(bundles: list[FlatBundle]) -> None:
        await commits.commit(bundles)
        committed.set()

    buffer = CommitBuffer(commit, interval_seconds=0.05)
    committing = asyncio.ensure_future(buffer.commit_on_time())
    for numbers in ((1, 2), (3,)):
        for number in numbers:
            await buffer.add(bundle(number))
        async with asyncio.timeout(20):  # else it would wait for ever
            await committed.wait()
        committed.clear()
    committing.cancel()
    await asyncio.wait([committing])
    assert [each for batch in ids(commits) for each in batch] == ["e1", "e2", "e3"]


async def test_commit_on_time_that_fails_is_told_and_not_tried_for_ever() -> None:
    async def commit(_bundles: list[FlatBundle]) -> None:
        raise DestinationError("calls: No space left on device")

    buffer = CommitBuffer(commit, interval_seconds=0.05)
    await buffer.add(bundle(1))
    with pytest.raises(DestinationError):
        await buffer.commit_on_time()


async def test_many_calls_are_committed_early_and_no_more_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MANY_CALLS", 20)
    may_end, commits = asyncio.Event(), Commits()

    async def commit(bundles: list[FlatBundle]) -> None:
        await may_end.wait()
        await commits.commit(bundles)

    buffer = CommitBuffer(commit, interval_seconds=3600)
    adding = [asyncio.ensure_future(buffer.add(whole(number, 10))) for number in range(9)]
    await asyncio.sleep(0)  # all have begun
    may_end.set()
    await asyncio.gather(*adding)
    await buffer.flush()
    assert ids(commits) == [["e0", "e1"], ["e2", "e3"], ["e4", "e5"], ["e6", "e7"], ["e8"]]


async def test_much_text_is_committed_however_few_calls_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MUCH_TEXT", 1_000)
    commits = Commits()
    buffer = CommitBuffer(commits.commit, interval_seconds=3600)
    for number in range(5):
        wordy = fetched_call(f"c{number}", {"transcript": "x" * 400})
        await buffer.add(flatten(bundle_of(wordy, of=execution(f"e{number}"))))
    assert ids(commits) == [["e0", "e1", "e2"]]
    with_payload = bundle_of(wordy, of=execution("e9"))
    assert flatten(with_payload, include_raw=True).text > 2 * 400


@pytest.mark.parametrize("is_everything", [False, True])
async def test_commit_in_hand_is_waited_for_when_the_crawl_or_even_every_task_is_cancelled(
    *, is_everything: bool
) -> None:
    """As a second Ctrl-C does in a program that embeds an export: the dataset's lock must not be given up before.

    What a commit notes after its thread is noted, too, when the crawl alone is cancelled.
    """
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def write() -> None:
        began.set()
        may_end.wait()
        if is_everything:
            ended.set()

    async def commit(_bundles: list[FlatBundle]) -> None:
        await to_the_end(write)
        ended.set()

    adding = asyncio.ensure_future(CommitBuffer(commit, interval_seconds=0).add(bundle(1)))
    await asyncio.to_thread(began.wait)
    for task in asyncio.all_tasks() - {asyncio.current_task()} if is_everything else {adding}:
        task.cancel()
    done, _ = await asyncio.wait([adding], timeout=0.05)
    may_end.set()
    assert not done, "the commit was left alone"
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert ended.is_set()


async def test_commits_never_overlap_and_lose_no_bundle() -> None:
    running, commits = threading.Semaphore(1), list[FlatBundle]()

    async def commit(bundles: list[FlatBundle]) -> None:
        assert running.acquire(blocking=False), "two commits at once"
        await to_the_end(lambda: commits.extend(bundles))
        running.release()

    buffer = CommitBuffer(commit, interval_seconds=0)
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(buffer.add(bundle(number)))
    assert sorted(each.execution.execution_id for each in commits) == sorted(f"e{number}" for number in range(200))
