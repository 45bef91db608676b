"""External tables for Spark, BigQuery, Snowflake, Athena and Trino. Pure.

The catalogs of most of these engines have to be refreshed after an export: the statements say how.
"""

from collections.abc import Callable, Iterable

from etl.load.tables import Types, columns_of
from etl.load.texts import backslash_quoted, comment, sql_quoted
from etl.model import schema
from etl.model.schema import Column, Table

NAMESPACE = "simulation_metrics"
"""The schema of the tables, and what else they need a name for: a stage, a catalog's database."""
_PROJECTIONS = {
    "run_test": {"type": "injected"},
    "month": {"type": "date", "format": "yyyy-MM", "range": "2020-01,NOW", "interval": "1", "interval.unit": "MONTHS"},
}
"""How Athena computes the partitions instead of listing them; no execution is older than the first month."""


def declared(columns: Iterable[Column], types: Types, form: str, quote: Callable[[str], str] = backslash_quoted) -> str:
    """One line per column: ``form`` with its ``{name}``, ``{type}`` and ``{comment}``, as ``quote`` quotes it."""
    return indented(
        form.format(name=column.name, type=types[column.type], comment=quote(comment(column))) for column in columns
    )


def indented(lines: Iterable[str]) -> str:
    """The lines, indented and separated by commas."""
    return ",\n".join(f"  {line}" for line in lines)


def joined_names(columns: Iterable[Column], quote: str = "") -> str:
    """The names of the columns, each between quotes of this kind, separated by commas."""
    return ", ".join(f"{quote}{column.name}{quote}" for column in columns)


def spark(table: Table, folder: str, types: Types) -> str:
    """An external table in the catalog of the session."""
    return f"""\
CREATE TABLE {table.name} (
{declared(columns_of(table), types, "`{name}` {type} COMMENT {comment}")}
)
USING parquet
PARTITIONED BY ({joined_names(table.partitions, "`")})
LOCATION {backslash_quoted(folder)};

-- Run this again after every export, to find new partitions.
MSCK REPAIR TABLE {table.name};"""


BIGQUERY_DATASET = f"CREATE SCHEMA IF NOT EXISTS {NAMESPACE};"
"""Creates the BigQuery dataset of the tables, which must be in the region of the bucket."""


def bigquery(table: Table, folder: str, types: Types) -> str:
    """An external table in a BigQuery dataset."""
    return f"""\
CREATE OR REPLACE EXTERNAL TABLE {NAMESPACE}.{table.name} (
{declared(table.columns, types, "`{name}` {type} OPTIONS (description = {comment})")}
)
WITH PARTITION COLUMNS (
{declared(table.partitions, types, "`{name}` {type}")}
)
OPTIONS (
  format = 'PARQUET',
  uris = [{backslash_quoted(f"{folder}/*")}],
  hive_partition_uri_prefix = {backslash_quoted(folder)},
  require_hive_partition_filter = false
);"""


SNOWFLAKE_STAGE = f"""\
CREATE STAGE IF NOT EXISTS {NAMESPACE}
URL = {{url}}
STORAGE_INTEGRATION = {NAMESPACE};"""
"""Creates the stage of the tables. An administrator has to create its storage integration before."""


def snowflake(table: Table, _folder: str, types: Types) -> str:
    """An external table on the stage. Names are not quoted: otherwise every query would have to quote them."""
    columns = indented(
        f"{column.name} {types[column.type]} AS ({_snowflake_value(column)}::{types[column.type]})"
        for column in table.columns
    )
    path = "{name} {type} AS (SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '/{name}=', 2), '/', 1)::{type})"
    return f"""\
CREATE OR REPLACE EXTERNAL TABLE {table.name} (
{columns},
{declared(table.partitions, types, path)}
)
PARTITION BY ({joined_names(table.partitions)})
LOCATION = @{NAMESPACE}/{table.name}/
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

-- Run this again after every export, to find new and changed files.
ALTER EXTERNAL TABLE {table.name} REFRESH;"""


def _snowflake_value(column: Column) -> str:
    value = f'value:"{column.name}"'
    if column.type == schema.TIMESTAMP:  # from microseconds, explicitly: any other value fails, and is not guessed
        return f"TO_TIMESTAMP_NTZ({value}::NUMBER(38, 0), 6)"
    return value


def athena(table: Table, folder: str, types: Types) -> str:
    """An external table with partition projection: no partition has to be registered."""
    form = "`{name}` {type} COMMENT {comment}"
    template = "/".join(f"{column.name}=${{{column.name}}}" for column in table.partitions)
    properties = {"projection.enabled": "true"}
    for column in table.partitions:
        properties |= {f"projection.{column.name}.{name}": text for name, text in _PROJECTIONS[column.name].items()}
    properties["storage.location.template"] = f"{folder}/{template}/"
    return f"""\
CREATE EXTERNAL TABLE {table.name} (
{declared(table.columns, types, form)}
)
PARTITIONED BY (
{declared(table.partitions, types, form)}
)
STORED AS PARQUET
LOCATION {backslash_quoted(f"{folder}/")}
TBLPROPERTIES (
{indented(f"{backslash_quoted(name)} = {backslash_quoted(value)}" for name, value in properties.items())}
);"""


TRINO_SCHEMA = f"""\
CREATE SCHEMA IF NOT EXISTS hive.{NAMESPACE};

-- Set this in every session, or hive.timestamp-precision in the catalog: otherwise times are cut to milliseconds.
SET SESSION hive.timestamp_precision = 'MICROSECONDS';"""
"""Creates the schema of the tables, and sets the precision without which Trino refuses TIMESTAMP(6)."""


def trino(table: Table, folder: str, types: Types) -> str:
    """An external table in the Hive connector."""
    return f"""\
CREATE TABLE hive.{NAMESPACE}.{table.name} (
{declared(columns_of(table), types, '"{name}" {type} COMMENT {comment}', sql_quoted)}
)
WITH (
  external_location = {sql_quoted(f"{folder}/")},
  format = 'PARQUET',
  partitioned_by = ARRAY[{joined_names(table.partitions, "'")}]
);

-- Run this again after every export, to find new partitions.
CALL hive.system.sync_partition_metadata('{NAMESPACE}', '{table.name}', 'FULL');"""
