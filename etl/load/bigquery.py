"""BigQuery, by its own client: load jobs fill staged tables, and one script fills ours from them, in a transaction.

DDL cannot be part of a transaction: tables are made and completed before it. A load that was killed leaves staged
tables, which expire within a day.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import pyarrow as pa
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery

from etl.errors import DestinationError
from etl.load.drivers import Spooled, do_nothing, spooled, translated_errors
from etl.load.sql import Session, SqlWarehouse
from etl.load.statements import Dialect
from etl.load.tables import COLUMN_TYPES
from etl.load.texts import backslash_quoted
from etl.model.schema import Table

_TYPES = ("STRING", "INT64", "FLOAT64", "BOOL", "TIMESTAMP")
"""The engine's types, in the order of ``COLUMN_TYPES``."""
_CLUSTERED = ("run_test", "execution_id")
_BEGIN, _COMMIT = "BEGIN TRANSACTION", "COMMIT TRANSACTION"
_STAGED_FOR = timedelta(days=1)
"""When a staged table expires that no load deleted."""


def _quoted(name: str) -> str:
    """The name between backticks, which BigQuery takes in place of quotes."""
    return f"`{name}`"


def _options(table: Table) -> str:
    """Where the table has these columns: one partition per month, and rows of one run test side by side."""
    partition = f"\nPARTITION BY TIMESTAMP_TRUNC({table.start}, MONTH)" if table.start in table.names else ""
    names = [*(column.name for column in table.partitions), *table.names]
    clustered = [name for name in _CLUSTERED if name in names]
    return partition + (f"\nCLUSTER BY {', '.join(clustered)}" if clustered else "")


def _dialect(dataset: str) -> Dialect:
    """How BigQuery says things for this dataset, which has an information_schema of its own."""
    place = f"{_quoted(dataset)}.INFORMATION_SCHEMA"
    return Dialect(
        types=_TYPES,
        key="PRIMARY KEY ({columns}) NOT ENFORCED",
        columns=f"SELECT table_name, column_name, data_type FROM {place}.COLUMNS ORDER BY table_name, ordinal_position",
        quoted=_quoted,
        literal=backslash_quoted,
        column_comment=" OPTIONS (description = {comment})",
        table_comment="\nOPTIONS (description = {comment})",
        view_comment=" OPTIONS (description = {comment})",
        table_options=_options,
        schema="",
        rehearsal=None,
        temporary="CREATE TEMP TABLE",
        before=(_BEGIN,),
    )


class _Session(Session):
    """A client of one dataset. It collects the statements from BEGIN on, and runs them as one script on commit."""

    def __init__(self, project: str, dataset: str) -> None:
        self.where = f"bigquery://{project}/{dataset}"
        self._translated_errors = partial(translated_errors, self.where, GoogleAPIError, GoogleAuthError, OSError)
        self._dataset = f"{project}.{dataset}"
        self._script: list[str] = []
        self._staged: list[str] = []
        with self._translated_errors():
            config = bigquery.QueryJobConfig(default_dataset=self._dataset)
            self._client = bigquery.Client(project=project, default_query_job_config=config)

    def query(self, sql: str) -> pa.Table:
        with self._translated_errors():
            return self._client.query(sql).to_arrow(create_bqstorage_client=False)

    def execute(self, sql: str) -> None:
        if self._script or sql == _BEGIN:
            self._script.append(sql)
        else:
            self._run(sql)

    def append(self, namespace: str, table: str, pieces: Iterable[pa.Table]) -> None:
        with spooled(pieces) as file:
            self._stage(f"{_quoted(namespace)}.{_quoted(table)}" if namespace else table, file)

    def commit(self) -> None:
        script, self._script = self._script, []
        if script:
            self._run(";\n".join([*script, _COMMIT]))
        self._clear()

    def rollback(self) -> None:
        self._script = []
        self._clear()

    def close(self) -> None:
        self._client.close()

    def _run(self, sql: str) -> None:
        """Run a statement or a script at once, and wait for its end."""
        with self._translated_errors():
            self._client.query(sql).result()

    def _stage(self, target: str, file: Spooled) -> None:
        """Load the file into a staged table, and let the script copy its rows into the target."""
        fields = [bigquery.SchemaField(column.name, _TYPES[COLUMN_TYPES.index(column.type)]) for column in file.schema]
        staged = bigquery.Table(f"{self._dataset}.metrics_etl_staged_{uuid4().hex}", fields)
        staged.expires = datetime.now(UTC) + _STAGED_FOR
        config = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_APPEND", schema=staged.schema)
        with self._translated_errors(), open(file.path, "rb") as content:  # noqa: PTH123 paths are not for this room
            self._client.create_table(staged)
            self._staged.append(staged.table_id)
            loaded = self._client.load_table_from_file(content, staged, job_config=config).result().output_rows
        if loaded != file.rows:
            raise DestinationError(f"{self.where}: {target} accepted {loaded} of {file.rows} rows. Load again")
        names = ", ".join(map(_quoted, file.schema.names))
        self._script.append(f"INSERT INTO {target} ({names}) SELECT {names} FROM {_quoted(staged.table_id)}")

    def _clear(self) -> None:
        """Delete the staged tables."""
        while self._staged:
            with self._translated_errors():
                self._client.delete_table(f"{self._dataset}.{self._staged.pop()}", not_found_ok=True)


def connect(url: str, namespace: str, _on_wait: Callable[[], None] = do_nothing) -> SqlWarehouse:
    """The dataset of ``bigquery://project/dataset``; without one, the dataset has the name ``namespace``.

    Credentials are Google's application default credentials.
    """
    project, _, dataset = url.partition("://")[2].strip("/").partition("/")
    dataset = dataset or namespace
    return SqlWarehouse(_Session(project, dataset), _dialect(dataset), dataset)
