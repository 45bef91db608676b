"""What runs in a worker's process: fetch a batch with the ordinary client, flatten, answer. It never writes to a dataset.

The keys come from the worker's environment. One batch is fetched at a time: the rate limit is shared by processes, not by threads.
"""

import asyncio
import pickle
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

from etl.errors import ConfigurationError, ExporterError, leaves
from etl.extract.client import Client
from etl.extract.plan import Planned
from etl.extract.quota import Quota
from etl.pipeline.engine.batch import Answer, Batch, reader_of
from etl.pipeline.engine.here import Here
from etl.settings import Settings
from etl.settings.api_keys import read_api_key, read_proxy_credentials
from etl.transform.flatten import FlatBundle
from etl.version import __version__

_REMEMBERED_RUNS = 100


def fetch_batch(version: str, packed: bytes) -> bytes:
    """Fetch a pickled ``Batch`` and return its pickled ``Answer``; a ``version`` other than this one cannot be understood.

    Raises:
        ConfigurationError: this worker has another version of the exporter, or no keys.
    """
    _refuse_another(version)
    return pickle.dumps(_session().fetch(pickle.loads(packed)))  # noqa: S301 Dask's own messages are pickles


def stop(run_id: str) -> None:
    """Let the run's batches end here at once; what has arrived is answered."""
    _session().stop(run_id)


def require_fit(version: str) -> None:
    """Whether this worker could fetch a batch.

    Raises:
        ConfigurationError: it has another version of the exporter, or no keys.
    """
    _refuse_another(version)
    _keys()


def _refuse_another(version: str) -> None:
    if version != __version__:
        raise ConfigurationError(
            f"it has version {__version__} of the exporter, and this is {version}: install the same"
        )


def _keys() -> dict[str, Any]:
    keys = {"api_key": read_api_key("FI_API_KEY"), "secret_key": read_api_key("FI_SECRET_KEY")}
    return keys | read_proxy_credentials()


@dataclass(slots=True)
class _Running:
    run_id: str
    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[None]


class _Session:
    """What this process remembers from batch to batch: what each run may send, and which are over."""

    def __init__(self) -> None:
        self._turn = Lock()
        self._quotas: dict[str, Quota] = {}
        self._stopped: deque[str] = deque(maxlen=_REMEMBERED_RUNS)
        self._running: _Running | None = None

    def fetch(self, batch: Batch) -> Answer:
        """Fetch the batch; what arrived before an error is in the answer, too."""
        with self._turn:
            return asyncio.run(self._fetch(batch))

    def stop(self, run_id: str) -> None:
        """Stop the run's batch, and those that wait for their turn; called from another thread."""
        self._stopped.append(run_id)
        running = self._running
        if running is not None and running.run_id == run_id:
            running.loop.call_soon_threadsafe(running.task.cancel)

    async def _fetch(self, batch: Batch) -> Answer:
        answer, left, loop = Answer(), deque(batch.items), asyncio.get_running_loop()
        ends_at = loop.time() + batch.seconds

        def due() -> Iterator[Planned]:
            yield left.popleft()  # else a batch might never get anywhere
            while left and loop.time() < ends_at:
                yield left.popleft()

        async def crawl() -> None:
            async with client:
                await fetching.run()

        async def take(bundle: FlatBundle) -> None:
            answer.bundles.append(bundle)

        client = Client(
            Settings.model_validate({"run_tests": "all", "api": batch.api, **_keys()}), quota=self._quota(batch)
        )
        fetching = Here(client, due(), take, reader_of(batch.stored), batch.how)
        task = loop.create_task(crawl())
        self._running = _Running(batch.run_id, loop, task)
        if batch.run_id in self._stopped:  # it was stopped before it could be told
            task.cancel()
        try:
            await asyncio.wait([task])
        finally:
            self._running = None
        if not task.cancelled() and (failure := task.exception()) is not None:
            error = next(leaves(failure))
            if isinstance(error, ExporterError):
                answer.error = error
            else:  # in words: an exception that cannot be pickled would never arrive
                answer.bug = f"{type(error).__name__}: {error}".partition("\n")[0]
        if not answer.bug:
            answer.bundles += fetching.arrived()
        answer.not_begun = [item.execution.execution_id for item in left]
        answer.counts, answer.traffic = fetching.counts, client.traffic
        return answer

    def _quota(self, batch: Batch) -> Quota:
        """That of the run: what another was told, configured or has learned is not true of it."""
        quota = self._quotas.setdefault(batch.run_id, Quota(share=batch.api.quota_share))
        if len(self._quotas) > _REMEMBERED_RUNS:
            del self._quotas[next(iter(self._quotas))]
        if batch.requests_per_minute is not None:
            quota.limit_to(batch.requests_per_minute)
        return quota


@cache
def _session() -> _Session:
    """One for the process."""
    return _Session()
