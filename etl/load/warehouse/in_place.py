"""pandas, Polars, DuckDB and ClickHouse, which list the files anew for each query. Pure."""

from etl.load.warehouse.dialect import (
    Types,
    all_columns,
    backslash_quoted,
    indented,
    joined_names,
    python_quoted,
    sql_quoted,
)
from etl.model import schema
from etl.model.schema import Table


def pandas(table: Table, folder: str, types: Types) -> str:
    """A DataFrame with Arrow types."""
    columns = "\n".join(f'            "{column.name}": {types[column.type]},' for column in all_columns(table))
    return f"""\
{_note(table, "# There is no folder before the first dead letter.")}{table.name} = pd.read_parquet(
    {python_quoted(folder)},
    dtype_backend="pyarrow",
    schema=pa.schema(
        {{
{columns}
        }}
    ),
)"""


def polars(table: Table, folder: str, types: Types) -> str:
    """A LazyFrame."""
    columns = "\n".join(f'        "{column.name}": {types[column.type]},' for column in table.columns)
    partitions = ", ".join(f'"{column.name}": {types[column.type]}' for column in table.partitions)
    return f"""\
{table.name} = pl.scan_parquet(
    {python_quoted(f"{folder}/**/*.parquet")},
    schema={{
{columns}
    }},
    hive_partitioning=True,
    hive_schema={{{partitions}}},
    missing_columns="insert",
)"""


def duckdb(table: Table, folder: str, types: Types) -> str:
    """A view. Its empty first half types each column even if no file has it."""
    columns = indented(f'NULL::{types[column.type]} AS "{column.name}"' for column in all_columns(table))
    partitions = ", ".join(f"'{column.name}': {types[column.type]}" for column in table.partitions)
    note = _note(table, "-- There are no files before the first dead letter: until then end after WHERE false.")
    return f"""\
{note}CREATE OR REPLACE VIEW {table.name} AS
SELECT
{columns}
WHERE false
UNION ALL BY NAME
SELECT *
FROM read_parquet(
  {sql_quoted(f"{folder}/**/*.parquet")},
  hive_partitioning = true,
  hive_types = {{{partitions}}},
  union_by_name = true
);"""


def clickhouse(table: Table, folder: str, types: Types) -> str:
    """A view on s3() or, for a path, file(). The structure names the columns of the files, not the partition columns."""
    structure = indented(
        f"`{column.name}` " + (types[column.type] if column.is_key else f"Nullable({types[column.type]})")
        for column in table.columns
    )
    function = "s3" if "://" in folder else "file"
    return f"""\
CREATE OR REPLACE VIEW {table.name} AS
SELECT *, {joined_names(table.partitions)}
FROM {function}(
  {backslash_quoted(f"{folder}/**/*.parquet")},
  'Parquet',
  {backslash_quoted(f"{chr(10)}{structure}{chr(10)}")}
)
SETTINGS use_hive_partitioning = 1;"""


def _note(table: Table, text: str) -> str:
    return f"{text}\n" if table.name == schema.ERRORS.name else ""
