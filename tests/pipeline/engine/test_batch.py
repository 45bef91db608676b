"""Batches hold whole executions, as many as keep all workers busy, and what is stored of each."""

import pickle
from collections import deque
from typing import Any

import pytest

from etl.extract.plan import Planned
from etl.extract.settling import Stored
from etl.model.records import RUNS, NumberLiteral
from etl.pipeline.engine.batch import calls_of_a_batch, given_up, next_items, read_stored, reader_of
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
    while items := next_items(plan, deque(), calls=50):
        batches.append(ids(items))
    assert batches == [["e0", "e1"], ["e2", "e3"], ["e4"]]


def test_executions_without_calls_fill_a_batch_too() -> None:
    assert len(next_items(planned(*[0] * 100), deque(), calls=50)) == 50


def test_what_another_batch_did_not_begin_comes_first() -> None:
    left = deque(planned(10, 10)[1:])
    assert ids(next_items(planned(40, 40), left, calls=20)) == ["e1", "e0"]
    assert not left


@pytest.mark.parametrize(
    ("expected", "workers", "calls"), [(1_000_000, 2, 2_000), (4_000, 2, 500), (100, 64, 50), (4_000, 0, 1_000)]
)
def test_each_worker_gets_several_batches_where_there_is_enough(expected: int, workers: int, calls: int) -> None:
    assert calls_of_a_batch(expected, workers) == calls


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
    assert found is not None
    reader = reader_of({"execution": pickle.loads(pickle.dumps(found))})
    assert {name: await getattr(reader, name)(item) for name in values} == values


async def test_of_an_execution_without_rows_nothing_is_sent() -> None:
    [item] = planned(1)
    nothing = reader_of({})
    assert await read_stored(nothing, item) is None
    assert await nothing.rows(item) == {}
    assert await nothing.calls(item) == {}


def test_a_plan_survives_the_way_to_a_worker_to_the_last_digit() -> None:
    [item] = plan_of([execution(cost=NumberLiteral("1e400"), odd="\ud800", count=2**70)], {})
    assert pickle.loads(pickle.dumps(item)).execution.unpack() == item.execution.unpack()


def test_an_execution_that_is_given_up_says_nothing_of_its_calls() -> None:
    [item] = planned(3)
    bundle = given_up(item, "its Dask worker failed: MemoryError")
    assert bundle.listed is None
    [letter] = bundle.dead_letters
    assert (letter.endpoint, letter.subject_id, letter.message) == (RUNS, "e0", "its Dask worker failed: MemoryError")
