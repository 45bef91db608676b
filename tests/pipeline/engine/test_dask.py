"""An export on a Dask cluster: the same rows as without it, or an exit code for what is missing, whatever dies."""

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="Dask is in an environment of its own: see the Makefile")

from distributed import Client, LocalCluster

from etl.pipeline import job
from etl.pipeline.engine import dask
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, World
from tests.dask_cluster import WITH_KEYS, WITHOUT_KEYS, Cluster, cluster
from tests.datasets import assert_sound, contents
from tests.e2e.command import ended, environment, start_cold, write_settings
from tests.e2e.truth import assert_equals_world
from tests.support import API_KEY, SECRET_KEY, examples, settings_for
from tests.worlds import settled_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
OTHER_KEYS = {"FI_API_KEY": "canary-of-the-api-key", "FI_SECRET_KEY": "canary-of-the-secret-key"}
ANOTHER_VERSION = "import etl.version; etl.version.__version__ = '0.0.1'"
WITHOUT_EXPORTER = "import sys; sys.modules['etl.pipeline.engine.worker'] = None"
WHEN_ONE_HAS_ARRIVED = 300
"""Requests: at most four batches of two executions of 30 calls each are under way, which take 248, and two lists."""
DEBUGGING = "import logging; logging.basicConfig(level=1); logging.getLogger('distributed').setLevel(1)"


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "_CALLS_OF_A_BATCH", 50)


@pytest.fixture
def world() -> World:
    return settled_world(run_tests=2, days=3, executions=8, calls=30)


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path / "cluster") as running:
        yield running


async def export(
    server: Sandbox, folder: Path, address: str, stop: asyncio.Future[Any] | None = None, **sections: Any
) -> Summary:
    by_call = {"engine": {"kind": "dask", "address": address}, "export": {"metrics": "calls"}} | sections
    return await job.export(settings_for(server, folder / "data", **by_call), stop=stop)


def kill(processes: Iterable[asyncio.subprocess.Process]) -> None:
    for process in processes:
        process.kill()


def at_request(number: int, act: Callable[[], object]) -> Callable[..., None]:
    """A hook that acts when so many requests have come."""
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            act()

    return count


def on(workers: Cluster) -> tuple[str, ...]:
    """The settings of a run on the cluster."""
    return "[export]", 'metrics = "calls"', "[engine]", 'kind = "dask"', f'address = "{workers.address}"'


async def requests_after(server: Sandbox, address: str) -> int:
    """How many requests come once all workers have answered that they have nothing to do for Dask."""
    before = len(server.requests)
    async with Client(address, asynchronous=True, set_as_default=False) as client:
        await client.run(lambda: None)
        assert not any((await client.processing()).values())
    return len(server.requests) - before


async def test_the_same_rows_as_in_one_process(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WITH_KEYS.items():
        monkeypatch.setenv(name, value)
    local = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, asynchronous=True, dashboard_address="127.0.0.1:0"
    )
    async with local as running, Sandbox(world) as server:
        for include_raw in (False, True):
            folders = [tmp_path / f"{engine}-{include_raw}" for engine in ("dask", "plain")]
            sections: dict[str, Any] = {"export": {"include_raw": include_raw}}
            on_dask = await export(server, folders[0], running.scheduler_address, **sections)
            plain = await job.export(settings_for(server, folders[1] / "data", **sections))
            assert on_dask.exit_code == plain.exit_code == 0
            assert on_dask.requests_by_purpose == plain.requests_by_purpose
            assert_equals_world(folders[0], world)
            assert contents(folders[0] / "data") == contents(folders[1] / "data")


async def test_a_worker_that_is_killed_loses_nothing(world: World, tmp_path: Path) -> None:
    rng = random.Random(1)
    async with Sandbox(world, latency_seconds=0.005) as server:
        for night in range(examples(20)):
            async with cluster(tmp_path / f"cluster-{night}") as running:
                server.on_request = at_request(rng.randrange(5, 480), running.processes[0].kill)
                summary = await export(server, tmp_path / f"{night}", running.address)
            server.on_request = None
            assert summary.exit_code == 0
            assert_equals_world(tmp_path / f"{night}", world)


async def test_a_batch_whose_workers_all_die_ends_the_run_and_what_arrived_is_kept(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in WITH_KEYS.items():
        monkeypatch.setenv(name, value)
    deadly = world.run_tests[0].executions[0].execution_id
    (tmp_path / "deadly.py").write_text(
        "import os\nimport etl.pipeline.engine.this_process as h\nflatten = h.flatten\n"
        "def die(bundle, f=flatten, **options):\n"
        f"    return os._exit(1) if bundle.execution.execution_id == {deadly!r} else f(bundle, **options)\n"
        "h.flatten = die\n"
    )
    local = LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        asynchronous=True,
        dashboard_address="127.0.0.1:0",
        preload=[str(tmp_path / "deadly.py")],
    )
    async with local as running, Sandbox(world) as server:
        summary = await export(server, tmp_path, running.scheduler_address)
    assert summary.exit_code in (3, 5)
    assert "workers died while fetching the same batch" in str(summary.problems)
    assert_sound(tmp_path / "data")
    async with Sandbox(world) as server:
        assert (await job.export(settings_for(server, tmp_path / "data"))).exit_code == 0
    assert_equals_world(tmp_path, world)


async def test_an_exception_on_a_worker_is_told_and_nothing_is_called_complete(world: World, tmp_path: Path) -> None:
    broken = world.run_tests[0].executions[0].execution_id
    preload = (
        "import etl.pipeline.engine.this_process as h\nflatten = h.flatten\n"
        "def fail(bundle, f=flatten, **options):\n"
        f"    if bundle.execution.execution_id == {broken!r}: raise MemoryError('too little')\n"
        "    return f(bundle, **options)\nh.flatten = fail\n"
    )
    async with cluster(tmp_path / "cluster", workers=0) as running, Sandbox(world) as server:
        for _ in range(2):
            await running.add_worker(preload=preload)
        summary = await export(server, tmp_path, running.address)
    assert summary.exit_code == 1
    assert "a Dask worker hit a bug in metrics-etl. Please report it: MemoryError: too little" in str(summary.problems)
    assert_sound(tmp_path / "data")


@pytest.mark.parametrize("is_lost", ["scheduler", "workers"])
async def test_a_cluster_that_is_lost_ends_the_run_and_what_arrived_is_kept(
    world: World, tmp_path: Path, workers: Cluster, monkeypatch: pytest.MonkeyPatch, is_lost: str
) -> None:
    lost = [workers.scheduler] if is_lost == "scheduler" else workers.processes

    def lose() -> None:
        monkeypatch.setattr(dask, "_WITHOUT_WORKERS_SECONDS", 2.0)
        kill(lost)

    async with Sandbox(world, latency_seconds=0.005) as server:
        server.on_request = at_request(WHEN_ONE_HAS_ARRIVED, lose)
        summary = await export(server, tmp_path, workers.address)
        assert summary.exit_code == 3
        assert f"the Dask scheduler at {workers.address}" in str(summary.problems)
        assert contents(tmp_path / "data")["calls"]
        server.on_request = None
        assert (await job.export(settings_for(server, tmp_path / "data"))).exit_code == 0
    assert_equals_world(tmp_path, world)


@pytest.mark.parametrize(
    ("env", "preload", "message"),
    [
        (WITHOUT_KEYS, "", "FI_API_KEY"),
        (WITH_KEYS, ANOTHER_VERSION, "it runs metrics-etl 0.0.1"),
        (WITH_KEYS, WITHOUT_EXPORTER, "etl.pipeline.engine.worker"),
    ],
    ids=["without keys", "another version", "without the exporter"],
)
async def test_a_worker_that_cannot_fetch_is_refused_in_one_line(
    world: World, tmp_path: Path, workers: Cluster, env: Mapping[str, str], preload: str, message: str
) -> None:
    await workers.add_worker(env, preload=preload)
    async with Sandbox(world) as server:
        summary = await export(server, tmp_path, workers.address)
        asked = len(server.requests)
    assert (summary.exit_code, asked) == (2, 0)
    [problem] = summary.problems
    assert problem.startswith("the Dask worker at tcp://")
    assert message in problem
    assert "\n" not in problem


async def test_no_scheduler_and_no_worker_are_told_before_the_first_request(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask, "_WITHOUT_WORKERS_SECONDS", 2.0)
    async with cluster(tmp_path / "cluster", workers=0) as running, Sandbox(world) as server:
        without_workers = await export(server, tmp_path, running.address)
        nowhere = await export(server, tmp_path, "tcp://127.0.0.1:9")
        asked = len(server.requests)
    assert (without_workers.exit_code, nowhere.exit_code, asked) == (5, 5, 0)
    for summary, address in ((without_workers, running.address), (nowhere, "tcp://127.0.0.1:9")):
        assert f"no Dask scheduler with workers at {address}: start both" in str(summary.problems)


@pytest.mark.parametrize("address", ["here://now", "tls://127.0.0.1:9", "another server"])
async def test_an_address_that_cannot_be_a_schedulers_is_told_in_one_line(
    world: World, tmp_path: Path, address: str
) -> None:
    async with Sandbox(world) as server:
        address = server.base_url.replace("http", "tcp") if address == "another server" else address
        summary = await export(server, tmp_path, address)
        assert not server.requests
    assert summary.exit_code == 2
    [problem] = summary.problems
    assert problem.startswith(f"no Dask scheduler can be reached at [engine] address {address!r}: ")
    assert "\n" not in problem


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_reaches_the_workers_and_what_arrived_is_kept(
    world: World, tmp_path: Path, workers: Cluster, number: signal.Signals
) -> None:
    write_settings(tmp_path, [each.name for each in world.run_tests], "[api]", "concurrency = 2", *on(workers))
    enough = asyncio.Event()
    async with Sandbox(world, latency_seconds=0.05, api_key=API_KEY, secret_key=SECRET_KEY) as server:
        server.on_request = at_request(200, enough.set)
        env = environment(server)
        process = await start_cold("run", cwd=tmp_path, env=env)
        await enough.wait()
        process.send_signal(number)
        _, stderr = await process.communicate()
        assert process.returncode == 128 + number
        assert await requests_after(server, workers.address) == 0
        assert "Traceback" not in stderr.decode()
        assert len(contents(tmp_path / "data")["calls"]) > 50
        server.on_request = None
        assert (await job.export(settings_for(server, tmp_path / "data"))).exit_code == 0
    assert_equals_world(tmp_path, world)


async def test_a_worker_may_join_midway_and_each_has_two_batches_at_most(
    world: World, tmp_path: Path, workers: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: list[tuple[int, int]] = []
    next_batch = dask._DaskCrawl._next_batch
    joining: list[asyncio.Task[None]] = []

    async def counted(crawl: Any, count: int) -> Any:
        batch = await next_batch(crawl, count)
        under_way.append((len(crawl.under_way) + (batch is not None), count))
        return batch

    monkeypatch.setattr(dask._DaskCrawl, "_next_batch", counted)
    async with Sandbox(world, latency_seconds=0.1) as server:
        server.on_request = at_request(50, lambda: joining.append(asyncio.create_task(workers.add_worker())))
        summary = await export(server, tmp_path, workers.address, api={"concurrency": 2})
        await joining[0]
    assert summary.exit_code == 0
    assert {workers for _, workers in under_way} == {2, 3}
    assert all(batches <= 2 * workers for batches, workers in under_way)
    assert_equals_world(tmp_path, world)


async def test_the_workers_together_keep_the_rate_limit(world: World, tmp_path: Path, workers: Cluster) -> None:
    """Refused is at most what one had under way while the other took the last that the window allowed."""
    async with Sandbox(world, rate_limit=300, rate_window_seconds=2.0) as server:
        summary = await export(server, tmp_path, workers.address, api={"concurrency": 8})
    assert summary.exit_code == 0
    assert summary.rejections <= 8
    assert_equals_world(tmp_path, world)


async def test_a_refused_key_ends_the_run_and_no_key_is_in_a_message_a_log_or_the_scheduler(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[bytes] = []
    submit = Client.submit

    def recorded(client: Client, function: Any, *arguments: Any, **options: Any) -> Any:
        messages.extend(each for each in arguments if isinstance(each, bytes))
        return submit(client, function, *arguments, **options)

    monkeypatch.setattr(Client, "submit", recorded)
    keys: dict[str, Any] = {"api_key": OTHER_KEYS["FI_API_KEY"], "secret_key": OTHER_KEYS["FI_SECRET_KEY"]}
    async with cluster(tmp_path / "cluster", workers=0) as running:
        for _ in range(2):
            await running.add_worker(OTHER_KEYS, preload=DEBUGGING)
        async with Sandbox(world, **keys) as server:
            server.fault = lambda request, _: Fault(status=401) if "call_execution_id" in request.target else None
            refused = await export(server, tmp_path, running.address, **keys)
            server.fault = None
            complete = await export(server, tmp_path, running.address, **keys)
        async with Client(running.address, asynchronous=True, set_as_default=False) as client:
            await client.dump_cluster_state(str(tmp_path / "state"), format="yaml")
    assert (refused.exit_code, complete.exit_code) == (4, 0)
    assert messages
    told = running.logs().encode() + (tmp_path / "state.yaml").read_bytes() + b"".join(messages)
    assert b"fetch_batch-" in told
    for key in keys.values():
        assert key.encode() not in told


async def test_nothing_of_dask_is_on_stderr(world: World, tmp_path: Path, workers: Cluster) -> None:
    names = [each.name for each in world.run_tests]
    write_settings(tmp_path, names, "[api]", "concurrency = 2", "[log]", 'format = "json"', *on(workers))
    async with Sandbox(world, latency_seconds=0.03, api_key=API_KEY, secret_key=SECRET_KEY) as server:
        server.on_request = at_request(200, workers.scheduler.kill)  # in the middle of its only batch
        warned = environment(server, DASK_DISTRIBUTED__ADMIN__LARGE_GRAPH_WARNING_THRESHOLD="1 B")
        result = await ended(await start_cold("run", cwd=tmp_path, env=warned))
    assert result.exit_code == 5
    assert [json.loads(line)["event"] for line in result.stderr.splitlines()][-1] == "run_finished"


async def test_an_ordinary_run_imports_nothing_of_dask(world: World, tmp_path: Path) -> None:
    write_settings(tmp_path, [each.name for each in world.run_tests])
    code = """
import sys
sys.argv = ["metrics-etl", "run", "--quiet"]
import etl.cli.app
try:
    etl.cli.app.main()
except SystemExit as end:
    assert not end.code
packages = {name.split(".")[0] for name in sys.modules}
assert not packages & {"dask", "distributed"} and "etl.pipeline.engine.dask" not in sys.modules
"""
    async with Sandbox(world, api_key=API_KEY, secret_key=SECRET_KEY) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, cwd=tmp_path, env=environment(server)
        )
        assert await process.wait() == 0
    assert_equals_world(tmp_path, world)
