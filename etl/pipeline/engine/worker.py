"""Batches for workers: what one is sent, what it does in its process, and what it answers. It never writes to a dataset.

It fetches with the ordinary client and flattens, one batch at a time: the rate limit is shared by processes, not by threads. The
keys come from the worker's environment, and no batch or answer holds one.
"""

import asyncio
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import Any

from etl.errors import ConfigurationError, ExporterError, leaves
from etl.extract.client import Client
from etl.extract.plan import Planned
from etl.extract.quota import Quota
from etl.extract.settling import Counts
from etl.extract.transport import Traffic
from etl.model.lifecycle import StoredCalls
from etl.pipeline.engine.this_process import Here
from etl.settings import Settings
from etl.settings.api_keys import read_api_key, read_proxy_credentials
from etl.settings.sections import Api
from etl.transform.flatten import FlatBundle
from etl.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Executions for one worker; ``requests_per_minute`` is its share of the rate limit, None while no limit is known."""

    run_id: str
    items: tuple[Planned, ...]
    stored: Mapping[str, StoredCalls]
    api: Api
    include_raw: bool
    requests_per_minute: int | None


@dataclass(slots=True)
class BatchAnswer:
    """What came of a batch: bundles in the order in which they arrived. ``error`` is why the worker could not go on."""

    bundles: list[FlatBundle] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    traffic: Traffic = field(default_factory=Traffic)
    error: ExporterError | None = None


def next_items(plan: Iterable[Planned], calls: int) -> list[Planned]:
    """The next whole executions of the plan, with about so many calls."""
    items: list[Planned] = []
    plan = iter(plan)
    while calls > 0 and (item := next(plan, None)) is not None:
        items.append(item)
        calls -= item.estimated_calls + 1
    return items


def fetch_batch(version: str, packed: bytes) -> bytes:
    """Fetch a pickled ``Batch`` and return its pickled ``BatchAnswer``; errors as for ``require_fit``."""
    _refuse_another(version)
    return pickle.dumps(_session().fetch(pickle.loads(packed)))  # noqa: S301 Dask's own messages are pickles


def stop(run_id: str) -> None:
    """Let the run's batches end here at once; what has arrived is answered."""
    _session().stop(run_id)


def require_fit(version: str) -> None:
    """Refuse to fetch where this worker has another version of the exporter, or no keys."""
    _refuse_another(version)
    _keys()


def _refuse_another(version: str) -> None:
    if version != __version__:
        raise ConfigurationError(
            f"it runs version {__version__} of metrics-etl, this machine {version}: install the same version"
        )


def _keys() -> dict[str, Any]:
    keys = {"api_key": read_api_key("FI_API_KEY"), "secret_key": read_api_key("FI_SECRET_KEY")}
    return keys | read_proxy_credentials()


class _Session:
    """What this process remembers from batch to batch: what each run may send, and which are over."""

    def __init__(self) -> None:
        self._turn = Lock()
        self._quotas: dict[str, Quota] = {}
        self._stopped: set[str] = set()
        self._running: tuple[str, asyncio.Task[None]] | None = None

    def fetch(self, batch: Batch) -> BatchAnswer:
        """Fetch the batch; what arrived before an error is in the answer, too."""
        with self._turn:
            return asyncio.run(self._fetch(batch))

    def stop(self, run_id: str) -> None:
        """Stop the run's batch, and those that wait for their turn; called from another thread."""
        self._stopped.add(run_id)
        running_id, task = self._running or (None, None)
        if task is not None and running_id == run_id:
            task.get_loop().call_soon_threadsafe(task.cancel)

    async def _fetch(self, batch: Batch) -> BatchAnswer:
        answer = BatchAnswer()

        async def crawl() -> None:
            async with client:
                await fetching.run()

        async def take(bundle: FlatBundle) -> None:
            answer.bundles.append(bundle)

        async def stored(item: Planned) -> StoredCalls:
            return batch.stored[item.execution.execution_id]

        settings = Settings.model_validate({"run_tests": "all", "api": batch.api, **_keys()})
        client = Client(settings, quota=self._quota(batch))
        fetching = Here(client, batch.items, take, stored, batch.api, include_raw=batch.include_raw)
        task = asyncio.get_running_loop().create_task(crawl())
        self._running = batch.run_id, task
        if batch.run_id in self._stopped:  # it was stopped before it could be told
            task.cancel()
        try:
            await asyncio.wait([task])
        finally:
            self._running = None
        if not task.cancelled() and (failure := task.exception()) is not None:
            error = next(leaves(failure))
            if not isinstance(error, ExporterError):
                raise error
            answer.error = error
        answer.bundles += fetching.arrived()
        answer.counts, answer.traffic = fetching.counts, client.traffic
        return answer

    def _quota(self, batch: Batch) -> Quota:
        """That of the run: what another was told, configured or has learned is not true of it."""
        quota = self._quotas.setdefault(batch.run_id, Quota(share=batch.api.quota_share))
        if batch.requests_per_minute is not None:
            quota.limit_to(batch.requests_per_minute)
        return quota


@cache
def _session() -> _Session:
    """One for the process."""
    return _Session()
