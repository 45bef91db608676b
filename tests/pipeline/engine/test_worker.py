"""What runs in a worker: a batch becomes flat bundles, by the worker's own keys, and ends at once when stopped."""

import asyncio
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from etl.errors import ConfigurationError, KeyRefusedError, SourceUnavailableError
from etl.extract.plan import Planned
from etl.model import schema
from etl.model.lifecycle import StoredCalls
from etl.model.records import NumberLiteral
from etl.pipeline.engine import this_process, worker
from etl.pipeline.engine.worker import Batch, BatchAnswer, next_items
from etl.sandbox import Fault, Sandbox
from etl.settings.sections import Api, Export
from etl.version import __version__
from tests.bundles import execution, plan_of
from tests.support import API_KEY, SECRET_KEY
from tests.worlds import a_sandbox

CALLS = 4


@pytest.fixture(autouse=True)
def in_a_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has fetched nothing yet, with the keys in its environment."""
    monkeypatch.setenv("FI_API_KEY", API_KEY)
    monkeypatch.setenv("FI_SECRET_KEY", SECRET_KEY)
    worker._session.cache_clear()
    yield
    worker._session.cache_clear()


server = a_sandbox(run_tests=1, days=1, executions=3, calls=CALLS)


def batch_of(server: Sandbox, **changes: Any) -> Batch:
    executions = server.world.run_tests[0].executions
    batch = Batch(
        run_id="run",
        items=tuple(plan_of([execution(each.execution_id, total_calls=CALLS) for each in executions], {})),
        stored={},
        api=Api(base_url=server.base_url, concurrency=2),
        export=Export(),
        requests_per_minute=None,
    )
    return replace(batch, **({"stored": dict.fromkeys(ids(batch.items), StoredCalls())} | changes))


def one_at_a_time(server: Sandbox) -> Batch:
    return batch_of(server, api=Api(base_url=server.base_url, concurrency=1))


async def fetch(batch: Batch, version: str = __version__) -> BatchAnswer:
    answer: BatchAnswer = pickle.loads(await asyncio.to_thread(worker.fetch_batch, version, pickle.dumps(batch)))
    return answer


def ids(items: tuple[Planned, ...]) -> set[str]:
    return {item.execution.execution_id for item in items}


async def test_a_batch_comes_back_as_flat_bundles_with_what_it_took(server: Sandbox) -> None:
    batch = batch_of(server)
    answer = await fetch(batch)
    assert {bundle.execution.execution_id for bundle in answer.bundles} == ids(batch.items)
    assert [len(bundle.calls.values) for bundle in answer.bundles] == [CALLS] * 3
    assert answer.error is None
    assert answer.traffic.requests == 3 * (1 + CALLS)


async def test_a_worker_leaves_out_what_the_run_does(server: Sandbox) -> None:
    reason = schema.EVALS.names.index("reason")
    for left_out in ([], ["evals.reason"]):
        answer = await fetch(batch_of(server, export=Export(leave_out=left_out)))
        evals = [row for bundle in answer.bundles for row in bundle.evals.values]
        assert ({row[reason] for row in evals} == {None}) is bool(left_out)


async def test_another_version_is_refused(server: Sandbox) -> None:
    with pytest.raises(ConfigurationError, match=r"it runs metrics-etl .*, but this machine runs 0\.0\.1\. Install"):
        await fetch(batch_of(server), "0.0.1")
    with pytest.raises(ConfigurationError, match=r"this machine runs 0\.0\.1"):
        worker.require_fit("0.0.1")


async def test_without_keys_nothing_is_requested(server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FI_SECRET_KEY")
    with pytest.raises(ConfigurationError, match=r"there is no key\. Set FI_SECRET_KEY"):
        await fetch(batch_of(server))
    with pytest.raises(ConfigurationError, match=r"there is no key\. Set FI_SECRET_KEY"):
        worker.require_fit(__version__)
    assert not server.requests


async def test_a_refused_key_comes_back_with_what_had_arrived(server: Sandbox) -> None:
    last = server.world.run_tests[0].executions[-1].execution_id
    server.fault = lambda request, _: Fault(status=401) if last in request.target else None
    answer = await fetch(one_at_a_time(server))
    assert isinstance(answer.error, KeyRefusedError)


async def test_what_no_code_expects_is_raised(server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_process, "flatten", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await fetch(batch_of(server))


async def test_a_batch_of_a_run_that_was_stopped_is_not_begun(server: Sandbox) -> None:
    worker.stop("run")
    answer = await fetch(batch_of(server))
    assert not server.requests
    assert not answer.bundles
    assert (await fetch(batch_of(server, run_id="another"))).bundles


async def test_a_batch_that_is_stopped_ends_and_brings_what_has_arrived(server: Sandbox) -> None:
    arrived = 0

    def stop_at_last(*_: object) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == CALLS + 3:
            worker.stop("run")

    server.on_request = stop_at_last
    answer = await fetch(one_at_a_time(server))
    requests = len(server.requests)
    assert requests < 3 * (1 + CALLS)
    assert sum(len(bundle.calls.values) for bundle in answer.bundles) in range(1, requests)
    assert answer.error is None


async def test_the_share_of_the_rate_limit_holds_from_batch_to_batch(server: Sandbox) -> None:
    await fetch(batch_of(server, requests_per_minute=1000))
    quota = worker._session()._quotas["run"]
    await fetch(batch_of(server, requests_per_minute=500))
    assert worker._session()._quotas["run"] is quota
    assert quota.requests_per_minute == 500
    assert quota.left(asyncio.get_running_loop().time()) == 500 - len(server.requests)


async def test_what_a_run_was_told_of_the_rate_limit_does_not_hold_up_the_next(server: Sandbox) -> None:
    server.fault = lambda *_: Fault(status=503, headers={"Retry-After": "7200"})
    held = await fetch(batch_of(server, requests_per_minute=1))
    assert isinstance(held.error, SourceUnavailableError)
    server.fault = None
    assert len((await fetch(batch_of(server, run_id="next"))).bundles) == 3


def planned(*calls: int) -> list[Planned]:
    executions = [execution(f"e{index}", total_calls=count) for index, count in enumerate(calls)]
    return plan_of(executions, {})


def test_a_batch_ends_with_the_execution_that_fills_it() -> None:
    plan = iter(planned(30, 30, 30, 500, 1))
    batches = []
    while items := next_items(plan, calls=50):
        batches.append([item.execution.execution_id for item in items])
    assert batches == [["e0", "e1"], ["e2", "e3"], ["e4"]]


def test_executions_without_calls_fill_a_batch_too() -> None:
    assert len(next_items(planned(*[0] * 100), calls=50)) == 50


def test_a_plan_survives_the_way_to_a_worker_to_the_last_digit() -> None:
    [item] = plan_of([execution(cost=NumberLiteral("1e400"), odd="\ud800", count=2**70)], {})
    assert pickle.loads(pickle.dumps(item)).execution.unpack() == item.execution.unpack()
