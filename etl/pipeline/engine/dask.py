"""Fetch on the workers of a Dask cluster that is already there: this process lists, plans, and alone commits.

A batch of whole executions is one task. Dask gives a batch whose worker was lost to another one, a few times. No key is in a task:
each worker has those of its environment.
"""

import asyncio
import logging
import math
import pickle
import warnings
from collections import deque
from collections.abc import Iterable
from concurrent.futures import CancelledError
from contextlib import suppress
from itertools import count
from typing import Any, Self

from distributed import Client, as_completed
from distributed.scheduler import KilledWorker

from etl.errors import ConfigurationError, ExporterError, SourceUnavailableError
from etl.extract.client import Client as SourceClient
from etl.extract.plan import Planned
from etl.extract.settling import Stored
from etl.pipeline.engine import worker
from etl.pipeline.engine.batch import Answer, Batch, calls_of_a_batch, given_up, next_items, read_stored
from etl.pipeline.engine.contract import Counts, Fetching, How, Take
from etl.pipeline.tasks import to_the_end
from etl.settings import Settings
from etl.transform.flatten import FlatBundle, flatten
from etl.version import __version__

_BATCHES_PER_WORKER = 2  # one that is fetched, and one that waits for it
_CONNECT_SECONDS = 10.0
_WITHOUT_WORKERS_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_STOP_SECONDS = 5.0
_MOST_FAILURES_IN_A_ROW = 3


def be_silent() -> None:
    """Let Dask write nothing to stderr: what matters of its errors is raised, and a command's log has one event a line."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"distributed\.")


async def connect(address: str) -> Any:
    """A client of the cluster whose scheduler is there, and whose workers can all fetch.

    Raises:
        ConfigurationError: a worker has another version of the exporter, or no keys.
        SourceUnavailableError: there is no scheduler at the address, it has no workers, or one does not answer.
    """
    client = Client(address, asynchronous=True, set_as_default=False, timeout=_CONNECT_SECONDS, name="metrics-etl")
    try:
        await _open(client, address)
        await _require_fit_workers(client, address)
    except BaseException:
        await client.close()
        raise
    return client


async def _open(client: Any, address: str) -> None:
    try:
        async with asyncio.timeout(2 * _CONNECT_SECONDS):  # Dask's own limit is that of the connection alone
            await client
    except (OSError, TimeoutError):
        raise SourceUnavailableError(
            f"no Dask scheduler answers at {address}: start one (dask scheduler), or check [engine] address"
        ) from None
    except Exception as error:  # noqa: BLE001 no address, TLS without a certificate, another server: any error of Dask's
        raise ConfigurationError(
            f"[engine] address: no Dask scheduler can be reached at {address!r}: {_told(error)}"
        ) from None


async def count_workers(address: str) -> int:
    """How many workers the cluster has; errors as for ``connect``."""
    client = await connect(address)
    try:
        return len(await client.nthreads())
    finally:
        await client.close()


async def _require_fit_workers(client: Any, address: str) -> None:
    try:
        await client.wait_for_workers(1, timeout=_WITHOUT_WORKERS_SECONDS)
    except TimeoutError:
        raise SourceUnavailableError(
            f"the Dask scheduler at {address} has no workers: start one (dask worker {address})"
        ) from None
    try:
        async with asyncio.timeout(_WITHOUT_WORKERS_SECONDS):
            answers = await client.run(worker.require_fit, __version__, on_error="return")
    except TimeoutError:
        raise SourceUnavailableError(f"a worker of the Dask scheduler at {address} does not answer: end it") from None
    for each, answer in answers.items():
        if isinstance(answer, Exception):
            raise ConfigurationError(f"the Dask worker at {each} cannot fetch: {_told(answer)}")


class DaskCluster:
    """The engine on a cluster: ``async with`` connects to its scheduler.

    The workers share the rate limit that the ``source`` has seen, and what they send counts as sent by it.
    """

    def __init__(self, settings: Settings, how: How, source: SourceClient, run_id: str) -> None:
        self.address = settings.engine.address or ""
        self.api = settings.api
        self.how = how
        self.source = source
        self.run_id = run_id
        self.seconds = settings.export.commit_interval_seconds
        self.numbers = count()
        self._client: Any = None

    async def __aenter__(self) -> Self:
        """Connect; errors as for ``connect``."""
        self._client = await connect(self.address)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    def crawl(self, plan: Iterable[Planned], take: Take, stored: Stored, expected_calls: int) -> Fetching:
        """A crawl over the plan on the workers."""
        return _DaskCrawl(self, self._client, plan, take, stored, expected_calls)


class _DaskCrawl:
    def __init__(
        self,
        cluster: DaskCluster,
        client: Any,
        plan: Iterable[Planned],
        take: Take,
        stored: Stored,
        expected_calls: int,
    ) -> None:
        self.counts = Counts()
        self._cluster = cluster
        self._client = client
        self._plan = iter(plan)
        self._left: deque[Planned] = deque()
        self._take = take
        self._stored = stored
        self._expected_calls = expected_calls
        self._batches: dict[Any, Batch] = {}
        self._failures_in_a_row = 0

    async def run(self) -> None:
        """Fetch everything.

        Raises:
            ConfigurationError: a worker has another version of the exporter, or no keys.
            KeyRefusedError, SourceUnavailableError: the crawl cannot go on; what was emitted stands.
        """
        try:
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(self._look_after_the_cluster())
                await self._fetch()
                looking.cancel()
        finally:
            if self._batches:
                await to_the_end(self._stop())

    def arrived(self, _listed_before: float = math.inf) -> Iterable[FlatBundle]:
        """Nothing: a batch arrives with whole executions."""
        return ()

    async def _fetch(self) -> None:
        try:
            completed = as_completed([], loop=self._client.loop)
            await self._fill(completed)
            async for future in completed:
                await self._take_answer(future)
                await self._fill(completed)
        except Exception as error:
            # Of Dask: a disk's OSError is a DestinationError. A client that has given up its scheduler fails in many ways.
            is_gone = isinstance(error, CancelledError | OSError) or self._client.status != "running"
            if isinstance(error, ExporterError) or not is_gone:
                raise
            address = self._cluster.address
            raise SourceUnavailableError(f"the Dask scheduler at {address} is gone: start it, and run again") from None

    async def _fill(self, completed: Any) -> None:
        """Keep each worker busy, and no more batches under way than that takes: their answers must fit into memory."""
        workers = len(await self._client.nthreads()) or 1
        while len(self._batches) < workers * _BATCHES_PER_WORKER:
            batch = await self._next_batch(workers)
            if batch is None:
                return
            future = self._client.submit(
                worker.fetch_batch,
                __version__,
                pickle.dumps(batch),
                key=f"metrics-etl-{batch.run_id}-{next(self._cluster.numbers)}",
                pure=False,
            )
            self._batches[future] = batch
            completed.add(future)

    async def _next_batch(self, workers: int) -> Batch | None:
        cluster, limit = self._cluster, self._cluster.source.quota.requests_per_minute
        items = next_items(self._plan, self._left, calls_of_a_batch(self._expected_calls, workers))
        if not items:
            return None
        stored = {item.execution.execution_id: await read_stored(self._stored, item) for item in items}
        return Batch(
            run_id=cluster.run_id,
            items=tuple(items),
            stored={key: value for key, value in stored.items() if value},
            api=cluster.api,
            how=cluster.how,
            requests_per_minute=None if limit is None else max(1, limit // workers),
            seconds=cluster.seconds,
        )

    async def _take_answer(self, future: Any) -> None:
        answer = await _answer(future)
        batch = self._batches.pop(future)  # not before: a cancellation must still get what arrived
        # To the end: it may be all that its worker has fetched in a long time.
        await to_the_end(self._note(batch, answer))
        self._failures_in_a_row = self._failures_in_a_row + 1 if answer.bug else 0
        if answer.error is not None:
            raise answer.error
        if self._failures_in_a_row >= _MOST_FAILURES_IN_A_ROW:
            raise SourceUnavailableError(
                f"{_MOST_FAILURES_IN_A_ROW} batches in a row failed on the Dask workers, last: {answer.bug}"
            )

    async def _note(self, batch: Batch, answer: Answer) -> None:
        self.counts.add(answer.counts)
        self._cluster.source.traffic.add(answer.traffic)
        left = {item.execution.execution_id: item for item in batch.items}
        self._left.extend(left.pop(execution_id) for execution_id in answer.not_begun)
        for bundle in answer.bundles:
            await self._take(bundle)
            if bundle.part_of is None:
                left.pop(bundle.execution.execution_id, None)
        if answer.bug:  # something in one of these may be what it fails of, tomorrow as well
            for item in left.values():
                await self._take(flatten(given_up(item, f"its Dask worker failed: {answer.bug}")))

    async def _look_after_the_cluster(self) -> None:
        """Raise when the scheduler, or each of its workers, has been gone for a while: their batches would never arrive."""
        now = asyncio.get_running_loop().time
        seen_at = now()
        while now() - seen_at < _WITHOUT_WORKERS_SECONDS:
            with suppress(Exception):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    seen_at = now() if await self._client.nthreads() else seen_at
            await asyncio.sleep(_LOOK_SECONDS)
        raise SourceUnavailableError(
            f"the Dask scheduler at {self._cluster.address} is gone, or all of its workers are: start them, and run again"
        )

    async def _stop(self) -> None:
        """Let the workers stop, and take what has arrived there; one that is silent must not cost what the others have."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                telling = self._client.run(worker.stop, self._cluster.run_id, on_error="ignore")
                ends = (future.exception() for future in self._batches)
                await asyncio.gather(telling, *ends, return_exceptions=True)
        for future in [each for each in self._batches if each.done()]:
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    answer = await _answer(future)
            except Exception:  # noqa: BLE001, S112 the run ends already, and says why
                continue
            await self._note(self._batches.pop(future), answer)
        with suppress(Exception):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._client.cancel([*self._batches])


async def _answer(future: Any) -> Answer:
    """What came of the batch.

    Raises:
        CancelledError: the scheduler has lost it.
        ConfigurationError: its worker has another version of the exporter, or no keys.
    """
    error = await future.exception()
    if isinstance(error, ExporterError):
        raise ConfigurationError(f"a Dask worker cannot fetch: {_told(error)}")
    if error is not None:
        return Answer(bug=_told(error))
    answer: Answer = pickle.loads(await future.result())  # noqa: S301 Dask's own messages are pickles
    future.release()
    return answer


def _told(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, KilledWorker):
        last = error.last_worker.address
        return f"{error.allowed_failures + 1} workers died while they fetched it; see the log of the last, {last}"
    text = str(error).partition("\n")[0]
    return text if isinstance(error, ExporterError) else f"{type(error).__name__}: {text}"
