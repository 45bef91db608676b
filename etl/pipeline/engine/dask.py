"""Fetch on the workers of a Dask cluster that is already there: this process lists, plans, and alone commits.

A batch of whole executions is one task. Dask gives a batch whose worker was lost to another one, a few times. No key is in a task:
each worker has those of its environment.
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
from etl.extract.settling import Counts, Stored
from etl.pipeline.engine import worker
from etl.pipeline.engine.interface import Crawler, Take
from etl.pipeline.engine.worker import Batch, BatchAnswer, next_items
from etl.pipeline.tasks import to_the_end
from etl.settings import Settings
from etl.transform.flatten import FlatBundle
from etl.version import __version__

_CALLS_OF_A_BATCH = 500
_BATCHES_PER_WORKER = 2  # one that is fetched, and one that waits for it
_CONNECT_SECONDS = 10.0
_WITHOUT_WORKERS_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_STOP_SECONDS = 5.0


def be_silent() -> None:
    """Let Dask write nothing to stderr: what matters of its errors is raised, and a command's log has one event a line."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"distributed\.")


@asynccontextmanager
async def cluster(settings: Settings, source: SourceClient, run_id: str) -> AsyncIterator[Crawler]:
    """The engine on a cluster, whose workers share the rate limit of the ``source``; what they send counts as sent by it.

    An error says what is not so, unless the scheduler is there and its workers can all fetch.
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
            f"no Dask scheduler with workers answers at {address}: start both (dask scheduler, dask worker), or check [engine] "
            "address"
        ) from None
    except Exception as error:  # noqa: BLE001 no address, TLS without a certificate, another server: any error of Dask's
        raise ConfigurationError(
            f"[engine] address: no Dask scheduler can be reached at {address!r}: {_told(error)}"
        ) from None
    for each, answer in answers.items():
        if isinstance(answer, Exception):
            raise ConfigurationError(f"the Dask worker at {each} cannot fetch: {_told(answer)}")


@dataclass(slots=True)
class _DaskCrawl:
    settings: Settings
    source: SourceClient
    run_id: str
    client: Any
    plan: Iterator[Planned]
    take: Take
    stored: Stored
    counts: Counts = field(default_factory=Counts)
    under_way: set[Any] = field(default_factory=set)

    async def run(self) -> None:
        """Fetch everything; errors as for ``Crawl.run`` and ``_answer``."""
        try:
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(self._look_after_the_cluster())
                await self._fetch()
                looking.cancel()
        finally:
            if self.under_way:
                await to_the_end(self._stop())

    def arrived(self, _listed_before: float) -> Iterable[FlatBundle]:
        """Nothing: a batch arrives with whole executions."""
        return ()

    async def _fetch(self) -> None:
        try:
            completed = as_completed([], loop=self.client.loop)
            await self._fill(completed)
            async for future in completed:
                await self._take_answer(future)
                await self._fill(completed)
        except Exception as error:
            # Of Dask: a disk's OSError is a DestinationError. A client that has given up its scheduler fails in many ways.
            is_gone = isinstance(error, CancelledError | OSError) or self.client.status != "running"
            if isinstance(error, ExporterError) or not is_gone:
                raise
            address = self.settings.engine.address
            raise SourceUnavailableError(f"the Dask scheduler at {address} is gone: start it, and run again") from None

    async def _fill(self, completed: Any) -> None:
        """Keep each worker busy, and no more batches under way than that takes: their answers must fit into memory."""
        workers = len(await self.client.nthreads()) or 1
        while len(self.under_way) < workers * _BATCHES_PER_WORKER:
            batch = await self._next_batch(workers)
            if batch is None:
                return
            future = self.client.submit(worker.fetch_batch, __version__, pickle.dumps(batch), pure=False)
            self.under_way.add(future)
            completed.add(future)

    async def _next_batch(self, workers: int) -> Batch | None:
        settings, limit = self.settings, self.source.quota.requests_per_minute
        items = next_items(self.plan, _CALLS_OF_A_BATCH)
        if not items:
            return None
        return Batch(
            run_id=self.run_id,
            items=tuple(items),
            stored={item.execution.execution_id: await self.stored(item) for item in items},
            api=settings.api,
            include_raw=settings.export.include_raw,
            requests_per_minute=None if limit is None else max(1, limit // workers),
        )

    async def _take_answer(self, future: Any) -> None:
        answer = await _answer(future)
        self.under_way.remove(future)  # not before: a cancellation must still get what arrived
        # To the end: it may be all that its worker has fetched in a long time.
        await to_the_end(self._note(answer))
        if answer.error is not None:
            raise answer.error

    async def _note(self, answer: BatchAnswer) -> None:
        self.counts.add(answer.counts)
        self.source.traffic.add(answer.traffic)
        for bundle in answer.bundles:
            await self.take(bundle)

    async def _look_after_the_cluster(self) -> None:
        """Raise when the scheduler, or each of its workers, has been gone for a while: their batches would never arrive."""
        now = asyncio.get_running_loop().time
        seen_at = now()
        while now() - seen_at < _WITHOUT_WORKERS_SECONDS:
            with suppress(Exception):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    seen_at = now() if await self.client.nthreads() else seen_at
            await asyncio.sleep(_LOOK_SECONDS)
        raise SourceUnavailableError(
            f"the Dask scheduler at {self.settings.engine.address} is gone, or all of its workers are: start them, and run again"
        )

    async def _stop(self) -> None:
        """Let the workers stop, and take what has arrived there; one that is silent must not cost what the others have."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                telling = self.client.run(worker.stop, self.run_id, on_error="ignore")
                ends = (future.exception() for future in self.under_way)
                await asyncio.gather(telling, *ends, return_exceptions=True)
        for future in filter(lambda each: each.done(), self.under_way):
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    answer = await _answer(future)
            except Exception:  # noqa: BLE001, S112 the run ends already, and says why
                continue
            await self._note(answer)


async def _answer(future: Any) -> BatchAnswer:
    """What came of the batch; an error where the scheduler has lost it, its workers died, or one has a bug or cannot fetch."""
    error = await future.exception()
    if isinstance(error, KilledWorker):
        last = error.last_worker.address
        raise SourceUnavailableError(
            f"{error.allowed_failures + 1} workers died while fetching the same batch; see the log of the last one, {last}"
        )
    if isinstance(error, ExporterError):
        raise ConfigurationError(f"a Dask worker cannot fetch: {_told(error)}")
    if error is not None:
        raise ExporterError(f"this is a bug in metrics-etl on a Dask worker, please report it: {_told(error)}")
    answer: BatchAnswer = pickle.loads(await future.result())  # noqa: S301 Dask's own messages are pickles
    future.release()
    return answer


def _told(error: BaseException) -> str:
    """The error in one line."""
    text = str(error).partition("\n")[0]
    return text if isinstance(error, ExporterError) else f"{type(error).__name__}: {text}"
