"""PostgreSQL 14 and later, by ADBC: rows go in and out by COPY, as Arrow.

The driver waits for its server without a limit. So it is called in the background, and this module gives it up.
"""

import re
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
from etl.load.warehouse.postgresql_tables import DIALECT
from etl.load.warehouse.sql import SqlWarehouse, streamed
from etl.model.wording import counted

T = TypeVar("T")

CONNECT_SECONDS, LOCK_SECONDS = 30, 600
"""How long a server may take to answer, and somebody else to keep a lock, where nothing else says so: both would do for ever."""
ANSWER_SECONDS = 3600
"""How long a statement may take, or a server be silent while rows are sent, where the role has no ``statement_timeout``."""
GRACE_SECONDS = 5
"""How long after its ``statement_timeout`` a server may be silent, or after it was told to cancel a statement."""
_LOOK_SECONDS = 0.2
_OF_THE_DRIVER = re.compile(r"(?s)(?<= query) '.*?'(?=: )")
"""A query of the driver's own, in an error, of many lines."""
_UNTRANSLATABLE = "22P05"
_NUL, _REPLACEMENT = "\0", "\N{REPLACEMENT CHARACTER}"


class _Session:
    def __init__(self, url: str, on_wait: Callable[[], None]) -> None:
        self.where = url.partition("?")[0]
        self._on_wait = on_wait
        self._replaced = 0
        self._is_begun = self._is_lost = False
        self._cancel: Callable[[], None] | None = None
        self._most_seconds = float(ANSWER_SECONDS)
        self._silent_seconds = 0.0
        self._opened = ExitStack()

        def open_both() -> tuple[dbapi.Connection, dbapi.Cursor]:
            connection = self._opened.enter_context(closing(dbapi.connect(_with_limits(url))))
            return connection, self._opened.enter_context(closing(connection.cursor()))

        self._connection, self._cursor = self._answer(open_both)
        self._cancel = self._connection.adbc_cancel
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        limit = self.query("SELECT setting::bigint AS ms FROM pg_settings WHERE name = 'statement_timeout'")
        if limit_ms := limit.column("ms")[0].as_py():
            self._most_seconds = limit_ms / 1000 + GRACE_SECONDS
        self.commit()

    def _begin(self) -> None:
        """Set what a transaction needs: behind a pooler, each may be in another session of the server.

        Rows come and go as UTF-8, whatever PGCLIENTENCODING or the role says.
        """
        if self._is_begun:
            return
        self._is_begun = True
        self.execute(
            "SELECT set_config('client_encoding', 'UTF8', true), CASE current_setting('lock_timeout') "
            f"WHEN '0' THEN set_config('lock_timeout', '{LOCK_SECONDS}s', true) END"
        )

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
            with streamed(self._heard(pieces)) as rows:
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
        """The result of the work, during which ``on_wait`` may raise. If it does, or the server is silent, cancel the statement."""
        if self._is_lost:
            raise DestinationError(f"{self.where}: the connection was given up")
        self._silent_seconds = 0.0
        answer = in_background(work)
        try:
            while not wait([answer], timeout=_LOOK_SECONDS).done:
                self._on_wait()
                self._silent_seconds += _LOOK_SECONDS
                if self._silent_seconds > self._most_seconds:
                    raise DestinationError(  # noqa: TRY301 as where ``on_wait`` raises
                        f"{self.where}: the server has not answered for {self._most_seconds:,.0f} s: "
                        "if it is only slow, give the role a longer statement_timeout"
                    )
        except BaseException:
            self._is_lost = True  # from here on, no rows are sent
            if self._cancel is not None:
                in_background(self._cancel)  # where the whole server is stopped, this waits as well
                self._is_lost = not wait([answer], timeout=GRACE_SECONDS).done
            if self._is_lost:
                answer.add_done_callback(self._close_lost)  # nothing may be closed while the driver is in a call
            raise
        with self._naming(sql):
            return answer.result()

    def _heard(self, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The pieces, for each of which the server has taken the one before."""
        for piece in pieces:
            if self._is_lost:
                raise DestinationError(f"{self.where}: the connection was given up")
            self._silent_seconds = 0.0
            yield piece
            self._silent_seconds = 0.0

    @contextmanager
    def _naming(self, sql: str = "") -> Iterator[None]:
        try:
            yield
        except Error as exc:
            text, *more = _OF_THE_DRIVER.sub("", str(exc).replace(f" '{sql}'", "")).splitlines() or [""]
            hints = [line.removeprefix("HINT:").strip().rstrip(".") for line in more if line.startswith("HINT:")]
            hints += ["use a database whose encoding is UTF8"] if exc.sqlstate == _UNTRANSLATABLE else []
            raise DestinationError(": ".join([f"{self.where}: {text}", *hints])) from exc


def _with_limits(url: str) -> str:
    """With what tells how soon a server is given up, unless the URL says so: one that vanishes, after two minutes."""
    limits = {
        "connect_timeout": CONNECT_SECONDS, "keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6,
        "tcp_user_timeout": 120_000,
    }  # fmt: skip
    added = "&".join(f"{name}={value}" for name, value in limits.items() if f"{name}=" not in url)
    begun = url.rstrip("?&")
    return f"{begun}{'&' if '?' in begun else '?'}{added}" if added else url


def connect(url: str, namespace: str, on_wait: Callable[[], None]) -> SqlWarehouse:
    """The database at this URL; a password comes from PGPASSWORD or the file ~/.pgpass."""
    return SqlWarehouse(_Session(url, on_wait), DIALECT, namespace)
