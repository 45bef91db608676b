"""DuckDB: a database in one file, by its own driver."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa

from etl.errors import DestinationError
from etl.load.drivers import do_nothing, naming, streamed
from etl.load.sql import Session, SqlWarehouse
from etl.load.statements import Dialect

_DIALECT = Dialect(
    types=("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP WITH TIME ZONE"),
    views="SELECT view_name AS name, sql AS definition FROM duckdb_views() WHERE schema_name = {schema}",
)
_MEMORY = "120MB"
"""What is not committed yet goes to the disk beyond that; without a limit DuckDB keeps it all, up to most of the machine.

DuckDB holds 2,048 rows at once: texts of 50 KB in each of them still fit.
"""


class _Session(Session):
    """One connection. No primary keys are declared: their index would hold every key in memory."""

    def __init__(self, where: str, file: Path, *, is_read_only: bool) -> None:
        self.where = where
        self._naming = partial(naming, where, duckdb.Error)
        self._is_open = False
        with self._naming():
            self._connection = duckdb.connect(file, read_only=is_read_only)
            if not is_read_only:
                self._connection.execute(f"SET memory_limit = '{_MEMORY}'")
            found = self._connection.sql("SELECT path FROM duckdb_databases() WHERE database_name = current_database()")
        if found.fetchall() == [(None,)] and file.is_file():  # of a CSV, JSON or Parquet file it makes views, in memory
            self._connection.close()
            raise DestinationError(f"{file}: not a DuckDB database: name another file in [warehouse] url")

    def query(self, sql: str) -> pa.Table:
        self._begin()
        with self._naming():
            return self._connection.sql(sql).to_arrow_table()

    def execute(self, sql: str) -> None:
        self._begin()
        with self._naming():
            self._connection.execute(sql)

    def append(self, namespace: str, table: str, pieces: Iterable[pa.Table]) -> None:
        self._begin()
        target = f'"{namespace}"."{table}"' if namespace else table
        with streamed(pieces) as rows, self._naming():
            if rows is not None:
                self._connection.register("metrics_etl_arriving", rows)
                self._connection.execute(f"INSERT INTO {target} BY NAME SELECT * FROM metrics_etl_arriving")
                self._connection.unregister("metrics_etl_arriving")

    def commit(self) -> None:
        with self._naming():
            self._connection.commit()
        self._is_open = False

    def rollback(self) -> None:
        if self._is_open:
            with self._naming():
                self._connection.rollback()
            self._is_open = False

    def close(self) -> None:
        self._connection.close()

    def _begin(self) -> None:
        if not self._is_open:
            with self._naming():
                self._connection.begin()
            self._is_open = True


def connect(
    url: str, namespace: str, _on_wait: Callable[[], None] = do_nothing, *, is_read_only: bool = False
) -> SqlWarehouse:
    """The database in this file, which is made if it is not there."""
    file = Path(url.removeprefix("duckdb://"))
    if is_read_only and not file.exists() and file.resolve().parent.is_dir():
        file, is_read_only = Path(":memory:"), False
    session = _Session(url, file, is_read_only=is_read_only)
    names = session.query("SELECT database_name FROM duckdb_databases()").to_pylist()
    session.rollback()
    if namespace in {row["database_name"].lower() for row in names}:
        session.close()
        raise DestinationError(
            f"{session.where}: DuckDB confuses the schema {namespace} with the database of that name: "
            "name another [warehouse] schema or file"
        )
    return SqlWarehouse(session, _DIALECT, namespace)


connect_to_read = partial(connect, is_read_only=True)
"""The same, but nothing is made, and others may read it meanwhile."""
