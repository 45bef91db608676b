"""Batches hold whole executions, as many as keep all workers busy, and what is stored of each."""

import pickle
from typing import Any

from etl.extract.plan import Planned
from etl.extract.settling import Stored
from etl.model.records import NumberLiteral
from etl.pipeline.engine.batch import next_items, read_stored, reader_of
from tests.bundles import execution, plan_of
from tests.bundles import stored_of as stored


def planned(*calls: int) -> list[Planned]:
    executions = [execution(f"e{index}", total_calls=count) for index, count in enumerate(calls)]
    return plan_of(executions, {})


def ids(items: list[Planned]) -> list[str]:
    return [item.execution.execution_id for item in items]


def test_a_batch_ends_with_the_execution_that_fills_it() -> None:
    plan = iter(planned(30, 30, 30, 500, 1))
    batches = []
    while items := next_items(plan, calls=50):
        batches.append(ids(items))
    assert batches == [["e0", "e1"], ["e2", "e3"], ["e4"]]


def test_executions_without_calls_fill_a_batch_too() -> None:
    assert len(next_items(planned(*[0] * 100), calls=50)) == 50


async def test_a_worker_reads_what_the_driver_has_read() -> None:
    [item] = plan_of([execution()], {"execution": stored(execution())})
    values: dict[str, Any] = {
        "calls": {"c1": False, "c0": True},
        "rows": {"c1": ["c1", None, 1.5]},
        "failed": frozenset({"c2"}),
    }

    def given(value: Any) -> Any:
        async def read(_: Planned) -> Any:
            return value

        return read

    found = await read_stored(Stored(**{name: given(value) for name, value in values.items()}), item)
    reader = reader_of({"execution": pickle.loads(pickle.dumps(found))})
    assert {name: await getattr(reader, name)(item) for name in values} == values


def test_a_plan_survives_the_way_to_a_worker_to_the_last_digit() -> None:
    [item] = plan_of([execution(cost=NumberLiteral("1e400"), odd="\ud800", count=2**70)], {})
    assert pickle.loads(pickle.dumps(item)).execution.unpack() == item.execution.unpack()
