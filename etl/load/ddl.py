"""Statements that open the dataset in each query engine. Pure: made from the declared tables, not from the files.

Every statement names each column, and each partition column, with its type, so that no engine infers one. The engines
in this module list the files anew for each query; those in ``external_tables.py`` keep a catalog.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etl.errors import ConfigurationError
from etl.load import external_tables as external
from etl.load.external_tables import declared
from etl.load.postgresql_script import postgresql_tables
from etl.load.tables import COLUMN_TYPES, Types, columns_of
from etl.load.texts import backslash_quoted, sql_quoted
from etl.model.schema import Table


@dataclass(frozen=True, slots=True)
class QueryEngine:
    """How one query engine opens the dataset."""

    placeholder: str
    """Stands for the location if none is given."""
    schemes: tuple[str, ...]
    """The URL schemes that the engine reads; the empty one means a local path."""
    open_table: Callable[[Table, str, Types], str]
    """Makes the statement for a table, from its folder and the engine's types."""
    begin: str = ""
    """Precedes all statements, and may name the location as ``{url}``."""


def ddl(tables: Sequence[Table], engine_name: str, location: str | None = None) -> str:
    """The statements that open the tables in one of ``QUERY_ENGINES``.

    For ``postgresql``, which reads no Parquet, those that create the tables that a load fills. ``location`` is the path
    or URL of the dataset; without one, the statements hold a placeholder.

    Raises:
        ConfigurationError: the engine cannot read this location, or would misread it.
    """
    if engine_name == "postgresql":
        if location is not None:
            raise ConfigurationError(
                "postgresql cannot read Parquet. Leave out --location; metrics-etl load fills the tables"
            )
        return postgresql_tables(tables)
    engine = QUERY_ENGINES[engine_name]
    root = engine.placeholder if location is None else dataset_root(location, engine_name, engine.schemes)
    types = dict(zip(COLUMN_TYPES, TYPES[engine_name], strict=True))
    statements = [engine.open_table(table, f"{root}/{table.name}", types) for table in tables]
    begin = engine.begin.format(url=backslash_quoted(re.sub("^gs://", "gcs://", f"{root}/")))
    return "\n\n".join([begin, *statements] if begin else statements)


def dataset_root(location: str, reader: str, schemes: Sequence[str]) -> str:
    """The location without a trailing slash.

    ``reader`` is what messages call the reader; ``schemes`` are the URL schemes that it reads, of which the empty one
    means a path.

    Raises:
        ConfigurationError: the reader cannot read the location, or would misread it.
    """
    where = f"--location {location!r}"
    scheme, separator, path = location.rpartition("://")
    if not path.strip("/ "):
        raise ConfigurationError(f"{where} must name the folder of a dataset")
    if not location.isprintable() or re.search(r"[*?\[\]{}\\]", location):
        raise ConfigurationError(
            f"{where} must not contain control characters or * ? [ ] {{ }} \\, which engines read as patterns"
        )
    if scheme not in schemes or bool(separator) != bool(scheme):
        known = ", ".join(f"{name}://" if name else "paths" for name in schemes)
        raise ConfigurationError(f"{where} cannot be read by {reader}, which reads {known}")
    return location.rstrip("/")


def _pandas(table: Table, folder: str, types: Types) -> str:
    """A DataFrame with Arrow types."""
    columns = "\n".join(f'            "{column.name}": {types[column.type]},' for column in columns_of(table))
    return f"""\
{table.name} = pd.read_parquet(
    {json.dumps(folder, ensure_ascii=False)},
    dtype_backend="pyarrow",
    schema=pa.schema(
        {{
{columns}
        }}
    ),
)"""


def _polars(table: Table, folder: str, types: Types) -> str:
    """A LazyFrame."""
    columns = "\n".join(f'        "{column.name}": {types[column.type]},' for column in table.columns)
    partitions = ", ".join(f'"{column.name}": {types[column.type]}' for column in table.partitions)
    return f"""\
{table.name} = pl.scan_parquet(
    {json.dumps(f"{folder}/**/*.parquet", ensure_ascii=False)},
    schema={{
{columns}
    }},
    hive_partitioning=True,
    hive_schema={{{partitions}}},
    missing_columns="insert",
)"""


def _duckdb(table: Table, folder: str, types: Types) -> str:
    """A view. Its first half has no rows, and gives each column its type even if no file has the column."""
    partitions = ", ".join(f"'{column.name}': {types[column.type]}" for column in table.partitions)
    return f"""\
CREATE OR REPLACE VIEW {table.name} AS
SELECT
{declared(columns_of(table), types, 'NULL::{type} AS "{name}"')}
WHERE false
UNION ALL BY NAME
SELECT *
FROM read_parquet(
  {sql_quoted(f"{folder}/**/*.parquet")},
  hive_partitioning = true,
  hive_types = {{{partitions}}},
  union_by_name = true
);"""


TYPES: dict[str, tuple[str, ...]] = {
    "pandas": ("pa.string()", "pa.int64()", "pa.float64()", "pa.bool_()", 'pa.timestamp("us", tz="UTC")'),
    "duckdb": ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMPTZ"),
    "polars": ("pl.String()", "pl.Int64()", "pl.Float64()", "pl.Boolean()", 'pl.Datetime("us", "UTC")'),
    "spark": ("STRING", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP"),
    "bigquery": ("STRING", "INT64", "FLOAT64", "BOOL", "TIMESTAMP"),
    "snowflake": ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP_NTZ"),
    "athena": ("string", "bigint", "double", "boolean", "timestamp"),
    "trino": ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP(6)"),
}
"""Each engine's names of the types, in the order of ``COLUMN_TYPES``."""
_IN_BUCKETS = ("s3", "gs", "az", "abfs", "abfss")
_IN_HADOOP = ("s3", "s3a", "gs", "abfs", "abfss", "hdfs")
_S3 = "s3://BUCKET/PREFIX"
_IMPORT_PANDAS = "import pandas as pd\nimport pyarrow as pa"
QUERY_ENGINES: dict[str, QueryEngine] = {
    "pandas": QueryEngine("data", ("", *_IN_BUCKETS), _pandas, _IMPORT_PANDAS),
    "duckdb": QueryEngine("data", ("", "s3", "gs", "az", "abfss"), _duckdb),
    "polars": QueryEngine("data", ("", *_IN_BUCKETS), _polars, "import polars as pl"),
    "spark": QueryEngine("s3a://BUCKET/PREFIX", ("", "file", *_IN_HADOOP), external.spark),
    "bigquery": QueryEngine("gs://BUCKET/PREFIX", ("gs",), external.bigquery, external.BIGQUERY_DATASET),
    "snowflake": QueryEngine(_S3, ("s3", "gs", "gcs", "azure"), external.snowflake, external.SNOWFLAKE_STAGE),
    "athena": QueryEngine(_S3, ("s3",), external.athena),
    "trino": QueryEngine(_S3, _IN_HADOOP, external.trino, external.TRINO_SCHEMA),
}
"""Every engine that reads the dataset's files; ``cli`` offers these, and ``postgresql``, which reads a warehouse."""
