"""The rows of a dataset put into a warehouse by its driver, and nothing else: ``DATASET URL [EXECUTION_ID …]``.

With execution ids, their rows are deleted and inserted anew, in one transaction.
"""

import sys
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

TABLES = ("calls", "evals", "executions")
TYPES = {
    "string": "text", "int64": "bigint", "double": "double precision", "bool": "boolean",
    "timestamp[us, tz=UTC]": "timestamp with time zone",
}  # fmt: skip


def rows_of(dataset: str, table: str, execution_ids: Sequence[str]) -> pa.Table:
    """The rows, of all executions if none are named."""
    found = ds.dataset(f"{dataset}/{table}", format="parquet", partitioning="hive")
    wanted = pc.field("execution_id").isin(execution_ids) if execution_ids else None
    rows = found.to_table(filter=wanted)
    return rows.cast(pa.schema([pa.field(each.name, _plain(each.type)) for each in rows.schema]))


def _plain(type_: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(type_) else type_


def _columns(rows: pa.Table) -> str:
    return ", ".join(f'"{field.name}" {TYPES[str(field.type)]}' for field in rows.schema)


def load_duckdb(dataset: str, path: str, execution_ids: Sequence[str]) -> None:
    """Into a file."""
    import duckdb  # noqa: PLC0415

    connection = duckdb.connect(path)
    connection.begin()
    for table in TABLES:
        rows = rows_of(dataset, table, execution_ids)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({_columns(rows)})")
        connection.register("arriving", rows)
        if execution_ids:
            connection.execute(
                f"DELETE FROM {table} WHERE execution_id IN (SELECT unnest(?))",  # noqa: S608 SQL of its own
                [[*execution_ids]],
            )
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM arriving")  # noqa: S608 as above
    connection.commit()
    connection.close()


def load_postgresql(dataset: str, url: str, execution_ids: Sequence[str]) -> None:
    """By COPY; keys and indexes after the first rows."""
    from adbc_driver_postgresql import dbapi  # noqa: PLC0415

    keys = {"calls": "call_execution_id", "evals": "call_execution_id, eval_config_id", "executions": "execution_id"}
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        for table in TABLES:
            rows = rows_of(dataset, table, execution_ids)
            if execution_ids:
                ids = ", ".join(f"'{each}'" for each in execution_ids)
                cursor.execute(f"DELETE FROM {table} WHERE execution_id IN ({ids})")  # noqa: S608 as above
            else:
                cursor.execute(f"CREATE TABLE {table} ({_columns(rows)})")
            cursor.adbc_ingest(table, rows, mode="append")
            if not execution_ids:
                cursor.execute(f"ALTER TABLE {table} ADD PRIMARY KEY ({keys[table]})")
                if table != "executions":
                    cursor.execute(f"CREATE INDEX ON {table} (execution_id)")
        connection.commit()


if __name__ == "__main__":
    _, source, target, *ids = sys.argv
    if target.startswith("postgresql"):
        load_postgresql(source, target, ids)
    else:
        load_duckdb(source, target.removeprefix("duckdb://"), ids)
