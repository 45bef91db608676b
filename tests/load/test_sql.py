"""What engines that speak SQL have in common, beyond the laws: views that are repaired, comments on columns."""

import dataclasses
from contextlib import closing
from pathlib import Path

import pytest

from etl.errors import DestinationError
from etl.load.sql import SqlWarehouse
from etl.load.synchronize import synchronize
from etl.load.tables import CURRENT_VIEWS, VIEWS
from etl.model import schema
from tests.loads import assert_settled, compared, next_export
from tests.warehouses import Place, assert_equals_dataset, contents_of, load_into


@pytest.mark.parametrize(
    ("table", "renamed"),
    [
        ("calls", "TO of_before"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("calls", "COLUMN status TO of_before"),
                ("executions", "TO of_before"),
                ("executions", "COLUMN deleted_at TO of_before"),
            )
        ),
    ],
)
def test_views_show_what_came_in_the_place_of_what_was_renamed(
    data: Path, warehouse: Place, table: str, renamed: str
) -> None:
    """PostgreSQL's views follow a table and a column to its new name."""
    load_into(warehouse, data)
    warehouse.edit(f"ALTER TABLE {{s}}.{table} RENAME {renamed}")
    next_export(data)
    load_into(warehouse, data)
    warehouse.edit(f"ALTER TABLE {{s}}.{table} DROP COLUMN IF EXISTS of_before")  # which nothing shows any more

    assert_equals_dataset(warehouse, data)


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        ("VIEW", "SELECT 1 AS execution_id"),
        ("TABLE", "SELECT * FROM {s}.executions"),
        pytest.param("MATERIALIZED VIEW", "SELECT * FROM {s}.executions", marks=pytest.mark.slow),
    ],
)
def test_what_took_the_place_of_a_view_is_told_with_the_fix(
    data: Path, in_postgresql: Place, kind: str, query: str
) -> None:
    load_into(in_postgresql, data)
    in_postgresql.edit("DROP VIEW {s}.executions_current", f"CREATE {kind} {{s}}.executions_current AS {query}")
    fix = rf"drop {in_postgresql.namespace}\.executions_current, then run metrics-etl load"
    for is_full in (False, True):
        with pytest.raises(DestinationError, match=rf"create executions_current: .*the view, {fix}$"):
            load_into(in_postgresql, data, is_full=is_full)
    in_postgresql.edit(f"DROP {kind} {{s}}.executions_current")
    load_into(in_postgresql, data)

    assert_settled(in_postgresql, data)


def test_column_that_is_no_longer_loaded_stays_in_table_and_view(data: Path, warehouse: Place) -> None:
    """A view cannot be replaced by one without it, and somebody may read it."""
    load_into(warehouse, data)
    warehouse.edit(
        "ALTER TABLE {s}.evals ADD COLUMN row_hash VARCHAR",
        "CREATE OR REPLACE VIEW {s}.evals_current AS "
        f"SELECT {', '.join(f'v.{name}' for name in CURRENT_VIEWS[-1].columns)}, v.row_hash "
        "FROM {s}.evals v WHERE v.deleted_at IS NULL",
    )
    warehouse.make_older("errors", "message")
    next_export(data)
    load_into(warehouse, data)

    assert compared(warehouse, data).findings == []
    assert {row["row_hash"] for row in warehouse.query("SELECT row_hash FROM {s}.evals_current")} == {None}


def test_places_are_columns_and_everything_has_a_comment(data: Path, warehouse: Place) -> None:
    load_into(warehouse, data)
    comments: list[str] = []
    for name in [*schema.TABLES, *(view.name for view in VIEWS)]:
        sql = (
            f"SELECT col_description('{{s}}.{name}'::regclass, attnum) AS text FROM pg_attribute "
            f"WHERE attrelid = '{{s}}.{name}'::regclass AND attnum > 0"
            if warehouse.has_keys
            else f"SELECT comment AS text FROM duckdb_columns() WHERE schema_name = '{{s}}' AND table_name = '{name}'"
        )
        comments += [row["text"] for row in warehouse.query(sql)]
    assert all(comments)
    assert "Length of the call. Unit: s." in comments
    months = {row["month"] for row in warehouse.rows(schema.CALLS)}
    assert months == {path.name.partition("=")[2] for path in (data / "calls").glob("*/*")}


def test_engine_in_which_no_schema_is_made_is_not_asked_for_one(data: Path, in_duckdb: Place) -> None:
    """BigQuery lists datasets to those alone who may see all of the project's."""
    in_duckdb.edit("CREATE SCHEMA {s}")
    with closing(in_duckdb.open()) as opened:
        dialect = dataclasses.replace(opened._dialect, schema="", schemas="nothing that it knows")
        synchronize(contents_of(data), SqlWarehouse(opened._session, dialect, in_duckdb.namespace))

    assert_equals_dataset(in_duckdb, data)
