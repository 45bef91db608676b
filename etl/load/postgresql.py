"""PostgreSQL 14 and later, by ADBC: rows go in and out by COPY, as Arrow.

The driver waits for its server without a limit and cannot be interrupted. So each call runs in a thread, and this
module decides how long to wait for it. The ``Dialect`` stands in ``postgresql_script.py``, since ``schema --ddl``
prints it without the driver.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi

from etl.errors import DestinationError, WarehouseUnavailableError
from etl.files.background import in_background
from etl.load.drivers import passes, streamed
from etl.load.postgresql_script import POSTGRESQL
from etl.load.sql import Session, SqlWarehouse
from etl.load.statements import DATA
from etl.load.texts import sql_quoted
from etl.model.wording import counted

T = TypeVar("T")

CONNECT_SECONDS = 30
"""How long a server may take to answer, unless the URL says otherwise."""
LOCK_SECONDS = 600
"""How long somebody else may keep a lock, or a transaction be idle, unless role or database say otherwise."""
STATEMENT_SECONDS = 3600
"""How long a statement may run, unless role or database say otherwise."""
_KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}
"""Settings of TCP, in seconds and probes, by which each side notices within two minutes that the other has vanished."""
_VANISHED_MS = 120_000
"""How long either side waits for the other to acknowledge what it sent."""
_CLIENT_CHECK = "2s"
"""How often a server that runs a statement, or waits for a lock, checks that its client is still there."""
_GRACE_SECONDS = 5
"""How long a server may take to cancel a statement."""
_WAIT_SECONDS = 0.2
"""How often ``on_wait`` is called."""
_OF_HOST = re.compile("connection to server |could not translate host name ")
"""Begins what libpq says of each of several hosts."""
_NUL = "\0"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_NOT_IN_JSONB = r"\\u(?:0000|[dD][89a-fA-F])"
"""Finds texts that may hold an escape that jsonb refuses; ``_ESCAPE`` then finds the escape."""
_ESCAPE = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u(?:0000|[dD][89a-fA-F]..))|\\.")
"""An escape in a JSON text: a surrogate pair; as group 1, a NUL or half a pair, which jsonb refuses; any other."""
_JSON_NAMES = {column.name for _, table in DATA for column in table.columns if column.is_json}
_HINTS = {
    "row-level security": "Give this role BYPASSRLS, or disable row-level security on the table",
    "22P05": "Create the database with ENCODING 'UTF8'",
    "UTF8 and SQL_ASCII": "Create the database with ENCODING 'UTF8'",
    "25006": "This role or database is read-only (default_transaction_read_only). Name a role that may write",
    "40001": "Someone else changed these rows at the same time. Load again",
    "42501": 'See "Permissions" in docs/warehouses.md',
}
"""What to do about an error, by its sqlstate or a part of its text; the first that fits."""
_ON_REPLICA = {"25006": "This server is a replica. Name the primary in [warehouse] url"}
"""The same, on a server that follows another one."""
_PASSING_STATES = {"57P01", "57P02", "57P03", "53300", "40P01", "40001"}
"""What passes by itself: a server that stops or starts, no free connection, a deadlock, a change by somebody else."""


class _Session(Session):
    """One connection, whose calls run in a thread. It is lost if a call does not end when it is cancelled."""

    def __init__(self, url: str, on_wait: Callable[[], None]) -> None:
        self.where = url.partition("?")[0]
        self._on_wait = on_wait
        self._replaced = 0
        self._is_begun = False
        self._hints = _HINTS
        self._is_lost = False
        self._cancel: Callable[[], None] | None = None
        self._opened = ExitStack()

        def open_both() -> tuple[dbapi.Connection, dbapi.Cursor]:
            connection = self._opened.enter_context(closing(dbapi.connect(_with_limits(url))))
            return connection, self._opened.enter_context(closing(connection.cursor()))

        self._connection, self._cursor = self._answer(open_both)
        self._cancel = self._connection.adbc_cancel

    def _begin(self) -> None:
        """Begin a transaction with its settings: behind a pooler, each may be in another session of the server.

        Rows come and go as UTF-8, whatever PGCLIENTENCODING or the role says. A policy that would hide rows makes a
        statement fail. A server that did not notice that its
        loader is gone would keep the loader's locks for hours.
        """
        if self._is_begun:
            return
        self._is_begun = True
        settings = {"client_encoding": "UTF8", "row_security": "off", "tcp_user_timeout": _VANISHED_MS}
        settings |= {f"tcp_{name}": value for name, value in _KEEPALIVES.items()}
        limits = dict.fromkeys(["lock_timeout", "idle_in_transaction_session_timeout"], LOCK_SECONDS)
        limits["statement_timeout"] = STATEMENT_SECONDS
        calls = [f"set_config('{name}', '{value}', true)" for name, value in settings.items()]
        calls += [
            f"CASE current_setting('{name}') WHEN '0' THEN set_config('{name}', '{seconds}s', true) END"
            for name, seconds in limits.items()
        ]
        # Only on Linux is a server sure to be able to check its client; another one may refuse the setting.
        client_check = f"set_config('client_connection_check_interval', '{_CLIENT_CHECK}', true)"
        calls.append(f"CASE WHEN version() LIKE '%linux%' THEN {client_check} END")
        self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        (begun,) = self.query(f"SELECT {', '.join(calls)}, pg_is_in_recovery() AS is_replica").to_pylist()
        self._hints = {**_HINTS, **_ON_REPLICA} if begun["is_replica"] else _HINTS

    @property
    def notices(self) -> list[str]:
        if not self._replaced:
            return []
        text = f"{counted(self._replaced, 'value')} contained U+0000, or an unpaired surrogate in JSON, "
        return [text + "which PostgreSQL cannot store. These characters were replaced by U+FFFD"]

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
        target = {"db_schema_name": namespace} if namespace else {"temporary": True}
        jsonb_columns = (
            f"SELECT CAST(column_name AS text) AS name FROM information_schema.columns WHERE data_type = 'jsonb' "
            f"AND table_schema = {sql_quoted(namespace)} AND table_name = {sql_quoted(table)}"
        )
        names = {row["name"] for row in self.query(jsonb_columns).to_pylist()} if namespace else set()

        def send() -> None:
            with streamed(_as_json(piece, names) for piece in pieces) as rows:
                self._cursor.adbc_ingest(table, rows, mode="append", **target)

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
        """Close a lost connection, once its last call has ended after all."""
        with suppress(Error):
            self._opened.close()

    def as_stored(self, rows: pa.Table) -> pa.Table:
        for number, field in enumerate(rows.schema):
            if pa.types.is_string(field.type):
                column = rows.column(number)
                if values_with_nul := pc.sum(pc.match_substring(column, _NUL)).as_py():
                    self._replaced += values_with_nul
                    rows = rows.set_column(number, field, pc.replace_substring(column, _NUL, _REPLACEMENT))
                if field.name in _JSON_NAMES and pc.any(pc.match_substring_regex(column, _NOT_IN_JSONB)).as_py():
                    texts = [text and _ESCAPE.sub(self._in_jsonb, text) for text in rows.column(number).to_pylist()]
                    rows = rows.set_column(number, field, pa.array(texts, field.type))
        return rows

    def _in_jsonb(self, escape: re.Match[str]) -> str:
        """The escape as jsonb takes it."""
        if escape[1] is None:
            return escape[0]
        self._replaced += 1
        return r"\ufffd"

    def _answer(self, work: Callable[[], T], sql: str = "") -> T:
        """The result of the work, which runs in a thread. If ``on_wait`` raises meanwhile, the statement is cancelled.

        A call of the driver that does not end then is left to its thread, and the connection is lost: the server may be
        stopped.
        """
        if self._is_lost:
            raise DestinationError(f"the connection to {self.where} was lost. Load again")
        answer = in_background(work)
        try:
            while not wait([answer], timeout=_WAIT_SECONDS).done:
                self._on_wait()
        except BaseException:
            if self._cancel is not None:
                in_background(self._cancel)  # this waits, too, if the whole server is stopped
                wait([answer], timeout=_GRACE_SECONDS)
            if not answer.done():
                self._is_lost = True
                answer.add_done_callback(self._close_lost)  # nothing may be closed during a call of the driver
            raise
        with self._translated_errors(sql):
            return answer.result()

    @contextmanager
    def _translated_errors(self, sql: str = "") -> Iterator[None]:
        """Raise an error of the driver as one line without the statement, with the server's hint and ours."""
        try:
            yield
        except Error as exc:
            text, *more = str(exc).replace(f" '{sql}'", "").splitlines() or [""]
            text = "; ".join([text, *(line for line in more if _OF_HOST.match(line))])
            hints = [line.removeprefix("HINT:").strip().rstrip(".") for line in more if line.startswith("HINT:")]
            hints += [hint for part, hint in self._hints.items() if part == exc.sqlstate or part in text][:1]
            is_passing = exc.sqlstate in _PASSING_STATES or passes(str(exc))
            kind = WarehouseUnavailableError if is_passing else DestinationError
            raise kind(". ".join([f"{self.where}: {text}", *hints])) from exc


def _as_json(rows: pa.Table, names: Collection[str]) -> pa.Table:
    """The rows, with those of these columns that they have as JSON, which COPY into jsonb needs, instead of texts."""
    for name in {*rows.column_names} & {*names}:
        column = rows[name].combine_chunks().cast(pa.json_())
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def _with_limits(url: str) -> str:
    """The URL with limits for a server that does not answer, or vanishes, except those that it sets itself."""
    limits = {"connect_timeout": CONNECT_SECONDS, **_KEEPALIVES, "tcp_user_timeout": _VANISHED_MS}
    added = "&".join(f"{name}={value}" for name, value in limits.items() if f"{name}=" not in url)
    return f"{url}{'&' if '?' in url else '?'}{added}" if added else url


def connect(url: str, namespace: str, on_wait: Callable[[], None]) -> SqlWarehouse:
    """The database at this URL; a password comes from PGPASSWORD or the file ~/.pgpass.

    Raises:
        DestinationError: the server cannot be reached, or refuses the connection.
    """
    return SqlWarehouse(_Session(url, on_wait), POSTGRESQL, namespace)
