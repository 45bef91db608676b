"""One run's settings, dataset and figures, and its steps: discover, load, list, put in place, crawl, commit, conclude."""

import secrets
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from time import monotonic

import msgspec

from etl.errors import DestinationError, TimeLimitError
from etl.extract.calls import Crawl
from etl.extract.client import Client
from etl.extract.connect import client_of
from etl.extract.executions import find_deleted
from etl.extract.plan import Planned, Reason
from etl.extract.run_tests import discover
from etl.load.commit import commit
from etl.load.dataset import Dataset
from etl.load.files.local import LocalFiles
from etl.load.last_run import LAST_RUN, last_complete_at
from etl.load.layout import Partition
from etl.load.relocate import Moves, as_if_dropped, drop, find_doubled, mark_deleted, move, surplus
from etl.load.state import StoredState, load_run_tests, load_state
from etl.model import schema
from etl.model.lifecycle import Stored
from etl.model.records import ExecutionBundle
from etl.pipeline.buffer import CommitBuffer
from etl.pipeline.progress import Notify, Progress, say_nothing
from etl.pipeline.summary import RunTestSummary, Summary
from etl.pipeline.survey import Survey
from etl.pipeline.tasks import to_the_end
from etl.settings import Settings
from etl.transform.flatten import Export, FlatBundle, flatten, frame_of
from etl.version import __version__


class Run:
    """What the steps of one run share."""

    def __init__(
        self,
        settings: Settings,
        *,
        full_refresh: bool,
        accept_deletions: bool,
        progress: Progress | None = None,
        notify: Notify | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.clock = clock or (lambda: datetime.now(UTC))
        self.started_at = self.clock()
        self.notify = notify or say_nothing
        self.progress = progress or Progress()
        self.files = LocalFiles(settings.destination.folder)
        self.dataset = Dataset(self.files, compression=settings.destination.compression)
        self.client = client_of(settings, on_hold=lambda seconds: self.notify("held", seconds=round(seconds, 1)))
        self.progress.traffic, self.progress.quota = self.client.traffic, self.client.quota
        self.summary = Summary(
            export_run_id=f"{self.started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
            version=__version__,
            dataset=settings.destination.path,
            started_at=self.started_at,
            finished_at=self.started_at,
        )
        self._full_refresh = full_refresh
        self._accept_deletions = accept_deletions
        self._stored: Mapping[str, Stored] = {}
        self._left_to_fetch: dict[str, str] = {}
        self._left_to_note: dict[str, str] = {}
        self._cover(settings)

    def _cover(self, settings: Settings) -> None:
        """Let the run be about the run tests of the settings: of none before they are discovered."""
        self.settings = settings
        self.summary.run_tests = [RunTestSummary(run_test.name, run_test.key) for run_test in settings.run_tests]
        self._by_key = {run_test.key: run_test for run_test in self.summary.run_tests}
        self.survey = Survey(
            settings,
            self.summary,
            self.progress,
            self.notify,
            now=self.started_at,
            full_refresh=self._full_refresh,
            accept_deletions=self._accept_deletions,
        )

    @property
    def time_limit(self) -> tuple[float, TimeLimitError] | None:
        """After how many seconds the run ends, and what it says then."""
        minutes = self.settings.export.max_runtime_minutes
        if minutes is None:
            return None
        return minutes * 60, TimeLimitError(
            f"stopped after {minutes:g} minutes, as [export] max_runtime_minutes says; the next run fetches what is left"
        )

    def load_state(self, *, set_aside: bool) -> StoredState:
        """What the dataset holds of the run tests, and what of its files cannot be read, which the summary then tells."""
        state = load_state(self.dataset, [run_test.key for run_test in self.settings.run_tests], set_aside=set_aside)
        self.summary.quarantined += state.unreadable
        self._stored = ChainMap(*state.executions.values())
        return state

    def load_sources(self, partitions: Iterable[Partition], state: StoredState) -> None:
        """Add to the state what the dataset holds of the partitions' run tests, where these are not exported."""
        keys = {partition.run_test_key for partition in partitions} - state.executions.keys()
        load_run_tests(self.dataset, sorted(keys), state, set_aside=False)

    async def discover(self, client: Client) -> None:
        """Let the run be about all run tests that the key sees."""
        found = await discover(client, page_limit=self.settings.api.page_limit)
        self._cover(self.settings.naming(found.run_tests))
        self.survey.necessary_requests += found.necessary_requests
        self.summary.undiscovered += found.problems
        self.summary.namesakes = found.namesakes
        self.notify("discovered", run_tests=len(found.run_tests))

    async def crawl(self, client: Client, state: StoredState | None) -> None:
        """List, plan, fetch and commit everything; what has arrived whole is committed even when the crawl fails.

        Without a state the run tests are discovered first, and what the dataset holds of them is loaded then.
        """
        is_discovered = state is None
        if state is None:
            await self.discover(client)
            state = await to_the_end(partial(self.load_state, set_aside=True))
        self.summary.completed_files = await to_the_end(self.dataset.complete)
        await self.survey.list_run_tests(client, state)
        drops, moves = await to_the_end(partial(self.find_places, state))
        self.summary.left_behind = {key: len(left) for key, left in self.survey.left_behind(state, moves).items()}
        if is_discovered and not self.summary.undiscovered:
            self.summary.unlisted = sorted(self.survey.unlisted(state, moves))
        if drops or moves or state.surplus:
            state = await to_the_end(partial(self._put_in_place, drops, moves, state))
            await self.survey.read_again(client, state)
        await self._note_deleted(client, state)
        planned = self.survey.plan(state)
        to_note = [item for item in planned if item.reason is Reason.WAITING and not item.is_noted]
        to_fetch = [item for item in planned if item.is_fetched]
        self._left_to_fetch = {item.execution.execution_id: item.run_test_key for item in to_fetch}
        self._left_to_note = {item.execution.execution_id: item.run_test_key for item in to_note}
        buffer = CommitBuffer(
            self._commit, self.dataset.written, interval_seconds=self.settings.export.commit_interval_seconds
        )

        async def take(bundle: ExecutionBundle) -> None:
            # At once: its payloads, several times as large as its rows, need not be kept until the commit.
            await buffer.add(flatten(bundle, include_raw=self.settings.export.include_raw))

        crawl = Crawl(
            client,
            to_fetch,
            take,
            concurrency=self.settings.api.concurrency,
            page_limit=self.settings.api.page_limit,
        )
        self.progress.crawl, self.progress.crawl_began_at = crawl, monotonic()
        try:
            for item in to_note:
                await take(_without_calls(item))
            await crawl.run()
        finally:
            await buffer.flush()

    def find_places(self, state: StoredState) -> tuple[dict[Partition, set[str]], Moves]:
        """What to drop for every execution to lie in one place only, which the state then says, and what to move from there."""
        doubled = find_doubled(state)
        self.load_sources(chain.from_iterable(doubled.values()), state)
        drops = surplus(doubled, state, self.survey.homes)
        as_if_dropped(state, drops)
        return drops, self.survey.moves(state)

    def _put_in_place(self, drops: Mapping[Partition, set[str]], moves: Moves, state: StoredState) -> StoredState:
        """Let every execution lie in one place, the right one; returns the state after that."""
        for partition, execution_ids in chain(drops.items(), state.surplus.items()):
            drop(self.dataset, partition, execution_ids)
        for (source, key), execution_ids in sorted(moves.items()):
            summary = self._by_key[key]
            move(self.dataset, source, key, execution_ids, run_test_name=summary.name)
            summary.moved += len(execution_ids)
            self.notify("moved", run_test=summary.name, executions=len(execution_ids), source=source.run_test_key)
        return self.load_state(set_aside=True)

    async def _note_deleted(self, client: Client, state: StoredState) -> None:
        for key, vanished in self.survey.vanished.items():
            asked = await find_deleted(client, vanished, workers=self.settings.api.concurrency)
            summary = self._by_key[key]
            summary.not_listed = len(vanished) - len(asked.deleted) - len(asked.unknown)
            summary.not_answered = len(asked.unknown)
            if asked.deleted:
                await to_the_end(partial(self._mark_deleted, key, asked.deleted, state))

    def _mark_deleted(self, key: str, deleted: set[str], state: StoredState) -> None:
        dates = state.orphans[key] | {execution_id: known.date for execution_id, known in state.executions[key].items()}
        for date in sorted({dates[execution_id] for execution_id in deleted & dates.keys()}):
            mark_deleted(
                self.dataset,
                Partition(key, date),
                {execution_id for execution_id in deleted if dates.get(execution_id) == date},
                deleted_at=self.started_at,
                export=self._export(),
            )
        summary, marked = self._by_key[key], len(deleted & state.executions[key].keys())
        summary.deleted += marked
        self.notify("deleted", run_test=summary.name, executions=marked)

    def _export(self) -> Export:
        return Export(self.summary.export_run_id, self.clock(), include_raw=self.settings.export.include_raw)

    async def conclude(self) -> None:
        """Leave the summary behind: a row of the runs table, and the JSON of the last run."""
        self._count_traffic()
        summary = self.summary
        summary.finished_at = self.clock()
        if summary.failure:  # else what is left was deleted since it was planned
            for key in self._left_to_fetch.values():
                self._by_key[key].missed += 1
            unproved = set(self._by_key) if self.progress.crawl is None else set(self._left_to_note.values())
            for key in unproved:
                self._by_key[key].is_complete = False
        try:
            # What was not discovered may be there all the same.
            is_part = self.settings.is_part or bool(summary.undiscovered) or not summary.run_tests
            summary.carry_on(await to_the_end(partial(last_complete_at, self.files)), is_part=is_part)
            await to_the_end(self._record)
        except DestinationError as error:
            summary.failure = summary.failure or error
        self.notify(
            "run_finished",
            **{k: v for k, v in summary.as_json().items() if k not in ("run_tests", "dataset", "version")},
        )

    def _record(self) -> None:
        document = self.summary.as_json()
        row = self.summary.as_row(msgspec.json.encode(document["run_tests"]).decode())
        day = f"{self.summary.started_at:%Y-%m-%d}"
        self.dataset.record_run(day, self.summary.export_run_id, frame_of(schema.RUNS_TABLE, [row]))
        self.files.publish(LAST_RUN, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")

    async def _commit(self, bundles: list[FlatBundle]) -> None:
        arrived = await to_the_end(
            partial(
                commit,
                self.dataset,
                bundles,
                self._stored,
                self._export(),
                fetched_at=self.started_at,
                settle_hours=self.settings.export.settle_hours,
            )
        )
        for bundle in bundles:
            self._left_to_fetch.pop(bundle.execution.execution_id, None)
            self._left_to_note.pop(bundle.execution.execution_id, None)
        for key, share in arrived.items():
            run_test = self._by_key[key]
            run_test.executions += share.rows["executions"]
            run_test.calls += share.rows["calls"]
            run_test.evals += share.rows["evals"]
            run_test.dead_letters += share.dead_letters
            run_test.misfits += share.misfits
            run_test.unknown_statuses += share.unknown_statuses
        self.progress.committed_executions += len(bundles)
        self.notify(
            "committed",
            executions=len(bundles),
            files=self.dataset.written.files,
            bytes=self.dataset.written.size_bytes,
            requests_left=self.progress.planned_requests - self.progress.done_requests,
            seconds_left=None if (seconds := self.progress.seconds_left(monotonic())) is None else round(seconds),
        )

    def _count_traffic(self) -> None:
        traffic, written = self.client.traffic, self.dataset.written
        self.summary.requests, self.summary.retries = traffic.requests, traffic.retries
        self.summary.necessary_requests = self.survey.necessary_requests + (
            self.progress.crawl.necessary_requests if self.progress.crawl else 0
        )
        self.summary.rejections, self.summary.redactions = traffic.rejections, traffic.redactions
        self.summary.requests_per_minute = self.client.quota.requests_per_minute
        self.summary.files, self.summary.size_bytes, self.summary.rows = written.files, written.size_bytes, written.rows


def _without_calls(item: Planned) -> ExecutionBundle:
    return ExecutionBundle(
        run_test_name=item.run_test_name,
        run_test_key=item.run_test_key,
        execution=item.execution.unpack(),
        date=item.date,
        dead_letters=(item.unreadable,) if item.unreadable else (),
    )
