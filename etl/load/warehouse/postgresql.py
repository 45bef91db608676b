"""PostgreSQL 14 and later, by ADBC: rows go in and out by COPY, as Arrow."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi

from etl.errors import DestinationError
from etl.load.warehouse.postgresql_tables import DIALECT
from etl.load.warehouse.sql import SqlWarehouse, streamed
from etl.model.wording import counted

CONNECT_SECONDS, LOCK_SECONDS = 30, 600
"""How long a server may take to answer, and somebody else to keep a lock, where nothing else says so: both would do for ever."""
_NUL, _REPLACEMENT = "\0", "\N{REPLACEMENT CHARACTER}"


class _Session:
    def __init__(self, url: str) -> None:
        self.where = url.partition("?")[0]
        self._replaced = 0
        with self._naming():
            self._connection = dbapi.connect(_with_limits(url))
            self._cursor = self._connection.cursor()
            # Rows come and go as UTF-8, whatever PGCLIENTENCODING or the role says.
            self._cursor.execute("SET client_encoding = 'UTF8'")
            self._cursor.execute(
                f"SELECT set_config('lock_timeout', '{LOCK_SECONDS}s', false) WHERE current_setting('lock_timeout') = '0'"
            )
            self._connection.commit()

    @property
    def notices(self) -> list[str]:
        if not self._replaced:
            return []
        return [
            f"{counted(self._replaced, 'value')} contained U+0000, which PostgreSQL cannot store: it was replaced by U+FFFD"
        ]

    def query(self, sql: str) -> pa.Table:
        with self._naming(sql):
            self._cursor.execute(sql)
            return self._cursor.fetch_arrow_table()

    def execute(self, sql: str) -> None:
        with self._naming(sql):
            self._cursor.execute(sql)

    def append(self, namespace: str, table: str, pieces: Iterable[pa.Table]) -> None:
        place = {"db_schema_name": namespace} if namespace else {"temporary": True}
        with streamed(pieces) as rows, self._naming():
            if rows is not None:
                self._cursor.adbc_ingest(table, rows, mode="append", **place)

    def commit(self) -> None:
        with self._naming():
            self._connection.commit()

    def rollback(self) -> None:
        with self._naming():
            self._connection.rollback()

    def close(self) -> None:
        with self._naming():
            self._cursor.close()
            self._connection.close()

    def as_stored(self, rows: pa.Table) -> pa.Table:
        for number, field in enumerate(rows.schema):
            if pa.types.is_string(field.type):
                column = rows.column(number)
                if found := pc.sum(pc.match_substring(column, _NUL)).as_py():
                    self._replaced += found
                    rows = rows.set_column(number, field, pc.replace_substring(column, _NUL, _REPLACEMENT))
        return rows

    @contextmanager
    def _naming(self, sql: str = "") -> Iterator[None]:
        try:
            yield
        except Error as exc:
            text = str(exc).replace(f" '{sql}'", "").partition("\n")[0]
            raise DestinationError(f"{self.where}: {text}") from exc


def _with_limits(url: str) -> str:
    """With what tells how soon a server is given up, unless the URL says so: one that vanishes, after two minutes."""
    limits = {
        "connect_timeout": CONNECT_SECONDS, "keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6,
        "tcp_user_timeout": 120_000,
    }  # fmt: skip
    added = "&".join(f"{name}={value}" for name, value in limits.items() if f"{name}=" not in url)
    return f"{url}{'&' if '?' in url else '?'}{added}" if added else url


def connect(url: str, namespace: str) -> SqlWarehouse:
    """The database at this URL; a password comes from PGPASSWORD or the file ~/.pgpass."""
    return SqlWarehouse(_Session(url), DIALECT, namespace)
