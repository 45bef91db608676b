"""Fetch the calls of planned executions: list each execution's calls, then fetch each call's metrics.

Requests, open executions and calls in memory are bounded, however long the plan is.

A fixed set of workers takes the next piece of work: a queued call, else the next execution to list. So the calls of
the following executions are queued before those of the present ones run out. Executions are taken in the order of the
plan.

How an execution's calls are proved complete (law 4; see ``listing.py``):

- The list fits one page: that reading is the list. Where a call is not found when its metrics are fetched, the list
  is read again: the call was deleted since, or the API's servers are out of step.
- Many pages: the count is read once more after the pages, which are read again until they have shown so many calls.
  Then each call's metrics are fetched. If as many calls are alive as were counted, the list is proved; otherwise it
  is read again.
- The server cannot give the list: ``call_list.py`` has other ways.

Stored calls that a proved list does not have are requested by their ids (law 5; see ``absence.py``). If one exists, the
list was wrong: what it has is exported, and a dead letter lets the next run read it again. Then only those calls are
marked that were not found when their metrics were fetched and are no longer listed, or that name another execution.

Which calls stay without a request of their own is up to the execution's ``Route`` (``plan.py``) and ``settling.py``.
Where some stay and the list takes many pages, a second reading that says the same proves it.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace

from etl.errors import NotFoundError, SourceError
from etl.extract.absence import decide, look_up_ids
from etl.extract.call_list import CallList, Details, list_of_details, read_call_list
from etl.extract.client import Client
from etl.extract.endpoints import get_call_metrics, get_execution, get_listed_call
from etl.extract.listing import MAX_ROUNDS
from etl.extract.open_execution import OpenExecution
from etl.extract.plan import Planned, Reason, Route
from etl.extract.settling import Settling
from etl.model.records import METRICS, RUNS, DeadLetter, ExecutionBundle
from etl.model.wording import counted

Emit = Callable[[ExecutionBundle], Awaitable[None]]

_MOST_IN_HAND = 2_000
"""After so many calls of one execution have arrived, they are handed over, so that memory is bounded."""
LAG = "probably because a replica of the API lags behind"
"""Why something is listed and not found by its id, although the list still has it."""
_WORKERS_PER_SLOT = 2  # a worker whose request waits for its next try leaves its place in the client to another


@dataclass(slots=True, eq=False)
class Crawl:
    """One crawl over a plan."""

    client: Client
    """Sends the requests."""
    plan: Iterator[Planned]
    """The executions to fetch, most valuable first."""
    emit: Emit
    """Takes each bundle; the crawl waits for it, so a slow destination slows the crawl down."""
    concurrency: int
    """How many requests are under way at once, and how many executions are open."""
    page_limit: int
    """The smallest page that a list is requested with."""
    settling: Settling
    """Decides which stored calls stay."""
    _calls: deque[tuple[OpenExecution, str]] = field(default_factory=deque)
    """Calls to fetch."""
    _relist: deque[OpenExecution] = field(default_factory=deque)
    """Executions whose list is to be read again."""
    _open: set[OpenExecution] = field(default_factory=set)
    """Executions that were begun, and not handed over as a whole."""
    _has_more_work: asyncio.Event = field(default_factory=asyncio.Event)
    """Wakes workers that found nothing to do."""

    async def run(self) -> None:
        """Fetch everything, and emit each bundle as soon as it is whole.

        Raises:
            ExporterError: the crawl cannot go on (in a group); what was emitted stands.
        """
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
        """The next piece of work: an execution with a call to fetch, or with None if its list is to be read.

        None when there is nothing to do now; as long as executions are open, more may come.
        """
        if self._relist:
            return self._relist.popleft(), None
        has_room = len(self._calls) < self.concurrency * _WORKERS_PER_SLOT and len(self._open) < self.concurrency
        if has_room and (planned := next(self.plan, None)) is not None:
            execution = OpenExecution(planned)
            self._open.add(execution)
            return execution, None
        return self._calls.popleft() if self._calls else None

    async def _list(self, execution: OpenExecution) -> None:
        """Read the execution's list, and queue the calls that are to be fetched by it."""
        try:
            latest = await self._read_list(execution)
        except SourceError as error:
            await self._close(execution, await self._without_list(execution, error))
            return
        listed = execution.listed
        if execution.is_repeated_by(latest):
            listed.lagging = listed.not_found  # listed once more, and still not found: another reading would not help
            await self._finish(execution, is_proved=False)
            return
        pending = execution.take_list(latest)
        listed.read_at = asyncio.get_running_loop().time()
        if listed.readings == 1:
            if not await self._compare(execution, latest):
                return
            done = execution.arrived.done
            pending = execution.due_first([key for key in pending if key not in done])
        if len(listed.calls) < (listed.count or 0) and listed.readings < MAX_ROUNDS:
            self._list_again(execution)
        else:
            await self._queue(execution, pending)

    async def _queue(self, execution: OpenExecution, pending: list[str]) -> None:
        """Let workers fetch the pending calls; an execution without any is finished."""
        execution.outstanding = len(pending)
        if not pending:
            await self._finish_or_relist(execution)
            return
        self._calls.extend((execution, key) for key in pending)
        self._has_more_work.set()

    async def _read_list(self, execution: OpenExecution) -> CallList:
        """The list, by the way that the execution's route asks for.

        Raises:
            NotFoundError: there is no such execution.
            SourceError: the list cannot be had, or a preview's detail, without which it is nothing.
        """
        item = execution.planned
        details: Details | None = None
        if not execution.listed.readings:
            details, of_voice = await self.settling.list_of_voice(item)
            if of_voice:
                return of_voice
        if item.route is Route.PREVIEW:
            details = details or await self.settling.details(item, rows=item.estimated_calls)
            if details.failure:
                raise details.failure
        elif item.route is Route.LISTS_COMPARED and not execution.listed.readings:
            details = await self.settling.details(item, rows=item.estimated_calls)
            if details.failure is None and await self.settling.is_as_stored(item, listed := list_of_details(details)):
                return listed
        return await read_call_list(self.client, item, page_limit=self.page_limit, details=details)

    async def _compare(self, execution: OpenExecution, latest: CallList) -> bool:
        """Find out which stored calls stay; False where there is nothing to fetch by this list.

        Then the execution was closed (the next run decides, or it is a preview), or its list is read again first.
        """
        is_decided = await self.settling.compare(execution, latest)
        # The rows are not needed any more, and many executions are open while their calls arrive.
        execution.stored = replace(execution.stored, rows={}, evals={})
        has_kept = bool(execution.arrived.kept or execution.arrived.metrics)
        needs_proof = is_decided and has_kept and execution.listed.count is not None
        is_proved = not needs_proof or await self._is_listed_again(execution)
        if execution.planned.route is Route.PREVIEW and not execution.arrived.unjudged:
            await self._close(execution, _preview_of(execution) if is_decided and is_proved else None)
        elif not is_decided:
            await self._close(execution, None)
        elif not is_proved:
            execution.arrived.kept = frozenset()
            self._list_again(execution)
        else:
            return True
        return False

    async def _is_listed_again(self, execution: OpenExecution) -> bool:
        """Whether a second reading of many pages says the same: that proves a list whose calls are not all fetched."""
        try:
            latest = await read_call_list(self.client, execution.planned, page_limit=self.page_limit)
        except SourceError:
            return False
        is_same = latest.count == execution.listed.count and latest.calls.keys() == execution.listed.calls.keys()
        return is_same and not latest.lacks_evals

    async def _without_list(self, execution: OpenExecution, failure: SourceError) -> ExecutionBundle | None:
        """What is known of an execution whose calls cannot be listed: a dead letter; None when it was deleted since."""
        execution_id = execution.execution_id
        if execution.planned.route is Route.PREVIEW:
            return None  # the execution is fetched exactly afterwards, which tells why it cannot be listed
        if isinstance(failure, NotFoundError):
            try:
                await self.client.get(get_execution(execution_id).sent_for(execution.planned.purpose))
            except NotFoundError:
                self.settling.counts.deleted_executions.add(execution_id)
                return None
            except SourceError as second_failure:
                # An execution whose row cannot be read fails this, too: then the failure of its list says more.
                if execution.planned.unreadable is None:
                    failure = second_failure
        execution.arrived.dead_letters.append(DeadLetter.of(RUNS, execution_id, failure))
        return execution.cut_short()

    async def _fetch(self, execution: OpenExecution, call_execution_id: str) -> None:
        """Fetch one call; after the last one, finish the execution or read its list again."""
        try:
            if not execution.listed.lacks_evals or await self._read_entry(execution, call_execution_id):
                await self._read_metrics(execution, call_execution_id)
        except NotFoundError:
            del execution.listed.calls[call_execution_id]
            execution.listed.not_found.add(call_execution_id)
        except SourceError as error:
            execution.arrived.dead_letters.append(DeadLetter.of(METRICS, call_execution_id, error))
        execution.outstanding -= 1
        if not execution.outstanding:
            await self._finish_or_relist(execution)

    async def _read_entry(self, execution: OpenExecution, call_execution_id: str) -> bool:
        """Request the call's entry in the list, with its evals, by itself; False when it cannot be had."""
        try:
            request = get_listed_call(call_execution_id, execution.execution_id)
            entry = await self.client.get(request.sent_for(execution.planned.purpose))
        except NotFoundError:
            raise
        except SourceError as error:
            execution.arrived.left_out.add(call_execution_id)
            execution.arrived.dead_letters.append(DeadLetter.of(RUNS, call_execution_id, error))
            return False
        execution.listed.calls[call_execution_id] = entry
        return True

    async def _read_metrics(self, execution: OpenExecution, call_execution_id: str) -> None:
        """Take the call's metrics; if they name another execution, that one has the call."""
        arrived = execution.arrived
        metrics = arrived.at_hand.get(call_execution_id)
        if metrics is None:
            request = get_call_metrics(call_execution_id, execution.execution_id)
            metrics = await self.client.get(request.sent_for(execution.planned.purpose))
        if metrics.execution_id != execution.execution_id:
            arrived.elsewhere.add(call_execution_id)
            return
        arrived.metrics[call_execution_id] = metrics
        if len(arrived.metrics) % _MOST_IN_HAND == 0 and not arrived.unjudged:
            await self.emit(execution.take_arrived())

    async def _finish_or_relist(self, execution: OpenExecution) -> None:
        """Everything listed is fetched: emit the execution if its list is proved, else read the list again.

        If one call was fetched to judge by, the others may still have to be.
        """
        listed = execution.listed
        if execution.arrived.unjudged and (left := self.settling.judge(execution)):
            if execution.planned.route is Route.PREVIEW and not execution.arrived.unjudged:
                await self._close(execution, None)  # it is fetched afterwards, call by call
            else:
                await self._queue(execution, left)
            return
        is_proved = not listed.not_found if listed.count is None else execution.arrived.alive == listed.count
        if is_proved or listed.lags or listed.readings >= MAX_ROUNDS:
            await self._finish(execution, is_proved=is_proved)
        else:
            self._list_again(execution)

    async def _finish(self, execution: OpenExecution, *, is_proved: bool) -> None:
        """Hand the execution over: with what a proved list says is gone, else with the reason why it is not proved."""
        listed = execution.listed
        if listed.lags:
            calls = counted(len(listed.not_found), "listed call")
            execution.unproved = SourceError(
                f"the API answered 404 for {calls}, {LAG}", status=404, tries=listed.readings
            )
        elif not is_proved:
            execution.unproved = SourceError(
                f"the list of calls differed from the execution's call count in {counted(listed.readings, 'reading')}, "
                f"and {execution.arrived.alive} calls were fetched",
                tries=listed.readings,
            )
        elif not execution.unproved:
            await self._look_up(execution)
        await self._close(execution, execution.bundle())

    async def _look_up(self, execution: OpenExecution) -> None:
        """Request each stored call that the proved list does not have."""
        purpose = execution.planned.purpose
        listed = execution.listed

        async def exists(call_execution_id: str) -> bool:
            request = get_call_metrics(call_execution_id, execution.execution_id)
            return (await self.client.get(request.sent_for(purpose))).execution_id == execution.execution_id

        listed.gone |= listed.not_found
        unlisted = execution.living - listed.calls.keys() - listed.gone
        answers = await look_up_ids(exists, unlisted, workers=1)
        moved = execution.arrived.elsewhere & execution.living
        execution.deleted = decide(answers) | listed.gone | moved
        problems = [
            *(SourceError(f"call {call} exists, but is missing from its execution's list") for call in answers.alive),
            *answers.unknown.values(),
        ]
        if problems:
            execution.unproved = problems[0]

    def _list_again(self, execution: OpenExecution) -> None:
        self._relist.append(execution)
        self._has_more_work.set()

    def arrived(self, *, listed_before: float = math.inf) -> list[ExecutionBundle]:
        """What has arrived of executions that are not whole yet, and were listed before this time of the event loop."""
        return [
            execution.take_arrived()
            for execution in self._open
            if execution.arrived.metrics
            and execution.outstanding
            and not execution.arrived.unjudged
            and execution.listed.read_at < listed_before
        ]

    async def _close(self, execution: OpenExecution, bundle: ExecutionBundle | None) -> None:
        if bundle is not None and execution.planned.reason is Reason.SWEEP and _tells_nothing(bundle):
            self.settling.counts.not_compared[execution.execution_id] = bundle.dead_letters[0].message
            bundle = None
        if bundle is not None:
            await self.emit(bundle)
        self._open.remove(execution)
        self._has_more_work.set()


def _tells_nothing(bundle: ExecutionBundle) -> bool:
    """Whether lists could not be read or proved, and nothing is known to differ: what is stored stays as it is."""
    is_known = bundle.calls or bundle.deleted or bundle.amended
    return bool(bundle.dead_letters) and not is_known and all(each.endpoint == RUNS for each in bundle.dead_letters)


def _preview_of(execution: OpenExecution) -> ExecutionBundle | None:
    """The rows that the lists gave, if they gave one of each call."""
    listed = execution.listed.calls
    is_whole = bool(listed) and execution.arrived.metrics.keys() == listed.keys()
    return execution.take_arrived() if is_whole else None
