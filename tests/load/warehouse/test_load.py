"""A load makes a warehouse equal to the dataset, whatever was there, and touches nothing else."""

import asyncio
import dataclasses
import gc
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from adbc_driver_postgresql import dbapi
from msgspec.structs import replace

from etl import sandbox
from etl.errors import DestinationError, ExitCode, InterruptedRunError
from etl.inspect.verify_warehouse import verify_rows
from etl.load.layout import INDEX, Part
from etl.load.warehouse import postgresql
from etl.load.warehouse.ddl import ddl
from etl.load.warehouse.load import load
from etl.load.warehouse.sql import SqlWarehouse
from etl.load.warehouse.statements import ANY_DATASET, MARK
from etl.load.warehouse.target import open_warehouse
from etl.model import schema
from etl.pipeline import job
from etl.sandbox import Sandbox
from tests.bundles import a_bundle, dead_letter
from tests.datasets import a_dataset, export_to
from tests.loads import NOW, first_export
from tests.support import IS_FULL, settings_for
from tests.warehouses import (
    DyingSession,
    Place,
    assert_equals_dataset,
    contents_of,
    load_and_die,
    load_into,
    new_duckdb,
    new_postgresql,
    rows_of_dataset,
)
from tests.worlds import settled_world

EVAL = "INSERT INTO {s}.evals (call_execution_id, eval_config_id, execution_id, run_test, month)"


class Source:
    """A server, and the dataset of its world."""

    def __init__(self, server: Sandbox, data: Path) -> None:
        self.server, self.data = server, data
        self.executions = [each for run_test in server.world.run_tests for each in run_test.executions]

    async def export(self) -> None:
        summary = await job.export(settings_for(self.server, self.data))
        assert summary.exit_code == 0, summary.problems

    async def change(self) -> None:
        """One execution runs again with other calls, one is new, one was deleted, one lost its calls."""
        rng, now = Random(2), datetime.now(UTC)
        again, deleted, emptied = self.executions[:3]
        sandbox.rerun_execution(again, now - timedelta(hours=30))
        sandbox.finish_execution(again, rng, now - timedelta(hours=29))
        sandbox.delete_call(again.calls[0])
        sandbox.delete_execution(deleted)
        for call in emptied.calls:
            sandbox.delete_call(call)
        sandbox.rerun_execution(emptied, now - timedelta(hours=30))
        emptied.status = "completed"
        emptied.completed_at = now - timedelta(hours=29)
        sandbox.add_execution(self.server.world, self.server.world.run_tests[1], rng, now - timedelta(hours=40), 2)
        summary = await job.export(settings_for(self.server, self.data), accept_deletions=True)
        assert summary.exit_code == 0, summary.problems


def served() -> Sandbox:
    return Sandbox(settled_world(run_tests=2, executions=3, calls=3, days=40))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the world as it is at first, for nobody to change."""
    data = tmp_path_factory.mktemp("exported") / "data"

    async def export() -> None:
        async with served() as server:
            await Source(server, data).export()

    asyncio.run(export())
    return data


def let_lack_a_column(warehouse: Place) -> None:
    """As if an older version, which had a column less, had loaded it."""
    with closing(warehouse.open()) as opened:
        as_before = opened._sql.held(lacking={"calls": {"raw"}})
    warehouse.edit(
        "DROP VIEW {s}.calls_current",
        "ALTER TABLE {s}.calls DROP COLUMN raw",
        f"UPDATE {{s}}.metrics_etl_state AS s SET checksum = h.checksum FROM ({as_before}) AS h WHERE s.item = h.item",
        "UPDATE {s}.metrics_etl_state SET digest = 'of an older version' WHERE kind = 'dataset'",
    )


@pytest.fixture
async def source(exported: Path, tmp_path: Path) -> AsyncIterator[Source]:
    async with served() as server:
        yield Source(server, shutil.copytree(exported, tmp_path / "data"))


@pytest.fixture(scope="module", params=["duckdb", "postgresql"])
def edited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgresql_if_installed: str
) -> Iterator[Place]:
    """A place for edits, one after the other."""
    if request.param == "postgresql" and not postgresql_if_installed:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    is_file = request.param == "duckdb"
    place = new_duckdb(tmp_path_factory.mktemp("edited")) if is_file else new_postgresql(postgresql_if_installed)
    yield place
    place.drop()


async def test_first_load_brings_every_cell(source: Source, warehouse: Place) -> None:
    result = load_into(warehouse, source.data)

    assert (result.new, result.changed, result.altered, result.removed) == (6, 0, 0, 0)
    assert result.rows["calls"] == 18
    assert result.problems == []
    assert_equals_dataset(warehouse, source.data)


async def test_next_load_replaces_what_changed_alone(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)
    await source.change()
    result = load_into(warehouse, source.data)

    assert (result.new, result.changed, result.altered, result.removed) == (1, 3, 0, 0)
    assert_equals_dataset(warehouse, source.data)


async def test_where_nothing_differs_one_query_is_asked_and_nothing_written(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)
    with closing(warehouse.open()) as opened:
        session = opened._session = DyingSession(opened._session, nth=0)
        result = load(contents_of(source.data), opened)

    assert session.asked == ["query"]
    assert (result.is_changed, dict(result.rows)) == (False, {})


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE {s}.calls SET duration_seconds = 1",
        pytest.param("UPDATE {s}.executions SET status = NULL WHERE run_test LIKE 'checkout%'", marks=pytest.mark.slow),
        "DELETE FROM {s}.evals WHERE run_test LIKE 'checkout%'",
        "DELETE FROM {s}.executions",
        pytest.param("DELETE FROM {s}.runs", marks=pytest.mark.slow),
        "DELETE FROM {s}.metrics_etl_state",
        pytest.param("DELETE FROM {s}.metrics_etl_state WHERE kind = 'dataset'", marks=pytest.mark.slow),
        EVAL + " VALUES ('a', 'b', 'c', 'd', 'e')",
        EVAL + " SELECT 'a', 'b', min(execution_id), 'd', 'e' FROM {s}.calls",
        "INSERT INTO {s}.errors (endpoint, subject_id, run_test, month) VALUES ('a', 'b', 'c', 'd')",
        "DROP TABLE {s}.metrics_etl_state",
        "DROP TABLE {s}.evals",
        pytest.param("DROP TABLE {s}.runs", marks=pytest.mark.slow),
        pytest.param("DROP TABLE {s}.errors", marks=pytest.mark.slow),
        "DROP VIEW {s}.calls_current",
        "ALTER TABLE {s}.evals DROP COLUMN reason",
    ],
)
def test_what_was_edited_by_hand_is_made_equal_again(exported: Path, edited: Place, edit: str) -> None:
    load_into(edited, exported)
    edited.edit(edit)
    load_into(edited, exported)

    assert_equals_dataset(edited, exported)
    assert not load_into(edited, exported).is_changed


@pytest.mark.parametrize("table", ["calls", pytest.param("executions", marks=pytest.mark.slow)])
async def test_view_shows_the_new_table_where_the_old_one_was_renamed(
    source: Source, warehouse: Place, table: str
) -> None:
    """PostgreSQL's views follow a table to its new name."""
    load_into(warehouse, source.data)
    warehouse.edit(f"ALTER TABLE {{s}}.{table} RENAME TO {table}_of_before")
    load_into(warehouse, source.data)
    await source.change()
    load_into(warehouse, source.data)

    assert_equals_dataset(warehouse, source.data)


@pytest.mark.parametrize("column", ["calls.status", pytest.param("executions.deleted_at", marks=pytest.mark.slow)])
async def test_view_shows_the_new_column_where_the_old_one_was_renamed(
    source: Source, warehouse: Place, column: str
) -> None:
    load_into(warehouse, source.data)
    table, name = column.split(".")
    warehouse.edit(f"ALTER TABLE {{s}}.{table} RENAME COLUMN {name} TO of_before")
    await source.change()
    load_into(warehouse, source.data)
    warehouse.edit(f"ALTER TABLE {{s}}.{table} DROP COLUMN of_before")  # which nothing shows any more

    assert_equals_dataset(warehouse, source.data)


async def test_view_shows_the_table_that_was_put_in_the_place_of_ours(source: Source, in_postgresql: Place) -> None:
    """As a DBA does who rebuilds a table, and gives it the comment that a refusal asks for."""
    load_into(in_postgresql, source.data)
    for statement in (
        "CREATE TABLE {s}.rebuilt (LIKE {s}.calls INCLUDING ALL)",
        "INSERT INTO {s}.rebuilt SELECT * FROM {s}.calls",
        "ALTER TABLE {s}.calls RENAME TO calls_of_before",
        "ALTER TABLE {s}.rebuilt RENAME TO calls",
        f"COMMENT ON TABLE {{s}}.calls IS '{MARK}{ANY_DATASET}.'",
    ):
        in_postgresql.edit(statement)
    await source.change()
    load_into(in_postgresql, source.data)

    assert_equals_dataset(in_postgresql, source.data)


async def test_view_to_which_somebody_added_a_table_stays(source: Source, in_postgresql: Place) -> None:
    load_into(in_postgresql, source.data)
    [row] = in_postgresql.query("SELECT pg_get_viewdef('{s}.calls_current'::regclass) AS text")
    in_postgresql.edit("CREATE TABLE {s}.hidden (id text)")
    narrower = f"{row['text'].rstrip(';')} AND NOT EXISTS (SELECT FROM {{s}}.hidden WHERE id = c.execution_id)"
    in_postgresql.edit(f"CREATE OR REPLACE VIEW {{s}}.calls_current AS {narrower}")
    await source.change()
    load_into(in_postgresql, source.data)

    in_postgresql.edit("INSERT INTO {s}.hidden SELECT execution_id FROM {s}.executions")
    assert in_postgresql.query("SELECT * FROM {s}.calls_current") == []


async def test_view_that_reads_our_tables_through_another_stays(source: Source, in_postgresql: Place) -> None:
    load_into(in_postgresql, source.data)
    [row] = in_postgresql.query("SELECT pg_get_viewdef('{s}.calls_current'::regclass) AS text")
    in_postgresql.edit(f"CREATE VIEW {{s}}.base AS {row['text']}")
    in_postgresql.edit("CREATE OR REPLACE VIEW {s}.calls_current AS SELECT * FROM {s}.base WHERE false")
    await source.change()
    load_into(in_postgresql, source.data)

    assert in_postgresql.query("SELECT * FROM {s}.calls_current") == []


async def test_view_that_cannot_be_replaced_is_to_be_dropped(source: Source, in_postgresql: Place) -> None:
    load_into(in_postgresql, source.data)
    in_postgresql.edit("ALTER VIEW {s}.calls_current RENAME COLUMN status TO state")
    await source.change()
    with pytest.raises(DestinationError, match=r"drop the view calls_current, or make it as .*, and load again"):
        load_into(in_postgresql, source.data)

    in_postgresql.edit("DROP VIEW {s}.calls_current")
    load_into(in_postgresql, source.data)
    assert_equals_dataset(in_postgresql, source.data)


async def test_row_that_belongs_to_nothing_cannot_be_inserted(source: Source, warehouse: Place) -> None:
    """No load could ever find it again."""
    load_into(warehouse, source.data)

    with pytest.raises(DestinationError):
        warehouse.edit("INSERT INTO {s}.evals (call_execution_id, eval_config_id) VALUES ('a', 'b')")


async def test_full_load_brings_everything_anew(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)
    result = load_into(warehouse, source.data, is_full=True)

    assert (result.changed, result.rows["calls"]) == (6, 18)
    assert_equals_dataset(warehouse, source.data)


async def test_dry_run_says_what_differs_and_changes_nothing(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)
    before = {table.name: warehouse.rows(table) for table in schema.TABLES.values()}
    await source.change()
    result = load_into(warehouse, source.data, is_dry_run=True)

    assert (result.new, result.changed) == (1, 3)
    assert {table.name: warehouse.rows(table) for table in schema.TABLES.values()} == before


@pytest.mark.parametrize("is_after", [False, True])
async def test_load_that_dies_at_any_statement_changed_nothing_or_all_and_the_next_one_heals(
    source: Source, warehouse: Place, is_after: bool
) -> None:
    load_into(warehouse, source.data)
    tables = schema.TABLES.values()
    before = [warehouse.rows(table) for table in tables]
    await source.change()

    for nth in range(0, 100, 1 if IS_FULL else 5):
        if not load_and_die(warehouse, source.data, nth=nth, is_after=is_after):
            break
        if [warehouse.rows(table) for table in tables] != before:
            assert_equals_dataset(warehouse, source.data)
            break
    else:
        pytest.fail("more statements than expected")

    assert nth > 10
    load_into(warehouse, source.data)
    assert_equals_dataset(warehouse, source.data)


async def test_first_load_that_dies_at_any_statement_is_made_up_for(source: Source, warehouse: Place) -> None:
    nth = 0
    while load_and_die(warehouse, source.data, nth=nth):
        nth += 40 if nth < 160 else 1 if IS_FULL else 8  # the first are comments on columns

    assert nth > 160
    assert_equals_dataset(warehouse, source.data)


async def test_another_dataset_is_refused(source: Source, warehouse: Place, tmp_path: Path) -> None:
    load_into(warehouse, source.data)
    other = Source(source.server, tmp_path / "other")
    await other.export()

    with pytest.raises(DestinationError, match="holds another dataset"):
        load_into(warehouse, other.data)
    warehouse.edit("DROP TABLE {s}.metrics_etl_state")
    with pytest.raises(DestinationError, match="holds another dataset"):
        load_into(warehouse, other.data)
    load_into(warehouse, source.data)
    assert_equals_dataset(warehouse, source.data)


async def test_table_of_somebody_else_is_refused_and_stays(source: Source, warehouse: Place) -> None:
    warehouse.edit("CREATE SCHEMA {s}", "CREATE TABLE {s}.calls (mine INTEGER)", "INSERT INTO {s}.calls VALUES (7)")

    for is_dry_run in (True, False):
        with pytest.raises(DestinationError, match="calls was not made by metrics-etl"):
            load_into(warehouse, source.data, is_dry_run=is_dry_run)
    assert warehouse.query("SELECT * FROM {s}.calls") == [{"mine": 7}]


async def test_table_whose_comment_was_replaced_is_ours_again_as_its_error_says(
    source: Source, warehouse: Place
) -> None:
    """As by a catalogue of the company, or a dump without comments."""
    load_into(warehouse, source.data)
    warehouse.edit("COMMENT ON TABLE {s}.calls IS 'ask Ann'")
    with pytest.raises(DestinationError, match="calls was not made by metrics-etl") as caught:
        load_into(warehouse, source.data, is_full=True)
    _, words, _ = str(caught.value).split('"')
    warehouse.edit(f"COMMENT ON TABLE {{s}}.calls IS 'ask Ann. {words}'")

    load_into(warehouse, source.data, is_full=True)

    assert_equals_dataset(warehouse, source.data)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["metrics.duckdb", "metrics.duckdb.wal"])
@pytest.mark.parametrize("is_dry_run", [True, False])
def test_pipe_in_the_place_of_a_duckdb_file_hangs_nobody(tmp_path: Path, name: str, *, is_dry_run: bool) -> None:
    data, place = first_export(tmp_path / "data"), Place(f"duckdb://{tmp_path}/metrics.duckdb")
    os.mkfifo(tmp_path / name)

    with pytest.raises(DestinationError, match=f"{name}: is not a regular file: remove it$"):
        load_into(place, data, is_dry_run=is_dry_run)


@pytest.mark.parametrize("is_dry_run", [True, False])
@pytest.mark.parametrize(
    "name", ["calls.parquet", "calls.json", "calls.csv", "calls.duckdb", "empty.csv", "empty.duckdb"]
)
def test_file_that_is_no_duckdb_database_is_refused(tmp_path: Path, name: str, *, is_dry_run: bool) -> None:
    """DuckDB opens some kinds of files as views in a database in memory, where everything that is loaded is gone afterwards."""
    data, file = first_export(tmp_path / "data"), tmp_path / name
    if file.stem == "empty":
        file.touch()
    elif file.suffix == ".parquet":
        pq.write_table(pa.table({"a": [1]}), file)
    else:
        file.write_text('[{"a": 1}]' if file.suffix == ".json" else "a,b\n1,2\n" * 9)
    before = file.read_bytes()
    with pytest.raises(
        DestinationError,
        match=f"{name}: no DuckDB database, but (another file: leave|an empty file: remove) it, or name another one",
    ):
        load_into(Place(f"duckdb://{file}"), data, is_dry_run=is_dry_run)
    assert file.read_bytes() == before


@pytest.mark.parametrize("is_dry_run", [True, False])
def test_duckdb_file_that_cannot_be_is_refused(tmp_path: Path, *, is_dry_run: bool) -> None:
    place = Place(f"duckdb://{tmp_path}/{'x' * 300}.duckdb")
    with pytest.raises(DestinationError, match="File name too long"):
        load_into(place, first_export(tmp_path / "data"), is_dry_run=is_dry_run)


@pytest.mark.parametrize("name", ["simulation_metrics", "Simulation_Metrics", "temp", "system"])
def test_schema_that_has_the_name_of_a_duckdb_database_is_refused(tmp_path: Path, name: str) -> None:
    place = Place(f"duckdb://{tmp_path}/{name}.duckdb", name.lower())

    with pytest.raises(DestinationError, match=r"name another \[warehouse\] schema or file$"):
        place.open()


async def test_column_of_another_type_is_refused(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)
    warehouse.edit("DROP VIEW {s}.calls_current", "ALTER TABLE {s}.calls ALTER COLUMN duration_seconds TYPE VARCHAR")

    with pytest.raises(DestinationError, match=r"calls\.duration_seconds is .*, expected"):
        load_into(warehouse, source.data)


async def test_column_that_a_newer_version_has_is_added_and_nothing_loaded_again(
    source: Source, warehouse: Place
) -> None:
    """The files of the dataset have null there, too."""
    load_into(warehouse, source.data)
    let_lack_a_column(warehouse)
    warehouse.edit(
        "CREATE VIEW {s}.calls_current AS SELECT call_execution_id FROM {s}.calls",
        f"COMMENT ON VIEW {{s}}.calls_current IS 'Loaded by metrics-etl from dataset {contents_of(source.data).dataset_id}.'",
    )
    result = load_into(warehouse, source.data)

    assert (result.is_changed, dict(result.rows)) == (True, {})
    assert_equals_dataset(warehouse, source.data)
    assert not load_into(warehouse, source.data).is_changed
    names = [*warehouse.query("SELECT * FROM {s}.calls_current")[0]]
    assert names[0] == "call_execution_id", "columns keep their order, so that grants stay"
    assert "raw" in names


async def test_edited_rows_that_are_held_back_are_not_believed_when_a_column_is_added(
    source: Source, warehouse: Place
) -> None:
    load_into(warehouse, source.data)
    let_lack_a_column(warehouse)
    warehouse.edit("UPDATE {s}.calls SET duration_seconds = 1")
    (first, *_) = sorted((source.data / "calls").rglob("*.parquet"))
    first.rename(lost := source.data.with_name("lost"))

    assert load_into(warehouse, source.data).damaged > 0
    lost.rename(first)
    load_into(warehouse, source.data)
    assert_equals_dataset(warehouse, source.data)


async def test_columns_of_others_stay(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)
    warehouse.edit("ALTER TABLE {s}.calls ADD COLUMN noted_by_us VARCHAR")

    assert not load_into(warehouse, source.data).is_changed
    await source.change()
    load_into(warehouse, source.data)
    rows = warehouse.rows(schema.CALLS)
    assert {row.pop("noted_by_us") for row in rows} == {None}
    assert rows[0].keys() == {column.name for column in (*schema.CALLS.columns, *schema.CALLS.partitions)}


async def test_rows_that_the_dataset_lost_stay_in_the_warehouse(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)
    (first, *_) = sorted((source.data / "calls").rglob("*.parquet"))
    lost = set(pq.ParquetFile(first).read()["execution_id"].to_pylist())
    before = warehouse.rows(schema.CALLS)
    first.unlink()
    result = load_into(warehouse, source.data, is_full=True)

    assert result.damaged == len(lost)
    assert "not loaded" in result.problems[0]
    assert warehouse.rows(schema.CALLS) == before

    await source.export()
    assert load_into(warehouse, source.data).problems == []
    assert_equals_dataset(warehouse, source.data)


async def test_execution_of_which_nothing_is_left_in_the_dataset_stays_in_the_warehouse(
    source: Source, warehouse: Place
) -> None:
    load_into(warehouse, source.data)
    before = warehouse.rows(schema.EXECUTIONS)
    (first, *_) = sorted((source.data / "executions").rglob("*.parquet"))
    for table in ("executions", "calls", "evals"):
        (source.data / table / first.relative_to(source.data / "executions")).unlink(missing_ok=True)
    result = load_into(warehouse, source.data)

    assert result.lost > 0
    assert result.removed == 0
    assert warehouse.rows(schema.EXECUTIONS) == before


async def test_of_two_copies_of_an_execution_the_whole_one_is_loaded(tmp_path: Path, warehouse: Place) -> None:
    """A run that was killed moved it, and then a file of the new place was lost."""
    data = first_export(tmp_path / "data")
    moved = a_bundle("e4", ["c6"], key="other", date="2026-08-04")
    export_to(a_dataset(data), moved, run="run-2", fetched_at=NOW + timedelta(days=1))
    shutil.rmtree(data / "calls" / "run_test=other")
    result = load_into(warehouse, data)

    assert result.damaged == 0
    (call,) = (row for row in warehouse.rows(schema.CALLS) if row["execution_id"] == "e4")
    assert call["run_test"] == "refund"


@pytest.mark.parametrize("option", ["is_full", "accept_deletions"])
async def test_execution_that_vanishes_from_the_dataset_and_its_index_stays_until_told_otherwise(
    source: Source, warehouse: Place, option: str
) -> None:
    """A deletion is a mark in the dataset: a row that is gone is no deletion."""
    load_into(warehouse, source.data)
    (source.data / INDEX).unlink()
    before = warehouse.rows(schema.CALLS)
    for table in ("executions", "calls", "evals"):
        (first, *_) = sorted((source.data / table).glob("run_test=*"))
        shutil.rmtree(first)
    kept = load_into(warehouse, source.data)

    assert (kept.removed, kept.vanished) == (0, 3)
    assert [problem.partition(" that the dataset no longer knows")[0] for problem in kept.problems] == ["3 executions"]
    assert warehouse.rows(schema.CALLS) == before

    result = load_into(warehouse, source.data, **{option: True})
    assert (result.removed, result.problems) == (3, [])
    assert_equals_dataset(warehouse, source.data)


async def test_damaged_file_is_refused_before_anything_is_changed(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)
    (first, *_) = sorted((source.data / "executions").rglob("*.parquet"))
    first.write_bytes(b"PAR1 and nothing else")

    with pytest.raises(DestinationError, match="metrics-etl run sets it aside"):
        load_into(warehouse, source.data)


async def test_places_are_columns_and_everything_has_a_comment(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)
    where = "table_schema = '{s}'" if "postgresql" in warehouse.url else "schema_name = '{s}'"
    sql = (
        "SELECT table_name, column_name, col_description((table_schema || '.' || table_name)::regclass, ordinal_position) "
        f"AS comment FROM information_schema.columns WHERE {where} AND table_name <> 'calls_current'"
        if "postgresql" in warehouse.url
        else f"SELECT table_name, column_name, comment FROM duckdb_columns() WHERE {where} AND table_name <> 'calls_current'"
    )
    comments = {(row["table_name"], row["column_name"]): row["comment"] for row in warehouse.query(sql)}

    assert all(comments.values())
    assert comments["calls", "duration_seconds"] == "Length of the call. Unit: s."
    months = {row["month"] for row in warehouse.rows(schema.CALLS)}
    assert months == {path.name.partition("=")[2] for path in (source.data / "calls").glob("*/*")}


async def test_verify_of_tables_that_are_not_there_names_the_fix(source: Source, warehouse: Place) -> None:
    with (
        closing(warehouse.open()) as opened,
        pytest.raises(DestinationError, match=r"has no table executions: run metrics-etl load$"),
    ):
        verify_rows(contents_of(source.data), opened)


async def test_verify_of_tables_of_an_older_version_names_the_fix(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)
    warehouse.edit("DROP VIEW {s}.calls_current", "ALTER TABLE {s}.executions DROP COLUMN unlisted_calls")
    with (
        closing(warehouse.open()) as opened,
        pytest.raises(DestinationError, match=r"executions has no unlisted_calls: run metrics-etl load$"),
    ):
        verify_rows(contents_of(source.data), opened)


async def test_dataset_that_lost_its_id_needs_a_run_first(source: Source, warehouse: Place) -> None:
    (source.data / "_state" / "dataset.json").unlink()

    with pytest.raises(DestinationError, match=r"no dataset that can be loaded: run metrics-etl run first$"):
        load_into(warehouse, source.data)


async def test_verify_finds_each_difference_and_nothing_else(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)

    def report():
        with closing(warehouse.open()) as opened:
            return verify_rows(contents_of(source.data), opened)

    assert report().findings == []
    assert report().rows["calls"] == report().loaded_rows["calls"] == 18
    first, second, third = (row["execution_id"] for row in warehouse.rows(schema.EXECUTIONS)[:3])
    warehouse.edit(
        f"UPDATE {{s}}.calls SET duration_seconds = 1 WHERE execution_id = '{first}'",
        f"DELETE FROM {{s}}.evals WHERE execution_id = '{second}'",
        f"UPDATE {{s}}.calls SET call_execution_id = 'x' || call_execution_id WHERE execution_id = '{third}'",
        "INSERT INTO {s}.runs (export_run_id, month) VALUES ('a run', '2020-01')",
        "ALTER TABLE {s}.runs ALTER COLUMN month DROP NOT NULL",
        "INSERT INTO {s}.runs (export_run_id) VALUES ('of no month')",
    )
    found = {each.place: each.text for each in report().findings}

    assert found.keys() == {f"execution {each}" for each in (first, second, third)} | {"run a run", "run of no month"}
    assert found[f"execution {first}"] == "calls: 3 rows with other values (duration_seconds)"
    assert "rows missing" in found[f"execution {second}"]
    assert found[f"execution {third}"] == "calls: 3 rows missing, 3 rows too many"
    assert [(day.table, day.rows, day.loaded_rows) for day in report().days if day.table == "runs"] == [
        ("runs", 0, 1)
    ] * 2


def test_verify_finds_which_of_two_executions_has_no_dead_letter_of_a_call(tmp_path: Path, warehouse: Place) -> None:
    """They lie in two parts of one month."""
    dataset = a_dataset(first_export(tmp_path / "data"))
    for number, execution_id in enumerate(("e8", "e9")):
        part = Part("refund", f"month=2026-10/part-{number}")
        bundle = replace(a_bundle(execution_id, [], key="refund", date="2026-10-05"), dead_letters=(dead_letter("c8"),))
        export_to(dataset, bundle, parts_of=lambda bundles, part=part: [part for _ in bundles])
    load_into(warehouse, tmp_path / "data")
    warehouse.edit("DELETE FROM {s}.errors WHERE execution_id = 'e8'")
    with closing(warehouse.open()) as opened:
        report = verify_rows(contents_of(tmp_path / "data"), opened)

    assert [each.text for each in report.findings] == ["errors: 1 row missing"]


async def test_verify_finds_times_that_python_does_not_have(source: Source, warehouse: Place) -> None:
    load_into(warehouse, source.data)
    warehouse.edit(
        "UPDATE {s}.calls SET exported_at = 'infinity'", "UPDATE {s}.executions SET started_at = '-infinity'"
    )
    with closing(warehouse.open()) as opened:
        report = verify_rows(contents_of(source.data), opened)

    assert {each.text for each in report.findings} == {
        "executions: 1 row with other values (started_at); calls: 3 rows with other values (exported_at)"
    }


async def test_tables_that_an_administrator_made_are_filled_by_who_may_make_none(
    source: Source, in_postgresql: Place
) -> None:
    printed = ddl([*schema.TABLES.values()], "postgresql").replace(
        '"simulation_metrics"', f'"{in_postgresql.namespace}"'
    )
    name = in_postgresql.namespace.replace("metrics", "loader")
    in_postgresql.edit(
        *printed.rstrip(";").split(";\n\n"),
        f"CREATE ROLE {name} LOGIN",
        f"GRANT USAGE ON SCHEMA {{s}} TO {name}",
        f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {{s}} TO {name}",
    )
    loader = Place(in_postgresql.url.replace("tests@", f"{name}@"), in_postgresql.namespace)
    load_into(loader, source.data)
    await source.change()
    load_into(loader, source.data)

    assert_equals_dataset(loader, source.data)
    loader.close()


async def test_who_owns_a_schema_need_not_be_allowed_to_make_one(source: Source, in_postgresql: Place) -> None:
    name = in_postgresql.namespace.replace("metrics", "owner")
    in_postgresql.edit(f"CREATE ROLE {name} LOGIN", f"CREATE SCHEMA {{s}} AUTHORIZATION {name}")
    owner = Place(in_postgresql.url.replace("tests@", f"{name}@"), in_postgresql.namespace)
    load_into(owner, source.data)

    assert_equals_dataset(owner, source.data)
    owner.close()


async def test_statement_that_is_refused_is_told_with_the_reason_in_one_line(
    source: Source, in_postgresql: Place
) -> None:
    name = in_postgresql.namespace.replace("metrics", "reader")
    in_postgresql.edit(f"CREATE ROLE {name} LOGIN", "CREATE SCHEMA {s}", f"GRANT USAGE ON SCHEMA {{s}} TO {name}")
    reader = Place(in_postgresql.url.replace("tests@", f"{name}@"), in_postgresql.namespace)

    with pytest.raises(DestinationError, match=r"^.*permission denied for schema.*$"):
        load_into(reader, source.data)


def test_query_of_the_driver_that_is_refused_is_told_with_the_reason_in_one_line(in_postgresql: Place) -> None:
    name = in_postgresql.namespace.replace("metrics", "stranger")
    in_postgresql.edit(f"CREATE ROLE {name} LOGIN", "REVOKE SELECT ON pg_catalog.pg_attribute FROM PUBLIC")

    try:
        with pytest.raises(DestinationError, match=r"^.*query: .*permission denied for table pg_attribute$"):
            Place(in_postgresql.url.replace("tests@", f"{name}@"), in_postgresql.namespace).open()
    finally:
        in_postgresql.edit("GRANT SELECT ON pg_catalog.pg_attribute TO PUBLIC")


async def test_text_is_whole_where_each_transaction_is_in_another_session(source: Source, in_postgresql: Place) -> None:
    """As behind a pooler: what was set for the session before is not set any more."""
    name = in_postgresql.namespace.replace("metrics", "pooled")
    in_postgresql.edit(
        f"CREATE ROLE {name} LOGIN",
        f"ALTER ROLE {name} SET client_encoding = LATIN1",
        f"CREATE SCHEMA {{s}} AUTHORIZATION {name}",
    )
    call = source.server.world.run_tests[0].executions[0].calls[0]
    call.scenario = dataclasses.replace(call.scenario, name="日本 é")
    await job.export(settings_for(source.server, source.data), full_refresh=True)
    pooled = Place(in_postgresql.url.replace("tests@", f"{name}@"), in_postgresql.namespace)
    with closing(pooled.open()) as opened:
        session: Any = opened._session
        connection, cursor, end = session._connection, session._cursor, session._connection.commit

        def commit_and_leave() -> None:
            end()
            cursor.execute("RESET ALL")
            end()

        session._connection = SimpleNamespace(commit=commit_and_leave, rollback=connection.rollback)
        commit_and_leave()
        load(contents_of(source.data), opened)

    assert_equals_dataset(in_postgresql, source.data)


def test_role_with_which_the_driver_knows_no_types_is_refused(in_postgresql: Place) -> None:
    name = in_postgresql.namespace.replace("metrics", "quoter")
    in_postgresql.edit(f"CREATE ROLE {name} LOGIN", f"ALTER ROLE {name} SET quote_all_identifiers = on")

    with pytest.raises(DestinationError, match="SET quote_all_identifiers = off"):
        Place(in_postgresql.url.replace("tests@", f"{name}@"), in_postgresql.namespace).open()


async def test_server_that_ends_the_session_is_told_so(source: Source, in_postgresql: Place) -> None:
    def end_session(done: int, _total: int) -> None:
        if done == 1:
            in_postgresql.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND xact_start < now() AND backend_type = 'client backend'"
            )

    with pytest.raises(DestinationError, match=r"^.*(terminating connection|server closed the connection).*$"):
        load_into(in_postgresql, source.data, on_progress=end_session)
    assert not in_postgresql.has_tables()


def test_session_that_cannot_be_set_up_is_closed(in_postgresql: Place) -> None:
    """The driver writes a traceback for one that is forgotten."""
    in_postgresql.edit(
        "CREATE SCHEMA {s}",
        "CREATE FUNCTION {s}.set_config(text, text, boolean) RETURNS text AS 'SELECT (1 / 0)::text' LANGUAGE sql",
    )
    elsewhere = f"?options=-csearch_path%3D{in_postgresql.namespace},pg_catalog"

    with pytest.raises(DestinationError, match="division by zero"):
        Place(in_postgresql.url + elsewhere, in_postgresql.namespace).open()
    gc.collect()


async def test_load_is_over_once_it_is_committed(
    source: Source, in_postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is lost after that takes nothing back, and is no failure."""
    clients = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
    others = ", ".join(str(each["pid"]) for each in in_postgresql.query(clients))
    with closing(in_postgresql.open()) as opened:
        commit = opened._session.commit

        def commit_and_be_cut_off() -> None:
            commit()
            monkeypatch.undo()
            in_postgresql.query(f"SELECT pg_terminate_backend(pid) FROM ({clients} AND pid NOT IN ({others})) AS ours")

        monkeypatch.setattr(opened._session, "commit", commit_and_be_cut_off)
        result = load(contents_of(source.data), opened)

    assert result.new == 6
    assert_equals_dataset(in_postgresql, source.data)


async def test_server_that_never_answers_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gives_up = threading.Timer(20, silent.shutdown, [socket.SHUT_RDWR])
        gives_up.start()
        with pytest.raises(DestinationError, match="timeout expired"):
            Place(f"postgresql://127.0.0.1:{silent.getsockname()[1]}/metrics").open()
        gives_up.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of the timers of its connections")
def test_connection_is_asked_each_minute_whether_its_server_is_still_there(in_postgresql: Place) -> None:
    """A system asks after two hours, for which a load would hold the dataset."""
    with closing(in_postgresql.open()):
        connections = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()]
    address = f"0100007F:{urlsplit(in_postgresql.url).port:04X}"
    timers = [
        timer.split(":") for _, _, remote, state, _, timer, *_ in connections if (remote, state) == (address, "01")
    ]

    assert {kind for kind, _ in timers} == {"02"}, "that of keepalive"
    assert all(int(hundredths, 16) <= 60 * 100 for _, hundredths in timers)


async def test_lock_of_somebody_else_is_not_waited_for_for_ever(
    source: Source, in_postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "LOCK_SECONDS", 1)
    load_into(in_postgresql, source.data)
    with closing(in_postgresql.open()) as other:
        other._session.execute(f"LOCK TABLE {in_postgresql.namespace}.calls IN SHARE MODE")
        gives_up = threading.Timer(20, other._session.rollback)
        gives_up.start()
        with pytest.raises(DestinationError, match="lock timeout"):
            load_into(in_postgresql, source.data, is_full=True)
        gives_up.cancel()
    load_into(in_postgresql, source.data, is_full=True)
    assert_equals_dataset(in_postgresql, source.data)


WAITS_FOR_A_LOCK = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@contextmanager
def locked(place: Place) -> Iterator[None]:
    """Somebody else has a table, whatever is to be done with it, for a minute at most."""
    with closing(place.open()) as other:
        other._session.execute(f"LOCK TABLE {place.namespace}.calls")
        gives_up = threading.Timer(60, other._session.rollback)
        gives_up.start()
        try:
            yield
        finally:
            gives_up.cancel()


@contextmanager
def continued_at_the_end() -> Iterator[list[int]]:
    """Processes that a test stops, for a minute at most."""
    stopped: list[int] = []

    def go_on() -> None:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)

    gives_up = threading.Timer(60, go_on)
    gives_up.start()
    try:
        yield stopped
    finally:
        gives_up.cancel()
        go_on()


async def test_load_that_is_interrupted_while_it_waits_for_a_lock_is_undone_at_once(
    source: Source, in_postgresql: Place
) -> None:
    def interrupt() -> None:
        if in_postgresql.query(WAITS_FOR_A_LOCK):
            raise InterruptedRunError("interrupted", exit_code=ExitCode.SIGTERM)

    load_into(in_postgresql, source.data)
    with locked(in_postgresql):
        with (
            pytest.raises(InterruptedRunError),
            closing(open_warehouse(in_postgresql.url, in_postgresql.namespace, on_wait=interrupt)) as opened,
        ):
            load(contents_of(source.data), opened, is_full=True)
        assert not in_postgresql.query(WAITS_FOR_A_LOCK)
    load_into(in_postgresql, source.data, is_full=True)
    assert_equals_dataset(in_postgresql, source.data)


@pytest.mark.slow
async def test_server_process_that_stops_in_a_statement_is_given_up(
    source: Source, in_postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection stays open, and the kernel goes on answering for it."""
    load_into(in_postgresql, source.data)
    with continued_at_the_end() as stopped, locked(in_postgresql):

        def stop() -> None:
            if not stopped and (found := in_postgresql.query(WAITS_FOR_A_LOCK)):
                stopped.append(found[0]["pid"])
                os.kill(stopped[0], signal.SIGSTOP)

        monkeypatch.setattr(postgresql, "GRACE_SECONDS", 1)
        monkeypatch.setattr(postgresql, "ANSWER_SECONDS", 3)
        with (
            pytest.raises(DestinationError, match="the server has not answered for 3 s"),
            closing(open_warehouse(in_postgresql.url, in_postgresql.namespace, on_wait=stop)) as opened,
        ):
            load(contents_of(source.data), opened)
        assert stopped
    load_into(in_postgresql, source.data, is_full=True)
    assert_equals_dataset(in_postgresql, source.data)


async def test_server_process_that_stops_while_rows_are_sent_is_given_up(
    source: Source, in_postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the limit of its role, where it has one."""
    limited = Place(f"{in_postgresql.url}?options=-c%20statement_timeout%3D2s", in_postgresql.namespace)
    monkeypatch.setattr(postgresql, "GRACE_SECONDS", 1)
    with continued_at_the_end() as stopped:

        def stop(done: int, _total: int) -> None:
            if done == 1:
                (loading,) = in_postgresql.query(
                    "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND xact_start < now() "
                    "AND backend_type = 'client backend'"
                )
                stopped.append(loading["pid"])
                os.kill(loading["pid"], signal.SIGSTOP)

        with pytest.raises(DestinationError, match="the server has not answered for 3 s"):
            load_into(limited, source.data, on_progress=stop)
        assert stopped
    load_into(in_postgresql, source.data)
    assert_equals_dataset(in_postgresql, source.data)


async def test_text_arrives_as_it_is_whatever_encoding_the_client_is_told(
    tmp_path: Path, in_postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent as another one would come back the same, and be wrong for everybody else."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    data = first_export(tmp_path / "data")
    export_to(a_dataset(data), a_bundle("é€", ["c0"]))
    load_into(in_postgresql, data)

    assert in_postgresql.query("SELECT length(execution_id) AS length FROM {s}.executions ORDER BY 1") == [
        {"length": 2}
    ] * len(rows_of_dataset(data, schema.EXECUTIONS))
    assert_equals_dataset(in_postgresql, data)


@pytest.mark.parametrize(
    ("grants", "is_loaded", "denied"),
    [
        ((), False, "CREATE on the database, or a schema of this name"),
        pytest.param(
            ("CREATE SCHEMA {s}", "GRANT USAGE ON SCHEMA {s} TO {r}"),
            False,
            "CREATE on the schema",
            marks=pytest.mark.slow,
        ),
        (
            ("GRANT USAGE ON SCHEMA {s} TO {r}", "GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO {r}"),
            True,
            r"INSERT and DELETE on \w+, .*",
        ),
        pytest.param(
            ("CREATE SCHEMA {s} AUTHORIZATION {r}", "ALTER ROLE {r} SET default_transaction_read_only = on"),
            False,
            "a transaction that is not read-only",
            marks=pytest.mark.slow,
        ),
        pytest.param(("CREATE SCHEMA {s} AUTHORIZATION {r}",), False, None, marks=pytest.mark.slow),
        pytest.param(
            ("GRANT USAGE ON SCHEMA {s} TO {r}", "GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {s} TO {r}"),
            True,
            None,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                "GRANT USAGE ON SCHEMA {s} TO {r}",
                "GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {s} TO {r}",
                "DROP VIEW {s}.calls_current",
                "ALTER TABLE {s}.calls ENABLE ROW LEVEL SECURITY",
            ),
            True,
            "CREATE on the schema, BYPASSRLS, for the row-level security on calls",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_rights_that_a_load_needs_are_asked_for_before_it_is_one(
    tmp_path: Path, in_postgresql: Place, grants: Sequence[str], is_loaded: bool, denied: str | None
) -> None:
    data, role = first_export(tmp_path / "data"), in_postgresql.namespace.replace("metrics", "granted")
    if is_loaded:
        load_into(in_postgresql, data)
        export_to(a_dataset(data), a_bundle("e99", ["c99"]))
    in_postgresql.edit(f"CREATE ROLE {role} LOGIN", *(grant.replace("{r}", role) for grant in grants))
    theirs = Place(in_postgresql.url.replace("tests@", f"{role}@"), in_postgresql.namespace)

    for options in ({"is_dry_run": True}, {}):
        words = f"a load needs more rights than this user has: {denied}$" if options else None
        with pytest.raises(DestinationError, match=words) if denied else nullcontext():
            load_into(theirs, data, **options)


@pytest.mark.parametrize("end", ["?", "?application_name=x&"])
def test_address_that_ends_before_a_parameter_is_taken(in_postgresql: Place, end: str) -> None:
    place = Place(in_postgresql.url + end, in_postgresql.namespace)
    assert place.query("SELECT 1 AS one") == [{"one": 1}]
    place.close()


def new_database(beside: Place, options: str = "") -> Place:
    """A schema of its own in a database of its own on the same server."""
    name = beside.namespace.replace("metrics", "database")
    with closing(dbapi.connect(beside.url, autocommit=True)) as server, closing(server.cursor()) as cursor:
        cursor.execute(f"CREATE DATABASE {name} {options}")
    return Place(beside.url.rpartition("/")[0] + f"/{name}", beside.namespace)


def test_database_without_temporary_tables_is_told_before_a_load(tmp_path: Path, in_postgresql: Place) -> None:
    own, data = new_database(in_postgresql), first_export(tmp_path / "data")
    role = own.namespace.replace("metrics", "hardened")
    database = own.url.rpartition("/")[2]
    own.edit(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT CREATE ON DATABASE {database} TO {role}",
        f"REVOKE TEMP ON DATABASE {database} FROM PUBLIC",
    )
    theirs = Place(own.url.replace("tests@", f"{role}@"), own.namespace)

    with pytest.raises(DestinationError, match=r"more rights than this user has: TEMPORARY on the database$"):
        load_into(theirs, data, is_dry_run=True)
    with pytest.raises(DestinationError, match="permission denied to create temporary tables"):
        load_into(theirs, data)
    own.close()


def test_warehouse_of_which_all_tables_are_published_is_loaded(tmp_path: Path, in_postgresql: Place) -> None:
    """As for logical replication: the server then lets no row go from a table that has no replica identity."""
    own, data = new_database(in_postgresql), first_export(tmp_path / "data")
    own.edit("CREATE PUBLICATION everything FOR ALL TABLES")
    export_to(a_dataset(data), a_bundle("e1", given_up=["c2"]))
    load_into(own, data)
    letters = own.query("SELECT subject_id FROM {s}.errors")
    export_to(a_dataset(data), a_bundle("e1"))

    load_into(own, data)

    assert len(own.query("SELECT subject_id FROM {s}.errors")) < len(letters)
    assert_equals_dataset(own, data)
    own.edit("ALTER TABLE {s}.errors REPLICA IDENTITY DEFAULT")  # as an older version made it
    with pytest.raises(DestinationError, match=r"identity and publishes .*set REPLICA IDENTITY using ALTER TABLE$"):
        load_into(own, data, is_full=True)
    with pytest.raises(DestinationError, match=r"rights .*: REPLICA IDENTITY FULL on errors, which is published$"):
        load_into(own, data, is_dry_run=True)
    own.close()


def test_database_that_cannot_hold_a_text_is_told_with_the_fix(tmp_path: Path, in_postgresql: Place) -> None:
    latin = new_database(in_postgresql, "ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    data = first_export(tmp_path / "data")
    export_to(a_dataset(data), a_bundle("\N{SNOWMAN}", ["c0"]))

    with pytest.raises(DestinationError, match=r'encoding "LATIN1": use a database whose encoding is UTF8$'):
        load_into(latin, data)
    assert not latin.has_tables()
    latin.close()


async def test_dead_letter_that_two_run_tests_have_stops_no_load(tmp_path: Path, warehouse: Place) -> None:
    """Executions of both list the call, one was exported on another night, and the call cannot be had."""
    data = first_export(tmp_path / "data")
    other = a_bundle("e8", ["c8"], key="refund", date="2026-08-07")
    export_to(a_dataset(data), replace(other, dead_letters=(dead_letter("c5"),)))
    load_into(warehouse, data)

    assert len(warehouse.rows(schema.ERRORS)) == 2
    assert_equals_dataset(warehouse, data)


def test_engine_in_which_no_schema_is_made_is_not_asked_for_one(tmp_path: Path) -> None:
    """BigQuery lists datasets to those alone who may see all of the project's."""
    place, data = new_duckdb(tmp_path), first_export(tmp_path / "data")
    place.edit("CREATE SCHEMA {s}")
    with closing(place.open()) as opened:
        dialect = dataclasses.replace(opened._dialect, schema="", schemas="nothing that it knows")
        load(contents_of(data), SqlWarehouse(opened._session, dialect, place.namespace))

    assert_equals_dataset(place, data)
    place.close()


def test_damaged_row_of_an_export_run_names_the_fix(tmp_path: Path, warehouse: Place) -> None:
    """No run sets such a file aside."""
    data = first_export(tmp_path / "data")
    (file,) = (data / "runs").rglob("*.parquet")
    file.write_bytes(b"PAR1 and nothing else")

    with pytest.raises(
        DestinationError, match=rf"^{file}: .*: restore it, or move it out of the dataset, and load again$"
    ):
        load_into(warehouse, data)
    file.unlink()
    assert load_into(warehouse, data).problems == []
