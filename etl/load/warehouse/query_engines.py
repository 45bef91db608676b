"""The query engines that ``schema --ddl`` writes for. Imports nothing heavy: the command's ``--help`` reads it."""

from enum import StrEnum


class QueryEngineName(StrEnum):
    """Every key of ``ddl.QUERY_ENGINES``, as typed on the command line, and PostgreSQL, which reads no Parquet."""

    PANDAS = "pandas"
    DUCKDB = "duckdb"
    POLARS = "polars"
    SPARK = "spark"
    BIGQUERY = "bigquery"
    SNOWFLAKE = "snowflake"
    SNOWFLAKE_DIRECT = "snowflake-direct"
    ATHENA = "athena"
    REDSHIFT = "redshift"
    TRINO = "trino"
    CLICKHOUSE = "clickhouse"
    POSTGRESQL = "postgresql"
