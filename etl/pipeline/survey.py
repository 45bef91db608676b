"""What the API lists beside what the dataset holds: what is new, moved, gone, and what to fetch. Writes nothing."""

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime

from etl.errors import NotFoundError, SourceError, SourceUnavailableError
from etl.extract.client import Client
from etl.extract.endpoints import get_execution
from etl.extract.executions import Listed, find_deleted, list_run_test
from etl.extract.plan import Planned, is_mass_vanishing, order_by_worth, pages, plan_run_test, says_nothing_new, scrub
from etl.load.relocate import Moves, find_moves
from etl.load.state import StoredState
from etl.model.lifecycle import KNOWN_EXECUTION
from etl.model.listed_execution import ListedExecution
from etl.pipeline.progress import Notify, Progress
from etl.pipeline.summary import RunTestSummary, Summary
from etl.settings import RunTest, Settings

_SAMPLE = 5


class Survey:
    """The lists of one run; ``vanished`` are stored executions that no list has any more, by the key of their run test."""

    def __init__(
        self,
        settings: Settings,
        summary: Summary,
        progress: Progress,
        notify: Notify,
        *,
        now: datetime,
        full_refresh: bool,
        accept_deletions: bool,
    ) -> None:
        self.vanished: dict[str, set[str]] = {}
        self.necessary_requests = 0
        self._settings = settings
        self._progress = progress
        self._notify = notify
        self._now = now
        self._full_refresh = full_refresh
        self._accept_deletions = accept_deletions
        self._by_key = {run_test.key: run_test for run_test in summary.run_tests}
        self._listed: dict[str, Listed] = {}
        self._unreachable: list[str] = []

    async def list_run_tests(self, client: Client, state: StoredState) -> None:
        """List the executions of each run test; one that cannot be listed says so in its summary, and is left alone.

        Raises:
            SourceUnavailableError: none could be listed.
        """
        known = {execution_id for dates in state.dates().values() for execution_id in dates}
        async with asyncio.TaskGroup() as group:
            for run_test in self._settings.run_tests:
                group.create_task(self._list_run_test(client, run_test, known, state))
        if len(self._unreachable) == len(self._by_key):
            raise SourceUnavailableError(f"no run test could be listed: {self._unreachable[0]}")
        self._give_each_one_place(state)
        everywhere = self._everywhere()
        for key in list(self._listed):
            await self._look_for_vanished(client, key, state, everywhere)

    async def _list_run_test(
        self, client: Client, run_test: RunTest, known: AbstractSet[str], state: StoredState
    ) -> None:
        summary = self._by_key[run_test.key]
        try:
            found = await list_run_test(
                client,
                run_test.name,
                known=known,
                page_limit=self._settings.api.page_limit,
                says_nothing_new=lambda row: self._says_nothing_new(row, run_test.key, state),
            )
        except NotFoundError:
            self._fail(
                summary,
                "the API knows no run test of this name: check run_tests and the key's workspace, or give its new name",
            )
        except SourceError as error:
            self._fail(summary, str(error))
            self._unreachable.append(str(error))
        else:
            self._listed[run_test.key] = found
            summary.listed = len(found.executions)
            summary.is_complete = found.is_complete
            summary.unreadable = [*found.unreadable, *(letter.message for letter in found.heads.values())]
            has_news = not found.executions.keys() <= known
            self.necessary_requests += pages(summary.listed, self._settings.api.page_limit) + has_news
            self._progress.listed_executions += summary.listed

    def _says_nothing_new(self, row: ListedExecution, key: str, state: StoredState) -> bool:
        export = self._settings.export
        return not export.scrub_requests and says_nothing_new(
            row,
            state.executions[key].get(row.execution_id),
            fetch_unfinished=export.calls == "all",
            full_refresh=self._full_refresh,
        )

    async def read_again(self, client: Client, state: StoredState) -> None:
        """Have the payloads of executions that said nothing new until the dataset's files were put in their places.

        One that cannot be had is told in its run test's summary and left as it is, like any row that cannot be read.
        """
        for key, found in self._listed.items():
            missing = [
                row
                for row in found.executions.values()
                if row.packed is None and not self._says_nothing_new(row, key, state)
            ]
            self.necessary_requests += len(missing)
            listed = dict(found.executions)
            for row in missing:
                try:
                    execution = await client.get(get_execution(row.execution_id))
                except NotFoundError:
                    del listed[row.execution_id]
                except SourceError as error:
                    del listed[row.execution_id]
                    self._by_key[key].unreadable.append(str(error))
                    self._by_key[key].is_complete = False
                else:
                    listed[row.execution_id] = ListedExecution.of(execution).with_payload(execution.payload)
            self._listed[key] = replace(found, executions=listed)

    def _give_each_one_place(self, state: StoredState) -> None:
        """An execution that is in two lists was moved while they were read: let it stay where it lies, if it does, for now."""
        if len(self._listed) < 2:
            return
        places: dict[str, str] = {}
        for key, found in self._listed.items():
            for execution_id in found.executions:
                if places.setdefault(execution_id, key) != key and execution_id in state.executions[key]:
                    places[execution_id] = key
        for key, found in self._listed.items():
            mine = {each: execution for each, execution in found.executions.items() if places[each] == key}
            self._listed[key] = replace(found, executions=mine)

    async def _look_for_vanished(self, client: Client, key: str, state: StoredState, everywhere: set[str]) -> None:
        """Stored executions that no list has any more; when too many of them seem to be gone, their run test fails."""
        if not self._listed[key].is_complete:
            return
        stored = state.executions[key]
        summary = self._by_key[key]
        living = sum(known.deleted_at is None for known in stored.values())
        vanished = {each for each, known in stored.items() if known.deleted_at is None and each not in everywhere}
        is_suspicious = is_mass_vanishing(vanished=len(vanished), living=living) and not self._accept_deletions
        if is_suspicious and await self._is_none_there(client, sorted(vanished)[:_SAMPLE]):
            del self._listed[key]
            self._fail(
                summary,
                f"{len(vanished)} of its {living} stored executions are not listed any more; nothing of it was changed: "
                "check the key's workspace, or run with --accept-deletions when they were deleted on purpose",
            )
            return
        # Nothing else could heal a dead letter whose execution was deleted before it had a row.
        vanished |= state.orphans[key].keys() - everywhere
        self.vanished[key] = vanished
        self.necessary_requests += len(vanished)
        summary.lost = sum(known.is_damaged for each, known in stored.items() if each not in everywhere)

    async def _is_none_there(self, client: Client, execution_ids: Sequence[str]) -> bool:
        """One that is there proves that the key sees the right workspace: its run test was renamed, not lost."""
        asked = await find_deleted(client, execution_ids, workers=len(execution_ids))
        return len(asked.deleted) + len(asked.unknown) == len(execution_ids)

    def _fail(self, summary: RunTestSummary, error: str) -> None:
        summary.error = error
        self._notify("run_test_failed", run_test=summary.name, error=error)

    @property
    def homes(self) -> dict[str, AbstractSet[str]]:
        """The listed executions, by the key of their run test."""
        return {key: found.executions.keys() for key, found in self._listed.items()}

    def moves(self, state: StoredState) -> Moves:
        """The stored executions that belong to another run test, or name, than the one under which they lie."""
        return find_moves(state, self.homes, {key: run_test.name for key, run_test in self._by_key.items()})

    def left_behind(self, state: StoredState, moves: Moves) -> dict[str, set[str]]:
        """Executions that no list has, of run tests that are not exported and whose others move away, by their key."""
        dates, everywhere = state.dates(), self._everywhere()
        sources = {source.run_test_key for source, _ in moves} - self._by_key.keys()
        return {key: left for key in sources if (left := dates[key].keys() - everywhere)}

    def unlisted(self, state: StoredState, moves: Moves) -> set[str]:
        """The keys of the dataset's other run tests of which nothing moves: the API lists no run test under their name."""
        return state.elsewhere.keys() - {source.run_test_key for source, _ in moves}

    def _everywhere(self) -> set[str]:
        return {execution_id for found in self._listed.values() for execution_id in found.executions}

    def plan(self, state: StoredState) -> list[Planned]:
        """What to do with each listed execution, by worth."""
        planned: list[Planned] = []
        for run_test in self._settings.run_tests:
            if (found := self._listed.get(run_test.key)) is None:
                continue
            planned += plan_run_test(
                found.executions.values(),
                state.executions[run_test.key],
                run_test_name=run_test.name,
                run_test_key=run_test.key,
                now=self._now,
                fetch_unfinished=self._settings.export.calls == "all",
                full_refresh=self._full_refresh,
                since=run_test.since,
                stray_dates=state.stray_dates[run_test.key],
                unreadable=found.heads,
            )
            self._by_key[run_test.key].unknown_statuses.update(
                each.status for each in found.executions.values() if each.status not in KNOWN_EXECUTION
            )
        page_limit = self._settings.api.page_limit
        result = scrub(planned, requests=self._settings.export.scrub_requests, page_limit=page_limit)
        for item in result:
            self._by_key[item.run_test_key].reasons[item.reason.value] += 1
        for key in self._listed:
            summary = self._by_key[key]
            self._notify("listed", run_test=summary.name, executions=summary.listed, reasons=dict(summary.reasons))
        fetched = [item for item in result if item.is_fetched]
        self._progress.planned_executions = len(fetched)
        self._progress.planned_requests = sum(item.requests(page_limit) for item in fetched)
        self._notify("planned", executions=self._progress.planned_executions, requests=self._progress.planned_requests)
        return order_by_worth(result)
