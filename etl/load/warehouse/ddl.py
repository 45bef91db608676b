"""Statements that open the dataset in each query engine. Pure: made from the declared tables, not from the files.

Every statement names each column with its type, so that no engine infers one; the partition columns too. Snowflake's Parquet Direct
takes both from the files alone, which declare the same types.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etl.errors import ConfigurationError
from etl.load.warehouse import external_tables, in_place
from etl.load.warehouse.dialect import KINDS, Types, dataset_root
from etl.load.warehouse.postgresql_tables import create_tables
from etl.load.warehouse.query_engines import QueryEngineName
from etl.model import schema
from etl.model.schema import Table


@dataclass(frozen=True, slots=True)
class QueryEngine:
    """How one query engine opens the dataset.

    ``placeholder`` stands for the location if none is given. ``schemes`` are the URL schemes that the engine reads; the
    empty one means a local path. ``types`` are its names of the types in the order of ``KINDS``, none where it takes them
    from the files. ``open_table`` makes the statement for a table in a folder, ``begin`` the one that precedes all tables of
    a location.
    """

    placeholder: str
    schemes: tuple[str, ...]
    types: tuple[str, ...]
    open_table: Callable[[Table, str, Types], str]
    begin: Callable[[str], str] | None = None
    is_relative_allowed: bool = True


def ddl(tables: Sequence[Table], engine_name: str, location: str | None = None) -> str:
    """The statements that open the tables in one of ``QUERY_ENGINES``; ``location`` is the path or URL of the dataset.

    For PostgreSQL, those that make the tables that a load fills.

    Raises:
        ConfigurationError: the engine cannot read the location, or would misread it.
    """
    if engine_name == QueryEngineName.POSTGRESQL:
        if location is not None:
            raise ConfigurationError(
                "--location does not go with postgresql, which reads no Parquet: see metrics-etl load"
            )
        return create_tables(tables)
    engine = QUERY_ENGINES[engine_name]
    root = engine.placeholder
    if location is not None:
        root = dataset_root(location, engine_name, engine.schemes, is_relative_allowed=engine.is_relative_allowed)
    types = dict(zip(KINDS, engine.types, strict=True)) if engine.types else {}
    # Without dead letters the errors table has no folder, and an engine may refuse it: last, it stops no other table.
    errors_last = sorted(tables, key=lambda table: table.name == schema.ERRORS.name)
    statements = [engine.open_table(table, f"{root}/{table.name}", types) for table in errors_last]
    return "\n\n".join([engine.begin(root), *statements] if engine.begin else statements)


QUERY_ENGINES: dict[str, QueryEngine] = {
    QueryEngineName.PANDAS: QueryEngine(
        "data",
        ("", "s3", "gs", "az", "abfs", "abfss"),
        ("pa.string()", "pa.int64()", "pa.float64()", "pa.bool_()", 'pa.timestamp("us", tz="UTC")'),
        in_place.pandas,
        lambda _root: "import pandas as pd\nimport pyarrow as pa",
    ),
    QueryEngineName.DUCKDB: QueryEngine(
        "data",
        ("", "s3", "gs", "az", "abfss"),
        ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMPTZ"),
        in_place.duckdb,
    ),
    QueryEngineName.POLARS: QueryEngine(
        "data",
        ("", "s3", "gs", "az", "abfs", "abfss"),
        ("pl.String()", "pl.Int64()", "pl.Float64()", "pl.Boolean()", 'pl.Datetime("us", "UTC")'),
        in_place.polars,
        lambda _root: "import polars as pl",
    ),
    QueryEngineName.SPARK: QueryEngine(
        "s3a://BUCKET/PREFIX",
        ("", "file", "s3", "s3a", "gs", "abfs", "abfss", "hdfs"),
        ("STRING", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP"),
        external_tables.spark,
        is_relative_allowed=False,
    ),
    QueryEngineName.BIGQUERY: QueryEngine(
        "gs://BUCKET/PREFIX",
        ("gs",),
        ("STRING", "INT64", "FLOAT64", "BOOL", "TIMESTAMP"),
        external_tables.bigquery,
        external_tables.bigquery_dataset,
    ),
    QueryEngineName.SNOWFLAKE: QueryEngine(
        "s3://BUCKET/PREFIX",
        ("s3", "gs", "gcs", "azure"),
        ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP_NTZ"),
        external_tables.snowflake,
        external_tables.snowflake_stage,
    ),
    QueryEngineName.SNOWFLAKE_DIRECT: QueryEngine(
        "s3://BUCKET/PREFIX",
        ("s3", "gs", "gcs", "azure"),
        (),
        external_tables.snowflake_direct,
        external_tables.snowflake_volume,
    ),
    QueryEngineName.ATHENA: QueryEngine(
        "s3://BUCKET/PREFIX",
        ("s3",),
        ("string", "bigint", "double", "boolean", "timestamp"),
        external_tables.athena,
    ),
    QueryEngineName.REDSHIFT: QueryEngine(
        "s3://BUCKET/PREFIX",
        ("s3",),
        ("VARCHAR(65535)", "BIGINT", "DOUBLE PRECISION", "BOOLEAN", "TIMESTAMP"),
        external_tables.redshift,
        external_tables.redshift_schema,
    ),
    QueryEngineName.TRINO: QueryEngine(
        "s3://BUCKET/PREFIX",
        ("s3", "s3a", "gs", "abfs", "abfss", "hdfs"),
        ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP(6)"),
        external_tables.trino,
        external_tables.trino_schema,
    ),
    QueryEngineName.CLICKHOUSE: QueryEngine(
        "s3://BUCKET/PREFIX",
        ("", "s3", "gs", "https"),
        ("String", "Int64", "Float64", "Bool", "DateTime64(6, 'UTC')"),
        in_place.clickhouse,
    ),
}
