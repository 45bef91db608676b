"""PostgreSQL 14 and later, by ADBC: rows go in and out by COPY, as Arrow.

The driver waits for its server without a limit. So it is called in the background, and this module gives it up.
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

from etl.errors import DestinationError
from etl.files.background import in_background
from etl.load.drivers import streamed
from etl.load.sql import Session, SqlWarehouse
from etl.load.statements import DATA, POSTGRESQL
from etl.load.tables import sql_quoted
from etl.model.wording import counted

T = TypeVar("T")

CONNECT_SECONDS, LOCK_SECONDS, STATEMENT_SECONDS = 30, 600, 3600
"""How long a server may take to answer, somebody else to keep a lock, and a statement to run, where nothing else says so."""
_KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}
_VANISHED_MS = 120_000
"""How long who does not answer is believed to be there: the server by the loader, and the loader by the server."""
_CLIENT_CHECK = "2s"
"""How often a server that is busy, or waits for a lock, looks whether its client was killed."""
_GRACE_SECONDS = 5
"""How long a server may take to cancel a statement."""
_LOOK_SECONDS = 0.2
_NUL, _REPLACEMENT = "\0", "\N{REPLACEMENT CHARACTER}"
_NOT_IN_JSONB = r"\\u(?:0000|[dD][89a-fA-F])"
_ESCAPE = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u(?:0000|[dD][89a-fA-F]..))|\\.")
"""Of a JSON text: a pair that is one character; a NUL or half a pair, which jsonb refuses; any other."""
_JSON_NAMES = {column.name for _, table in DATA for column in table.columns if column.is_json}
_HINTS = {
    "25006": "name the primary in [warehouse] url",
    "40001": "someone else changed these rows at the same time: load again",
    "42501": 'see "Permissions" in docs/warehouses.md',
}
"""What to do, by sqlstate."""


class _Session(Session):
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

        Rows come and go as UTF-8, whatever PGCLIENTENCODING or the role says. A loader that is gone is noticed by its server, which
        would keep its locks for hours.
        """
        if self._is_begun:
            return
        self._is_begun = True
        settings = {"client_encoding": "UTF8", "tcp_user_timeout": str(_VANISHED_MS)}
        settings |= {f"tcp_{name}": str(value) for name, value in _KEEPALIVES.items()}
        limits = {"lock_timeout": LOCK_SECONDS, "statement_timeout": STATEMENT_SECONDS}
        limits["idle_in_transaction_session_timeout"] = LOCK_SECONDS
        chosen = [f"set_config('{name}', '{value}', true)" for name, value in settings.items()]
        chosen += [
            f"CASE current_setting('{name}') WHEN '0' THEN set_config('{name}', '{seconds}s', true) END"
            for name, seconds in limits.items()
        ]
        # Elsewhere a server may not be able to look, and would refuse.
        look = f"set_config('client_connection_check_interval', '{_CLIENT_CHECK}', true)"
        chosen.append(f"CASE WHEN version() LIKE '%linux%' THEN {look} END")
        self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self.execute(f"SELECT {', '.join(chosen)}")

    @property
    def notices(self) -> list[str]:
        if not self._replaced:
            return []
        what = "contained U+0000, or an unpaired surrogate in JSON, which PostgreSQL cannot store: it was replaced by U+FFFD"
        return [f"{counted(self._replaced, 'value')} {what}"]

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
        in_jsonb = (
            f"SELECT CAST(column_name AS text) AS name FROM information_schema.columns WHERE data_type = 'jsonb' "
            f"AND table_schema = {sql_quoted(namespace)} AND table_name = {sql_quoted(table)}"
        )
        names = {row["name"] for row in self.query(in_jsonb).to_pylist()} if namespace else set()

        def send() -> None:
            with streamed(_as_json(piece, names) for piece in pieces) as rows:
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
                if field.name in _JSON_NAMES and pc.any(pc.match_substring_regex(column, _NOT_IN_JSONB)).as_py():
                    texts = [text and _ESCAPE.sub(self._in_jsonb, text) for text in rows.column(number).to_pylist()]
                    rows = rows.set_column(number, field, pa.array(texts, field.type))
        return rows

    def _in_jsonb(self, found: re.Match[str]) -> str:
        self._replaced += found[1] is not None
        return found[0] if found[1] is None else r"\ufffd"

    def _answer(self, work: Callable[[], T], sql: str = "") -> T:
        """The result of the work, during which ``on_wait`` may raise: then the statement is cancelled."""
        if self._is_lost:
            raise DestinationError(f"{self.where}: the connection was lost: load again")
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
            hints += [hint for state, hint in _HINTS.items() if state == exc.sqlstate]
            raise DestinationError(": ".join([f"{self.where}: {text}", *hints])) from exc


def _as_json(rows: pa.Table, names: Collection[str]) -> pa.Table:
    """The rows, with these columns as JSON and not as texts."""
    for name in {*rows.column_names} & {*names}:
        column = rows[name].combine_chunks().cast(pa.json_())
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def _with_limits(url: str) -> str:
    """With what tells how soon a server is given up, unless the URL says so: one that vanishes, after two minutes."""
    limits = {"connect_timeout": CONNECT_SECONDS, **_KEEPALIVES, "tcp_user_timeout": _VANISHED_MS}
    added = "&".join(f"{name}={value}" for name, value in limits.items() if f"{name}=" not in url)
    return f"{url}{'&' if '?' in url else '?'}{added}" if added else url


def connect(url: str, namespace: str, on_wait: Callable[[], None]) -> SqlWarehouse:
    """The database at this URL; a password comes from PGPASSWORD or the file ~/.pgpass."""
    return SqlWarehouse(_Session(url, on_wait), POSTGRESQL, namespace)
