"""Spark, BigQuery, Snowflake, Athena, Redshift and Trino: tables of a catalog, most of which must be told of new files. Pure."""

import re

from etl.load.warehouse.dialect import Types, all_columns, comment, doubled, escaped, indented, listed
from etl.model import schema
from etl.model.schema import Column, Table

NAMESPACE = "simulation_metrics"
FIRST_DATE = "2020-01-01"  # no execution is older


def spark(table: Table, folder: str, types: Types) -> str:
    """An external table of the session's catalog."""
    columns = indented(
        f"`{column.name}` {types[column.type]} COMMENT {escaped(comment(column))}" for column in all_columns(table)
    )
    return f"""\
CREATE TABLE {table.name} (
{columns}
)
USING parquet
PARTITIONED BY ({listed(table.partitions, "`")})
LOCATION {escaped(folder)};

-- Again after every export, to find new partitions.
MSCK REPAIR TABLE {table.name};"""


def bigquery(table: Table, folder: str, types: Types) -> str:
    """An external table of a dataset."""
    columns = indented(
        f"`{column.name}` {types[column.type]} OPTIONS (description = {escaped(comment(column))})"
        for column in table.columns
    )
    partitions = indented(f"`{column.name}` {types[column.type]}" for column in table.partitions)
    return f"""\
CREATE OR REPLACE EXTERNAL TABLE {NAMESPACE}.{table.name} (
{columns}
)
WITH PARTITION COLUMNS (
{partitions}
)
OPTIONS (
  format = 'PARQUET',
  uris = [{escaped(f"{folder}/*")}],
  hive_partition_uri_prefix = {escaped(folder)},
  require_hive_partition_filter = false
);"""


def bigquery_dataset(_root: str) -> str:
    """Its dataset, which must be in the bucket's region."""
    return f"CREATE SCHEMA IF NOT EXISTS {NAMESPACE};"


def snowflake(table: Table, _folder: str, types: Types) -> str:
    """An external table over the stage. Names are not quoted: quoted ones would have to be quoted in every query."""
    columns = indented(
        f"{column.name} {types[column.type]} AS ({_snowflake_value(column, types)})" for column in table.columns
    )
    partitions = indented(
        f"{column.name} {types[column.type]} AS ({_snowflake_word(column)}::{types[column.type]})"
        for column in table.partitions
    )
    return f"""\
CREATE OR REPLACE EXTERNAL TABLE {table.name} (
{columns},
{partitions}
)
PARTITION BY ({listed(table.partitions)})
LOCATION = @{NAMESPACE}/{table.name}/
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

-- Again after every export, to find new and changed files.
ALTER EXTERNAL TABLE {table.name} REFRESH;"""


def _snowflake_value(column: Column, types: Types) -> str:
    value = f'value:"{column.name}"'
    if column.type == schema.TIMESTAMP:  # microseconds; should it ever be something else, this fails and does not guess
        value = f"TO_TIMESTAMP_NTZ({value}::NUMBER(38, 0), 6)"
    return f"{value}::{types[column.type]}"


def _snowflake_word(column: Column) -> str:
    return f"SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '/{column.name}=', 2), '/', 1)"


def snowflake_stage(root: str) -> str:
    """The stage of its tables; the storage integration is an administrator's to make."""
    url = re.sub("^gs://", "gcs://", root)
    return f"""\
CREATE STAGE IF NOT EXISTS {NAMESPACE}
URL = {escaped(f"{url}/")}
STORAGE_INTEGRATION = {NAMESPACE};"""


def athena(table: Table, folder: str, types: Types) -> str:
    """An external table whose partitions are computed, not registered: none can be forgotten."""
    columns, partitions = (
        indented(f"`{column.name}` {types[column.type]} COMMENT {escaped(comment(column))}" for column in part)
        for part in (table.columns, table.partitions)
    )
    words = "/".join(f"{column.name}=${{{column.name}}}" for column in table.partitions)
    properties = {
        "projection.enabled": "true",
        **({"projection.run_test.type": "injected"} if table.partitions[0].name == "run_test" else {}),
        "projection.date.type": "date",
        "projection.date.format": "yyyy-MM-dd",
        "projection.date.range": f"{FIRST_DATE},NOW",
        "storage.location.template": f"{folder}/{words}/",
    }
    return f"""\
CREATE EXTERNAL TABLE {table.name} (
{columns}
)
PARTITIONED BY (
{partitions}
)
STORED AS PARQUET
LOCATION {escaped(f"{folder}/")}
TBLPROPERTIES (
{indented(f"{escaped(name)} = {escaped(value)}" for name, value in properties.items())}
);"""


def redshift(table: Table, folder: str, types: Types) -> str:
    """An external table of Redshift Spectrum; it has no column comments, and each partition is registered."""
    columns, partitions = (
        indented(f'"{column.name}" {types[column.type]}' for column in part)
        for part in (table.columns, table.partitions)
    )
    examples = {column.name: {"run_test": "KEY", "date": "YYYY-MM-DD"}[column.name] for column in table.partitions}
    words = "/".join(f"{name}={example}" for name, example in examples.items())
    return f"""\
CREATE EXTERNAL TABLE {NAMESPACE}.{table.name} (
{columns}
)
PARTITIONED BY (
{partitions}
)
STORED AS PARQUET
LOCATION {doubled(f"{folder}/")};

-- After every export, for each new partition:
-- ALTER TABLE {NAMESPACE}.{table.name} ADD IF NOT EXISTS
-- PARTITION ({", ".join(f'"{name}" = {doubled(example)}' for name, example in examples.items())})
-- LOCATION {doubled(f"{folder}/{words}/")};
-- or for all of them at once, in Athena: MSCK REPAIR TABLE {NAMESPACE}.{table.name};"""


def redshift_schema(_root: str) -> str:
    """Its external schema, a database of the Glue catalog."""
    return f"""\
CREATE EXTERNAL SCHEMA IF NOT EXISTS {NAMESPACE}
FROM DATA CATALOG DATABASE '{NAMESPACE}'
IAM_ROLE default
CREATE EXTERNAL DATABASE IF NOT EXISTS;"""


def trino(table: Table, folder: str, types: Types) -> str:
    """An external table of the Hive connector."""
    columns = indented(
        f'"{column.name}" {types[column.type]} COMMENT {doubled(comment(column))}' for column in all_columns(table)
    )
    return f"""\
CREATE TABLE hive.{NAMESPACE}.{table.name} (
{columns}
)
WITH (
  external_location = {doubled(f"{folder}/")},
  format = 'PARQUET',
  partitioned_by = ARRAY[{listed(table.partitions, "'")}]
);

-- Again after every export, to find new partitions.
CALL hive.system.sync_partition_metadata('{NAMESPACE}', '{table.name}', 'FULL');"""


def trino_schema(_root: str) -> str:
    """Its schema, and the precision without which it refuses TIMESTAMP(6)."""
    return f"""\
CREATE SCHEMA IF NOT EXISTS hive.{NAMESPACE};

-- In every session, or hive.timestamp-precision in the catalog: otherwise times are cut to milliseconds.
SET SESSION hive.timestamp_precision = 'MICROSECONDS';"""
