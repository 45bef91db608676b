"""What a worker is sent and what it answers: whole executions with what is stored of them, and their flat bundles. Pure.

Neither holds a key: a worker has those of its own environment.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from etl.errors import ExporterError, SourceError
from etl.extract.open_execution import OpenExecution
from etl.extract.plan import Planned
from etl.extract.settling import Stored
from etl.extract.transport import Traffic
from etl.model.records import RUNS, DeadLetter, ExecutionBundle
from etl.pipeline.engine.contract import Counts, How
from etl.settings.sections import Api
from etl.transform.flatten import FlatBundle

_MOST_CALLS = 2_000
_FEWEST_CALLS = 50
_BATCHES_OF_A_WORKER = 4
"""At least, where there is enough to fetch: so no worker has much more to do than another at the end."""


@dataclass(frozen=True, slots=True)
class StoredExecution:
    """What the dataset holds of one execution, read by the driver; fields as in ``Stored``."""

    calls: Mapping[str, bool]
    rows: Mapping[str, Sequence[Any]]
    failed: AbstractSet[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Executions for one worker. ``stored`` is by execution_id, for those of which the dataset holds something.

    ``requests_per_minute`` is the worker's share of the rate limit, None while no limit is known. After ``seconds`` it begins with
    no other execution than its first, so that what has arrived is committed in time.
    """

    run_id: str
    items: tuple[Planned, ...]
    stored: Mapping[str, StoredExecution]
    api: Api
    how: How
    requests_per_minute: int | None
    seconds: float


@dataclass(slots=True)
class Answer:
    """What came of a batch: bundles in the order in which they arrived, and ids of executions that were ``not_begun``.

    ``error`` is why the worker could not go on; ``bug`` is the same in words, when nothing raised it on purpose.
    """

    bundles: list[FlatBundle] = field(default_factory=list)
    not_begun: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    traffic: Traffic = field(default_factory=Traffic)
    error: ExporterError | None = None
    bug: str = ""


def calls_of_a_batch(expected_calls: int, workers: int) -> int:
    """About how many calls one batch has, when so many are fetched by so many workers."""
    share = expected_calls // (max(1, workers) * _BATCHES_OF_A_WORKER)
    return min(_MOST_CALLS, max(_FEWEST_CALLS, share))


def next_items(plan: Iterable[Planned], left: deque[Planned], calls: int) -> list[Planned]:
    """The next whole executions, with about so many calls: of those that were ``left`` by other batches first, then of the plan."""
    items: list[Planned] = []
    plan = iter(plan)
    while calls > 0 and (item := left.popleft() if left else next(plan, None)) is not None:
        items.append(item)
        calls -= item.estimated_calls + 1
    return items


def reader_of(stored: Mapping[str, StoredExecution]) -> Stored:
    """What a crawl reads of the dataset, where there is none at hand."""
    nothing_stored = StoredExecution({}, {}, frozenset())

    def of(item: Planned) -> StoredExecution:
        return stored.get(item.execution.execution_id, nothing_stored)

    async def calls(item: Planned) -> Mapping[str, bool]:
        return of(item).calls

    async def rows(item: Planned) -> Mapping[str, Sequence[Any]]:
        return of(item).rows

    async def failed(item: Planned) -> AbstractSet[str]:
        return of(item).failed

    return Stored(calls=calls, rows=rows, failed=failed)


async def read_stored(stored: Stored, item: Planned) -> StoredExecution | None:
    """What the dataset holds of the execution; None if that is nothing."""
    found = StoredExecution(
        calls=await stored.calls(item), rows=await stored.rows(item), failed=await stored.failed(item)
    )
    return found if any((found.calls, found.rows, found.failed)) else None


def given_up(item: Planned, message: str) -> ExecutionBundle:
    """The execution as one whose calls could not be fetched; what is stored of it stays."""
    letter = DeadLetter.of(RUNS, item.execution.execution_id, SourceError(message))
    return OpenExecution(item, dead_letters=[letter]).bundle(is_listed=False)
