"""What the steps of one run share: settings, services, when the run began, and its progress for the display."""

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from etl.dataset.parts import Dataset
from etl.errors import needs_extra
from etl.extract.client import Client
from etl.extract.endpoints import Purpose
from etl.extract.plan import Planned, Policy
from etl.extract.quota import Quota
from etl.extract.transport import Traffic
from etl.files.open import open_files
from etl.model.lifecycle import LONG_AGO
from etl.pipeline.engine.interface import Engine
from etl.pipeline.engine.this_process import this_process
from etl.settings import Settings
from etl.transform.frames import ExportStamp

Notify = Callable[..., None]
"""Called with the name of an event and its fields."""


@dataclass(slots=True)
class Progress:
    """How far a run is, to be shown; updated while it runs. It decides nothing."""

    listed_executions: int = 0
    """How many executions all lists that were read have."""
    planned_executions: int = 0
    """How many of them are fetched."""
    planned_requests: int = 0
    """How many requests that takes: an estimate, which deleted calls and retries may change a little."""
    committed_executions: int = 0
    """How many of these have arrived, and are saved."""
    previews: list[Planned] = field(default_factory=list)
    """The executions that are stored from their lists first."""
    previewed: int = 0
    """How many of these were."""
    traffic: Traffic = field(default_factory=Traffic)
    """The client's: what was sent."""
    quota: Quota = field(default_factory=Quota)
    """The client's: what may be sent."""
    crawl_began_at: float | None = None
    """When the first request for calls could be sent, by ``monotonic``; None before that."""

    @property
    def done_requests(self) -> int:
        """Planned requests that were sent, each of them once; each execution that is to come has one left at least."""
        sent = self.traffic.requests - self.traffic.requests_by_purpose[Purpose.LIST] - self.traffic.retries
        to_come = max(0, self.planned_executions - self.committed_executions)
        return max(0, min(self.planned_requests - to_come, sent))

    def seconds_left(self, now: float) -> float | None:
        """How long the rest takes, by the rate limit or the pace so far, whichever is slower; None if neither is known.

        ``now`` is a time of ``monotonic``.
        """
        done = self.done_requests
        left = self.planned_requests - done
        estimates = [(now - self.crawl_began_at) * left / done] if done and self.crawl_began_at is not None else []
        if (allowed := self.quota.seconds_for(left, now)) is not None:
            estimates.append(allowed)
        return max(estimates, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. Its steps are functions that take it and return what they found or did."""

    settings: Settings
    """The settings, narrowed by the options of the command."""
    policy: Policy
    """What they mean for the plan."""
    accept_deletions: bool
    """--accept-deletions: the dataset's executions may all be gone."""
    export_run_id: str
    """Names the run in every row that it writes."""
    started_at: datetime
    """When the run began, by our clock."""
    clock: Callable[[], datetime]
    """Our clock."""
    dataset: Dataset
    """Where rows are written."""
    client: Client
    """Sends requests."""
    engine: Engine
    """Fetches what is planned: in this process, or on a cluster."""
    progress: Progress
    """How far the run is."""
    notify: Notify
    """Tells events as they happen."""
    stamped: deque[datetime] = field(default_factory=lambda: deque([LONG_AGO], maxlen=1))
    """The latest time that rows were stamped with."""

    @property
    def settle(self) -> timedelta:
        """How long late data may come: the setting ``settle_hours``."""
        return timedelta(hours=self.settings.export.settle_hours)

    def by_source(self, moment: datetime) -> datetime:
        """A time of our clock by the source's, as far as its answers have told.

        It is never later than now, though our clock may have been set back since.
        """
        return min(moment, self.clock()) + (self.client.traffic.clock_offset or timedelta(0))

    def settled_before(self, moment: datetime) -> datetime:
        """What has not changed since this time of the source's clock has settled at the given moment of ours."""
        return self.by_source(moment) - self.settle

    def after_stamps(self) -> datetime:
        """A time by the source's clock: after that of all rows written so far, and not after that of later ones."""
        self.stamped.append(max(self.by_source(self.clock()), self.stamped[-1] + timedelta(microseconds=1)))
        return self.stamped[-1]

    def stamp(self) -> ExportStamp:
        """What the rows that are written now are marked with: never a time before that of rows written earlier."""
        self.stamped.append(max(self.by_source(self.clock()), *self.stamped))
        return ExportStamp(self.export_run_id, self.stamped[-1], include_raw=self.settings.export.include_raw)


def new_run_id(started_at: datetime) -> str:
    """An id for what begins at this time, by this machine's clock: ids sort by it."""
    return f"{started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def begin(
    settings: Settings,
    *,
    full_refresh: bool,
    accept_deletions: bool,
    progress: Progress | None = None,
    notify: Notify | None = None,
    clock: Callable[[], datetime] | None = None,
) -> Run:
    """A run that begins now. Asks nothing and writes nothing yet."""
    progress = progress or Progress()
    notify = notify or (lambda _event, **_fields: None)
    clock = clock or (lambda: datetime.now(UTC))
    started_at = clock()
    client = Client(settings, on_hold=lambda seconds: notify("held", seconds=round(seconds, 1)))
    progress.traffic, progress.quota = client.traffic, client.quota
    destination = settings.destination
    run_id = new_run_id(started_at)
    return Run(
        settings=settings,
        policy=Policy(
            fetch_unfinished=settings.export.calls == "all",
            full_refresh=full_refresh,
            settle_by_detail=settings.export.settle_by == "detail",
            reads_voice_calls=settings.export.metrics == "exact" and not settings.export.include_raw,
            detail_suffices=settings.export.metrics == "listed",
        ),
        accept_deletions=accept_deletions,
        export_run_id=run_id,
        started_at=started_at,
        clock=clock,
        dataset=Dataset(open_files(destination.path, destination.options), compression=destination.compression),
        client=client,
        engine=(
            this_process(client, settings.api, include_raw=settings.export.include_raw)
            if settings.engine.kind == "asyncio"
            else dask_module().cluster(settings, client, run_id)
        ),
        progress=progress,
        notify=notify,
    )


def dask_module() -> Any:
    """The module of the engine on Dask, its package imported.

    Raises:
        ConfigurationError: the package is not installed.
    """
    try:
        import etl.pipeline.engine.dask as module  # noqa: PLC0415 imported on use, where its package is installed
    except ModuleNotFoundError as exc:
        raise needs_extra('[engine] kind = "dask"', "dask", exc) from None
    return module
