"""Spark, BigQuery, Snowflake, Athena, Redshift and Trino: external tables; most need a refresh after an export. Pure."""

import re

from etl.load.warehouse.dialect import Types, backslash_quoted, comment, indented, joined_names, sql_quoted
from etl.load.warehouse.tables import columns_of
from etl.model import schema
from etl.model.schema import Column, Table

NAMESPACE = "simulation_metrics"
_PROJECTIONS = {
    "run_test": {"type": "injected"},
    "month": {"type": "date", "format": "yyyy-MM", "range": "2020-01,NOW", "interval": "1", "interval.unit": "MONTHS"},
}
"""How Athena finds the partitions; no execution is older."""
_SNOWFLAKE_PROVIDERS = {
    "s3": ("S3", "STORAGE_AWS_ROLE_ARN = 'arn:aws:iam::ACCOUNT:role/ROLE'"),
    "gs": ("GCS",),
    "gcs": ("GCS",),
    "azure": ("AZURE", "AZURE_TENANT_ID = 'TENANT'"),
}
"""By URL scheme: the provider's name, and what else its volume must name."""
_EXAMPLES = {"run_test": "KEY", "month": "YYYY-MM"}


def spark(table: Table, folder: str, types: Types) -> str:
    """An external table in the catalog of the session."""
    columns = indented(
        f"`{column.name}` {types[column.type]} COMMENT {backslash_quoted(comment(column))}"
        for column in columns_of(table)
    )
    return f"""\
CREATE TABLE {table.name} (
{columns}
)
USING parquet
PARTITIONED BY ({joined_names(table.partitions, "`")})
LOCATION {backslash_quoted(folder)};

-- Again after every export, to find new partitions.
MSCK REPAIR TABLE {table.name};"""


def bigquery(table: Table, folder: str, types: Types) -> str:
    """An external table in a BigQuery dataset."""
    columns = indented(
        f"`{column.name}` {types[column.type]} OPTIONS (description = {backslash_quoted(comment(column))})"
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
  uris = [{backslash_quoted(f"{folder}/*")}],
  hive_partition_uri_prefix = {backslash_quoted(folder)},
  require_hive_partition_filter = false
);"""


def bigquery_dataset(_root: str) -> str:
    """The BigQuery dataset, which must be in the region of the bucket."""
    return f"CREATE SCHEMA IF NOT EXISTS {NAMESPACE};"


def snowflake(table: Table, _folder: str, types: Types) -> str:
    """An external table on the stage. Names are not quoted: otherwise every query would have to quote them."""
    columns = indented(
        f"{column.name} {types[column.type]} AS ({_snowflake_value(column, types)})" for column in table.columns
    )
    partitions = indented(
        f"{column.name} {types[column.type]} AS ({_snowflake_partition(column)}::{types[column.type]})"
        for column in table.partitions
    )
    return f"""\
CREATE OR REPLACE EXTERNAL TABLE {table.name} (
{columns},
{partitions}
)
PARTITION BY ({joined_names(table.partitions)})
LOCATION = @{NAMESPACE}/{table.name}/
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

-- Again after every export, to find new and changed files.
ALTER EXTERNAL TABLE {table.name} REFRESH;"""


def _snowflake_value(column: Column, types: Types) -> str:
    value = f'value:"{column.name}"'
    if column.type == schema.TIMESTAMP:  # microseconds; any other type of value fails, and is not guessed
        value = f"TO_TIMESTAMP_NTZ({value}::NUMBER(38, 0), 6)"
    return f"{value}::{types[column.type]}"


def _snowflake_partition(column: Column) -> str:
    return f"SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '/{column.name}=', 2), '/', 1)"


def snowflake_stage(root: str) -> str:
    """The stage of the tables; an administrator has to create the storage integration."""
    return f"""\
-- Without a stage, as a preview: metrics-etl schema --ddl snowflake-direct
CREATE STAGE IF NOT EXISTS {NAMESPACE}
URL = {backslash_quoted(_snowflake_url(root))}
STORAGE_INTEGRATION = {NAMESPACE};"""


def _snowflake_url(root: str) -> str:
    return re.sub("^gs://", "gcs://", f"{root}/")


def snowflake_direct(table: Table, _folder: str, _types: Types) -> str:
    """A read-only Iceberg table of the files in place (Parquet Direct). The files give the columns, the paths the partitions."""
    return f"""\
CREATE OR REPLACE ICEBERG TABLE {table.name}
EXTERNAL_VOLUME = '{NAMESPACE}'
CATALOG = '{NAMESPACE}'
BASE_LOCATION = '{table.name}/'
ENABLE_SCHEMA_EVOLUTION = TRUE
AUTO_REFRESH = FALSE;

-- Again after every export, to find new and changed files.
ALTER ICEBERG TABLE {table.name} REFRESH;"""


def snowflake_volume(root: str) -> str:
    """What an administrator creates once: the volume, by which Snowflake reads the bucket and never writes, and the catalog."""
    provider, *grant = _SNOWFLAKE_PROVIDERS[root.partition("://")[0]]
    location = [
        f"NAME = '{NAMESPACE}'",
        f"STORAGE_PROVIDER = '{provider}'",
        f"STORAGE_BASE_URL = {backslash_quoted(_snowflake_url(root))}",
        *grant,
    ]
    return f"""\
-- A preview in Snowflake; the statements follow its documentation. Try them on one table before you rely on them.
CREATE EXTERNAL VOLUME IF NOT EXISTS {NAMESPACE}
STORAGE_LOCATIONS = ((
{chr(10).join(f"  {line}" for line in location)}
))
ALLOW_WRITES = FALSE;

CREATE CATALOG INTEGRATION IF NOT EXISTS {NAMESPACE}
CATALOG_SOURCE = OBJECT_STORE
TABLE_FORMAT = HIVE
ENABLED = TRUE;"""


def athena(table: Table, folder: str, types: Types) -> str:
    """An external table with partition projection: no partition has to be registered."""
    columns, partitions = (
        indented(f"`{column.name}` {types[column.type]} COMMENT {backslash_quoted(comment(column))}" for column in part)
        for part in (table.columns, table.partitions)
    )
    template = "/".join(f"{column.name}=${{{column.name}}}" for column in table.partitions)
    properties = {
        "projection.enabled": "true",
        **{
            f"projection.{column.name}.{name}": value
            for column in table.partitions
            for name, value in _PROJECTIONS[column.name].items()
        },
        "storage.location.template": f"{folder}/{template}/",
    }
    return f"""\
CREATE EXTERNAL TABLE {table.name} (
{columns}
)
PARTITIONED BY (
{partitions}
)
STORED AS PARQUET
LOCATION {backslash_quoted(f"{folder}/")}
TBLPROPERTIES (
{indented(f"{backslash_quoted(name)} = {backslash_quoted(value)}" for name, value in properties.items())}
);"""


def redshift(table: Table, folder: str, types: Types) -> str:
    """An external table of Redshift Spectrum. It has no column comments, and each partition must be registered."""
    columns, partitions = (
        indented(f'"{column.name}" {types[column.type]}' for column in part)
        for part in (table.columns, table.partitions)
    )
    examples = {column.name: _EXAMPLES[column.name] for column in table.partitions}
    partition = "/".join(f"{name}={example}" for name, example in examples.items())
    return f"""\
CREATE EXTERNAL TABLE {NAMESPACE}.{table.name} (
{columns}
)
PARTITIONED BY (
{partitions}
)
STORED AS PARQUET
LOCATION {sql_quoted(f"{folder}/")};

-- After every export, for each new partition:
-- ALTER TABLE {NAMESPACE}.{table.name} ADD IF NOT EXISTS
-- PARTITION ({", ".join(f'"{name}" = {sql_quoted(example)}' for name, example in examples.items())})
-- LOCATION {sql_quoted(f"{folder}/{partition}/")};
-- or for all of them at once, in Athena: MSCK REPAIR TABLE {NAMESPACE}.{table.name};"""


def redshift_schema(_root: str) -> str:
    """The external schema: a database in the Glue catalog."""
    return f"""\
CREATE EXTERNAL SCHEMA IF NOT EXISTS {NAMESPACE}
FROM DATA CATALOG DATABASE '{NAMESPACE}'
IAM_ROLE default
CREATE EXTERNAL DATABASE IF NOT EXISTS;"""


def trino(table: Table, folder: str, types: Types) -> str:
    """An external table in the Hive connector."""
    columns = indented(
        f'"{column.name}" {types[column.type]} COMMENT {sql_quoted(comment(column))}' for column in columns_of(table)
    )
    return f"""\
CREATE TABLE hive.{NAMESPACE}.{table.name} (
{columns}
)
WITH (
  external_location = {sql_quoted(f"{folder}/")},
  format = 'PARQUET',
  partitioned_by = ARRAY[{joined_names(table.partitions, "'")}]
);

-- Again after every export, to find new partitions.
CALL hive.system.sync_partition_metadata('{NAMESPACE}', '{table.name}', 'FULL');"""


def trino_schema(_root: str) -> str:
    """The schema, and the precision without which Trino refuses TIMESTAMP(6)."""
    return f"""\
CREATE SCHEMA IF NOT EXISTS hive.{NAMESPACE};

-- In every session, or hive.timestamp-precision in the catalog: otherwise times are cut to milliseconds.
SET SESSION hive.timestamp_precision = 'MICROSECONDS';"""
