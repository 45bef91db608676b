"""PostgreSQL 14 and later, by ADBC: rows go in and out by COPY, as Arrow.

The driver waits for its server without a limit. So it is called in the background, and this module gives it up.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi

from etl.errors import DestinationError
from etl.load.background import in_background
from etl.load.warehouse.sql import SqlWarehouse
from etl.load.warehouse.statements import POSTGRESQL
from etl.load.warehouse.target import streamed
from etl.model.wording import counted

T = TypeVar("T")

CONNECT_SECONDS, LOCK_SECONDS, STATEMENT_SECONDS = 30, 600, 3600
"""How long a server may take to answer, somebody else to keep a lock, and a statement to run, where nothing else says so."""
_GRACE_SECONDS = 5
"""How long a server may take to cancel a statement."""
_LOOK_SECONDS = 0.2
_NUL, _REPLACEMENT = "\0", "\N{REPLACEMENT CHARACTER}"


class _Session:
    def __init__(self, url: str, on_wait: Callable[[], None]) -> None:
        self.where = url.partition("?")[0]
        self._on_wait = on_wait
        self._replaced = 0
        self._is_begun = self._is_lost = False
        self._cancel: Callable[[], None] | None = None
        self._opened = ExitStack()

        def open_both() -> tuple[dbapi.Connection, dbapi.Cursor]:
            connection = self._opened.enter_context(closing(dbapi.connect(_with_limits(url))))
            return connection, self._opened.enter_context(closing(connection.cursor()))

        self._connection, self._cursor = self._answer(open_both)
        self._cancel = self._connection.adbc_cancel

    def _begin(self) -> None:
        """Set what a transaction needs: behind a pooler, each may be in another session of the server.

        Rows come and go as UTF-8, whatever PGCLIENTENCODING or the role says.
        """
        if self._is_begun:
            return
        self._is_begun = True
        limits = {"lock_timeout": LOCK_SECONDS, "statement_timeout": STATEMENT_SECONDS}
        unless_set = (
            f", CASE current_setting('{name}') WHEN '0' THEN set_config('{name}', '{seconds}s', true) END"
            for name, seconds in limits.items()
        )
        self.execute(f"SELECT set_config('client_encoding', 'UTF8', true){''.join(unless_set)}")

    @property
    def notices(self) -> list[str]:
        if not self._replaced:
            return []
        return [
            f"{counted(self._replaced, 'value')} contained U+0000, which PostgreSQL cannot store: it was replaced by U+FFFD"
        ]

    def query(self, sql: str) -> pa.Table:
        self._begin()

        def fetch() -> pa.Table:
            self._cursor.execute(sql)
            return self._cursor.fetch_arrow_table()

        return self._answer(fetch, sql)

    def execute(self, sql: str) -> None:
        self._begin()
        self._answer(lambda: self._cursor.execute(sql), sql)

    def append(self, namespace: str, table: str, pieces: Iterable[pa.Table]) -> None:
        self._begin()
        place = {"db_schema_name": namespace} if namespace else {"temporary": True}

        def send() -> None:
            with streamed(pieces) as rows:
                if rows is not None:
                    self._cursor.adbc_ingest(table, rows, mode="append", **place)

        self._answer(send)

    def commit(self) -> None:
        self._is_begun = False
        self._answer(self._connection.commit)

    def rollback(self) -> None:
        self._is_begun = False
        self._answer(self._connection.rollback)

    def close(self) -> None:
        if not self._is_lost:
            self._answer(self._opened.close)

    def _close_lost(self, _answer: object) -> None:
        with suppress(Error):
            self._opened.close()

    def as_stored(self, rows: pa.Table) -> pa.Table:
        for number, field in enumerate(rows.schema):
            if pa.types.is_string(field.type):
                column = rows.column(number)
                if found := pc.sum(pc.match_substring(column, _NUL)).as_py():
                    self._replaced += found
                    rows = rows.set_column(number, field, pc.replace_substring(column, _NUL, _REPLACEMENT))
        return rows

    def _answer(self, work: Callable[[], T], sql: str = "") -> T:
        """The result of the work, during which ``on_wait`` may raise: then the statement is cancelled."""
        if self._is_lost:
            raise DestinationError(f"{self.where}: the connection was given up")
        answer = in_background(work)
        try:
            while not wait([answer], timeout=_LOOK_SECONDS).done:
                self._on_wait()
        except BaseException:
            if self._cancel is not None:
                in_background(self._cancel)  # where the whole server is stopped, this waits as well
                wait([answer], timeout=_GRACE_SECONDS)
            if not answer.done():
                self._is_lost = True
                answer.add_done_callback(self._close_lost)  # nothing may be closed while the driver is in a call
            raise
        with self._naming(sql):
            return answer.result()

    @contextmanager
    def _naming(self, sql: str = "") -> Iterator[None]:
        try:
            yield
        except Error as exc:
            text, *more = str(exc).replace(f" '{sql}'", "").splitlines() or [""]
            hints = [line.removeprefix("HINT:").strip().rstrip(".") for line in more if line.startswith("HINT:")]
            raise DestinationError(": ".join([f"{self.where}: {text}", *hints])) from exc


def _with_limits(url: str) -> str:
    """With what tells how soon a server is given up, unless the URL says so: one that vanishes, after two minutes."""
    limits = {
        "connect_timeout": CONNECT_SECONDS, "keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6,
        "tcp_user_timeout": 120_000,
    }  # fmt: skip
    added = "&".join(f"{name}={value}" for name, value in limits.items() if f"{name}=" not in url)
    return f"{url}{'&' if '?' in url else '?'}{added}" if added else url


def connect(url: str, namespace: str, on_wait: Callable[[], None]) -> SqlWarehouse:
    """The database at this URL; a password comes from PGPASSWORD or the file ~/.pgpass."""
    return SqlWarehouse(_Session(url, on_wait), POSTGRESQL, namespace)
