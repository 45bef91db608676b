"""Batches for workers: what a worker gets, does in its process, and answers. It never writes to a dataset.

It fetches with the ordinary client and flattens, one batch at a time: processes share the rate limit, threads would
not. The keys come from the worker's environment. No batch and no answer holds one.
"""

import asyncio
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

from etl.errors import ConfigurationError, ExporterError, leaves
from etl.extract.client import Client
from etl.extract.plan import Planned
from etl.extract.quota import Quota
from etl.extract.settling import Counts, Settling
from etl.extract.transport import Traffic
from etl.extract.voice_list import VoiceLists
from etl.model.lifecycle import StoredCalls
from etl.pipeline.engine.this_process import LocalCrawl
from etl.settings import Settings
from etl.settings.api_keys import read_api_key, read_proxy_credentials
from etl.settings.sections import Api, Export
from etl.transform.flatten import FlatBundle
from etl.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Executions for one worker, with all that it needs to fetch them but the keys."""

    run_id: str
    """The ``export_run_id``; what a worker remembers of a run, it remembers by this."""
    items: tuple[Planned, ...]
    """The executions to fetch, most valuable first."""
    stored: Mapping[str, StoredCalls]
    """What the dataset holds of each execution, by execution_id."""
    api: Api
    """The settings of the API, which hold no key."""
    export: Export
    """The settings of what is exported."""
    requests_per_minute: int | None
    """The worker's share of the rate limit; None while no limit is known."""


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """What came of a batch, also of one that ended early."""

    bundles: list[FlatBundle]
    """What arrived, in this order; after an early end, also pieces of executions."""
    counts: Counts
    """What the crawl found and spared."""
    traffic: Traffic
    """The requests that were sent for the batch."""
    error: ExporterError | None
    """Why the worker could not go on; None if it fetched everything, or was stopped."""


def next_items(plan: Iterable[Planned], calls: int) -> list[Planned]:
    """The next executions of the plan, as many as have about so many ``calls`` together; none at its end.

    An execution counts as one call more than it has, so that executions without calls fill a batch, too.
    """
    items: list[Planned] = []
    plan = iter(plan)
    while calls > 0 and (item := next(plan, None)) is not None:
        items.append(item)
        calls -= item.estimated_calls + 1
    return items


def fetch_batch(version: str, packed: bytes) -> bytes:
    """Fetch a pickled ``Batch`` and return its pickled ``BatchAnswer``. Errors of the source are in the answer.

    Raises:
        ConfigurationError: as for ``require_fit``. Any other error is a bug.
    """
    require_fit(version)
    return pickle.dumps(_session().fetch(pickle.loads(packed)))  # noqa: S301 Dask's own messages are pickles


def stop(run_id: str) -> None:
    """End the run's batches in this process, those that are waiting, too; they answer with what has arrived."""
    _session().stop(run_id)


def require_fit(version: str) -> None:
    """Make sure that this process can fetch for an exporter of this version.

    Raises:
        ConfigurationError: this process has another version of the exporter, or no keys.
    """
    if version != __version__:
        raise ConfigurationError(
            f"it runs metrics-etl {__version__}, but this machine runs {version}. Install the same version"
        )
    _keys()


def _keys() -> dict[str, Any]:
    """The keys, and the credentials of a proxy, as fields of the settings."""
    keys = {"api_key": read_api_key("FI_API_KEY"), "secret_key": read_api_key("FI_SECRET_KEY")}
    return keys | read_proxy_credentials()


class _Session:
    """What this process remembers from batch to batch: what each run may send, and which runs were stopped."""

    def __init__(self) -> None:
        self._turn = Lock()
        self._quotas: dict[str, Quota] = {}
        self._stopped: set[str] = set()
        self._running: dict[str, asyncio.Task[None]] = {}  # one at most, by its run

    def fetch(self, batch: Batch) -> BatchAnswer:
        """Fetch the batch once those before it have ended; what arrived before an error is in the answer, too."""
        with self._turn:
            return asyncio.run(self._fetch(batch))

    def stop(self, run_id: str) -> None:
        """Stop the run's batch, and those that wait for their turn; called from another thread."""
        self._stopped.add(run_id)
        if task := self._running.get(run_id):
            task.get_loop().call_soon_threadsafe(task.cancel)

    async def _fetch(self, batch: Batch) -> BatchAnswer:
        bundles: list[FlatBundle] = []
        error: ExporterError | None = None

        async def crawl() -> None:
            async with client:
                await local_crawl.run()

        async def take(bundle: FlatBundle) -> None:
            bundles.append(bundle)

        async def stored(item: Planned) -> StoredCalls:
            return batch.stored[item.execution.execution_id]

        settings = Settings.model_validate({"run_tests": "all", "api": batch.api, "export": batch.export, **_keys()})
        client = Client(settings, quota=self._quota(batch))
        settling = Settling(client, stored, VoiceLists(client))
        local_crawl = LocalCrawl(settling, batch.items, take, batch.api, include_raw=batch.export.include_raw)
        task = asyncio.get_running_loop().create_task(crawl())
        self._running[batch.run_id] = task
        if batch.run_id in self._stopped:  # it was stopped before ``stop`` could cancel the task
            task.cancel()
        try:
            await asyncio.wait([task])
        finally:
            del self._running[batch.run_id]
        if not task.cancelled() and (failure := task.exception()) is not None:
            leaf = next(leaves(failure))
            if not isinstance(leaf, ExporterError):
                raise leaf
            error = leaf
        return BatchAnswer([*bundles, *local_crawl.arrived()], local_crawl.counts, client.traffic, error)

    def _quota(self, batch: Batch) -> Quota:
        """The quota of the batch's run; what another run has set or learned does not hold for it."""
        quota = self._quotas.setdefault(batch.run_id, Quota(share=batch.api.quota_share))
        if batch.requests_per_minute is not None:
            quota.limit_to(batch.requests_per_minute)
        return quota


@cache
def _session() -> _Session:
    """The only session of this process, which outlives its batches."""
    return _Session()
