"""Fetch on the workers of a Dask cluster that is already there: this process lists and plans, and it alone commits.

A batch of whole executions is one task. Dask gives a batch whose worker was lost to another worker, a few times. No
task holds a key: each worker has those of its environment.
"""

import asyncio
import logging
import pickle
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, as_completed
from distributed.scheduler import KilledWorker

from etl.errors import ConfigurationError, ExporterError, SourceUnavailableError
from etl.extract.client import Client as SourceClient
from etl.extract.plan import Planned
from etl.extract.settling import Counts, ReadStored
from etl.pipeline.engine import worker
from etl.pipeline.engine.interface import Crawler, Take
from etl.pipeline.engine.worker import Batch, BatchAnswer, next_items
from etl.pipeline.tasks import to_the_end
from etl.settings import Settings
from etl.transform.flatten import FlatBundle
from etl.version import __version__

_CALLS_OF_A_BATCH = 500
"""With its bundles, a batch must fit into the memory of its worker, and a few of them into that of this process."""
_BATCHES_PER_WORKER = 2
"""One that is fetched, and one that waits for it."""
_CONNECT_SECONDS = 10.0
"""How long the scheduler may take to answer."""
_WITHOUT_WORKERS_SECONDS = 60.0
"""How long the scheduler, or all workers, may be gone."""
_LOOK_SECONDS = 1.0
"""How often a crawl looks whether they are there."""
_STOP_SECONDS = 5.0
"""How long a run that ends waits for what has arrived at the workers, and then for each answer."""


def be_silent() -> None:
    """Let Dask write nothing to stderr: errors that matter are raised, and a command's log has one event a line."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"distributed\.")


@asynccontextmanager
async def cluster(settings: Settings, source: SourceClient, run_id: str) -> AsyncIterator[Crawler]:
    """The engine on a cluster. Its workers share the rate limit of the ``source``; what they send counts as sent by it.

    Raises:
        SourceUnavailableError: no scheduler with workers answers at the configured address.
        ConfigurationError: the address is not that of a scheduler, or one of its workers cannot fetch.
    """
    address = settings.engine.address or ""
    client = Client(address, asynchronous=True, set_as_default=False, timeout=_CONNECT_SECONDS, name="metrics-etl")
    try:
        await _require_fit_workers(client, address)
        yield lambda plan, take, stored: _DaskCrawl(settings, source, run_id, client, iter(plan), take, stored)
    finally:
        await client.close()


async def _require_fit_workers(client: Any, address: str) -> None:
    try:
        async with asyncio.timeout(_WITHOUT_WORKERS_SECONDS):
            await client
            await client.wait_for_workers(1)
            answers = await client.run(worker.require_fit, __version__, on_error="return")
    except (OSError, TimeoutError):
        raise SourceUnavailableError(
            f"there is no Dask scheduler with workers at {address}. "
            "Start both (dask scheduler, dask worker), or check [engine] address"
        ) from None
    except Exception as error:  # noqa: BLE001 Dask raises many kinds: for no address, no certificate, another server
        raise ConfigurationError(
            f"no Dask scheduler can be reached at [engine] address {address!r}: {_in_one_line(error)}"
        ) from None
    for worker_address, answer in answers.items():
        if isinstance(answer, Exception):
            raise ConfigurationError(f"the Dask worker at {worker_address} cannot fetch: {_in_one_line(answer)}")


@dataclass(slots=True)
class _DaskCrawl:
    """A crawl whose executions are fetched in batches by the workers, as ``EngineCrawl`` promises."""

    settings: Settings
    """Those of the run; what a worker needs of them is in each batch."""
    source: SourceClient
    """The run's own client: it gives the rate limit, and counts what the workers sent."""
    run_id: str
    """The ``export_run_id``, by which workers know what belongs together."""
    client: Any
    """The connection to the scheduler."""
    plan: Iterator[Planned]
    """What is still to be fetched."""
    take: Take
    """Gets each bundle."""
    stored: ReadStored
    """Reads what the dataset holds of an execution; it is sent with the batch."""
    counts: Counts = field(default_factory=Counts)
    """What all batches that have answered found and spared."""
    under_way: set[Any] = field(default_factory=set)
    """The futures of batches that were sent and whose answers were not taken yet."""

    async def run(self) -> None:
        """Fetch everything that is planned; errors as for ``EngineCrawl.run`` and ``_answer_of``."""
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._raise_once_cluster_is_gone())
                await self._fetch()
                watching.cancel()
        finally:
            if self.under_way:
                await to_the_end(self._stop())

    def arrived(self, _listed_before: float) -> Iterable[FlatBundle]:
        """Nothing: a batch arrives once all of its executions are whole."""
        return ()

    async def _fetch(self) -> None:
        """Send batches, and take their answers as they come."""
        try:
            completed = as_completed([], loop=self.client.loop)
            await self._fill(completed)
            async for future in completed:
                await self._take_answer(future)
                await self._fill(completed)
        except Exception as error:
            # An OSError is Dask's: a disk's is a DestinationError. A client without its scheduler fails in many ways.
            is_gone = isinstance(error, CancelledError | OSError) or self.client.status != "running"
            if isinstance(error, ExporterError) or not is_gone:
                raise
            address = self.settings.engine.address
            raise SourceUnavailableError(f"the Dask scheduler at {address} is gone. Start it, and run again") from None

    async def _fill(self, completed: Any) -> None:
        """Send so many batches that no worker waits, and no more, because their answers must fit into memory."""
        workers = len(await self.client.nthreads()) or 1
        while len(self.under_way) < workers * _BATCHES_PER_WORKER:
            batch = await self._next_batch(workers)
            if batch is None:
                return
            future = self.client.submit(worker.fetch_batch, __version__, pickle.dumps(batch), pure=False)
            self.under_way.add(future)
            completed.add(future)

    async def _next_batch(self, workers: int) -> Batch | None:
        """The next batch for one of so many workers; None when everything was sent."""
        items = next_items(self.plan, _CALLS_OF_A_BATCH)
        if not items:
            return None
        limit = self.source.quota.requests_per_minute
        return Batch(
            run_id=self.run_id,
            items=tuple(items),
            stored={item.execution.execution_id: await self.stored(item) for item in items},
            api=self.settings.api,
            export=self.settings.export,
            requests_per_minute=None if limit is None else max(1, limit // workers),
        )

    async def _take_answer(self, future: Any) -> None:
        """Hand over what came of a batch, and raise the error that ended it."""
        answer = await _answer_of(future)
        self.under_way.remove(future)  # not before: after a cancellation, ``_stop`` takes the answer
        # To the end, because it may be all that a worker has fetched in a long time.
        await to_the_end(self._note(answer))
        if answer.error is not None:
            raise answer.error

    async def _note(self, answer: BatchAnswer) -> None:
        self.counts.add(answer.counts)
        self.source.traffic.add(answer.traffic)
        for bundle in answer.bundles:
            await self.take(bundle)

    async def _raise_once_cluster_is_gone(self) -> None:
        """Raise if the scheduler or all of its workers have been gone for a while: their batches would never arrive."""
        now = asyncio.get_running_loop().time
        seen_at = now()
        while now() - seen_at < _WITHOUT_WORKERS_SECONDS:
            with suppress(Exception):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    if await self.client.nthreads():
                        seen_at = now()
            await asyncio.sleep(_LOOK_SECONDS)
        scheduler = f"the Dask scheduler at {self.settings.engine.address}"
        raise SourceUnavailableError(f"{scheduler} is gone, or all of its workers are. Start them, and run again")

    async def _stop(self) -> None:
        """Stop the workers and take what has arrived there. One that is silent must not cost what the others have."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                stopping = self.client.run(worker.stop, self.run_id, on_error="ignore")
                endings = (future.exception() for future in self.under_way)
                await asyncio.gather(stopping, *endings, return_exceptions=True)
        for future in [future for future in self.under_way if future.done()]:
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    answer = await _answer_of(future)
            except Exception:  # noqa: BLE001, S112 the run ends already, and says why
                continue
            await self._note(answer)


async def _answer_of(future: Any) -> BatchAnswer:
    """What came of a batch, whose future is given up.

    Raises:
        SourceUnavailableError: its workers died one after the other.
        ConfigurationError: a worker cannot fetch.
        ExporterError: a bug on a worker.
    """
    error = await future.exception()
    if isinstance(error, KilledWorker):
        deaths = f"{error.allowed_failures + 1} Dask workers died while fetching the same batch"
        raise SourceUnavailableError(f"{deaths}. See the log of the last one, {error.last_worker.address}")
    if isinstance(error, ExporterError):
        raise ConfigurationError(f"a Dask worker cannot fetch: {_in_one_line(error)}")
    if error is not None:
        raise ExporterError(f"a Dask worker hit a bug in metrics-etl. Please report it: {_in_one_line(error)}")
    answer: BatchAnswer = pickle.loads(await future.result())  # noqa: S301 Dask's own messages are pickles
    future.release()
    return answer


def _in_one_line(error: BaseException) -> str:
    """The first line of an error, with its type unless its words are the exporter's own."""
    text = str(error).partition("\n")[0]
    return text if isinstance(error, ExporterError) else f"{type(error).__name__}: {text}"
