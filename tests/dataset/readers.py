"""What reads the dataset: the same rows of a table, or of one month of a run test, as an Arrow table."""

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset

import etl
from etl.dataset.layout import days_of


def with_pyarrow(path):
    return pa.dataset.dataset(path, partitioning="hive").to_table()


def with_pandas(path):
    return pa.Table.from_pandas(pd.read_parquet(path, dtype_backend="pyarrow"), preserve_index=False)


def with_plain_pandas(path):
    return pa.Table.from_pandas(pd.read_parquet(path), preserve_index=False)


def with_duckdb(path):
    with duckdb.connect() as connection:
        glob = f"{path}/**/*.parquet"
        query = "select * from read_parquet(?, hive_partitioning = true)"
        return connection.sql(query, params=[glob]).to_arrow_table()


def with_polars(path):
    return pl.scan_parquet(path, hive_partitioning=True).collect().to_arrow()


def with_duckdb_over_pyarrow(path):
    dataset = pyarrow.dataset.dataset(path, partitioning="hive")
    with duckdb.connect() as connection:
        return connection.register("dataset", dataset).sql("from dataset").to_arrow_table()


def with_polars_over_pyarrow(path):
    return pl.scan_pyarrow_dataset(pyarrow.dataset.dataset(path, partitioning="hive")).collect().to_arrow()


def with_read_table(path):
    words = [part for part in path.parts if part.startswith(("run_test=", "month="))]
    table = path.parents[len(words) - 1] if words else path
    key = next((word.removeprefix("run_test=") for word in words if word.startswith("run_test=")), None)
    since, until = next((days_of(word) for word in words if word.startswith("month=")), (None, None))
    frame = etl.read_table(table.parent, table.name, run_tests=key, since=since, until=until)
    return pa.Table.from_pandas(frame, preserve_index=False)


READERS = [with_pyarrow, with_pandas, with_plain_pandas, with_duckdb, with_polars, with_read_table]
