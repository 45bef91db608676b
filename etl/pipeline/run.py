"""What the steps of one run share, and none of them changes: settings, services, the time at which it began."""

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from etl.errors import ConfigurationError
from etl.extract.client import Client
from etl.extract.plan import Policy
from etl.load.dataset import Dataset
from etl.load.files.open import open_files
from etl.model.lifecycle import LONG_AGO
from etl.pipeline.engine.contract import Engine, How
from etl.pipeline.engine.here import ThisProcess
from etl.pipeline.progress import Notify, Progress
from etl.settings import Settings
from etl.transform.frames import ExportStamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. Its steps are functions that take it and return what they found or did."""

    settings: Settings
    policy: Policy
    accept_deletions: bool
    export_run_id: str
    started_at: datetime
    clock: Callable[[], datetime]
    dataset: Dataset
    client: Client
    engine: Engine
    progress: Progress
    notify: Notify
    stamped: deque[datetime] = field(default_factory=lambda: deque([LONG_AGO], maxlen=1))

    def by_source(self, moment: datetime) -> datetime:
        """A time of our clock by the source's, as far as it has told; never later than now, if our clock was set back since."""
        return min(moment, self.clock()) + (self.client.traffic.clock_offset or timedelta(0))

    def settled_before(self, moment: datetime) -> datetime:
        """Before when, by the source's clock, something must have changed for it to be settled at this moment of ours."""
        return self.by_source(moment) - timedelta(hours=self.settings.export.settle_hours)

    def stamp(self) -> ExportStamp:
        """What the rows that are written now are marked with: never a time before that of rows written earlier."""
        self.stamped.append(max(self.by_source(self.clock()), *self.stamped))
        return ExportStamp(self.export_run_id, self.stamped[-1], include_raw=self.settings.export.include_raw)


def begin(
    settings: Settings,
    *,
    full_refresh: bool,
    accept_deletions: bool,
    progress: Progress,
    notify: Notify,
    clock: Callable[[], datetime] | None,
) -> Run:
    """A run that begins now. Asks nothing and writes nothing yet.

    Raises:
        ConfigurationError: the settings hold no keys, or the package for the engine is not installed.
    """
    clock = clock or (lambda: datetime.now(UTC))
    started_at = clock()
    client = Client(settings, on_hold=lambda seconds: notify("held", seconds=round(seconds, 1)))
    progress.traffic, progress.quota = client.traffic, client.quota
    run_id = f"{started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    how = How(
        concurrency=settings.api.concurrency,
        page_limit=settings.api.page_limit,
        include_raw=settings.export.include_raw,
    )
    return Run(
        settings=settings,
        policy=Policy(
            fetch_unfinished=settings.export.calls == "all",
            full_refresh=full_refresh,
            settle_by_detail=settings.export.settle_by == "detail",
        ),
        accept_deletions=accept_deletions,
        export_run_id=run_id,
        started_at=started_at,
        clock=clock,
        dataset=Dataset(
            open_files(settings.destination.path, settings.destination.options),
            compression=settings.destination.compression,
        ),
        client=client,
        engine=_open_engine(settings, how, client, run_id),
        progress=progress,
        notify=notify,
    )


def _open_engine(settings: Settings, how: How, client: Client, run_id: str) -> Engine:
    """The engine for a run. It connects to nothing yet.

    Raises:
        ConfigurationError: the package for the engine is not installed.
    """
    if settings.engine.kind == "asyncio":
        return ThisProcess(client, how)
    cluster: Engine = dask_module().DaskCluster(settings, how, client, run_id)
    return cluster


def dask_module() -> Any:
    """The module of the engine on Dask, its package imported.

    Raises:
        ConfigurationError: the package is not installed.
    """
    try:
        import etl.pipeline.engine.dask as module  # noqa: PLC0415 imported on use, where its package is installed
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"[engine] kind: dask needs the extra dask ({error.name} is not installed): "
            "pip install 'simulation-metrics-etl[dask]'"
        ) from None
    return module
