"""Where the processor time of a call goes: each stage alone, in one process.

``python -m benchmarks.stages BASE_URL``; prints microseconds a call, as JSON.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import aiohttp

from benchmarks.bench_world import call_id, execution_id
from etl.cli import process
from etl.dataset.commit import commit
from etl.dataset.parts import Dataset
from etl.dataset.places import Places
from etl.dataset.state import read_state
from etl.extract.answers import decode
from etl.extract.client import Client
from etl.extract.endpoints import Request, Slice, get_call_metrics, list_calls
from etl.files.interface import Files
from etl.files.open import open_files
from etl.model.lifecycle import Settlement
from etl.model.records import CallMetrics, Execution, ExecutionBundle, FetchedCall
from etl.settings import Settings
from etl.transform.flatten import FlatBundle, flatten
from etl.transform.frames import ExportStamp

EXECUTIONS = 50
CALLS = 100
CONCURRENCY = 50
ROUNDS = 5


async def fetch(requests: list[Request[Any]], get: Callable[[Request[Any]], Awaitable[Any]]) -> list[Any]:
    """Every answer, so many at a time."""
    answers = []
    queue = iter(requests)

    async def work() -> None:
        for request in queue:
            answers.append(await get(request))  # noqa: PERF401 not one after the other

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())
    return answers


def metrics_requests(executions: list[str]) -> list[Request[CallMetrics]]:
    """A request for each call of the load server's world."""
    return [
        get_call_metrics(call_id(number, call), execution)
        for number, execution in enumerate(executions)
        for call in range(CALLS)
    ]


def timed(stages: dict[str, list[float]], name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do the work and note what it cost."""
    begun_at = time.process_time()
    result = work(*arguments)
    stages.setdefault(name, []).append((time.process_time() - begun_at) / (EXECUTIONS * CALLS) * 1e6)
    return result


def bundles_of(executions: list[str], listed: list[Any], metrics: dict[str, CallMetrics]) -> list[ExecutionBundle]:
    """What a crawl would hand over."""
    return [
        ExecutionBundle(
            run_test_name="Load",
            run_test_key="load",
            execution=Execution(execution_id=execution, status="completed", payload={"execution_id": execution}),
            listed=page.results,
            calls=tuple(FetchedCall(listed=call, metrics=metrics[call.call_execution_id]) for call in page.results),
        )
        for execution, page in zip(executions, listed, strict=True)
    ]


def decode_all(requests: list[Request[CallMetrics]], bodies: dict[str, bytes]) -> list[CallMetrics]:
    """The bodies, by call, decoded as the client does."""
    return [decode(request, bodies[request.query[0][1]]) for request in requests]


def flatten_all(bundles: list[ExecutionBundle]) -> list[FlatBundle]:
    """As each arrives."""
    return [flatten(bundle) for bundle in bundles]


def commit_all(files: Files, bundles: list[FlatBundle], export: ExportStamp) -> None:
    """A first commit."""
    dataset = Dataset(files)
    state = read_state(dataset, set_aside=False)
    places = Places(dataset, state, now=export.exported_at)
    settlement = Settlement(fetched_at=export.exported_at, now=export.exported_at, settle=timedelta(hours=24))
    commit(dataset, bundles, state.executions, places.parts_of, export, settlement)


def main(base_url: str) -> None:
    """Measure each stage some times, and print the medians."""
    process.prepare()
    executions = [execution_id(number) for number in range(EXECUTIONS)]
    requests = metrics_requests(executions)
    stages: dict[str, list[float]] = {}
    export = ExportStamp("benchmark", datetime.now(UTC))

    async def bare() -> list[bytes]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:

            async def get(request: Request[Any]) -> bytes:
                async with session.get(base_url + request.target) as response:
                    return await response.read()

            return await fetch(requests, get)

    async def ours() -> tuple[list[CallMetrics], list[Any]]:
        keys = {"api_key": "benchmark-api-key", "secret_key": "benchmark-secret-key"}
        api = {"base_url": base_url, "concurrency": CONCURRENCY}
        async with Client(Settings.model_validate({"run_tests": "all", "api": api} | keys)) as client:
            metrics = await fetch(requests, client.get)
            return metrics, [await client.get(list_calls(each, Slice(1, 1024))) for each in executions]

    for _ in range(ROUNDS):
        bodies = timed(stages, "bare aiohttp loop", lambda: asyncio.run(bare()))
        metrics, listed = timed(stages, "client: quota, timeouts, retry, decoding", lambda: asyncio.run(ours()))
        by_call = {call.call_execution_id: call for call in metrics}
        answered = {json.loads(body)["result"]["call_execution_id"]: body for body in bodies}
        timed(stages, "of that, decoding", decode_all, requests, answered)
        bundles = bundles_of(executions, listed, by_call)
        with tempfile.TemporaryDirectory() as folder:
            files = open_files(folder)
            files.prepare()
            flat = timed(stages, "flattening, an eval with each call", flatten_all, bundles)
            timed(stages, "commit: pandas, Arrow, Parquet, fsync", commit_all, files, flat, export)
    print(json.dumps({name: median(costs) for name, costs in stages.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
