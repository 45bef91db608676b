"""One export, composed: lock → list → plan → crawl → commit → summary. No logic of any one step."""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from etl.api.client import Access, Client, Traffic
from etl.api.endpoints import get_execution, list_executions
from etl.api.listing import Listing, list_completely
from etl.api.models import Execution, ExecutionBundle, Page
from etl.api.quota import Quota
from etl.crawl.fetch import Crawl
from etl.crawl.plan import Planned, Reason, State, Stored, order_by_worth, plan_run_test
from etl.errors import (
    ConfigurationError,
    DestinationError,
    ExporterError,
    InterruptedRunError,
    NotFoundError,
    SourceError,
    SourceUnavailableError,
    TransientError,
)
from etl.settings import RunTest, Settings
from etl.store.buffer import CommitBuffer
from etl.store.commit import commit
from etl.store.dataset import Dataset, StoredState, Written
from etl.store.files import LocalFiles
from etl.store.layout import STATE
from etl.store.lock import exclusive
from etl.summary import RunTestSummary, Summary
from etl.tables import schema
from etl.tables.digest import fingerprint
from etl.tables.flatten import Export, frame_of
from etl.tasks import leaves, to_the_end, until_stopped
from etl.version import __version__

Notify = Callable[..., None]

LAST_RUN = f"{STATE}/last_run.json"


@dataclass(slots=True)
class Progress:
    """Where a run is; grows while it runs, for whoever wants to show it."""

    listed_executions: int = 0
    planned_executions: int = 0
    planned_requests: int = 0
    committed_executions: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    crawl: Crawl | None = None

    @property
    def fetched_calls(self) -> int:
        """Calls whose metrics arrived."""
        return self.crawl.calls_fetched if self.crawl else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What an export would do: everything listed, by worth, and what could not be listed."""

    planned: Sequence[Planned]
    run_tests: Sequence[RunTestSummary]
    requests: int
    requests_per_minute: int | None


async def plan(settings: Settings, *, full_refresh: bool = False, clock: Callable[[], datetime] | None = None) -> Plan:
    """What ``export`` would fetch now, and why. Lists the executions; changes nothing.

    Raises:
        ConfigurationError, KeyRefusedError, SourceUnavailableError, DestinationError: as ``export`` would end.
    """
    run = _Run(settings, full_refresh=full_refresh, clock=clock)
    state = await asyncio.to_thread(run.load_state, set_aside=False)
    try:
        async with run.client as client:
            planned = await run.list_and_plan(client, state)
    except* ExporterError as group:
        raise _reason_to_stop(group) from None
    return Plan(
        planned=planned,
        run_tests=run.summary.run_tests,
        requests=run.progress.planned_requests,
        requests_per_minute=client.quota.requests_per_minute,
    )


async def export(
    settings: Settings,
    *,
    full_refresh: bool = False,
    progress: Progress | None = None,
    notify: Notify | None = None,
    stop: asyncio.Future[InterruptedRunError] | None = None,
    clock: Callable[[], datetime] | None = None,
) -> Summary:
    """Bring the dataset up to date with the API.

    Once it asks the API it always leaves a summary behind, unless it is cancelled: look at its ``exit_code`` and ``problems``.
    ``stop`` ends the run early, with everything committed that had arrived whole. ``full_refresh`` fetches final executions too.

    Raises:
        ConfigurationError, DestinationError: the dataset's folder cannot be used as configured; nothing was asked of the API.
        LockHeldError: another export is at work there.
    """
    run = _Run(settings, full_refresh=full_refresh, progress=progress, notify=notify, clock=clock)
    await to_the_end(run.files.prepare)
    with exclusive(run.files, now=run.started_at):
        await to_the_end(run.files.sweep_staging)
        state = await to_the_end(lambda: run.load_state(set_aside=True))
        run.notify("run_started", export_run_id=run.summary.export_run_id, dataset=run.summary.dataset)
        bug: BaseException | None = None
        try:
            async with run.client as client:
                await until_stopped(run.crawl(client, state), stop)
        except* ExporterError as group:
            run.summary.failure = _reason_to_stop(group)
        except* Exception as group:  # noqa: BLE001 recorded here, raised below
            bug = next(leaves(group))
            run.summary.failure = ExporterError(f"a bug: {type(bug).__name__}: {bug}")
        await run.conclude()
        if bug is not None:
            raise bug
    return run.summary


class _Run:
    """One run's settings, dataset and figures, and the steps that need them."""

    def __init__(
        self,
        settings: Settings,
        *,
        full_refresh: bool,
        progress: Progress | None = None,
        notify: Notify | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.settings = settings
        self.full_refresh = full_refresh
        self.clock = clock or (lambda: datetime.now(UTC))
        self.started_at = self.clock()
        self.notify = notify or _say_nothing
        self.progress = progress or Progress()
        self.files = LocalFiles(Path(settings.destination.path).expanduser())
        self.dataset = Dataset(self.files, compression=settings.destination.compression)
        self.client = _client(settings)
        self.progress.traffic = self.client.traffic
        self.summary = Summary(
            export_run_id=f"{self.started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
            version=__version__,
            dataset=settings.destination.path,
            started_at=self.started_at,
            finished_at=self.started_at,
            run_tests=[RunTestSummary(run_test.name, run_test.key) for run_test in settings.run_tests],
        )
        self._by_key = {run_test.key: run_test for run_test in self.summary.run_tests}
        self._unreachable: list[str] = []
        self._stored: dict[str, Stored] = {}
        self._written = Written()

    def load_state(self, *, set_aside: bool) -> StoredState:
        self._refuse_another_key()
        state = self.dataset.load_state([run_test.key for run_test in self.settings.run_tests], set_aside=set_aside)
        self.summary.quarantined = state.unreadable
        self._stored = {key: stored for executions in state.executions.values() for key, stored in executions.items()}
        return state

    def _refuse_another_key(self) -> None:
        """A run test whose key was changed would be exported a second time beside its old partitions."""
        names = {run_test.name: run_test.key for run_test in self.settings.run_tests}
        for key, name in self.dataset.run_test_names(except_keys=names.values()).items():
            if name in names:
                raise ConfigurationError(
                    f"run test {name!r} lies under run_test={key} in {self.files.root}, and its key is now {names[name]}: "
                    f'give it key = "{key}", or export to another destination'
                )

    async def list_and_plan(self, client: Client, state: StoredState) -> list[Planned]:
        planned: list[Planned] = []
        async with asyncio.TaskGroup() as group:
            for run_test in self.settings.run_tests:
                group.create_task(self._list_run_test(client, run_test, state, planned))
        if len(self._unreachable) == len(self.summary.run_tests):
            raise SourceUnavailableError(f"no run test could be listed: {self._unreachable[0]}")
        fetched = [item for item in planned if item.is_fetched]
        self.progress.planned_executions = len(fetched)
        self.progress.planned_requests = sum(_requests(item, self.settings.api.page_limit) for item in fetched)
        self.notify("planned", executions=self.progress.planned_executions, requests=self.progress.planned_requests)
        return order_by_worth(planned)

    async def _list_run_test(
        self, client: Client, run_test: RunTest, state: StoredState, planned: list[Planned]
    ) -> None:
        summary = self._by_key[run_test.key]
        stored = state.executions[run_test.key]
        try:
            listing = await _list_executions(client, run_test.name, stored, self.settings.api.page_limit)
        except NotFoundError:
            summary.error = "the API knows no run test of this name: check run_tests and the key's workspace"
        except SourceError as error:
            summary.error = str(error)
            if isinstance(error, TransientError):
                self._unreachable.append(str(error))
        if summary.error:
            self.notify("run_test_failed", run_test=run_test.name, error=summary.error)
            return
        mine = plan_run_test(
            listing.rows.values(),
            stored,
            run_test_name=run_test.name,
            run_test_key=run_test.key,
            now=self.started_at,
            fetch_unfinished=self.settings.export.calls == "all",
            full_refresh=self.full_refresh,
            since=run_test.since,
            stray_dates=state.stray_dates[run_test.key],
        )
        planned.extend(mine)
        summary.listed = len(listing.rows)
        summary.is_complete = listing.is_complete
        summary.not_listed = len(stored.keys() - listing.rows.keys())
        summary.reasons.update(item.reason.value for item in mine)
        self.progress.listed_executions += summary.listed
        self.notify("listed", run_test=run_test.name, executions=summary.listed, reasons=dict(summary.reasons))

    async def crawl(self, client: Client, state: StoredState) -> None:
        """List, plan, fetch and commit everything; what has arrived whole is committed even when the crawl fails."""
        planned = await self.list_and_plan(client, state)
        buffer = CommitBuffer(self._commit, interval_seconds=self.settings.export.commit_interval_seconds)
        crawl = Crawl(
            client,
            [item for item in planned if item.is_fetched],
            buffer.add,
            concurrency=self.settings.api.concurrency,
            page_limit=self.settings.api.page_limit,
        )
        self.progress.crawl = crawl
        try:
            for item in planned:
                if item.reason is Reason.WAITING and not _is_known_waiting(item):
                    await buffer.add(_without_calls(item))
            await crawl.run()
        finally:
            await buffer.flush()

    async def conclude(self) -> None:
        """Leave the summary behind: a row of the runs table, and the JSON of the last run."""
        self._count_traffic()
        summary = self.summary
        summary.finished_at = self.clock()
        document = summary.as_json()
        row = summary.as_row(msgspec.json.encode(document["run_tests"]).decode())
        try:
            await to_the_end(lambda: self._record(document, row))
        except DestinationError as error:
            summary.failure = summary.failure or error
        self.notify(
            "run_finished", **{k: v for k, v in document.items() if k not in ("run_tests", "dataset", "version")}
        )

    def _record(self, document: dict[str, Any], row: dict[str, Any]) -> None:
        day = f"{self.summary.started_at:%Y-%m-%d}"
        self.dataset.record_run(day, self.summary.export_run_id, frame_of(schema.RUNS_TABLE, [row]))
        self.files.publish(LAST_RUN, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")

    def _commit(self, bundles: list[ExecutionBundle]) -> None:
        arrived = commit(
            self.dataset,
            bundles,
            self._stored,
            Export(self.summary.export_run_id, self.clock(), include_raw=self.settings.export.include_raw),
            fetched_at=self.started_at,
            settle_hours=self.settings.export.settle_hours,
            written=self._written,
        )
        for key, share in arrived.items():
            run_test = self._by_key[key]
            run_test.executions += share.rows["executions"]
            run_test.calls += share.rows["calls"]
            run_test.evals += share.rows["evals"]
            run_test.dead_letters += share.dead_letters
            run_test.misfits += share.misfits
        self.progress.committed_executions += len(bundles)
        self.notify("committed", executions=len(bundles), files=self._written.files, bytes=self._written.size_bytes)

    def _count_traffic(self) -> None:
        traffic, written = self.client.traffic, self._written
        self.summary.requests, self.summary.retries = traffic.requests, traffic.retries
        self.summary.rejections = traffic.rejections
        self.summary.files, self.summary.size_bytes, self.summary.rows = written.files, written.size_bytes, written.rows


async def _list_executions(
    client: Client, run_test_name: str, stored: Mapping[str, Stored], page_limit: int
) -> Listing[Execution]:
    async def read(page: int, limit: int) -> Page[Execution]:
        return await client.get(list_executions(run_test_name, page=page, limit=limit))

    async def get(execution_id: str) -> Execution:
        return await client.get(get_execution(execution_id))

    return await list_completely(
        read, lambda execution: execution.execution_id, get, known=stored.keys(), limit=page_limit
    )


def _client(settings: Settings) -> Client:
    api = settings.api
    return Client(
        Access(
            base_url=api.base_url,
            api_key=settings.api_key.get_secret_value,
            secret_key=settings.secret_key.get_secret_value,
            ca_file=str(api.ca_file) if api.ca_file else None,
        ),
        version=__version__,
        concurrency=api.concurrency,
        quota=Quota(requests_per_minute=api.requests_per_minute, share=api.quota_share),
        connect_timeout_seconds=api.connect_timeout_seconds,
        read_timeout_seconds=api.read_timeout_seconds,
        max_tries=api.max_tries,
        max_response_bytes=api.max_response_mb << 20,
    )


def _requests(item: Planned, page_limit: int) -> int:
    return item.estimated_calls + max(1, -(-item.estimated_calls // page_limit))


def _is_known_waiting(item: Planned) -> bool:
    known = item.stored
    return (
        known is not None
        and known.export_state == State.WAITING
        and known.fingerprint == fingerprint(item.execution.payload)
    )


def _without_calls(item: Planned) -> ExecutionBundle:
    return ExecutionBundle(
        run_test_name=item.run_test_name, run_test_key=item.run_test_key, execution=item.execution, date=item.date
    )


def _reason_to_stop(group: BaseExceptionGroup[ExporterError]) -> ExporterError:
    """The error that ended the run: what could not be saved counts most, then that a signal asked for it."""
    errors = [error for error in leaves(group) if isinstance(error, ExporterError)]
    for kind in (DestinationError, InterruptedRunError):
        for error in errors:
            if isinstance(error, kind):
                return error
    return errors[0]


def _say_nothing(_event: str, **_fields: Any) -> None: ...
