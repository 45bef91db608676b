"""What a worker is sent and what it answers: whole executions with what is stored of them, and their flat bundles. Pure.

Neither holds a key: a worker has those of its own environment.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from etl.errors import ExporterError
from etl.extract.plan import Planned
from etl.extract.settling import Counts, Stored
from etl.extract.transport import Traffic
from etl.settings.sections import Api
from etl.transform.flatten import FlatBundle


@dataclass(frozen=True, slots=True)
class StoredExecution:
    """What the dataset holds of one execution, read by the driver; fields as in ``Stored``."""

    calls: Mapping[str, bool] = field(default_factory=dict)
    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    failed: AbstractSet[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Executions for one worker. ``stored`` is by execution_id.

    ``requests_per_minute`` is the worker's share of the rate limit, None while no limit is known.
    """

    run_id: str
    items: tuple[Planned, ...]
    stored: Mapping[str, StoredExecution]
    api: Api
    include_raw: bool
    requests_per_minute: int | None


@dataclass(slots=True)
class Answer:
    """What came of a batch: bundles in the order in which they arrived. ``error`` is why the worker could not go on."""

    bundles: list[FlatBundle] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    traffic: Traffic = field(default_factory=Traffic)
    error: ExporterError | None = None


def next_items(plan: Iterable[Planned], calls: int) -> list[Planned]:
    """The next whole executions of the plan, with about so many calls."""
    items: list[Planned] = []
    plan = iter(plan)
    while calls > 0 and (item := next(plan, None)) is not None:
        items.append(item)
        calls -= item.estimated_calls + 1
    return items


async def read_stored(stored: Stored, item: Planned) -> StoredExecution:
    """What the dataset holds of the execution."""
    return StoredExecution(
        calls=await stored.calls(item), rows=await stored.rows(item), failed=await stored.failed(item)
    )


def reader_of(stored: Mapping[str, StoredExecution]) -> Stored:
    """What a crawl reads of the dataset, where there is none at hand."""

    async def calls(item: Planned) -> Mapping[str, bool]:
        return stored[item.execution.execution_id].calls

    async def rows(item: Planned) -> Mapping[str, Sequence[Any]]:
        return stored[item.execution.execution_id].rows

    async def failed(item: Planned) -> AbstractSet[str]:
        return stored[item.execution.execution_id].failed

    return Stored(calls=calls, rows=rows, failed=failed)
