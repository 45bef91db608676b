"""Snowflake, by its own driver: Parquet files go to a temporary stage and from there, in one transaction, into tables.

In Snowflake, DDL ends a transaction. So tables are made and completed before the transaction begins.
"""

from collections.abc import Callable, Iterable
from functools import partial
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pyarrow as pa
import snowflake.connector as driver
from snowflake.connector.errors import Error

from etl.errors import DestinationError
from etl.load.drivers import do_nothing, spooled, translated_errors
from etl.load.sql import Session, SqlWarehouse
from etl.load.statements import Dialect
from etl.load.texts import sql_quoted

_STAGE = "metrics_etl_stage"
_ROWS_LOADED = 3
"""The position of the number of loaded rows in a row that COPY returns."""
_FORMAT = "TYPE = PARQUET USE_LOGICAL_TYPE = TRUE NULL_IF = ()"
"""USE_LOGICAL_TYPE reads times as times, not as numbers. The empty NULL_IF keeps the text \\N a text, not a null."""


def _quoted(name: str) -> str:
    """The name in upper case, as Snowflake reads it without quotes: so analysts need none."""
    return f'"{name.upper()}"'


_DIALECT = Dialect(
    types=("TEXT", "NUMBER", "FLOAT", "BOOLEAN", "TIMESTAMP_NTZ"),
    key="PRIMARY KEY ({columns})",
    columns=(
        "SELECT LOWER(table_name) AS table_name, LOWER(column_name) AS column_name, data_type "
        "FROM information_schema.columns WHERE table_schema = UPPER({schema}) ORDER BY table_name, ordinal_position"
    ),
    schemas="SELECT schema_name FROM information_schema.schemata WHERE schema_name = UPPER({schema})",
    views=(
        "SELECT LOWER(table_name) AS name, view_definition AS definition FROM information_schema.views "
        "WHERE table_schema = UPPER({schema})"
    ),
    quoted=_quoted,
    column_comment=" COMMENT {comment}",
    table_comment=" COMMENT = {comment}",
    view_comment=" COPY GRANTS COMMENT = {comment}",
    rehearsal=None,
    temporary="CREATE OR REPLACE TEMPORARY TABLE",
    before=("USE SCHEMA {schema}", f"CREATE OR REPLACE TEMPORARY STAGE {_STAGE}"),
    begin=("BEGIN",),
)


class _Session(Session):
    """One connection to a database in Snowflake. Rows arrive as one file and one COPY per table."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        account = parts.netloc
        database = parts.path.strip("/")
        self.where = f"snowflake://{account}/{database}"
        self._translated_errors = partial(translated_errors, self.where, Error)
        (name,) = parse_qs(parts.query).get("connection", ["default"])
        with self._translated_errors():
            self._connection = driver.connect(connection_name=name, account=account, database=database)
            self._cursor = self._connection.cursor()
            self._cursor.execute("ALTER SESSION SET TIMEZONE = 'UTC', QUERY_TAG = 'metrics-etl'")

    def query(self, sql: str) -> pa.Table:
        with self._translated_errors():
            self._cursor.execute(sql)
            rows = self._cursor.fetch_arrow_all(force_return_table=True, force_microsecond_precision=True)
        return rows.rename_columns([name.lower() for name in rows.column_names])

    def execute(self, sql: str) -> None:
        with self._translated_errors():
            self._cursor.execute(sql)

    def append(self, namespace: str, table: str, pieces: Iterable[pa.Table]) -> None:
        target = f"{_quoted(namespace)}.{_quoted(table)}" if namespace else table
        folder = f"@{_STAGE}/{uuid4().hex}/"
        with spooled(pieces) as file:
            with self._translated_errors():
                self._cursor.execute(f"PUT {sql_quoted(f'file://{file.path}')} {folder} AUTO_COMPRESS = FALSE")
                copied_files = self._cursor.execute(
                    f"COPY INTO {target} FROM {folder} FILE_FORMAT = ({_FORMAT}) "
                    "MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE FORCE = TRUE"
                ).fetchall()
            loaded = sum(copied[_ROWS_LOADED] for copied in copied_files)
            if loaded != file.rows:
                raise DestinationError(f"{self.where}: {target} accepted {loaded} of {file.rows} rows. Load again")

    def commit(self) -> None:
        self.execute("COMMIT")

    def rollback(self) -> None:
        self.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()


def connect(url: str, namespace: str, _on_wait: Callable[[], None] = do_nothing) -> SqlWarehouse:
    """The database of ``snowflake://account/database``.

    User and key come from the connection ``default`` of the driver's own configuration, or from that of
    ``?connection=NAME``.
    """
    return SqlWarehouse(_Session(url), _DIALECT, namespace)
