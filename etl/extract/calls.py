"""Fetch the calls of planned executions: list each execution's calls, then fetch each call's metrics, with bounded concurrency.

A fixed set of workers takes the next piece of work: a queued call, else the next execution to list. So the calls of the following
executions are queued before those of the present ones run out. Executions are taken in the order of the plan.

How an execution's calls are proved complete (see ``extract/listing.py``):

- The list fits one page: that read is the list. The execution has finished, so no call is created any more; if one were, the
  fresh count in the execution's own listing would change its fingerprint, and two runs would fetch it again. When a call is
  gone by the time its metrics are fetched, the list is read once more and must not show it.
- Many pages: the count is read once more after the pages, which are read again until they have shown so many calls. Then each
  call's metrics are fetched. If as many calls are alive as were counted, the list is proved; otherwise it is read again.
- The server cannot give the list: ``call_list.py`` has other ways. Where none gives all calls, nothing can be proved. The others
  are fetched, and a dead letter says how many are missing.

Stored calls of an execution that only settles are compared and not fetched again, see ``settling.py``. That is done where the list
fits one page (see ``LargestPage``): the count check needs each call's metrics.

A proved list may still be wrong, on a night on which the source has lost something itself:

- It names far fewer calls than are stored or than the source counts, or far fewer evals (see ``extract/doubts.py``): what is
  stored stays as it is, and a dead letter says so. Where nothing is stored that it leaves out, the calls that it names are
  fetched all the same. So they are where evals are missing from an execution that has changed: those of calls that were rerun
  may be gone. When that is what an earlier run said of it, they are not fetched again.
- It leaves out a few: each is asked for by its id, and so is one that no run could fetch, of which a dead letter tells, or that the
  execution's detail names. One that exists after all makes the list count as unproved. One whose metrics name another execution is
  a dead letter, until it is stored there, which only the end of the run can tell.
- It names a call whose metrics name another execution: that call is a dead letter, and not listed here.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial

from etl.errors import NotFoundError, SourceError
from etl.extract.call_list import read_call_list
from etl.extract.client import Client
from etl.extract.doubts import foreign_call, is_as_exported, moved_call, too_few_calls, too_few_evals, unlisted_call
from etl.extract.endpoints import get_call_metrics, get_execution, get_listed_call
from etl.extract.listing import MAX_ROUNDS
from etl.extract.open_execution import OpenExecution
from etl.extract.plan import Planned, pages
from etl.extract.settling import Settling
from etl.model.records import METRICS, RUNS, DeadLetter, ExecutionBundle

Emit = Callable[[ExecutionBundle], Awaitable[None]]
StoredCalls = Callable[[Planned], Awaitable[Mapping[str, AbstractSet[str]]]]
"""Reads which calls the dataset holds of an execution, and of each the configs of its evals."""

_MOST_IN_HAND = 2_000
"""So many calls of one execution are handed over before the others have arrived, so that memory is bounded."""
_WORKERS_PER_SLOT = 2  # a worker whose request waits for its next try leaves its place in the client to another


class Crawl:
    """One crawl over a plan.

    ``calls_fetched``, ``listings`` (executions whose calls are listed), ``necessary_requests`` (one for each page of calls and
    one for each call), ``doubted`` (execution_ids of those whose list names too few calls) and ``moved`` (for an execution and a
    stored call that it no longer lists, the execution that the call names) grow while it runs.
    Without ``stored_calls`` every list is believed.
    """

    def __init__(
        self,
        client: Client,
        plan: Iterable[Planned],
        emit: Emit,
        *,
        concurrency: int,
        page_limit: int,
        stored_calls: StoredCalls | None = None,
        settling: Settling | None = None,
    ) -> None:
        self.doubted: set[str] = set()
        self.moved: dict[tuple[str, str], str] = {}
        self.calls_fetched = 0
        self.listings = 0
        self.necessary_requests = 0
        self._client = client
        self._plan = iter(plan)
        self._emit = emit
        self._concurrency = concurrency
        self._workers = concurrency * _WORKERS_PER_SLOT
        self._page_limit = page_limit
        self._stored_calls = stored_calls
        self._settling = settling
        self._calls: deque[tuple[OpenExecution, str]] = deque()
        self._relist: deque[OpenExecution] = deque()
        self._open: set[OpenExecution] = set()
        self._has_more_work = asyncio.Event()

    async def run(self) -> None:
        """Fetch everything and emit each bundle as soon as it is whole.

        Raises:
            KeyRefusedError, SourceUnavailableError: the crawl cannot go on; what was emitted stands.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
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
        has_room = len(self._calls) < self._workers and len(self._open) < self._concurrency
        if has_room and (planned := next(self._plan, None)) is not None:
            execution = OpenExecution(planned)
            self._open.add(execution)
            return execution, None
        return self._calls.popleft() if self._calls else None

    async def _list(self, execution: OpenExecution) -> None:
        try:
            latest = await read_call_list(self._client, execution.planned, page_limit=self._page_limit)
        except NotFoundError as error:
            await self._close(execution, await self._without_list(execution, error))
            return
        except SourceError as error:
            execution.dead_letters.append(DeadLetter.of(RUNS, execution.execution_id, error))
            await self._close(execution, execution.cut_short())
            return
        if execution.is_repeated_by(latest):
            await self._finish(execution, is_proved=False)
            return
        fetched_before = len(execution.fetched)
        pending = execution.take_list(latest)
        self.calls_fetched -= fetched_before - len(execution.fetched)
        is_first = execution.round == 1
        execution.listed_at = asyncio.get_running_loop().time()
        self.listings += is_first
        if self._stored_calls and is_first:
            execution.stored = await self._stored_calls(execution.planned)
        # Where pages shifted, a call may be missing from them that the list counts.
        unlisted = execution.stored.keys() - latest.calls.keys() if execution.count is None else set[str]()
        count = len(latest.calls) if execution.count is None else execution.count
        if await self._is_doubted(execution, unlisted, count, is_fetched=False):
            return
        is_whole = execution.count is None and not (execution.unreadable_calls or execution.lacks_evals)
        if self._settling and is_first and is_whole:
            execution.kept, detailed = await self._settling.unchanged(execution.planned, execution.listed)
            execution.detailed = detailed if self._stored_calls else frozenset()
            pending = [key for key in pending if key not in execution.kept]
        lacks_calls = len(execution.listed) < (execution.count or 0) and not execution.unreadable_calls
        if lacks_calls and execution.round < MAX_ROUNDS:
            self._list_again(execution)
            return
        execution.outstanding = len(pending)
        if not pending:
            await self._finish_or_relist(execution)
            return
        self._calls.extend((execution, key) for key in pending)
        self._has_more_work.set()

    async def _without_list(self, execution: OpenExecution, error: NotFoundError) -> ExecutionBundle | None:
        """What is known of an execution whose calls are not found: nothing when it was deleted since, else a dead letter.

        Also when a part of it was saved: the next run marks that as deleted.
        """
        execution_id = execution.execution_id
        failure: SourceError = error
        try:
            await self._client.get(get_execution(execution_id).sent_for(execution.planned.purpose))
        except NotFoundError:
            if not execution.is_in_parts:
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
            # Deleted since it was listed: the list is proved without it, by its count or by being read again.
            del execution.listed[call_execution_id]
            execution.gone.add(call_execution_id)
            execution.must_relist = True
        except SourceError as error:
            execution.dead_letters.append(DeadLetter.of(METRICS, call_execution_id, error))
        execution.outstanding -= 1
        if not execution.outstanding:
            await self._finish_or_relist(execution)

    async def _read_entry(self, execution: OpenExecution, call_execution_id: str) -> bool:
        """Request the call's entry in the list, with its evals, by itself; False when it cannot be had."""
        self.necessary_requests += 1
        try:
            request = get_listed_call(call_execution_id, execution.execution_id)
            execution.listed[call_execution_id] = await self._client.get(request.sent_for(execution.planned.purpose))
        except NotFoundError:
            raise
        except SourceError as error:
            execution.left_out.add(call_execution_id)
            execution.dead_letters.append(DeadLetter.of(RUNS, call_execution_id, error))
            return False
        return True

    async def _read_metrics(self, execution: OpenExecution, call_execution_id: str) -> None:
        request = get_call_metrics(call_execution_id, execution.execution_id)
        metrics = await self._client.get(request.sent_for(execution.planned.purpose))
        if metrics.execution_id == execution.execution_id:
            execution.fetched[call_execution_id] = metrics
            self.calls_fetched += 1
            if len(execution.fetched) % _MOST_IN_HAND == 0 and self._may_be_saved(execution):
                await self._emit(self._arrived_of(execution))
        else:
            execution.left_out.add(call_execution_id)
            execution.dead_letters.append(foreign_call(metrics, execution.execution_id))

    async def _finish_or_relist(self, execution: OpenExecution) -> None:
        """Everything listed is fetched: emit the execution if its list is proved, else read the list again."""
        is_proved = not execution.must_relist if execution.count is None else execution.alive == execution.count
        is_proved = is_proved or execution.unreadable_calls is not None
        if is_proved or execution.round >= MAX_ROUNDS:
            await self._finish(execution, is_proved=is_proved)
        else:
            self._list_again(execution)

    async def _finish(self, execution: OpenExecution, *, is_proved: bool) -> None:
        if not is_proved:
            unproved = SourceError(
                f"its calls kept changing while they were listed, {execution.round} times; the last time {execution.alive} were "
                "fetched",
                tries=execution.round,
            )
            execution.doubt = DeadLetter.of(RUNS, execution.execution_id, unproved)
        unlisted = (execution.stored.keys() | execution.detailed) - execution.listed.keys()
        if await self._is_doubted(execution, unlisted, len(execution.listed), is_fetched=True):
            return
        if not (execution.unreadable_calls or execution.doubt):
            await self._confirm_deleted(execution, unlisted)
        await self._close(execution, execution.bundle())

    def _list_again(self, execution: OpenExecution) -> None:
        self._relist.append(execution)
        self._has_more_work.set()

    async def _is_doubted(
        self, execution: OpenExecution, unlisted: AbstractSet[str], count: int, *, is_fetched: bool
    ) -> bool:
        """Whether the list, which counts so many calls and leaves out these stored ones, is not believed and used no further."""
        if self._stored_calls is None:
            return False
        planned, stored = execution.planned, execution.stored
        few_evals = too_few_evals(planned, stored, execution.with_evals, execution.changed_calls())
        is_decided = is_fetched or is_as_exported(planned) or await self._is_stored(execution, few_evals)
        if not is_decided and (few_evals or execution.lacks_evals):
            # Which calls have changed since, their metrics will tell.
            execution.rows = await self._settling.stored.rows(planned) if self._settling else {}
            few_evals = None
        is_first = execution.doubt is None
        if is_first and not execution.unreadable_calls:
            if unlisted and self._settling:
                execution.rowless = unlisted - (await self._settling.stored.rows(planned)).keys()
            # What never had a row is asked for at last, but a list may have named it by mistake.
            rowless = len(unlisted & execution.rowless)
            few_calls = partial(
                too_few_calls, planned, stored=len(stored) - rowless, unlisted=len(unlisted) - rowless, count=count
            )
            execution.doubt = few_calls()
            if execution.doubt and self._settling:
                execution.doubt = few_calls(unlisted_before=await self._settling.stored.unlisted_calls(planned))
        execution.doubt = few_evals or execution.doubt
        if execution.doubt is None:
            return False
        if is_first:
            self.doubted.add(planned.execution.execution_id)
        if few_evals is None and (not is_first or stored.keys() < execution.listed.keys()):
            return False
        await self._close(execution, execution.cut_short())
        return True

    async def _is_stored(self, execution: OpenExecution, doubt: DeadLetter | None) -> bool:
        if doubt is None or self._settling is None:
            return False
        return await self._settling.is_stored(execution.planned, doubt, execution.listed)

    async def _confirm_deleted(self, execution: OpenExecution, unlisted: AbstractSet[str]) -> None:
        """Ask for each known call that the list leaves out; doubt the list if one exists, or if that cannot be told."""
        purpose = execution.planned.purpose
        for call_execution_id in sorted(unlisted):
            request = get_call_metrics(call_execution_id, execution.execution_id, is_lookup=True).sent_for(purpose)
            self.necessary_requests += 1
            try:
                found = await self._client.get(request)
            except NotFoundError:
                continue
            except SourceError as error:
                execution.doubt = DeadLetter.of(RUNS, execution.execution_id, error)
                return
            if found.execution_id == execution.execution_id:
                execution.doubt = unlisted_call(call_execution_id, execution.execution_id)
                return
            if call_execution_id in execution.rowless:  # nothing of it has to move
                continue
            execution.dead_letters.append(moved_call(found, execution.execution_id))
            self.moved[execution.execution_id, call_execution_id] = found.execution_id

    def arrived(self, *, listed_before: float = math.inf) -> list[ExecutionBundle]:
        """What has arrived of executions that are not whole yet, and were listed before this time of the event loop."""
        return [
            self._arrived_of(each)
            for each in self._open
            if each.fetched and each.outstanding and each.listed_at < listed_before and self._may_be_saved(each)
        ]

    def _may_be_saved(self, execution: OpenExecution) -> bool:
        """Whether what has arrived of it leaves out no more evals than the whole list may, as far as that was not told before."""
        if self._stored_calls is None or (execution.rows is None and not execution.lacks_evals):
            return True
        changed = execution.changed_calls()
        return too_few_evals(execution.planned, execution.stored, execution.arrived, changed) is None

    def _arrived_of(self, execution: OpenExecution) -> ExecutionBundle:
        arrived = execution.take_arrived()
        self.necessary_requests += len(arrived.calls)
        return arrived

    async def _close(self, execution: OpenExecution, bundle: ExecutionBundle | None) -> None:
        if bundle is not None:
            calls = len(bundle.listed or ())
            self.necessary_requests += calls - len(bundle.kept) + pages(calls, self._page_limit)
            await self._emit(bundle)
        self._open.remove(execution)
        self._has_more_work.set()
