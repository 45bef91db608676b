"""Fetch the calls of planned executions: list each execution's calls, then fetch each call's metrics, with bounded concurrency.

A fixed set of workers takes the next piece of work: a queued call, else the next execution to list. So the calls of the following
executions are queued before those of the present ones run out. Executions are taken in the order of the plan.

How an execution's calls are proved complete (see ``extract/listing.py``):

- The list fits one page: that read is the list. Where a call is not found when its metrics are fetched, the list is read again: the
  call was deleted since, or the API's servers are out of step.
- Many pages: the count is read once more after the pages, which are read again until they have shown so many calls. Then each
  call's metrics are fetched. If as many calls are alive as were counted, the list is proved; otherwise it is read again.
- The server cannot give the list: ``call_list.py`` has other ways.

Stored calls that a proved list does not have are requested by their ids, see ``absence.py``. If one exists, the list was wrong:
what it has is exported, nothing is marked, and a dead letter lets the next run read it again.

Stored calls of an execution that only settles are compared and not fetched again, see ``settling.py``, nor is what an incomplete
execution has stored. Where the list takes many pages, a second reading that says the same proves it then.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace

from etl.errors import NotFoundError, SourceError
from etl.extract.absence import ask, decide
from etl.extract.call_list import CallList, list_of_details, read_call_list
from etl.extract.client import Client
from etl.extract.endpoints import get_call_metrics, get_execution, get_listed_call
from etl.extract.listing import MAX_ROUNDS
from etl.extract.open_execution import OpenExecution
from etl.extract.plan import Planned
from etl.extract.settling import Settling
from etl.model.records import METRICS, RUNS, DeadLetter, ExecutionBundle
from etl.model.wording import counted

Emit = Callable[[ExecutionBundle], Awaitable[None]]

_MOST_IN_HAND = 2_000
"""So many calls of one execution are handed over before the others have arrived, so that memory is bounded."""
LAG = "a replica of the API probably lags behind"
"""Why something is listed and not found by its id, although the list still has it."""
_WORKERS_PER_SLOT = 2  # a worker whose request waits for its next try leaves its place in the client to another


@dataclass(slots=True, eq=False)
class Crawl:
    """One crawl over a plan."""

    client: Client
    plan: Iterator[Planned]
    emit: Emit
    concurrency: int
    page_limit: int
    settling: Settling
    _calls: deque[tuple[OpenExecution, str]] = field(default_factory=deque)
    _relist: deque[OpenExecution] = field(default_factory=deque)
    _open: set[OpenExecution] = field(default_factory=set)
    _has_more_work: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Fetch everything, and emit each bundle as soon as it is whole; what was emitted stands where the crawl cannot go on."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.concurrency * _WORKERS_PER_SLOT):
                group.create_task(self._work())

    async def _work(self) -> None:
        while (piece := self._next()) or self._open:
            if piece is None:
                self._has_more_work.clear()
                await self._has_more_work.wait()
                continue
            execution, call_execution_id = piece
            if call_execution_id is None:
                await self._list(execution)
            else:
                await self._fetch(execution, call_execution_id)

    def _next(self) -> tuple[OpenExecution, str | None] | None:
        """The next piece of work; None when there is none now. As long as executions are open, more may come."""
        if self._relist:
            return self._relist.popleft(), None
        has_room = len(self._calls) < self.concurrency * _WORKERS_PER_SLOT and len(self._open) < self.concurrency
        if has_room and (planned := next(self.plan, None)) is not None:
            execution = OpenExecution(planned)
            self._open.add(execution)
            return execution, None
        return self._calls.popleft() if self._calls else None

    async def _list(self, execution: OpenExecution) -> None:
        try:
            latest = await self._read_list(execution)
        except SourceError as error:
            await self._close(execution, await self._without_list(execution, error))
            return
        if execution.is_repeated_by(latest):
            execution.lagging = execution.not_found
            await self._finish(execution, is_proved=False)
            return
        pending = execution.take_list(latest)
        execution.listed_at = asyncio.get_running_loop().time()
        if execution.round == 1:
            if not await self._compare(execution, latest):
                return
            if execution.planned.is_preview:
                is_whole = execution.fetched.keys() == execution.listed.keys() and execution.listed
                await self._close(execution, execution.take_arrived() if is_whole else None)
                return
            pending = [key for key in pending if key not in execution.kept | execution.fetched.keys()]
        if len(execution.listed) < (execution.count or 0) and execution.round < MAX_ROUNDS:
            self._list_again(execution)
            return
        execution.outstanding = len(pending)
        if not pending:
            await self._finish_or_relist(execution)
            return
        self._calls.extend((execution, key) for key in pending)
        self._has_more_work.set()

    async def _read_list(self, execution: OpenExecution) -> CallList:
        """The list; where the detail alone can tell that nothing has changed, a list that is made of it."""
        item, found = execution.planned, None
        if item.is_preview:  # it is nothing without its detail
            details = await self.settling.details(item, rows=item.estimated_calls)
            if details is None:
                raise SourceError("its detail cannot be had")
            return replace(await read_call_list(self.client, item, page_limit=self.page_limit), details=details)
        if item.is_by_detail and item.is_compared and not execution.round:
            found = await list_of_details(self.client, item, page_limit=self.page_limit)
            if found is not None and await self.settling.is_as_stored(item, found):
                return found
        return await read_call_list(self.client, item, page_limit=self.page_limit, found=found)

    async def _compare(self, execution: OpenExecution, latest: CallList) -> bool:
        """Find out which stored calls stay; False where that is left to the next run, or to the list when it is read again."""
        execution.stored = await self.settling.stored(execution.planned)
        is_done = await self.settling.compare(execution, latest)
        # Many executions are open while their calls arrive.
        execution.stored = replace(execution.stored, rows={}, evals={})
        has_pages = execution.count is not None and (execution.kept or execution.fetched)
        if is_done and (not has_pages or await self._is_listed_again(execution)):
            return True
        if not is_done or execution.planned.is_preview:
            await self._close(execution, None)
        else:
            execution.kept = frozenset()
            self._list_again(execution)
        return False

    async def _is_listed_again(self, execution: OpenExecution) -> bool:
        """Whether a second reading of many pages says the same, which proves a list of which some calls are not requested again."""
        try:
            latest = await read_call_list(self.client, execution.planned, page_limit=self.page_limit)
        except SourceError:
            return False
        is_same = latest.count == execution.count and latest.calls.keys() == execution.listed.keys()
        return is_same and not latest.lacks_evals

    async def _without_list(self, execution: OpenExecution, failure: SourceError) -> ExecutionBundle | None:
        """What is known of an execution whose calls cannot be listed: nothing when it was deleted since, else a dead letter."""
        execution_id = execution.execution_id
        if execution.planned.is_preview:
            return None  # it is asked for again, and that tells
        if isinstance(failure, NotFoundError):
            try:
                await self.client.get(get_execution(execution_id).sent_for(execution.planned.purpose))
            except NotFoundError:
                self.settling.counts.deleted_executions.add(execution_id)
                return None
            except SourceError as unknown:
                if execution.planned.unreadable is None:
                    failure = unknown
        execution.dead_letters.append(DeadLetter.of(RUNS, execution_id, failure))
        return execution.cut_short()

    async def _fetch(self, execution: OpenExecution, call_execution_id: str) -> None:
        try:
            if not execution.lacks_evals or await self._read_entry(execution, call_execution_id):
                await self._read_metrics(execution, call_execution_id)
        except NotFoundError:
            del execution.listed[call_execution_id]
            execution.not_found.add(call_execution_id)
        except SourceError as error:
            execution.dead_letters.append(DeadLetter.of(METRICS, call_execution_id, error))
        execution.outstanding -= 1
        if not execution.outstanding:
            await self._finish_or_relist(execution)

    async def _read_entry(self, execution: OpenExecution, call_execution_id: str) -> bool:
        """Request the call's entry in the list, with its evals, by itself; False when it cannot be had."""
        try:
            request = get_listed_call(call_execution_id, execution.execution_id)
            execution.listed[call_execution_id] = await self.client.get(request.sent_for(execution.planned.purpose))
        except NotFoundError:
            raise
        except SourceError as error:
            execution.left_out.add(call_execution_id)
            execution.dead_letters.append(DeadLetter.of(RUNS, call_execution_id, error))
            return False
        return True

    async def _read_metrics(self, execution: OpenExecution, call_execution_id: str) -> None:
        metrics = execution.at_hand.get(call_execution_id)
        if metrics is None:
            request = get_call_metrics(call_execution_id, execution.execution_id)
            metrics = await self.client.get(request.sent_for(execution.planned.purpose))
        if metrics.execution_id == execution.execution_id:
            execution.fetched[call_execution_id] = metrics
            if len(execution.fetched) % _MOST_IN_HAND == 0:
                await self.emit(execution.take_arrived())
        else:
            execution.elsewhere.add(call_execution_id)

    async def _finish_or_relist(self, execution: OpenExecution) -> None:
        """Everything listed is fetched: emit the execution if its list is proved, else read the list again."""
        is_proved = not execution.not_found if execution.count is None else execution.alive == execution.count
        if is_proved or execution.lags or execution.round >= MAX_ROUNDS:
            await self._finish(execution, is_proved=is_proved)
        else:
            self._list_again(execution)

    async def _finish(self, execution: OpenExecution, *, is_proved: bool) -> None:
        if execution.lags:
            calls = counted(len(execution.not_found), "listed call")
            error = SourceError(f"404 for {calls}: {LAG}", status=404, tries=execution.round)
            execution.unproved = DeadLetter.of(RUNS, execution.execution_id, error)
        elif not is_proved:
            error = SourceError(
                f"its list of calls changed each of the {execution.round} times it was read; {execution.alive} calls were fetched",
                tries=execution.round,
            )
            execution.unproved = DeadLetter.of(RUNS, execution.execution_id, error)
        elif not execution.unproved:
            await self._look_up(execution)
        await self._close(execution, execution.bundle())

    async def _look_up(self, execution: OpenExecution) -> None:
        """Request each stored call that the proved list does not have."""
        purpose = execution.planned.purpose

        async def exists(call_execution_id: str) -> bool:
            request = get_call_metrics(call_execution_id, execution.execution_id)
            return (await self.client.get(request.sent_for(purpose))).execution_id == execution.execution_id

        execution.gone |= execution.not_found
        unlisted = execution.living - execution.listed.keys() - execution.gone
        answers = await ask(exists, unlisted, workers=1)
        execution.deleted = decide(answers) | execution.gone | (execution.elsewhere & execution.living)
        there = (SourceError(f"call {each} exists, but is missing from its execution's list") for each in answers.alive)
        problems = [*there, *answers.unknown.values()]
        if problems:
            execution.unproved = DeadLetter.of(RUNS, execution.execution_id, problems[0])

    def _list_again(self, execution: OpenExecution) -> None:
        self._relist.append(execution)
        self._has_more_work.set()

    def arrived(self, *, listed_before: float = math.inf) -> list[ExecutionBundle]:
        """What has arrived of executions that are not whole yet, and were listed before this time of the event loop."""
        due = [each for each in self._open if each.fetched and each.outstanding and each.listed_at < listed_before]
        return [each.take_arrived() for each in due]

    async def _close(self, execution: OpenExecution, bundle: ExecutionBundle | None) -> None:
        if bundle is not None:
            await self.emit(bundle)
        self._open.remove(execution)
        self._has_more_work.set()
