"""DuckDB: a database in one file, by its own driver."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from etl.errors import DestinationError
from etl.load.drivers import do_nothing, streamed, translated_errors
from etl.load.sql import Session, SqlWarehouse
from etl.load.statements import Dialect

_DIALECT = Dialect(
    types=("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP WITH TIME ZONE"),
    views="SELECT view_name AS name, sql AS definition FROM duckdb_views() WHERE schema_name = {schema}",
)
_HINTS = {"Conflicting lock is held": "Close the file in that program. No other can use it while one program writes"}
"""What to do about an error, by a part of its text."""
_MEMORY = "120MB"
"""How much DuckDB may keep in memory: the rest of what is not committed yet goes to disk.

By default, it would take most of the machine's memory. It holds 2,048 rows at once, so texts of 50 KB in each of them
still fit.
"""


class _Session(Session):
    """One connection to a DuckDB file, without primary keys: their index would hold every key in memory."""

    def __init__(self, where: str, file: Path, *, is_read_only: bool) -> None:
        self.where = where
        self._translated_errors = partial(translated_errors, where, duckdb.Error, hints=_HINTS)
        with self._translated_errors():
            self._connection = duckdb.connect(file, read_only=is_read_only)
            if not is_read_only:
                self._connection.execute(f"SET memory_limit = '{_MEMORY}'")
            paths = self._connection.sql("SELECT path FROM duckdb_databases() WHERE database_name = current_database()")
        # DuckDB opens a CSV, JSON or Parquet file as views in a database in memory, whose path is null.
        if paths.fetchall() == [(None,)] and file.is_file():
            self._connection.close()
            raise DestinationError(f"{file} is not a DuckDB database. Name another file in [warehouse] url")
        # From here on, a transaction is always open; it sees what was there at its first statement.
        self._connection.begin()

    def query(self, sql: str) -> pa.Table:
        with self._translated_errors():
            return self._connection.sql(sql).to_arrow_table()

    def execute(self, sql: str) -> None:
        with self._translated_errors():
            self._connection.execute(sql)

    def append(self, namespace: str, table: str, pieces: Iterable[pa.Table]) -> None:
        target = f'"{namespace}"."{table}"' if namespace else table
        with streamed(pieces) as rows, self._translated_errors():
            self._connection.register("metrics_etl_arriving", rows)
            self._connection.execute(f"INSERT INTO {target} BY NAME SELECT * FROM metrics_etl_arriving")
            self._connection.unregister("metrics_etl_arriving")

    def commit(self) -> None:
        with self._translated_errors():
            self._connection.commit()
            self._connection.begin()

    def rollback(self) -> None:
        with self._translated_errors():
            self._connection.rollback()
            self._connection.begin()

    def close(self) -> None:
        self._connection.close()


def connect(url: str, namespace: str, _on_wait: Callable[[], None] = do_nothing) -> SqlWarehouse:
    """The database in the file that the URL names; the file is created if it is missing.

    Raises:
        DestinationError: the file is not a DuckDB database, or DuckDB would read the schema's name as that of a
            database.
    """
    return _warehouse(url, _file(url), namespace)


def connect_to_read(url: str, namespace: str, _on_wait: Callable[[], None] = do_nothing) -> SqlWarehouse:
    """As ``connect``, but no file is created, and other processes may read the database at the same time."""
    file = _file(url)
    if not file.exists():
        # Nothing was loaded yet: an empty database in memory says so, and creates no file.
        return _warehouse(url, Path(":memory:"), namespace)
    return _warehouse(url, file, namespace, is_read_only=True)


def _file(url: str) -> Path:
    file = Path(url.removeprefix("duckdb://"))
    if not file.resolve().parent.is_dir():
        raise DestinationError(f"{url}: this file's folder does not exist. Create it, or correct [warehouse] url")
    return file


def _warehouse(url: str, file: Path, namespace: str, *, is_read_only: bool = False) -> SqlWarehouse:
    """The database in this file, of which messages say that it is at the URL."""
    session = _Session(url, file, is_read_only=is_read_only)
    names = session.query("SELECT database_name FROM duckdb_databases()").to_pylist()
    session.rollback()
    if namespace in {row["database_name"].lower() for row in names}:
        session.close()
        raise DestinationError(
            f"{session.where}: DuckDB confuses the schema {namespace} with the database of that name. "
            "Change [warehouse] schema, or rename the file"
        )
    return SqlWarehouse(session, _DIALECT, namespace)


def connect_to_rehearse(url: str, namespace: str, _on_wait: Callable[[], None] = do_nothing) -> SqlWarehouse:
    """As ``connect``, but a file that is missing is created in a folder beside its place, until the end."""
    file = _file(url)
    if file.exists():
        return _warehouse(url, file, namespace)
    with ExitStack() as opened:
        with translated_errors(url, OSError):
            folder = opened.enter_context(TemporaryDirectory(prefix=".metrics-etl-", dir=file.parent))
        warehouse = _warehouse(url, Path(folder, file.name), namespace)
        opened.callback(warehouse.close)
        warehouse.close = opened.pop_all().close
    return warehouse
