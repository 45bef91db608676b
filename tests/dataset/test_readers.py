"""One export, whatever its run tests are called, read alike by pandas, pyarrow, DuckDB and Polars."""

import asyncio
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from etl.model import schema
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox
from etl.sandbox.world import listable_calls
from tests.dataset.readers import READERS, with_read_table
from tests.support import settings_for
from tests.warehouses import by_key, rows_of_dataset
from tests.worlds import settled_world

NAMES = [
    "007",
    "7",
    "Case",
    "case",
    "Caf\u00e9",
    "Cafe\u0301",
    "測" * 255,
    "a/b",
    "line\nbreak",
    "🚀 👩\u200d💻",
    "..",
    'it\'s "quoted"',
    "A+B & C=D; 100%? #frag",
    "2026-01-01",
    "true",
]
TABLES = list(schema.TABLES.values())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export with hostile names and values, one dead letter, and what the server holds of it."""
    world = settled_world(names=NAMES, executions=2, calls=4, days=60, quirks=True)
    calls = {test.name: [listable_calls(each) for each in test.executions] for test in world.run_tests}
    first, lost = calls["007"][0][:2]
    first.total_cost_cents = 2**53 + 1
    first.scenario = replace(first.scenario, name="'; DROP TABLE calls; -- \t\0 \u202e ''\"\" \\N NULL")
    root = tmp_path_factory.mktemp("it's a data set, 100% ünï")

    async def run():
        def fault(request, _nth):
            return Fault(status=400) if lost.call_execution_id in request.target else None

        async with Sandbox(world, fault=fault) as server:
            return await job.export(settings_for(server, root, export={"metrics": "calls"}))

    summary = asyncio.run(run())
    counts = {name: sum(map(len, calls[name])) - (name == "007") for name in NAMES}
    return SimpleNamespace(root=root, summary=summary, calls=counts, first=first, lost=lost)


@pytest.mark.parametrize("read", READERS)
def test_every_reader_gets_every_row_with_every_value_and_the_words_of_its_path(exported, read):
    assert {run_test.name for run_test in exported.summary.run_tests if not run_test.is_complete} == {"007"}
    calls = {row["call_execution_id"]: row for row in rows_of_dataset(exported.root, schema.CALLS)}
    assert Counter(row["run_test_name"] for row in calls.values()) == exported.calls
    first = calls[exported.first.call_execution_id]
    assert (first["scenario_name"], first["cost_total_cost_cents"]) == (exported.first.scenario.name, 2**53 + 1)
    for table in TABLES:
        rows = rows_of_dataset(exported.root, table)
        found = by_key(table, read(exported.root / table.name).to_pylist())
        if read is with_read_table:  # the day stands there in place of the month
            found = [row | {"month": f"{row['date']:%Y-%m}"} for row in found]
        assert [{name: row[name] for name in rows[0]} for row in found] == rows


def test_every_file_has_the_same_types_and_keeps_the_rule_of_nulls(exported):
    for table in TABLES:
        files = list((exported.root / table.name).rglob("*.parquet"))
        assert files
        for path in files:
            found = pq.read_schema(path)
            assert found.equals(table.arrow_schema, check_metadata=True), path
            assert [field.nullable for field in found] == [not column.is_key for column in table.columns]
        nulls = {name for row in rows_of_dataset(exported.root, table) for name, value in row.items() if value is None}
        assert nulls.isdisjoint(column.name for column in table.columns if column.null_rule == schema.NEVER)
