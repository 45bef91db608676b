"""Whoever reads a partition that runs rewrite and extend sees one whole version of it, but for DuckDB (documented)."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest

from etl.pipeline import job
from etl.sandbox import Sandbox
from etl.sandbox.generate import add_execution, finish_execution
from etl.sandbox.world import rerun_execution
from tests.dataset.readers import READERS, with_duckdb, with_duckdb_over_pyarrow, with_polars, with_polars_over_pyarrow
from tests.support import settings_for
from tests.worlds import settled_world

CALLS, REWRITES = 5, 10
NOON = (datetime.now(UTC) - timedelta(days=5)).replace(hour=12)
# They open a file for its footer, and again for its rows: by then it may be another file. DuckDB then takes as many
# rows from it as the first one had.
SOMETIMES_FAILING = [with_duckdb, with_polars]
ALL_READERS = [*READERS, with_duckdb_over_pyarrow, with_polars_over_pyarrow]
COMPLAINTS = (duckdb.Error, pl.exceptions.PolarsError, pl.exceptions.PanicException)


@pytest.fixture
async def server():
    """One run test with three executions of one day."""
    world = settled_world(run_tests=1, executions=0)
    for minutes in range(3):
        started_at = NOON + timedelta(minutes=minutes)
        add_execution(world, world.run_tests[0], random.Random(minutes), started_at, CALLS)
    async with Sandbox(world) as running:
        yield running


def rerun(execution, version):
    """Run the execution again; each of its calls then costs ``version`` cents."""
    now = datetime.now(UTC)
    rerun_execution(execution, now - timedelta(hours=29))
    finish_execution(execution, random.Random(version), now - timedelta(hours=28))
    for call in execution.calls:
        call.total_cost_cents = version


@pytest.mark.parametrize("reads", [30, pytest.param(2000, marks=pytest.mark.slow)])
async def test_a_read_during_a_rewrite_sees_every_call_and_one_version_of_each_execution(server, tmp_path, reads):
    world, run_test = server.world, server.world.run_tests[0]
    executions = [*run_test.executions]
    settings = settings_for(server, tmp_path / "data")
    await job.export(settings)
    (partition,) = (tmp_path / "data" / "calls").glob("run_test=*/month=*")
    is_over = writer_is_gone = False
    rewrites = 0

    def read_in_turn():
        """What each reader saw, and how often it failed."""
        seen: dict[Any, set[Any]] = {read: set() for read in ALL_READERS}
        failures: Counter[Any] = Counter()
        done = 0
        while (done < reads or rewrites < REWRITES) and not writer_is_gone:
            read = ALL_READERS[done % len(ALL_READERS)]
            done += 1
            try:
                table = read(partition)
            except COMPLAINTS:
                failures[read] += 1
                continue
            rows = table.select(["execution_id", "export_run_id", "cost_total_cost_cents"]).to_pylist()
            versions = {(row["execution_id"], row["export_run_id"], row["cost_total_cost_cents"]) for row in rows}
            counts = Counter(row["execution_id"] for row in rows)
            assert len(versions) == len(counts), read
            if read is not with_duckdb:
                assert counts == dict.fromkeys(counts.keys() | ids, CALLS), read
            seen[read] |= versions
        return seen, failures

    async def rewrite():
        nonlocal rewrites, writer_is_gone
        try:
            while not is_over:
                rewrites += 1
                rerun(executions[rewrites % 3], rewrites)
                # Earlier than the others: what a reader cuts off at the end is not new.
                begins_at = NOON - timedelta(seconds=rewrites)
                new = add_execution(world, run_test, random.Random(f"new {rewrites}"), begins_at, CALLS)
                for call in new.calls:
                    call.total_cost_cents = rewrites
                summary = await job.export(settings)
                assert summary.exit_code == 0, summary.problems
        finally:
            writer_is_gone = True

    for execution in executions:
        rerun(execution, 0)
    await job.export(settings)
    ids = [execution.execution_id for execution in executions]
    async with asyncio.TaskGroup() as group:
        writer = group.create_task(rewrite())
        try:
            seen, failures = await asyncio.to_thread(read_in_turn)
        finally:
            is_over = True
        await writer
    assert all(len(versions) > len(ids) for versions in seen.values()), "a reader saw no rewrite"
    assert failures.keys() <= set(SOMETIMES_FAILING), "only these may fail, and none may see wrong rows"
    assert all(read(partition).num_rows == CALLS * len(run_test.executions) for read in ALL_READERS)
